"""The planner's rules, one by one."""

from __future__ import annotations

import pytest
from tests.planner.planner_worlds import World, desired, feed, placed, pool, trader

from chandlery.core.assignment import SeriesRef, TraderAssignment
from chandlery.core.manifests import Problem
from chandlery.core.resources import APPROVE_ANNOTATION, MAX_SOURCE_BYTES, Trader, TraderPool
from chandlery.core.resources.status import MAX_MESSAGE_CHARS
from chandlery.operator.planner import Plan
from chandlery.operator.planner_homes import pool_full_message

POOL = ("default", "pool")


def assignment_of(result: Plan, name: str) -> TraderAssignment:
    found = [
        one
        for pool_plan in result.pools.values()
        for assignment in pool_plan.workers.values()
        for one in assignment.traders
        if one.trader == f"default/{name}"
    ]
    assert len(found) == 1, f"{name} is in {len(found)} workers"
    return found[0]


def sequences(result: Plan) -> dict[str, int]:
    return {name: one.sequence for each in result.pools.values() for name, one in each.workers.items()}


def some(*names: str) -> list[Trader]:
    return [trader(name) for name in names]


def test_new_traders_fill_the_first_worker_with_room() -> None:
    world = World()
    small = pool(most=3, per_worker=2)
    assert placed(world.step(desired(feed(), small, *some("a", "b", "c")))) == {"pool-0": ["a", "b"], "pool-1": ["c"]}
    assert placed(world.step(desired(feed(), small, *some("b", "c")))) == {"pool-0": ["b"], "pool-1": ["c"]}
    after = world.step(desired(feed(), small, *some("b", "c", "d")))
    assert placed(after) == {"pool-0": ["b", "d"], "pool-1": ["c"]}


def test_only_the_changed_workers_sequence_grows() -> None:
    world = World()
    small = pool(most=2, per_worker=1)
    first = world.step(desired(feed(), small, *some("a", "b")))
    changed = [trader("a"), trader("b", parameters={"fast": 3})]
    second = world.step(desired(feed(), small, *changed))
    assert sequences(first) == {"pool-0": 1, "pool-1": 1}
    assert sequences(second) == {"pool-0": 1, "pool-1": 2}
    assert assignment_of(second, "b").incarnation == 2
    assert assignment_of(second, "b").generation == 2
    assert assignment_of(second, "a").incarnation == 1


def test_a_generation_that_changes_no_content_restarts_nothing() -> None:
    world = World()
    world.step(desired(feed(), pool(), trader("a", metadata={"generation": 4})))
    after = world.step(desired(feed(), pool(), trader("a", metadata={"generation": 5}, rollout="Manual")))
    assert (assignment_of(after, "a").generation, assignment_of(after, "a").incarnation) == (5, 1)
    assert sequences(after) == {"pool-0": 2}


def test_a_full_pool_says_which_field_to_raise() -> None:
    result = World().step(desired(feed(), pool(most=2, per_worker=1), *some("a", "b", "c")))
    verdict = result.verdicts["default/c"]
    assert (verdict.worker, verdict.reason) == (None, "PoolFull")
    assert "spec.workers.max" in verdict.message
    assert (result.pools[POOL].capacity, result.pools[POOL].used, result.pools[POOL].pending) == (2, 2, 1)


def test_a_trader_with_more_series_than_a_segment_holds_waits_and_makes_no_worker() -> None:
    greedy = trader("greedy", symbols=["BTC/USDT", "ETH/USDT", "SOL/USDT"])
    result = World().step(desired(feed(), pool(most=3, series=2), greedy))
    assert result.verdicts["default/greedy"].reason == "PoolFull"
    assert "spec.segment.series" in result.verdicts["default/greedy"].message
    assert placed(result) == {"pool-0": []}
    assert result.pools[POOL].lacks == {"series"}


def test_a_pool_names_each_field_that_helps_those_of_its_traders_that_wait_and_no_other() -> None:
    world = World()
    greedy = trader("greedy", symbols=["BTC/USDT", "ETH/USDT", "SOL/USDT"])
    made = [
        world.step(desired(feed(), pool(series=2, per_worker=1), *traders)).pools[POOL]
        for traders in ([trader("a")], [trader("a"), greedy], [trader("a"), trader("b"), greedy], some("a", "b"))
    ]
    assert [one.lacks for one in made] == [set(), {"series"}, {"room", "series"}, {"room"}]
    said = [pool_full_message(one.lacks) for one in made]
    assert said[0] == ""
    assert [("spec.workers.max" in one, "more series than" in one) for one in said[1:]] == [
        (False, True),
        (True, True),
        (True, False),
    ]
    crowded = pool_full_message({"bytes"})
    assert "900 KiB" in crowded
    assert "into the image" in crowded
    assert "spec.segment.series" not in crowded


