"""Whether a broker serves: asked as its clients will ask."""

from __future__ import annotations

import asyncio
from typing import Final

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from chandlery.core.kafka_ending import end_client

_REQUEST_TIMEOUT_MS: Final = 2_000
_CONNECT_TIMEOUT_S: Final = 2.0


async def accepts_connections(bootstrap: str) -> bool:
    """Whether any of the ``host:port,host:port`` takes a TCP connection.

    Asked before aiokafka is, which logs an error for each refused connection: of a broker that is starting,
    refusal is what is expected.
    """
    for address in bootstrap.split(","):
        host, _, port = address.strip().rpartition(":")
        try:
            async with asyncio.timeout(_CONNECT_TIMEOUT_S):
                _, writer = await asyncio.open_connection(host.strip("[]"), int(port))
        except (OSError, ValueError):
            continue
        writer.close()
        return True
    return False


async def is_ready(bootstrap: str, cluster_id: str) -> bool:
    """Whether the broker of this cluster is registered and every partition has a leader.

    Args:
        bootstrap: ``host:port``.
        cluster_id: what it must say its cluster is: another broker on that port is not ours.
    """
    if not await accepts_connections(bootstrap):
        return False
    client = AIOKafkaAdminClient(
        bootstrap_servers=bootstrap, client_id="chandlery-ready", request_timeout_ms=_REQUEST_TIMEOUT_MS
    )
    try:
        await client.start()
        cluster = await client.describe_cluster()
        if cluster.get("cluster_id") != cluster_id or not cluster.get("brokers"):
            return False
        topics = await client.describe_topics()
    except (KafkaError, OSError):
        return False
    finally:
        await end_client(client)
    return all(partition["leader"] >= 0 for topic in topics for partition in topic["partitions"])
