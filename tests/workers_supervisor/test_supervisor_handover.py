"""Two incarnations of a Trader side by side in one worker, and the handover from one to the other."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from typing import Any

import pytest
from tests.workers_supervisor.fake_feed import PATIENCE_S, STEP_MS, Worker, gone, ring_name, trader, worker

from chandlery.core.assignment import TraderAssignment, TraderStatus
from chandlery.core.errors import SegmentError
from chandlery.core.signals import Signal
from chandlery.workers.control_messages import StatusMessage
from chandlery.workers.segment import SignalRing


def old(**changes: Any) -> TraderAssignment:
    return trader("a", **changes)


def new(**changes: Any) -> TraderAssignment:
    return trader("a", **{"incarnation": 2, "parameters": {"size": 2}, "generation": 2, **changes})


async def successor(made: Worker, state: str) -> TraderStatus:
    """Wait until the successor of ``desk/a`` is in a state."""

    def holds(status: StatusMessage) -> bool:
        return "desk/a" in status.successors and status.successors["desk/a"].state == state

    return (await made.until(holds)).successors["desk/a"]


async def side_by_side(made: Worker) -> tuple[int, int]:
    """The old one active and the new one warm beside it; returns their pids."""
    made.close(1.0)
    before = await made.applied(made.assign(old()))
    await made.states(a="Active")
    sequence = made.assign(old(), new(mode="standby"))
    beside = await successor(made, "Warm")
    traders = await made.applied(sequence)
    assert traders["desk/a"].pid == before["desk/a"].pid
    assert (traders["desk/a"].incarnation, beside.incarnation) == (1, 2)
    return traders["desk/a"].pid, beside.pid


def of_size(signals: list[Signal], size: int) -> list[str]:
    """Prices of the candles signalled on, all by an incarnation of that size."""
    assert {each.reason for each in signals} <= {f"size {size}"}
    return [each.price for each in signals]


async def test_a_handover_at_a_candle_leaves_each_to_one_and_no_process_is_started_for_it() -> None:
    async with worker() as made:
        pids = await side_by_side(made)
        made.close(2.0)
        at_ms = made.next_open_ms + STEP_MS
        traders = await made.applied(made.assign(old(until_ms=at_ms), new(mode="standby")))
        assert traders["desk/a"].last_open_time_ms < at_ms
        made.close(3.0, 4.0, 5.0)
        assert of_size(await made.signals("desk/a", 2), 1) == ["2", "3"]
        await made.states(a="Retired")
        sequence = made.assign(old(until_ms=at_ms), new(from_ms=at_ms))
        assert (await made.applied(sequence))["desk/a"].pid == pids[0]
        assert (await successor(made, "Active")).pid == pids[1]
        made.close(6.0)
        assert of_size(await made.signals("desk/a", 3, incarnation=2), 2) == ["4", "5", "6"]
        traders = await made.applied(made.assign(new(from_ms=at_ms)))
        assert (traders["desk/a"].pid, traders["desk/a"].incarnation) == (pids[1], 2)
        await made.until(lambda status: not status.successors)
        await gone({pids[0]})
        await made.until(lambda status: not (made.rings / ring_name("desk/a")).exists())
        await made.applied(made.assign(new(), sequence=made.sequence + 1))
        made.close(7.0)
        assert of_size(await made.signals("desk/a", 1, incarnation=2), 2) == ["7"]
        assert made.statuses[-1].traders["desk/a"].pid == pids[1], "a bound that goes restarts nothing"


async def test_an_end_is_acknowledged_by_the_process_itself() -> None:
    async with worker() as made:
        pid, _ = await side_by_side(made)
        os.kill(pid, signal.SIGSTOP)
        try:
            sequence = made.assign(old(until_ms=10 * STEP_MS), new(mode="standby"), trader("b"))
            others = await made.until(lambda status: "desk/b" in status.traders and status.traders["desk/b"].pid > 0)
            await made.states(b="Active")
            assert max(others.sequence, made.statuses[-1].sequence) < sequence
        finally:
            os.kill(pid, signal.SIGCONT)
        await made.applied(sequence)


async def test_an_end_that_is_taken_in_shows_although_another_trader_waits() -> None:
    async with worker() as made:
        await side_by_side(made)
        made.close(2.0)
        at_ms = made.next_open_ms
        waiting = trader("b", symbols=["ETH/USDT"])
        sequence = made.assign(old(until_ms=at_ms), new(mode="standby"), waiting)
        status = await made.until(lambda status: status.traders["desk/a"].until_ms == at_ms)
        assert status.sequence < sequence
        assert status.traders["desk/a"].last_open_time_ms < at_ms
        made.assign(old(), new(mode="standby"), waiting)
        await made.until(lambda status: status.traders["desk/a"].until_ms is None)


async def test_an_end_that_comes_back_is_not_taken_in_before_the_process_says_so_again() -> None:
    async with worker() as made:
        pid, _ = await side_by_side(made)
        at_ms = made.next_open_ms
        await made.applied(made.assign(old(until_ms=at_ms), new(mode="standby")))
        os.kill(pid, signal.SIGSTOP)
        try:
            made.assign(old(), new(mode="standby"))
            sequence = made.assign(old(until_ms=at_ms), new(mode="standby"), trader("b"))
            status = await made.until(lambda status: "desk/b" in status.traders)
            assert status.traders["desk/a"].until_ms is None, "it may have heard only that it has no end"
        finally:
            os.kill(pid, signal.SIGCONT)
        assert (await made.applied(sequence))["desk/a"].until_ms == at_ms


async def test_an_end_that_comes_too_late_shows_and_is_moved() -> None:
    async with worker() as made:
        await side_by_side(made)
        made.close(2.0, 3.0)
        await made.until(lambda status: status.traders["desk/a"].signals == 2)
        late_ms = made.next_open_ms - STEP_MS
        traders = await made.applied(made.assign(old(until_ms=late_ms), new(mode="standby")))
        assert traders["desk/a"].last_open_time_ms == late_ms, "the candle there is decided"
        moved_ms = late_ms + STEP_MS
        traders = await made.applied(made.assign(old(until_ms=moved_ms), new(mode="standby")))
        assert traders["desk/a"].last_open_time_ms < moved_ms
        await made.applied(made.assign(old(until_ms=moved_ms), new(from_ms=moved_ms)))
        made.close(4.0)
        assert of_size(await made.signals("desk/a", 2), 1) == ["2", "3"]
        assert of_size(await made.signals("desk/a", 1, incarnation=2), 2) == ["4"]
        await made.states(a="Retired")


@pytest.mark.parametrize("when", ["standing by", "active"])
async def test_a_successor_that_is_killed_misses_nothing(when: str) -> None:
    async with worker() as made:
        pids = await side_by_side(made)
        at_ms = made.next_open_ms + STEP_MS
        await made.applied(made.assign(old(until_ms=at_ms), new(mode="standby")))
        if when == "standing by":
            os.kill(pids[1], signal.SIGKILL)
        made.close(2.0, 3.0)
        made.assign(old(until_ms=at_ms), new(from_ms=at_ms))
        if when == "active":
            await made.signals_until("desk/a", "3", incarnation=2, keep=True)
            os.kill(pids[1], signal.SIGKILL)
        made.close(4.0)
        prices = of_size(await made.signals_until("desk/a", "4", incarnation=2), 2)
        assert list(dict.fromkeys(prices)) == ["3", "4"]
        assert of_size(await made.signals("desk/a", 1), 1) == ["2"]
        assert made.statuses[-1].traders["desk/a"].pid == pids[0]


async def test_a_predecessor_that_is_killed_decides_the_rest_of_its_own() -> None:
    async with worker() as made:
        pids = await side_by_side(made)
        at_ms = made.next_open_ms + 2 * STEP_MS
        await made.applied(made.assign(old(until_ms=at_ms), new(from_ms=at_ms)))
        made.close(2.0)
        await made.signals_until("desk/a", "2", keep=True)
        os.kill(pids[0], signal.SIGKILL)
        made.close(3.0, 4.0)
        prices = of_size(await made.signals_until("desk/a", "3"), 1)
        assert list(dict.fromkeys(prices)) == ["2", "3"]
        await made.states(a="Retired")
        assert of_size(await made.signals("desk/a", 1, incarnation=2), 2) == ["4"]
        assert made.statuses[-1].successors["desk/a"].pid == pids[1]


async def test_a_supervisor_killed_in_the_middle_leaves_nothing_out() -> None:
    async with worker() as made:
        await side_by_side(made)
        at_ms = made.next_open_ms + STEP_MS
        await made.applied(made.assign(old(until_ms=at_ms), new(mode="standby")))
        assert made.process is not None
        made.process.kill()
        await made.process.wait()
        made.close(2.0, 3.0)
        made.assign(old(until_ms=at_ms), new(from_ms=at_ms))
        await made.start()
        made.close(4.0)
        async with made.taking("desk/a") as taken:
            await made.states(a="Retired")
        # Twice where the first process ended with its supervisor after the signal and before its position.
        assert set(of_size(taken, 1)) == {"2"}
        assert of_size(await made.signals("desk/a", 2, incarnation=2), 2) == ["3", "4"]


@pytest.mark.parametrize(
    ("changes", "state"), [({"strategy": "nowhere"}, "Stalled"), ({"source": "import os; os._exit(7)"}, "Backoff")]
)
async def test_a_successor_that_cannot_start_leaves_the_one_before_alone(changes: dict[str, str], state: str) -> None:
    async with worker() as made:
        made.close(1.0)
        before = await made.applied(made.assign(old()))
        sequence = made.assign(old(), new(mode="standby", **changes))
        told = await successor(made, state)
        assert told.message
        traders = await made.applied(sequence)
        assert traders["desk/a"].pid == before["desk/a"].pid
        traders = await made.applied(made.assign(old()))
        made.close(2.0)
        assert of_size(await made.signals("desk/a", 1), 1) == ["2"]
        assert made.statuses[-1].traders["desk/a"].pid == before["desk/a"].pid


async def test_a_successor_whose_strategy_raises_fails_before_it_takes_over() -> None:
    async with worker() as made:
        made.close(13.0)
        before = await made.applied(made.assign(old()))
        sequence = made.assign(old(), new(mode="standby", strategy="raises", parameters={}))
        told = await successor(made, "Backoff")
        assert "thirteen on purpose" in told.last_error
        assert (await made.applied(sequence))["desk/a"].pid == before["desk/a"].pid


async def test_one_that_replaces_another_goes_on_where_that_ended_and_leaves_its_signals() -> None:
    async with worker() as made:
        made.close(1.0)
        await made.applied(made.assign(old()))
        made.close(2.0)
        await made.until(lambda status: status.traders["desk/a"].signals == 1)
        traders = await made.applied(made.assign(new()))
        assert traders["desk/a"].incarnation == 2
        assert (made.rings / ring_name("desk/a")).exists(), "a signal is in it that nobody has published"
        made.close(3.0)
        assert of_size(made.take("desk/a"), 1) == ["2"]
        assert of_size(await made.signals("desk/a", 1, incarnation=2), 2) == ["3"]
        await made.until(lambda status: not (made.rings / ring_name("desk/a")).exists())
        await made.until(lambda status: status.traders["desk/a"].signals == 2)  # counters go on


@pytest.mark.parametrize(("incarnation", "first"), [(2, "3"), (3, "4")])
async def test_positions_of_the_one_right_before_are_better_than_a_bound(incarnation: int, first: str) -> None:
    async with worker() as made:
        made.close(1.0)
        await made.applied(made.assign(old()))
        made.close(2.0)
        await made.signals("desk/a", 1)
        # Whoever set it took the newest candle of all symbols for decided, or another incarnation has been elsewhere.
        bound_ms = made.next_open_ms + STEP_MS
        await made.applied(made.assign(new(incarnation=incarnation, from_ms=bound_ms)))
        made.close(3.0, 4.0)
        prices = of_size(await made.signals_until("desk/a", "4", incarnation), 2)
        assert prices[0] == first


async def test_a_suspended_one_keeps_how_far_the_one_before_had_come() -> None:
    async with worker() as made:
        made.close(1.0)
        await made.applied(made.assign(old()))
        made.close(2.0)
        await made.signals("desk/a", 1)
        await made.applied(made.assign(new(mode="suspended")))
        await made.until(lambda status: not (made.rings / ring_name("desk/a")).exists())
        made.close(3.0)
        await made.applied(made.assign(new(incarnation=3)))
        assert of_size(await made.signals("desk/a", 1, incarnation=3), 2) == ["3"]


async def test_a_ring_that_is_made_anew_begins_with_the_bound_told_last() -> None:
    async with worker() as made:
        made.close(1.0)
        await made.applied(made.assign(old()))
        made.close(2.0)
        await made.signals_until("desk/a", "2", keep=True)
        await made.applied(made.assign(new(mode="suspended")))
        at_ms = made.next_open_ms
        await made.applied(made.assign(new(mode="suspended", from_ms=at_ms)))
        path = str(made.rings / ring_name("desk/a", 2))
        with SignalRing.attach(path) as ring:
            ring.set("warm_need", 99)
        made.replace_ring("desk/a", 2)
        assert await begun_anew(path) == ((1, at_ms - STEP_MS), at_ms)


async def begun_anew(path: str) -> tuple[tuple[int, int] | None, int]:
    """Position and bound in a ring, once it is another than the one with a mark in it."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            with contextlib.suppress(SegmentError), SignalRing.attach(path) as ring:
                if ring.get("warm_need") != 99:
                    return ring.position("BTC/USDT 1s"), ring.get("begun_from_ms")
            await asyncio.sleep(0.01)


async def test_a_ring_that_an_earlier_version_made_is_taken_over() -> None:
    made = Worker()
    try:
        with SignalRing.create(str(made.rings / "desk__a.ring"), trader="desk/a", uid="uid-a") as ring:
            ring.set_position("BTC/USDT 1s", 1, 0)
        await made.serve()
        await made.start()
        made.close(1.0, 2.0)
        await made.applied(made.assign(new()))
        assert of_size(await made.signals("desk/a", 1, incarnation=2), 2) == ["2"]
        assert not (made.rings / "desk__a.ring").exists()
    finally:
        await made.clean()


async def test_one_that_was_given_up_leaves_and_another_stands_by() -> None:
    async with worker() as made:
        pids = await side_by_side(made)
        sequence = made.assign(old(), new(incarnation=3, mode="standby"))
        await made.applied(sequence)
        await gone({pids[1]})
        status = await made.until(lambda status: status.successors["desk/a"].incarnation == 3)
        assert status.traders["desk/a"].pid == pids[0]
        made.close(2.0)
        assert of_size(await made.signals("desk/a", 1), 1) == ["2"]
