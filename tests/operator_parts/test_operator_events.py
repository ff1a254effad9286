"""Events: each once, also where the API server didn't take the first."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from tests.operator_parts.operator_bodies import trader_body

from chandlery.core.errors import ChandleryError, UnavailableError
from chandlery.core.kube_credentials import Credentials
from chandlery.core.resources import MEANWHILE_NOTHING, OF_ITS_POOL
from chandlery.operator.cache import hold
from chandlery.operator.conditions import State
from chandlery.operator.events import Events
from chandlery.operator.kubernetes.api import ExistsError, GoneError, Kind, KubeApi, Object, RefusedError


class Creator:
    """An API server that answers in turn as it is told, and takes everything after that."""

    def __init__(self, *answers: ChandleryError) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    async def create(self, kind: Kind, body: Object) -> Object:
        self.asked.append(body["metadata"]["name"])
        if self.answers:
            raise self.answers.pop(0)
        return body


async def test_an_event_that_was_refused_holds_nothing_back_and_is_told_minutes_later_by_who_says_it_and_then_no_more() -> (
    None
):
    now_s = 1000.0
    api = Creator(RefusedError("403 forbidden"))
    events, held = Events(api, "test", clock=lambda: now_s), hold("Trader", trader_body())
    for wait_s, told in ((0.0, 0), (1.0, 0), (298.0, 0), (2.0, 1), (1.0, 1), (400.0, 1)):
        now_s += wait_s
        assert await events.tell_state(held, State("PoolFull", "no room", stalled=True))
        assert events.told == told
    assert (len(api.asked), events.dropped) == (2, 1)
    assert len(set(api.asked)) == 1, "under one name, so that the API server knows it again"


async def test_a_status_waits_for_its_event_until_that_is_told_or_has_waited_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now_s = 1000.0
    api = Creator(*(UnavailableError(f"{status}") for status in (429, 500)))
    events, held = Events(api, "test", clock=lambda: now_s), hold("Trader", trader_body())
    full, other = State("PoolFull", "no room", stalled=True), State("BadParameter", "no such parameter", stalled=True)
    for _ in range(3):
        assert not await events.tell_state(held, full)
    assert len(api.asked) == 1, "it is tried again by itself, not by each who says it"
    assert await events.tell_state(held, State("Running", ready=True)), "of which nothing is told"
    now_s += 9.9
    assert not await events.tell_state(held, other)
    assert not await events.tell_state(held, full)
    now_s += 0.2
    assert await events.tell_state(held, full)
    assert (len(events), events.told) == (2, 0), "and still to be told"
    assert not await events.tell_state(held, other), "each waits by itself"
    async with running(events, monkeypatch):
        await until(lambda: events.told == 2)
    assert await events.tell_state(held, other)
    assert len(api.asked) == 4


async def test_where_as_many_wait_as_may_no_status_waits_for_its_event(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chandlery.operator.events._MOST_WAITING", 2)
    events = Events(Creator(UnavailableError("no answer")), "test")
    may = [
        await events.tell(hold("Trader", trader_body(f"t{number}")), "Warning", "PoolFull", "no room")
        for number in range(3)
    ]
    assert may == [False, True, True]


@pytest.mark.parametrize(
    ("reason", "message", "generation", "told"),
    [
        ("PoolFull", "no room", 1, 0),
        ("PoolFull", f"no room{MEANWHILE_NOTHING}spec.suspend {OF_ITS_POOL} desk/quants is true", 1, 0),
        ("PoolFull", "no room", 2, 1),
        ("PoolFull", "no room at all", 1, 1),
        ("NotAllowed", "no room", 1, 1),
    ],
)
async def test_of_a_state_that_its_status_says_already_an_operator_that_starts_tells_nothing(
    reason: str, message: str, generation: int, told: int
) -> None:
    ready = {"type": "Ready", "status": "False", "reason": "PoolFull", "message": "no room", "observedGeneration": 1}
    before = {"conditions": [{"type": "Warm", "status": "False", "reason": "Warming"}, ready]}
    held = hold("Trader", {**trader_body(generation=generation), "status": before})
    events = Events(Creator(), "test")
    assert await events.tell_state(held, State(reason, message, stalled=True))
    assert events.told == told


async def test_an_event_that_is_there_already_is_told() -> None:
    api = Creator(ExistsError("409 it is there"))
    events, held = Events(api, "test"), hold("Trader", trader_body())
    for _ in range(2):
        await events.tell(held, "Warning", "PoolFull", "no room")
    assert (len(api.asked), events.told, len(events)) == (1, 0, 0)


async def test_what_is_told_of_a_trader_is_not_told_again_when_it_is_suspended_and_resumed() -> None:
    events, held = Events(Creator(), "test"), hold("Trader", trader_body())
    kept = "no such parameter (generation 1 stays)"
    for message in (kept, f"{kept}{MEANWHILE_NOTHING}spec.suspend {OF_ITS_POOL} desk/quants is true", kept):
        await events.tell_state(held, State("BadParameter", message, stalled=True))
        assert events.told == 1
    await events.tell_state(held, State("BadParameter", "no such other parameter (generation 1 stays)", stalled=True))
    assert events.told == 2


async def test_a_strategy_that_fails_by_other_words_each_time_makes_one_event_for_a_reason_and_an_incarnation() -> None:
    """Also with an operator that starts: the API server knows its name."""
    api = Creator()
    names = []
    for generation, incarnation, reason in (
        (1, 1, "Crashed"),
        (1, 1, "CrashLoop"),
        (1, 2, "Crashed"),
        (2, 2, "Crashed"),
    ):
        held = hold("Trader", trader_body(generation=generation))
        for events in (Events(api, "test"), Events(api, "another")):
            for attempt in range(5):
                said = f"ValueError: price 6012{attempt}.5"
                await events.tell_state(held, State(reason, said, episode=f"incarnation {incarnation}"))
            assert events.told == 1
        names += api.asked
        assert len(api.asked) == 2
        api.asked.clear()
    assert len(set(names)) == 4


@asynccontextmanager
async def refusing(*reasons: str) -> AsyncIterator[tuple[KubeApi, list[str]]]:
    """An API server that answers 409 for these reasons in turn, and then takes what comes; gives what was asked of it."""
    left, asked = list(reasons), []

    async def answer(request: web.Request) -> web.Response:
        asked.append((await request.json())["metadata"]["name"])
        if not left:
            return web.json_response({}, status=201)
        return web.json_response({"kind": "Status", "reason": left.pop(0), "message": "no", "code": 409}, status=409)

    app = web.Application()
    app.router.add_post("/{path:.*}", answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    api = KubeApi(Credentials(f"http://127.0.0.1:{runner.addresses[0][1]}", None))
    try:
        yield api, asked
    finally:
        await api.close()
        await runner.cleanup()


@pytest.mark.parametrize(
    ("reasons", "asked", "told"),
    [
        (["AlreadyExists"], 1, 0),
        (["Conflict"], 2, 1),  # as of a quota that another write was just counted against
        (["Conflict", "Conflict", "AlreadyExists"], 3, 0),
    ],
)
async def test_a_conflict_is_tried_again_unless_it_says_that_the_event_is_there(
    reasons: list[str], asked: int, told: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with refusing(*reasons) as (api, names):
        events = Events(api, "test")
        async with running(events, monkeypatch):
            for _ in range(2):
                await events.tell(hold("Trader", trader_body()), "Warning", "PoolFull", "no room")
                await until(lambda: len(names) == asked and not len(events) and events.told == told)
        assert (len(names), len(set(names)), events.dropped) == (asked, 1, 0)


@asynccontextmanager
async def running(events: Events, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[list[int]]:
    """Events that try again, without waiting; gives how many attempts had failed in a row before each."""
    attempts: list[int] = []

    async def at_once(attempt: int, _chance: float) -> None:
        attempts.append(attempt)
        await asyncio.sleep(0)

    monkeypatch.setattr("chandlery.operator.events.backoff", at_once)
    task = asyncio.create_task(events.run())
    yield attempts
    assert not task.done()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline, "not within 30 s"
        await asyncio.sleep(0)


async def test_what_the_api_server_could_not_take_is_tried_again_though_nobody_says_it_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    api = Creator(*(UnavailableError(f"{status}") for status in (500, 429, 503)))
    events = Events(api, "test")
    async with running(events, monkeypatch) as attempts:
        await events.tell(hold("Trader", trader_body("one")), "Warning", "PoolFull", "no room")
        await events.tell(hold("Trader", trader_body("two")), "Warning", "PoolFull", "no room")
        await until(lambda: events.told == 2)
        assert (len(events), events.dropped) == (0, 0)
        assert len(api.asked) == 5
        assert attempts == [1, 2, 3], "ever more slowly"
        # And neither again.
        await events.tell(hold("Trader", trader_body("one")), "Warning", "PoolFull", "no room")
        assert len(api.asked) == 5
        api.answers.append(UnavailableError("no answer"))
        await events.tell(hold("Trader", trader_body("three")), "Warning", "PoolFull", "no room")
        await until(lambda: events.told == 3)
        assert attempts == [1, 2, 3, 1], "the next trouble begins anew"


@pytest.mark.parametrize("error", [RefusedError("403 the namespace ends"), GoneError("404 no namespace")])
async def test_what_is_refused_or_has_no_namespace_any_more_is_not_tried_again_but_counted(
    error: ChandleryError, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = Creator(UnavailableError("no answer"), error)
    events = Events(api, "test")
    async with running(events, monkeypatch):
        await events.tell(hold("Trader", trader_body()), "Warning", "PoolFull", "no room")
        await until(lambda: events.dropped == 1)
        assert (len(events), events.told, len(api.asked)) == (0, 0, 2)


async def test_of_too_many_that_wait_the_oldest_are_dropped_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chandlery.operator.events._MOST_WAITING", 2)
    api = Creator(UnavailableError("no answer"))
    events = Events(api, "test")
    for number in range(3):
        await events.tell(hold("Trader", trader_body(f"t{number}")), "Warning", "PoolFull", "no room")
    assert (len(events), events.dropped) == (2, 1)
    async with running(events, monkeypatch):
        await until(lambda: events.told == 2)
    assert [name.partition(".")[0] for name in api.asked[1:]] == ["t1", "t2"]


class Hanging:
    """An API server whose events endpoint answers nobody until it is told to."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answers = asyncio.Event()

    async def create(self, kind: Kind, body: Object) -> Object:
        self.asked.append(body["metadata"]["name"])
        await self.answers.wait()
        return body


