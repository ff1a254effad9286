"""Connections of the feed's Unix sockets: cut at its end without a word, and told of when they are served badly."""

from __future__ import annotations

import asyncio
import tempfile
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from chandlery.workers.feed.connections import Connections
from chandlery.workers.feed.control import ControlServer


@pytest_asyncio.fixture
async def told() -> AsyncIterator[list[dict[str, Any]]]:
    """What the loop is told that went wrong."""
    contexts: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: contexts.append(context))
    yield contexts
    loop.set_exception_handler(None)


@pytest.fixture
def path() -> Any:
    # Not pytest's tmp_path: a Unix socket's path may have 107 bytes only.
    with tempfile.TemporaryDirectory(prefix="chandlery-") as folder:
        yield Path(folder) / "a.sock"


async def test_a_feed_that_ends_while_its_supervisor_is_connected_says_nothing_of_it(
    path: Path, told: list[dict[str, Any]]
) -> None:
    connected = asyncio.Event()
    server = ControlServer(path, Counter(), lambda _: None, connected.set)
    await server.start()
    reader, writer = await asyncio.open_unix_connection(str(path))
    await asyncio.wait_for(connected.wait(), 20)
    await server.stop()
    assert await asyncio.wait_for(reader.read(), 20) == b""
    writer.close()
    assert told == []


async def test_a_connection_that_is_served_badly_is_told(path: Path, told: list[dict[str, Any]]) -> None:
    async def serve(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()
        raise RuntimeError("a defect")

    connections = Connections(serve)
    server = await asyncio.start_unix_server(connections.accept, str(path))
    reader, writer = await asyncio.open_unix_connection(str(path))
    await asyncio.wait_for(reader.read(), 20)
    writer.close()
    server.close()
    await connections.stop()
    assert [str(context["exception"]) for context in told] == ["a defect"]
