"""The readers of all topics, put together for whoever serves the API."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from chandlery.console.backend import FeedKafka
from chandlery.console.reading.candle_reader import CandleReader
from chandlery.console.reading.kafka_reading import Away, quieten_client
from chandlery.console.reading.signal_log import SignalLog
from chandlery.console.reading.signal_reader import SignalReader
from chandlery.console.reading.signal_service import KeptSignals
from chandlery.console.settings import ConsoleSettings
from chandlery.core.errors import InvariantError

if TYPE_CHECKING:
    from prometheus_client import Metric

log = logging.getLogger("chandlery.console.reading")

#: A reader that ended by a defect of ours begins again after this: as often as a person can see it said.
_DEFECT_PAUSE_S: Final = 5.0


class Readers:
    """Signals and candles of all feeds.

    Attributes:
        signals, market: what the API asks.
    """

    def __init__(
        self,
        kafkas: Callable[[], Sequence[FeedKafka]],
        transport_of: Callable[[str], str],
        settings: ConsoleSettings,
    ) -> None:
        self._away = Away()
        self._log = SignalLog(settings.signals_kept)
        self._signal_reader = SignalReader(kafkas, self._log, settings.signals_kept, self._away)
        self.signals = KeptSignals(self._log, self._signal_reader, transport_of, settings.trace_url)
        self.market = CandleReader(kafkas, settings.candles_kept, self._away)
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Begin to read. Returns at once, also where no broker answers yet: :meth:`away` says so."""
        quieten_client()
        runs = {"signals": self._signal_reader.run, "candles": self.market.run}
        self._tasks = [asyncio.create_task(self._kept_running(what, run), name=what) for what, run in runs.items()]

    async def _kept_running(self, what: str, run: Callable[[], Awaitable[None]]) -> None:
        """Run a reader; one that ends by a defect is said to be away, and begun again."""
        name = f"the reader of {what}"
        while True:
            try:
                await run()
            except Exception as error:
                log.exception("a reader ended", extra={"reader": what})
                self._away.gone(
                    name, what, InvariantError(f"{name} ended by a defect: {type(error).__name__}: {error}")
                )
            await asyncio.sleep(_DEFECT_PAUSE_S)
            self._away.back(name)

    def families(self) -> Iterable[Metric]:
        """The readers' figures for Prometheus, of names under ``chandlery_console_``."""
        from chandlery.console.reading.metrics import families  # a process that nobody scrapes does without its library

        return families(self._log, self._signal_reader, self.signals, self.market, self._away)

    def states(self) -> Mapping[str, str]:
        """By feed, how it stands with its signals: ``connecting``, ``waiting`` (for the topic) or ``reading``."""
        return self._signal_reader.states

    async def stop(self) -> None:
        """End, and leave no connection behind."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []

    def away(self) -> Sequence[str]:
        """What can't be read now and why, one sentence each."""
        return self._away.sentences()


def open_readers(
    kafkas: Callable[[], Sequence[FeedKafka]], transport_of: Callable[[str], str], settings: ConsoleSettings
) -> Readers:
    """Readers of the topics of ``kafkas``, which is asked again each second. Nothing is connected before ``start``.

    Args:
        transport_of: how candles come to a Trader (``SharedMemory``, ``Pipe``); empty: unknown.
    """
    return Readers(kafkas, transport_of, settings)
