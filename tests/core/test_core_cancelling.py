"""A cancellation outlives the library that takes it for its own."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import pytest

from chandlery.core.cancelling import cancellation_kept


async def swallowing() -> None:
    """As Kafka's client ends a task of its own, which doesn't end at once."""
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.Event().wait()


async def failing() -> None:
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        raise OSError("gone") from None


@pytest.mark.parametrize("end", [swallowing, failing])
async def test_what_swallows_a_cancellation_does_not_lose_it(end: Callable[[], Awaitable[None]]) -> None:
    begun, went_on = asyncio.Event(), False

    async def work() -> None:
        nonlocal went_on
        with contextlib.suppress(OSError):
            with cancellation_kept():
                begun.set()
                await end()
            went_on = True

    task = asyncio.create_task(work())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not went_on


async def test_a_deadline_of_the_block_is_no_cancellation() -> None:
    with cancellation_kept():
        try:
            async with asyncio.timeout(0):
                await asyncio.Event().wait()
        except TimeoutError:
            passed = True
    assert passed


async def test_an_error_of_the_block_comes_out_where_nobody_cancelled() -> None:
    with pytest.raises(OSError, match="gone"), cancellation_kept():
        raise OSError("gone")


async def test_who_was_cancelled_before_goes_through_all_steps_of_its_end() -> None:
    steps: list[str] = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            for step in ("producer", "server"):
                with cancellation_kept():
                    await asyncio.sleep(0)
                steps.append(step)

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert steps == ["producer", "server"]


async def test_an_error_at_the_end_of_who_was_cancelled_before_does_not_lose_the_cancellation() -> None:
    async def work() -> None:
        with contextlib.suppress(OSError):
            try:
                await asyncio.Event().wait()
            finally:
                with cancellation_kept():
                    raise OSError("gone")

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
