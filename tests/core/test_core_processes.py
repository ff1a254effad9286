"""What the kernel tells of processes."""

from __future__ import annotations

import os

from chandlery.core.processes import pss_bytes


def test_the_share_of_a_process_is_what_the_kernel_says_and_0_of_one_that_is_gone() -> None:
    assert pss_bytes(os.getpid()) > 1_000_000
    assert pss_bytes() > 1_000_000
    assert pss_bytes(2**30) == 0
