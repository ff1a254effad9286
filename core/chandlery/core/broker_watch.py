"""Whether the broker is there: what the processes that live by it tell of it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final

from chandlery.core.errors import LoginError, UnavailableError
from chandlery.core.kafka_login import addresses_of, knock
from chandlery.core.settings import KafkaSettings

log = logging.getLogger("chandlery.broker")

# A busy machine may keep a new connection waiting; one that ends is noticed at once.
_CONNECT_MS: Final = 5_000
_RETRY_S: Final = 0.25
#: Why a login isn't even tried: something is wrong with the files it is made from.
_OF_SECRETS: Final = ("SecretMissing", "BadSecret")
#: A login that was refused is tried again this often: the broker logs each, and a Secret is mended by a person.
_LOGIN_RETRY_S: Final = 1.0


class BrokerWatch:
    """Holds one idle connection to the broker, logged in, to know at once when it goes and when it is back.

    Args:
        create_connection: aiokafka's ``create_conn``.

    Attributes:
        connected: now. reconnects: times it came back after having been away.
        problem: why it can't be entered; None: it can, or just isn't there.

    Raises:
        InputError: an address in ``kafka.bootstrap`` is not host:port.
    """

    def __init__(self, kafka: KafkaSettings, create_connection: Callable[..., Awaitable[Any]]) -> None:
        addresses_of(kafka.bootstrap)
        self._kafka = kafka
        self._create_connection = create_connection
        self.connected = False
        self.reconnects = 0
        self.problem: LoginError | None = None

    async def run(self, *, there: bool = False) -> None:
        """Watch until cancelled.

        Args:
            there: whether the broker has just been spoken with: if it is gone before the first look, its return counts.
        """
        ever = self.connected = there
        while True:
            gone = asyncio.Event()
            connection = await self._connect(gone)
            if connection is None:
                if self.connected:
                    self.connected = False
                    log.warning("broker gone")
                await asyncio.sleep(_RETRY_S if self.problem is None else _LOGIN_RETRY_S)
                continue
            if not self.connected:
                self.connected = True
                self.reconnects += ever
                log.info("broker connected", extra={"reconnects": self.reconnects})
                ever = True
            try:
                await gone.wait()  # set when the broker goes or tires of an idle connection
            finally:
                connection.close()

    async def _connect(self, gone: asyncio.Event) -> Any:
        try:
            connection = await knock(
                self._create_connection, self._kafka, request_timeout_ms=_CONNECT_MS, on_close=lambda *_: gone.set()
            )
        except LoginError as error:
            if str(error) != str(self.problem):
                log.error("can't enter Kafka", extra={"reason": error.reason, "problem": str(error)})
            self.problem = error
            return None
        except UnavailableError as error:
            log.debug("no connection", extra={"reason": str(error)})
            if self.problem is not None and self.problem.reason in _OF_SECRETS:
                self.problem = None  # they were read: what was wrong with them isn't any more, whatever the broker does
            return None
        self.problem = None
        return connection
