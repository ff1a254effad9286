"""What of a worker's status is a change that is told."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.workers_feed.feed_setup import feed_settings

from chandlery.core.settings import KafkaSettings
from chandlery.workers.feed.service import Feed

NOWHERE = KafkaSettings(bootstrap="127.0.0.1:1", feed="market")


async def test_that_the_broker_has_gone_is_told_though_nothing_else_moves(tmp_path: Path) -> None:
    feed = Feed(feed_settings(tmp_path, NOWHERE))
    try:
        await feed.start()
        await feed._cancel("ticks")
        await feed._cancel("watch")
        feed._each_second()
        for connected in (True, False):
            before = feed.status()
            feed._watch.connected = connected
            feed._each_second()
            after = feed.status()
            assert after.feed["broker_connected"] is connected
            assert after.version > before.version
    finally:
        await feed.stop()


async def test_every_figure_of_the_status_that_is_no_rate_nor_age_is_told_when_it_changes(tmp_path: Path) -> None:
    feed = Feed(feed_settings(tmp_path, NOWHERE))
    try:
        await feed.start()
        for name in list(feed._tasks):
            await feed._cancel(name)
        feed._each_second()
        version = feed.status().version
        feed._each_second()
        assert feed.status().version == version, "nothing has changed"
        feed._counts["consumer_restarts"] += 1
        feed._each_second()
        assert feed.status().version == version, "a client that tries again and again has changed nothing"
        for name in ("assignment_not_kept", "gaps", "held"):
            feed._counts[name] += 1
            feed._each_second()
            assert feed.status().version > version, name
            version = feed.status().version
    finally:
        await feed.stop()
    await asyncio.sleep(0)
