"""What cuts the start of a local instance short: it is waited for, though not for ever, and nothing of it is left."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from chandlery.cli import running
from chandlery.cli.runtime import cutting
from chandlery.cli.runtime.catalogue import Catalogue
from chandlery.cli.runtime.children import Child
from chandlery.cli.runtime.desired import Wanted
from chandlery.cli.runtime.local import LocalRuntime
from chandlery.cli.runtime.options import UpOptions
from chandlery.cli.runtime.procfs import is_alive
from chandlery.core.manifests import ManifestSet


@pytest.fixture
def runtime(tmp_path: Path) -> LocalRuntime:
    wanted = Wanted(ManifestSet({}, {}, {}), [], [])
    return LocalRuntime(UpOptions((), tmp_path / "state"), wanted, Catalogue(), lambda *_: None)


async def test_a_second_interrupt_while_the_start_is_ending_ends_the_wait_for_it() -> None:
    """It would otherwise be taken for the start's own end, and what follows be done twice."""
    begun, ending, gone = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def start(*_: object) -> None:
        try:
            begun.set()
            await asyncio.Event().wait()
        finally:
            ending.set()
            await gone.wait()

    interrupts = running.Interrupts()
    made: Any = SimpleNamespace(start=start)
    viewer: Any = SimpleNamespace(view=None, written=None, wrong=None)
    work = asyncio.create_task(running._started(made, viewer, interrupts))
    await begun.wait()
    interrupts._take()
    await ending.wait()
    work.cancel()
    await asyncio.wait([work], timeout=20)
    assert work.cancelled()
    gone.set()


async def test_an_abort_while_all_starts_waits_for_the_start_and_leaves_no_child_of_it(
    runtime: LocalRuntime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kafka's client takes a cancellation for its own at times: the start goes on then, and starts the next process."""
    begun = asyncio.Event()
    started: list[Child] = []
    pids: list[int] = []

    async def start(*_: object) -> None:
        begun.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        child = Child("late", ["sleep", "600"], tmp_path / "late.log")
        await child.start()
        started.append(child)
        pids.append(child.pid)
        await asyncio.Event().wait()

    # The next cancellation comes when the process has begun, on a busy machine too.
    monkeypatch.setattr(cutting, "_CANCEL_AGAIN_S", 5.0)
    monkeypatch.setattr(cutting, "_START_END_S", 60.0)
    monkeypatch.setattr(runtime, "_start", start)
    monkeypatch.setattr(runtime, "children", lambda: list(started))
    view: Any = None
    starting = asyncio.create_task(runtime.start(view, view, view))
    await begun.wait()
    await runtime.abort()
    assert starting.cancelled()
    assert len(pids) == 1
    assert not is_alive(pids[0])


async def test_an_abort_does_not_wait_for_ever_for_a_start_that_does_not_end(
    runtime: LocalRuntime, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    begun, end = asyncio.Event(), asyncio.Event()

    async def start(*_: object) -> None:
        begun.set()
        while not end.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await end.wait()

    monkeypatch.setattr(cutting, "_START_END_S", 0.05)
    monkeypatch.setattr(cutting, "_CANCEL_AGAIN_S", 0.01)
    monkeypatch.setattr(runtime, "_start", start)
    view: Any = None
    starting = asyncio.create_task(runtime.start(view, view, view))
    await begun.wait()
    await runtime.abort()
    assert "a task does not end" in caplog.messages
    end.set()
    await asyncio.wait([starting])


async def test_an_abort_ends_also_what_starts_beside_though_it_takes_a_cancellation_for_another(
    runtime: LocalRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A feed's start, say: the one who waits for all starts is ended before."""
    begun, swallowed = asyncio.Event(), asyncio.Event()

    async def feed_starts() -> None:
        begun.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        swallowed.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(cutting, "_CANCEL_AGAIN_S", 0.01)
    task = runtime._spawn(feed_starts(), "start")
    await begun.wait()
    async with asyncio.timeout(20):
        await runtime.abort()
    assert swallowed.is_set()
    assert task.cancelled()