def test_workers_share_series_so_many_traders_on_one_symbol_need_one() -> None:
    result = World().step(desired(feed(), pool(most=3, series=1), *some("a", "b", "c")))
    assert placed(result) == {"pool-0": ["a", "b", "c"]}


def test_min_and_spare_workers_are_there_before_any_trader() -> None:
    world = World()
    roomy = pool(least=1, most=4, spare=1, per_worker=1)
    assert placed(world.step(desired(feed(), roomy))) == {"pool-0": []}
    assert placed(world.step(desired(feed(), roomy, *some("a")))) == {"pool-0": ["a"], "pool-1": []}
    assert placed(world.step(desired(feed(), pool(least=0, most=4)))) != {}, "workers go after a delay only"


def test_an_unneeded_worker_goes_after_the_delay_and_its_traders_move() -> None:
    world = World()
    small = pool(most=2, per_worker=2)
    world.step(desired(feed(), small, *some("a", "b", "c")))
    result = world.step(desired(feed(), small, *some("a", "c")))
    assert placed(result) == {"pool-0": ["a"], "pool-1": ["c"]}
    assert result.plan_again_ms == world.now_ms + world.delays.shrink_ms
    world.now_ms += world.delays.shrink_ms - 1
    assert placed(world.step(desired(feed(), small, *some("a", "c")))) == {"pool-0": ["a"], "pool-1": ["c"]}
    world.now_ms += 1
    result = world.step(desired(feed(), small, *some("a", "c")))
    assert placed(result) == {"pool-0": ["a", "c"]}
    assert assignment_of(result, "c").incarnation == 2


def test_a_worker_needed_again_before_the_delay_stays() -> None:
    world = World()
    small = pool(most=2, per_worker=1)
    world.step(desired(feed(), small, *some("a", "b")))
    world.step(desired(feed(), small, *some("a")))
    world.now_ms += world.delays.shrink_ms - 1
    world.step(desired(feed(), small, *some("a", "c")))
    world.now_ms += 1
    world.step(desired(feed(), small, *some("a")))
    world.now_ms += world.delays.shrink_ms - 1
    assert placed(world.step(desired(feed(), small, *some("a")))) == {"pool-0": ["a"], "pool-1": []}


def test_a_worker_that_comes_back_under_its_name_goes_on_with_its_sequence() -> None:
    world = World()
    small = pool(most=2, per_worker=1)
    world.step(desired(feed(), small, *some("a", "b")))
    world.step(desired(feed(), small, *some("a")))
    world.now_ms += world.delays.shrink_ms
    assert "pool-1" not in placed(world.step(desired(feed(), small, *some("a"))))
    result = world.step(desired(feed(), small, *some("a", "b")))
    assert sequences(result)["pool-1"] == 3
    assert assignment_of(result, "b").incarnation == 2, "the same trader started again"


def test_a_worker_not_ready_for_30_s_gives_its_traders_to_others() -> None:
    world = World()
    small = pool(least=2, most=2, per_worker=2)
    wanted = desired(feed(), small, *some("a", "b", "c"))
    world.step(wanted)
    world.ready(POOL, "pool-0", False)
    assert world.step(wanted, all_ready=False).plan_again_ms == world.now_ms + 30_000
    world.now_ms += 29_999
    assert placed(world.step(wanted, all_ready=False)) == {"pool-0": ["a", "b"], "pool-1": ["c"]}
    world.now_ms += 1
    result = world.step(wanted, all_ready=False)
    assert placed(result) == {"pool-0": ["b"], "pool-1": ["a", "c"]}, "what has no room elsewhere stays"
    assert assignment_of(result, "a").incarnation == 2
    assert sequences(result) == {"pool-0": 2, "pool-1": 2}
    world.ready(POOL, "pool-0", True)
    assert placed(world.step(wanted)) == {"pool-0": ["b"], "pool-1": ["a", "c"]}, "nothing moves back"


def test_a_lost_worker_is_replaced_within_max() -> None:
    world = World()
    wanted = desired(feed(), pool(most=2, per_worker=2), *some("a"))
    world.step(wanted)
    world.ready(POOL, "pool-0", False)
    world.now_ms += 30_000
    assert placed(world.step(wanted, all_ready=False)) == {"pool-0": [], "pool-1": ["a"]}
    world.ready(POOL, "pool-1", True)
    world.now_ms += world.delays.shrink_ms
    assert placed(world.step(wanted, all_ready=False)) == {"pool-1": ["a"]}, "the lost empty one goes, not the good one"


