"""Assignments: applied by their differences, acknowledged when every Trader has answered."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest
from tests.workers_supervisor.fake_feed import (
    BTC,
    PATIENCE_S,
    STEP_MS,
    Worker,
    gone,
    parent_of,
    ring_name,
    trader,
    worker,
)

from chandlery.core.assignment import READY_STATES, TraderStatus
from chandlery.core.settings import SupervisorSettings
from chandlery.workers.discovery import SHIPPED
from chandlery.workers.segment import SegmentWriter, SignalRing
from chandlery.workers.supervisor.keeper import Keeper
from chandlery.workers.supervisor.leaving import Leaving
from chandlery.workers.supervisor.supervise import Supervisor


async def settled(made: Worker, sequence: int) -> dict[str, int]:
    """Pids by name once an assignment is acknowledged."""
    return {name: status.pid for name, status in (await made.applied(sequence)).items()}


async def test_twenty_traders_are_acknowledged_and_decide() -> None:
    async with worker() as made:
        made.close(1.0)
        names = [f"t{at}" for at in range(20)]
        traders = await made.applied(made.assign(*(trader(name) for name in names)))
        assert {status.state for status in traders.values()} <= READY_STATES
        assert {status.generation for status in traders.values()} == {1}
        assert len({status.pid for status in traders.values()}) == 20
        assert all(len(status.code) == 16 for status in traders.values())
        made.close(2.0)
        for name in names:
            (signal,) = await made.signals(f"desk/{name}", 1)
            assert (signal.trader, signal.price, signal.code) == (f"desk/{name}", "2", traders[f"desk/{name}"].code)
        status = await made.until(lambda status: all(each.signals == 1 for each in status.traders.values()))
        assert {each.calls for each in status.traders.values()} == {1}
        print_memory(made, [each.pid for each in status.traders.values()])


def print_memory(made: Worker, pids: list[int]) -> None:
    """Say what a trader costs; a benchmark holds the figure, this test only shows it."""
    pss_kb = []
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                pss_kb.append(int(line.split()[1]))
    assert made.process is not None
    print(
        f"PSS of {len(pids)} traders: mean {sum(pss_kb) / len(pss_kb) / 1024:.2f} MB, most {max(pss_kb) / 1024:.2f} MB"
    )


async def test_a_trader_that_is_woken_takes_nobodys_core_away() -> None:
    async with worker() as made:
        made.close(1.0)
        pids = await settled(made, made.assign(trader("a"), trader("b")))
        assert made.process is not None
        assert [os.sched_getscheduler(pid) for pid in pids.values()] == [os.SCHED_BATCH] * 2
        others = [os.sched_getscheduler(pid) for pid in (made.process.pid, parent_of(pids["desk/a"]))]
        assert others == [os.sched_getscheduler(0)] * 2, "supervisor and fork server keep theirs"


async def test_an_edit_restarts_one_trader_only() -> None:
    async with worker() as made:
        made.close(1.0)
        before = await settled(made, made.assign(trader("a"), trader("b"), trader("c")))
        edited = trader("b", parameters={"size": 5}, generation=2)
        after = await settled(made, made.assign(trader("a"), edited, trader("c")))
        assert (after["desk/a"], after["desk/c"]) == (before["desk/a"], before["desk/c"])
        assert after["desk/b"] != before["desk/b"]
        await gone({before["desk/b"]})
        made.close(2.0)
        (signal,) = await made.signals("desk/b", 1)
        assert signal.reason == "size 5"
        assert made.statuses[-1].traders["desk/b"].restarts == 0, "asked for, so no failure"


async def test_a_change_that_needs_no_other_process_is_acknowledged_by_the_same_one() -> None:
    async with worker() as made:
        made.close(1.0)
        before = await settled(made, made.assign(trader("a", mode="standby")))
        assert made.statuses[-1].traders["desk/a"].state == "Warm"
        made.close(2.0)
        sequence = made.assign(trader("a", generation=7, tier="gold"))
        after = await made.applied(sequence)
        assert after["desk/a"].pid == before["desk/a"]
        assert after["desk/a"].generation == 7
        await made.states(a="Active")
        made.close(3.0)
        (signal,) = await made.signals("desk/a", 1)
        assert signal.price == "3"


async def test_every_assignment_is_answered_even_where_nothing_shows() -> None:
    async with worker() as made:
        made.close(1.0)
        before = await settled(made, made.assign(trader("a")))
        assert await settled(made, made.assign(trader("a", tier="gold"))) == before
        assert await settled(made, made.assign(trader("a", tier="gold"))) == before
        edited = await settled(made, made.assign(trader("a", parameters={"size": 2})))
        assert edited != before, "a change without a new generation is acknowledged by the new process only"


async def test_candles_closed_during_an_edit_are_decided_by_the_new_code() -> None:
    async with worker() as made:
        made.close(1.0)
        await made.applied(made.assign(trader("a")))
        made.close(2.0)
        sequence = made.assign(trader("a", parameters={"size": 2}, generation=2))
        made.close(3.0, 4.0)
        await made.applied(sequence)
        made.close(5.0)
        prices: list[str] = []
        while "5" not in prices:
            prices += [each.price for each in await made.signals("desk/a", 1)]
        # Ended between signal and position, the candle in hand is decided once more: by the new code.
        assert list(dict.fromkeys(prices)) == ["2", "3", "4", "5"]
        assert prices == sorted(prices)


async def test_a_removed_trader_s_ring_goes_when_it_is_empty() -> None:
    async with worker() as made:
        made.close(1.0)
        before = await settled(made, made.assign(trader("a"), trader("b")))
        made.close(2.0)
        await made.until(lambda status: status.traders["desk/a"].signals == 1)
        traders = await made.applied(made.assign(trader("b")))
        assert list(traders) == ["desk/b"]
        await gone({before["desk/a"]})
        ring = made.rings / ring_name("desk/a")
        assert ring.exists(), "a signal is in it that nobody has published"
        assert [each.price for each in made.take("desk/a")] == ["2"]
        await gone_file(made, ring)
        assert (made.rings / ring_name("desk/b")).exists()


async def gone_file(made: Worker, path: Path) -> None:
    await made.until(lambda status: not path.exists())


async def test_rings_of_traders_removed_while_no_supervisor_ran_go_when_they_are_empty() -> None:
    made = Worker()
    path = made.rings / ring_name("desk/gone")
    try:
        with SignalRing.create(str(path), trader="desk/gone") as ring:
            ring.push(b"left")
            await made.serve()
            await made.start()
            await made.applied(made.assign(trader("a")))
            assert path.exists(), "a signal is in it that nobody has published"
            ring.pending()
            ring.acknowledge(1)
        await gone_file(made, path)
        assert (made.rings / ring_name("desk/a")).exists()
    finally:
        await made.clean()


async def test_of_two_that_leave_by_the_same_name_the_second_waits_for_the_first(tmp_path: Path) -> None:
    """They have the same ring's path: the first must not remove what the second's successor makes there."""
    settings = SupervisorSettings(worker="w", shm_dir=str(tmp_path), rings_dir=str(tmp_path))
    supervisor = Supervisor(settings)
    ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    ended.set_result(None)
    path = tmp_path / "desk__a@1.ring"
    with SignalRing.create(str(path), trader="desk/a") as ring:
        ring.push(b"left")
        supervisor._let_go("desk/a@1", Leaving("desk/a@1", "first", str(path), ended))
        supervisor._let_go("desk/a@1", Leaving("desk/a@1", "second", str(tmp_path / "none"), ended))
        _, second = supervisor._leaving["desk/a@1"]
        done, _ = await asyncio.wait([second], timeout=0.2)
        assert not done, "the second left before the first"
        ring.pending()
        ring.acknowledge(1)
        await asyncio.wait_for(second, PATIENCE_S)
    assert not path.exists()


async def test_a_trader_removed_just_before_the_supervisor_stops_has_its_time_to_stop(tmp_path: Path) -> None:
    """The fork server's end would be that of its process, in the middle of whatever it does."""
    supervisor = Supervisor(SupervisorSettings(worker="w", shm_dir=str(tmp_path), rings_dir=str(tmp_path)))
    begun, stops, stopped = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def keep() -> None:
        try:
            begun.set()
            await asyncio.Event().wait()
        finally:
            stops.set()
            await stopped.wait()

    keeper = SimpleNamespace(spec=trader("a"), ring_path=str(tmp_path / "none"))
    key = keeper.spec.key
    supervisor._keepers[key] = cast(Keeper, keeper)
    kept = supervisor._tasks[key] = asyncio.create_task(keep())
    await begun.wait()
    supervisor._remove(key)
    stopping = asyncio.create_task(supervisor._stop_traders())
    await stops.wait()
    done, _ = await asyncio.wait([stopping], timeout=0.1)
    assert not done, "it did not wait for the process"
    stopped.set()
    await asyncio.wait_for(stopping, PATIENCE_S)
    assert kept.done()
    assert not supervisor._parting


