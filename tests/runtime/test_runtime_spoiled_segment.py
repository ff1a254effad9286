"""A whole run whose segment somebody truncates, overwrites or removes: all goes on by itself, and the counts add up."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.runtime.test_runtime_up import reconciles
from tests.runtime.up_process import Up, teller, until, write_manifests

from chandlery.cli.runtime.statedir import StateDir

pytestmark = [pytest.mark.broker, pytest.mark.slow, pytest.mark.timeout(400)]


def overwrite(path: Path) -> None:
    """Garbage over all of it, in place."""
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.write(os.urandom(size))


def ends_of_feed(state: StateDir) -> list[dict[str, Any]]:
    """What the run's log says of each end of the feed's process that nobody asked for."""
    lines = map(json.loads, state.log("up").read_text().splitlines())
    return [line for line in lines if line.get("child") == "feed-demo-0" and "exit" in line]


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda path: os.truncate(path, 0), "truncated"),
        (overwrite, "its header was overwritten, not by this feed; it is made anew"),
        (lambda path: path.unlink(), "it can't be found any more"),
    ],
    ids=["truncated", "overwritten", "removed"],
)
def test_a_spoiled_segment_is_made_anew_and_traders_go_on(
    tmp_path: Path, spoil: Callable[[Path], None], said: str
) -> None:
    manifests = write_manifests(tmp_path / "m", one=teller("one"), two=teller("two", "ETH/USDT"))
    with Up(tmp_path, manifests, "--for", "300s", "--json") as up:
        state = StateDir(up.state)
        run = up.running().run

        def signals() -> list[int]:
            view = up.view()
            return [row.signals for row in view.traders if row.state == "Active"] if view is not None else []

        until(lambda: len(signals()) == 2 and min(signals(), default=0) > 0, "both signal")
        segment = state.shm(run) / "demo-0" / "segment"
        spoiled, before = segment.stat().st_ino, max(signals())
        with segment.open("rb"):  # so that its inode's number isn't given to the next one
            spoil(segment)
            until(lambda: segment.exists() and segment.stat().st_ino != spoiled, "the feed makes a new one")
        until(
            lambda: len(signals()) == 2 and min(signals(), default=0) > before + 3,
            lambda: f"both traders go on after {before}: {up.view()}",
        )
        up.process.send_signal(signal.SIGINT)
        summary = up.summary()
        assert up.wait() == 0, up.said
        assert up.left() == []
    reconciles({**summary, "signals": {**summary["signals"], "published": summary["signals"]["unique"]}}, up.said)
    assert summary["restarts"] == {"feed-demo-0": 1}
    assert summary["traders"]["ready"] == summary["traders"]["desired"] == 2
    [end] = ends_of_feed(state)
    assert said in end["reason"] + state.log("feed-demo-0").read_text(), end
