"""The latency account of one signal: its raw stamps made into stages that are never negative.

Stamps of the pod's host are monotonic and keep their order. ``appended_ns`` is the broker's wall clock in
steps of 1 ms: it is translated by the wall offset that the signal carries, then placed between its monotonic
neighbours by causality, with the uncertainty that remains. The exchange's clock can't be placed at all: what
it says is shown as *skew* beside the stages and never inside their sum.

A stage is named by the stamp that ends it: ``aggregated`` lasts from ``appended`` to ``aggregated``. A stamp
that is missing makes the next stage longer; a stamp that contradicts its neighbours (another host's clock, a
trader that lies) is moved to the nearest possible time, and the move is its uncertainty.
"""

from __future__ import annotations

from itertools import pairwise
from operator import attrgetter
from typing import Final, Literal, NamedTuple

import msgspec

from chandlery.core.signals import SignalStamps

Clock = Literal["monotonic", "wall"]

#: Stages in order of time. ``received`` begins the account and is no stage itself.
STAGES: Final = (
    "appended",
    "aggregated",
    "emitted",
    "fed",
    "published",
    "woken",
    "decided",
    "signalled",
    "acknowledged",
)
#: What happens during each stage, for a person (a stage ends with the stamp that names it).
MEANINGS: Final = {
    "appended": "ingest packed and sent the trades, the broker appended them",
    "aggregated": "the aggregator read them and computed the candle",
    "emitted": "the candle was handed to the producer",
    "fed": "the broker took the candle, the feed read it",
    "published": "the feed wrote it into shared memory",
    "woken": "the trader's doorbell rang, it woke",
    "decided": "the strategy decided",
    "signalled": "the signal was put into its ring",
    "acknowledged": "the feed published it, the broker acknowledged",
}
#: Of a boot id (32 hex digits): enough to tell a few hosts apart.
_SHORT: Final = 8
_MONOTONIC: Final = (
    "received",
    "aggregated",
    "emitted",
    "fed",
    "published",
    "woken",
    "decided",
    "signalled",
    "acknowledged",
)
_monotonic_times: Final = attrgetter(*(f"{name}_ns" for name in _MONOTONIC))
#: Kafka stamps records in whole milliseconds, rounded down: the true time is up to this much later.
_APPEND_STEP_NS: Final = 1_000_000
#: The largest time that a stamp can hold: 64 bits.
_MOST_NS: Final = 2**63 - 1


def clock_host(stage: str, host: str) -> str:
    """Whose clock stamped a stage's end: ``broker``, or a host's short boot id; empty: the Trader's own host.

    Args:
        host: boot id of the host that stamped ``aggregated`` and ``emitted``; empty: the Trader's.
    """
    if stage == "appended":
        return "broker"
    return short_host(host) if stage in ("aggregated", "emitted") else ""


def short_host(host: str) -> str:
    """Of a host's boot id what is shown of it; empty: the Trader's own host."""
    return host[:_SHORT]


def clock_name(host: str, clock: Clock) -> str:
    """A clock for a person, as command line and console both have it; ``host`` as :func:`clock_host` gives it."""
    if host == "broker":
        return "broker's clock"
    if host:
        return f"host clock {host}"
    return "host's wall clock" if clock == "wall" else "host clock"


class Stage(NamedTuple):
    """One stage: how long, how sure, and by which clock its ends were read.

    Attributes:
        duration_us: ≥ 0. uncertainty_us: the duration is right within ± this. Both in µs.
        clock: ``wall`` where one end was read from a wall clock.
    """

    name: str
    duration_us: float
    uncertainty_us: float
    clock: Clock


class Account(NamedTuple):
    """Where one signal's time went. All times in µs.

    Attributes:
        stages: in order; their durations sum to ``whole_us``.
        whole_us: from the first stamp known to the last.
        frame_to_signal_us: frame received → broker's acknowledgement; None until both are known.
        visible_to_decided_us: visible in the segment → strategy decided; None where a stamp is missing.
        skew_us: this host's wall clock at receipt less the exchange's stamp (network and clock difference
            together, any sign); None: unknown.
        transit_us: that less the least of it over the last minutes, ≥ 0: what this frame took longer than the
            quickest; right within ± ``transit_uncertainty_us``. None: unknown.
        recorded_skew_us: the same as recorded in a replayed capture; None: not a replay.
        corrected: stamps that contradicted their neighbours and were moved.
        start_ns: where the first stage begins, ns by the pod's monotonic clock; 0 where there is none.
    """

    stages: list[Stage]
    whole_us: float
    frame_to_signal_us: float | None
    visible_to_decided_us: float | None
    skew_us: float | None
    recorded_skew_us: float | None
    corrected: int
    start_ns: int
    transit_us: float | None = None
    transit_uncertainty_us: float = 0.0


class TimedStage(NamedTuple):
    """One stage at its place in an account, as the API and `chandlery trace --json` tell it.

    Attributes:
        start_us: from the account's begin. share: of the whole, 0 … 1.
        host: whose clock read its end, see :func:`clock_host`. clock_name, meaning: for a person.
    """

    name: str
    start_us: float
    duration_us: float
    share: float
    uncertainty_us: float
    clock: Clock
    host: str
    clock_name: str
    meaning: str


