"""Of a pool and its Traders: what is told before what is written, once."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import pytest
from tests.operator_parts.operator_bodies import pool_body, trader_body
from tests.operator_parts.pools_bench import KEY, Bench, kept_in

from chandlery.core.assignment import TraderStatus, WorkerStatus, decode_assignment, unsound
from chandlery.core.resources import status as resource_status
from chandlery.operator.children.naming import Object
from chandlery.operator.children.workers import ASSIGNMENT_KEY
from chandlery.operator.conditions import State, kstatus
from chandlery.operator.events import Events
from chandlery.operator.kubernetes.kinds import CONFIG_MAP, TRADER
from chandlery.operator.pools import Pools
from chandlery.operator.statuses import Statuses


async def test_a_state_is_told_before_its_status_is_written_after_which_nobody_would(bench: Bench) -> None:
    bench.cache.put("TraderPool", pool_body(feed={"name": "absent"}))
    bench.cache.put("Trader", trader_body())
    await bench.pools.reconcile(KEY)
    log = bench.server.log
    for name in ("TraderPool/quants", "Trader/one"):
        assert log.index(f"Event/UnknownFeed of {name}") < log.index(name)


@pytest.mark.parametrize("figures", [{}, {"restarts": 7}])
async def test_an_operator_that_starts_asks_for_no_event_of_a_state_whose_status_stands(
    bench: Bench, figures: dict[str, int]
) -> None:
    bench.cache.put("TraderPool", pool_body(feed={"name": "absent"}))
    for number in range(20):
        bench.cache.put("Trader", trader_body(f"t{number}"))
    await bench.pools.reconcile(KEY)
    assert sum(line.startswith("Event/") for line in bench.server.log) == 21
    bench.server.log.clear()
    statuses = bench.server.statuses
    absent = pool_body(version=1000, feed={"name": "absent"})
    bench.cache.put("TraderPool", {**absent, "status": statuses["TraderPool/quants"]})
    for number in range(20):
        now = {**trader_body(f"t{number}", version=1000), "status": statuses[f"Trader/t{number}"] | figures}
        bench.cache.put("Trader", now)
    api: Any = bench.server
    late = Statuses(api, clock=iter(range(0, 10**9, 1000)).__next__)  # figures may be written, ten minutes later
    bench.pools = Pools(replace(bench.tools, statuses=late, events=Events(api, "another")))
    await bench.pools.reconcile(KEY)
    assert sorted(bench.server.log) == sorted(f"Trader/t{number}" for number in range(20 if figures else 0))


async def test_a_move_is_told_before_the_status_that_it_is_known_from_is_written(bench: Bench) -> None:
    bench.cache.put("TraderPool", pool_body())
    bench.cache.put("Trader", trader_body())
    (one,) = bench.planned_alone()
    moved = msgspec.structs.replace(one, incarnation=4)
    bench.server.there[CONFIG_MAP].objects["default", "quants-0-assignment"] = kept_in("quants", moved)
    before = {"incarnation": 3, "worker": "quants-7", "runningGeneration": 1}
    bench.cache.put("Trader", {**trader_body(version=2), "status": before})
    bench.pools.adopt()
    await bench.pools.reconcile(KEY)
    log = bench.server.log
    assert log.index("Event/Moved of Trader/one") < log.index("Trader/one")
    assert bench.server.statuses["Trader/one"]["worker"] == "quants-0"


async def test_an_assignment_that_somebody_spoilt_while_no_operator_ran_is_told_before_it_is_replaced(
    bench: Bench,
) -> None:
    bench.cache.put("TraderPool", pool_body())
    bench.cache.put("Trader", trader_body())
    spoilt = kept_in("quants")
    spoilt["data"] = {ASSIGNMENT_KEY: "{}"}
    bench.server.there[CONFIG_MAP].objects["default", "quants-0-assignment"] = spoilt
    bench.pools.adopt()
    await bench.pools.reconcile(KEY)
    await bench.workers.of(KEY)["quants-0"].delivery.kept()
    log = bench.server.log
    assert log.index("Event/AssignmentReplaced of TraderPool/quants") < log.index("ConfigMap/quants-0-assignment")


async def test_a_status_whose_event_is_not_taken_waits_for_it_but_not_for_ever(bench: Bench) -> None:
    now_s = 1000.0
    events = Events(bench.server, "test", clock=lambda: now_s)
    bench.pools._tools = replace(bench.tools, events=events)
    bench.server.takes_events = False
    bench.cache.put("TraderPool", pool_body(feed={"name": "absent"}))
    bench.cache.put("Trader", trader_body())
    for wait_s in (0.0, 9.0):
        now_s += wait_s
        bench.marked.clear()
        await bench.pools.reconcile(KEY)
        assert bench.server.statuses == {}
        assert ("pool", *KEY) in bench.marked, "and looked at again"
    now_s += 2.0
    await bench.pools.reconcile(KEY)
    assert bench.condition("TraderPool/quants")["reason"] == "UnknownFeed"
    assert bench.condition("Trader/one")["reason"] == "UnknownFeed"
    assert len(events) == 2, "to be told all the same"


async def test_of_a_strategy_that_fails_by_other_words_each_time_one_event_and_one_status_are_written(
    bench: Bench,
) -> None:
    api: Any = bench.server
    pools = Pools(replace(bench.tools, statuses=Statuses(api, clock=iter(range(100)).__next__)))
    bench.cache.put("Trader", trader_body())
    held = bench.cache.get("Trader", ("default", "one"))
    assert held is not None
    for price in range(10):
        state = State("Crashed", f"ValueError: price {price}", episode="incarnation 1")
        status = resource_status.TraderStatus(
            observed_generation=1, conditions=kstatus(state, 1, "2026-01-01T00:00:00Z")
        )
        await pools._write(TRADER, held, state, status, ("pool", *KEY))
    assert bench.server.log == ["Event/Crashed of Trader/one", "Trader/one"]


@pytest.mark.parametrize("what", ["deleted", "another's", "unsound"])
async def test_an_assignment_that_an_operator_before_kept_is_kept_again_when_somebody_changes_it(
    bench: Bench, what: str
) -> None:
    bench.cache.put("TraderPool", pool_body())
    bench.cache.put("Trader", trader_body())
    (one,) = bench.planned_alone()
    before = kept_in("quants", one)
    names = ("default", "quants-0-assignment")
    there = bench.server.there[CONFIG_MAP].objects
    there[names] = before
    noted = bench.tools.children.changed(CONFIG_MAP, bench.workers.assignment_changed)
    noted(names, None, before)
    bench.pools.adopt()
    await bench.pools.reconcile(KEY)
    assert "ConfigMap/quants-0-assignment" not in bench.server.log, "nothing of it is new"
    now: Object | None = None
    if what == "deleted":
        del there[names]
    else:
        now = kept_in("quants") if what == "another's" else {**before, "data": {ASSIGNMENT_KEY: "{}"}}
        now["metadata"] = {**before["metadata"], "resourceVersion": "8"}
        there[names] = now
    noted(names, before, now)
    await bench.workers.of(KEY)["quants-0"].delivery.kept()
    kept = decode_assignment(there[names]["data"][ASSIGNMENT_KEY])
    assert [each.trader for each in kept.traders] == ["default/one"]
    assert unsound(kept, "quants-0") == ""
    assert kept.sequence == (4 if what == "another's" else 3), "above what stood there"


async def test_an_edit_to_a_symbol_that_the_exchange_lacks_leaves_the_trader_ready_and_says_so(bench: Bench) -> None:
    bench.cache.put("TraderPool", pool_body())
    bench.cache.put("Trader", trader_body())
    await bench.pools.reconcile(KEY)
    link = bench.workers.of(KEY)["quants-0"]
    bench.pools._began_s = float("-inf")  # long since: no catalogue is waited for
    link._pod_ready = True
    told = {"default/one": TraderStatus("Active", generation=1, incarnation=1)}
    link.status = WorkerStatus("quants-0", 1, 1, link.delivery.assignment.hash, 1, True, told, [], {})
    market = {"symbols": ["LOST/USDT"], "interval": "1s"}
    bench.cache.put("Trader", trader_body(version=2, generation=2, market=market))
    await bench.pools.reconcile(KEY)
    assert [one.incarnation for one in link.delivery.assignment.traders] == [1, 2]
    bench.unknown = ["LOST/USDT"]
    for _ in range(2):
        await bench.pools.reconcile(KEY)
        assert [one.incarnation for one in link.delivery.assignment.traders] == [1]
        assert bench.planner.asked_of(bench.feed()).symbols == ("BTC/USDT", "LOST/USDT")
        ready, stalled = bench.condition("Trader/one"), bench.condition("Trader/one", "Stalled")
        assert (ready["status"], ready["reason"]) == ("True", "UnknownSymbol")
        assert (stalled["status"], stalled["reason"]) == ("True", "UnknownSymbol")
        assert ready["message"] == "the feed's source has no LOST/USDT: mend spec.market (generation 1 stays)"
        assert bench.server.statuses["Trader/one"]["runningGeneration"] == 1


async def test_a_trader_that_never_had_its_symbol_is_not_ready_and_the_symbol_stays_asked_for(bench: Bench) -> None:
    bench.cache.put("TraderPool", pool_body())
    bench.cache.put("Trader", trader_body())
    bench.unknown = ["BTC/USDT"]
    await bench.pools.reconcile(KEY)
    ready = bench.condition("Trader/one")
    assert (ready["status"], ready["reason"]) == ("False", "UnknownSymbol")
    assert bench.planner.asked_of(bench.feed()).symbols == ("BTC/USDT",)
