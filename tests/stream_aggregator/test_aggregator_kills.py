"""kill -9 under load, again and again: nothing lost, nothing doubled, counts exact."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import msgspec
import pytest
from tests.stream_aggregator.aggregator_market import SESSION, Load, aggregator_settings, check_exact
from tests.stream_aggregator.aggregator_process import AggregatorProcess, Appended

from chandlery.core.settings import KafkaSettings
from chandlery.core.topics import topics_of
from chandlery.stream.topics import end_offsets, ensure_topics

KILLS = 22


@pytest.mark.broker
@pytest.mark.slow
async def test_kill_9_at_any_moment_loses_and_doubles_nothing(kafka_settings: KafkaSettings, tmp_path: Path) -> None:
    seed = 20_240_808
    chance = random.Random(seed)
    kafka = msgspec.structs.replace(kafka_settings, partitions=2)
    await ensure_topics(kafka)
    aggregator = AggregatorProcess(tmp_path, aggregator_settings(kafka, chance.randint(100, 400)))
    try:
        async with Load(kafka, seed) as load:
            for number in range(KILLS):
                await aggregator.start()
                if number % 4:
                    # Under load, somewhere between two checkpoints …
                    before = (await aggregator.until_ready())["records"]
                    await aggregator.until_records(before + chance.randint(1, 150))
                else:
                    # … or anywhere in its start and its recovery.
                    await asyncio.sleep(chance.uniform(0.2, 3.0))
                await aggregator.kill()
            await load.end()
        await aggregator.start()
        await aggregator.until_applied(await end_offsets(kafka, topics_of(kafka).trades))
        assert await aggregator.terminate() == 0, aggregator.log()
    finally:
        await aggregator.kill()

    final = aggregator.final()
    appended = await Appended.read(kafka, SESSION)
    check_exact(load, appended, final["symbols"])
    assert len(appended.dead) == final["dead_letters"]
    assert final["healed"] == final["offset_gaps"] == 0
    assert appended.repetitions, "no kill made anything be emitted again: they all missed"
