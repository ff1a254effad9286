"""What becomes of what runs where the operator starts and can't read its pool or feed: it goes on, and is told as it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from tests.operator_parts.operator_bodies import feed_body, pool_body, trader_body
from tests.operator_parts.pools_bench import KEY, Bench, kept_in

from chandlery.core.assignment import TraderAssignment, TraderState, TraderStatus, WorkerStatus
from chandlery.operator.children.workers import ASSIGNMENT_KEY
from chandlery.operator.kubernetes.kinds import CONFIG_MAP
from chandlery.operator.workerlink import WorkerLink

END_MS = 60_000


def pool(bench: Bench) -> None:
    bench.cache.drop("TraderPool-default-quants")
    bench.cache.put("TraderPool", pool_body(version=2, workers=7))


def feed(bench: Bench) -> None:
    bench.cache.drop("MarketFeed-default-market")
    bench.cache.put("MarketFeed", feed_body(uid="later", version=2, symbols=7))


unread = pytest.mark.parametrize("unread", [pool, feed])


def keep(bench: Bench, *traders: TraderAssignment, number: int = 0) -> None:
    """Have this be what an operator before this one left of a worker."""
    item = kept_in("quants", *traders, number=number)
    bench.server.there[CONFIG_MAP].objects["default", f"quants-{number}-assignment"] = item


def change(text: str, bench: Bench) -> None:
    """Somebody else changes what is kept of the first worker, so that nobody may go by it."""
    data = bench.server.there[CONFIG_MAP].objects["default", "quants-0-assignment"]["data"]
    data[ASSIGNMENT_KEY] = data[ASSIGNMENT_KEY].replace('"uid":"', f'"uid":"{text}')


def start(bench: Bench, unread: Callable[[Bench], None]) -> WorkerLink:
    """Start the operator, which can't read something; returns the first worker's link."""
    unread(bench)
    bench.pools.adopt()
    bench.pools._began_s = float("-inf")  # long since: no catalogue is waited for
    return bench.workers.of(KEY)["quants-0"]


def tell(link: WorkerLink, *traders: TraderStatus) -> None:
    """Have a worker tell of its only Trader's incarnations, lowest first."""
    told = [{"default/one": one} for one in traders]
    now = link.delivery.assignment
    link._pod_ready = True
    link.status = WorkerStatus(link.name, 1, now.sequence, now.hash, now.sequence, True, told[0], [], {}, *told[1:])


def keep_what_is_unsound(bench: Bench) -> None:
    """A pool with one Trader, and an assignment of its worker that nobody can go by."""
    bench.cache.put("TraderPool", pool_body())
    bench.cache.put("Trader", trader_body("one"))
    keep(bench, *bench.planned_alone())
    change("another", bench)


def assigned(link: WorkerLink) -> list[tuple[int, str, int | None]]:
    return [(one.incarnation, one.mode, one.until_ms) for one in link.delivery.assignment.traders]


@unread
async def test_a_worker_of_which_nothing_sound_is_kept_is_told_nothing_as_long_as_nobody_can_tell_what(
    bench: Bench, unread: Callable[[Bench], None]
) -> None:
    keep_what_is_unsound(bench)
    link = start(bench, unread)
    for _ in range(2):
        await bench.pools.reconcile(KEY)
    assert link.delivery.assignment.sequence == 0, "nothing is told"
    assert bench.server.statuses["TraderPool/quants"]["workers"] == 1
    assert ("quants", "AssignmentReplaced") in bench.server.events
    if unread is pool:
        assert bench.planner.asked_of(bench.feed()).symbols == ("BTC/USDT",), "any of the pool's Traders may run there"
    bench.cache.put("MarketFeed", feed_body(uid="later", version=3, generation=2))
    bench.cache.put("TraderPool", pool_body(version=3, generation=2))
    await bench.pools.reconcile(KEY)
    assert (link.delivery.assignment.sequence, len(link.delivery.assignment.traders)) == (4, 1)


@unread
async def test_a_worker_of_which_nothing_sound_is_kept_is_told_to_stop_all_where_none_stays(
    bench: Bench, unread: Callable[[Bench], None]
) -> None:
    keep_what_is_unsound(bench)
    bench.cache.put("Trader", trader_body("one", version=2, generation=2, suspend=True))
    link = start(bench, unread)
    await bench.pools.reconcile(KEY)
    assert (link.delivery.assignment.sequence, link.delivery.assignment.traders) == (4, [])


