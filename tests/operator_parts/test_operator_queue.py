"""The dirty queue: everything marked is worked on, one at a time a key, and again after a failure."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable

import pytest
from tests.operator_parts.under_way import under_way, until

from chandlery.core.errors import UnavailableError
from chandlery.operator.dirty_queue import LONGEST_REST_S, DirtyQueue


async def test_marks_that_come_together_are_one_run() -> None:
    runs: Counter[str] = Counter()

    async def work(key: str) -> None:
        runs[key] += 1

    queue = DirtyQueue(work)
    for _ in range(100):
        queue.mark("a")
        queue.mark("b")
    async with under_way(queue.run()):
        await until(lambda: len(queue) == 0)
    assert runs == {"a": 1, "b": 1}


async def test_one_key_is_never_worked_on_twice_at_once_and_a_mark_meanwhile_is_not_lost() -> None:
    at_once, most, runs = 0, 0, 0
    go = asyncio.Event()

    async def work(_key: str) -> None:
        nonlocal at_once, most, runs
        at_once += 1
        most = max(most, at_once)
        runs += 1
        await go.wait()
        at_once -= 1

    queue = DirtyQueue(work)
    async with under_way(queue.run()):
        queue.mark("a", 0)
        await until(lambda: runs == 1)
        queue.mark("a", 0)
        queue.mark("a", 0)
        go.set()
        await until(lambda: len(queue) == 0)
    assert (runs, most) == (2, 1)


async def test_a_slow_key_holds_up_no_other() -> None:
    done: list[str] = []
    never = asyncio.Event()

    async def work(key: str) -> None:
        if key == "slow":
            await never.wait()
        done.append(key)

    queue = DirtyQueue(work)
    async with under_way(queue.run()):
        queue.mark("slow", 0)
        queue.mark("quick", 0)
        await until(lambda: done == ["quick"])


async def test_work_that_fails_is_repeated_also_after_a_defect() -> None:
    errors: list[Exception] = [UnavailableError("not now"), ValueError("a defect")]
    runs: Counter[str] = Counter()

    def work(key: str) -> Awaitable[None]:
        async def one() -> None:
            runs[key] += 1
            if key == "bad" and errors:
                raise errors.pop(0)

        return one()

    queue = DirtyQueue(work)
    async with under_way(queue.run()):
        queue.mark("bad", 0)
        queue.mark("good", 0)
        await until(lambda: runs["bad"] == 3 and len(queue) == 0)
    assert runs["good"] == 1
    assert queue.failures == 2


async def test_the_sooner_of_two_marks_counts() -> None:
    ran = asyncio.Event()

    async def work(_key: str) -> None:
        ran.set()

    queue = DirtyQueue(work)
    async with under_way(queue.run()):
        queue.mark("a", 3600)
        queue.mark("a", 0)
        queue.mark("a", 3600)
        async with asyncio.timeout(30):
            await ran.wait()


@pytest.mark.parametrize(("took_s", "rests_s"), [(0.3, 0.3), (60.0, LONGEST_REST_S)])
async def test_after_work_that_took_long_what_follows_is_gathered_for_as_long_but_not_for_ever(
    took_s: float, rests_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = 1_000.0
    runs: Counter[str] = Counter()
    loop = asyncio.get_running_loop()
    monkeypatch.setattr(loop, "time", lambda: now_s)

    async def work(key: str) -> None:
        nonlocal now_s
        runs[key] += 1
        now_s += took_s if key == "slow" else 0.0

    async def pass_(seconds: float) -> None:
        nonlocal now_s
        now_s += seconds
        for _ in range(20):  # turns of the loop
            await asyncio.sleep(0)

    queue = DirtyQueue(work)
    async with under_way(queue.run()):
        queue.mark("slow", 0)
        await pass_(0.0)
        assert runs["slow"] == 1
        for _ in range(5):
            queue.mark("slow", 0)
            queue.mark("quick", 0)
            await pass_(rests_s / 10)
        assert (runs["slow"], runs["quick"]) == (1, 5)
        await pass_(rests_s * 0.6)
        assert runs["slow"] == 2, "once, for all five"
    monkeypatch.undo()
