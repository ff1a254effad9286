"""Figures over the newest signals: quantiles of their latency, their rate, their number by time. Pure.

Their windows end now and are cut by the steady clock: a wall clock that is set back changes none of them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple

from chandlery.console.api.models import Latency, Quantiles, StageQuantiles, TransportLatency
from chandlery.console.reading.entries import Entry
from chandlery.console.reading.recency import Timeline
from chandlery.core.latency import MEANINGS, STAGES

#: A summary is given again for this long, and for so many times what it took: asking for it often costs at most a
#: twentieth of the process.
_FRESH_S: Final = 0.5
_REST: Final = 20
#: Summaries remembered: one a window and Trader.
_MOST_SUMMARIES: Final = 256
_MINUTE_MS: Final = 60_000


class _Made(NamedTuple):
    latency: Latency
    until_s: float


class Figures:
    """Figures of one log's signals.

    Args:
        transport_of: how candles come to a Trader (``SharedMemory``, ``Pipe``), empty: unknown.
        clock_s: monotonic, s.
    """

    def __init__(
        self, timeline: Timeline, transport_of: Callable[[str], str], clock_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._timeline = timeline
        self._transport_of = transport_of
        self._clock_s = clock_s
        self._made: dict[tuple[int, str], _Made] = {}

    def latency(self, window_s: int, trader: str) -> Latency:
        """Over the signals that the broker took in the last ``window_s`` seconds. At most :data:`_FRESH_S` old, or so."""
        asked = (window_s, trader)
        begin_s = self._clock_s()
        made = self._made.get(asked)
        if made is not None and begin_s < made.until_s:
            return made.latency
        entries = self._timeline.since(_ms(begin_s) - 1_000 * window_s, trader)
        latency = summarised(entries, window_s, trader, self._transport_of)
        if len(self._made) >= _MOST_SUMMARIES:
            self._made.clear()
        end_s = self._clock_s()
        self._made[asked] = _Made(latency, end_s + max(_FRESH_S, _REST * (end_s - begin_s)))
        return latency

    def per_minute(self) -> float:
        """Signals of the last minute."""
        return float(self._timeline.count_since(_ms(self._clock_s()) - _MINUTE_MS))

    def recent_counts(self, trader: str, buckets: int, bucket_s: int) -> list[int]:
        """Signals by time, oldest first; the last bucket is that of now, so that counts don't flicker by the second.

        Buckets begin at multiples of ``bucket_s`` of the steady clock.
        """
        length_ms = 1_000 * bucket_s
        first_ms = (_ms(self._clock_s()) // length_ms - buckets + 1) * length_ms
        behind = [self._timeline.count_since(first_ms + at * length_ms, trader) for at in range(buckets)]
        return [one - later for one, later in zip(behind, [*behind[1:], 0], strict=True)]


def _ms(clock_s: float) -> int:
    return math.floor(1_000 * clock_s)


def summarised(entries: Sequence[Entry], window_s: int, trader: str, transport_of: Callable[[str], str]) -> Latency:
    """Quantiles over those signals whose completion is known."""
    whole = [entry for entry in entries if entry.whole]
    stages: dict[str, list[float]] = {name: [] for name in STAGES}
    for entry in whole:
        for name, duration_us in zip(entry.names, entry.durations_us, strict=True):
            stages[name].append(duration_us)
    return Latency(
        window_s=window_s,
        trader=trader,
        frame_to_signal=quantiles(entry.frame_to_signal_us for entry in whole),
        visible_to_decided=quantiles(entry.visible_to_decided_us for entry in whole),
        stages=[
            StageQuantiles(
                name=name, meaning=MEANINGS[name], p50_us=figures.p50_us, p99_us=figures.p99_us, count=figures.count
            )
            for name, figures in ((name, quantiles(durations)) for name, durations in stages.items())
            if figures.count
        ],
        transports=_transports(whole, transport_of),
    )


def _transports(whole: Sequence[Entry], transport_of: Callable[[str], str]) -> list[TransportLatency]:
    of_trader: dict[str, str] = {}
    groups: dict[str, list[Entry]] = {}
    for entry in whole:
        name = entry.signal.trader
        transport = of_trader.get(name)
        if transport is None:
            transport = of_trader[name] = transport_of(name)
        if transport:
            groups.setdefault(transport, []).append(entry)
    return [
        TransportLatency(
            transport=transport,
            visible_to_decided=quantiles(entry.visible_to_decided_us for entry in group),
            frame_to_signal=quantiles(entry.frame_to_signal_us for entry in group),
        )
        for transport, group in sorted(groups.items())
    ]


def quantiles(durations_us: Iterable[float | None]) -> Quantiles:
    """Of durations, µs; those unknown are left out."""
    known = sorted(one for one in durations_us if one is not None)
    if not known:
        return Quantiles()
    return Quantiles(p50_us=_nearest(known, 0.5), p99_us=_nearest(known, 0.99), count=len(known))


def _nearest(ascending: list[float], share: float) -> float:
    """The least that ``share`` of all don't exceed: a duration that there was, never one between two."""
    return ascending[max(0, math.ceil(share * len(ascending)) - 1)]
