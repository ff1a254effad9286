"""Following the signals from a position: what is in memory, and which records must be read from Kafka first. Pure."""

from __future__ import annotations

import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from chandlery.console.market import SignalEvent, SignalQuery
from chandlery.console.reading.corrections import Corrections
from chandlery.console.reading.entries import Entry, Key, entry_of, short
from chandlery.console.reading.positions import OVERLAP_MS, Place, Position
from chandlery.console.reading.signal_log import Event, Partition, SignalLog
from chandlery.core.signal_life import Lives, SignalLife
from chandlery.core.signals import Completion, Life, Signal, SignalsRecord, decode_record
from chandlery.core.wire import UNDECODABLE

#: Signals of a replay whose completion may still come; it follows within milliseconds.
_MOST_JOINED: Final = 2_000
#: Events looked at in one go, at about 2 µs each.
_TURN_EVENTS: Final = 1_000


class Turn(NamedTuple):
    """Many events were looked at, none of them asked for: others shall have their turn."""


class Missing(NamedTuple):
    """Records ``begin`` … ``end`` (not included) of a partition, which are not in memory."""

    partition: Partition
    begin: int
    end: int


class Unplaced(NamedTuple):
    """A partition where it has to be asked of Kafka from which offset on to tell.

    Attributes:
        offset: where the position is, beyond what was read here; -1: the partition isn't in it. Kafka's end says
            whether another reads faster, or the position is of records that are no more.
        since_ms: where the offset is no use: from what was appended then.
    """

    partition: Partition
    offset: int
    since_ms: int

    def within(self, end: int) -> bool:
        """Whether the position's offset is one of a topic that ends there."""
        return 0 <= self.offset <= end


@dataclass(slots=True)
class Replayed:
    """One record that was read from Kafka again."""

    offset: int
    append_ms: int
    value: bytes | None


