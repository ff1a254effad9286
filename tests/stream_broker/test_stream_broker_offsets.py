"""Offsets of a Kafka that was there and answers no more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from chandlery.core.errors import UnavailableError
from chandlery.core.settings import KafkaSettings
from chandlery.stream import topics


async def test_ends_that_a_broker_never_tells_are_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where an instance ends while somebody asks for its signals."""

    class Silent:
        stopped = False

        async def start(self) -> None:
            """It is there."""

        async def end_offsets(self, _partitions: object) -> None:
            await asyncio.Event().wait()

        async def stop(self) -> None:
            self.stopped = True

    @asynccontextmanager
    async def admin(_kafka: KafkaSettings) -> AsyncIterator[None]:
        yield

    async def partitions(_admin: object, names: list[str]) -> dict[str, dict[int, int]]:
        return {name: {0: 1} for name in names}

    consumer = Silent()
    monkeypatch.setattr(topics, "_admin", admin)
    monkeypatch.setattr(topics, "_partitions", partitions)
    monkeypatch.setattr(topics, "kafka_client", lambda *_, **__: consumer)
    monkeypatch.setattr(topics, "_OFFSETS_S", 0.01)
    with pytest.raises(UnavailableError, match="doesn't answer: TimeoutError"):
        await topics.end_offsets(KafkaSettings("nowhere:1", "market"), "market.signals")
    assert consumer.stopped
