"""Ports in a row that are free on this machine."""

from __future__ import annotations

import contextlib
import random
import socket


def free_ports(count: int) -> int:
    """The first of so many ports that are free now; below those that the kernel gives to connections of its own choice."""
    while True:
        first = random.randrange(20_000, 32_000 - count)
        with contextlib.ExitStack() as taken:
            try:
                for port in range(first, first + count):
                    taken.enter_context(socket.socket()).bind(("127.0.0.1", port))
            except OSError:
                continue
            return first