class Follower:
    """One who follows, at its own place in the log's events.

    Call :meth:`next` until it gives None, then wait for news. Where it gives :class:`Missing`, read those records and
    hand them to :meth:`replay`, in order, and say by :meth:`replayed_to` how far that is; where it gives
    :class:`Unplaced`, find the offset and :meth:`place_at` it. Where Kafka doesn't answer, :meth:`postpone` the
    partition: all others go on.

    Args:
        position: what it has been told already; None: it wants what comes from now on. Owned by the follower.
        counts: shared by many: ``overtaken`` (events lost by being slow), ``replayed`` (records read again).
        now_ms: wall clock, ms: what of a signal's life has ended by now.

    Attributes:
        postponed: partitions that it goes on without.
    """

    def __init__(
        self,
        log: SignalLog,
        position: Position | None,
        query: SignalQuery,
        counts: Counter[str] | None = None,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._log = log
        self._now_ms = now_ms
        self._query = query
        self._resumes = position is not None
        self._position = Position() if position is None else position
        self._resumed_ms = self._position.time_ms
        self._since_ms = max(0, self._resumed_ms - OVERLAP_MS)
        #: While not everything up to the position's time is told: the time up to which it is. None: it is.
        self._whole_ms: int | None = self._resumed_ms if self._resumes else None
        self._lives: dict[Place, int] = {}
        self._placed: set[Place] = set()
        #: Signals that were told with what a later event in memory says of them: their completion, the word on their life.
        self._told_whole: set[str] = set()
        self._told_word: set[str] = set()
        self._joining: OrderedDict[str, Entry] = OrderedDict()
        self._joining_lives = Lives()
        self._corrections = Corrections()
        self._ready: deque[SignalEvent] = deque()
        self._lost = 0
        self._counts = Counter[str]() if counts is None else counts
        self.postponed: dict[Place, Partition] = {}
        self._at = log.next
        self._catching_up = self._resumes
        self._to_place: deque[Place] = deque()
        self._to_meet: deque[Place] = deque()
        if self._resumes:
            self._meet_again()
        else:
            for partition in log.partitions:
                self._lives[partition.place] = partition.life
                # What was there before anybody looked isn't new, though it may still be being read.
                self._position.set(partition.place, max(partition.next, partition.backlog))

    def begin(self) -> str:
        """The position of one who wants what comes from now on, before it was told anything.

        What it doesn't name, such as a feed that comes later, is told from now on by the wall clock.
        """
        return self._position.encode(self._now_ms(), names_all=False)

    def next(self) -> SignalEvent | Missing | Unplaced | Turn | None:
        """The next thing to tell, or what must be had before it; None: there is nothing yet."""
        for _ in range(_TURN_EVENTS):
            if self._ready:
                return self._with_lost(self._ready.popleft())
            if self._to_meet:
                asked = self._meet_next()
                if asked is not None:
                    return asked
                continue
            log = self._log
            if self._at < log.first:
                if self._catching_up:  # while records were read for it: what it hasn't been told is read too
                    self._meet_again()
                    continue
                self._be_overtaken()
            if self._at >= log.next:
                self._catching_up = bool(self.postponed)
                if not any(map(self._is_unplaced, self.postponed.values())):
                    self._whole_ms = None
                self._told_whole.clear()  # every completion of these lies behind
                self._told_word.clear()
                return None
            asked = self._missing_before(log.event(self._at))
            if asked is not None:
                return asked
            self._take(self._at)
            self._at += 1
        return Turn()

    def replay(self, partition: Partition, records: Sequence[Replayed]) -> None:
        """Take in records that were missing, in order."""
        self._counts["replayed"] += len(records)
        self._fall_behind(self._position.time_ms)
        place = partition.place
        have = self._position.get(place) or 0
        completions, decoded = _decoded(records)
        said = [(record, one) for record, one in decoded if record.offset >= have]
        entries, news = self._join(partition, said)
        for record, one in said:
            self._position.set(place, record.offset + 1, record.append_ms)
            if isinstance(one, Completion):
                self._replay_completion(one)
                continue
            entry = entries.get(record.offset)
            if entry is None:
                if record.offset in news:
                    self._replay_word(one)
                continue
            if not entry.whole and one.id in completions:
                entry.complete(completions[one.id])
            self._tell(entry)
        for identity in self._corrections.after((one for _, one in said), self._life_of_joining):
            self._tell(self._joining[identity])
        while len(self._joining) > _MOST_JOINED:
            identity, oldest = self._joining.popitem(last=False)
            self._joining_lives.forget(identity)
            self._corrections.forget(oldest.signal)

    def replayed_to(self, partition: Partition, offset: int, lost: int = 0) -> None:
        """Everything missing before ``offset`` was read, or (``lost`` records) isn't there any more."""
        self._lost += lost
        if offset > (self._position.get(partition.place) or 0):
            self._position.set(partition.place, offset)

    def place_at(self, partition: Partition, offset: int) -> None:
        """Go on at ``offset``."""
        self._placed.add(partition.place)
        self._position.set(partition.place, offset)

    def postpone(self, partition: Partition) -> None:
        """Go on without a partition until :meth:`try_again`."""
        self.postponed[partition.place] = partition
        if self._is_unplaced(partition):
            self._fall_behind(self._resumed_ms)
        if self._to_meet and self._to_meet[0] == partition.place:
            self._to_meet.popleft()

    def try_again(self) -> None:
        """Kafka may answer again: look once more at what was postponed."""
        self.postponed.clear()
        self._fall_behind(self._position.time_ms)
        self._meet_again()

    def _fall_behind(self, whole_ms: int) -> None:
        """What is told next may be newer than what isn't yet: everything is told up to that time only."""
        self._catching_up = True
        self._whole_ms = whole_ms if self._whole_ms is None else min(whole_ms, self._whole_ms)

    # ---- partitions ----

    def _meet_again(self) -> None:
        """Look at every partition first, then at all events in memory: what was told is known by the position."""
        for places in (self._to_place, self._to_meet):
            places.clear()
            places.extend(partition.place for partition in self._log.partitions)
        self._at = self._log.first

    def _place_next(self) -> Unplaced | None:
        """A partition that has no place; None: all have one that can be had now."""
        while self._to_place:
            partition = self._log.partition(self._to_place[0])
            if partition is not None and partition.place not in self.postponed and self._is_unplaced(partition):
                return self._unplaced(partition)
            self._to_place.popleft()
        return None

    def _meet_next(self) -> Missing | Unplaced | None:
        # All are placed before anything is told: a position of what is told then names them all.
        unplaced = self._place_next()
        if unplaced is not None:
            return unplaced
        place = self._to_meet[0]
        partition = self._log.partition(place)
        if partition is not None and place not in self.postponed:
            asked = self._meet(partition, partition.floor)
            if asked is not None:
                return asked
        self._to_meet.popleft()
        if not self._to_meet and any(self._is_behind(partition) for partition in self._log.partitions):
            # Memory has moved on while records were read for another partition.
            self._meet_again()
        return None

    def _is_behind(self, partition: Partition) -> bool:
        have = self._position.get(partition.place)
        return have is not None and have < partition.floor and partition.place not in self.postponed

    def _meet(self, partition: Partition, complete_from: int) -> Missing | Unplaced | None:
        """Bring the position of a partition up to where memory is complete; None: it is."""
        place = partition.place
        if self._lives.get(place, partition.life) < partition.life:
            # The topic was made again while we went on without it: everything in it is new.
            self._position.set(place, partition.begun)
        self._lives[place] = partition.life
        if self._is_unplaced(partition):
            return self._unplaced(partition)
        have = self._position.get(place)
        if have is None:
            self._position.set(place, partition.backlog)
            return None
        return Missing(partition, have, complete_from) if have < complete_from else None

    def _is_unplaced(self, partition: Partition) -> bool:
        """Whether Kafka has to be asked: left out of the position, of a feed that has come since, or beyond the end."""
        have = self._position.get(partition.place)
        return self._resumes and (have is None or (have > partition.next and partition.place not in self._placed))

    def _unplaced(self, partition: Partition) -> Unplaced:
        have = self._position.get(partition.place)
        return Unplaced(partition, -1 if have is None else have, self._since_ms)

    def _missing_before(self, event: Event) -> Missing | Unplaced | None:
        place = event.partition.place
        if place in self.postponed:
            return None
        life = self._lives.get(place)
        if life is None:
            return self._meet(event.partition, event.begin)
        if event.life > life:
            # The topic was made again while we followed: everything in it is new.
            self._lives[place] = event.life
            self._position.set(place, event.begin)
        have = self._position.get(place) or 0
        if event.life == self._lives[place] and have < event.begin:
            return Missing(event.partition, have, event.begin)
        return None

    def _be_overtaken(self) -> None:
        lost = self._log.first - self._at
        self._counts["overtaken"] += lost
        self._lost += lost
        self._at = self._log.first
        self._told_whole.clear()
        self._told_word.clear()
        for partition in self._log.partitions:
            if self._is_behind(partition):
                self._position.set(partition.place, partition.floor)

    # ---- telling ----

    def _take(self, number: int) -> None:
        event = self._log.event(number)
        place, entry = event.partition.place, event.entry
        if place in self.postponed or event.life != self._lives[place]:
            return
        if event.offset < (self._position.get(place) or 0):
            return
        self._position.set(place, event.offset + 1, event.append_ms)
        self._lost += event.lost
        if entry is None:
            return
        if event.first and entry.whole_at > number:
            self._told_whole.add(entry.signal.id)  # its completion has come meanwhile, and is told with it
        if not event.word and entry.word_at > number:
            self._told_word.add(entry.signal.id)
        if not event.first:
            told = self._told_word if event.word else self._told_whole
            if entry.signal.id in told:
                told.discard(entry.signal.id)
                return
        self._tell(entry)

    def _tell(self, entry: Entry) -> None:
        if matches(entry, self._query):
            life = self._life_of(entry)
            self._ready.append(SignalEvent(self._encoded(), short(entry, life)))
            if entry.signal.id in self._joining:
                self._corrections.told(entry.signal, life)

    def _life_of(self, entry: Entry) -> SignalLife:
        return self._life_of_joining(entry.signal.id) or self._log.life_of(entry, self._now_ms())

    def _life_of_joining(self, identity: str) -> SignalLife | None:
        return self._log.life_among(self._joining_lives, identity, self._now_ms())

    def _encoded(self) -> str:
        if self._whole_ms is None:
            return self._position.encode()
        names_all = not any(map(self._is_unplaced, self._log.partitions))
        return self._position.encode(self._whole_ms, names_all=names_all)

    def _with_lost(self, event: SignalEvent) -> SignalEvent:
        if not self._lost:
            return event
        lost, self._lost = self._lost, 0
        return replace(event, lost=lost)

    def _join(
        self, partition: Partition, said: Sequence[tuple[Replayed, SignalsRecord]]
    ) -> tuple[dict[int, Entry], set[int]]:
        """Know the lives in a whole piece before anything of it is told: what ends a signal stands behind it.

        Returns:
            The signals to be told, and the words that say something new of one that was told before this piece, both
            by their offsets.
        """
        entries: dict[int, Entry] = {}
        news: set[int] = set()
        told_here: set[str] = set()
        for record, one in said:
            if isinstance(one, Completion):
                continue
            entry = self._entry_of(partition, record, one) if isinstance(one, Signal) else None
            if entry is not None:
                entries[record.offset] = entry
                told_here.add(one.id)
            joins = one.id in self._joining
            if isinstance(one, Signal) and not joins:
                continue  # the log has it, and its life
            is_new = self._joining_lives.add(one)
            if one.id not in told_here and (is_new or not joins):
                news.add(record.offset)
        return entries, news

    def _entry_of(self, partition: Partition, record: Replayed, signal: Signal) -> Entry | None:
        """The signal of a record that was read again; None where an earlier record told it."""
        key = Key(record.append_ms, partition.place[0].hex(), partition.place[1], record.offset)
        known = self._log.get(signal.id) or self._joining.get(signal.id)
        if known is not None and known.key <= key:
            return known if known.key == key else None
        entry = self._joining[signal.id] = entry_of(signal, partition.feed, key)
        return entry

    def _replay_completion(self, completion: Completion) -> None:
        entry = self._joining.get(completion.id)
        if entry is not None and not entry.whole:
            entry.complete(completion)
            self._tell(entry)

    def _replay_word(self, word: Life | Signal) -> None:
        known = self._joining.get(word.id) or self._log.get(word.id)
        if known is not None:
            self._tell(known)


def _decoded(
    records: Sequence[Replayed],
) -> tuple[dict[str, Completion], list[tuple[Replayed, SignalsRecord]]]:
    """The first completion of each id, and all that can be decoded, in order."""
    completions: dict[str, Completion] = {}
    decoded: list[tuple[Replayed, SignalsRecord]] = []
    for record in records:
        try:
            said: SignalsRecord = decode_record(record.value or b"")
        except UNDECODABLE:
            continue  # counted when it came
        decoded.append((record, said))
        if isinstance(said, Completion):
            completions.setdefault(said.id, said)
    return completions, decoded


def matches(entry: Entry, query: SignalQuery) -> bool:
    """Whether a signal is asked for. Times are those it was emitted at, ``until_ms`` not included."""
    signal = entry.signal
    return (
        query.trader in ("", signal.trader)
        and query.symbol in ("", signal.symbol)
        and query.action in ("", signal.action)
        and query.feed in ("", entry.feed)
        and (query.since_ms is None or signal.emitted_wall_ms >= query.since_ms)
        and (query.until_ms is None or signal.emitted_wall_ms < query.until_ms)
    )