def timeline(told: Account, host: str) -> list[TimedStage]:
    """An account's stages, each at its place; ``host`` as for :func:`clock_host`."""
    made: list[TimedStage] = []
    start_us = 0.0
    for name, duration_us, uncertainty_us, clock in told.stages:
        share = duration_us / told.whole_us if told.whole_us > 0 else 0.0
        whose = clock_host(name, host)
        named = clock_name(whose, clock)
        made.append(TimedStage(name, start_us, duration_us, share, uncertainty_us, clock, whose, named, MEANINGS[name]))
        start_us += duration_us
    return made


class _Point(NamedTuple):
    name: str
    time_ns: int
    uncertainty_ns: int
    clock: Clock


def account(stamps: SignalStamps) -> Account:
    """Make a signal's stamps into its account. Total: any integers give an account without a negative stage."""
    try:
        return _account(stamps)
    except OverflowError:  # beyond what a float holds: 10**400, which no clock says and a trader may
        return _account(
            SignalStamps(*(max(-_MOST_NS, min(said, _MOST_NS)) for said in msgspec.structs.astuple(stamps)))
        )


def _account(stamps: SignalStamps) -> Account:
    points, corrected = _monotonic_points(stamps)
    received = next((point for point in points if point.name == "received"), None)
    at = {point.name: point.time_ns for point in points}
    _place_appended(points, stamps)
    # Between stamps of one host the clock is one; it is the step from host to host that is uncertain.
    crossing = {"aggregated": abs(stamps.origin_uncertainty_ns), "fed": abs(stamps.host_uncertainty_ns)}
    stages = [
        Stage(
            later.name,
            (later.time_ns - earlier.time_ns) / 1_000,
            (earlier.uncertainty_ns + later.uncertainty_ns + crossing.get(later.name, 0)) / 1_000,
            "wall" if "wall" in (earlier.clock, later.clock) else "monotonic",
        )
        for earlier, later in pairwise(points)
    ]
    skew = None
    if received is not None and stamps.exchange_ns > 0 and stamps.wall_offset_ns > 0:
        skew = (received.time_ns + stamps.wall_offset_ns - stamps.exchange_ns) / 1_000
    transit = None
    if skew is not None and stamps.exchange_uncertainty_ns > 0:
        transit = max(0.0, skew - stamps.exchange_offset_ns / 1_000)
    return Account(
        stages=stages,
        whole_us=(points[-1].time_ns - points[0].time_ns) / 1_000 if points else 0.0,
        frame_to_signal_us=_between(at, "received", "acknowledged"),
        visible_to_decided_us=_between(at, "published", "decided"),
        skew_us=skew,
        recorded_skew_us=stamps.recorded_skew_ns / 1_000 if stamps.recorded_skew_ns else None,
        corrected=corrected,
        start_ns=points[0].time_ns if points else 0,
        transit_us=transit,
        transit_uncertainty_us=stamps.exchange_uncertainty_ns / 1_000 if transit is not None else 0.0,
    )


def _between(at: dict[str, int], earlier: str, later: str) -> float | None:
    if earlier not in at or later not in at:
        return None
    return (at[later] - at[earlier]) / 1_000


def _monotonic_points(stamps: SignalStamps) -> tuple[list[_Point], int]:
    """The monotonic stamps in order, none before its predecessor; and how many had to be moved."""
    known = [(name, time_ns) for name, time_ns in zip(_MONOTONIC, _monotonic_times(stamps), strict=True) if time_ns > 0]
    if not known:
        return [], 0
    # The newest stamp is the feed's own where the signal is complete: the one to trust most.
    newest = known[-1][1]
    points: list[_Point] = []
    floor, corrected = 0, 0
    for name, time_ns in known:
        if floor <= time_ns <= newest:  # as nearly always
            points.append(_Point(name, time_ns, 0, "monotonic"))
            floor = time_ns
            continue
        floor = max(floor, min(time_ns, newest))
        corrected += 1
        points.append(_Point(name, floor, abs(floor - time_ns), "monotonic"))
    return points, corrected


def _place_appended(points: list[_Point], stamps: SignalStamps) -> None:
    """Insert ``appended`` after ``received`` and before whatever is known next."""
    if stamps.appended_ns <= 0 or not points:
        return
    index = 1 if points[0].name == "received" else 0
    if index == len(points):
        return  # nothing after it: there is no stage that it could end or begin
    upper = points[index].time_ns
    lower = points[index - 1].time_ns if index else None
    earliest = stamps.appended_ns - stamps.wall_offset_ns
    latest = earliest + _APPEND_STEP_NS
    if stamps.wall_offset_ns <= 0:  # the clock's offset is unknown: causality is all there is
        if lower is None:
            return
        earliest, latest = lower, upper
    low = earliest if lower is None else max(earliest, lower)
    high = min(latest, upper)
    if low <= high:
        point = _Point("appended", (low + high) // 2, (high - low + 1) // 2, "wall")
    elif lower is None:
        point = _Point("appended", upper, earliest - upper, "wall")
    else:  # the broker's clock contradicts causality: anywhere between the neighbours
        point = _Point("appended", upper if earliest > upper else lower, upper - lower, "wall")
    points.insert(index, point)