def edited(bench: Bench) -> tuple[TraderAssignment, TraderAssignment]:
    """A Trader that is edited while it runs: what was told to stop at a candle, and what stands by to follow."""
    bench.cache.put("TraderPool", pool_body())
    bench.cache.put("Trader", trader_body("one"))
    (one,) = bench.planned_alone()
    strategy = {"name": one.strategy, "parameters": {"fast": 9}}
    bench.cache.put("Trader", trader_body("one", version=2, generation=2, strategy=strategy))
    old = msgspec.structs.replace(one, incarnation=4, since_ms=7_000, until_ms=END_MS)
    return old, msgspec.structs.replace(one, incarnation=5, mode="standby", parameters={"fast": 9}, generation=2)


def told_of_old(state: TraderState, until_ms: int | None = END_MS) -> TraderStatus:
    return TraderStatus(state, generation=1, incarnation=4, last_open_time_ms=END_MS - 1_000, until_ms=until_ms)


@unread
@pytest.mark.parametrize("apart", [False, True], ids=["in one worker", "in two"])
async def test_what_was_told_to_hand_over_decides_on_and_what_stood_by_goes(
    bench: Bench, unread: Callable[[Bench], None], apart: bool
) -> None:
    old, new = edited(bench)
    if apart:
        keep(bench, old)
        keep(bench, new, number=1)
    else:
        keep(bench, old, new)
    link = start(bench, unread)
    tell(link, told_of_old("Retired"), TraderStatus("Warm", generation=2, incarnation=5))
    for _ in range(3):
        await bench.pools.reconcile(KEY)
    assert {name: assigned(one) for name, one in bench.workers.of(KEY).items() if assigned(one)} == {
        "quants-0": [(4, "active", None)]
    }
    assert link.delivery.assignment.sequence == 4, "told once"
    status = bench.server.statuses["Trader/one"]
    assert (status["incarnation"], status["runningGeneration"]) == (4, 1)
    bench.cache.put("MarketFeed", feed_body(uid="later", version=3, generation=2))
    bench.cache.put("TraderPool", pool_body(version=3, generation=2))
    await bench.pools.reconcile(KEY)
    assert (6, "standby", None) in assigned(link), "its change begins anew, under another number"


@unread
@pytest.mark.parametrize("told", ["Retired", "Active"])
async def test_what_has_taken_over_decides_on_and_is_told_and_the_one_before_goes_once_it_is_through(
    bench: Bench, unread: Callable[[Bench], None], told: TraderState
) -> None:
    old, new = edited(bench)
    new = msgspec.structs.replace(new, mode="active", from_ms=END_MS, since_ms=END_MS)
    keep(bench, old, new)
    link = start(bench, unread)
    tell(link, told_of_old(told), TraderStatus("Active", generation=2, incarnation=5))
    for _ in range(2):
        await bench.pools.reconcile(KEY)
    decides = (5, "active", None)
    assert assigned(link) == ([decides] if told == "Retired" else [(4, "active", END_MS), decides])
    status = bench.server.statuses["Trader/one"]
    assert (status["incarnation"], status["runningGeneration"]) == (5, 2)
    assert bench.condition("Trader/one")["message"].endswith(" (generation 2 stays)")


@unread
@pytest.mark.parametrize("what", ["an end of before", "an end that was moved"])
async def test_one_that_retired_at_another_end_than_its_own_stays(
    bench: Bench, unread: Callable[[Bench], None], what: str
) -> None:
    old, new = edited(bench)
    from_ms = END_MS if what == "an end of before" else END_MS + 1_000
    keep(bench, old, msgspec.structs.replace(new, mode="active", from_ms=from_ms, since_ms=from_ms))
    link = start(bench, unread)
    tell(link, told_of_old("Retired", END_MS - 1_000 if what == "an end of before" else END_MS))
    await bench.pools.reconcile(KEY)
    assert assigned(link) == [(4, "active", END_MS), (5, "active", None)]


