"""What holds of every plan, whatever is asked for and whatever happens to the workers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.planner.planner_worlds import World, desired, feed, pool, trader

from chandlery.core.assignment import content_hash
from chandlery.core.manifests import Problem
from chandlery.core.resources import MarketFeed, Trader, TraderPool
from chandlery.operator.planner import Current, Delays, Desired, Plan, plan

SYMBOLS = ("BTC/USDT", "ETH/USDT", "SOL/USDT", "ADA/USDT", "XRP/USDT")


@st.composite
def traders(draw: st.DrawFn) -> list[Trader]:
    names = draw(st.lists(st.sampled_from([f"t{n}" for n in range(14)]), unique=True, max_size=12))
    return [
        trader(
            name,
            namespace=draw(st.sampled_from(["default", "default", "default", "other"])),
            in_pool=draw(st.sampled_from(["pool", "pool", "pool", "side", "nowhere"])),
            symbols=draw(st.lists(st.sampled_from(SYMBOLS), unique=True, min_size=1, max_size=3)),
            parameters={"fast": draw(st.integers(2, 4))},
            suspend=draw(st.booleans()),
            rollout=draw(st.sampled_from(["Auto", "Auto", "Manual"])),
        )
        for name in names
    ]


@st.composite
def pools(draw: st.DrawFn) -> list[TraderPool]:
    made = []
    for name in draw(st.sampled_from([["pool"], ["pool", "side"], ["side"], []])):
        most = draw(st.integers(1, 4))
        made.append(
            pool(
                name,
                least=draw(st.integers(0, most)),
                most=most,
                spare=draw(st.integers(0, min(2, most))),
                per_worker=draw(st.integers(1, 4)),
                series=draw(st.sampled_from([2, 4, 512])),
                suspend=draw(st.sampled_from([False, False, True])),
            )
        )
    return made


feeds = st.sampled_from([[feed()], [feed()], [feed(symbols=["BTC/USDT", "ETH/USDT"])], []])
Move = tuple[list[MarketFeed], list[TraderPool], list[Trader], int, list[int], bool]
moves = st.lists(
    st.tuples(feeds, pools(), traders(), st.integers(0, 400_000), st.lists(st.integers(0, 5)), st.booleans()),
    min_size=1,
    max_size=6,
)


def bad_parameter(key: tuple[str, str]) -> Problem:
    return Problem("f", 1, 1, "Trader", *key, "spec", "no good", "BadParameter")


def wanted_of(
    some_feeds: list[MarketFeed], some_pools: list[TraderPool], some: Iterable[Trader], broken: bool, seed: int = 0
) -> Desired:
    some = list(some)
    problems = {some[0].key: [bad_parameter(some[0].key)]} if broken and some else {}
    return desired(*some_feeds, *some_pools, *some, seed=seed, problems=problems, delays=Delays())


def assigned(result: Plan) -> Counter[str]:
    return Counter(
        one.trader
        for pool_plan in result.pools.values()
        for assignment in pool_plan.workers.values()
        for one in assignment.traders
    )


def check(wanted: Desired, result: Plan) -> None:
    where = {
        one.trader: name
        for pool_plan in result.pools.values()
        for name, assignment in pool_plan.workers.items()
        for one in assignment.traders
    }
    assert set(result.verdicts) == {one.full_name for one in wanted.traders.values()}
    assert all(count == 1 for count in assigned(result).values()), "a trader in two workers"
    for name, verdict in result.verdicts.items():
        assert verdict.worker == where.get(name)
        assert verdict.worker is not None or (verdict.reason and verdict.message)
    for key, pool_plan in result.pools.items():
        spec = wanted.pools[key].spec
        assert len(pool_plan.workers) <= spec.workers.max
        if pool_plan.feed is not None:
            assert len(pool_plan.workers) >= spec.workers.min
        for name, assignment in pool_plan.workers.items():
            assert assignment.worker == name
            assert assignment.hash == content_hash(assignment.traders)
            assert len(assignment.traders) <= spec.traders_per_worker
            series = {series for one in assignment.traders for series in one.series()}
            assert len(series) <= spec.segment.series
            if pool_plan.feed is not None:
                assert {one.symbol for one in series} <= set(result.feeds[pool_plan.feed].symbols)
                assert {one.interval for one in series} <= set(result.feeds[pool_plan.feed].intervals)


@settings(max_examples=150, deadline=None)
@given(moves)
def test_planner_holds_its_promises_through_any_story(story: list[Move]) -> None:
    world = World()
    sequences: dict[tuple[object, str], int] = {}
    incarnations: dict[str, int] = {}
    for some_feeds, some_pools, some_traders, pause_ms, failing, broken in story:
        world.now_ms += pause_ms
        keys = [(key, name) for key, workers in sorted(world.workers.items()) for name in sorted(workers)]
        for number, (key, name) in enumerate(keys):
            world.ready(key, name, number not in failing)
        wanted = wanted_of(some_feeds, some_pools, some_traders, broken)
        before = world.current

        result = plan(wanted, before, now_ms=world.now_ms)
        check(wanted, result)

        shuffled = Current(
            {key: dict(reversed(list(before.workers[key].items()))) for key in before.workers}, before.memory
        )
        other = plan(wanted_of(some_feeds, some_pools, some_traders, broken, seed=7), shuffled, now_ms=world.now_ms)
        assert other == result, "the order of the input matters"

        world.carry_out(result)
        again = plan(wanted, world.current, now_ms=world.now_ms)
        assert again.verdicts == result.verdicts
        assert again.memory == result.memory
        for key, pool_plan in result.pools.items():
            assert list(again.pools[key].workers) == list(pool_plan.workers)
            for name, assignment in pool_plan.workers.items():
                assert again.pools[key].workers[name] is assignment, "planning its own result changed something"

        for key, pool_plan in result.pools.items():
            for name, assignment in pool_plan.workers.items():
                now = before.workers.get(key, {}).get(name)
                if now is not None and now.assignment.hash == assignment.hash:
                    assert assignment is now.assignment
                else:
                    assert assignment.sequence > sequences.get((key, name), 0)
                sequences[key, name] = assignment.sequence
                for one in assignment.traders:
                    assert one.incarnation >= incarnations.get(one.trader, 1)
                    incarnations[one.trader] = one.incarnation


@settings(max_examples=150, deadline=None)
@given(traders(), traders(), pools(), st.integers(0, 400_000))
def test_adding_and_removing_others_moves_no_trader_whose_worker_stays(
    first: list[Trader], second: list[Trader], some_pools: list[TraderPool], pause_ms: int
) -> None:
    world = World()
    one = world.step(wanted_of([feed()], some_pools, first, False))
    world.now_ms += pause_ms
    kept = {each.key: each for each in first}
    second = [kept.get(each.key, each) for each in second]
    two = world.step(wanted_of([feed()], some_pools, second, False))
    for name, verdict in one.verdicts.items():
        after = two.verdicts.get(name)
        if after is None or verdict.worker is None or verdict.pool is None:
            continue
        if verdict.worker in two.pools[verdict.pool].workers:
            assert after.worker == verdict.worker
            assert after.incarnation == verdict.incarnation
        else:
            assert pause_ms >= Delays().shrink_ms, "a worker went before the delay"
            assert after.worker is not None, "a trader lost its place because its worker was not needed"


@settings(max_examples=100, deadline=None)
@given(traders(), pools())
def test_a_plan_survives_the_loss_of_its_memory(some: list[Trader], some_pools: list[TraderPool]) -> None:
    world = World()
    wanted = wanted_of([feed()], some_pools, some, False)
    first = world.step(wanted)
    again = plan(wanted, Current(world.current.workers), now_ms=world.now_ms)
    assert again.verdicts == first.verdicts
    for key, pool_plan in first.pools.items():
        for name, assignment in pool_plan.workers.items():
            assert again.pools[key].workers[name] is assignment
