"""The end of tasks that may be starting something, at once and in a bounded time."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection
from typing import Any, Final

log = logging.getLogger("chandlery.up")

# A start that is cancelled kills what it is just starting and lets go of Kafka: 0.1 s, fifty times that on a busy machine.
_START_END_S: Final = 5.0
_CANCEL_AGAIN_S: Final = 0.5


async def cut(left: Callable[[], Collection[asyncio.Task[Any]]]) -> None:
    """Cancel tasks until they end, for at most 5 s; one that doesn't is told of.

    Args:
        left: those that have not ended yet.
    """
    deadline = time.monotonic() + _START_END_S
    while left() and time.monotonic() < deadline:
        tasks = list(left())
        for task in tasks:
            task.cancel()  # again: a library may take one cancellation for its own
        await asyncio.wait(tasks, timeout=_CANCEL_AGAIN_S)
    for task in left():
        log.error("a task does not end", extra={"task": task.get_name(), "after_s": _START_END_S})
