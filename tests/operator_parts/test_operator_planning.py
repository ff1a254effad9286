"""Planning one pool at a time: what it is given, what is remembered, and what leaves after a while."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import pytest
from tests.operator_parts.operator_bodies import feed_body, pool_body, trader_body

from chandlery.core.assignment import Assignment, encode
from chandlery.core.resources import MarketFeed
from chandlery.operator.cache import Cache
from chandlery.operator.planner import Delays, WorkerNow
from chandlery.operator.planning import MOST_PARAMETER_BYTES, Grace, Planned, PoolPlanner

CATALOGUE = [{"name": "sma-cross", "parameters": {"fast": {"type": "int", "default": 9}}}]
KEY = ("default", "quants")


class Plans:
    """Plans pools over one cache, and carries every plan out."""

    def __init__(self, delays: Delays | None = None) -> None:
        self.cache = Cache()
        self.planner = PoolPlanner(self.cache, delays)
        self.configmaps: dict[tuple[str, str], dict[str, str]] = {}
        self.workers: dict[tuple[str, str], dict[str, Assignment]] = {}

    def put(self, kind: str, *bodies: dict[str, Any]) -> None:
        for body in bodies:
            self.cache.put(kind, body)

    def plan(
        self,
        key: tuple[str, str] = KEY,
        catalogue: Collection[Mapping[str, Any]] | None = CATALOGUE,
        now_ms: int = 1_000,
        ready: bool = True,
        wall_ms: int = 0,
    ) -> Planned:
        now = {name: WorkerNow(one, ready, 0) for name, one in self.workers.get(key, {}).items()}
        made = self.planner.plan(
            key,
            now,
            configmaps=self.configmaps,
            namespaces={},
            catalogue=catalogue,
            now_ms=now_ms,
            wall_ms=wall_ms,
        )
        if made.pool is not None:
            self.workers[key] = dict(made.pool.workers)
        return made


def test_a_pool_is_planned_with_its_own_traders_alone() -> None:
    plans = Plans()
    plans.put("MarketFeed", feed_body())
    plans.put("TraderPool", pool_body(), pool_body("other"))
    plans.put("Trader", trader_body("one"), trader_body("two", in_pool="other"))
    made = plans.plan()
    assert set(made.verdicts) == {"default/one"}
    assert made.pool is not None
    assert list(made.pool.workers) == ["quants-0"]


def test_a_pool_that_is_not_there_has_verdicts_that_name_what_is_near() -> None:
    plans = Plans()
    plans.put("MarketFeed", feed_body())
    plans.put("TraderPool", pool_body())
    plans.put("Trader", trader_body(in_pool="quant"))
    made = plans.plan(("default", "quant"))
    assert made.pool is None
    assert made.verdicts["default/one"].reason == "UnknownPool"
    assert "quants" in made.verdicts["default/one"].message


def test_a_trader_that_changes_its_pool_counts_its_incarnations_on() -> None:
    plans = Plans()
    plans.put("MarketFeed", feed_body())
    plans.put("TraderPool", pool_body(), pool_body("other"))
    plans.put("Trader", trader_body(version=1))
    assert plans.plan().verdicts["default/one"].incarnation == 1
    plans.put("Trader", trader_body(version=2, generation=2, in_pool="other"))
    assert plans.plan().verdicts == {}
    assert plans.plan(("default", "other")).verdicts["default/one"].incarnation == 2


def moved_to_other() -> Plans:
    """Two planned pools of a feed, and a Trader that is the first's and has just been given to the other."""
    plans = Plans()
    plans.put("MarketFeed", feed_body())
    plans.put("TraderPool", pool_body(), pool_body("other"))
    plans.put("Trader", trader_body(version=1))
    plans.plan(wall_ms=7_000)
    plans.plan(("default", "other"), wall_ms=8_000)
    plans.put("Trader", trader_body(version=2, generation=2, in_pool="other"))
    return plans


