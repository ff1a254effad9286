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

    It goes before an error of the block: one that is caught and tried again would lose it just as well.

    Raises:
        asyncio.CancelledError: this task was asked to end.
    """
    try:
        yield
    finally:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise asyncio.CancelledError
