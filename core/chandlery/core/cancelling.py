"""Cancellations that a library swallows.

Kafka's client ends its own tasks by cancelling and awaiting them, and takes each cancellation that comes meanwhile for
theirs: whoever is cancelled while it waits for such an end would go on as if nothing had been asked of it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator


@contextlib.contextmanager
def cancellation_kept() -> Iterator[None]:
    """End a block that ends somebody else's tasks. A cancellation of ours that came within it is raised behind it.

    It goes before an error of the block: one that is caught and tried again would lose it just as well. One that came
    before the block is under way already, and who ends in several steps takes the next one too.

    Raises:
        asyncio.CancelledError: this task was asked to end.
    """
    task = asyncio.current_task()
    before = 0 if task is None else task.cancelling()
    try:
        yield
    except BaseException:
        if task is not None and task.cancelling():
            raise asyncio.CancelledError from None
        raise
    if task is not None and task.cancelling() > before:
        raise asyncio.CancelledError
