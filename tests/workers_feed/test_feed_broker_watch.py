"""What the feed says of a Kafka that it can't enter."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from chandlery.core import broker_watch
from chandlery.core.errors import LoginError, UnavailableError
from chandlery.core.settings import KafkaSettings
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