@pytest.mark.parametrize("order", [(KEY, ("default", "other")), (("default", "other"), KEY)])
def test_a_trader_that_changes_its_pool_owns_what_it_owned_whichever_is_planned_first(
    order: tuple[tuple[str, str], ...],
) -> None:
    plans = moved_to_other()
    for wall_ms in (60_000, 70_000):
        for key in order:
            plans.plan(key, wall_ms=wall_ms)
        assert [one.traders for one in plans.workers[KEY].values()] == [[]]
        (one,) = plans.workers["default", "other"]["other-0"].traders
        assert (one.incarnation, one.since_ms) == (2, 7_000)


@pytest.mark.parametrize("away", [("default", "full"), ("default", "nowhere"), None])
def test_a_trader_that_comes_back_from_where_it_never_ran_owns_what_it_owned(away: tuple[str, str] | None) -> None:
    """Also when its pool was planned while it was away, and the other one not."""
    plans = Plans()
    plans.put("MarketFeed", feed_body())
    plans.put("TraderPool", pool_body(), pool_body("full", tradersPerWorker=1))
    plans.put("Trader", trader_body(version=1), trader_body("there", in_pool="full"))
    plans.plan(("default", "full"), wall_ms=6_000)
    plans.plan(wall_ms=7_000)
    plans.put("Trader", trader_body(version=2, generation=2, in_pool="full" if away is None else away[1]))
    plans.plan(wall_ms=60_000)
    if away is not None:
        assert plans.plan(away, wall_ms=60_000).verdicts["default/one"].worker is None
    plans.put("Trader", trader_body(version=3, generation=3))
    plans.plan(wall_ms=70_000)
    (one,) = plans.workers[KEY]["quants-0"].traders
    assert (one.incarnation, one.since_ms) == (2, 7_000)


def test_one_that_was_deleted_and_made_anew_owns_nothing_of_before() -> None:
    plans = Plans()
    plans.put("MarketFeed", feed_body())
    plans.put("TraderPool", pool_body())
    plans.put("Trader", trader_body(version=1, uid="first"))
    plans.plan(wall_ms=7_000)
    plans.cache.drop("first")
    plans.plan(wall_ms=60_000)
    plans.put("Trader", trader_body(version=2, uid="second"))
    plans.plan(wall_ms=70_000)
    (one,) = plans.workers[KEY]["quants-0"].traders
    assert one.since_ms == 70_000


@pytest.mark.parametrize("order", [(KEY, ("default", "other")), (("default", "other"), KEY)])
def test_a_planner_that_begins_knows_of_a_pool_change_by_what_the_other_pool_was_assigned(
    order: tuple[tuple[str, str], ...],
) -> None:
    plans = moved_to_other()
    plans.planner = PoolPlanner(plans.cache)
    plans.planner.adopt((key, one) for key, workers in plans.workers.items() for one in workers.values())
    for key in order:
        plans.plan(key, wall_ms=60_000)
    assert [one.traders for one in plans.workers[KEY].values()] == [[]]
    (one,) = plans.workers["default", "other"]["other-0"].traders
    assert (one.incarnation, one.since_ms) == (2, 7_000)


def test_surplus_of_one_pool_is_remembered_while_others_are_planned() -> None:
    plans = Plans(Delays(shrink_ms=10_000))
    plans.put("MarketFeed", feed_body())
    workers = {"min": 1, "max": 2}
    plans.put("TraderPool", pool_body(workers=workers, tradersPerWorker=1), pool_body("other"))
    plans.put("Trader", trader_body("one"), trader_body("two"))
    plans.plan()
    plans.cache.drop("Trader-default-two")
    assert plans.plan(now_ms=2_000).again_ms == 12_000
    plans.plan(("default", "other"), now_ms=3_000)
    made = plans.plan(now_ms=12_000)
    assert made.pool is not None
    assert list(made.pool.workers) == ["quants-0"]


def test_without_a_catalogue_strategies_are_not_judged_and_with_one_they_are() -> None:
    plans = Plans()
    plans.put("MarketFeed", feed_body())
    plans.put("TraderPool", pool_body())
    plans.put("Trader", trader_body(strategy={"name": "unheard-of"}))
    assert plans.plan(catalogue=None).verdicts["default/one"].runs_as_asked
    fresh = Plans()
    fresh.cache = plans.cache
    fresh.planner = PoolPlanner(plans.cache)
    assert fresh.plan().verdicts["default/one"].reason == "UnknownStrategy"


