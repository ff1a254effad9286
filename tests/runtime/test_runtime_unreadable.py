"""A whole run among whose trades somebody else puts what can't be read, and the run after it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from tests.runtime.up_process import Up, teller, until, write_manifests

from chandlery.core.settings import KafkaSettings
from chandlery.core.topics import topics_of

pytestmark = [pytest.mark.broker, pytest.mark.slow, pytest.mark.timeout(400)]

#: Key and value: of a symbol that is traded, of one that isn't, of none.
FOREIGN = ((b"BTC/USDT", b"not a record"), (b"NO/SUCH", b"{}"), (None, b"\xff"))


def signals(up: Up) -> int:
    row = up.trader("one")
    return row.signals if row is not None else 0


async def append(kafka: KafkaSettings) -> None:
    """Put the foreign records among a feed's trades, and wait until Kafka has them."""
    async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap) as producer:
        for key, value in FOREIGN:
            await producer.send_and_wait(topics_of(kafka).trades, value, key=key)


def judged(up: Up) -> dict[str, Any]:
    """End a run that is to end by itself; its summary, of a run that was as it should be."""
    up.process.terminate()
    summary = up.summary()
    assert up.wait() == 0, up.said
    assert summary["problems"] == []
    assert summary["reconciles"] is True
    return summary


def test_records_that_cannot_be_read_are_counted_in_their_run_and_fail_none(tmp_path: Path) -> None:
    manifests = write_manifests(tmp_path / "m", one=teller("one"))
    with Up(tmp_path, manifests, "--for", "300s", "--json") as up:
        feed = up.running().feeds[0]
        until(lambda: signals(up) > 0, "signals before")
        asyncio.run(append(feed.kafka()))
        before = signals(up)
        until(lambda: signals(up) > before + 2, lambda: f"signals go on after {before}: {up.trader('one')}")
        summary = judged(up)
    trades = summary["trades"]
    assert (trades["dead"], trades["unreadable"]) == (3, 3)
    assert trades["received"] == trades["ingested"] + 3
    assert (summary["drops"]["dead"], summary["drops"]["aggregator_records"]) == (3, 3)

    with Up(tmp_path, manifests, "--for", "300s", "--json") as again:
        again.running()
        until(lambda: signals(again) > 2, "signals of the run after it")
        summary = judged(again)
    assert summary["trades"]["unreadable"] == 0
    # Forming updates that their candle's close overtook: two topics keep no order between them. And what the first run left.
    assert summary["drops"].keys() <= {"stale_forming", "held_dropped", "session"}
