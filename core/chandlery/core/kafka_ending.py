"""How a client of aiokafka's is ended: in a bounded time, and without harm to who ends it.

Its own end (aiokafka 0.14: ``AIOKafkaConsumer.stop``, ``AIOKafkaProducer.stop``, ``AIOKafkaAdminClient.close``) cancels tasks
of its own and awaits them. It may wait for ever, take a cancellation of its caller for one of those tasks', and raise
the cancellation of a task that had not begun, or of a connection whose end was given up, as if its caller were cancelled.
So it runs as a task of its own here.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Final

log = logging.getLogger("chandlery.kafka")

#: The end of a client that has nothing to send takes milliseconds.
END_S: Final = 1.0
#: A task that took the first cancellation for another's ends with the second, in a few turns of the loop.
_SECOND_S: Final = 0.1
#: Ends that go on behind somebody who was cancelled, or a producer that has records left: a task that nobody holds could be collected half way.
_left: set[asyncio.Task[None]] = set()


async def end_client(client: Any, *, within_s: float = END_S) -> None:
    """End a consumer, a producer or an admin client, whatever state it is in.

    A producer that still has records goes on behind this until the broker has taken them, and ends then.

    Args:
        client: not to be used any more. within_s: for how long its end is waited for.

    Raises:
        asyncio.CancelledError: this task, and no other, was asked to end; the client ends behind it nevertheless.
    """
    flushes = hasattr(client, "flush")
    ending = asyncio.create_task(_end(client, None if flushes else within_s))
    _left.add(ending)
    ending.add_done_callback(_left.discard)
    await asyncio.wait({ending}, timeout=within_s if flushes else None)


async def _end(client: Any, within_s: float | None) -> None:
    stopping = asyncio.create_task(_stop(client))
    try:
        await asyncio.wait({stopping}, timeout=within_s)
        if not stopping.done():
            stopping.cancel()
            await asyncio.wait({stopping}, timeout=_SECOND_S)
    finally:  # also where the loop itself ends
        stopping.cancel()  # nothing, if it is done
        _cut(client)
    if stopping.done() and not stopping.cancelled() and (error := stopping.exception()) is not None:
        log.debug("client ended badly", extra={"reason": repr(error)})


async def _stop(client: Any) -> None:
    # A task of its own that is cancelled before its first step, as just after the start, would cut this short.
    await asyncio.sleep(0)
    await (client.stop if hasattr(client, "stop") else client.close)()


def _cut(client: Any) -> None:
    """Close the connections that there still are, without waiting for anything."""
    inner = getattr(client, "_client", None) or getattr(client, "client", None)
    if inner is None:
        return
    if inner._sync_task is not None:
        inner._sync_task.cancel()
    for connection in list(inner._conns.values()):
        abort(connection)
        connection.close()


def abort(connection: Any) -> None:
    """Drop a connection of aiokafka's client, if it is open: its end is neither negotiated nor waited for.

    Asked politely, a TLS connection of uvloop's (0.23) that is closed while a request is on its way waits for the end of
    its shutdown for 30 s.
    """
    if connection._writer is not None:
        connection._writer.transport.abort()
