"""Signals topics in memory, with a reader and followers of them: what Kafka does, without Kafka."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from chandlery.console.market import SignalEvent, SignalQuery
from chandlery.console.reading.following import Follower, Missing, Replayed, Turn, Unplaced
from chandlery.console.reading.positions import Place, Position, decode, feed_key
from chandlery.console.reading.signal_log import SignalLog
from chandlery.core.signals import Completion, Life, Signal, encode

PLACES: list[Place] = [(feed_key("desk/a", "t"), 0), (feed_key("desk/a", "t"), 1), (feed_key("desk/b", "t"), 0)]
_PIECE = 3


@dataclass
class Topics:
    """What was written, by partition: append time and value. ``begins``: what Kafka still has."""

    records: dict[Place, list[tuple[int, bytes]]] = field(default_factory=lambda: {place: [] for place in PLACES})
    begins: dict[Place, int] = field(default_factory=lambda: dict.fromkeys(PLACES, 0))
    now_ms: int = 1_000_000

    def write(self, place: Place, record: Signal | Completion | Life | bytes) -> None:
        self.now_ms += 7
        value = record if isinstance(record, bytes) else encode(record)
        self.records[place].append((self.now_ms, value))

    def end(self, place: Place) -> int:
        return len(self.records[place])


class Reader:
    """Reads the topics into a log; a new one begins at most ``back`` records before the end."""

    def __init__(self, topics: Topics, kept: int, back: int) -> None:
        self.topics = topics
        self.log = SignalLog(kept)
        self.at: dict[Place, int] = {}
        self.counts: Counter[str] = Counter()
        for place in PLACES:
            end = topics.end(place)
            self.at[place] = max(topics.begins[place], end - back)
            self.log.begin("desk/a" if place in PLACES[:2] else "desk/b", place, self.at[place], end)

    def read(self, place: Place, count: int = 1_000_000) -> None:
        for offset in range(self.at[place], min(self.at[place] + count, self.topics.end(place))):
            append_ms, value = self.topics.records[place][offset]
            self.log.add(place, offset, append_ms, value)
            self.at[place] = offset + 1

    def read_all(self) -> None:
        for place in PLACES:
            self.read(place)

    def follow(self, after: str = "", query: SignalQuery = SignalQuery()) -> Follower:  # noqa: B008 - it is frozen
        return Follower(self.log, decode(after) if after else None, query, self.counts, lambda: self.topics.now_ms)

    def drain(
        self, follower: Follower, most: int = 1_000_000, then: Reader | None = None, away: Place | None = None
    ) -> list[SignalEvent]:
        """What a follower is told now. ``then``: reads one more record between any two pieces. ``away``: not asked."""
        told: list[SignalEvent] = []
        while len(told) < most:
            step = follower.next()
            if step is None:
                break
            if isinstance(step, SignalEvent):
                told.append(step)
            elif isinstance(step, Missing | Unplaced) and step.partition.place == away:
                follower.postpone(step.partition)
            elif isinstance(step, Missing):
                self._replay(follower, step)
                if then is not None:
                    for place in PLACES:
                        then.read(place, 1)
            elif isinstance(step, Unplaced):
                follower.place_at(step.partition, self._placed(step))
            else:
                assert isinstance(step, Turn)
        return told

    def _replay(self, follower: Follower, missing: Missing) -> None:
        place = missing.partition.place
        begin = max(missing.begin, self.topics.begins[place])
        end = min(missing.end, begin + _PIECE)
        if begin >= end:
            follower.replayed_to(missing.partition, missing.end, missing.end - missing.begin)
            return
        records = self.topics.records[place][begin:end]
        follower.replay(missing.partition, [Replayed(begin + at, ms, value) for at, (ms, value) in enumerate(records)])
        follower.replayed_to(missing.partition, end, begin - missing.begin)

    def _placed(self, unplaced: Unplaced) -> int:
        place = unplaced.partition.place
        if unplaced.within(self.topics.end(place)):
            return unplaced.offset
        found = [at for at, (ms, _) in enumerate(self.topics.records[place]) if ms >= unplaced.since_ms]
        return max(found[0], self.topics.begins[place]) if found else self.topics.end(place)


def at_the_beginning() -> str:
    """The position before everything."""
    position = Position()
    for place in PLACES:
        position.set(place, 0)
    return position.encode()


Told = list[SignalEvent]


def check_once_and_in_order(topics: Topics, told: Told) -> None:
    """Every signal was told, the first time in the order of its partition, and no more than once in each form."""
    first = list(dict.fromkeys(event.signal.id for event in told))
    for place in PLACES:
        ids = [value[value.index(b'"id":"') + 6 :][:32].decode() for _, value in topics.records[place] if b'"kind":"signal"' in value]  # fmt: skip
        assert [one for one in first if one in ids] == ids
    forms = Counter((event.signal.id, bool(event.signal.stages)) for event in told)
    assert max(forms.values(), default=0) <= 1, forms


#: No example is timed: other work of the machine is no fault.
quick = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
PLACE = PLACES[0]
HERE = st.sampled_from(PLACES)