async def test_a_trader_that_comes_back_meanwhile_keeps_its_ring() -> None:
    async with worker() as made:
        made.close(1.0)
        await made.applied(made.assign(trader("a"), trader("b")))
        made.close(2.0)
        await made.until(lambda status: status.traders["desk/a"].signals == 1)
        made.assign(trader("b"))
        await made.applied(made.assign(trader("a"), trader("b")))
        made.close(3.0)
        assert [each.price for each in await made.signals("desk/a", 2)] == ["2", "3"]


async def test_another_trader_of_the_same_name_begins_with_a_ring_of_its_own() -> None:
    async with worker() as made:
        made.close(1.0)
        await made.applied(made.assign(trader("a")))
        made.close(2.0)
        await made.signals("desk/a", 1)
        traders = await made.applied(made.assign(trader("a", uid="recreated")))
        assert traders["desk/a"].signals == 0, "counters start with the Trader"
        made.close(3.0)
        assert [each.price for each in await made.signals("desk/a", 1)] == ["3"]


async def test_a_trader_made_anew_while_no_supervisor_ran_begins_anew_when_the_earlier_ones_signals_are_out() -> None:
    async with worker() as made:
        made.close(1.0)
        await made.applied(made.assign(trader("a")))
        made.close(2.0)
        await made.until(lambda status: status.traders["desk/a"].signals == 1)
        assert await made.stop() == 0
        made.close(3.0)  # the earlier one would decide on this
        sequence = made.assign(trader("a", uid="recreated"))
        await made.start()
        await made.until(lambda status: status.traders.get("desk/a") == TraderStatus("Pending", "", "", 1, 1))
        assert [each.price for each in made.take("desk/a")] == ["2"], "nobody had published it"
        traders = await made.applied(sequence)
        assert traders["desk/a"].signals == 0, "counters start with the Trader"
        made.close(4.0)
        assert [each.price for each in await made.signals("desk/a", 1)] == ["4"]


