"""A feed's two processes: ingest and aggregator, restarted when the symbols or intervals asked for grow."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec

from chandlery.cli.endpoint import Endpoint
from chandlery.cli.runtime.children import Child
from chandlery.cli.runtime.options import UpOptions
from chandlery.cli.runtime.polling import StatusWatch, last_words, until_answers
from chandlery.cli.runtime.settings import aggregator_of, ingest_of, kafka_of, label_of
from chandlery.cli.runtime.statedir import StateDir, write_atomically
from chandlery.core.errors import ChandleryError, InputError, UnavailableError
from chandlery.core.resources import MarketFeed
from chandlery.core.settings import AggregatorSettings, IngestSettings
from chandlery.core.topics import Topics, topics_of
from chandlery.operator.unknown_symbols import UnknownSymbols

log = logging.getLogger("chandlery.up")

# Faust's import and start 3 s, recovery of its state seconds more; ten times that on a busy machine.
START_TIMEOUT_S: Final = 60.0
# What ingest grants itself to have everything acknowledged (20 s), and 5 s to end.
INGEST_STOP_S: Final = 25.0
# A commit and a flush: 1 s each; the consumer's leave and Faust's own shutdown 3 s; doubled.
AGGREGATOR_STOP_S: Final = 12.0


class FeedGroup:
    """The processes of one MarketFeed.

    Attributes:
        symbols, intervals: what is built; they only grow while the group lives (what a deleted Trader asked
            for costs less than restarting for it).
        started: whether both processes have answered and the market may go on; until then nothing of it counts.
        earlier_ingest: counts of ingest processes of this run that ended (each process counts from 0).
        ingest_exact: False once an ingest process ended without telling its final counts.
    """

    def __init__(
        self,
        feed: MarketFeed,
        folder: Path,
        bootstrap: str,
        *,
        session: int,
        options: UpOptions,
        state: StateDir,
        variables: dict[str, str],
        on_change: Callable[[Child], None],
    ) -> None:
        self.feed = feed
        self.label = label_of(feed.namespace, feed.name)
        self.kafka = kafka_of(feed, bootstrap, options)
        self.session = session
        self.symbols: set[str] = set()
        self.intervals: set[str] = set()
        self.started = False
        self.ingest = self._child("ingest", "chandlery.stream.ingest", state, variables, on_change)
        self.aggregator = self._child("aggregator", "chandlery.stream.aggregator", state, variables, on_change)
        self.ingest_endpoint = Endpoint(state.socket(f"ingest-{self.label}"))
        self.aggregator_endpoint = Endpoint(state.socket(f"aggregator-{self.label}"))
        self.ingest_watch = StatusWatch(self.ingest_endpoint, self._ingest_told)
        self.aggregator_watch = StatusWatch(self.aggregator_endpoint)
        self.baseline: dict[str, Any] = {}
        self.earlier_ingest: list[dict[str, Any]] = []
        self.ingest_exact = True
        self._folder = folder
        self._options = options
        self._state = state
        self._hold = not self.continuous
        self._tasks: list[asyncio.Task[None]] = []
        self._restarts_seen = 0
        self._wrong_input = ""
        self._unknown = UnknownSymbols()
        self._said_last: dict[str, Any] | None = None

    # Start --------------------------------------------------------------------------------------------------

    def grow(self, symbols: set[str], intervals: set[str]) -> tuple[bool, bool]:
        """Build these as well; returns whether symbols and whether intervals are new."""
        more = bool(symbols - self.symbols), bool(intervals - self.intervals)
        self.symbols |= symbols
        self.intervals |= intervals
        return more

    @property
    def continuous(self) -> bool:
        """Whether the market goes on by itself and has one session for ever (an exchange)."""
        return self.feed.spec.source.kind == "binance"

    @property
    def is_hasty(self) -> bool:
        """Whether it is a replay as fast as possible."""
        replay = self.feed.spec.source.replay
        return replay is not None and (self._options.speed or replay.speed) in ("max", math.inf)

    @property
    def topics(self) -> Topics:
        """Names of the feed's topics."""
        return topics_of(self.kafka)

    @property
    def idle(self) -> bool:
        """Whether there is nothing to build: no Trader asks, and the manifest lists nothing."""
        return not self.symbols or not self.intervals

    async def start_aggregator(self) -> None:
        """Start the aggregator and wait until it answers; what it counted in earlier runs is the baseline.

        Raises:
            ChandleryError: it ended at its start, or doesn't answer.
        """
        self._write(self._aggregator_settings())
        await self.aggregator.start()
        self._tasks.append(asyncio.create_task(self.aggregator_watch.run(), name=f"watch {self.aggregator.name}"))
        await until_answers(self.aggregator, self._recovered, START_TIMEOUT_S)
        self.baseline = self.aggregator_watch.status

    async def start_ingest(self) -> None:
        """Start ingest and wait until it answers. Replays and synthetic markets then wait for :meth:`go`.

        Raises:
            ChandleryError: it ended at its start, or doesn't answer.
        """
        self._write(self._ingest_settings())
        await self.ingest.start()
        self._tasks.append(asyncio.create_task(self.ingest_watch.run(), name=f"watch {self.ingest.name}"))
        await until_answers(self.ingest, self.ingest_watch.refresh, START_TIMEOUT_S)

    async def history_left(self) -> int | None:
        """Records of history that ingest appended before the market began, and that the aggregator has still to take in.

        None: not known yet, for ingest is still at it.

        Raises:
            UnavailableError: one of them doesn't answer.
        """
        if self._hold and not (await self.ingest_watch.refresh()).get("waiting_for_go"):
            return None
        lag: int | None = (await self.aggregator_watch.refresh()).get("lag")
        return lag

    async def go(self) -> None:
        """Let trades flow; from here on also after a restart of ingest.

        Raises:
            UnavailableError: ingest doesn't answer.
        """
        if not self._hold:
            return
        self._hold = False
        self._write(self._ingest_settings())
        await self.ingest_endpoint.call("POST", "/v1/go")

    async def follow(self, *, symbols: bool, intervals: bool) -> None:
        """Restart what must know of new symbols or intervals. The session goes on where it stood.

        The market stands still for as long as the restarts take (a few seconds). A replay or synthetic market resumes where
        it was; what an exchange trades meanwhile is missing, and counted as a gap.

        Raises:
            ChandleryError: one of them does not come back by now; it goes on being started.
        """
        if symbols or intervals:
            log.info("feed grows", extra={"feed": self.label, "symbols": len(self.symbols), "restarts": True})
            await self.stop_ingest()
        problem: ChandleryError | None = None
        if intervals:
            self._write(self._aggregator_settings())
            try:
                await self.aggregator.restart(AGGREGATOR_STOP_S)
                await until_answers(self.aggregator, self._recovered, START_TIMEOUT_S)
            except ChandleryError as error:
                problem = error  # it is started again and again; ingest, which has ended, would never be
        self._write(self._ingest_settings())
        await self.ingest.resume()
        await until_answers(self.ingest, self.ingest_watch.refresh, START_TIMEOUT_S)
        if problem is not None:
            raise problem

    async def _recovered(self) -> None:
        status = await self.aggregator_watch.refresh()
        if not status.get("ready"):
            raise UnavailableError(f"{self.aggregator.name} still recovers its state")

    # Stop ---------------------------------------------------------------------------------------------------

    async def stop_ingest(self) -> bool:
        """End ingest after it has flushed; keep its final counts. Returns whether it ended in order."""
        in_order = await self.ingest.stop(INGEST_STOP_S)
        self._keep_final()
        return in_order

    async def stop_aggregator(self) -> bool:
        """End the aggregator; returns whether it ended in order."""
        with contextlib.suppress(UnavailableError):
            await self.aggregator_watch.refresh()
        return await self.aggregator.stop(AGGREGATOR_STOP_S)

    async def close(self) -> None:
        """Let go of watches and connections."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.ingest_endpoint.close()
        await self.aggregator_endpoint.close()
        if self._options.metrics is not None:
            self._options.metrics.forget(self.ingest.name, self.aggregator.name)

    @property
    def finished(self) -> bool:
        """Whether its replay's end is appended."""
        return bool(self.ingest_watch.status.get("finished"))

    @property
    def wrong_input(self) -> str:
        """Why it has no market: ingest can't use what it was given; empty: it can, as far as is known.

        It stays until a process that was started later has truly worked, as what was wrong has been mended.
        """
        return "" if self.finished else self._wrong_input

    @property
    def is_hopeless(self) -> bool:
        """Whether its replay will get to no end, as far as is known: its input is wrong, and no new process tries it now."""
        is_wrong = bool(self.wrong_input) and self.ingest.last_exit == InputError.exit_code
        return is_wrong and self.ingest.state == "backoff"

    def note_unknown_symbols(self) -> list[str]:
        """Take what ingest said last; returns the symbols that the source doesn't have, as :class:`UnknownSymbols` tells."""
        status = self.ingest_watch.status
        self._unknown.note(status.get("unknown_symbols", []), bool(status.get("connected")), time.monotonic())
        return self._unknown.symbols

    # Counts -------------------------------------------------------------------------------------------------

    def note_ingest_end(self) -> None:
        """Called when ingest ended by itself: its last counts are kept, as far as they are known."""
        if self.ingest.restarts > self._restarts_seen:
            self._restarts_seen = self.ingest.restarts
            if self.ingest.last_exit == InputError.exit_code:
                self._wrong_input = f"{self.ingest.name} ended (exit code 2): {last_words(self.ingest)}"
            self.ingest_exact = False
            self._keep_final()

    def ingest_counts(self) -> Counter[str]:
        """``frames``, ``appended`` and ``received`` trades, ``reconnects`` and drops of this run, over all ingest processes.

        ``drop:missing_ids`` are trades that the exchange's ids tell of and that never came, as far as that is known now.
        """
        total: Counter[str] = Counter()
        # One that was started anew has said nothing yet while what the one before said last stands there.
        told = self.ingest_watch.status is not self._said_last
        running = [self.ingest_watch.status] if self.ingest.pid and told else []
        for status in [*self.earlier_ingest, *running]:
            trades = status.get("trades", {})
            total["frames"] += int(status.get("frames", 0))
            total["received"] += int(trades.get("received", 0))
            total["appended"] += int(trades.get("appended", 0))
            total["reconnects"] += int(status.get("reconnects", 0))
            total["drop:missing_ids"] += sum(int(one.get("gap_ids", 0)) for one in status.get("symbols", {}).values())
            for group in ("malformed",):
                for reason, number in status.get(group, {}).items():
                    total[f"drop:{group}_{reason}"] += int(number)
            for reason, number in trades.get("dropped", {}).items():
                total[f"drop:ingest_{reason}"] += int(number)
        return total

    def _keep_final(self) -> None:
        path = self._state.final(self.ingest.name)
        try:
            status = msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
            path.unlink()
        except (OSError, msgspec.DecodeError):
            status = self.ingest_watch.status
            self.ingest_exact = False
        # One that ended before it said anything has nothing to add: what stands there counts already.
        if status and status is not self._said_last:
            self.earlier_ingest.append(status)
        self.ingest_watch.status = self._said_last = {**status, "connected": False}

    # Inside -------------------------------------------------------------------------------------------------

    def _ingest_told(self) -> None:
        if self._wrong_input and self.ingest.pid and self._works(self.ingest_watch.status):
            self._wrong_input = ""

    def _works(self, status: dict[str, Any]) -> bool:
        """Whether ingest can use what it was given, by what it says itself."""
        if int(status.get("trades", {}).get("appended", 0)) > 0:
            return True
        # A replay says that it is connected before it has read a line of its files; other sources when the market is there.
        return bool(status.get("connected")) and self.feed.spec.source.kind != "replay"

    def _child(
        self,
        role: str,
        module: str,
        state: StateDir,
        variables: dict[str, str],
        on_change: Callable[[Child], None],
    ) -> Child:
        name = f"{role}-{self.label}"
        command = [sys.executable, "-m", module, "--config", str(state.settings(name))]
        return Child(name, command, state.log(name), variables, on_change)

    def _ingest_settings(self) -> IngestSettings:
        return ingest_of(
            self.feed,
            self._folder,
            self.kafka,
            self.symbols,
            self.intervals,
            session=self.session,
            hold=self._hold,
            options=self._options,
            state=self._state,
        )

    def _aggregator_settings(self) -> AggregatorSettings:
        return aggregator_of(self.feed, self.kafka, self.intervals, self._options, self._state)

    def _write(self, settings: IngestSettings | AggregatorSettings) -> None:
        name = self.ingest.name if isinstance(settings, IngestSettings) else self.aggregator.name
        write_atomically(self._state.settings(name), msgspec.json.encode(settings))
