"""Following objects: when what is held counts as old."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from chandlery.core.errors import ChandleryError, UnavailableError
from chandlery.operator.kubernetes.api import Object, Page, RefusedError
from chandlery.operator.kubernetes.follow import Followed
from chandlery.operator.kubernetes.kinds import CONFIG_MAP


class Server:
    """An API server that refuses lists by an error, or has empty ones, and watches that are cut at once."""

    def __init__(self, error: ChandleryError | None) -> None:
        self.error = error
        self.asked = 0
        self.asked_again = asyncio.Event()

    async def list(self, *_: Any, **__: Any) -> Page:
        self.asked += 1
        self.asked_again.set()
        if self.error is not None:
            raise self.error
        return Page("7", [])

    async def watch(self, *_: Any, **__: Any) -> AsyncIterator[tuple[str, Object]]:
        for nothing in list[tuple[str, Object]]():
            yield nothing


@pytest.mark.parametrize(
    ("error", "is_dead"),
    [(RefusedError("403"), False), (UnavailableError("no answer"), False), (None, True)],
    ids=["refused", "away", "lists come through"],
)
async def test_only_a_watch_beside_which_lists_come_through_is_dead(
    error: ChandleryError | None, is_dead: bool
) -> None:
    server = Server(error)
    followed = Followed(server, CONFIG_MAP, "", lambda *_: None)  # type: ignore[arg-type]
    running = asyncio.create_task(followed.run())
    try:
        await asyncio.wait_for(server.asked_again.wait(), 30)
        followed.answered_s -= 1_000  # a quarter of an hour of the same
        server.asked_again.clear()
        await asyncio.wait_for(server.asked_again.wait(), 60)
        await asyncio.sleep(0)  # what follows from the answer
        assert (followed.problem() != "") == is_dead
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


class Cut:
    """An API server whose watches are cut or bring a bookmark, as told; then they last."""

    def __init__(self, *watches: str) -> None:
        self._left = list(watches)
        self.all_begun = asyncio.Event()

    async def list(self, *_: Any, **__: Any) -> Page:
        return Page("7", [])

    async def watch(self, *_: Any, **__: Any) -> AsyncIterator[tuple[str, Object]]:
        what = self._left.pop(0) if self._left else "lasts"
        if what == "cut":
            raise UnavailableError("cut")
        if what == "brings":
            yield "BOOKMARK", {"metadata": {"resourceVersion": "8"}}
            return
        self.all_begun.set()
        await asyncio.Event().wait()


@pytest.mark.parametrize(
    ("watches", "reconnects"),
    [
        (["brings", "brings"], 0),
        (["cut", "brings", "brings"], 1),
        (["brings", "cut", "cut", "brings", "cut", "brings"], 2),
        (["brings", "cut"], 0),
    ],
    ids=["never away", "away once", "away twice", "not back yet"],
)
async def test_each_return_of_a_watch_that_failed_is_counted_once(
    monkeypatch: pytest.MonkeyPatch, watches: list[str], reconnects: int
) -> None:
    async def at_once(*_: object) -> None:
        await asyncio.sleep(0)

    monkeypatch.setattr("chandlery.operator.kubernetes.follow.backoff", at_once)
    server = Cut(*watches)
    followed = Followed(server, CONFIG_MAP, "", lambda *_: None)  # type: ignore[arg-type]
    running = asyncio.create_task(followed.run())
    try:
        await asyncio.wait_for(server.all_begun.wait(), 30)
        assert followed.reconnects == reconnects
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
