"""What an incarnation takes over from those before it in this worker: their positions and counters.

An incarnation that replaces another goes on where that one ended. One that stands by beside its predecessor takes
nothing over: it is told from which candle on it decides.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from chandlery.core.assignment import TraderAssignment, incarnation_in, trader_of
from chandlery.core.errors import SegmentError
from chandlery.workers.ring_names import RING_FILES, key_in, ring_file_name
from chandlery.workers.segment import Heritage, SignalRing

#: Counters that go on from one incarnation to the next.
SUMMED = (
    "calls", "signals", "reruns", "stale", "lapped", "cooled_down", "informative_missing", "errors", "blocked",
    "decided_ns_sum",
)  # fmt: skip
_MOST = (1 << 64) - 1


def is_heir(spec: TraderAssignment, wanted: Collection[str]) -> bool:
    """Whether an incarnation goes on where earlier ones end: no earlier one is wanted beside it."""
    return not any(trader_of(key) == spec.trader and incarnation_in(key) < spec.incarnation for key in wanted)


def heritage(rings: Path, spec: TraderAssignment) -> Heritage | None:
    """What the rings of earlier incarnations tell, of each series the newest; None where there are none.

    Call it when none of them runs any more.
    """
    own = {f"{symbol} {spec.interval}" for symbol in spec.symbols}
    positions: dict[str, tuple[int, int]] = {}
    counters: dict[str, int] = {}
    known: dict[int, set[str]] = {}
    for path in rings.glob(RING_FILES):
        key = key_in(path)
        if trader_of(key) != spec.trader or incarnation_in(key) >= spec.incarnation:
            continue
        try:
            with SignalRing.attach(str(path)) as ring:
                if ring.uid != spec.uid:
                    continue
                told = ring.info()
        except SegmentError:
            continue  # unsound, and the feed has said so: nothing in it can be believed
        known[incarnation_in(key)] = own & told["positions"].keys()
        for series in known[incarnation_in(key)]:
            positions[series] = max(positions.get(series, (-1, -1)), told["positions"][series])
        for name in SUMMED:
            counters[name] = (counters.get(name, 0) + told["counters"][name]) & _MOST
        newest = "last_open_time_ms"
        counters[newest] = max(counters.get(newest, 0), told["counters"][newest])
    if _unbroken(spec.incarnation, known, own):
        # None has decided in between, here or elsewhere: the positions are exact, and who set the bound has guessed.
        counters["begun_from_ms"] = spec.from_ms
    return Heritage(positions, counters) if known else None


def _unbroken(incarnation: int, known: Mapping[int, set[str]], own: set[str]) -> bool:
    """Whether the last incarnation that decided is known with all its positions, and all since then were here."""
    before = incarnation - 1
    while before in known and not known[before]:
        before -= 1  # it only stood by
    return known.get(before) == own


def adopt_earlier_names(rings: Path, wanted: Iterable[TraderAssignment]) -> None:
    """Give rings that an earlier version made, one a Trader, to the first incarnation that is here of each."""
    for spec in sorted(wanted, key=lambda spec: spec.incarnation):
        earlier, own = rings / ring_file_name(spec.trader), rings / ring_file_name(spec.key)
        if earlier.exists() and not own.exists():
            earlier.rename(own)
