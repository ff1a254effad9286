"""Whatever happens to Traders and workers, in any order: each candle is decided once, and all is as asked in the end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.planner.planner_fleet import (
    BROKEN,
    POOL,
    Fleet,
    edited,
    wanted_of,
)
from tests.planner.planner_worlds import pool

from chandlery.core.assignment import TraderAssignment, surge_of
from chandlery.core.resources import TraderPool
from chandlery.operator.planner import Desired, Plan

# Whatever happens -----------------------------------------------------------------------------------------------

NAMES = ("a", "b", "c", "d")
actions = st.lists(
    st.one_of(
        st.tuples(st.just("edit"), st.sampled_from(NAMES), st.sampled_from([2, 3, 4, BROKEN])),
        st.tuples(st.just("plan"), st.just(""), st.just(0)),
        st.tuples(
            st.sampled_from(["hear", "advance", "decide", "tell", "up"]), st.just(""), st.integers(0, 3)
        ),
        st.tuples(st.just("close"), st.just(""), st.integers(1, 4)),
        st.tuples(st.just("outdated"), st.just(""), st.integers(0, 3)),
        st.tuples(st.just("remove"), st.sampled_from(NAMES), st.just(0)),
        st.tuples(st.just("forget"), st.just(""), st.just(0)),
        st.tuples(st.just("wait"), st.just(""), st.integers(1, 400_000)),
        st.tuples(st.sampled_from(["turn", "late"]), st.just(""), st.just(0)),
    ),
    max_size=40,
)  # fmt: skip


@st.composite
def pools(draw: st.DrawFn) -> TraderPool:
    most = draw(st.integers(1, 3))
    return pool(
        least=draw(st.integers(0, most)),
        most=most,
        spare=draw(st.integers(0, 1)),
        per_worker=draw(st.sampled_from([1, 2, 4])),
        series=draw(st.sampled_from([2, 512])),
    )


def check(made: Plan, in_pool: TraderPool) -> None:
    """What holds of every plan."""
    found: dict[str, list[TraderAssignment]] = {}
    for pool_plan in made.pools.values():
        for assignment in pool_plan.workers.values():
            per_worker = in_pool.spec.traders_per_worker
            assert len(assignment.traders) <= per_worker + surge_of(per_worker)
            assert len({each for one in assignment.traders for each in one.series()}) <= in_pool.spec.segment.series
            beside = Counter(one.trader for one in assignment.traders)
            assert sum(1 for count in beside.values() if count > 1) <= surge_of(per_worker)
            for one in assignment.traders:
                found.setdefault(one.trader, []).append(one)
    for name, several in found.items():
        several.sort(key=lambda one: one.incarnation)
        assert len(several) <= 2
        assert several[0].mode != "standby", "nobody decides"
        if len(several) == 2 and several[1].mode == "active":
            until_ms = several[0].until_ms
            assert until_ms is not None
            assert several[1].from_ms >= until_ms or not until_ms, "two may decide one candle"
        assert made.verdicts[name].incarnation == several[0].incarnation


class Story:
    """A pool whose Traders, workers and operator do what is drawn."""

    def __init__(self, in_pool: TraderPool) -> None:
        self.pool = in_pool
        self.fleet = Fleet()
        self.asked: dict[str, int] = {"a": 2, "b": 2}
        #: Names that were removed: who has such a name later is another Trader, which knows nothing of what that one did.
        self.removed: set[str] = set()
        self.fleet.settle(self.wanted, 6)

    @property
    def wanted(self) -> Desired:
        return wanted_of(*(edited(fast, name) for name, fast in sorted(self.asked.items())), in_pool=self.pool)

    def tell(self, what: str, name: str, number: int) -> None:
        fleet, keys = self.fleet, sorted(self.fleet.members)
        by_word: dict[str, Callable[[], object]] = {
            "edit": lambda: self.asked.update({name: number}),
            "remove": lambda: self.remove(name),
            "plan": lambda: check(fleet.plan(self.wanted), self.pool),
            "turn": lambda: check(fleet.turn(self.wanted), self.pool),
            "late": lambda: check(fleet.late_turn(self.wanted), self.pool),
            "close": lambda: fleet.close(number),
            "wait": lambda: setattr(fleet, "now_ms", fleet.now_ms + number),
            "forget": fleet.forget,
        }
        if what in by_word:
            by_word[what]()
        elif not keys:
            return
        elif what == "outdated":
            fleet.members[keys[number % len(keys)]].outdated = True
        else:
            getattr(fleet, what)(keys[number % len(keys)])

    def remove(self, name: str) -> None:
        self.asked.pop(name, None)
        self.removed.add(name)

    def end(self) -> Plan:
        """Nothing is late any more; returns the plan with which all is done."""
        for _ in range(80):
            made = self.fleet.late_turn(self.wanted)
            check(made, self.pool)
            quiet = all(one.rollout is None for one in made.verdicts.values())
            outdated = any(member.outdated for member in self.fleet.members.values())
            if quiet and not outdated and not any(one.failed for one in made.verdicts.values()):
                break
        return self.fleet.settle(self.wanted, 3)


@settings(max_examples=150, deadline=None)
@given(pools(), actions)
def test_each_candle_is_decided_once_whatever_is_late_and_all_is_as_asked_in_the_end(
    in_pool: TraderPool, story: Iterable[tuple[str, str, int]]
) -> None:
    told = Story(in_pool)
    words = set()
    for what, name, number in story:
        words.add(what)
        told.tell(what, name, number)
    made = told.end()
    # Who isn't Ready for 30 s gives its Traders away: what both decide is known by its id.
    if not words >= {"outdated", "wait"}:
        assert [each for each in told.fleet.doubled() if each[0].partition("/")[2] not in told.removed] == []
    if not words & {
        "remove",
        "outdated",
    }:  # what was away, or restarted with its pod while it was edited, may have a gap
        assert list(told.fleet.missed()) == []
    for verdict in made.verdicts.values():
        if verdict.worker is None:
            assert verdict.reason == "PoolFull"
            continue
        assert verdict.rollout is None, "not through after eighty turns"
        ((worker, spec),) = told.fleet.entries(verdict.trader)
        asked_for = told.asked[verdict.trader.partition("/")[2]]
        assert spec.parameters["fast"] == asked_for or asked_for == BROKEN
        assert worker in made.pools[POOL].workers


@settings(max_examples=60, deadline=None)
@given(pools(), actions)
def test_a_trader_that_decides_is_never_without_one_that_will(
    in_pool: TraderPool, story: Iterable[tuple[str, str, int]]
) -> None:
    told = Story(in_pool)
    for what, name, number in story:
        if what in ("remove", "outdated"):  # what is removed stops, and what restarts with its pod may lose its place
            continue
        had = {one for one in told.asked if told.fleet.active(f"default/{one}")}
        told.tell(what, name, number)
        lacking = {
            one
            for one in had & set(told.asked)
            if told.fleet.memory.traders and not told.fleet.entries(f"default/{one}")
        }
        assert not lacking, f"{what} left {lacking} without any incarnation"
