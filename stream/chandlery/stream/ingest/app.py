"""One run of ingest: openings and history, then the market, until it ends or is stopped."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

import msgspec

from chandlery.core.errors import InputError, MachineError, UnavailableError
from chandlery.core.intervals import parse_interval
from chandlery.core.kafka_login import problem_of
from chandlery.core.recordings import history_problem
from chandlery.core.settings import IngestSettings
from chandlery.core.symbols import parse_symbol
from chandlery.core.topics import partition_of
from chandlery.core.wire import Opening
from chandlery.stream.final_status import write_final_status
from chandlery.stream.ingest.binance import BinanceSource
from chandlery.stream.ingest.clock import Clock, SystemClock
from chandlery.stream.ingest.counts import Counts, new_counts
from chandlery.stream.ingest.dispatch import Dispatcher
from chandlery.stream.ingest.history import read_history
from chandlery.stream.ingest.intake import Intake
from chandlery.stream.ingest.options import (
    BinanceOptions,
    CommonOptions,
    ReplayOptions,
    SyntheticOptions,
    read_options,
)
from chandlery.stream.ingest.packer import Lane
from chandlery.stream.ingest.positions import read_positions, write_positions
from chandlery.stream.ingest.replay import ReplaySource
from chandlery.stream.ingest.sink import KafkaSink, Sink
from chandlery.stream.ingest.source import Position, Source
from chandlery.stream.ingest.status import Status, StatusServer, build_status
from chandlery.stream.ingest.synthetic import SyntheticSource
from chandlery.stream.metrics_server import MetricsServer

if TYPE_CHECKING:
    from prometheus_client import Metric

    from chandlery.core.telemetry.exposition import Labelled

log = logging.getLogger("chandlery.ingest")

_POSITION_PERIOD_S: Final = 1.0
# At a stop everything received is still appended. A broker that restarts is back after 4 s, a request that got
# no answer is repeated after 10 s; 20 s cover both and stay below the 30 s of grace that Kubernetes gives.
_DRAIN_TIMEOUT_S: Final = 20.0


def make_source(settings: IngestSettings, counts: Counts, clock: Clock) -> tuple[Source, CommonOptions]:
    """The source that the settings ask for, with its options.

    Raises:
        InputError: an option, file or symbol can't be used.
    """
    if settings.source == "binance":
        binance = read_options("binance", settings.options, BinanceOptions)
        return (
            BinanceSource(binance, settings.symbols, settings.heartbeat_ms, settings.silence_timeout_ms, counts, clock),
            binance,
        )
    if settings.source == "replay":
        replay = read_options("replay", settings.options, ReplayOptions)
        return ReplaySource(replay, settings.symbols, settings.heartbeat_ms, counts, clock), replay
    synthetic = read_options("synthetic", settings.options, SyntheticOptions)
    return (
        SyntheticSource(
            synthetic, settings.symbols, settings.intervals, settings.history_candles,
            settings.session, settings.heartbeat_ms, counts, clock,
        ),
        synthetic,
    )  # fmt: skip


def _checked(settings: IngestSettings) -> IngestSettings:
    """The settings with unified symbols.

    Raises:
        InputError: a symbol or interval is none, a symbol comes twice, history is for a symbol not ingested, or in a file of
            an unknown kind.
    """
    symbols = [parse_symbol(symbol) for symbol in settings.symbols]
    twice = {symbol for symbol in symbols if symbols.count(symbol) > 1}
    if twice:
        raise InputError(f"symbols: {', '.join(sorted(twice))} comes twice")
    for text in [*settings.intervals, *(file.interval for file in settings.history_files)]:
        parse_interval(text)
    files = [msgspec.structs.replace(file, symbol=parse_symbol(file.symbol)) for file in settings.history_files]
    for file in files:
        if file.symbol not in symbols:
            raise InputError(f"history_files: {file.path} is for {file.symbol}, which isn't among the symbols")
        if (problem := history_problem(file.path)) is not None:
            raise InputError(f"history_files: {file.path}: {problem}")
    return msgspec.structs.replace(settings, symbols=symbols, history_files=files)


class Ingest:
    """One run.

    Args:
        settings: see :class:`IngestSettings`.
        sink: where records go; absent: Kafka as in the settings.
        clock: absent: the host's.
        drain_timeout_s: at a stop, how long to wait for the broker to take what was received.

    Raises:
        InputError: the settings can't be used.
    """

    def __init__(
        self,
        settings: IngestSettings,
        sink: Sink | None = None,
        clock: Clock | None = None,
        drain_timeout_s: float = _DRAIN_TIMEOUT_S,
    ) -> None:
        self._drain_timeout_s = drain_timeout_s
        self._settings = _checked(settings)
        self._clock = clock or SystemClock()
        positions = read_positions(settings.position_file, settings.session)
        self._resume = {symbol: each for symbol, each in positions.items() if symbol in self._settings.symbols}
        #: A symbol that nobody asks for now may come back within the session: its trades' ids go on then.
        self._left_out = {symbol: each for symbol, each in positions.items() if symbol not in self._resume}
        self._lanes = {symbol: self._lane(symbol) for symbol in self._settings.symbols}
        self.counts = new_counts({symbol: lane.position.last_id for symbol, lane in self._lanes.items()})
        self._source, self._options = make_source(self._settings, self.counts, self._clock)
        self._sink = sink or KafkaSink(settings.kafka)
        self._failure: asyncio.Future[None] | None = None
        self._dispatcher = Dispatcher(self._lanes, self._sink, self.counts, self._clock, self._failed)
        self._intake = Intake(self._lanes, self._dispatcher, self.counts, self._clock)
        self._opened = set(self._resume)
        self._is_open = False
        self._go = asyncio.Event()
        self._waiting_for_go = False
        self._labelled: Labelled | None = None
        self.server = StatusServer(settings.status_listen, self.status, self._families, self._go)
        self.metrics = MetricsServer(settings.metrics_listen, self._families)

    def _lane(self, symbol: str) -> Lane:
        settings = self._settings
        position = msgspec.structs.replace(self._resume.get(symbol, Position()))
        partition = partition_of(symbol, settings.kafka.partitions)
        return Lane(symbol, partition, settings.session, settings.watermark_delay_ms, position, settings.intervals)

    def _failed(self, error: BaseException) -> None:
        if self._failure is not None and not self._failure.done():
            self._failure.set_exception(error)

    def status(self) -> Status:
        """The status now."""
        return build_status(
            self._settings,
            self.counts,
            self._lanes,
            self._dispatcher.latencies_ns,
            self._waiting_for_go,
            problem_of(self._sink.problem),
            self._sink.reconnects,
        )

    def _families(self) -> Iterable[Metric]:
        # Prometheus' client is only imported where somebody asks.
        from chandlery.core.telemetry.exposition import Labelled
        from chandlery.stream.ingest.metrics import MOST_SYMBOLS, families

        if self._labelled is None:
            self._labelled = Labelled(MOST_SYMBOLS)
        return families(self.status(), self.counts.appending, self._labelled)

    async def run(self, stop: asyncio.Event) -> None:
        """Run until the market ends (only with ``exit_at_end``) or ``stop`` is set.

        What was received is appended before it returns.

        Raises:
            InputError: the source's files can't be read on. MachineError: no room, or the address is taken.
            UnavailableError: stopped, but the broker did not take all in time.
        """
        self._failure = asyncio.get_running_loop().create_future()
        await self.server.start()
        try:
            await self.metrics.start()
        except BaseException:
            await self.server.close()
            raise
        log.info("ingest started", extra={"source": self._settings.source, "status": self.server.address})
        market = asyncio.create_task(self._market())
        saver = asyncio.create_task(self._save_positions())
        stopped = asyncio.create_task(stop.wait())
        watch = asyncio.create_task(self._sink.watch())
        try:
            try:
                await self._until_over(market, stopped, saver, watch)
            finally:
                await self._stop_market(market)
                await self._drain()
        finally:
            for task in (market, saver, stopped, watch):
                task.cancel()
            await asyncio.gather(market, saver, stopped, watch, return_exceptions=True)
            await self._dispatcher.close()
            try:
                try:
                    self._write_positions()
                finally:  # what it did is told also where no position can be kept
                    write_final_status(self._settings.final_status, self.status)
            finally:
                await self._sink.close()
                await self.metrics.stop()
                await self.server.close()
            # Retrieved, so that a failure that nobody waits for any more makes no noise.
            if self._failure.done():
                self._failure.exception()

    async def _until_over(
        self, market: asyncio.Task[None], stopped: asyncio.Task[bool], *others: asyncio.Task[None]
    ) -> None:
        assert self._failure is not None
        pending: set[asyncio.Future[Any]] = {market, stopped, *others, self._failure}
        while True:
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            for future in done:
                future.result()
            if stopped in done or (market in done and getattr(self._options, "exit_at_end", False)):
                return

    async def _stop_market(self, market: asyncio.Task[None]) -> None:
        market.cancel()
        await asyncio.wait({market})

    async def _drain(self) -> None:
        assert self._failure is not None
        drained = asyncio.create_task(self._dispatcher.drained())
        try:
            done, _ = await asyncio.wait(
                {drained, self._failure}, timeout=self._drain_timeout_s, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            drained.cancel()
        if self._failure in done:
            self._failure.result()
        if not done:
            raise UnavailableError(
                f"the broker did not take all within {self._drain_timeout_s:g} s: "
                f"{self._dispatcher.waiting_trades} trades received are not appended"
            )

    async def _market(self) -> None:
        await self._sink.start()
        self._dispatcher.start()
        for symbol in self._settings.symbols:
            if symbol not in self._resume:
                await self._open(symbol)
        await self._dispatcher.drained()
        # From here on a restart resumes: the opening must never be sent twice in one session with trades between.
        self._opened.update(self._settings.symbols)
        self._is_open = True
        self._write_positions()
        if self._options.wait_for_go:
            self._waiting_for_go = True
            await self._go.wait()
            self._waiting_for_go = False
        await self._source.run(self._intake, self._resume)
        await self._dispatcher.drained()
        self.counts.finished = True
        log.info("market finished", extra={"trades": self.counts.appended})

    async def adopt(self, settings: IngestSettings) -> bool:
        """Go on with other symbols while those that stay are traded on.

        Only an exchange can be asked for others while it is heard: a run of any other source, and whatever else is
        changed, wants another beginning. There an exchange's trades are missed.

        Returns:
            False: it wants another beginning, and nothing has changed. It does too if the process ends meanwhile.
        """
        now, source = self._settings, self._source
        try:
            wanted = _checked(msgspec.structs.replace(settings, session=now.session))
        except InputError:
            return False
        is_same = msgspec.structs.replace(wanted, symbols=now.symbols) == now
        if not (is_same and self._is_open and isinstance(source, BinanceSource) and source.carries(wanted.symbols)):
            return False
        await asyncio.gather(*(self._join(symbol) for symbol in wanted.symbols if symbol not in self._lanes))
        left = [symbol for symbol in now.symbols if symbol not in wanted.symbols]
        self._left_out.update({symbol: self._lanes[symbol].position for symbol in left})
        self._settings = wanted
        # Before the first trade of a new one, as in `_market`.
        self._try_to_write_positions()
        source.follow(wanted.symbols)
        await asyncio.gather(*(self._leave(symbol) for symbol in left))
        return True

    async def _join(self, symbol: str) -> None:
        """Have a lane for one symbol more; it has been opened when this returns."""
        before = self._left_out.get(symbol)
        if before is not None:
            self._resume[symbol] = before
        lane = self._lanes[symbol] = self._lane(symbol)
        self.counts.symbols[symbol] = new_counts({symbol: lane.position.last_id}).symbols[symbol]
        if before is None:
            await self._open(symbol)
            await self._dispatcher.delivered(lane)
        self._opened.add(symbol)

    async def _leave(self, symbol: str) -> None:
        """Let one symbol go that brings no trades any more, once those that it brought are appended."""
        await self._dispatcher.delivered(self._lanes[symbol])
        del self.counts.symbols[symbol], self._lanes[symbol]
        self._resume.pop(symbol, None)

    async def _open(self, symbol: str) -> None:
        lane = self._lanes[symbol]
        lane.open(Opening(symbol, self._settings.session))
        self._dispatcher.wake(lane)
        for file in self._settings.history_files:
            if file.symbol != symbol:
                continue
            market_ms = self._source.first_trade_ms(symbol) if self._options.history_shift else None
            for record in read_history(file, self._settings.session, market_ms):
                lane.open(record)
                self._dispatcher.wake(lane)
                await self._dispatcher.room()
        for record in self._source.backfill(symbol):
            lane.open(record)
            self._dispatcher.wake(lane)
            await self._dispatcher.room()
        # Generating and reading hold the loop: let the status answer between two symbols.
        await asyncio.sleep(0)

    async def _save_positions(self) -> None:
        written = -1
        while True:
            await asyncio.sleep(_POSITION_PERIOD_S)
            if self.counts.records != written:
                written = self.counts.records
                self._try_to_write_positions()

    def _try_to_write_positions(self) -> None:
        try:
            self._write_positions()
        except MachineError as error:
            # The market matters more than a quick restart: the next second tries again.
            log.warning("position not written", extra={"error": str(error)})

    def _write_positions(self) -> None:
        if self._settings.position_file:
            positions = {
                symbol: self._lanes[symbol].position for symbol in self._settings.symbols if symbol in self._opened
            }
            write_positions(self._settings.position_file, self._settings.session, {**self._left_out, **positions})
