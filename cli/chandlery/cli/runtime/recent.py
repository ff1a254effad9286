"""The newest signals of each worker, asked of its feed, and what they say about latency."""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any, Final

import msgspec

from chandlery.cli.runtime.workergroup import WorkerGroup
from chandlery.console.model import SignalRow, signal_row
from chandlery.console.summary import Quantiles, quantiles_us
from chandlery.core.errors import UnavailableError
from chandlery.core.signals import Signal

_EVERY_S: Final = 0.5
#: The status that told the count is a moment older than the answer.
_OVERLAP: Final = 10
#: The feed builds each signal's account while it answers: a long list would hold its candles up.
_MOST_ASKED: Final = 100
_KEPT: Final = 2_000
_SHOWN: Final = 100


class _Told(msgspec.Struct):
    """One element of ``GET /v1/signals``."""

    signal: Signal
    account: dict[str, Any]


_decode: Final = msgspec.json.Decoder(list[_Told]).decode


class RecentSignals:
    """Signals by id, oldest first."""

    def __init__(self) -> None:
        self._rows: OrderedDict[str, SignalRow] = OrderedDict()
        #: How many a feed's process had published when it was asked last; another process counts from 0.
        self._asked: dict[tuple[str, int], int] = {}

    async def follow(self, groups: Callable[[], Iterable[WorkerGroup]]) -> None:
        """Look twice a second, until cancelled; a feed is asked only when, and for what, it published since."""
        while True:
            for group in list(groups()):
                published = int(group.feed_counts().get("signals", {}).get("published", 0))
                process = (group.label, group.feed.restarts)
                new = published - self._asked.get(process, 0)
                if new:
                    with contextlib.suppress(UnavailableError):
                        # Of a process that was started anew the status may still be the earlier one's: then few are asked for.
                        limit = min(max(new, 0) + _OVERLAP, _MOST_ASKED)
                        self.take(await group.endpoint.get(f"/v1/signals?limit={limit}"))
                        self._asked[process] = published
            await asyncio.sleep(_EVERY_S)

    def take(self, body: bytes) -> None:
        """Take in a feed's newest signals (newest first)."""
        try:
            told = _decode(body)
        except msgspec.DecodeError as error:
            raise UnavailableError(f"no list of signals: {error}") from error
        for one in reversed(told):
            latency = one.account.get("frame_to_signal_us")
            self._rows[one.signal.id] = signal_row(one.signal, latency)
        while len(self._rows) > _KEPT:
            self._rows.popitem(last=False)

    def rows(self) -> list[SignalRow]:
        """The newest, oldest first."""
        return sorted(self._rows.values(), key=lambda row: row.emitted_wall_ms)[-_SHOWN:]

    def quantiles(self, trader: str) -> Quantiles:
        """Of a Trader's newest signals, µs, frame to acknowledgement."""
        values = [
            int(row.latency_us * 1000)
            for row in self._rows.values()
            if row.trader == trader and row.latency_us is not None
        ]
        return quantiles_us(values)
