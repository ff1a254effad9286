"""Events: each once, also where the API server didn't take the first."""

from __future__ import annotations

import pytest
from tests.operator_parts.operator_bodies import trader_body

from chandlery.core.errors import ChandleryError, UnavailableError
from chandlery.operator.cache import hold
from chandlery.operator.conditions import State
from chandlery.operator.events import Events
from chandlery.operator.kubernetes.api import Kind, Object, RefusedError, StaleError


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


@pytest.mark.parametrize("error", [UnavailableError("no answer"), RefusedError("403 forbidden")])
async def test_an_event_that_was_not_taken_is_told_by_the_next_who_says_it_and_then_no_more(
    error: ChandleryError,
) -> None:
    api = Creator(error)
    events, held = Events(api, "test"), hold("Trader", trader_body())
    for told in (0, 1, 1, 1):
        await events.tell_state(held, State("PoolFull", "no room", stalled=True))
        assert events.told == told
    assert len(api.asked) == 2
    assert len(set(api.asked)) == 1, "under one name, so that the API server knows it again"


async def test_an_event_that_is_there_already_is_told() -> None:
    api = Creator(StaleError("409 it is there"))
    events, held = Events(api, "test"), hold("Trader", trader_body())
    for _ in range(2):
        await events.tell(held, "Warning", "PoolFull", "no room")
    assert (len(api.asked), events.told) == (1, 0)
