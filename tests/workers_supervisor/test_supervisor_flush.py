"""What a supervisor waits for when it has told its feed the last: that it is out, and not for ever."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from tests.workers_supervisor.fake_feed import PATIENCE_S

from chandlery.workers.control_messages import StatusMessage
from chandlery.workers.supervisor import feed_link
from chandlery.workers.supervisor.feed_link import FeedLink

#: A status of 8 KiB.
STATUS = StatusMessage(7, "hash", {}, [{"name": "x" * 8_000}])


class DeafFeed:
    """A feed's control socket: it accepts, and reads when it is told to."""

    def __init__(self, listening: socket.socket) -> None:
        self._listening = listening
        self.line: socket.socket | None = None

    async def accept(self) -> None:
        self.line, _ = await asyncio.get_running_loop().sock_accept(self._listening)
        self.line.setblocking(False)

    async def read(self) -> None:
        assert self.line is not None
        while await asyncio.get_running_loop().sock_recv(self.line, 65_536):
            pass


@contextlib.asynccontextmanager
async def connected() -> AsyncIterator[tuple[FeedLink, DeafFeed]]:
    # Not pytest's tmp_path: a Unix socket's path may have 107 bytes only.
    with TemporaryDirectory(prefix="chandlery-") as folder, socket.socket(socket.AF_UNIX) as listening:
        path, stands = str(Path(folder) / "control.sock"), asyncio.Event()
        listening.bind(path)
        listening.listen()
        listening.setblocking(False)
        feed = DeafFeed(listening)
        link = FeedLink(path, lambda _: None, lambda _: None, stands.set)
        task = asyncio.create_task(link.run())
        try:
            await feed.accept()
            await asyncio.wait_for(stands.wait(), PATIENCE_S)
            yield link, feed
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            if feed.line is not None:
                feed.line.close()


def queued(link: FeedLink) -> int:
    """Bytes that the system hasn't taken yet."""
    assert link._writer is not None
    return link._writer.transport.get_write_buffer_size()


async def test_a_feed_that_does_not_read_is_waited_for_with_a_bound_and_the_log_says_what_it_was_not_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(feed_link, "FLUSH_S", 0.05)
    async with connected() as (link, _):
        while queued(link) < 100_000:  # more than asyncio lets pass
            assert link.send(STATUS)
        await asyncio.wait_for(link.flush(), PATIENCE_S)
        (told,) = [one for one in caplog.records if one.levelno == logging.WARNING]
        assert "the feed was not told all" in told.getMessage()
        assert told.__dict__["untold_bytes"] == queued(link) > 0


async def test_a_flush_is_over_when_the_last_byte_is_out(caplog: pytest.LogCaptureFixture) -> None:
    async with connected() as (link, feed):
        while not queued(link):
            assert link.send(STATUS)
        flushed = asyncio.create_task(link.flush())
        for _ in range(10):
            await asyncio.sleep(0)
        assert not flushed.done(), "some of it isn't out, be it little"
        reading = asyncio.create_task(feed.read())
        await asyncio.wait_for(flushed, PATIENCE_S)
        assert queued(link) == 0
        assert not [one for one in caplog.records if one.levelno == logging.WARNING]
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
