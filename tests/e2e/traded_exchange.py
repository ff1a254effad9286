"""An exchange beside the cluster whose symbols are traded all the time, and what a feed's ingest has of it."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.e2e.cluster.commands import ClusterError
from tests.e2e.desk import eventually
from tests.e2e.kubectl import Namespace, Resource
from tests.support.exchange_server import ExchangeServer, trade_frame

from chandlery.operator.children.naming import INGEST_PORT


@asynccontextmanager
async def traded_exchange(host: str) -> AsyncIterator[ExchangeServer]:
    """It has BTC/USDT and ETH/USDT, each with a trade every tenth of a second, numbered without a gap."""
    async with ExchangeServer(known=["btcusdt", "ethusdt"], host=host) as server:
        trading = asyncio.create_task(_trade(server))
        try:
            yield server
        finally:
            trading.cancel()
            await asyncio.wait([trading])


async def _trade(exchange: ExchangeServer) -> None:
    for number in itertools.count(1):
        now_ms = time.time_ns() // 1_000_000
        for symbol in ("BTCUSDT", "ETHUSDT"):
            await exchange.send(trade_frame(symbol, number, f"{100 + number % 7}.5", "0.01", now_ms))
        await asyncio.sleep(0.1)


def ingested(namespace: Namespace, feed: str) -> Resource:
    """What a feed's ingest says of itself; of a process that begins again, as soon as it answers."""
    ask = (
        "import urllib.request as r;"
        f"print(r.urlopen('http://127.0.0.1:{INGEST_PORT}/v1/status', timeout=5).read().decode())"
    )
    found: list[Resource] = []

    def answers() -> bool:
        try:
            found.append(json.loads(namespace.execute(f"{feed}-ingest-0", "python", "-c", ask)))
        except ClusterError:
            return False
        return True

    eventually("ingest's answer", answers)
    return found[0]