def test_a_worker_still_starting_is_given_more_time() -> None:
    world = World()
    wanted = desired(feed(), pool(most=2, per_worker=2), *some("a"))
    world.step(wanted, all_ready=False)
    world.now_ms += 60_000
    assert placed(world.step(wanted, all_ready=False)) == {"pool-0": ["a"]}


def test_a_lower_max_takes_effect_at_once() -> None:
    world = World()
    world.step(desired(feed(), pool(most=2, per_worker=1), *some("a", "b")))
    result = world.step(desired(feed(), pool(most=1, per_worker=1), *some("a", "b")))
    assert placed(result) == {"pool-0": ["a"]}
    assert result.verdicts["default/b"].reason == "PoolFull"


def test_feeds_get_the_union_of_what_is_listed_and_what_traders_ask_for() -> None:
    result = World().step(
        desired(
            feed(intervals=["1h"]),
            pool(),
            trader("a", symbols=["BTC/USDT", "ethusdt"], interval="1m", market={"informative": [{"interval": "5m"}]}),
            trader(
                "b", interval="1s", suspend=True, market={"informative": [{"symbol": "SOL/USDT", "interval": "1d"}]}
            ),
            trader("c", in_pool="nowhere", symbols=["XRP/USDT"], interval="3m"),
        )
    )
    one = result.feeds["default", "market"]
    assert one.symbols == ("BTC/USDT", "ETH/USDT", "SOL/USDT")
    assert one.intervals == ("1s", "1m", "5m", "1h", "1d")
    assert assignment_of(result, "a").informative == [SeriesRef("BTC/USDT", "5m"), SeriesRef("ETH/USDT", "5m")]


def test_another_transport_is_another_incarnation_of_that_trader_alone() -> None:
    world = World()
    before = world.step(desired(feed(), pool(), *some("a", "b")))
    after = world.step(desired(feed(), pool(), trader("a"), trader("b", transport="Pipe")))
    assert [assignment_of(before, name).transport for name in ("a", "b")] == [None, None]
    assert assignment_of(after, "a") == assignment_of(before, "a")
    changed = assignment_of(after, "b")
    assert (changed.transport, changed.incarnation, changed.generation) == ("Pipe", 2, 2)


def test_an_assignment_carries_the_defaults() -> None:
    one = assignment_of(World().step(desired(feed(), pool(), trader("a", interval="1m"))), "a")
    assert one.signal_ttl_ms == 600_000
    assert one.memory_bytes == 256 * 1024 * 1024
    assert one.mode == "active"
    assert len(one.uid) == 32
    assert one.uid == trader("a").identity
    assert trader("a", metadata={"uid": "u-1"}).identity == "u-1"


@pytest.mark.parametrize(
    ("resources", "reason", "says"),
    [
        ([feed(), pool(), trader("a", in_pool="pol")], "UnknownPool", 'did you mean "pool"'),
        ([pool(), trader("a")], "UnknownFeed", "default/market"),
        (
            [feed(), pool(), trader("a", "team", pool={"name": "pool", "namespace": "default"})],
            "NotAllowed",
            "allowedTraders",
        ),
        ([feed(symbols=["ETH/USDT"]), pool(), trader("a")], "UnknownSymbol", "BTC/USDT"),
        ([feed(), pool(), trader("a", tier="gold")], "UnknownTier", "gold"),
        (
            [
                feed(namespace="market-data"),
                pool(feed={"name": "market", "namespace": "market-data"}),
                trader("a"),
            ],
            "NotAllowed",
            "allowedPools",
        ),
    ],
)
def test_a_refused_trader_has_a_reason_and_a_sentence(resources: list[Trader], reason: str, says: str) -> None:
    result = World().step(desired(*resources))
    (verdict,) = result.verdicts.values()
    assert (verdict.worker, verdict.reason) == (None, reason)
    assert says in verdict.message


def test_another_namespace_may_use_a_pool_that_says_so() -> None:
    chosen = {"namespaces": {"from": "Selector", "selector": {"matchLabels": {"team": "quant"}}}}
    world = desired(
        feed(),
        pool(allowedTraders=chosen),
        trader("in", "desk", pool={"name": "pool", "namespace": "default"}),
        trader("out", "shop", pool={"name": "pool", "namespace": "default"}),
        namespaces={"desk": {"team": "quant"}, "shop": {"team": "sales"}},
    )
    result = World().step(world)
    assert result.verdicts["desk/in"].worker == "pool-0"
    assert result.verdicts["shop/out"].reason == "NotAllowed"


