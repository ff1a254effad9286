"""What is told of a peer that answers nonsense: enough to find it, nothing of what was sent to it."""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest

from chandlery.core.errors import UnavailableError
from chandlery.core.http_errors import in_words
from chandlery.core.kube_credentials import Credentials
from chandlery.operator.kubernetes.api import KubeApi
from chandlery.operator.kubernetes.kinds import POD
from chandlery.operator.workerlink import PodEndpoint

TOKEN = "a-token-that-nobody-may-read"


@asynccontextmanager
async def nonsense() -> AsyncIterator[int]:
    """A peer whose answers are no HTTP; gives its port."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 wrong\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


@pytest.fixture(autouse=True)
def every_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)


def assert_untold(error: BaseException, caplog: pytest.LogCaptureFixture) -> None:
    assert "BadStatusLine" in str(error) or "BadHttpMessage" in str(error) or "ClientResponseError" in str(error)
    assert TOKEN not in "".join(traceback.format_exception(error))
    assert TOKEN not in caplog.text


async def test_a_worker_that_answers_nonsense_is_told_of_without_its_token(caplog: pytest.LogCaptureFixture) -> None:
    async with nonsense() as port, aiohttp.ClientSession() as session:
        endpoint = PodEndpoint(session, lambda: TOKEN, port)
        endpoint.address = "127.0.0.1"
        with pytest.raises(UnavailableError) as caught:
            await endpoint.call("PUT", "/v1/assignment", b"{}")
    assert_untold(caught.value, caplog)


async def test_an_api_server_that_answers_nonsense_is_told_of_without_the_token(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with nonsense() as port:
        api = KubeApi(Credentials(f"http://127.0.0.1:{port}", None, _token=TOKEN))
        try:
            with pytest.raises(UnavailableError) as listed:
                await api.list(POD)
            with pytest.raises(UnavailableError) as watched:
                async for _ in api.watch(POD, "", "1", silence_s=5.0):
                    pass
        finally:
            await api.close()
    assert_untold(listed.value, caplog)
    assert_untold(watched.value, caplog)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (TimeoutError(), "TimeoutError"),
        (ConnectionRefusedError(111, "Connection refused"), "ConnectionRefusedError: Connection refused"),
        (aiohttp.ServerDisconnectedError(), "ServerDisconnectedError: Server disconnected"),
        (RuntimeError(TOKEN), "RuntimeError"),
    ],
)
def test_an_error_is_told_by_its_type_and_message(error: Exception, words: str) -> None:
    assert in_words(error) == words
