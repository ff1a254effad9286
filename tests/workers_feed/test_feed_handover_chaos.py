"""One handover after another while whatever there is gets killed: each candle is still decided by exactly one."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
from collections.abc import AsyncIterator

import aiohttp
import msgspec
import pytest
from tests.workers_feed.feed_setup import MINUTE, candle_writer, until
from tests.workers_feed.handover_desk import BTC, ETH, TRADER, House, LiveMarket, all_decided, house, spec

from chandlery.core.assignment import TraderAssignment, TraderStatus, WorkerStatus
from chandlery.core.settings import KafkaSettings
from chandlery.stream.topics import ensure_topics

pytestmark = [pytest.mark.broker, pytest.mark.slow]
SYMBOLS = (BTC, ETH)
PATIENCE_S = 60.0


async def told(worker: House) -> WorkerStatus | None:
    """The worker's status; None while there is no feed."""
    with contextlib.suppress(aiohttp.ClientError, OSError):
        return await worker.status()
    return None


async def assigned(worker: House, *traders: TraderAssignment) -> WorkerStatus:
    """An assignment pushed until it is taken, and its acknowledgement waited for."""
    worker.sequence += 1

    async def taken() -> bool:
        worker.sequence -= 1  # it counts one more with each push
        with contextlib.suppress(aiohttp.ClientError, OSError):
            await worker.assign(*traders)
            return True
        return False

    async def acknowledged() -> WorkerStatus | None:
        status = await told(worker)
        return status if status is not None and status.sequence == worker.sequence else None

    await until("assignment taken", taken, PATIENCE_S)
    found = await until(f"assignment {worker.sequence} acknowledged", acknowledged, PATIENCE_S)
    assert isinstance(found, WorkerStatus)
    return found


async def reaches(worker: House, state: str, *, successor: bool) -> None:
    """Wait until the Trader, or its successor, is in a state."""

    async def there() -> TraderStatus | None:
        status = await told(worker)
        found = None if status is None else (status.successors if successor else status.traders).get(TRADER)
        return found if found is not None and found.state == state else None

    await until(f"{'successor' if successor else 'trader'} {state}", there, PATIENCE_S)


@contextlib.asynccontextmanager
async def kills(worker: House, dice: random.Random) -> AsyncIterator[None]:
    """kill -9 of processes at random meanwhile; feed and supervisor are started again, as in a pod."""
    stop = asyncio.Event()

    async def rage() -> None:
        while not stop.is_set():
            await asyncio.sleep(dice.uniform(0.1, 0.8))
            part = dice.choice(["trader", "trader", "trader", "supervisor", "feed"])
            if part != "trader":
                await worker.kill(part)
                await worker.start(part)
                continue
            status = await told(worker)
            victims = [] if status is None else [*status.traders.values(), *status.successors.values()]
            pids = [each.pid for each in victims if each.pid]
            if pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(dice.choice(pids), signal.SIGKILL)

    task = asyncio.create_task(rage())
    try:
        yield
    finally:
        stop.set()
        await task


@pytest.mark.parametrize(("seed", "transport"), [(1, "SharedMemory"), (2, "Pipe")])
async def test_handovers_among_random_kills(kafka_settings: KafkaSettings, seed: int, transport: str) -> None:
    await ensure_topics(kafka_settings)
    dice = random.Random(seed)
    async with candle_writer(kafka_settings) as writer, house("w-0", kafka_settings, transport=transport) as worker:
        market = LiveMarket(writer, 0, SYMBOLS)
        await market.close(5)
        old = spec(1, symbols=list(SYMBOLS))
        await worker.applied(old)
        await worker.reaches(1, "Active")
        await market.close(2)
        for symbol in SYMBOLS:
            await all_decided(kafka_settings, 5, 6, symbol)
        bounds: list[int] = []
        async with market.going(every_s=0.02):
            for number in (2, 3, 4):
                new = spec(number, symbols=list(SYMBOLS), mode="standby")
                async with kills(worker, dice):
                    bounds.append(await _hand_over(worker, old, new))
                status = await assigned(worker, new)
                assert status.traders[TRADER].incarnation == number
                old = new
            await until("some more minutes", lambda: market.next_open_ms > bounds[-1] + 10 * MINUTE)
        expected = {minute: [1 + sum(minute * MINUTE >= bound for bound in bounds)] for minute in range(5, market.next)}
        for symbol in SYMBOLS:
            found = await all_decided(kafka_settings, 5, market.next - 1, symbol)
            assert {minute: found[minute] for minute in sorted(found)} == expected


async def _hand_over(worker: House, old: TraderAssignment, new: TraderAssignment) -> int:
    """As planners do it, without a margin; returns the open time at which the new one begins."""

    def after_all(status: WorkerStatus) -> int:
        # One that has only just taken over may have decided nothing yet.
        return max(old.from_ms, status.traders[TRADER].last_open_time_ms + MINUTE)

    status = await assigned(worker, old, new)
    await reaches(worker, "Warm", successor=True)
    old.until_ms = after_all(status)
    status = await assigned(worker, old, new)
    at_ms = max(old.until_ms, after_all(status))
    old.until_ms = new.from_ms = at_ms
    new.mode = "active"
    await assigned(worker, msgspec.structs.replace(old), new)
    await reaches(worker, "Retired", successor=False)
    return at_ms
