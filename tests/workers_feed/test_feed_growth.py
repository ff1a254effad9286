"""Traders on new symbols join a running worker until its segment grows: the others go on, in the processes they have."""

from __future__ import annotations

import msgspec
import pytest
from tests.workers_feed.feed_setup import api, candle_writer, get, until
from tests.workers_feed.handover_desk import BTC, TRADER, House, LiveMarket, all_decided, house, spec

from chandlery.core.assignment import TraderAssignment, WorkerStatus
from chandlery.core.settings import KafkaSettings
from chandlery.stream.topics import ensure_topics

pytestmark = pytest.mark.broker
FIRST = 2
SYMBOLS = (BTC, *(f"N{number}/USDT" for number in range(6)))


def newcomer(number: int) -> TraderAssignment:
    """A Trader on a symbol of its own."""
    symbol = SYMBOLS[number]
    return msgspec.structs.replace(spec(1), trader=f"desk/n{number}", uid=f"uid-n{number}", symbols=[symbol])


async def everybody_active(worker: House, *traders: TraderAssignment) -> WorkerStatus:
    async def active() -> WorkerStatus | None:
        status = await worker.status()
        states = {status.traders[one.trader].state for one in traders if one.trader in status.traders}
        return status if states == {"Active"} and len(status.traders) == len(traders) else None

    found = await until(f"{len(traders)} traders active", active)
    assert isinstance(found, WorkerStatus)
    return found


@pytest.mark.parametrize("transport", ["SharedMemory", "Pipe"])
async def test_a_worker_grows_while_signals_go_on(kafka_settings: KafkaSettings, transport: str) -> None:
    await ensure_topics(kafka_settings)
    room = {"segment_first_series": FIRST, "segment_series": len(SYMBOLS), "series_grace_ms": 1_000}
    async with (
        candle_writer(kafka_settings) as writer,
        house("w-0", kafka_settings, transport=transport, **room) as worker,
    ):
        market = LiveMarket(writer, 0, SYMBOLS)
        await market.close(3)
        traders = [spec(1, trigger="EveryUpdate")]
        await worker.applied(*traders)
        pid = (await everybody_active(worker, *traders)).traders[TRADER].pid
        first = market.next
        begun: dict[str, int] = {}
        async with market.going(every_s=0.1):
            for number in range(1, len(SYMBOLS)):
                traders.append(newcomer(number))
                await worker.applied(*traders)
                await everybody_active(worker, *traders)
                begun[SYMBOLS[number]] = market.next + 1
            at = market.next
            await until("some more minutes", lambda: market.next > at + 5)
        status = await worker.status()
        segment = status.feed["segment"]
        assert (segment["growths"], segment["generation"], segment["series_room"]) == (2, 3, len(SYMBOLS))
        assert status.feed["refused_series"] == {}
        assert status.traders[TRADER].pid == pid
        assert {one.restarts for one in status.traders.values()} == {0}
        for symbol, minute in {BTC: first, **begun}.items():
            found = await all_decided(kafka_settings, minute, market.next - 1, symbol)
            assert {at: found[at] for at in range(minute, market.next)} == {
                at: [1] for at in range(minute, market.next)
            }
        assert status.feed["signals"]["dropped"] == {}
        # A minute is shown once and closes once: nobody is called again on what was there before a growth.
        assert status.traders[TRADER].calls <= 2 * (market.next - first + 1)
        await one_too_many(worker, traders)
        await let_go(worker, traders[:2])


async def one_too_many(worker: House, traders: list[TraderAssignment]) -> None:
    """Beyond the most there is no room: the Trader that waits for it says so."""
    late = msgspec.structs.replace(spec(1), trader="desk/late", uid="uid-late", symbols=["LATE/USDT"])
    await worker.assign(*traders, late)

    async def told() -> str:
        found = (await worker.status()).traders.get(late.trader)
        return found.message if found is not None and found.reason == "SeriesRefused" else ""

    message = await until("refused by name", told)
    assert message.startswith("series LATE/USDT 1m: the segment is full")
    assert "spec.segment.series" in message
    async with api(worker.settings) as client:
        absent = (await get(client, "/v1/segment"))["absent"]
    assert f"series LATE/USDT 1m: {absent['LATE/USDT 1m']}" == message


async def let_go(worker: House, left: list[TraderAssignment]) -> None:
    """Traders leave: after the grace their series are free."""
    await worker.applied(*left)

    async def freed() -> bool:
        segment = (await worker.status()).feed["segment"]
        return bool(segment["series_used"] == len(left) and segment["series_in_grace"] == 0)

    await until("the others' series freed", freed)
    async with api(worker.settings) as client:
        there = {one["symbol"] for one in (await get(client, "/v1/segment"))["series"]}
    assert there == {symbol for one in left for symbol in one.symbols}
