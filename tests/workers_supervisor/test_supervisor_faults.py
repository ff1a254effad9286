"""Traders that misbehave: each is explained and restarted, and every other one keeps its process."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal

import pytest
from tests.workers_supervisor.fake_feed import PATIENCE_S, Worker, gone, parent_of, processes_of, trader, worker

from chandlery.core.assignment import TraderStatus
from chandlery.workers.supervisor.nursery_client import NurseryClient

GOOD = [f"good-{at}" for at in range(6)]


async def with_good_ones(made: Worker, name: str, **changes: object) -> dict[str, TraderStatus]:
    """Assign a trader of one kind of misbehaviour beside good ones; all of them active."""
    made.close(1.0)
    made.assign(trader(name, name, **changes), *(trader(good) for good in GOOD))
    return await made.states(**dict.fromkeys([name, *GOOD], "Active"))


def pids(traders: dict[str, TraderStatus]) -> dict[str, int]:
    return {good: traders[f"desk/{good}"].pid for good in GOOD}


#: Loading counts as a call, and twenty load at once: on a machine that others keep busy that takes seconds.
HANG_MS = 6_000
#: Name of the strategy and its trader, the reason and the words that explain its end.
FAULTS = [
    ("allocates", "MemoryLimit", "killed by SIGKILL (memory limit 80 MB)"),
    ("hangs", "Hang", "killed by SIGKILL (in a call for more than 6 s)"),
    ("raises", "Crashed", "ValueError: thirteen on purpose"),
    ("exits", "Exited", "exit code 7"),
    ("leaves", "Exited", "exit code 3"),
    ("dies", "Killed", "SIGSEGV"),
    ("stops", "Hang", "killed by SIGKILL"),
]


async def test_of_twenty_traders_each_fault_ends_one_and_nineteen_keep_their_process() -> None:
    """One after the other misbehaves on a candle of its own, is explained, and comes back; who came back counts too."""
    prices = {name: 100.0 + at for at, (name, _, _) in enumerate(FAULTS)}
    good = [f"good-{at}" for at in range(20 - len(FAULTS))]
    async with worker(hang_timeout_ms=HANG_MS) as made:
        made.close(1.0)
        bad = [trader(name, name, parameters={"at": prices[name]}, memory_bytes=80 << 20) for name in prices]
        made.assign(*bad, *(trader(name) for name in good))
        twenty = await made.states(**dict.fromkeys([*prices, *good], "Active"))
        assert len({status.pid for status in twenty.values()}) == 20
        for name, reason, says in FAULTS:
            twenty = await _misbehaves(made, name, prices[name], twenty, reason, says)
        restarts = {name.removeprefix("desk/"): status.restarts for name, status in twenty.items()}
        assert {name: restarts[name] for name in good} == dict.fromkeys(good, 0)
        assert all(restarts[name] for name in prices)


async def _misbehaves(
    made: Worker, name: str, price: float, before: dict[str, TraderStatus], reason: str, says: str
) -> dict[str, TraderStatus]:
    """Let one misbehave; the statuses of all once it is back. The other nineteen decide with the process they had."""
    bad = f"desk/{name}"
    others = {trader: (status.pid, status.restarts) for trader, status in before.items() if trader != bad}
    assert len(others) == 19
    made.close(price)
    status = (await made.until(lambda status: status.traders[bad].state == "Backoff")).traders[bad]
    assert (status.reason, status.restarts) == (reason, 1)
    assert says in status.last_error
    assert "\n" not in status.last_error
    assert says in status.message
    for trader_name in others:
        assert [each.price for each in await made.signals(trader_name, 1)] == [f"{price:g}"]
    made.revise(50.0)  # else the next process would end by the same candle
    assert [each.price for each in await made.signals(bad, 1)] == ["50"], "it decides the candle that it had not"
    after = (await made.until(lambda status: status.traders[bad].state == "Active")).traders
    assert {trader: (after[trader].pid, after[trader].restarts) for trader in others} == others
    assert after[bad].pid != before[bad].pid
    return after


async def test_a_trader_that_fails_again_and_again_is_a_crash_loop_and_recovers() -> None:
    async with worker() as made:
        made.close(1.0)
        made.assign(trader("raises", "raises"))
        await made.states(raises="Active")
        made.close(13.0)
        status = await made.until(lambda status: status.traders["desk/raises"].reason == "CrashLoop")
        assert status.traders["desk/raises"].state == "Backoff"
        assert "thirteen on purpose" in status.traders["desk/raises"].message
        assert status.traders["desk/raises"].restarts == 5
        assert status.traders["desk/raises"].errors == 5
        made.assign(trader("raises", "buys", generation=2))
        await made.states(raises="Active")
        (signal_at_13,) = await made.signals("desk/raises", 1)
        assert signal_at_13.price == "13", "the candle that broke the old code is decided by the new"


async def test_what_a_trader_babbles_on_its_line_harms_nobody() -> None:
    async with worker() as made:
        before = await with_good_ones(made, "babbles")
        made.close(13.0, 14.0)
        for good in GOOD:
            assert len(await made.signals(f"desk/{good}", 2)) == 2
        status = await made.until(lambda status: status.traders["desk/good-0"].calls == 2)
        assert pids(status.traders) == pids(before)


async def test_kill_9_of_the_fork_server_brings_every_trader_back() -> None:
    async with worker() as made:
        made.close(1.0)
        made.assign(*(trader(good) for good in GOOD))
        before = await made.states(**dict.fromkeys(GOOD, "Active"))
        assert made.process is not None
        nursery = parent_of(before["desk/good-0"].pid)
        os.kill(nursery, signal.SIGKILL)
        await made.until(lambda status: all(each.restarts == 1 for each in status.traders.values()))
        await made.states(**dict.fromkeys(GOOD, "Active"))
        made.close(2.0)
        for good in GOOD:
            assert [each.price for each in await made.signals(f"desk/{good}", 1)] == ["2"]
        await gone(set(pids(before).values()))


async def test_kill_9_of_the_supervisor_leaves_no_process() -> None:
    async with worker() as made:
        made.close(1.0)
        made.assign(*(trader(good) for good in GOOD))
        statuses = await made.states(**dict.fromkeys(GOOD, "Active"))
        assert made.process is not None
        family = processes_of(made.process.pid)
        assert family >= {status.pid for status in statuses.values()}
        made.process.kill()
        await made.process.wait()
        await gone(family)


async def test_sigterm_stops_the_traders_and_leaves_their_signals() -> None:
    async with worker() as made:
        made.close(1.0)
        made.assign(trader("good-0"), trader("hangs", "hangs"))
        await made.states(**{"good-0": "Active", "hangs": "Active"})
        made.close(2.0)
        await made.until(lambda status: status.traders["desk/good-0"].signals == 1)
        made.close(13.0)  # one of them is in a call that never ends
        await made.until(lambda status: status.traders["desk/good-0"].signals == 2)
        assert made.process is not None
        family = processes_of(made.process.pid)
        assert await made.stop() == 0
        await gone(family)
        assert [each.price for each in made.take("desk/good-0")] == ["2", "13"]


async def test_an_assignment_that_comes_while_it_stops_starts_nobody() -> None:
    async with worker(hang_timeout_ms=600_000) as made:
        made.close(1.0)
        made.assign(trader("stops", "stops"))
        await made.states(stops="Active")
        made.close(13.0)  # stopped, it takes no SIGTERM: the supervisor gives it 2 s
        stopping = asyncio.create_task(made.stop())
        while "stops its traders" not in made.log():
            assert not stopping.done()
            await asyncio.sleep(0.01)
        made.assign(trader("stops", "stops"), trader("late"))
        assert await stopping == 0
        assert "desk/late" not in made.log()


async def test_the_end_of_the_fork_server_is_told_to_whoever_waits_for_a_trader() -> None:
    nursery = NurseryClient()
    try:
        process = await nursery.spawn()
        process.line.close()
    finally:
        await nursery.close()
    assert await asyncio.wait_for(process.ended, 10) == -signal.SIGKILL


@pytest.mark.parametrize("turns", range(6))
async def test_who_is_cancelled_as_the_fork_server_answers_is_cancelled_and_leaves_no_process(turns: int) -> None:
    """However many turns of the loop lie between answer and cancellation: a removed Trader's start must not win."""
    heard: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    class Watched(NurseryClient):
        def _note(self, words: list[str]) -> None:
            super()._note(words)
            if words[0] == "started":
                heard.set_result(int(words[1]))

    nursery = Watched()
    try:
        starting = asyncio.create_task(nursery.spawn())
        pid = await heard
        for _ in range(turns):
            await asyncio.sleep(0)
        if starting.cancel():
            with pytest.raises(asyncio.CancelledError):
                await starting
        else:
            process = await starting
            process.line.close()
            nursery.kill(process.pid, signal.SIGKILL)
        await gone({pid})
    finally:
        await nursery.close()