def problem(reason: str, message: str = "no good") -> Problem:
    return Problem("t.yaml", 1, 9, "Trader", "default", "a", "spec.strategy", message, reason)  # type: ignore[arg-type]


def test_a_bad_edit_keeps_the_old_version_and_says_so() -> None:
    world = World()
    world.step(desired(feed(), pool(), trader("a", parameters={"fast": 3})))
    bad = desired(
        feed(), pool(), trader("a", parameters={"fast": 0}), problems={("default", "a"): [problem("BadParameter")]}
    )
    result = world.step(bad)
    assert assignment_of(result, "a").parameters == {"fast": 3}
    assert sequences(result) == {"pool-0": 1}
    assert result.verdicts["default/a"].reason == "BadParameter"
    assert "generation 1 stays" in result.verdicts["default/a"].message
    good = world.step(desired(feed(), pool(), trader("a", parameters={"fast": 4})))
    assert assignment_of(good, "a").generation == 2


def test_a_bad_trader_that_never_ran_gets_no_worker() -> None:
    result = World().step(
        desired(feed(), pool(), trader("a"), problems={("default", "a"): [problem("UnknownStrategy")]})
    )
    assert result.verdicts["default/a"].worker is None
    assert result.verdicts["default/a"].reason == "UnknownStrategy"


def test_suspending_takes_effect_even_with_a_bad_edit() -> None:
    world = World()
    world.step(desired(feed(), pool(), trader("a")))
    bad = desired(feed(), pool(), trader("a", suspend=True), problems={("default", "a"): [problem("BadParameter")]})
    assert assignment_of(world.step(bad), "a").mode == "suspended"


def test_a_suspended_trader_keeps_its_place() -> None:
    world = World()
    world.step(desired(feed(), pool(most=1, per_worker=1), trader("a")))
    result = world.step(desired(feed(), pool(most=1, per_worker=1), trader("a", suspend=True), trader("b")))
    assert assignment_of(result, "a").mode == "suspended"
    assert (result.verdicts["default/a"].worker, result.verdicts["default/a"].reason) == ("pool-0", "Suspended")
    assert result.verdicts["default/b"].reason == "PoolFull"


def test_a_suspended_pool_suspends_all_its_traders_in_their_places_and_gives_each_back_as_it_was() -> None:
    world = World()
    side = pool("side")
    traders = [trader("a"), trader("b", suspend=True), trader("c", pool={"name": "side"})]
    names = ["a", "b", "c"]
    before = world.step(desired(feed(), pool(), side, *traders))
    paused = world.step(desired(feed(), pool(suspend=True), side, *traders))
    assert [assignment_of(paused, name).mode for name in names] == ["suspended", "suspended", "active"]
    assert [paused.verdicts[f"default/{name}"].reason for name in names] == ["Suspended", "Suspended", ""]
    assert "spec.suspend of its TraderPool default/pool is true" in paused.verdicts["default/a"].message
    both = paused.verdicts["default/b"].message
    assert both.startswith("spec.suspend is true, and that of its TraderPool default/pool too")
    assert {name: one.worker for name, one in paused.verdicts.items()} == {
        name: one.worker for name, one in before.verdicts.items()
    }
    again = world.step(desired(feed(), pool(), side, *traders))
    assert [assignment_of(again, name).mode for name in names] == ["active", "suspended", "active"]
    assert again.verdicts["default/b"].message.startswith("spec.suspend is true: ")


def test_a_suspended_pool_suspends_what_a_bad_edit_left_running_and_needs_no_approval() -> None:
    world = World()
    traders = [trader("a"), trader("b", rollout="Manual")]
    world.step(desired(feed(), pool(), *traders))
    problems = {("default", "a"): [problem("BadParameter")]}
    made = world.step(desired(feed(), pool(suspend=True), *traders, problems=problems))
    assert [assignment_of(made, name).mode for name in ("a", "b")] == ["suspended", "suspended"]
    assert made.verdicts["default/b"].reason == "Suspended"
    kept = made.verdicts["default/a"]
    words = " (generation 1 stays); meanwhile it decides nothing: spec.suspend of its TraderPool default/pool is true"
    assert (kept.reason, kept.message.endswith(words)) == ("BadParameter", True)
    made = world.step(desired(feed(), pool(), *traders))
    assert [assignment_of(made, name).mode for name in ("a", "b")] == ["active", "active"]
    assert [made.verdicts[f"default/{name}"].reason for name in ("a", "b")] == ["", ""]


