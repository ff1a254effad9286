"""What changes a plan, a condition or a status is news at once: nothing of it waits for the next look at everything."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from functools import cache, partial
from typing import Any, get_args

import msgspec
import pytest
from tests.operator_parts.operator_bodies import feed_body, pool_body, trader_body
from tests.operator_parts.under_way import until
from tests.planner import planner_worlds as worlds

from chandlery.core.assignment import (
    Assignment,
    TraderAssignment,
    TraderState,
    TraderStatus,
    WorkerStatus,
    content_hash,
)
from chandlery.core.errors import UnavailableError
from chandlery.operator.cache import Cache, hold
from chandlery.operator.conditions import (
    RIDING,
    WorkerView,
    pool_state,
    pool_status,
    trader_state,
    trader_status,
)
from chandlery.operator.delivery import Reply
from chandlery.operator.planner import Current, Memory, Plan, WorkerNow, plan
from chandlery.operator.planner_standing import news_of, told_of
from chandlery.operator.planning import PoolPlanner
from chandlery.operator.workerlink import PodEndpoint, WorkerLink

POOL = ("default", "pool")
A = "default/a"
NOW_MS = 1_000_000
NOW = "2026-01-01T00:00:00Z"
CLOSED_MS = 1_700_000_000_000
PROBLEM = {"reason": "KafkaUnauthorized", "message": "Kafka refuses the login"}


# A worker's answer ------------------------------------------------------------------------------------------


@cache
def incarnations(story: str) -> list[TraderAssignment]:
    """What a worker has of one Trader: it alone, one beside it that stands by, or one that it was told to end for."""
    (wanted,) = (
        one
        for made in plan(WANTED, Current(), now_ms=NOW_MS, wall_ms=CLOSED_MS).pools.values()
        for worker in made.workers.values()
        for one in worker.traders
    )
    before = msgspec.structs.replace(wanted, parameters={"fast": 2})
    successor = msgspec.structs.replace(wanted, incarnation=2, mode="standby", since_ms=0)
    return {
        "alone": [wanted],
        "standing by": [before, successor],
        "handing over": [msgspec.structs.replace(before, until_ms=CLOSED_MS), successor],
        "taking over": [
            msgspec.structs.replace(before, until_ms=CLOSED_MS),
            msgspec.structs.replace(successor, mode="active", from_ms=CLOSED_MS, since_ms=CLOSED_MS),
        ],
    }[story]


WANTED = worlds.desired(worlds.feed(), worlds.pool(), worlds.trader("a", parameters={"fast": 3}))
Change = Callable[[WorkerStatus], WorkerStatus]
HELD, HELD_POOL = hold("Trader", trader_body("a", in_pool="pool")), hold("TraderPool", pool_body("pool"))
STORIES = ("alone", "standing by", "handing over", "taking over")


def answer(traders: list[TraderAssignment], *states: TraderStatus, **more: Any) -> WorkerStatus:
    told = [
        msgspec.structs.replace(state, generation=one.generation, incarnation=one.incarnation)
        for one, state in zip(traders, states, strict=True)
    ]
    successors = {A: told[1]} if len(told) > 1 else {}
    whole = {"sequence": 7, "hash": content_hash(traders), "received_sequence": 7, "supervisor_connected": True, **more}
    feed: dict[str, Any] = {"broker_problem": None, "latency": {}}
    return WorkerStatus("pool-0", 1, traders={A: told[0]}, successors=successors, catalogue=[], feed=feed, **whole)


def said(story: str, status: WorkerStatus) -> object:
    """All that plan, conditions and statuses make of an answer, but for what rides along."""
    traders = incarnations(story)
    assignment = Assignment("pool-0", 7, content_hash(traders), traders)
    worker = WorkerNow(assignment, status.supervisor_connected, NOW_MS - 1_000, True, status)
    # The old one has had some time to retire, or its successor may have failed twice before.
    made = plan(WANTED, Current({POOL: {"pool-0": worker}}, Memory()), now_ms=NOW_MS, wall_ms=CLOSED_MS)
    return _plan_of(made), _statuses_of(made, traders, status)


def _plan_of(made: Plan) -> object:
    assigned = {name: one.traders for pool in made.pools.values() for name, one in pool.workers.items()}
    return made.verdicts, assigned, made.plan_again_ms, made.memory.failed


def _statuses_of(made: Plan, traders: list[TraderAssignment], status: WorkerStatus) -> object:
    view = WorkerView("pool-0", "pool-0-0", status.supervisor_connected, was_ready=True, status=status)
    verdict = made.verdicts[A]
    state = trader_state(HELD, verdict, view)
    runs = next((one for one in traders if one.incarnation == verdict.incarnation), None)
    rollout = verdict.rollout
    successor = told_of(status, A, rollout.incarnation) if rollout is not None else None
    of_trader = trader_status(HELD, state, verdict, runs, view, NOW, successor)
    whole = pool_state(HELD_POOL, made.pools[POOL], [view], 0, "")
    return (
        state,
        msgspec.structs.replace(of_trader, **dict.fromkeys(RIDING)),
        whole,
        pool_status(HELD_POOL, whole, made.pools[POOL], [view], 0, NOW),
    )


def bases() -> Iterator[tuple[str, WorkerStatus]]:
    """Every state that a Trader may be in, alone or as the first or second of two, heard of what is assigned or not."""
    for story in STORIES:
        traders = incarnations(story)
        for state in get_args(TraderState):
            active = TraderStatus("Active", last_open_time_ms=CLOSED_MS, until_ms=traders[0].until_ms)
            for sequence, error in ((7, "e"), (6, "")):
                words: dict[str, Any] = {"message": "m; starts again in 1 s", "last_error": error}
                one = TraderStatus(state, **words, attempt=1, until_ms=traders[0].until_ms)
                if len(traders) == 1:
                    yield story, answer(traders, one, sequence=sequence)
                else:
                    yield story, answer(traders, one, active, sequence=sequence)
                    yield story, answer(traders, active, one, sequence=sequence)


def others(value: object, name: str) -> list[Any]:
    """What a field may become."""
    if name == "state":
        return list(get_args(TraderState))
    if name == "reason":
        return ["", "CrashLoop", "SeriesRefused", "MemoryLimit"]
    if name in ("message", "last_error"):
        return ["", "another", "m; starts again in 2 s"]
    if name == "until_ms":
        return [None, CLOSED_MS, CLOSED_MS + 5_000]
    if name == "last_open_time_ms":
        # Whether there is a candle at all; which one it is moves by itself, and a plan looks it up when it is time.
        return [0, CLOSED_MS]
    if name in ("generation", "incarnation", "attempt"):
        return [0, 1, 2, 3]
    return [f"{value}x"] if isinstance(value, str) else [9]


def of_traders(status: WorkerStatus) -> Iterator[tuple[str, Change]]:
    """Changes of one field of one incarnation, which one that is."""
    for part in ("traders", "successors"):
        for one in getattr(status, part).values():
            for name in one.__struct_fields__:
                for value in others(getattr(one, name), name):

                    def change(
                        now: WorkerStatus, part: str = part, name: str = name, value: Any = value
                    ) -> WorkerStatus:
                        told = {A: msgspec.structs.replace(getattr(now, part)[A], **{name: value})}
                        return msgspec.structs.replace(now, **{part: told})

                    yield name, change
        yield part, partial(_with, {part: {}})


def of_worker(status: WorkerStatus) -> Iterator[tuple[str, Change]]:
    """Changes of one field of its own."""
    entry = {"name": "sma-cross", "parameters": {}, "errors": []}
    values: dict[str, list[Any]] = {
        "worker": ["x"],
        "version": [9],
        "sequence": [0, 6, 7],
        "hash": ["", status.hash],
        "received_sequence": [0, 6, 7],
        "supervisor_connected": [True, False],
        "catalogue": [[entry], [{**entry, "errors": ["can't be loaded"]}]],
        "feed": [
            {**status.feed, "broker_problem": PROBLEM},
            {**status.feed, "broker_problem": {**PROBLEM, "message": "still"}},
            {**status.feed, "behind_ms": 90_000},
        ],
    }
    assert values.keys() | {"traders", "successors"} == set(status.__struct_fields__)
    for name, each in values.items():
        for value in each:
            yield name, partial(_with, {name: value})


def _with(fields: dict[str, Any], now: WorkerStatus) -> WorkerStatus:
    return msgspec.structs.replace(now, **fields)


def test_whatever_changes_what_is_planned_or_said_of_a_worker_is_news() -> None:
    """Each field of an answer, in each state of a Trader: a change of it is news, or of no consequence."""
    moving: set[str] = set()
    for story, status in bases():
        before, news = said(story, status), news_of(status)
        quiet, unheard = status, []
        for name, change in (*of_worker(status), *of_traders(status)):
            changed = change(status)
            if news_of(changed) == news:
                quiet = change(quiet)
                unheard.append(name)
            elif name not in moving and said(story, changed) != before:
                moving.add(name)
        assert news_of(quiet) == news
        assert said(story, quiet) == before, f"one of {unheard} from {status} to {quiet}, {story}"
    # Were one of these of no consequence any more, nothing would be held of it.
    assert moving >= {
        "sequence", "hash", "received_sequence", "supervisor_connected", "feed", "traders", "successors", "state", "reason",
        "message", "last_error", "generation", "incarnation", "attempt", "code", "until_ms", "last_open_time_ms",
    }  # fmt: skip


def test_figures_that_move_by_themselves_are_no_news() -> None:
    moved: dict[str, Any] = {
        "pid": 5, "restarts": 2, "warm_have": 4, "calls": 5, "signals": 6, "stale": 7, "rss_bytes": 8, "blocked": 9,
    }  # fmt: skip
    traders = incarnations("alone")
    begun = TraderStatus("Active", message="m", last_open_time_ms=CLOSED_MS)
    later = msgspec.structs.replace(
        begun, last_open_time_ms=CLOSED_MS + 1_000, message="n", last_error="of before", **moved
    )
    before, after = answer(traders, begun), answer(traders, later)
    after.feed = {**after.feed, "behind_ms": 400, "records": 9, "latency": {"frame_to_signal": {"count": 1}}}
    after.version += 1
    assert news_of(before) == news_of(after)
    ended = TraderStatus("Backoff", "Crashed", "exit 1; starts again in 1 s", attempt=1)
    again = msgspec.structs.replace(ended, message="exit 1; starts again in 2 s", attempt=2)
    assert news_of(answer(traders, ended)) == news_of(answer(traders, again))


def test_what_the_catalogue_says_of_a_strategy_is_news_though_its_name_stays() -> None:
    """A judgement goes by parameters and errors."""
    cache = Cache()
    cache.put("MarketFeed", feed_body())
    cache.put("TraderPool", pool_body())
    cache.put("Trader", trader_body(strategy={"name": "sma-cross", "parameters": {"fast": 3}}))
    parameters = {"fast": {"type": "int", "default": 9}}
    good = {"name": "sma-cross", "parameters": parameters, "errors": []}
    entries = [good, {**good, "parameters": {}}, {**good, "errors": ["no such module"]}]
    statuses = [_with_catalogue(one) for one in entries]
    reasons = [
        PoolPlanner(cache)
        .plan(("default", "quants"), {}, configmaps={}, namespaces={}, catalogue=one.catalogue, now_ms=1)
        .verdicts["default/one"]
        .reason
        for one in statuses
    ]
    assert reasons == ["", "BadParameter", "BadStrategy"]
    assert all(news_of(one) != news_of(statuses[0]) for one in statuses[1:])


def _with_catalogue(entry: dict[str, Any]) -> WorkerStatus:
    return WorkerStatus("quants-0", 1, 0, "", 0, True, {}, [entry], {})


# A worker's link --------------------------------------------------------------------------------------------


class Api(PodEndpoint):
    """A worker's API: answers a push and a question as told, and holds a question back that has been answered."""

    def __init__(self) -> None:
        self.address = ""
        self.pushed: Reply | str = Reply(200, b"{}")
        self.asked: Reply | str = "no answer"
        self.questions = 0
        self._changed = asyncio.Event()

    def says(self, asked: Reply | str) -> None:
        self.asked = asked
        self._changed.set()

    async def call(self, method: str, path: str, body: bytes | None = None, *, timeout_s: float | None = None) -> Reply:
        if method == "GET":
            self.questions += 1
            if "after=0&" not in path:
                await self._changed.wait()
            self._changed.clear()
        answered = self.pushed if method == "PUT" else self.asked
        if isinstance(answered, str):
            raise UnavailableError(answered)
        return answered


