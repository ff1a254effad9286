"""The start of a worker: its assignment waits for the feed that shall take it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from tests.runtime.unstarted import POOL, unstarted, wanted

from chandlery.cli.runtime import workergroup
from chandlery.cli.runtime.workergroup import WorkerGroup
from chandlery.core.assignment import WorkerStatus, decode_assignment
from chandlery.core.errors import UnavailableError
from chandlery.operator.delivery import Reply

NOT_DELIVERED = "assignment not delivered"


class StartingFeed:
    """A feed's API that nobody serves until it has been asked for its status so often."""

    def __init__(self, silent_for: float) -> None:
        self.silent_for = silent_for
        self.asked = 0
        self.taken: list[int] = []

    def _answer(self) -> None:
        if self.asked <= self.silent_for:
            raise UnavailableError("feed-demo-0.sock: no such file")

    async def get(self, path: str, *, timeout_s: float | None = None) -> bytes:
        if "after=1" in path:
            await asyncio.Event().wait()  # nothing is newer
        self.asked += 1
        self._answer()
        return msgspec.json.encode(WorkerStatus("demo-0", 1, 0, "", 0, True, {}, [], {}))

    async def call(self, method: str, path: str, body: bytes | None = None, *, timeout_s: float | None = None) -> Reply:
        self._answer()
        self.taken.append(decode_assignment(body or b"").sequence)
        return Reply(200, b"{}")


async def worker_of(tmp_path: Path, feed: StartingFeed, monkeypatch: pytest.MonkeyPatch) -> WorkerGroup:
    async def begun() -> None:
        pass

    runtime = unstarted(tmp_path, wanted("{synthetic: {seed: 7}}"))
    made = await runtime._next_plan()
    worker = runtime._new_worker(made, POOL, "demo-0")
    worker._shm = tmp_path / "shm"
    worker.want(made.pools[POOL].workers["demo-0"])
    for child in (worker.feed, worker.supervisor):
        monkeypatch.setattr(child, "start", begun)
    monkeypatch.setattr(worker.endpoint, "get", feed.get)
    monkeypatch.setattr(worker.endpoint, "call", feed.call)
    return worker


async def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, f"not within 30 s: {what}"
        await asyncio.sleep(0.005)


async def test_a_feed_that_is_still_starting_is_nothing_to_warn_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    feed = StartingFeed(silent_for=4)
    worker = await worker_of(tmp_path, feed, monkeypatch)
    try:
        await worker.start()
        await until(lambda: bool(feed.taken), "delivered")
    finally:
        await worker.close()
    assert feed.taken == [1]
    assert worker.delivery.attempts == 1, "none was in vain"
    assert NOT_DELIVERED not in caplog.text


async def test_a_feed_that_says_nothing_for_longer_than_a_start_takes_is_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(workergroup, "START_TIMEOUT_S", 0.05)
    feed = StartingFeed(silent_for=float("inf"))
    worker = await worker_of(tmp_path, feed, monkeypatch)
    try:
        with contextlib.suppress(UnavailableError):
            await worker.start()
        await until(lambda: NOT_DELIVERED in caplog.text, "the log says why it isn't delivered")
        feed.silent_for = feed.asked
        await until(lambda: bool(feed.taken), "it was tried on")
    finally:
        await worker.close()
