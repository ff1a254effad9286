"""``chandlery perf compare`` whole: its own broker, real workers, real traders, tiny numbers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from chandlery.cli.comparing.result import decode_comparison
from chandlery.cli.runtime.procfs import pids_with_variable
from chandlery.cli.runtime.statedir import RUN_VARIABLE

pytestmark = [pytest.mark.broker, pytest.mark.slow, pytest.mark.timeout(300)]
DEADLINE_S = 200.0


@contextmanager
def comparing(folder: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    """The command, its temporary files in ``folder``."""
    words = [
        sys.executable,
        "-m",
        "chandlery.cli",
        "perf",
        "compare",
        "--traders",
        "2",
        "--seconds",
        "3",
        "--symbols",
        "3",
    ]
    with subprocess.Popen(
        [*words, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(folder)},
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def ours(folder: Path) -> list[int]:
    """Processes that run with this folder for their temporary files, whatever run they belong to."""
    return [pid for pid in pids_with_variable("TMPDIR", str(folder)) if pid in pids_with_variable(RUN_VARIABLE, "")]


def test_both_transports_are_measured_and_decide_alike_and_nothing_is_left(tmp_path: Path) -> None:
    temporary = tmp_path / "t"
    temporary.mkdir()
    plot = tmp_path / "plot.svg"
    with comparing(temporary, "--json", "--plot", str(plot)) as process:
        output, said = process.communicate(timeout=DEADLINE_S)
    found = decode_comparison(output)
    assert process.returncode == 0, (said, found.problems)
    assert (found.conditions.traders, found.conditions.seconds, found.conditions.symbols) == ([2], 3, 3)
    (size,) = found.sizes
    for of in size.by_transport.values():
        assert of.candles >= 3
        assert of.missed == 0
        # A close of each symbol a second, give or take one at the ends; each decided by both traders.
        assert of.visible_to_decided_us.count == of.candles * 2
        assert of.visible_to_decided_us.p50 is not None
        assert of.frame_to_signal_us.count == of.visible_to_decided_us.count
        assert 0 < of.trader_cpu_percent < of.worker_cpu_percent
        assert 0 < of.feed_pss_bytes < of.worker_pss_bytes
    assert size.ratios.visible_to_decided_p50 is not None
    both = found.side_by_side
    assert both is not None
    assert (both.traders, both.different) == (2, 0)
    assert both.decisions > 0
    assert found.advice.startswith("With 2 traders ")
    assert ET.parse(plot).getroot().tag.endswith("svg")
    assert "side by side: measuring" in said
    assert list(temporary.iterdir()) == []
    assert ours(temporary) == []


def test_an_interrupt_ends_it_at_once_with_130_and_leaves_nothing(tmp_path: Path) -> None:
    with comparing(tmp_path) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "starting feeds and workers" in line:
                break
        began_s = time.monotonic()
        while not list(tmp_path.glob("chandlery-perf-*/state/rings/*/*")) and time.monotonic() < began_s + 60:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        output, said = process.communicate(timeout=DEADLINE_S)
    assert (process.returncode, output) == (130, ""), said
    assert "Traceback" not in said
    assert list(tmp_path.iterdir()) == []
    assert ours(tmp_path) == []
