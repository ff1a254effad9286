"""Fixtures that all tests share: one embedded Kafka a test session."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
import threading
from collections.abc import Coroutine, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, TypeVar

import pytest

from chandlery.core.settings import KafkaSettings
from chandlery.stream.broker import EmbeddedBroker

pytest.register_assert_rewrite("tests.support.whole_traces", "tests.support.otlp_receiver")

Result = TypeVar("Result")

# A shell's background job ignores SIGINT, and so would every process that a test starts there: Ctrl-C would
# reach none of them.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


END_TO_END = Path(__file__).parent / "e2e"


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave ``tests/e2e`` out where it isn't named on the command line: it starts whole clusters (`make e2e`)."""
    if collection_path != END_TO_END:
        return None
    named = (Path(config.invocation_params.dir, word.partition("::")[0]).resolve() for word in config.args)
    return None if any(path.is_relative_to(END_TO_END) for path in named) else True


class LoopThread:
    """An event loop in a thread of its own, so that what it owns outlives the loop of any one test."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="broker-loop", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, Result], timeout_s: float = 600.0) -> Result:
        """Run a coroutine there and wait for its result."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout_s)

    def close(self) -> None:
        """End the loop and its thread."""
        self.run(self._loop.shutdown_default_executor())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()


@contextlib.contextmanager
def entered_beside(made: AbstractAsyncContextManager[Result]) -> Iterator[Result]:
    """What an asynchronous context gives, entered in a loop of its own: for tests that have none."""
    thread = LoopThread()
    try:
        given = thread.run(made.__aenter__())
        try:
            yield given
        finally:
            thread.run(made.__aexit__(None, None, None))
    finally:
        thread.close()


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedBroker]:
    """A real Kafka, started once a session; give clients its ``.bootstrap``. Don't stop it: others use it."""
    thread = LoopThread()
    embedded = EmbeddedBroker(tmp_path_factory.mktemp("broker"))
    try:
        thread.run(embedded.start())
        yield embedded
        thread.run(embedded.stop())
    finally:
        embedded.kill()
        thread.close()


_feeds = itertools.count(1)


@pytest.fixture
def kafka_settings(broker: EmbeddedBroker) -> KafkaSettings:
    """Settings with a feed name of this test's own: its topics are nobody else's. They aren't created yet."""
    return KafkaSettings(bootstrap=broker.bootstrap, feed=f"test-{os.getpid()}-{next(_feeds)}")