async def test_a_suspended_trader_has_no_process_and_goes_on_later() -> None:
    async with worker() as made:
        made.close(1.0)
        before = await settled(made, made.assign(trader("a")))
        traders = await made.applied(made.assign(trader("a", mode="suspended", generation=2)))
        assert (traders["desk/a"].state, traders["desk/a"].pid) == ("Suspended", 0)
        await gone(set(before.values()))
        await made.applied(made.assign(trader("a", generation=3)))
        made.close(2.0)
        assert [each.price for each in await made.signals("desk/a", 1)] == ["2"]


@pytest.mark.parametrize(
    ("changes", "reason", "says"),
    [
        ({"strategy": "sma-crss"}, "UnknownStrategy", 'did you mean "sma-cross"'),
        ({"strategy": "sma-cross", "parameters": {"fast": 1}}, "BadParameter", "fast: must be at least 2, got 1"),
        ({"strategy": "sma-cross", "parameters": {"fast": 40}}, "BadParameter", "fast (40) must be below slow (30)"),
        ({"strategy": "sma-cross", "warmup": 5_000}, "BadParameter", "more than the segment keeps"),
        ({"source": "class Broken(:"}, "BadSource", "line 1"),
        ({"source": "import os\n\n1 / 0\n"}, "BadSource", "ZeroDivisionError"),
        ({"source": "raise SystemExit('no')\n"}, "BadSource", "SystemExit"),
        ({"source": "while True: pass"}, "Hang", "killed by SIGKILL (in a call"),
    ],
)
async def test_what_cannot_run_is_answered_with_a_reason(changes: dict[str, Any], reason: str, says: str) -> None:
    # Loading counts as a call: only who waits for the end of one that hangs can't give all of them the usual 10 s.
    async with worker(hang_timeout_ms=3_000 if reason == "Hang" else 10_000) as made:
        made.close(1.0)
        specs = [trader("good"), trader("bad", **changes)]
        await made.applied(made.assign(*specs))
        # A catalogue that is read just then has what is stalled tried once more.
        state = "Backoff" if reason == "Hang" else "Stalled"
        await made.states(bad=state)
        # The first that said so: one that hangs is started again after half a second, and hangs again.
        told = [status.traders for status in made.statuses if "desk/bad" in status.traders]
        traders = next(each for each in told if each["desk/bad"].state == state)
        bad = traders["desk/bad"]
        assert bad.reason == reason
        assert says in bad.message
        assert "\n" not in bad.message
        assert made.statuses[-1].traders["desk/good"].state in READY_STATES
        assert bad.restarts == (1 if reason == "Hang" else 0), "a stalled trader is not started again and again"


