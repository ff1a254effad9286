"""What the kernel tells of processes."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from chandlery.core.processes import end_session, pss_bytes, run_as_batch


def test_the_share_of_a_process_is_what_the_kernel_says_and_0_of_one_that_is_gone() -> None:
    assert pss_bytes(os.getpid()) > 1_000_000
    assert pss_bytes() > 1_000_000
    assert pss_bytes(2**30) == 0


def test_a_session_is_ended_with_all_groups_in_it_and_no_other_session() -> None:
    program = """
import subprocess
for more in ({}, {"process_group": 0}, {"start_new_session": True}):
    print(subprocess.Popen(["sleep", "600"], stdout=subprocess.DEVNULL, **more).pid, flush=True)
"""
    command = [sys.executable, "-c", f"{program}\nimport time\ntime.sleep(600)"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as leader:
        assert leader.stdout is not None
        *members, other = (int(leader.stdout.readline()) for _ in range(3))
        end_session(leader.pid)
        assert leader.wait(60) == -signal.SIGKILL
    try:
        deadline_s = time.monotonic() + 60
        while left := [pid for pid in members if is_alive(pid)]:
            assert time.monotonic() < deadline_s, left
            time.sleep(0.01)
        assert is_alive(other)
    finally:
        os.kill(other, signal.SIGKILL)


def is_alive(pid: int) -> bool:
    """Whether there is such a process that has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize(("before", "after"), [("SCHED_OTHER", "SCHED_BATCH"), ("SCHED_IDLE", "SCHED_IDLE")])
def test_a_process_becomes_a_batch_one_unless_somebody_gave_it_a_policy(before: str, after: str) -> None:
    program = f"""
import os
from chandlery.core.processes import run_as_batch
os.sched_setscheduler(0, os.{before}, os.sched_param(0))
run_as_batch()
assert os.sched_getscheduler(0) == os.{after}, os.sched_getscheduler(0)
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


@pytest.mark.parametrize("call", ["sched_getscheduler", "sched_setscheduler"])
@pytest.mark.parametrize("number", [errno.EPERM, errno.EINVAL, errno.ENOSYS])
def test_where_a_policy_is_refused_in_whatever_way_the_process_goes_on_as_it_is(
    call: str, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def refuse(*_: object) -> None:
        asked.append(call)
        raise OSError(number, "not here")

    monkeypatch.setattr(os, "sched_getscheduler", lambda _pid: os.SCHED_OTHER)
    monkeypatch.setattr(os, call, refuse)
    run_as_batch()
    assert asked == [call]
