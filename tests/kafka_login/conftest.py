"""One broker with logins a session of this folder."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator

import pytest
from tests.conftest import LoopThread
from tests.kafka_login.secured_broker import SecuredBroker


@pytest.fixture(scope="session")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredBroker]:
    """Don't stop it, nor change :data:`USER`'s password: others use it."""
    thread = LoopThread()
    made = SecuredBroker(tmp_path_factory.mktemp("secured"))
    try:
        thread.run(made.start())
        made.restart = lambda: thread.run(made.restarted())
        yield made
        thread.run(made.broker.stop())
    finally:
        made.broker.kill()
        thread.close()


_feeds = itertools.count(1)


@pytest.fixture
def feed() -> str:
    """Name of a feed of this test's own."""
    return f"login-{os.getpid()}-{next(_feeds)}"
