"""The sweep: ghosts go, and a watch that fails to bring what is there is found dead."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any

from tests.operator_parts.operator_bodies import trader_body

from chandlery.operator.cache import Cache, Dirty
from chandlery.operator.kubernetes.api import Kind, Page
from chandlery.operator.kubernetes.kinds import TRADER
from chandlery.operator.watching import Sweeper, take_in


class Lists:
    """Answers lists with what is there."""

    def __init__(self, *bodies: dict[str, Any], version: int = 100) -> None:
        self.bodies = bodies
        self.version = version
        self.asked = asyncio.Event()

    async def list(self, kind: Kind, namespace: str = "", *, selector: str = "", metadata_only: bool = False) -> Page:
        assert metadata_only
        answer = Page(str(self.version), list(self.bodies) if kind == TRADER else [])
        if kind == TRADER:
            self.asked.set()
        return answer


def sweeper(lists: Lists, cache: Cache, marked: list[Dirty], dead: list[str]) -> Sweeper:
    made = Sweeper(lists, cache, ("",), marked.append, dead.append, period_s=0.01)  # type: ignore[arg-type]
    made.patience_s = 0.05
    return made


async def run_until_dead(made: Sweeper, dead: list[str]) -> None:
    task = asyncio.create_task(made.run())
    deadline = time.monotonic() + 30
    while not dead:
        assert time.monotonic() < deadline, "not found dead within 30 s"
        await asyncio.sleep(0.005)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def test_a_watch_that_never_brings_what_lists_have_is_found_dead() -> None:
    cache, dead = Cache(), list[str]()
    cache.put("Trader", trader_body(version=3))
    await run_until_dead(sweeper(Lists(trader_body(version=7)), cache, [], dead), dead)
    assert "default/one" in dead[0]


async def test_what_a_watch_never_brought_at_all_is_found_too() -> None:
    dead = list[str]()
    await run_until_dead(sweeper(Lists(trader_body(version=7)), Cache(), [], dead), dead)
    assert "default/one" in dead[0]


async def test_a_watch_that_is_only_late_is_alive() -> None:
    cache, lists = Cache(), Lists(trader_body(version=7))
    made = sweeper(lists, cache, [], [])
    looking = asyncio.create_task(made.missing())
    await lists.asked.wait()
    take_in(cache, "traders", trader_body(version=7), "ADDED")
    lists.bodies = (trader_body(version=9),)  # and again something new, which is on its way
    assert await looking == []


async def test_what_was_deleted_meanwhile_is_no_sign_of_a_dead_watch() -> None:
    cache, lists = Cache(), Lists(trader_body(version=7))
    looking = asyncio.create_task(sweeper(lists, cache, [], []).missing())
    await lists.asked.wait()
    lists.bodies = ()
    assert await looking == []


async def test_a_ghost_is_dropped_and_its_pool_reconciled() -> None:
    cache, marked = Cache(), list[Dirty]()
    cache.put("Trader", trader_body(version=3))
    made = sweeper(Lists(), cache, marked, [])
    await made.look()
    assert cache.get("Trader", ("default", "one")) is None
    assert marked == [("pool", "default", "quants")]
    assert made.dropped == 1
