"""From one incarnation to the next on a real broker, while candles close: each is decided by exactly one."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from tests.workers_feed.feed_setup import MINUTE, candle_writer, published, rows, until
from tests.workers_feed.handover_desk import BTC, ETH, House, LiveMarket, all_decided, house, spec

from chandlery.core.assignment import TraderAssignment, WorkerStatus
from chandlery.core.settings import KafkaSettings
from chandlery.stream.broker import EmbeddedBroker
from chandlery.stream.topics import ensure_topics

pytestmark = pytest.mark.broker
#: Minutes between the newest one and the handover: orders arrive in time, mostly.
AHEAD = 8


async def agree(worker: House, market: LiveMarket, old: TraderAssignment, *beside: TraderAssignment) -> int:
    """Tell the old one its end until it acknowledges one that it hasn't passed; returns the open time there."""
    while True:
        at_ms = market.next_open_ms + AHEAD * MINUTE
        old.until_ms = at_ms
        status = await worker.applied(old, *beside)
        if status.traders[old.trader].last_open_time_ms < at_ms:
            return at_ms


async def hand_over(worker: House, market: LiveMarket, old: TraderAssignment, new: TraderAssignment) -> int:
    """From the old one to the new one while the market goes on, and some minutes more; returns the open time."""
    async with market.going():
        await worker.applied(old, new)
        await worker.reaches(2, "Warm")
        at_ms = await agree(worker, market, old, new)
        new.mode, new.from_ms = "active", at_ms
        await worker.applied(old, new)
        await worker.reaches(1, "Retired")
        await worker.applied(new)
        await until("some more minutes", lambda: market.next_open_ms > at_ms + 5 * MINUTE)
    return at_ms


def exactly_once(found: dict[int, list[int]], first: int, at_ms: int, last: int) -> None:
    at = at_ms // MINUTE
    expected = {minute: [1 if minute < at else 2] for minute in range(first, last + 1)}
    assert {minute: found[minute] for minute in sorted(found)} == expected


async def decided_forming(kafka: KafkaSettings) -> list[tuple[int, int]]:
    """Open time and incarnation of each signal on a forming candle."""
    out, _ = await published(kafka)
    return [(each.open_time_ms, each.incarnation) for each in out if each.forming]


async def forming_decided_by(incarnation: int, kafka: KafkaSettings, market: LiveMarket, trigger: str) -> None:
    """Show a candle that doesn't close yet, and wait for its decision, where there shall be one."""
    await market.show()
    if trigger == "EveryUpdate":
        shown = (market.next_open_ms, incarnation)

        async def decided() -> bool:
            return shown in await decided_forming(kafka)

        await until(f"a decision of {incarnation} on a forming candle", decided)


@pytest.mark.parametrize("transport", ["SharedMemory", "Pipe"])
@pytest.mark.parametrize("trigger", ["CandleClose", "EveryUpdate"])
async def test_a_handover_within_a_worker(kafka_settings: KafkaSettings, transport: str, trigger: str) -> None:
    await ensure_topics(kafka_settings)
    old, new = spec(1, trigger=trigger), spec(2, trigger=trigger, mode="standby")
    async with candle_writer(kafka_settings) as writer, house("w-0", kafka_settings, transport=transport) as worker:
        market = LiveMarket(writer, 0)
        await market.close(5)
        await worker.applied(old)
        await worker.reaches(1, "Active")
        await forming_decided_by(1, kafka_settings, market, trigger)
        at_ms = await hand_over(worker, market, old, new)
        found = await all_decided(kafka_settings, 5, market.next - 1)
        exactly_once(found, 5, at_ms, market.next - 1)
        assert (await worker.status()).feed["signals"]["dropped"] == {}
        await forming_decided_by(2, kafka_settings, market, trigger)
        if trigger == "EveryUpdate":
            forming = await decided_forming(kafka_settings)
            assert {number for at, number in forming if at >= at_ms} <= {2}


@pytest.mark.parametrize("fault", ["none", "new one standing by", "new one active", "supervisor", "feed"])
async def test_a_handover_between_two_workers(kafka_settings: KafkaSettings, fault: str) -> None:
    await ensure_topics(kafka_settings)
    old, new = spec(1), spec(2, mode="standby")
    async with (
        candle_writer(kafka_settings) as writer,
        house("w-0", kafka_settings) as here,
        house("w-1", kafka_settings) as there,
    ):
        market = LiveMarket(writer, 0)
        await market.close(5)
        await here.applied(old)
        await here.reaches(1, "Active")
        async with market.going():
            await there.applied(new)
            pid = (await there.reaches(2, "Warm")).pid
            at_ms = await agree(here, market, old)
            if fault == "new one standing by":
                os.kill(pid, signal.SIGKILL)
            elif fault in ("supervisor", "feed"):
                await there.kill(fault)
                await there.start(fault)
            new.mode, new.from_ms = "active", at_ms
            await there.assign(new)
            if fault == "new one active":
                await there.reaches(2, "Active")
                await until("it decides", lambda: market.next_open_ms > at_ms + 2 * MINUTE)
                os.kill(pid, signal.SIGKILL)
            elif fault in ("supervisor", "feed"):
                await here.kill(fault)
                await here.start(fault)
            await here.reaches(1, "Retired")
            await here.applied()
            await there.reaches(2, "Active")
            await until("some more minutes", lambda: market.next_open_ms > at_ms + 5 * MINUTE)
        found = await all_decided(kafka_settings, 5, market.next - 1)
        exactly_once(found, 5, at_ms, market.next - 1)


