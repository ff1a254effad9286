"""What processes say of a Kafka that they can't enter, and of one that comes back."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from chandlery.core import broker_watch
from chandlery.core.errors import LoginError, UnavailableError
from chandlery.core.settings import KafkaSettings
from chandlery.stream.ingest.sink import KafkaSink
from chandlery.workers.feed import clients


def answering(monkeypatch: pytest.MonkeyPatch, *answers: Exception) -> None:
    left = list(answers)

    async def knock(*_: object, **__: object) -> None:
        raise left.pop(0)

    monkeypatch.setattr(broker_watch, "knock", knock)


@pytest.mark.parametrize(
    ("reason", "kept"), [("SecretMissing", False), ("BadSecret", False), ("KafkaUnauthorized", True)]
)
async def test_a_secret_that_came_is_not_missing_any_more_though_the_broker_does_not_answer(
    monkeypatch: pytest.MonkeyPatch, reason: str, kept: bool
) -> None:
    refused = LoginError("no", reason=reason)
    answering(monkeypatch, refused, UnavailableError("nothing"))
    watch = clients.broker_watch(KafkaSettings(bootstrap="none:1", feed="market"))
    connect: Callable[[asyncio.Event], Awaitable[object]] = watch._connect
    await connect(asyncio.Event())
    assert watch.problem is refused
    await connect(asyncio.Event())
    assert (watch.problem is refused) is kept


async def test_a_broker_that_went_before_the_first_look_comes_back_where_others_had_just_spoken_with_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    back = asyncio.Event()
    answers = [False, True]

    class Connection:
        def close(self) -> None:
            """It was never one."""

    async def knock(*_: object, **__: object) -> Connection:
        if not answers.pop(0):
            raise UnavailableError("nothing")
        back.set()
        return Connection()

    monkeypatch.setattr(broker_watch, "knock", knock)
    monkeypatch.setattr(broker_watch, "_RETRY_S", 0.0)
    watch = clients.broker_watch(KafkaSettings(bootstrap="none:1", feed="market"))
    running = asyncio.create_task(watch.run(there=True))
    await asyncio.wait_for(back.wait(), 20)
    await asyncio.sleep(0)
    assert (watch.connected, watch.reconnects) == (True, 1)
    running.cancel()
    await asyncio.wait([running])


async def test_a_login_that_is_refused_once_all_runs_is_what_ingest_says_of_it() -> None:
    sink = KafkaSink(KafkaSettings(bootstrap="none:1", feed="market"))
    assert sink.problem is None
    sink._watch.problem = refused = LoginError("no", reason="KafkaUnauthorized")
    assert sink.problem is refused