def test_a_message_that_is_too_long_for_a_status_still_ends_with_what_goes_on() -> None:
    world = World()
    world.step(desired(feed(), pool(), trader("a")))
    problems = {("default", "a"): [problem("BadParameter", "x" * 3_000)]}
    kept = world.step(desired(feed(), pool(suspend=True), trader("a"), problems=problems)).verdicts["default/a"]
    words = " (generation 1 stays); meanwhile it decides nothing: spec.suspend of its TraderPool default/pool is true"
    assert (len(kept.message), kept.message.endswith(words)) == (MAX_MESSAGE_CHARS, True)


def test_a_manual_rollout_waits_for_its_generation() -> None:
    world = World()
    world.step(desired(feed(), pool(), trader("a", rollout="Manual")))

    def changed(approved: str) -> Trader:
        annotations = {"annotations": {APPROVE_ANNOTATION: approved}} if approved else {}
        return trader("a", parameters={"fast": 3}, rollout="Manual", metadata=annotations)

    waiting = world.step(desired(feed(), pool(), changed("")))
    assert assignment_of(waiting, "a").parameters == {}
    assert waiting.verdicts["default/a"].reason == "AwaitingApproval"
    assert f'{APPROVE_ANNOTATION}: "2"' in waiting.verdicts["default/a"].message
    assert world.step(desired(feed(), pool(), changed("1"))).verdicts["default/a"].reason == "AwaitingApproval"
    done = world.step(desired(feed(), pool(), changed("2")))
    assert assignment_of(done, "a").parameters == {"fast": 3}
    assert done.verdicts["default/a"].runs_as_asked


def test_a_strategy_from_a_config_map_travels_in_the_assignment() -> None:
    own = trader("a", strategy={"name": "Mine", "source": {"configMapRef": {"name": "code", "key": "mine.py"}}})
    open_pool = pool(allowConfigMapStrategies=True)

    def result_of(data: dict[tuple[str, str], dict[str, str]], in_pool: TraderPool = open_pool) -> Plan:
        return World().step(desired(feed(), in_pool, own, configmaps=data))

    code = {("default", "code"): {"mine.py": "class Mine: ..."}}
    assert assignment_of(result_of(code), "a").source == "class Mine: ..."
    assert result_of(code, pool()).verdicts["default/a"].reason == "NotAllowed"
    assert result_of({}).verdicts["default/a"].reason == "BadSource"
    other_key = result_of({("default", "code"): {"mne.py": ""}}).verdicts["default/a"]
    assert (other_key.reason, "mne.py" in other_key.message) == ("BadSource", True)
    long = result_of({("default", "code"): {"mine.py": "#" * (MAX_SOURCE_BYTES + 1)}})
    assert long.verdicts["default/a"].reason == "BadSource"


def test_a_trader_moves_when_its_pool_changes() -> None:
    world = World()
    world.step(desired(feed(), pool(), pool("side"), trader("a")))
    result = world.step(desired(feed(), pool(), pool("side"), trader("a", in_pool="side")))
    assert placed(result) == {"pool-0": [], "side-0": ["a"]}
    assert assignment_of(result, "a").incarnation == 2


def test_a_trader_found_in_two_workers_stays_where_it_is_newest() -> None:
    world = World()
    wanted = desired(feed(), pool(least=2, most=2, per_worker=2), *some("a", "b"))
    world.step(wanted)
    world.ready(POOL, "pool-0", False)
    old = world.workers[POOL]["pool-0"]
    world.now_ms += 30_000
    world.step(wanted, all_ready=False)
    assert placed(world.step(wanted, all_ready=False)) == {"pool-0": [], "pool-1": ["a", "b"]}
    world.workers[POOL]["pool-0"] = old  # the operator ended before it wrote the emptied one
    assert placed(world.step(wanted, all_ready=False)) == {"pool-0": [], "pool-1": ["a", "b"]}


def test_pools_of_one_name_in_two_namespaces_are_two() -> None:
    result = World().step(
        desired(feed(), feed(namespace="b"), pool(), pool(namespace="b"), trader("x"), trader("x", "b"))
    )
    assert {key: list(one.workers) for key, one in result.pools.items()} == {
        ("b", "pool"): ["pool-0"],
        ("default", "pool"): ["pool-0"],
    }
    assert result.verdicts["b/x"].pool == ("b", "pool")