@unread
async def test_one_that_was_replaced_at_once_goes_where_only_its_successor_was_kept(
    bench: Bench, unread: Callable[[Bench], None]
) -> None:
    old, new = edited(bench)
    keep(bench, msgspec.structs.replace(old, until_ms=None))
    keep(bench, msgspec.structs.replace(new, mode="active"), number=1)
    link = start(bench, unread)
    await bench.pools.reconcile(KEY)
    assert assigned(link) == []
    assert assigned(bench.workers.of(KEY)["quants-1"]) == [(5, "active", None)]


def unread_trader(**spec: Any) -> dict[str, Any]:
    """A Trader that can't be read: it is of an interval of another version."""
    market = {"symbols": ["BTC/USDT"], "interval": "1x"}
    return trader_body("one", **{"version": 3, "generation": 3, "market": market, **spec})


def start_without_reading_the_trader(bench: Bench, *kept: TraderAssignment, **spec: Any) -> WorkerLink:
    """Start the operator, which can't read a Trader of which its worker has this."""
    keep(bench, *kept)
    bench.cache.drop("Trader-default-one")
    bench.cache.put("Trader", unread_trader(**spec))
    return start(bench, lambda _: None)


async def test_a_trader_that_can_not_be_read_runs_on_and_is_told_so(bench: Bench) -> None:
    bench.cache.put("TraderPool", pool_body())
    bench.cache.put("Trader", trader_body("one", strategy={"name": "sma-cross", "parameters": {"fast": 9}}))
    (one,) = (msgspec.structs.replace(each, incarnation=4) for each in bench.planned_alone())
    link = start_without_reading_the_trader(bench, one)
    tell(link, TraderStatus("Active", generation=1, incarnation=4))
    for _ in range(2):
        await bench.pools.reconcile(KEY)
    assert (link.delivery.assignment.sequence, link.delivery.assignment.traders) == (3, [one]), "nothing of it is new"
    said, status = bench.condition("Trader/one"), bench.server.statuses["Trader/one"]
    assert (said["status"], said["reason"]) == ("True", "BadManifest")
    assert said["message"].startswith("spec.market.interval: ")
    assert said["message"].endswith(" (generation 1 stays)")
    assert bench.condition("Trader/one", "Stalled")["status"] == "True"
    assert (status["worker"], status["runningGeneration"], status["observedGeneration"]) == ("quants-0", 1, 3)
    bench.cache.put("Trader", trader_body("one", version=4, generation=4, strategy={"name": "sma-cross"}))
    await bench.pools.reconcile(KEY)
    assert assigned(link) == [(4, "active", None), (5, "standby", None)], "once mended it is a change like any other"


WHOSE = {"pool suspended": "of its TraderPool default/quants is true"}
STOPS = ["deleted", "made anew", "suspended", "suspended later", "in another pool", "pool suspended", "no sources"]


@pytest.mark.parametrize("what", STOPS)
async def test_a_trader_that_can_not_be_read_stops_for_what_stops_any(bench: Bench, what: str) -> None:
    bench.cache.put("TraderPool", pool_body())
    bench.cache.put("TraderPool", pool_body("other"))
    bench.cache.put("Trader", trader_body("one"))
    (one,) = bench.planned_alone()
    kept = msgspec.structs.replace(one, source="#" if what == "no sources" else None)
    said: dict[str, dict[str, Any]] = {"suspended": {"suspend": True}, "in another pool": {"in_pool": "other"}}
    link = start_without_reading_the_trader(bench, kept, **said.get(what, {}))
    if what in ("deleted", "made anew"):
        bench.cache.drop("Trader-default-one")
    if what == "made anew":
        bench.cache.put("Trader", {**trader_body("one", uid="another", version=4), "spec": unread_trader()["spec"]})
    elif what == "suspended later":
        bench.cache.put("Trader", unread_trader(version=4, generation=4, suspend=True))
    elif what == "pool suspended":
        bench.cache.put("TraderPool", pool_body(version=4, generation=2, suspend=True))
    for name in ("quants", "other"):
        await bench.pools.reconcile(("default", name))
    assert [one.mode for one in link.delivery.assignment.traders] == ["suspended"] * ("suspended" in what)
    if what == "no sources":
        said_now = bench.condition("Trader/one")
        assert (said_now["status"], said_now["reason"]) == ("False", "NotAllowed")
        assert "; besides, it can't be read: spec.market.interval: " in said_now["message"]
    elif "suspended" in what:
        assert bench.condition("Trader/one")["message"].endswith(
            "decides nothing: spec.suspend " + WHOSE.get(what, "is true")
        )


