"""What the kernel tells of processes."""

from __future__ import annotations

import errno
import os
import subprocess
import sys

import pytest

from chandlery.core.processes import pss_bytes, run_as_batch


def test_the_share_of_a_process_is_what_the_kernel_says_and_0_of_one_that_is_gone() -> None:
    assert pss_bytes(os.getpid()) > 1_000_000
    assert pss_bytes() > 1_000_000
    assert pss_bytes(2**30) == 0


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
