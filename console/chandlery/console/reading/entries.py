"""One signal as it is kept in memory, and as the API says it."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Final, NamedTuple

from chandlery.console.api import models
from chandlery.core.latency import MEANINGS, Account, account
from chandlery.core.signals import Completion, Signal, completed
from chandlery.core.telemetry import trace_id_of

#: Of a boot id (32 hex digits): enough to tell a few hosts apart.
_SHORT: Final = 8
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
        names, durations_us: of its stages, in order, once it is whole; the names are shared by all alike.
        host: boot id of the host that stamped ``aggregated`` and ``emitted``; empty: the worker's.
        whole_at: number of the event that told the completion; -1: none did.
        confirmed_ms: when the same rule signalled on the same candle after its close; 0: no record says so.
    """

    signal: Signal
    feed: str
    key: Key
    whole: bool = False
    names: tuple[str, ...] = ()
    durations_us: tuple[float, ...] = ()
    frame_to_signal_us: float | None = None
    visible_to_decided_us: float | None = None
    host: str = ""
    whole_at: int = -1
    confirmed_ms: int = 0

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
        self.host = sys.intern(completion.host)


_names: dict[tuple[str, ...], tuple[str, ...]] = {}


def _shared(names: tuple[str, ...]) -> tuple[str, ...]:
    # Subsets of nine stages in their order: 512 at most.
    return _names.setdefault(names, names)


def entry_of(signal: Signal, feed: str, key: Key) -> Entry:
    """A new entry; the texts that many signals share are kept once."""
    for name in ("trader", "strategy", "code", "rule", "action", "symbol", "interval"):
        setattr(signal, name, sys.intern(getattr(signal, name)))
    return Entry(signal, feed, key)


def short(entry: Entry) -> models.Signal:
    """A signal in short."""
    return models.Signal(**_short(entry))


def _short(entry: Entry) -> dict[str, object]:
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
        "feed": entry.feed,
        "frame_to_signal_us": entry.frame_to_signal_us,
        "visible_to_decided_us": entry.visible_to_decided_us,
        "stages": list(zip(entry.names, entry.durations_us, strict=True)),
    }


def detail(entry: Entry, trace_url: str) -> models.SignalDetail:
    """A signal whole.

    Args:
        trace_url: where a person sees a trace; ``{trace_id}`` is put in. Empty: nowhere.
    """
    signal, told = entry.signal, account(entry.signal.stamps)
    trace_id = trace_id_of(signal.id).hex()
    return models.SignalDetail(
        **_short(entry),
        code=signal.code,
        ordinal=signal.ordinal,
        incarnation=signal.incarnation,
        revision=signal.revision,
        session=signal.session,
        strategy_us=max(0, min(signal.strategy_ns, _MOST_NS)) / 1_000,
        whole_us=told.whole_us,
        waterfall=_waterfall(told, entry.host),
        corrected=told.corrected,
        skew_us=told.skew_us,
        transit_us=told.transit_us,
        transit_uncertainty_us=told.transit_uncertainty_us,
        recorded_skew_us=told.recorded_skew_us,
        lifecycle=_lifecycle(entry),
        trace_id=trace_id,
        trace_url=trace_url.replace("{trace_id}", trace_id),
    )


def _waterfall(told: Account, host: str) -> list[models.StageTime]:
    hosts = {"appended": "broker", "aggregated": host[:_SHORT], "emitted": host[:_SHORT]}
    made: list[models.StageTime] = []
    start_us = 0.0
    for stage in told.stages:
        made.append(
            models.StageTime(
                name=stage.name,
                start_us=start_us,
                duration_us=stage.duration_us,
                share=stage.duration_us / told.whole_us if told.whole_us > 0 else 0.0,
                uncertainty_us=stage.uncertainty_us,
                clock=stage.clock,
                host=hosts.get(stage.name, ""),
                meaning=MEANINGS[stage.name],
            )
        )
        start_us += stage.duration_us
    return made


def _lifecycle(entry: Entry) -> list[tuple[str, int]]:
    """What the topic tells of a signal's life.

    Of a signal on a forming candle the feed drops the one that the close brings, as it has the same id: only a record
    that came all the same (another ordinal, a feed that began anew) says ``confirmed``, and none says the contrary.
    """
    life = [("detected", entry.signal.emitted_wall_ms)]
    if entry.confirmed_ms:
        life.append(("confirmed", entry.confirmed_ms))
    return life


def is_confirmation(earlier: Signal, later: Signal) -> bool:
    """Whether ``later`` says of the closed candle what ``earlier`` said of it while it was forming."""
    return earlier.forming and not later.forming and candle_rule(earlier) == candle_rule(later)


def candle_rule(signal: Signal) -> tuple[object, ...]:
    """Whose rule, on which candle of which session."""
    return signal.trader, signal.code, signal.symbol, signal.interval, signal.session, signal.open_time_ms, signal.rule
