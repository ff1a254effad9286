"""``chandlery up`` as a whole, with real processes: its verdict, its end, and that nothing is left behind."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest
from tests.runtime.up_process import Up, kill_hard, teller, trader, until, write_manifests

from chandlery.cli.runtime.procfs import is_alive
from chandlery.stream.broker import EmbeddedBroker

pytestmark = [pytest.mark.broker, pytest.mark.slow, pytest.mark.timeout(400)]


def reconciles(summary: dict[str, Any], said: str, most_dropped: int = 0) -> None:
    """Every count of a summary adds up, and something happened; ``most_dropped``: signals that may have come twice."""
    trades, signals = summary["trades"], summary["signals"]
    assert summary["problems"] == [], said
    assert summary["reconciles"] is True
    assert trades["received"] == sum(trades[name] for name in ("counted", "open", "late", "duplicate", "dead"))
    assert trades["ingested"] == trades["received"] > 0
    assert signals["emitted"] - signals["dropped"] == signals["published"] == signals["unique"] > 0, summary
    assert signals["dropped"] <= most_dropped, summary


def test_a_run_with_an_end_gives_a_summary_twice_over_the_same_state(tmp_path: Path) -> None:
    manifests = write_manifests(tmp_path / "m", one=teller("one"), two=teller("two", "ETH/USDT"))
    sessions: list[int] = []
    frames: list[int] = []
    for _ in range(2):
        with Up(tmp_path, manifests, "--for", "6s", "--json") as up:
            summary = up.summary()
            assert up.wait() == 0, up.said
            assert "chandlery is up" in up.said
            assert up.left() == []
        reconciles(summary, up.said)
        assert summary["traders"] == {"desired": 2, "ready": 2, "restarts": 0}
        assert summary["latency_us"]["frame_to_signal"]["count"] == summary["signals"]["unique"]
        assert summary["latency_us"]["visible_to_decided"]["p50"] > 0
        names = {"kafka", "ingest-market", "aggregator-market", "feed-demo-0", "supervisor-demo-0", "default/one"}
        assert names <= summary["memory_bytes"].keys()
        assert all(figure["rss"] >= figure["pss"] > 0 for figure in summary["memory_bytes"].values())
        # Forming updates that their candle's close overtook: two topics keep no order between them.
        # A second run also reads over what the first one left.
        assert summary["drops"].keys() <= {"stale_forming", "held_dropped", "session"}
        assert "assignment not delivered" not in (up.state / "logs" / "up.log").read_text(), "a feed still starts, once"
        sessions.append(summary["session"])
        frames.append(summary["frames"])
    assert sessions[1] > sessions[0]
    # A run of a sixth of both together: however unlike this machine's minutes are, it has fewer of its own.
    with Up(tmp_path, manifests, "--for", "2s", "--json") as short:
        assert short.summary()["frames"] < sum(frames), "each run counts only what is its own"


#: The command, but its market begins without a Trader that isn't Ready after 1 s, not after 20.
IMPATIENT = """
import runpy
from chandlery.cli.runtime import local
local._READY_TIMEOUT_S = 1.0
runpy.run_module("chandlery.cli", run_name="__main__")
"""


def test_a_trader_that_raises_while_it_warms_up_fails_the_run_and_is_named(
    tmp_path: Path, broker: EmbeddedBroker
) -> None:
    manifests = write_manifests(tmp_path / "m", sound=teller("sound"), sick=teller("sick", every=99))
    name = f"sick-{tmp_path.name[-1]}-{os.getpid()}"
    platform = manifests / "platform.yaml"
    platform.write_text(platform.read_text().replace("name: market", f"name: {name}"))
    options = ("--for", "300s", "--json", "--kafka", broker.bootstrap)
    with Up(tmp_path, manifests, *options, program=("-c", IMPATIENT)) as up:
        up.running()

        def both_are_settled() -> bool:
            sound, sick = up.trader("sound"), up.trader("sick")
            return bool(sound and sick and sound.ready and "ninety-nine" in sick.last_error + sick.message)

        until(both_are_settled, lambda: f"one is ready and one says why not: {up.trader('sound')}, {up.trader('sick')}")
        up.process.send_signal(signal.SIGINT)
        summary = up.summary()  # One JSON object, and nothing beside it.
        assert up.wait() == 1, up.said
    assert (summary["traders"]["desired"], summary["traders"]["ready"]) == (2, 1)
    [problem] = summary["problems"]
    assert problem.startswith("Trader default/sick did not become Ready: ")
    assert "ninety-nine is too many" in problem
    assert problem in " ".join(up.said.split()), "a person is told as well"
    assert summary["reconciles"] is True


@pytest.mark.parametrize("wrong", ["sma-cros", "sma-cross"])
def test_a_mistake_is_told_by_a_line_and_nothing_starts(tmp_path: Path, wrong: str) -> None:
    bad = trader("bad", strategy=wrong) if wrong == "sma-cros" else trader("bad", fast=0, slow=5)
    manifests = write_manifests(tmp_path / "m", bad=bad)
    with Up(tmp_path, manifests, "--json") as up:
        assert up.wait() == 2
        assert "Trader/default/bad" in up.said
        assert "spec.strategy" in up.said
        assert not up.state.exists(), "nothing was started"
        assert up.process.communicate()[0] == b""


def test_a_machine_without_room_or_port_is_told_what_to_do_and_keeps_nothing(tmp_path: Path) -> None:
    manifests = write_manifests(tmp_path / "m", one=teller("one"))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with Up(tmp_path, manifests, "--port", str(port)) as up:
            assert up.wait() == 3
            assert f"port {port}" in up.said
            assert up.left() == []
    platform = manifests / "platform.yaml"
    greedy = "{feed: {name: market}, segment: {candles: 100000, series: 8192}}"  # 91 GB
    platform.write_text(platform.read_text().replace("{feed: {name: market}}", greedy))
    with Up(tmp_path, manifests) as up:
        assert up.wait() == 3, up.said
        assert "feed-demo-0" in up.said
        assert "segment_series" in up.said, up.said
        assert up.left() == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_kill_9_and_sigterm_leave_no_process_and_no_shared_memory(tmp_path: Path, number: signal.Signals) -> None:
    manifests = write_manifests(tmp_path / "m", one=teller("one"))
    with Up(tmp_path, manifests) as up:
        pids = [row.pid for row in up.running().processes if row.name != "up"]
        traders = [row.pid for row in up.running().traders]
        assert len(up.left()) >= 6
        code = up.end(number)
        if number == signal.SIGTERM:
            assert code == 0, up.said
            assert re.search(r"counts +reconcile", up.said), f"it did not end in order:\n{up.said}"
            assert up.left() == [], "nothing is left to the reaper"
        until(lambda: up.left() == [], lambda: f"gone: {up.left()}")
        assert not any(is_alive(pid) for pid in [*pids, *traders])
    if number == signal.SIGTERM:
        return
    with Up(tmp_path, manifests, "--json") as again:
        again.running()

        def goes_on() -> bool:
            # Signals alone may be on what closed before the end, which is decided as soon as it is read.
            view = again.view()
            return view is not None and view.feeds[0].trades > 0 and view.traders[0].signals > 0

        until(goes_on, lambda: f"the market goes on, and it signals: {again.view()}")
        again.process.send_signal(signal.SIGINT)
        reconciles(again.summary(), again.said)


def test_a_second_up_is_refused_and_a_second_ctrl_c_ends_at_once(tmp_path: Path) -> None:
    manifests = write_manifests(tmp_path / "m", one=teller("one"))
    with Up(tmp_path, manifests) as up:
        up.running()
        second = subprocess.run(
            up.command,
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert second.returncode == 3
        assert f"pid {up.process.pid}" in second.stderr
        up.process.send_signal(signal.SIGINT)
        until(lambda: "ending: the markets" in up.said, "the orderly end began")
        up.process.send_signal(signal.SIGINT)
        assert up.wait() in (0, 130)
        assert up.left() == []


@pytest.mark.parametrize("times", [1, 2], ids=["in order", "at once"])
def test_an_end_during_the_start_leaves_nothing(tmp_path: Path, times: int) -> None:
    manifests = write_manifests(tmp_path / "m", one=teller("one"))
    with Up(tmp_path, manifests) as up:
        until(lambda: "starting feeds" in up.said, lambda: f"it starts: {up.said}")
        if times == 2:
            up.process.send_signal(signal.SIGINT)
        assert up.end(signal.SIGTERM) == 130, up.said
        assert up.left() == []


@pytest.mark.parametrize("victim", ["ingest-market", "aggregator-market", "feed-demo-0", "supervisor-demo-0", "kafka"])
def test_a_process_that_is_killed_comes_back_and_the_counts_still_add_up(tmp_path: Path, victim: str) -> None:
    manifests = write_manifests(tmp_path / "m", one=teller("one"))
    with Up(tmp_path, manifests, "--for", "300s", "--json") as up:
        up.running()

        def signals() -> int:
            row = up.trader("one")
            return row.signals if row is not None else 0

        until(lambda: signals() > 0, "signals before the kill")
        pid = up.pid_of(victim)
        kill_hard(pid)
        until(lambda: up.pid_of(victim) not in (0, pid), "it came back")
        before = signals()
        until(lambda: signals() > before + 2, lambda: f"signals go on after {before}: {up.trader('one')}")
        up.process.send_signal(signal.SIGINT)
        summary = up.summary()
        assert up.wait() == 0, up.said
    reconciles({**summary, "signals": {**summary["signals"], "published": summary["signals"]["unique"]}}, up.said)
    assert summary["restarts"] == {victim: 1}


def test_windows_through_pipes_give_signals_too(tmp_path: Path) -> None:
    manifests = write_manifests(tmp_path / "m", one=teller("one"))
    with Up(tmp_path, manifests, "--for", "6s", "--json", "--transport", "pipe") as up:
        reconciles(up.summary(), up.said)
