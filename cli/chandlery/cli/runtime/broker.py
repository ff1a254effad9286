"""The broker of a local instance: the embedded one, kept running, or somebody else's."""

from __future__ import annotations

import asyncio
import logging
import random

from chandlery.cli.runtime.children import backoff_s
from chandlery.cli.runtime.options import UpOptions
from chandlery.cli.runtime.say import Say
from chandlery.cli.runtime.statedir import StateDir
from chandlery.core.errors import ChandleryError
from chandlery.stream.broker import EmbeddedBroker

log = logging.getLogger("chandlery.up")


class Broker:
    """Where Kafka is, and its process where it is ours.

    Attributes:
        restarts: unexpected ends so far. notices: what a person should know now.
    """

    def __init__(self, options: UpOptions, state: StateDir) -> None:
        self.restarts = 0
        self.notices: list[str] = []
        self._external = options.kafka
        self._port = options.port
        self._state = state
        self._embedded: EmbeddedBroker | None = None

    @property
    def bootstrap(self) -> str:
        """``host:port``."""
        if self._external is not None:
            return self._external
        return self._embedded.bootstrap if self._embedded is not None else ""

    @property
    def pid(self) -> int:
        """Pid of the embedded broker; 0 when there is none or it doesn't run."""
        return self._embedded.pid if self._embedded is not None and self._embedded.running else 0

    @property
    def embedded(self) -> bool:
        """Whether the broker is ours to start and stop."""
        return self._external is None

    async def start(self, say: Say) -> None:
        """Start the embedded broker; nothing to do for another one.

        Raises:
            ChandleryError: it can't start.
        """
        if self._external is not None:
            return
        self._embedded = EmbeddedBroker(self._state.broker, port=self._port)
        await self._embedded.start(say)

    async def keep(self) -> None:
        """Start the embedded broker again whenever it ends, until cancelled."""
        attempt = 0
        while self._embedded is not None:
            code = await self._embedded.wait()
            attempt += 1
            self.restarts += 1
            log.error("broker ended unexpectedly", extra={"exit": code})
            self.notices = [f"Kafka ended unexpectedly (exit code {code}); starting it again"]
            await asyncio.sleep(backoff_s(attempt, random.random()))
            try:
                await self._embedded.start()
            except ChandleryError as error:
                self.notices = [f"Kafka doesn't start again: {error}"]
                log.error("broker does not start again", extra={"problem": str(error)})
            else:
                self.notices, attempt = [], 0

    async def stop(self) -> None:
        """End the embedded broker in order."""
        if self._embedded is not None:
            await self._embedded.stop()

    def kill(self) -> None:
        """End the embedded broker at once; its data stay."""
        if self._embedded is not None:
            self._embedded.kill()