async def test_source_of_an_assignment_runs_without_any_file() -> None:
    source = (
        "from chandlery.workers.strategy import Strategy\n"
        "class Inline(Strategy):\n"
        "    def on_candle(self, ctx, candles):\n"
        "        ctx.sell('inline 1', rule='inline')\n"
    )
    async with worker(strategies_dir="") as made:
        made.close(1.0)
        await made.applied(made.assign(trader("a", "Inline", source=source)))
        made.close(2.0)
        (signal,) = await made.signals("desk/a", 1)
        assert (signal.action, signal.strategy) == ("sell", "inline")


async def test_a_trader_whose_series_is_missing_is_not_acknowledged_before_it_comes() -> None:
    async with worker() as made:
        made.close(1.0)
        first = made.assign(trader("a"))
        await made.applied(first)
        second = made.assign(trader("a"), trader("b", symbols=["ETH/USDT"]))
        status = await made.until(
            lambda status: "desk/b" in status.traders and "waits for series" in status.traders["desk/b"].message
        )
        assert status.sequence == first
        made.writer.add_series("ETH/USDT", "1s")
        await made.applied(second)


async def test_old_and_damaged_assignments_are_refused() -> None:
    async with worker() as made:
        made.close(1.0)
        await made.applied(made.assign(trader("a"), sequence=10))
        made.assign(sequence=9)
        made.assign(trader("b"), sequence=11, digest="0" * 16)
        traders = await made.applied(made.assign(trader("a"), trader("c"), sequence=12))
        assert set(traders) == {"desk/a", "desk/c"}
        assert not (made.rings / ring_name("desk/b")).exists()
        assert "older than the one held" in made.log()
        assert "its hash differs" in made.log()


async def test_each_assignment_and_each_attempt_is_a_line_in_the_log_with_its_revision_and_outcome() -> None:
    async with worker() as made:
        # Whoever is Stalled while the catalogue is read is tried once more then.
        await made.until(lambda status: bool(status.catalogue))
        made.close(1.0)
        first = await made.applied(made.assign(trader("a", generation=3), trader("b", strategy="no-such")))
        os.kill(first["desk/a"].pid, signal.SIGKILL)
        await made.until(lambda status: status.traders["desk/a"].pid not in (0, first["desk/a"].pid))
        await made.states(a="Active", b="Stalled")
        await made.applied(made.assign(trader("a", generation=4, parameters={"size": 2})))
        made.assign(sequence=1)
        await made.applied(made.assign(trader("a", generation=4, parameters={"size": 2}), sequence=3))
        lines = [msgspec.json.decode(line, type=dict[str, Any]) for line in made.log().splitlines()]

    def told(message: str, *names: str) -> list[tuple[Any, ...]]:
        return [tuple(line[name] for name in names) for line in lines if line["message"] == message]

    taken = told("assignment taken", "sequence", "hash")
    assert [sequence for sequence, _ in taken] == [1, 2, 3]
    applied = told("assignment applied", "sequence", "hash", "outcomes")
    assert [(sequence, content) for sequence, content, _ in applied] == taken
    (before, stalled), *after = [tuple(outcomes.values()) for _, _, outcomes in applied]
    assert (before in READY_STATES, stalled) == (True, "Stalled")
    assert all(state in READY_STATES for (state,) in after)
    assert told("assignment refused: older than the one held", "sequence", "held") == [(1, 2)]
    # An edit begins to count anew: the attempts are those of one specification.
    starts = told("trader started", "trader", "generation", "attempt")
    assert [start for name, *start in starts if name == "desk/a"] == [[3, 1], [3, 2], [4, 1]]
    ((name, generation, attempt, reason),) = told("trader ended", "trader", "generation", "attempt", "reason")
    assert (name, generation, attempt, bool(reason)) == ("desk/a", 3, 1, True)
    # Perhaps twice: the first catalogue has it tried again.
    assert set(told("trader stalled", "trader", "reason")) == {("desk/b", "UnknownStrategy")}