def test_parameters_that_would_fill_the_workers_configmap_are_refused() -> None:
    plans = Plans()
    plans.put("MarketFeed", feed_body())
    plans.put("TraderPool", pool_body())
    plans.put("Trader", trader_body(strategy={"name": "sma-cross", "parameters": {"fast": "x" * MOST_PARAMETER_BYTES}}))
    verdict = plans.plan(catalogue=None).verdicts["default/one"]
    assert (verdict.reason, verdict.worker) == ("BadParameter", None)


def test_a_feed_is_asked_for_what_all_its_pools_want_and_what_it_lists() -> None:
    plans = Plans()
    plans.put("MarketFeed", feed_body(intervals=["1h"]))
    plans.put("TraderPool", pool_body(), pool_body("other"))
    market = {"symbols": ["ETH/USDT"], "interval": "5m"}
    plans.put("Trader", trader_body("one"), trader_body("two", in_pool="other", market=market))
    plans.plan()
    plans.plan(("default", "other"))
    feed = MarketFeed.model_validate(feed_body(intervals=["1h"]))
    asked = plans.planner.asked_of(feed)
    assert (asked.symbols, asked.intervals) == (("BTC/USDT", "ETH/USDT"), ("1s", "5m", "1h"))
    plans.planner.forget(KEY)
    assert plans.planner.asked_of(feed).symbols == ("ETH/USDT",)


def test_a_symbol_that_nobody_asks_for_stays_for_its_grace_and_no_longer() -> None:
    grace, feed = Grace(300), ("default", "market")
    assert grace.with_leaving(feed, ["a", "b"], [], 0) == ["a", "b"]
    assert grace.with_leaving(feed, ["a"], ["a", "b"], 100) == ["a", "b"]
    assert grace.next_s(feed, ["a"], ["a", "b"]) == 300
    assert grace.with_leaving(feed, ["a"], ["a", "b"], 299) == ["a", "b"]
    assert grace.with_leaving(feed, ["a"], ["a", "b"], 300) == ["a"]
    assert grace.next_s(feed, ["a"], ["a"]) is None


def test_a_symbol_whose_grace_is_over_gets_no_other_while_it_is_still_seen_to_run() -> None:
    grace, feed = Grace(300), ("default", "market")
    for now_s, kept in ((0, ["a"]), (300, []), (301, []), (900, [])):
        assert grace.with_leaving(feed, [], ["a"], now_s) == kept
    assert grace.with_leaving(feed, [], [], 901) == []
    assert grace.with_leaving(feed, [], ["a"], 902) == ["a"], "it runs anew: somebody asked for it meanwhile"
    assert grace.with_leaving(feed, ["a"], ["a"], 1000) == ["a"]
    assert grace.with_leaving(feed, [], ["a"], 1299) == ["a"]


def test_what_runs_when_the_operator_starts_has_its_whole_grace() -> None:
    grace, feed = Grace(300), ("default", "market")
    assert grace.with_leaving(feed, [], ["old"], 1000) == ["old"]
    assert grace.with_leaving(feed, [], ["old"], 1299) == ["old"]
    assert grace.with_leaving(feed, [], ["old"], 1300) == []


def test_an_entry_of_the_catalogue_that_can_not_be_read_is_the_finding_of_who_names_it() -> None:
    plans = Plans()
    plans.put("MarketFeed", feed_body())
    plans.put("TraderPool", pool_body())
    plans.put("Trader", trader_body("one"), trader_body("two", strategy={"name": "odd"}))
    odd = {"name": "odd", "parameters": {"x": {"type": "unheard-of"}}}
    made = plans.plan(catalogue=[{"errors": ["without a name"]}, odd, *CATALOGUE])
    assert made.verdicts["default/one"].runs_as_asked
    assert (made.verdicts["default/two"].reason, made.verdicts["default/two"].worker) == ("BadStrategy", None)
    assert "odd" in made.verdicts["default/two"].message


