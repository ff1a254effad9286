"""One signal as it is kept in memory, and as the API says it."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Final, NamedTuple

from chandlery.console.api import models
from chandlery.core.latency import account, short_host, timeline
from chandlery.core.signal_life import SignalLife
from chandlery.core.signals import Completion, Signal, completed
from chandlery.core.telemetry import trace_id_of

#: No time is longer, whatever a record claims: 64 bits.
_MOST_NS: Final = 2**63 - 1


class Key(NamedTuple):
    """A signal's place among all: by the broker's time, then by where it stands. The same after a restart."""

    append_ms: int
    feed: str
    partition: int
    offset: int


@dataclass(slots=True, eq=False)
class Entry:
    """One signal.

    Attributes:
        feed: ``namespace/name``. whole: whether its completion is known.
        came_ms: when it was appended, by this process's steady clock (recency.py); 0: nobody asks.
        names, durations_us: of its stages, in order, once it is whole; the names are shared by all alike.
        host: boot id of the host that stamped ``aggregated`` and ``emitted``, origin of the one that stamped ``received``;
            empty: the worker's.
        whole_at, word_at: numbers of the events that told the completion, and the newest word about its life; -1: none did.
    """

    signal: Signal
    feed: str
    key: Key
    came_ms: int = 0
    whole: bool = False
    names: tuple[str, ...] = ()
    durations_us: tuple[float, ...] = ()
    frame_to_signal_us: float | None = None
    visible_to_decided_us: float | None = None
    host: str = ""
    origin: str = ""
    whole_at: int = -1
    word_at: int = -1

    def complete(self, completion: Completion) -> None:
        """Add what its completion says. Only the first one counts: a repeated signal has another stamp."""
        signal = self.signal
        signal.stamps = completed(signal.stamps, completion)
        told = account(signal.stamps)
        self.whole = True
        self.names = _shared(tuple(stage.name for stage in told.stages))
        self.durations_us = tuple(stage.duration_us for stage in told.stages)
        self.frame_to_signal_us = told.frame_to_signal_us
        self.visible_to_decided_us = told.visible_to_decided_us
        self.host, self.origin = sys.intern(completion.host), sys.intern(completion.origin)


_names: dict[tuple[str, ...], tuple[str, ...]] = {}


def _shared(names: tuple[str, ...]) -> tuple[str, ...]:
    # Subsets of nine stages in their order: 512 at most.
    return _names.setdefault(names, names)


def entry_of(signal: Signal, feed: str, key: Key, came_ms: int = 0) -> Entry:
    """A new entry; the texts that many signals share are kept once."""
    for name in ("trader", "strategy", "code", "rule", "action", "symbol", "interval"):
        setattr(signal, name, sys.intern(getattr(signal, name)))
    return Entry(signal, feed, key, came_ms)


def short(entry: Entry, life: SignalLife) -> models.Signal:
    """A signal in short."""
    return models.Signal(**_short(entry, life))


def _short(entry: Entry, life: SignalLife) -> dict[str, object]:
    signal = entry.signal
    return {
        "id": signal.id,
        "trader": signal.trader,
        "strategy": signal.strategy,
        "rule": signal.rule,
        "action": signal.action,
        "symbol": signal.symbol,
        "interval": signal.interval,
        "open_time_ms": signal.open_time_ms,
        "emitted_ms": signal.emitted_wall_ms,
        "price": signal.price,
        "strength": signal.strength,
        "reason": signal.reason,
        "forming": signal.forming,
        "state": life.state,
        "expires_ms": life.expires_ms,
        "active_ms": next((step.at_ms for step in life.steps if step.state == "active"), None),
        "signalled_ns": signal.stamps.signalled_ns,
        "feed": entry.feed,
        "frame_to_signal_us": entry.frame_to_signal_us,
        "visible_to_decided_us": entry.visible_to_decided_us,
        "stages": list(zip(entry.names, entry.durations_us, strict=True)),
    }


def detail(entry: Entry, life: SignalLife, trace_url: str) -> models.SignalDetail:
    """A signal whole.

    Args:
        trace_url: where a person sees a trace; ``{trace_id}`` is put in. Empty: nowhere.
    """
    signal, told = entry.signal, account(entry.signal.stamps)
    trace_id = trace_id_of(signal.id).hex()
    return models.SignalDetail(
        **_short(entry, life),
        code=signal.code,
        ordinal=signal.ordinal,
        incarnation=signal.incarnation,
        revision=signal.revision,
        session=signal.session,
        strategy_us=max(0, min(signal.strategy_ns, _MOST_NS)) / 1_000,
        whole_us=told.whole_us,
        waterfall=[models.StageTime(**stage._asdict()) for stage in timeline(told, entry.host)],
        received_host=short_host(entry.origin),
        corrected=told.corrected,
        skew_us=told.skew_us,
        transit_us=told.transit_us,
        transit_uncertainty_us=told.transit_uncertainty_us,
        recorded_skew_us=told.recorded_skew_us,
        lifecycle=[tuple(step) for step in life.steps],
        ended_by=life.ended_by,
        trace_id=trace_id,
        trace_url=trace_url.replace("{trace_id}", trace_id),
    )
