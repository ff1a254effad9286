"""Runs of ``chandlery up`` over manifests made for a measurement, in a state folder of their own."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import yaml

from benchmarks.harness import say
from chandlery.console.summary import Quantiles, Summary, decode_summary
from chandlery.core.errors import SegmentError
from chandlery.core.settings import FeedSettings, read_settings
from chandlery.workers.segment import SignalRing

_API: Final = "chandlery.dev/v1alpha1"
#: From the signal to the end: each process gets up to 12 s, one after the other's.
STOP_S: Final = 60.0
#: Starting with cold files on a busy machine, beside the run itself.
_START_S: Final = 120.0


def resource(kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    """One manifest."""
    return {"apiVersion": _API, "kind": kind, "metadata": {"name": name}, "spec": spec}


def synthetic_market(symbols: Sequence[str], trades_per_second: float, history: int) -> list[dict[str, Any]]:
    """A MarketFeed ``market`` and a TraderPool ``desk`` of one worker for 20 traders."""
    source = {"synthetic": {"seed": 11, "tradesPerSecond": trades_per_second, "quietShare": 0, "volatility": 0.0005}}
    return [
        resource("MarketFeed", "market", {"source": source, "symbols": list(symbols), "history": {"candles": history}}),
        resource("TraderPool", "desk", {"feed": {"name": "market"}, "tradersPerWorker": 20}),
    ]


@contextmanager
def state_folder() -> Iterator[Path]:
    """A short-named temporary folder: Unix sockets lie in it."""
    folder = Path(tempfile.mkdtemp(prefix="cb-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def write_manifests(folder: Path, manifests: Sequence[dict[str, Any]]) -> Path:
    """One file with all of them; its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "all.yaml").write_text(yaml.safe_dump_all(manifests, sort_keys=False), encoding="utf-8")
    return folder


def without_telemetry(environment: Mapping[str, str]) -> dict[str, str]:
    """An environment in which traces go nowhere but where the manifests say: an exporter beside it would be in every figure."""
    return {name: value for name, value in environment.items() if not name.startswith("OTEL_")}


def start(manifests: Path, state: Path, *options: str, console: str = "off") -> subprocess.Popen[bytes]:
    """``chandlery up`` without a view; its log lines go to ``state/../up.txt``; console: where that listens."""
    words = [sys.executable, "-m", "chandlery.cli", "up", "-f", str(manifests), "--state", str(state), "--no-view"]
    # What is measured is the market's way; a console beside it would be in every figure.
    words += ["--console", console]
    with (state.parent / "up.txt").open("ab") as log:
        environment = without_telemetry(os.environ)
        return subprocess.Popen([*words, *options], stdout=subprocess.PIPE, stderr=log, env=environment)


def summary_of(process: subprocess.Popen[bytes], state: Path, run_s: float) -> Summary:
    """Wait for a run with ``--json`` to end; what it printed.

    Raises:
        ChildProcessError: it printed no summary.
    """
    try:
        output, _ = process.communicate(timeout=run_s + _START_S + STOP_S)
    except subprocess.TimeoutExpired:
        stop(process)
        raise
    if not output:
        words = (state.parent / "up.txt").read_text(encoding="utf-8", errors="replace")[-2_000:]
        raise ChildProcessError(f"chandlery up ended with {process.returncode} and no summary: {words}")
    summary = decode_summary(output)
    for problem in summary.problems:
        say(f"the run had a problem: {problem}")
    return summary


def stop(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM, and wait; SIGKILL where it doesn't end."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.communicate(timeout=STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


def calls_of(state: Path) -> dict[str, int]:
    """Calls of each trader so far, from the rings; they outlive runs, and so do the counts."""
    calls: dict[str, int] = {}
    for path in state.glob("rings/*/*.ring"):
        try:
            with SignalRing.attach(str(path)) as ring:
                calls[ring.trader] = ring.get("calls")
        except SegmentError:
            continue  # being made just now
    return calls


def segments_of(state: Path) -> list[Path]:
    """The segment of each worker that has been started over this state folder."""
    settings = [read_settings(str(path), FeedSettings) for path in state.glob("settings/feed-*.json")]
    return [Path(each.shm_dir) / "segment" for each in settings]


def health(summary: Summary) -> str:
    """What a reader should know of a run beside its figures."""
    traders = summary.traders
    text = f"{traders.ready} of {traders.desired} traders ready, {summary.frames:,} frames, "
    text += f"{summary.signals.unique:,} signals, counts {'reconcile' if summary.reconciles else 'DO NOT reconcile'}"
    drops = {name: number for name, number in summary.drops.items() if number}
    return text + (f", drops {drops}" if drops else "")


def value_of(quantiles: Quantiles, name: str) -> float:
    """p50 or p99, µs; NaN where there was nothing to measure."""
    value = getattr(quantiles, name)
    return float("nan") if value is None else float(value)


def until(
    holds: Callable[[], bool], deadline_s: float, what: str, process: subprocess.Popen[bytes], poll_s: float = 0.02
) -> None:
    """Poll until ``holds()``.

    Raises:
        ChildProcessError: the run ended. TimeoutError: not within ``deadline_s``.
    """
    end = time.monotonic() + deadline_s
    while not holds():
        if process.poll() is not None:
            raise ChildProcessError(f"chandlery up ended with {process.returncode} before: {what}")
        if time.monotonic() > end:
            raise TimeoutError(f"not within {deadline_s:g} s: {what}")
        time.sleep(poll_s)
