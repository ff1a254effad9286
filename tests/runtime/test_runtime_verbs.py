"""Every verb that looks at a running instance."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.cli.test_cli_inside import table_of
from tests.runtime.up_process import DEADLINE_S, Up, teller, until, write_manifests

from chandlery.core.latency import STAGES

pytestmark = [pytest.mark.broker, pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """An instance that has signalled."""
    folder = tmp_path_factory.mktemp("verbs")
    with Up(folder, write_manifests(folder / "m", one=teller("one"), two=teller("two", "ETH/USDT"))) as running:
        running.running()
        until(lambda: all(row.signals for row in (running.view() or _never()).traders), "both have signalled")
        until(lambda: len((running.view() or _never()).signals) > 1, "signals are shown")
        yield running
        assert running.end() == 0, running.said


def _never() -> Any:
    raise AssertionError("the instance is gone")


def call(up: Up, *arguments: str, code: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "chandlery.cli", *arguments, "--state", str(up.state)],
        capture_output=True, text=True, timeout=DEADLINE_S, check=False, env={**os.environ, "NO_COLOR": "1"},
    )  # fmt: skip
    assert done.returncode == code, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout or done.stderr


def number(cell: str) -> int:
    return int(cell.replace(",", ""))


def test_get_lists_every_kind_as_table_and_as_json(up: Up) -> None:
    for kind, expected in (
        ("traders", "default/one"),
        ("pools", "default/demo"),
        ("feeds", "default/market"),
        ("signals", "BTC/USDT"),
        ("processes", "aggregator-market"),
    ):
        assert expected in call(up, "get", kind)
        assert expected in call(up, "get", kind, "-o", "wide")
        rows = json.loads(call(up, "get", kind, "-o", "json"))
        assert rows
    assert "\x1b" not in call(up, "get", "traders"), "no colours off terminals"
    (row,) = json.loads(call(up, "get", "traders", "two", "-o", "json"))
    assert (row["trader"], row["ready"], row["state"]) == ("default/two", True, "Active")
    assert row["calls"] > 0
    assert "not found: nobody" in call(up, "get", "traders", "nobody", code=2)


def test_signals_of_the_past_are_listed_and_one_is_traced(up: Up) -> None:
    lines = [json.loads(line) for line in call(up, "signals", "--json", "-n", "1000").splitlines()]
    assert {line["trader"] for line in lines} == {"default/one", "default/two"}
    only = [json.loads(line) for line in call(up, "signals", "--json", "--trader", "one").splitlines()]
    assert {line["trader"] for line in only} == {"default/one"}
    assert lines[0]["id"][:8] in call(up, "signals", "-n", "1000")
    shown = call(up, "trace", lines[0]["id"][:12])
    for expected in (
        "aggregated",
        "published",
        "woken",
        "decided",
        "acknowledged",
        "whole",
        "broker's clock",
        "host clock",
    ):
        assert expected in shown
    told = json.loads(call(up, "trace", lines[0]["id"], "--json"))
    assert told["stamps"]["acknowledged_ns"] > 0
    assert [stage["name"] for stage in told["stages"]] == list(STAGES)
    assert sum(stage["duration_us"] for stage in told["stages"]) == pytest.approx(told["whole_us"])
    assert "no signal" in call(up, "trace", "zzzz", code=2)


def test_listed_signals_have_their_states_and_a_trader_that_is_nowhere_is_refused(up: Up) -> None:
    assert "STATE" in call(up, "get", "signals")
    rows = json.loads(call(up, "get", "signals", "-o", "json"))
    assert {row["state"] for row in rows} <= {"active", "closed", "expired"}, "none is unknown"
    for more in ([], ["--follow"], ["-n", "0", "--follow"]):
        said = call(up, "signals", "--trader", "onne", *more, code=2)
        assert said == 'chandlery: no Trader "onne"; there are: default/one, default/two; did you mean "one"?\n'


def test_signals_are_followed_as_they_come_until_the_reader_goes(up: Up) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "chandlery.cli", "signals", "--follow", "--json", "-n", "0", "--state", str(up.state)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        assert json.loads(process.stdout.readline())["symbol"] in ("BTC/USDT", "ETH/USDT")
        process.stdout.close()
        complaint = process.stderr.read()
        assert process.wait(DEADLINE_S) == 0, complaint
        assert complaint == b""
    finally:
        process.kill()
        process.stderr.close()
        process.wait()


def test_following_ends_with_the_instance(tmp_path: Path) -> None:
    with Up(tmp_path, write_manifests(tmp_path / "m", one=teller("one"))) as other:
        other.running()
        follower = subprocess.Popen(
            [sys.executable, "-m", "chandlery.cli", "signals", "--follow", "--json", "--state", str(other.state)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        assert follower.stdout is not None
        assert follower.stdout.readline()
        assert other.end() == 0, other.said
        _, complaint = follower.communicate(timeout=DEADLINE_S)
        assert follower.returncode == 4, complaint
        assert b"has ended" in complaint


def test_debug_shows_the_segment_and_the_rings(up: Up) -> None:
    segment = call(up, "debug", "segment")
    for expected in ("BTC/USDT", "ETH/USDT", "generation", "DOORBELL", "default/one", "LAPPED"):
        assert expected in segment
    readers = table_of(segment, "READER")
    assert list(readers) == ["default/one", "default/two"]
    told = json.loads(call(up, "debug", "segment", "demo-0", "--json"))
    assert told["header"]["rows"] == 1_000
    assert told["readers"].keys() == readers.keys()
    for name, row in readers.items():
        now = told["readers"][name]
        assert row["DOORBELL"] == str(now["doorbell"])
        for column in ("RUNG", "CALLS", "LAPPED", "RERUNS", "STALE"):
            assert 0 <= number(row[column]) <= now[column.lower()], "the one was asked before the other"
        assert number(row["CALLS"]) > 0
    assert {row["symbol"] for row in told["series"]} == {"BTC/USDT", "ETH/USDT"}
    rings = table_of(call(up, "debug", "signals"), "RING")
    assert list(rings) == ["default/one", "default/two"]
    for row in rings.values():
        assert row["DEPTH"].endswith("/256")
        assert number(row["HEAD"]) >= number(row["TAIL"]) > 0
        assert number(row["SIGNALS"]) > 0
        assert row["BLOCKED"] == "0"
        assert "LAST ERROR" not in row
    assert "demo-0" in call(up, "debug", "signals", "nowhere", code=2)


def test_logs_are_listed_and_printed(up: Up) -> None:
    names = call(up, "logs").split()
    assert {"up", "kafka", "ingest-market", "feed-demo-0", "supervisor-demo-0"} <= set(names)
    assert "process started" in call(up, "logs", "up")


def test_doctor_looks_at_this_machine(up: Up) -> None:
    checks = json.loads(call(up, "doctor", "--json"))
    assert checks["ok"] is True, checks


def test_the_run_file_is_gone_after_the_end(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "chandlery.cli", "signals", "--state", str(tmp_path)],
        capture_output=True, text=True, timeout=DEADLINE_S, check=False,
    )  # fmt: skip
    assert done.returncode == 4