async def test_a_trader_that_can_not_be_read_is_resumed_with_its_pool_alone(bench: Bench) -> None:
    bench.cache.put("TraderPool", pool_body(suspend=True))
    bench.cache.put("Trader", trader_body("one"))
    (one,) = bench.planned_alone()
    assert one.mode == "suspended"
    link = start_without_reading_the_trader(bench, one)
    await bench.pools.reconcile(KEY)
    assert assigned(link)[-1][1] == "suspended"
    bench.cache.put("TraderPool", pool_body(version=5, generation=2))
    await bench.pools.reconcile(KEY)
    assert assigned(link)[-1][1] == "active", "its own suspend is what it says, not what its pool had made of it"


async def test_a_trader_of_which_nobody_here_knows_what_it_runs_on_goes_and_the_others_stay(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.cache.put("TraderPool", pool_body())
    for name in ("one", "two"):
        bench.cache.put("Trader", trader_body(name))
    one, two = bench.planned_alone()
    link = start_without_reading_the_trader(bench, msgspec.structs.replace(one, interval="1x"), two)
    told = [vars(line)["trader"] for line in caplog.records if "doesn't know" in line.message]
    assert told == ["default/one@1"]
    await bench.pools.reconcile(KEY)
    assert [each.trader for each in link.delivery.assignment.traders] == ["default/two"]
    assert bench.condition("Trader/one")["reason"] == "BadManifest"


async def test_a_trader_that_was_mended_begins_anew_where_nobody_here_knows_what_its_version_before_runs_on(
    bench: Bench,
) -> None:
    bench.cache.put("TraderPool", pool_body())
    bench.cache.put("Trader", trader_body("one"))
    (one,) = bench.planned_alone()
    keep(bench, msgspec.structs.replace(one, interval="1x", incarnation=4))
    link = start(bench, lambda _: None)
    await bench.pools.reconcile(KEY)
    assert assigned(link) == [(5, "active", None)]


async def test_in_a_pool_that_can_not_be_read_nobody_starves_for_one_of_which_nobody_knows_what_it_runs_on(
    bench: Bench,
) -> None:
    bench.cache.put("TraderPool", pool_body())
    for name in ("one", "two"):
        bench.cache.put("Trader", trader_body(name))
    one, two = bench.planned_alone()
    keep(bench, msgspec.structs.replace(one, interval="1x"), two)
    start(bench, pool)
    await bench.pools.reconcile(KEY)
    asked = bench.planner.asked_of(bench.feed())
    assert (asked.symbols, asked.intervals) == (("BTC/USDT",), ("1s",))


async def test_a_pool_that_never_could_be_read_stops_all_that_runs_in_it_when_it_is_suspended(bench: Bench) -> None:
    bench.cache.put("TraderPool", pool_body())
    bench.cache.put("Trader", trader_body("one"))
    keep(bench, *bench.planned_alone())
    link = start(bench, pool)
    await bench.pools.reconcile(KEY)
    assert assigned(link) == [(1, "active", None)]
    bench.cache.put("TraderPool", pool_body(version=3, generation=2, workers=7, suspend=True))
    await bench.pools.reconcile(KEY)
    assert assigned(link) == []


async def test_nobody_is_told_of_a_config_map_that_a_trader_that_can_not_be_read_does_not_name(bench: Bench) -> None:
    bench.cache.put("TraderPool", pool_body(allowConfigMapStrategies=True))
    bench.cache.put("Trader", trader_body("one"))
    kept = msgspec.structs.replace(bench.planned_alone()[0], source="#")
    link = start_without_reading_the_trader(bench, kept, suspend=True)
    await bench.pools.reconcile(KEY)
    assert [one.mode for one in link.delivery.assignment.traders] == ["suspended"]
    end = " (generation 1 stays); meanwhile it decides nothing: spec.suspend is true"
    assert bench.condition("Trader/one")["message"].endswith(end)
    bench.cache.drop("MarketFeed-default-market")
    await bench.pools.reconcile(KEY)
    bench.cache.put("MarketFeed", feed_body(uid="later", version=5))
    await bench.pools.reconcile(KEY)
    assert bench.condition("Trader/one")["message"].startswith("spec.market.interval: ")


async def test_a_trader_that_can_not_be_read_and_has_lost_its_place_is_told_so(bench: Bench) -> None:
    bench.cache.put("TraderPool", pool_body())
    bench.cache.put("Trader", trader_body("one"))
    link = start_without_reading_the_trader(bench, *bench.planned_alone())
    bench.cache.put("TraderPool", pool_body(version=4, generation=2, allowedTraders={"namespaces": {"from": "All"}}))
    bench.cache.drop("MarketFeed-default-market")
    await bench.pools.reconcile(KEY)
    assert assigned(link) == []
    said = bench.condition("Trader/one")
    assert (said["status"], said["reason"]) == ("False", "UnknownFeed")
    bench.cache.put("MarketFeed", feed_body(uid="later", version=5))
    await bench.pools.reconcile(KEY)
    assert bench.condition("Trader/one")["reason"] == "BadManifest"
    assert assigned(link) == [], "of what has stopped nobody knows enough to begin it"


async def test_a_trader_that_can_not_be_read_amid_a_change_goes_on_with_the_change(bench: Bench) -> None:
    old, new = edited(bench)
    link = start_without_reading_the_trader(bench, msgspec.structs.replace(old, until_ms=None), new)
    tell(link, TraderStatus("Active", generation=1, incarnation=4), TraderStatus("Ready", generation=2, incarnation=5))
    await bench.pools.reconcile(KEY)
    assert assigned(link) == [(4, "active", None), (5, "standby", None)]


async def test_a_trader_that_could_be_read_is_told_like_one_that_could_not(bench: Bench) -> None:
    bench.cache.put("TraderPool", pool_body())
    bench.cache.put("Trader", trader_body("one"))
    await bench.pools.reconcile(KEY)
    bench.pools._began_s = float("-inf")
    link = bench.workers.of(KEY)["quants-0"]
    tell(link, TraderStatus("Active", generation=1, incarnation=1))
    bench.cache.put("Trader", unread_trader())
    for _ in range(2):
        await bench.pools.reconcile(KEY)
    said = bench.condition("Trader/one")
    assert (said["status"], said["reason"]) == ("True", "BadManifest")
    assert said["message"].endswith(" (generation 1 stays)")
    bench.cache.put("TraderPool", pool_body(version=2, generation=2, tiers=[{"name": "gold"}]))
    await bench.pools.reconcile(KEY)
    assert bench.condition("Trader/one") == said, "what the version before lacks now is not what is to be mended"
    bench.cache.put("Trader", trader_body("never", market={"symbols": ["BTC/USDT"], "interval": "1x"}))
    await bench.pools.reconcile(KEY)
    never = bench.condition("Trader/never")
    assert (never["status"], never["reason"]) == ("False", "BadManifest")


async def test_a_version_that_could_be_read_comes_back_though_the_next_one_can_not(bench: Bench) -> None:
    bench.cache.put("TraderPool", pool_body())
    bench.cache.put("Trader", trader_body("one"))
    bench.cache.put("Trader", unread_trader())
    await bench.pools.reconcile(KEY)
    link = bench.workers.of(KEY)["quants-0"]
    assert assigned(link) == [(1, "active", None)]
    bench.cache.drop("MarketFeed-default-market")
    await bench.pools.reconcile(KEY)
    assert assigned(link) == []
    bench.cache.put("MarketFeed", feed_body(uid="later", version=5))
    await bench.pools.reconcile(KEY)
    assert assigned(link) == [(2, "active", None)]
    bench.cache.put("Trader", unread_trader(version=4, generation=4, suspend=True))
    await bench.pools.reconcile(KEY)
    assert assigned(link) == [(3, "suspended", None)], "whoever suspends is heard, whatever else stands there"
    said = bench.condition("Trader/one")
    assert (said["status"], said["reason"]) == ("False", "BadManifest")
    assert said["message"].endswith(" (generation 1 stays); meanwhile it decides nothing: spec.suspend is true")
