"""The newest signals of all feeds, and what happened to them, in order. Pure: no clock, no network.

Two bounded things are kept. **Signals**: the ``kept`` of all feeds that came last; by the broker's time for pages, which
is the same after a restart, and by when they came for figures, which no clock that is set back distorts (recency.py).
**Events**, in the order in which they were read, for those who follow: a ring of twice as many, as each signal has one
when it comes and one when its completion does (and some a third, when the close of their candle says what they are). A
follower has its own place in the ring (following.py): however slow it is, it holds nobody up and costs no memory; what it
is overtaken by, it has lost.

Each event says which records of its partition lie between it and the event before (``begin``): whoever has read up to
there, or beyond, misses nothing. ``floor`` of a partition is where the events in memory begin to be complete.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter, OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Final, NamedTuple

from chandlery.console.reading.entries import Entry, Key, entry_of
from chandlery.console.reading.positions import FeedKey, Place
from chandlery.console.reading.recency import Timeline, take_out
from chandlery.console.reading.recency import place as when
from chandlery.core.signal_life import Lives, SignalLife
from chandlery.core.signals import Completion, Life, Signal, SignalsRecord, decode_record
from chandlery.core.wire import UNDECODABLE

#: Completions that came before their signal, and signals no longer kept whose completion may come; the two are
#: milliseconds apart, in one partition.
MOST_EARLY: Final = 10_000
#: Partitions of feeds that are gone, remembered for a feed of the same name that comes: about 200 bytes each.
_MOST_LEFT: Final = 10_000
_EVENTS_PER_SIGNAL: Final = 2
_by_key = attrgetter("key")


@dataclass(slots=True, eq=False)
class Partition:
    """One partition of one feed's signals.

    Attributes:
        life: no other beginning in this log has the same; a higher one is a later one. It stays while the same records
            stand under the same offsets, also where the feed goes and comes back.
        begun: offset from which this life is read.
        next: offset to be read next. told: offset after the record of the newest event.
        floor: from here on every record's event is in memory. backlog: up to here it was history when reading began.
        newest_ms: when the newest record read was appended; 0: none was.
        caught_up_ms: the last moment, by the steady clock, at which all there was had been read; None: none yet.
    """

    feed: str
    place: Place
    life: int
    begun: int
    next: int
    told: int
    floor: int
    backlog: int
    newest_ms: int = 0
    caught_up_ms: int | None = None


class Event(NamedTuple):
    """Something that a record told, or (entry None) that a partition begins or goes on further behind.

    Attributes:
        begin, offset: records ``begin`` … ``offset`` are accounted for by this event.
        first: whether the signal itself came. word: whether something about its life did; else its completion.
        lost: records that Kafka no longer had.
    """

    partition: Partition
    life: int
    begin: int
    offset: int
    append_ms: int
    entry: Entry | None = None
    first: bool = False
    lost: int = 0
    word: bool = False


class SignalLog:
    """See the module.

    Attributes:
        counts: records by what became of them: ``signals``, ``completions``, ``lives``, ``duplicate``, ``undecodable``,
            ``unmatched`` (completions of signals that aren't known), ``old`` (signals older than all that are kept),
            ``restarted`` (partitions whose offsets began anew), ``lost`` (records that Kafka dropped unread).
        first, next: numbers of the oldest event in memory, and of the one to come.
        timeline: the signals kept, by when they came.
    """

    def __init__(self, kept: int) -> None:
        self._kept = max(1, kept)
        self._most_events = _EVENTS_PER_SIGNAL * self._kept
        self.counts: Counter[str] = Counter()
        self.next = 0
        self._events: list[Event] = []
        self._partitions: dict[Place, Partition] = {}
        self._left: OrderedDict[Place, Partition] = OrderedDict()
        self._newest_life = 0
        self._ordered: list[Entry] = []
        self._of_trader: dict[str, list[Entry]] = {}
        self._by_id: dict[str, Entry] = {}
        self.timeline = Timeline()
        self._lives = Lives()
        self._early: OrderedDict[str, Completion] = OrderedDict()
        self._passed: OrderedDict[str, Entry] = OrderedDict()

    # ---- what was read ----

    @property
    def first(self) -> int:
        return self.next - len(self._events)

    @property
    def partitions(self) -> Sequence[Partition]:
        """All that are read, or were."""
        return list(self._partitions.values())

    def partition(self, place: Place) -> Partition | None:
        """One of them."""
        return self._partitions.get(place)

    def begin(self, feed: str, place: Place, offset: int, backlog: int) -> None:
        """A partition is read from ``offset`` on; what is before ``backlog`` was there before anybody looked.

        Where it is read already, its offsets have begun anew: the topic was made again. Where its feed had gone, they
        have if the topic has fewer records than were read of it.
        """
        backlog = max(backlog, offset)
        left = self._left.pop(place, None)
        if left is not None and backlog >= left.next:
            life = left.life
        else:
            self._newest_life += 1
            life = self._newest_life
            if left is not None or place in self._partitions:
                self.counts["restarted"] += 1
        begun = self._partitions[place] = Partition(feed, place, life, offset, offset, offset, offset, backlog)
        self._push(Event(begun, life, offset, offset - 1, 0))

    def leave(self, key: FeedKey) -> None:
        """A feed is gone: positions needn't name it any more. Its signals stay, for as long as they are among the newest."""
        for place in [place for place in self._partitions if place[0] == key]:
            self._left[place] = self._partitions.pop(place)
            if len(self._left) > _MOST_LEFT:
                self._left.popitem(last=False)

    def skip(self, place: Place, offset: int) -> None:
        """Kafka no longer has what is before ``offset``: reading goes on there."""
        partition = self._partitions[place]
        lost = offset - partition.next
        if lost > 0:
            self.counts["lost"] += lost
            partition.next = offset
            self._push(Event(partition, partition.life, partition.told, offset - 1, 0, lost=lost))

    def pass_to(self, place: Place, offset: int) -> None:
        """Everything before ``offset`` was read, though not all of it is shown to readers."""
        partition = self._partitions[place]
        partition.next = max(partition.next, offset)

    def add(self, place: Place, offset: int, append_ms: int, value: bytes | None, came_ms: int | None = None) -> None:
        """Take one record in. Offsets of a partition ascend; a lower one means that they began anew.

        Args:
            append_ms: the broker's time. came_ms: the same by the steady clock; None: the broker's is one.
        """
        partition = self._partitions[place]
        if offset < partition.next:
            self.begin(partition.feed, place, offset, offset)
            partition = self._partitions[place]
        partition.next = offset + 1
        partition.newest_ms = max(partition.newest_ms, append_ms)
        try:
            record: SignalsRecord = decode_record(value or b"")
        except UNDECODABLE:
            self.counts["undecodable"] += 1
            return
        if isinstance(record, Completion):
            self._complete(partition, offset, append_ms, record)
        elif isinstance(record, Life):
            self.counts["lives"] += 1
            self._hear(partition, offset, append_ms, record)
        else:
            self._signal(partition, offset, append_ms, record, append_ms if came_ms is None else came_ms)

    def _signal(self, partition: Partition, offset: int, append_ms: int, signal: Signal, came_ms: int) -> None:
        self.counts["signals"] += 1
        if signal.id in self._by_id:
            self.counts["duplicate"] += 1
            self._hear(partition, offset, append_ms, signal)  # on the closed candle it says what a word would
            return
        key = Key(append_ms, partition.place[0].hex(), partition.place[1], offset)
        entry = entry_of(signal, partition.feed, key, came_ms)
        early = self._early.pop(signal.id, None)
        if early is not None:
            entry.complete(early)
        if not self._keep(entry):
            self.counts["old"] += 1
            self._remember(entry)
        self._push(Event(partition, partition.life, partition.told, offset, append_ms, entry, first=True))

    def _complete(self, partition: Partition, offset: int, append_ms: int, completion: Completion) -> None:
        self.counts["completions"] += 1
        entry = self._by_id.get(completion.id) or self._passed.pop(completion.id, None)
        if entry is None:
            self._early[completion.id] = completion
            if len(self._early) > MOST_EARLY:
                self._early.popitem(last=False)
                self.counts["unmatched"] += 1
        elif not entry.whole:
            entry.complete(completion)
            entry.whole_at = self.next
            self._push(Event(partition, partition.life, partition.told, offset, append_ms, entry))

    def _hear(self, partition: Partition, offset: int, append_ms: int, record: Signal | Life) -> None:
        is_new = self._lives.add(record)
        entry = self._by_id.get(record.id)
        if is_new and entry is not None:
            entry.word_at = self.next
            self._push(Event(partition, partition.life, partition.told, offset, append_ms, entry, word=True))

    def life_of(self, entry: Entry, now_ms: int) -> SignalLife:
        """The life of a signal, as far as it is known here."""
        known = self._lives.of(entry.signal.id, now_ms)
        if known is not None:
            return known
        alone = Lives()
        alone.add(entry.signal)
        found = self.life_among(alone, entry.signal.id, now_ms)
        assert found is not None, "its own record tells of it"
        return found

    def life_among(self, lives: Lives, identity: str, now_ms: int) -> SignalLife | None:
        """The life of a signal that isn't kept here, from others' lives: what is kept here may have ended it."""
        return lives.of(identity, now_ms, self._lives)

    def _push(self, event: Event) -> None:
        event.partition.told = event.offset + 1
        if len(self._events) < self._most_events:
            self._events.append(event)
        else:
            place = self.next % self._most_events
            oldest = self._events[place]
            if oldest.life == oldest.partition.life:
                oldest.partition.floor = max(oldest.partition.floor, oldest.offset + 1)
            self._events[place] = event
        self.next += 1

    def event(self, number: int) -> Event:
        """An event in memory: ``first <= number < next``."""
        return self._events[number % self._most_events]

    # ---- signals by time ----

    def _keep(self, entry: Entry) -> bool:
        """Put a signal in its place, and the one that came first out; False where it is that one itself."""
        if len(self.timeline) >= self._kept:
            oldest = self.timeline.oldest
            if when(entry) < when(oldest):
                return False
            self._forget(oldest)
        _insert(self._ordered, entry)
        _insert(self._of_trader.setdefault(entry.signal.trader, []), entry)
        self.timeline.add(entry)
        self._by_id[entry.signal.id] = entry
        self._lives.add(entry.signal)
        return True

    def _forget(self, entry: Entry) -> None:
        signal = entry.signal
        del self._by_id[signal.id]
        self._lives.forget(signal.id)
        self._remember(entry)
        of_trader = self._of_trader[signal.trader]
        for entries in (self._ordered, of_trader):
            take_out(entries, entry, _by_key)
        self.timeline.remove(entry)
        if not of_trader:
            del self._of_trader[signal.trader]

    def _remember(self, entry: Entry) -> None:
        """A signal that isn't kept (any longer): those who follow still want its completion."""
        if not entry.whole:
            self._passed[entry.signal.id] = entry
            if len(self._passed) > MOST_EARLY:
                self._passed.popitem(last=False)

    def __len__(self) -> int:
        return len(self._ordered)

    @property
    def traders(self) -> Sequence[str]:
        """Those with a signal in memory."""
        return list(self._of_trader)

    def get(self, signal_id: str) -> Entry | None:
        """The signal of an id."""
        return self._by_id.get(signal_id)

    def newest_first(self, trader: str, before: Key | None) -> Iterator[Entry]:
        """Signals from the newest on, of all Traders or one; ``before``: only such as are older than that place."""
        entries = self._entries(trader)
        end = len(entries) if before is None else bisect_left(entries, before, key=_by_key)
        for at in range(end - 1, -1, -1):
            yield entries[at]

    def _entries(self, trader: str) -> list[Entry]:
        return self._of_trader.get(trader, []) if trader else self._ordered


def _insert(entries: list[Entry], entry: Entry) -> None:
    if not entries or entries[-1].key < entry.key:
        entries.append(entry)
    else:
        insort(entries, entry, key=_by_key)