async def test_the_feed_may_go_and_come_back_with_another_segment() -> None:
    async with worker() as made:
        made.close(1.0)
        before = await settled(made, made.assign(trader("a")))
        made.close(2.0)
        await made.signals("desk/a", 1)
        made.hang_up()
        made.writer.close()
        made.writer = SegmentWriter.create(made.segment, rows=128, series=4)
        index = made.writer.add_series(BTC, "1s")
        made.writer.reset(index, 1)
        for at, price in enumerate((1.0, 2.0)):
            made.writer.append(index, at * STEP_MS, price, price, price, price, 1.0, 1, (0,) * 8)
        made.index = index
        after = await settled(made, made.assign(trader("a"), trader("b")))
        assert after["desk/a"] == before["desk/a"]
        made.close(3.0)
        assert [each.price for each in await made.signals("desk/a", 1)] == ["3"]


async def test_a_ring_that_the_feed_gives_up_is_made_anew() -> None:
    async with worker() as made:
        made.close(1.0)
        before = await settled(made, made.assign(trader("a"), trader("b")))
        with SignalRing.attach(str(made.rings / ring_name("desk/a"))) as old:
            made.replace_ring("desk/a")
            status = await made.until(lambda status: status.traders["desk/a"].pid not in (0, before["desk/a"]))
            assert status.traders["desk/b"].pid == before["desk/b"]
            await made.states(a="Active")
            assert old.replaced
        made.close(2.0)
        assert [each.price for each in await made.signals("desk/a", 1)] == ["2"]


async def test_a_truncated_ring_is_replaced_and_the_trader_comes_back() -> None:
    async with worker() as made:
        made.close(1.0)
        await made.applied(made.assign(trader("a"), trader("b")))
        with (made.rings / ring_name("desk/a")).open("r+b") as file:
            file.truncate(100)
        await made.until(lambda status: status.traders["desk/a"].restarts > 0)
        await made.states(a="Active", b="Active")
        made.close(2.0)
        assert len(await made.signals("desk/a", 1)) == 1


async def test_the_catalogue_is_reported_and_a_mended_file_is_tried_again() -> None:
    async with worker() as made:
        made.close(1.0)
        broken = made.strategies / "mended.py"
        broken.write_text("class Mended(:\n")
        status = await made.until(
            lambda status: any(each["name"] == "mended" and each.get("errors") for each in status.catalogue)
        )
        names = {each["name"] for each in status.catalogue}
        assert names >= {*SHIPPED, "buys", "raises"}
        made.assign(trader("a", "mended"))
        await made.states(a="Stalled")
        broken.write_text(
            "from chandlery.workers.strategy import Strategy\n"
            "class Mended(Strategy):\n    def on_candle(self, ctx, candles): ctx.buy('1')\n"
        )
        await made.states(a="Active")


async def test_without_a_feed_the_supervisor_waits_and_ends_in_order() -> None:
    made = Worker()
    try:
        await made.start()
        await made.serve()
        made.close(1.0)
        await made.applied(made.assign(trader("a")))
        assert await made.stop() == 0
    finally:
        await made.clean()


def test_bad_settings_end_with_code_2(tmp_path: Path) -> None:
    config = tmp_path / "supervisor.json"
    config.write_text('{"worker": 7}')
    command = [sys.executable, "-m", "chandlery.workers.supervisor", "--config", str(config)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 2
    assert "Expected `str`, got `int` - at `$.worker`" in run.stderr
