"""Traders on shared memory and on pipes in one worker, over the same feed, on a real broker with real processes."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.workers_feed.feed_setup import candle_writer, published, rows, until
from tests.workers_feed.handover_desk import BTC, ETH, House, LiveMarket, all_decided, house, spec
from tests.workers_feed.test_feed_handover import exactly_once, hand_over

from chandlery.core.assignment import TraderAssignment
from chandlery.core.settings import KafkaSettings
from chandlery.core.transports import Transport
from chandlery.stream.topics import ensure_topics

pytestmark = pytest.mark.broker


def named(name: str, **changes: Any) -> TraderAssignment:
    """``desk/NAME``, on both symbols."""
    return spec(1, trader=f"desk/{name}", uid=f"uid-{name}", symbols=[BTC, ETH], **changes)


def has_numpy(worker: House) -> bool:
    """Whether the feed's process has loaded what windows are made with."""
    return "numpy" in Path(f"/proc/{worker.processes['feed'].pid}/maps").read_text()


async def decided(kafka: KafkaSettings) -> dict[str, set[tuple[object, ...]]]:
    """By Trader what was decided: all of a signal but whose it is, and when it was made."""
    out, _ = await published(kafka)
    found: defaultdict[str, set[tuple[object, ...]]] = defaultdict(set)
    for one in out:
        said = msgspec.structs.asdict(one)
        for own in ("id", "trader", "stamps", "emitted_wall_ms", "strategy_ns"):
            del said[own]
        found[one.trader].add(tuple(said.items()))
    return found


async def test_both_transports_in_one_worker_decide_alike_on_candles_consumed_once(
    kafka_settings: KafkaSettings,
) -> None:
    await ensure_topics(kafka_settings)
    shared, piped = named("shared"), named("piped", transport="Pipe")
    async with candle_writer(kafka_settings) as writer, house("w-0", kafka_settings) as worker:
        market = LiveMarket(writer, 0, (BTC, ETH))
        await market.close(5)
        await worker.applied(shared)
        assert not has_numpy(worker)
        status = await worker.applied(shared, piped)
        assert {name: one.transport for name, one in status.traders.items()} == {
            "desk/shared": "SharedMemory",
            "desk/piped": "Pipe",
        }

        async def both_active() -> bool:
            return {one.state for one in (await worker.status()).traders.values()} == {"Active"}

        await until("both are active", both_active)
        before = (await worker.status()).feed
        first = market.next
        await market.close(20)

        async def all_told() -> dict[str, set[tuple[object, ...]]] | None:
            found = await decided(kafka_settings)
            return found if all(len(found[name]) == 40 for name in ("desk/shared", "desk/piped")) else None

        found = await until("each has decided 20 candles of two symbols", all_told)
        after = (await worker.status()).feed
    assert found["desk/shared"] == found["desk/piped"]
    assert market.next == first + 20
    assert after["candles"]["closed"] - before["candles"]["closed"] == 40, "a second consumption of Kafka"
    assert after["candles"]["duplicate"] == before["candles"]["duplicate"]
    assert after["signals"]["dropped"] == {}


@pytest.mark.parametrize(("old_one", "new_one"), [(None, "Pipe"), ("Pipe", "SharedMemory")])
async def test_a_handover_from_one_transport_to_the_other_misses_and_doubles_nothing(
    kafka_settings: KafkaSettings, old_one: Transport | None, new_one: Transport
) -> None:
    await ensure_topics(kafka_settings)
    old, new = spec(1, transport=old_one), spec(2, transport=new_one, mode="standby")
    async with candle_writer(kafka_settings) as writer, house("w-0", kafka_settings) as worker:
        market = LiveMarket(writer, 0)
        await market.close(5)
        await worker.applied(old)
        await worker.reaches(1, "Active")
        at_ms = await hand_over(worker, market, old, new)
        found = await all_decided(kafka_settings, 5, market.next - 1)
        exactly_once(found, 5, at_ms, market.next - 1)
        status = await worker.status()
        assert status.traders["desk/a"].transport == new_one
        assert status.feed["signals"]["dropped"] == {}


async def test_a_trader_on_pipes_that_comes_after_the_last_one_left_is_served_whole_windows(
    kafka_settings: KafkaSettings,
) -> None:
    await ensure_topics(kafka_settings)
    async with candle_writer(kafka_settings) as writer, house("w-0", kafka_settings) as worker:
        market = LiveMarket(writer, 0, (BTC, ETH))
        await market.close(3)
        await worker.applied(named("shared"), named("first", transport="Pipe"))
        await worker.applied(named("shared"))
        sent = (await worker.status()).feed["events"].get("windows_sent", 0)
        await market.close(3)
        # What the feed took in only later would be sent beside the whole windows.
        for symbol in (BTC, ETH):
            await until(f"{symbol} taken in", lambda symbol=symbol: len(rows(worker.settings, symbol)) == 6)  # type: ignore[misc]
        await worker.applied(named("shared"), named("second", transport="Pipe"))

        async def active() -> bool:
            found = (await worker.status()).traders.get("desk/second")
            return found is not None and found.state == "Active"

        async def whole_windows() -> bool:
            return bool((await worker.status()).feed["events"]["windows_sent"] == sent + 2)

        await until("the second one is active", active)
        await until("two symbols, a window each", whole_windows)
        await market.close(2)

        async def told() -> bool:
            return len((await decided(kafka_settings))["desk/second"]) == 4

        await until("it decides", told)


async def test_the_command_lines_word_goes_before_a_traders(kafka_settings: KafkaSettings) -> None:
    await ensure_topics(kafka_settings)
    async with house("w-0", kafka_settings, transport_for_all=True) as worker:
        status = await worker.applied(named("one", transport="Pipe"))
        assert status.traders["desk/one"].transport == "SharedMemory"
        assert not has_numpy(worker)