async def test_a_catalogue_that_never_returns_ends_with_a_killed_supervisor() -> None:
    made = Worker()
    try:
        (made.strategies / "endless.py").write_text(
            "import time\nopen('%s', 'w').close()\ntime.sleep(600)\n" % (made.folder / "reading")
        )
        await made.serve()
        await made.start()
        deadline = asyncio.get_running_loop().time() + PATIENCE_S
        while not (made.folder / "reading").exists():
            assert asyncio.get_running_loop().time() < deadline, made.log()
            await asyncio.sleep(0.02)
        assert made.process is not None
        family = processes_of(made.process.pid)
        made.process.kill()
        await made.process.wait()
        await gone(family)
    finally:
        await made.clean()


async def test_decisions_stay_in_order_and_complete_over_kill_9_of_the_trader() -> None:
    """Five kills while candles close: every candle is decided, in order; repetitions have the same id."""
    async with worker() as made:
        made.close(1.0)
        made.assign(trader("good-0"))
        await made.states(**{"good-0": "Active"})
        taken = []
        candles = 200
        for at in range(candles):
            made.close(float(at + 100))
            taken += made.take("desk/good-0")
            if at % 40 == 20:
                status = await made.until(lambda status: status.traders["desk/good-0"].state == "Active")
                os.kill(status.traders["desk/good-0"].pid, signal.SIGKILL)
                died = status.traders["desk/good-0"].restarts
                await made.until(lambda status, died=died: status.traders["desk/good-0"].restarts > died)  # type: ignore[misc]
            await asyncio.sleep(0)
        while len({each.id for each in taken}) < candles:
            taken += await made.signals("desk/good-0", 1)
        unique = list(dict.fromkeys(each.id for each in taken))
        by_id = {each.id: each for each in taken}
        assert [by_id[each].price for each in unique] == [str(at + 100) for at in range(candles)]
        times = [each.open_time_ms for each in taken]
        backward = [(early, late) for early, late in itertools.pairwise(times) if late < early]
        assert not backward, "a repetition may follow its first, never an older candle"
        assert len(taken) - len(unique) <= 5, "at most the candle in hand is decided again after a kill"
