"""A real ``chandlery up`` as a process, for tests: started, looked at, ended, and seen to leave nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from chandlery.cli.instance import current_view
from chandlery.cli.runtime.procfs import pids_with_variable
from chandlery.cli.runtime.statedir import RUN_VARIABLE, StateDir
from chandlery.console.model import TraderRow, View
from chandlery.core.errors import ChandleryError

#: Longest anything here takes on a machine under load; a test that fails says what it waited for.
DEADLINE_S = 90.0


def platform(source: str, name: str = "market", *, pool: str = "demo", feed_spec: str = "", pool_spec: str = "") -> str:
    """Manifests of a feed and of a pool that has its candles.

    Args:
        source: the feed's source, as YAML in braces. feed_spec, pool_spec: one field more of their specs, as YAML.
    """
    return f"""
apiVersion: chandlery.dev/v1alpha1
kind: MarketFeed
metadata: {{name: {name}}}
spec:
  source: {source}
  {feed_spec}
---
apiVersion: chandlery.dev/v1alpha1
kind: TraderPool
metadata: {{name: {pool}}}
spec: {{feed: {{name: {name}}}{pool_spec and f", {pool_spec}"}}}
"""


FEED = platform("{synthetic: {seed: 7, tradesPerSecond: 20, volatility: 0.0003}}", feed_spec="history: {candles: 100}")

STRATEGIES = '''
from chandlery.workers.strategy import Strategy, parameter


class EachCandle(Strategy):
    """Buys on every candle: a test needn't wait for a market's mood."""

    name = "each-candle"
    every: int = parameter(1, ge=1, le=100, doc="not used, but 99 can't be loaded")

    @property
    def warmup(self):
        if self.every == 99:
            raise RuntimeError("ninety-nine is too many")
        return 1

    def on_candle(self, ctx, candles):
        ctx.buy(reason="another candle", rule="each")
'''


def teller(name: str, symbol: str = "BTC/USDT", every: int = 1) -> str:
    """A Trader that signals on every candle of 1 s."""
    return trader(name, symbol, "each-candle", every=every)


def trader(name: str, symbol: str = "BTC/USDT", strategy: str = "sma-cross", interval: str = "1s", **more: int) -> str:
    """A Trader's manifest; ``more``: parameters."""
    parameters = json.dumps(more or {"fast": 2, "slow": 5})
    return f"""
apiVersion: chandlery.dev/v1alpha1
kind: Trader
metadata: {{name: {name}}}
spec:
  pool: {{name: demo}}
  strategy: {{name: {strategy}, parameters: {parameters}}}
  market: {{symbols: [{symbol}], interval: {interval}}}
"""


def write_manifests(folder: Path, **traders: str) -> Path:
    """A folder with a feed, a pool, and a file for each Trader."""
    folder.mkdir(exist_ok=True)
    (folder / "platform.yaml").write_text(FEED)
    for name, text in traders.items():
        (folder / f"{name}.yaml").write_text(text)
    return folder


class Up:
    """One ``chandlery up``; use it in ``with``, so that nothing stays after a failed test.

    ``program``: what Python is told to run, the command itself unless a test must change something in it.
    """

    def __init__(
        self, folder: Path, manifests: Path, *options: str, program: Sequence[str] = ("-m", "chandlery.cli")
    ) -> None:
        self.state = folder / "state"
        self._state = StateDir(self.state)
        self._errors = folder / f"up-{time.monotonic_ns()}.err"
        self._has_run = False
        strategies = folder / "strategies"
        strategies.mkdir(exist_ok=True)
        (strategies / "each_candle.py").write_text(STRATEGIES)
        #: The same call once more.
        self.command = [sys.executable, *program, "up", "-f", str(manifests), "--state", str(self.state)]
        self.command += ["--strategies", str(strategies)]
        if "--console" not in options:
            # A second of CPU that most tests have no use for.
            self.command += ["--console", "off"]
        with self._errors.open("wb") as errors:
            self.process = subprocess.Popen(
                [*self.command, *options],
                stdout=subprocess.PIPE,
                stderr=errors,
            )  # fmt: skip

    def __enter__(self) -> Up:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        until(lambda: not self.left(), "the reaper ends what a failed test left")

    @property
    def said(self) -> str:
        """Everything on stderr so far."""
        return self._errors.read_text(errors="replace")

    def view(self) -> View | None:
        """The instance's view, None while there is none.

        One that has been seen running and lives is asked until it answers: a call gives up after 2 s, which is not
        always enough where others have the processor.
        """
        deadline = time.monotonic() + DEADLINE_S
        while True:
            try:
                return current_view(self.state)
            except ChandleryError:
                if not self._has_run or self.process.poll() is not None or time.monotonic() > deadline:
                    return None
            time.sleep(0.05)

    def running(self) -> View:
        """Wait until it runs."""

        def is_running() -> bool:
            assert self.process.poll() is None, f"ended with {self.process.returncode}:\n{self.said}"
            view = self.view()
            return view is not None and view.phase == "running"

        until(is_running, lambda: f"it runs; it said:\n{self.said}")
        self._has_run = True
        view = self.view()
        assert view is not None
        return view

    def trader(self, name: str) -> TraderRow | None:
        """A Trader's row."""
        view = self.view()
        rows = [row for row in view.traders if row.trader == f"default/{name}"] if view else []
        return rows[0] if rows else None

    def pid_of(self, process: str) -> int:
        """Pid of one of its processes, 0 while it has none."""
        view = self.view()
        return next((row.pid for row in view.processes if row.name == process), 0) if view else 0

    def end(self, number: signal.Signals = signal.SIGINT) -> int:
        """Ask for the end; returns the exit code."""
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        """Wait for the end; returns the exit code."""
        try:
            self.process.wait(DEADLINE_S + 60)
        except subprocess.TimeoutExpired as error:
            raise AssertionError(f"it did not end; it said:\n{self.said}") from error
        return self.process.returncode

    def summary(self) -> dict[str, Any]:
        """Wait for the end and read the summary from stdout."""
        output, _ = self.process.communicate(timeout=DEADLINE_S + 60)
        try:
            summary: dict[str, Any] = json.loads(output)
        except ValueError as error:
            raise AssertionError(f"no summary but {output!r}; it said:\n{self.said}") from error
        return summary

    def left(self) -> list[str]:
        """Processes and shared memory of this state, reaper left out."""
        processes = [str(pid) for pid in pids_with_variable(RUN_VARIABLE, f"{self._state.key}-")]
        return processes + [str(path) for path in Path("/dev/shm").glob(f"chandlery-{self._state.key}-*")]


def until(condition: Callable[[], bool], what: str | Callable[[], str], timeout_s: float = DEADLINE_S) -> None:
    """Poll until a condition holds."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_s:.0f} s: {what if isinstance(what, str) else what()}")
        time.sleep(0.05)


def kill_hard(pid: int) -> None:
    """kill -9."""
    assert pid > 0
    os.kill(pid, signal.SIGKILL)
