"""What a worker's signal rings have counted since the run began, those included that went with their incarnation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from chandlery.core.assignment import incarnation_in, trader_of
from chandlery.core.errors import SegmentError
from chandlery.core.signals import Decided, decode_ring
from chandlery.core.wire import UNDECODABLE
from chandlery.workers.ring_names import RING_FILES, key_in, ring_file_name
from chandlery.workers.segment import SignalRing
from chandlery.workers.supervisor.heritage import SUMMED


class RingCounts:
    """Counters of the rings in a worker's folder, by incarnation (``namespace/name@3``).

    A ring's counters don't begin with the run: it may be of an earlier one, or have begun with those of the incarnations
    that it goes on from. Nor do they last: the ring of an incarnation that an edit has replaced goes when it is drained. So
    rings of those that shall leave are held open until then: what they counted last is read when their name is gone.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._wanted: frozenset[str] = frozenset()
        self._leaving: set[str] = set()
        #: What each ring stood at when the run began, or it did.
        self._before: dict[str, Counter[str]] = {}
        self._held: dict[str, SignalRing] = {}
        self._gone: dict[str, Counter[str]] = {}

    def begin(self) -> None:
        """The run begins: what rings count from here on is its own."""
        self._before = {key: _told(ring, with_waiting=True) for key, ring in self._rings()}
        self._leaving |= self._before.keys() - self._wanted
        self._hold()

    def want(self, keys: Collection[str]) -> None:
        """Other incarnations are wanted; call it before the worker is told."""
        wanted = frozenset(keys)
        self._leaving = (self._leaving | self._wanted | self._before.keys()) - wanted
        self._wanted = wanted
        self._hold()

    def look(self) -> None:
        """Take note of rings that have come and gone."""
        for key in sorted(self._names() - self._before.keys(), key=incarnation_in):
            with _opened(self._path(key)) as ring:
                if ring is not None:
                    self._before[key] = self._inherited(key, ring)
        self._hold()
        for key in [key for key, ring in self._held.items() if ring.replaced]:
            with self._held.pop(key) as ring:
                self._gone[key] = self._gone.get(key, Counter()) + self._since(key, _told(ring))
            self._before.pop(key, None)
            self._leaving.discard(key)

    def now(self) -> dict[str, Counter[str]]:
        """Counters and depth of each ring as they stand."""
        return {key: _told(ring) for key, ring in self._rings()}

    def grown(self) -> dict[str, Counter[str]]:
        """Counters since the run began.

        ``waiting``: signals that stand in the ring; ``carried``: those that stood there when the run began. Slots that only
        tell of other signals' lives are none.
        """
        self.look()
        grown = {key: Counter(counts) for key, counts in self._gone.items()}
        for key, ring in self._rings():
            since = self._since(key, _told(ring, with_waiting=True))
            for name, value in since.items():
                grown.setdefault(key, Counter())[name] += value
        return grown

    def close(self) -> None:
        """Let go of rings that are held."""
        for ring in self._held.values():
            ring.close()
        self._held = {}

    def _since(self, key: str, counts: Counter[str]) -> Counter[str]:
        before = self._before.get(key, Counter())
        if counts["signals"] < before["signals"]:
            before = Counter()  # another ring took its place
        since = Counter({name: value - before[name] for name, value in counts.items()})
        since["waiting"], since["carried"] = counts["waiting"], before["waiting"]
        return since

    def _inherited(self, key: str, ring: SignalRing) -> Counter[str]:
        """What a ring that has come since the last look began with: nothing, or all that those before it had counted.

        Their processes had ended by then. One that stands by beside its predecessor takes nothing over: it has decided
        nothing when it is first seen, and so has less than that.
        """
        earlier: Counter[str] = Counter()
        for other in self._before:
            if trader_of(other) == trader_of(key) and incarnation_in(other) < incarnation_in(key):
                with _opened(self._path(other)) as found:
                    one = self._held.get(other, found)
                    if one is not None and one.uid == ring.uid:
                        counts = _told(one)
                        earlier.update({name: counts[name] for name in SUMMED})
        told = _told(ring)
        return earlier if all(told[name] >= earlier[name] for name in SUMMED) else Counter()

    def _hold(self) -> None:
        # One that leaves may still make its ring: it is looked for until it has come and gone.
        for key in (self._leaving & self._names()) - self._held.keys():
            try:
                ring = self._held[key] = SignalRing.attach(str(self._path(key)))
            except SegmentError:
                continue  # the feed counts and reports it
            if key not in self._before:
                self._before[key] = self._inherited(key, ring)

    def _names(self) -> set[str]:
        return {key_in(path) for path in self._folder.glob(RING_FILES)}

    def _path(self, key: str) -> Path:
        return self._folder / ring_file_name(key)

    def _rings(self) -> Iterator[tuple[str, SignalRing]]:
        for key in sorted(self._names()):
            with _opened(self._path(key)) as ring:
                if ring is not None:
                    yield key, ring


@contextmanager
def _opened(path: Path) -> Iterator[SignalRing | None]:
    try:
        ring = SignalRing.attach(str(path))
    except SegmentError:
        yield None  # the feed counts and reports it
        return
    with ring:
        yield ring


def _told(ring: SignalRing, *, with_waiting: bool = False) -> Counter[str]:
    try:
        counts = Counter({name: ring.get(name) for name in SignalRing.COUNTERS})
    except SegmentError:
        return Counter()  # truncated by somebody: the feed counts and reports it
    counts["depth"] = ring.depth
    if with_waiting:
        counts["waiting"] = signals_waiting(ring)
    return counts


def signals_waiting(ring: SignalRing) -> int:
    """Slots of a ring that count as signals: those that can't be read too, for the feed drops them as such."""
    try:
        items = ring.pending(ring.capacity)
    except SegmentError:
        return ring.depth
    return sum(item.payload is None or not _tells_of_others(item.payload) for item in items)


def _tells_of_others(payload: bytes) -> bool:
    try:
        return isinstance(decode_ring(payload), Decided)
    except UNDECODABLE:
        return False