def after_all(status: WorkerStatus) -> int:
    """Open time of the candle after all that ``desk/a`` has decided."""
    return status.traders["desk/a"].last_open_time_ms + MINUTE


@pytest.mark.parametrize("here", [True, False], ids=["one worker", "two workers"])
async def test_an_end_at_the_very_next_candle_moves_behind_what_was_decided_meanwhile(
    kafka_settings: KafkaSettings, here: bool
) -> None:
    """As planners do it: no margin, and the successor begins when the old one hasn't heard yet that its end moved."""
    await ensure_topics(kafka_settings)
    symbols = [BTC, ETH]
    old, new = spec(1, symbols=symbols), spec(2, symbols=symbols, mode="standby")
    async with (
        candle_writer(kafka_settings) as writer,
        house("w-0", kafka_settings) as first,
        house("w-1", kafka_settings) as other,
    ):
        market = LiveMarket(writer, 0, (BTC, ETH))
        await market.close(5)
        await first.applied(old)
        await first.reaches(1, "Active")
        second = first if here else other
        beside = [new] if here else []
        async with market.going(every_s=0.005):
            await second.applied(*([old] if here else []), new)
            await second.reaches(2, "Warm")
            old.until_ms = after_all(await first.status())
            status = await first.applied(old, *beside)
            assert old.until_ms is not None
            at_ms = max(old.until_ms, after_all(status))
            new.mode, new.from_ms = "active", at_ms
            if not here:
                await other.applied(new)
                await other.reaches(2, "Active")
            old.until_ms = at_ms
            await first.applied(old, *beside)
            await first.reaches(1, "Retired")
            await first.applied(*beside)
            await until("some more minutes", lambda: market.next_open_ms > at_ms + 20 * MINUTE)
        for symbol in symbols:
            found = await all_decided(kafka_settings, 5, market.next - 1, symbol)
            exactly_once(found, 5, at_ms, market.next - 1)


async def test_a_dead_worker_s_traders_go_on_elsewhere_from_where_they_were(kafka_settings: KafkaSettings) -> None:
    await ensure_topics(kafka_settings)
    async with (
        candle_writer(kafka_settings) as writer,
        house("w-0", kafka_settings) as here,
        house("w-1", kafka_settings) as there,
    ):
        market = LiveMarket(writer, 0)
        await market.close(5)
        await here.applied(spec(1))
        await here.reaches(1, "Active")
        await market.close(5)
        await all_decided(kafka_settings, 5, 9)
        await here.kill("supervisor")
        await here.kill("feed")
        await market.close(5)
        await there.applied(spec(2, from_ms=10 * MINUTE))
        await market.close(2)
        found = await all_decided(kafka_settings, 5, 16)
        exactly_once(found, 5, 10 * MINUTE, 16)


@pytest.mark.slow
async def test_retired_means_that_the_broker_has_everything(tmp_path: Path) -> None:
    broker = EmbeddedBroker(tmp_path / "broker")
    await broker.start()
    try:
        kafka = KafkaSettings(bootstrap=broker.bootstrap, feed="handover")
        await ensure_topics(kafka)
        async with candle_writer(kafka) as writer, house("w-0", kafka) as worker:
            market = LiveMarket(writer, 0)
            await market.close(5)
            await worker.applied(spec(1, until_ms=8 * MINUTE))
            pid = (await worker.reaches(1, "Active")).pid
            os.kill(pid, signal.SIGSTOP)
            try:
                await market.close(5)
                await until("candles", lambda: len(rows(worker.settings, BTC)) == 10)
                broker.kill()
                await until("the feed sees it", lambda: _broker_gone(worker))
            finally:
                os.kill(pid, signal.SIGCONT)

            async def signalled() -> bool:
                found = await worker.incarnation(1)
                return found is not None and found.signals == 3

            await until("all of its own decided", signalled)
            found = await worker.incarnation(1)
            assert found is not None
            assert (found.state, found.last_open_time_ms) == ("Active", 7 * MINUTE)
            assert (await worker.status()).feed["rings"]["desk/a"]["depth"] == 3
            await broker.start()
            await worker.reaches(1, "Retired")
            assert await all_decided(kafka, 5, 7) == {5: [1], 6: [1], 7: [1]}
    finally:
        broker.kill()


async def _broker_gone(worker: House) -> bool:
    return not (await worker.status()).feed["broker_connected"]
