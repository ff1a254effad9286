"""Workers watched for ``kubectl chandlery top``: one long answer from within each pod, read in a thread of its own."""

from __future__ import annotations

import contextlib
import subprocess
import threading
from collections import OrderedDict
from typing import Final

import msgspec

from chandlery.cli.plugin.asking import FEED, explained, query
from chandlery.cli.plugin.kubectl import Kubectl
from chandlery.console.cluster import TopRow, TraderState
from chandlery.console.summary import quantiles_us
from chandlery.core.errors import ChandleryError

#: Newest signals of a worker that percentiles are made of.
_KEPT: Final = 2_000
_AGAIN_S: Final = 2.0


class Reported(msgspec.Struct):
    """What of a trader's status is shown (core/assignment.py); a state of a newer worker is taken as it is."""

    state: str
    reason: str = ""
    calls: int = 0
    signals: int = 0
    restarts: int = 0
    errors: int = 0
    rss_bytes: int = 0


class _Status(msgspec.Struct):
    traders: dict[str, Reported] = {}


class Look(msgspec.Struct):
    """One line of the query's ``watch``: at_ns: the pod's monotonic clock."""

    at_ns: int
    status: _Status
    signals: list[tuple[str, str, float | None]] = []


_decode: Final = msgspec.json.Decoder(Look).decode


class Figures:
    """A worker's newest answers, and what two of them in a row say about rates."""

    def __init__(self) -> None:
        self._before: Look | None = None
        self._now: Look | None = None
        self._latencies: OrderedDict[str, tuple[str, float]] = OrderedDict()

    def take(self, look: Look) -> None:
        """Take in an answer."""
        if self._now is not None and look.at_ns <= self._now.at_ns:
            self._now = None  # another host's clock: no rate across the two
        self._before, self._now = self._now, look
        for signal, trader, latency_us in look.signals:
            if latency_us is not None:
                self._latencies[signal] = (trader, latency_us)
        while len(self._latencies) > _KEPT:
            self._latencies.popitem(last=False)

    def fill(self, row: TopRow) -> None:
        """Put a Trader's figures into its row; a Trader that the worker doesn't know keeps its status's."""
        now = self._now.status.traders.get(row.trader) if self._now is not None else None
        if now is None:
            return
        row.live, row.state, row.reason = True, now.state, now.reason
        row.calls, row.signals, row.restarts = now.calls, now.signals, now.restarts
        row.errors, row.rss_bytes = now.errors, now.rss_bytes
        row.calls_per_s = self._rate(row.trader, now.calls)
        of_it = [int(us * 1000) for trader, us in self._latencies.values() if trader == row.trader]
        quantiles = quantiles_us(of_it)
        row.p50_us, row.p99_us = quantiles.p50, quantiles.p99

    def _rate(self, trader: str, calls: int) -> float | None:
        before = self._before.status.traders.get(trader) if self._before is not None else None
        if before is None or self._before is None or self._now is None or calls < before.calls:
            return None
        return (calls - before.calls) / ((self._now.at_ns - self._before.at_ns) / 1e9)


class WorkerWatch:
    """One worker's pod.

    Args:
        every_s: between two looks. count: how often; 0: until stopped.

    Attributes:
        problem: why nothing comes; None: it does, or nothing is known yet. done: set when no more will come.
    """

    def __init__(self, kubectl: Kubectl, namespace: str, pod: str, *, every_s: float, count: int = 0) -> None:
        self.namespace, self.pod = namespace, pod
        self.problem: ChandleryError | None = None
        self.done = threading.Event()
        self._kubectl = kubectl
        self._command = query("watch", "--every", f"{every_s:g}", "--count", str(count))
        self._endless = count == 0
        self._figures = Figures()
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        # A daemon: an end by Ctrl-C needn't wait for a pod that doesn't answer.
        self._thread = threading.Thread(target=self._run, name=f"watch {namespace}/{pod}", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._stopping.set()
        process = self._process
        if process is not None:
            with contextlib.suppress(OSError):
                process.terminate()
        self._thread.join(2.0)

    def fill(self, row: TopRow) -> None:
        """Put a Trader's newest figures into its row."""
        with self._lock:
            self._figures.fill(row)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._look()
                if not self._endless:
                    break
            except ChandleryError as error:
                with self._lock:
                    self.problem = explained(error, self.namespace, self.pod)
                    self._figures = Figures()
                if not self._endless:
                    break
            self._stopping.wait(_AGAIN_S)
        self.done.set()

    def _look(self) -> None:
        with self._kubectl.executing(self.namespace, self.pod, FEED, self._command) as process:
            self._process = process
            if self._stopping.is_set():
                return
            assert process.stdout is not None
            assert process.stderr is not None
            for line in process.stdout:
                try:
                    look = _decode(line)
                except msgspec.DecodeError:
                    continue  # a warning of the interpreter, not ours
                with self._lock:
                    self.problem = None
                    self._figures.take(look)
            if self._stopping.is_set():
                return
            complaint = process.stderr.read().decode(errors="replace")
            if code := process.wait():
                raise self._kubectl.failure(complaint, code)


def first_row(trader: TraderState) -> TopRow:
    """What its status tells of a Trader, before its worker does."""
    return TopRow(
        trader.trader, trader.reason or "Unknown", signals=trader.signals, restarts=trader.restarts,
        pool=trader.pool, pod=trader.pod,
    )  # fmt: skip
