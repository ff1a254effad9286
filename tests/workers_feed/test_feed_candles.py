"""Candles from a real broker into the segment: catch-up, joining, dead letters, restarts."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer
from tests.workers_feed.feed_setup import (
    MINUTE,
    CandleWriter,
    api,
    assignment,
    candle,
    candle_writer,
    feed_settings,
    get,
    put,
    read_topic,
    rows,
    running_feed,
    trader,
    until,
)

from chandlery.core import wire
from chandlery.core.assignment import SeriesRef
from chandlery.core.clocks import HEADER_NAME, Stamps, now_ns, wall_offset_ns
from chandlery.core.settings import KafkaSettings
from chandlery.core.topics import partition_of, topics_of
from chandlery.stream.topics import ensure_topics
from chandlery.workers.feed import catchup, clients, service
from chandlery.workers.segment import SegmentReader

pytestmark = pytest.mark.broker
BTC, ETH = "BTC/USDT", "ETH/USDT"


def minutes(first: int, count: int) -> list[tuple[int, float]]:
    return [(minute * MINUTE, float(minute)) for minute in range(first, first + count)]


async def test_history_and_live_candles_join_without_gap_or_double(
    tmp_path: Path, kafka_settings: KafkaSettings
) -> None:
    await ensure_topics(kafka_settings)
    settings = feed_settings(tmp_path, kafka_settings)
    async with candle_writer(kafka_settings) as writer:
        await writer.closed(BTC, 0, 120)
        stop = asyncio.Event()

        async def keep_writing() -> int:
            minute = 120
            while not stop.is_set():
                await writer.closed(BTC, minute, 1)
                minute += 1
            return minute

        writing = asyncio.create_task(keep_writing())
        async with running_feed(settings) as feed, api(settings) as client:
            await put(client, assignment(1, trader("a", [BTC])))
            await until("history joined", lambda: not feed.status().feed["catching_up"])
            joined_at = len(rows(settings, BTC))
            await until("live candles", lambda: len(rows(settings, BTC)) > joined_at + 20)
            stop.set()
            last = await writing
            await until("all candles", lambda: len(rows(settings, BTC)) >= last)
            assert rows(settings, BTC) == minutes(0, last)
            told = feed.status().feed
            assert told["gaps"] == 0
            assert told["candles"]["closed"] == last


async def test_a_series_added_later_catches_up_beside_the_live_ones(
    tmp_path: Path, kafka_settings: KafkaSettings
) -> None:
    await ensure_topics(kafka_settings)
    settings = feed_settings(tmp_path, kafka_settings, series_grace_ms=0)
    async with candle_writer(kafka_settings) as writer:
        five = {"interval": "5m"}
        for minute in range(40):
            at = minute * MINUTE
            updates = [candle(at, close=str(minute))]
            if minute % 5 == 4:
                open_5m = at - 4 * MINUTE
                updates.append(candle(open_5m, close=str(minute), prev=open_5m - 5 * MINUTE, **five))  # type: ignore[arg-type]
            await writer.write(writer.topics.candles, BTC, *updates)
        await writer.flush()
        async with running_feed(settings) as feed, api(settings) as client:
            await put(client, assignment(1, trader("a", [BTC])))
            await until("1m there", lambda: len(rows(settings, BTC)) == 40)
            await put(client, assignment(2, trader("a", [BTC]), trader("b", [BTC], "5m")))
            await until("5m there", lambda: len(rows(settings, BTC, "5m")) == 8)
            await writer.closed(BTC, 40, 3)
            await until("live 1m", lambda: len(rows(settings, BTC)) == 43)
            assert rows(settings, BTC) == minutes(0, 43)
            assert len(rows(settings, BTC, "5m")) == 8
            await put(client, assignment(3, trader("b", [BTC], "5m")))
            await until("1m gone", lambda: not rows(settings, BTC))
            assert feed.status().feed["series"] == 1
            await put(client, assignment(4))
            assert feed.status().feed["series"] == 0
            await writer.closed(BTC, 43, 2)
            await put(client, assignment(5, trader("a", [BTC])))
            await until("1m again", lambda: rows(settings, BTC) == minutes(0, 45))
            await writer.closed(BTC, 45, 2)
            await until("live again", lambda: rows(settings, BTC) == minutes(0, 47))


async def test_a_long_log_is_read_from_far_enough_back_only(
    tmp_path: Path, kafka_settings: KafkaSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catchup, "READ_WHOLE_RECORDS", 100)
    monkeypatch.setattr(catchup, "FIRST_STRETCH_RECORDS", 64)
    await ensure_topics(kafka_settings)
    settings = feed_settings(tmp_path, kafka_settings, segment_rows=200)
    async with candle_writer(kafka_settings) as writer:
        await writer.closed(BTC, 0, 2_000)
        async with running_feed(settings) as feed, api(settings) as client:
            await put(client, assignment(1, trader("a", [BTC])))
            await until("caught up", lambda: rows(settings, BTC)[-1:] == minutes(1_999, 1))
            with SegmentReader.open(f"{settings.shm_dir}/segment") as reader:
                series = reader.series(BTC, "1m")
                assert series is not None
                assert 200 <= series.count <= 600, "more read than two stretches beyond the need"
            assert feed.status().feed["gaps"] == 0


async def test_a_new_session_replaces_what_was_there(tmp_path: Path, kafka_settings: KafkaSettings) -> None:
    await ensure_topics(kafka_settings)
    settings = feed_settings(tmp_path, kafka_settings)
    async with candle_writer(kafka_settings) as writer:
        for minute in range(5):
            await writer.write(writer.topics.candles, BTC, candle(minute * MINUTE, close="1"), session=7)
        await writer.flush()
        async with running_feed(settings) as feed, api(settings) as client:
            await put(client, assignment(1, trader("a", [BTC])))
            await until("first session", lambda: len(rows(settings, BTC)) == 5)
            await writer.write(writer.topics.candles, BTC, candle(0, close="2"), session=8, seq=1)
            await writer.write(writer.topics.candles, BTC, candle(5 * MINUTE, close="1"), session=7)
            await writer.write(writer.topics.candles, BTC, candle(MINUTE, close="2"), session=8, seq=2)
            await writer.flush()
            await until("second session", lambda: rows(settings, BTC) == [(0, 2.0), (MINUTE, 2.0)])
            assert feed.status().feed["drops"]["session"] == 1


async def test_forming_candles_are_shown_and_end_with_their_close(
    tmp_path: Path, kafka_settings: KafkaSettings
) -> None:
    await ensure_topics(kafka_settings)
    settings = feed_settings(tmp_path, kafka_settings)
    async with candle_writer(kafka_settings) as writer, running_feed(settings), api(settings) as client:
        await writer.closed(BTC, 0, 3)
        await put(client, assignment(1, trader("a", [BTC], trigger="EveryUpdate")))
        await until("history", lambda: len(rows(settings, BTC)) == 3)
        with SegmentReader.open(f"{settings.shm_dir}/segment") as reader:
            series = reader.series(BTC, "1m")
            assert series is not None
            rung = reader.bell(0)
            await writer.write(writer.topics.candles_live, BTC, candle(3 * MINUTE, "forming", close="5"))
            await writer.flush()
            await until("forming row", series.forming)
            forming = series.forming()
            assert forming is not None
            assert (forming.open_time_ms, forming.close) == (3 * MINUTE, 5.0)
            await until("doorbell", lambda: reader.bell(0) > rung)
            await writer.closed(BTC, 3, 1)
            await until("closed", lambda: series.count == 4)
            assert series.forming() is None


async def test_only_traders_of_a_series_are_rung_and_by_what_they_asked_for(
    tmp_path: Path, kafka_settings: KafkaSettings
) -> None:
    await ensure_topics(kafka_settings)
    settings = feed_settings(tmp_path, kafka_settings)
    async with candle_writer(kafka_settings) as writer, running_feed(settings) as feed, api(settings) as client:
        await put(
            client,
            assignment(
                1,
                trader("close", [BTC]),
                trader("every", [BTC], trigger="EveryUpdate"),
                trader("other", [ETH]),
                trader("informed", [ETH], informative=[SeriesRef(BTC, "1m")], trigger="EveryUpdate"),
            ),
        )
        await until("joined", lambda: not feed.status().feed["catching_up"])
        with SegmentReader.open(f"{settings.shm_dir}/segment") as reader:

            def bells() -> list[int]:
                return [reader.bell(bell) for bell in range(4)]

            before = bells()
            await writer.write(writer.topics.candles_live, BTC, candle(0, "forming"))
            await writer.flush()
            await until("forming rung", lambda: bells()[1] > before[1])
            assert [now - was for now, was in zip(bells(), before, strict=True)] == [0, 1, 0, 0]
            await writer.closed(BTC, 0, 1)
            await until("closed rung", lambda: bells()[3] > before[3])
            assert [now - was for now, was in zip(bells(), before, strict=True)] == [1, 2, 0, 1]


async def test_undecodable_records_go_to_dead_letters_and_the_stream_goes_on(
    tmp_path: Path, kafka_settings: KafkaSettings
) -> None:
    await ensure_topics(kafka_settings)
    settings = feed_settings(tmp_path, kafka_settings)
    async with candle_writer(kafka_settings) as writer, running_feed(settings) as feed, api(settings) as client:
        await put(client, assignment(1, trader("a", [BTC])))
        await until("joined", lambda: not feed.status().feed["catching_up"])
        topics = writer.topics
        await writer.closed(BTC, 0, 1)
        await writer.raw(topics.candles, BTC.encode(), b"\xff garbage", BTC)
        await writer.raw(topics.candles, BTC.encode(), b'{"kind":"candles"}', BTC)
        await writer.raw(topics.candles, None, b"{}", BTC)
        await writer.raw(topics.candles_live, BTC.encode(), b"[]", BTC)
        await writer.raw(topics.candles, BTC.encode(), wire.encode(wire.CandlesRecord(ETH, 0, 9, [])), BTC)
        await writer.write(topics.candles, BTC, candle(MINUTE, close="nan"))
        await writer.closed(BTC, 1, 1)
        await until("stream went on", lambda: rows(settings, BTC) == minutes(0, 2))
        await until("counted", lambda: feed.status().feed["dead_letters"] == 6)

        async def all_letters() -> list[wire.DeadLetter]:
            values = await read_topic(kafka_settings, topics.dead_letters)
            letters = [wire.decode_dead_letter(value) for value in values]
            return letters if len(letters) >= 6 else []

        letters = await until("dead letters", all_letters)
        assert len(letters) == 6
        assert {letter.topic for letter in letters} == {topics.candles, topics.candles_live}
        assert all(letter.reason and letter.component == "feed/w-0" for letter in letters)
        assert len({(letter.topic, letter.partition, letter.offset) for letter in letters}) == 6


async def test_stamps_reach_the_segment(tmp_path: Path, kafka_settings: KafkaSettings) -> None:
    await ensure_topics(kafka_settings)
    settings = feed_settings(tmp_path, kafka_settings)
    async with candle_writer(kafka_settings) as writer, running_feed(settings) as feed, api(settings) as client:
        await put(client, assignment(1, trader("a", [BTC])))
        await until("joined", lambda: not feed.status().feed["catching_up"])
        emitted = now_ns()
        header = Stamps(11, emitted - 3, 13, emitted - 1, emitted, -17).pack(wall_offset_ns())
        record = wire.encode(wire.CandlesRecord(BTC, 0, 1, [candle(0)]))
        partition = partition_of(BTC, kafka_settings.partitions)
        topic = topics_of(kafka_settings).candles
        await writer.producer.send_and_wait(
            topic, record, key=BTC.encode(), partition=partition, headers=[(HEADER_NAME, header)]
        )
        await until("row", lambda: rows(settings, BTC))
        with SegmentReader.open(f"{settings.shm_dir}/segment") as reader:
            series = reader.series(BTC, "1m")
            assert series is not None
            stamps = series.stamps(0)
        assert stamps is not None
        assert stamps[:5] == (11, emitted - 3, 13, emitted - 1, emitted)
        assert emitted < stamps[5] <= stamps[6] < now_ns()
        assert stamps[7] == -17


async def test_a_restarted_feed_has_its_traders_and_candles_again(
    tmp_path: Path, kafka_settings: KafkaSettings
) -> None:
    await ensure_topics(kafka_settings)
    settings = feed_settings(tmp_path, kafka_settings)
    async with candle_writer(kafka_settings) as writer:
        await writer.closed(BTC, 0, 10)
        async with running_feed(settings), api(settings) as client:
            await put(client, assignment(4, trader("a", [BTC])))
            await until("candles", lambda: len(rows(settings, BTC)) == 10)
        await writer.closed(BTC, 10, 5)
        async with running_feed(settings) as feed, api(settings) as client:
            await until("candles again", lambda: len(rows(settings, BTC)) == 15)
            assert rows(settings, BTC) == minutes(0, 15)
            assert (await get(client, "/v1/status"))["received_sequence"] == 4
            assert feed.status().feed["segment"]["generation"] >= 1


async def test_many_live_records_in_one_batch_show_the_newest_of_each_interval(
    tmp_path: Path, kafka_settings: KafkaSettings
) -> None:
    await ensure_topics(kafka_settings)
    settings = feed_settings(tmp_path, kafka_settings)

    async def burst(writer: CandleWriter) -> None:
        for number in range(300):
            updates = [candle(0, "forming", close=str(number))]
            if number == 100:  # only an older record has the 5m candle
                updates.append(candle(0, "forming", interval="5m", close="55"))
            await writer.write(writer.topics.candles_live, BTC, *updates)
        await writer.flush()

    async with candle_writer(kafka_settings) as writer:
        await burst(writer)
        async with running_feed(settings) as feed, api(settings) as client:
            await put(client, assignment(1, trader("a", [BTC]), trader("b", [BTC], "5m")))
            with SegmentReader.open(f"{settings.shm_dir}/segment") as reader:
                await until("both series", lambda: reader.series(BTC, "1m") and reader.series(BTC, "5m"))
                minute, five = reader.series(BTC, "1m"), reader.series(BTC, "5m")
                assert minute is not None
                assert five is not None
                await until("joined", lambda: not feed.status().feed["catching_up"])
                await burst(writer)

                def shown() -> tuple[float, float] | None:
                    one, two = minute.forming(), five.forming()
                    return (one.close, two.close) if one and two else None

                await until("newest of each", lambda: shown() == (299.0, 55.0))


async def test_a_quiet_symbol_shows_its_forming_candle_once_caught_up(
    tmp_path: Path, kafka_settings: KafkaSettings
) -> None:
    await ensure_topics(kafka_settings)
    settings = feed_settings(tmp_path, kafka_settings)
    async with candle_writer(kafka_settings) as writer:
        await writer.closed(BTC, 0, 3)
        five = candle(0, "forming", interval="5m", close="8")
        await writer.write(writer.topics.candles_live, BTC, candle(3 * MINUTE, "forming", close="7"), five)
        await writer.flush()
        async with running_feed(settings), api(settings) as client:
            await put(client, assignment(1, trader("a", [BTC])))
            with SegmentReader.open(f"{settings.shm_dir}/segment") as reader:

                def shown(interval: str) -> float:
                    series = reader.series(BTC, interval)
                    forming = series.forming() if series else None
                    return forming.close if forming else 0.0

                await until("1m forming", lambda: shown("1m") == 7.0)
                await put(client, assignment(2, trader("a", [BTC]), trader("b", [BTC], "5m")))
                await until("5m forming, added later", lambda: shown("5m") == 8.0)


async def test_candles_read_in_catch_up_are_history_and_later_ones_live(
    tmp_path: Path, kafka_settings: KafkaSettings
) -> None:
    await ensure_topics(kafka_settings)
    settings = feed_settings(tmp_path, kafka_settings)
    async with candle_writer(kafka_settings) as writer:
        await writer.closed(BTC, 0, 30)
        async with running_feed(settings) as feed, api(settings) as client:
            await put(client, assignment(1, trader("a", [BTC])))
            await until("history", lambda: len(rows(settings, BTC)) == 30 and not feed.status().feed["catching_up"])
            reader = SegmentReader.open(f"{settings.shm_dir}/segment")
            series = reader.series(BTC, "1m")
            assert series is not None
            assert series.live_from_ms == -1
            await writer.closed(BTC, 30, 1)
            await until("a live candle", lambda: len(rows(settings, BTC)) == 31)
            assert series.live_from_ms == 30 * MINUTE
            reader.close()


async def test_of_a_session_that_began_while_no_feed_ran_its_history_is_told_from_its_trades(
    tmp_path: Path, kafka_settings: KafkaSettings
) -> None:
    await ensure_topics(kafka_settings)
    settings = feed_settings(tmp_path, kafka_settings)
    async with candle_writer(kafka_settings) as writer:
        await writer.closed(BTC, 0, 3)
        for seq, minute in enumerate(range(100, 104), start=1):
            update = candle(minute * MINUTE, backfill=minute < 102)
            await writer.write(writer.topics.candles, BTC, update, session=7, seq=seq)
        await writer.flush()
        async with running_feed(settings) as feed, api(settings) as client:
            await put(client, assignment(1, trader("a", [BTC])))
            await until("all is read", lambda: len(rows(settings, BTC)) == 4 and not feed.status().feed["catching_up"])
            with SegmentReader.open(f"{settings.shm_dir}/segment") as reader:
                series = reader.series(BTC, "1m")
                assert series is not None
                assert (series.session, series.traded_from_ms, series.live_from_ms) == (7, 102 * MINUTE, -1)


async def test_forming_candles_are_fetched_at_once_only_while_somebody_decides_on_them(
    tmp_path: Path, kafka_settings: KafkaSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []

    def noted(kafka: KafkaSettings, *, urgent: bool) -> AIOKafkaConsumer:
        asked.append(urgent)
        return clients.forming_consumer(kafka, urgent=urgent)

    monkeypatch.setattr(service, "forming_consumer", noted)
    await ensure_topics(kafka_settings)
    settings = feed_settings(tmp_path, kafka_settings)
    async with candle_writer(kafka_settings) as writer, running_feed(settings), api(settings) as client:
        await writer.closed(BTC, 0, 1)
        await put(client, assignment(1, trader("a", [BTC])))
        await until("history", lambda: len(rows(settings, BTC)) == 1)
        await until("at leisure", lambda: asked == [False])
        await put(client, assignment(2, trader("a", [BTC], trigger="EveryUpdate")))
        await until("at once", lambda: asked == [False, True])
        with SegmentReader.open(f"{settings.shm_dir}/segment") as reader:
            series = reader.series(BTC, "1m")
            assert series is not None
            await writer.write(writer.topics.candles_live, BTC, candle(MINUTE, "forming", close="5"))
            await writer.flush()
            await until("forming row", series.forming)
        await put(client, assignment(3, trader("a", [BTC], trigger="EveryUpdate", mode="suspended")))
        await until("at leisure again", lambda: asked == [False, True, False])