def test_sources_that_fill_an_assignment_send_newcomers_elsewhere_and_then_let_them_wait() -> None:
    plans = Plans()
    plans.put("MarketFeed", feed_body())
    bounds: dict[str, Any] = {
        "workers": {"min": 1, "max": 2},
        "tradersPerWorker": 100,
        "allowConfigMapStrategies": True,
    }
    plans.put("TraderPool", pool_body(**bounds))
    source = {"configMapRef": {"name": "strategies", "key": "s.py"}}
    plans.configmaps = {("default", "strategies"): {"s.py": "#" * 64_000}}

    def add(*numbers: int) -> Planned:
        for number in numbers:
            plans.put("Trader", trader_body(f"t{number:02}", strategy={"name": "S", "source": source}))
        return plans.plan()

    before = add(*range(10, 20))
    made = add(*range(10))
    assert made.pool is not None
    assert before.pool is not None
    assert len(made.pool.workers) == 2
    # Who was there stays, whatever the newcomers are called.
    assert {made.verdicts[name].worker for name in before.verdicts} == {"quants-0"}
    made = add(*range(20, 40))
    assert made.pool is not None
    assert all(len(encode(one)) <= 900 * 1024 for one in made.pool.workers.values())
    waiting = [one for one in made.verdicts.values() if one.worker is None]
    assert len(waiting) == made.pool.pending == 40 - 2 * 14
    assert {one.reason for one in waiting} == {"PoolFull"}
    assert "900 KiB" in waiting[0].message
    assert made.pool.lacks == {"bytes"}
    assert plans.plan().verdicts == made.verdicts


def memory(pool: dict[str, Any], amount: str) -> Planned:
    plans = Plans()
    plans.put("MarketFeed", feed_body())
    plans.put("TraderPool", pool)
    plans.put("Trader", trader_body(resources={"memory": amount}))
    return plans.plan()


def test_a_trader_that_may_have_more_memory_than_its_container_is_told_both_fields() -> None:
    verdict = memory(pool_body(tradersPerWorker=2), "1Gi").verdicts["default/one"]
    assert (verdict.reason, verdict.worker) == ("BadParameter", None)
    assert "spec.resources.memory" in verdict.message
    assert "768Mi" in verdict.message, "what there is: two traders and a successor beside them"
    assert "spec.tradersPerWorker" in verdict.message


def test_the_traders_of_a_full_worker_stay_below_their_container_by_default() -> None:
    assert memory(pool_body(tradersPerWorker=1), "256Mi").verdicts["default/one"].reason == ""
    assert memory(pool_body(tradersPerWorker=2), "512Mi").verdicts["default/one"].reason == ""


def test_a_pool_whose_template_gives_more_or_no_limit_takes_the_trader() -> None:
    def template(limits: dict[str, Any]) -> dict[str, Any]:
        containers = [{"name": "traders", "resources": {"limits": limits}}]
        return pool_body(tradersPerWorker=2, podTemplate={"spec": {"containers": containers}})

    assert memory(template({"memory": "4Gi"}), "1Gi").verdicts["default/one"].reason == ""
    assert memory(template({"memory": None}), "1Gi").verdicts["default/one"].reason == ""
    assert memory(template({"memory": "512Mi"}), "512Mi").verdicts["default/one"].reason == "BadParameter"


def test_a_trader_whose_status_awaits_an_approval_waits_on_where_nothing_is_remembered() -> None:
    plans = Plans()
    plans.put("MarketFeed", feed_body())
    plans.put("TraderPool", pool_body())
    waits = {"type": "Ready", "status": "False", "reason": "AwaitingApproval", "message": "generation 2 waits"}
    waiting = {"observedGeneration": 2, "conditions": [waits]}
    plans.put(
        "Trader", {**trader_body("one", rollout="Manual"), "status": waiting}, trader_body("two", rollout="Manual")
    )
    made = plans.plan()
    assert (made.verdicts["default/one"].reason, made.verdicts["default/one"].worker) == ("AwaitingApproval", None)
    assert made.verdicts["default/two"].runs_as_asked
    assert plans.plan().verdicts == made.verdicts