class News:
    """Counts what is told."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> None:
        self.count += 1


@asynccontextmanager
async def linked(api: Api, news: News) -> AsyncIterator[WorkerLink]:
    async def keep(_assignment: Assignment) -> None:
        await asyncio.sleep(0)

    link = WorkerLink(Assignment("w", 0, content_hash([]), []), api, keep, news, lambda _task: None)
    link.start()
    try:
        yield link
    finally:
        await link.stop()


def pod(*, ready: bool = True) -> dict[str, Any]:
    conditions = [{"type": "Ready", "status": "True" if ready else "False"}]
    return {"metadata": {"name": "w-0", "uid": "u"}, "status": {"podIP": "10.0.0.1", "conditions": conditions}}


async def test_why_a_ready_worker_does_not_answer_is_news_each_time_it_is_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for pause in ("_RETRY_S", "_QUIET_S"):
        monkeypatch.setattr(f"chandlery.operator.workerlink.{pause}", 0.001)
    api, news = Api(), News()
    async with linked(api, news) as link:
        await until(lambda: api.questions > 2)
        assert news.count == 0, "of one that isn't Ready something else is told"
        link.pod_changed(pod())
        api.says("cut off")
        await until(lambda: link.problem == "cut off")
        await until(lambda: news.count == 1)
        asked = api.questions
        await until(lambda: api.questions > asked + 2)
        assert news.count == 1, "told once"
        api.says(Reply(200, msgspec.json.encode(_with_catalogue({"name": "sma-cross"}))))
        await until(lambda: link.status is not None)
        assert (news.count, link.problem) == (2, "")
        api.says("no answer")
        await until(lambda: link.problem == "no answer")
        assert news.count == 2, "its last answer is what there is to go by"


async def test_what_keeps_an_assignment_from_its_worker_is_news_once_it_lasts_and_when_it_is_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("chandlery.operator.workerlink._LASTS_S", 0.01)
    api, news = Api(), News()
    api.pushed = Reply(500, b"not now")
    traders = incarnations("alone")
    async with linked(api, news) as link:
        link.want(Assignment("w", 1, content_hash(traders), traders))
        await until(lambda: news.count == 1)
        assert "not now" in link.view().undelivered
        api.pushed = Reply(200, b"{}")
        await until(lambda: news.count == 2)
        assert link.view().undelivered == ""


async def test_a_push_that_fails_for_a_moment_is_no_news() -> None:
    api, news = Api(), News()
    async with linked(api, news) as link:
        for problem in ("no answer", ""):
            link.delivery._tell(problem)
        link._tell_undelivered()
    assert news.count == 0


@pytest.mark.parametrize("field", ["hash", "received_sequence", "catalogue", "feed"])
async def test_news_of_a_worker_are_told_as_they_come(field: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chandlery.operator.workerlink._QUIET_S", 0.001)
    monkeypatch.setattr("chandlery.operator.workerlink._RETRY_S", 0.001)
    before = _with_catalogue({"name": "sma-cross", "parameters": {}})
    other: dict[str, Any] = {
        "hash": "x",
        "received_sequence": 1,
        "catalogue": [{"name": "sma-cross", "parameters": {"fast": {}}}],
        "feed": {"broker_problem": PROBLEM},
    }
    api, news = Api(), News()
    async with linked(api, news) as link:
        link.pod_changed(pod())
        for status in (before, msgspec.structs.replace(before, version=2, **{field: other[field]})):
            told = news.count
            api.says(Reply(200, msgspec.json.encode(status)))
            await until(lambda status=status: link.status == status)  # type: ignore[misc]
            assert news.count > told


# Resources --------------------------------------------------------------------------------------------------


def test_a_pool_that_gets_another_feed_concerns_both() -> None:
    cache = Cache()
    cache.put("TraderPool", pool_body())
    dirty = cache.put("TraderPool", pool_body(version=2, generation=2, feed={"name": "other"}))
    assert set(dirty) == {("pool", "default", "quants"), ("feed", "default", "market"), ("feed", "default", "other")}


def test_what_is_told_of_the_pool_that_is_near_is_told_anew_when_one_comes_or_goes() -> None:
    cache = Cache()
    cache.put("Trader", trader_body(in_pool="quant"))
    seeking = ("pool", "default", "quant")
    assert seeking in cache.put("TraderPool", pool_body("quants"))
    assert seeking not in cache.put("TraderPool", pool_body("quants", version=2, generation=2))
    assert seeking in cache.drop("TraderPool-default-quants")
    assert cache.put("TraderPool", pool_body("quant", feed={"name": "markt"}))[0] == seeking
    assert seeking in cache.put("MarketFeed", feed_body("market"))
    assert seeking in cache.drop("MarketFeed-default-market")