async def test_where_nobody_answers_only_the_first_who_tell_wait_for_an_answer_and_not_for_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("chandlery.operator.events._FIRST_ATTEMPT_S", 0.01)
    now_s = 1000.0
    api = Hanging()
    events = Events(api, "test", clock=lambda: now_s)

    async def tell(number: int) -> bool:
        return await events.tell(hold("Trader", trader_body(f"t{number}")), "Warning", "PoolFull", "no room")

    async with asyncio.timeout(30):
        assert not any(await asyncio.gather(*(tell(number) for number in range(8))))
        assert not any([await tell(number) for number in range(400)])
        assert (len(api.asked), len(events)) == (8, 400)
        now_s += 10.0
        assert all([await tell(number) for number in range(400)]), "and their statuses may be written"
        api.answers.set()
        async with running(events, monkeypatch):
            await until(lambda: events.told == 400)
    assert (len(set(api.asked)), len(events), events.dropped) == (400, 0, 0)


async def test_an_event_that_is_never_taken_holds_up_none_that_comes_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    class Partly(Creator):
        async def create(self, kind: Kind, body: Object) -> Object:
            if body["regarding"]["name"].startswith("never"):
                self.answers.append(UnavailableError("500 its webhook is away"))
            return await super().create(kind, body)

    events = Events(Partly(), "test")
    for number in range(20):
        await events.tell(hold("Trader", trader_body(f"never{number}")), "Warning", "PoolFull", "no room")
    async with running(events, monkeypatch) as attempts:
        await until(lambda: len(attempts) > 20)
        await events.tell(hold("Trader", trader_body()), "Warning", "PoolFull", "no room")
        before = len(attempts)
        await until(lambda: events.told == 1)
        assert len(attempts) <= before + 2, "at the next attempt, whoever else waits"
    assert len(events) == 20
