"""The supervisor's pure rules: changes, endings, backoff, hang."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import Any

import pytest
from tests.workers_supervisor.fake_feed import trader

from chandlery.workers.supervisor.backoff import HEALTHY_S, MOST_S, Backoff
from chandlery.workers.supervisor.catalogue_reader import fingerprint
from chandlery.workers.supervisor.changes import compare
from chandlery.workers.supervisor.exits import Verdict, explain, hang_verdict, memory_verdict
from chandlery.workers.supervisor.keeper import Keeper, Place
from chandlery.workers.supervisor.nursery_client import NurseryClient
from chandlery.workers.supervisor.watch import SILENT_START_MS, hang, rss_bytes
from chandlery.workers.trader.messages import FailureReport, encode


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "keep"),
        ({"generation": 2}, "tell"),
        ({"tier": "gold"}, "tell"),
        ({"mode": "standby"}, "tell"),
        ({"mode": "standby", "from_ms": 7, "until_ms": 9}, "tell"),
        ({"mode": "active", "since_ms": 5}, "tell"),
        ({"incarnation": 2}, "restart"),
        ({"parameters": {"size": 2}}, "restart"),
        ({"parameters": {"size": 2}, "generation": 2}, "restart"),
        ({"symbols": ["BTC/USDT", "ETH/USDT"]}, "restart"),
        ({"source": "x = 1"}, "restart"),
        ({"memory_bytes": 1}, "restart"),
        ({"signal_ttl_ms": 5}, "restart"),
        ({"mode": "suspended"}, "restart"),
        ({"uid": "another"}, "replace"),
    ],
)
def test_only_what_must_restarts_a_process(changes: dict[str, Any], expected: str) -> None:
    assert compare(trader("a"), trader("a", **changes)) == expected


def test_endings_are_explained() -> None:
    crash = FailureReport("Crashed", "ValueError: on purpose (line 3)", stalled=False)
    bad = FailureReport("BadParameter", "fast: 1 is below 2", stalled=True)
    assert explain(1, crash, None) == ("Crashed", "ValueError: on purpose (line 3)", False)
    assert explain(2, bad, None) == ("BadParameter", "fast: 1 is below 2", True)
    assert explain(7, None, None)[:2] == ("Exited", "its process ended with exit code 7 and without a word")
    assert explain(-11, None, None)[:2] == ("Killed", "killed by SIGSEGV")
    assert "out of memory" in explain(-9, None, None).message
    assert "truncated" in explain(-signal.SIGBUS, None, None).message
    assert explain(-9, None, memory_verdict(64 << 20)) == (
        "MemoryLimit",
        "killed by SIGKILL (memory limit 64 MB)",
        False,
    )
    assert explain(-9, crash, hang_verdict(10_000, "in a call")).message == (
        "killed by SIGKILL (in a call for more than 10 s)"
    )
    assert explain(-int(signal.SIGRTMIN) - 1, None, None).message.startswith("killed by signal")
    assert len(explain(1, FailureReport("Crashed", "x" * 9_999, stalled=False), None).message) == 500


def test_pauses_double_up_to_half_a_minute_and_healthy_time_resets_them() -> None:
    backoff = Backoff()
    pauses = [backoff.failed(1.0) for _ in range(9)]
    assert pauses == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, MOST_S, MOST_S, MOST_S]
    backoff = Backoff()
    loops = []
    for ran_s in (1.0, 1.0, 1.0, 1.0, 1.0, HEALTHY_S, 1.0):
        backoff.failed(ran_s)
        loops.append(backoff.crash_loop)
    assert loops == [False] * 4 + [True, False, False], "the fifth in a row, until it was healthy for a while"
    backoff.forget()
    assert backoff.failed(1.0) == 0.5


S = 1_000_000_000


@pytest.mark.parametrize(
    ("now", "started", "busy", "heartbeat", "hangs"),
    [
        (100 * S, 50 * S, 0, 99 * S, False),
        (100 * S, 50 * S, 95 * S, 95 * S, False),
        (100 * S, 50 * S, 89 * S, 89 * S, True),
        (100 * S, 95 * S, 80 * S, 80 * S, False),  # the counters are the predecessor's
        (100 * S, 50 * S, 40 * S, 89 * S, True),  # stopped outside of any call
        (100 * S, 80 * S, 0, 0, False),  # still importing
        (100 * S, 100 * S - SILENT_START_MS * 1_000_000 - 1, 0, 0, True),
    ],
)
def test_a_hang_is_told_from_work_and_from_a_start(
    now: int, started: int, busy: int, heartbeat: int, hangs: bool
) -> None:
    verdict = hang(now_ns=now, started_ns=started, busy_since_ns=busy, heartbeat_ns=heartbeat, hang_timeout_ms=10_000)
    assert isinstance(verdict, Verdict) == hangs
    assert verdict is None or verdict.reason == "Hang"


def test_resident_size_of_a_process_and_of_none() -> None:
    import os

    assert rss_bytes(os.getpid()) > 1 << 20
    assert rss_bytes(2**22 + 1) == 0


def test_a_folder_s_fingerprint_changes_with_its_python_files_alone(tmp_path: Path) -> None:
    assert fingerprint("") == fingerprint(str(tmp_path / "none")) == ()
    before = fingerprint(str(tmp_path))
    (tmp_path / "notes.txt").write_text("x")
    for name in ("package", "other"):
        (tmp_path / name).mkdir()
    (tmp_path / "other" / "unrelated.py").write_text("x")
    assert fingerprint(str(tmp_path)) == before
    (tmp_path / "a.py").write_text("x")
    one = fingerprint(str(tmp_path))
    (tmp_path / "a.py").write_text("xy")
    two = fingerprint(str(tmp_path))
    (tmp_path / "package" / "__init__.py").write_text("x")
    three = fingerprint(str(tmp_path))
    (tmp_path / "package" / "__init__.py").write_text("of a package that strategies may import")
    assert len({before, one, two, three, fingerprint(str(tmp_path))}) == 5


async def test_what_a_trader_says_in_place_of_a_report_is_passed_over_whatever_it_is() -> None:
    """Its process may write anything; the supervisor goes on to listen."""
    keeper = Keeper(
        trader("liar"), 0, Place("Pipe", "", "", "", "info"), "", NurseryClient(), 1_000, changed=lambda: None
    )
    reader = asyncio.StreamReader()
    for line in (b"no json", b"\xff", b'{"type":"failure","x":' + b"[" * 5_000, b'{"type":"nothing"}'):
        reader.feed_data(line + b"\n")
    reader.feed_data(encode(FailureReport("Crashed", "the last words", True)) + b"\n")
    reader.feed_eof()
    await keeper._listen(reader)
    assert keeper._failure == FailureReport("Crashed", "the last words", True)
