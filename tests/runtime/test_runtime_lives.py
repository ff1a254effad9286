"""A signal's life from the exchange to the command line: made on a forming candle, confirmed or withdrawn by its close."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.runtime.test_runtime_up import reconciles
from tests.runtime.up_process import Up, kill_hard, trader, until, write_manifests

pytestmark = [pytest.mark.broker, pytest.mark.slow, pytest.mark.timeout(400)]

HALF = '''
from chandlery.workers.strategy import Strategy


class Half(Strategy):
    """Buys or sells on every candle while it forms; at its close it still says so on every other one."""

    name = "half"

    def on_candle(self, ctx, candles):
        number = int(candles.last.open_time) // 1_000
        if ctx.is_forming or number % 2:
            (ctx.buy if number % 4 < 2 else ctx.sell)(f"candle {number}", rule="half")
'''


def told(up: Up, *words: str) -> str:
    command = [sys.executable, "-m", "chandlery.cli", *words, "--state", str(up.state)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def signals(up: Up) -> list[dict[str, Any]]:
    return [json.loads(line) for line in told(up, "signals", "--json", "-n", "1000").splitlines()]


def emitted(up: Up) -> int:
    row = up.trader("half")
    return row.signals if row is not None else 0


def following(up: Up) -> subprocess.Popen[bytes]:
    words = [sys.executable, "-m", "chandlery.cli", "signals", "--follow", "--json", "--state", str(up.state)]
    return subprocess.Popen(words, stdout=subprocess.PIPE)


def is_told_what_becomes_of_them(follower: subprocess.Popen[bytes]) -> None:
    """Each signal first, then what becomes of it."""
    assert follower.stdout is not None
    try:
        told, wanted = dict[str, str](), {"confirmed", "invalidated", "closed"}
        while wanted:
            one = json.loads(follower.stdout.readline())
            if one["kind"] == "signal":
                assert one["id"] not in told
                told[one["id"]] = one["state"]
            else:
                assert one["kind"] == "state"
                assert told[one["id"]] != one["state"]
                assert bool(one["ended_by"]) == (one["state"] == "closed")
                told[one["id"]] = one["state"]
                wanted.discard(one["state"])
    finally:
        follower.kill()
        follower.stdout.close()
        follower.wait()


def test_signals_on_forming_candles_are_confirmed_or_withdrawn_also_when_their_trader_is_killed(
    tmp_path: Path,
) -> None:
    (tmp_path / "strategies").mkdir()
    (tmp_path / "strategies" / "half.py").write_text(HALF)
    half = trader("half", strategy="half").replace("  market:", "  trigger: EveryUpdate\n  market:")
    half = half.replace(', parameters: {"fast": 2, "slow": 5}', "")
    manifests = write_manifests(tmp_path / "m", half=half)
    with Up(tmp_path, manifests, "--json") as up:
        up.running()

        until(lambda: emitted(up) >= 5, "signals on five candles")
        follower = following(up)
        row = up.trader("half")
        assert row is not None
        kill_hard(row.pid)
        before = emitted(up)
        until(lambda: emitted(up) >= before + 6, "its next process has signalled on candles of its own")
        found = signals(up)
        newest_ms = max(one["open_time_ms"] for one in found)
        settled = [one for one in found if one.get("forming") and one["open_time_ms"] < newest_ms - 1_000]
        assert len(settled) > 5
        for one in settled:
            word = "confirmed" if one["open_time_ms"] // 1_000 % 2 else "invalidated"
            assert one["life"][1][0] == word, one
        confirmed = [one for one in settled if one["life"][1][0] == "confirmed"]
        ended = next(one for one in confirmed if one["state"] == "closed")
        assert [state for state, _ in ended["life"]] == ["detected", "confirmed", "active", "closed"]
        opposite = next(one for one in found if one["id"] == ended["ended_by"])
        assert {ended["action"], opposite["action"]} == {"buy", "sell"}
        trace = told(up, "trace", ended["id"])
        assert "confirmed" in trace
        assert opposite["id"] in trace
        assert "STATE" in told(up, "signals")
        get = {row["id"]: row["state"] for row in json.loads(told(up, "get", "signals", "-o", "json"))}
        ends = ("closed", "expired", "invalidated")
        assert {get[one["id"]] for one in settled if one["state"] in ends and one["id"] in get} >= {
            "closed",
            "invalidated",
        }
        is_told_what_becomes_of_them(follower)
        assert up.end() == 0, up.said
        summary = up.summary()
        # What closes say is no signal. The killed process may have signalled on its last candle what the next one repeats.
        reconciles(summary, up.said, most_dropped=2)
