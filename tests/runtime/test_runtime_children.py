"""Child processes: restarted when they end by themselves, stopped within a bound, never left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chandlery.cli.runtime import children
from chandlery.cli.runtime.children import FIRST_BACKOFF_S, LAST_BACKOFF_S, Child, backoff_s, rotate, why_ended
from chandlery.cli.runtime.procfs import is_alive
from chandlery.core.errors import MachineError

DEADLINE_S = 30.0


async def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"not within {DEADLINE_S} s: {what}"
        await asyncio.sleep(0.02)


def child(tmp_path: Path, code: str) -> Child:
    return Child("one", [sys.executable, "-c", code], tmp_path / "logs" / "one.log")


async def test_a_child_that_is_killed_comes_back_and_is_counted(tmp_path: Path) -> None:
    one = child(tmp_path, "import time; time.sleep(600)")
    await one.start()
    first = one.pid
    os.kill(first, signal.SIGKILL)
    await until(lambda: one.pid not in (0, first), "restarted")
    assert one.restarts == 1
    assert one.last_exit == -signal.SIGKILL
    assert await one.stop(10) is False or one.last_exit is not None
    assert one.state == "ended"


@pytest.mark.parametrize("ask", ["kill", "stop"])
async def test_a_child_that_is_to_end_while_it_starts_does_not_stay(tmp_path: Path, ask: str) -> None:
    """Whoever asks in that moment finds no process to end."""
    one = child(tmp_path, "import time; time.sleep(600)")
    starting = asyncio.create_task(one.start())
    await asyncio.sleep(0)
    assert (one.state, one.pid) == ("new", 0), "it is under way"
    if ask == "kill":
        one.kill()
    else:
        await one.stop(1)
    await starting
    await until(lambda: one.last_exit is not None, "it has ended")
    assert (one.pid, one.last_exit, one.restarts) == (0, -signal.SIGKILL, 0)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (4, "exit code 4: its log says why"),
        (-signal.SIGKILL, "SIGKILL"),
        (-signal.SIGBUS, "SIGBUS: a file that it had mapped was truncated"),
        (-int(signal.SIGRTMIN) - 1, "signal "),
    ],
)
def test_an_end_that_nobody_asked_for_is_put_into_words(code: int, said: str) -> None:
    assert why_ended(code).startswith(said)


async def test_stop_asks_first_and_reports_an_orderly_end(tmp_path: Path) -> None:
    code = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: (print('drained'), sys.exit(0)))\n"
        "print('up', flush=True); time.sleep(600)"
    )
    one = child(tmp_path, code)
    await one.start()
    await until(lambda: "up" in one.last_lines(), "its handler is set")
    assert await one.stop(10)
    assert one.last_lines() == ["up", "drained"]
    assert one.restarts == 0


async def test_one_that_ignores_sigterm_is_killed_after_its_bound(tmp_path: Path) -> None:
    one = child(
        tmp_path,
        "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('up', flush=True)\ntime.sleep(600)",
    )
    await one.start()
    await until(lambda: "up" in one.last_lines(), "its handler is set")
    pid = one.pid
    assert await one.stop(0.2) is False
    assert not is_alive(pid)


async def test_a_stop_during_the_pause_before_a_restart_starts_nothing(tmp_path: Path) -> None:
    one = child(tmp_path, "raise SystemExit(2)")
    await one.start()
    await until(lambda: one.state == "backoff", "in backoff")
    await asyncio.wait_for(one.stop(10), LAST_BACKOFF_S / 2)
    assert (one.state, one.pid, one.restarts) == ("ended", 0, 1)


async def test_a_stop_in_the_middle_of_a_restart_ends_what_was_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = child(tmp_path, "import time; time.sleep(600)")
    await one.start()
    real = asyncio.create_subprocess_exec
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slow(*arguments: Any, **options: Any) -> asyncio.subprocess.Process:
        begun.set()
        await go_on.wait()
        return await real(*arguments, **options)

    monkeypatch.setattr(asyncio, "create_subprocess_exec", slow)
    os.kill(one.pid, signal.SIGKILL)
    await asyncio.wait_for(begun.wait(), DEADLINE_S)
    stopping = asyncio.create_task(one.stop(10))
    await until(lambda: one.state == "stopping", "asked to stop")
    go_on.set()
    await asyncio.wait_for(stopping, 10)
    assert (one.state, one.pid) == ("ended", 0)


async def test_a_restart_for_new_settings_is_not_counted(tmp_path: Path) -> None:
    one = child(tmp_path, "import time; time.sleep(600)")
    await one.start()
    first = one.pid
    await one.restart(10)
    assert one.pid not in (0, first)
    assert one.restarts == 0
    await one.stop(10)


async def test_a_child_is_in_a_session_of_its_own_so_that_ctrl_c_reaches_only_its_parent(tmp_path: Path) -> None:
    one = child(tmp_path, "import time; time.sleep(600)")
    await one.start()
    assert os.getsid(one.pid) == one.pid
    await one.stop(10)


@given(attempt=st.integers(min_value=1, max_value=10_000), chance=st.floats(min_value=0, max_value=1))
def test_backoff_grows_to_its_cap_with_jitter(attempt: int, chance: float) -> None:
    pause = backoff_s(attempt, chance)
    assert FIRST_BACKOFF_S / 2 <= pause <= LAST_BACKOFF_S
    assert backoff_s(attempt + 1, chance) >= pause


@pytest.mark.parametrize(("length", "aside"), [(100, False), (11 * 1024 * 1024, True)])
def test_a_long_log_is_set_aside(tmp_path: Path, length: int, aside: bool) -> None:
    path = tmp_path / "one.log"
    path.write_bytes(b"x" * length)
    rotate(path)
    assert path.exists() is not aside
    assert (tmp_path / "one.log.1").exists() is aside


async def test_one_whose_log_can_not_be_written_is_tried_again_until_it_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(children, "FIRST_BACKOFF_S", 0.01)
    one = child(tmp_path, "import time; time.sleep(600)")
    await one.start()
    first = one.pid
    one.log_path.unlink()
    one.log_path.mkdir()
    os.kill(first, signal.SIGKILL)
    await until(lambda: one.restarts > 1, "tried in vain")
    one.log_path.rmdir()
    await until(lambda: one.pid not in (0, first), "restarted")
    await one.stop(10)
    assert one.state == "ended"


async def test_one_that_can_not_be_resumed_now_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(children, "FIRST_BACKOFF_S", 0.01)
    one = child(tmp_path, "import time; time.sleep(600)")
    await one.start()
    await one.stop(10)
    one.log_path.unlink()
    one.log_path.mkdir()
    with pytest.raises(MachineError, match="Is a directory"):
        await one.resume()
    one.log_path.rmdir()
    await until(lambda: one.pid != 0, "started all the same")
    await one.stop(10)


async def test_one_that_runs_and_no_longer_answers_is_silent(tmp_path: Path) -> None:
    one = child(tmp_path, "import time; time.sleep(600)")
    await one.start()
    now_s = time.monotonic()
    assert not one.is_silent(0.0, 5.0, 200.0), "it has only been started"
    one.started_s = now_s - 100
    assert one.is_silent(now_s - 6, 5.0, 200.0)
    assert not one.is_silent(now_s - 4, 5.0, 200.0)
    assert not one.is_silent(now_s - 101, 5.0, 200.0), "another process said that"
    assert one.is_silent(now_s - 101, 5.0, 90.0), "begun anew, it never answered"
    await one.stop(10)
    assert not one.is_silent(now_s - 6, 5.0, 90.0)
