"""Whether a broker serves: asked as its clients will ask."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

_REQUEST_TIMEOUT_MS: Final = 2_000


@contextmanager
def _quiet() -> Iterator[None]:
    """Refused connections are what is expected of a broker that starts; aiokafka logs each as an error."""
    logger = logging.getLogger("aiokafka")
    before = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(before)


async def is_ready(bootstrap: str, cluster_id: str) -> bool:
    """Whether the broker of this cluster is registered and every partition has a leader.

    Args:
        bootstrap: ``host:port``.
        cluster_id: what it must say its cluster is: another broker on that port is not ours.
    """
    client = AIOKafkaAdminClient(
        bootstrap_servers=bootstrap, client_id="chandlery-ready", request_timeout_ms=_REQUEST_TIMEOUT_MS
    )
    with _quiet():
        try:
            await client.start()
            cluster = await client.describe_cluster()
            if cluster.get("cluster_id") != cluster_id or not cluster.get("brokers"):
                return False
            topics = await client.describe_topics()
        except (KafkaError, OSError):
            return False
        finally:
            await client.close()
    return all(partition["leader"] >= 0 for topic in topics for partition in topic["partitions"])
