"""``transport: Pipe``: windows over a socket, however slowly they are taken."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.workers_feed.feed_setup import (
    MINUTE,
    api,
    assignment,
    candle,
    candle_writer,
    feed_settings,
    put,
    running_feed,
    trader,
    until,
)

from chandlery.core.assignment import SeriesRef, TraderAssignment
from chandlery.core.settings import KafkaSettings
from chandlery.stream.topics import ensure_topics
from chandlery.workers.feed.sequencing import Change
from chandlery.workers.feed.window_sender import WindowSender
from chandlery.workers.segment import SegmentWriter
from chandlery.workers.trader.pipe_market import PipeMarket
from chandlery.workers.windows import FrameSplitter, WindowMessage, decode_window

BTC = "BTC/USDT"
REF = SeriesRef(BTC, "1m")
STAMPS = (1, 2, 3, 4, 5, 6, 7, 8)


class Pipes:
    """A segment with one series, and its sender."""

    def __init__(self, folder: Path) -> None:
        path = str(folder / "segment")
        self.writer = SegmentWriter.create(path, rows=400, series=4)
        self.index = self.writer.add_series(BTC, "1m")
        self.writer.reset(self.index, 1)
        self.counts: Counter[str] = Counter()
        self.path = folder / "windows.sock"
        self.sender = WindowSender(self.path, path, self.counts)

    def append(self, minute: int) -> None:
        self.writer.append(self.index, minute * MINUTE, 1, 2, 0.5, float(minute), 3, 4, STAMPS)
        self.sender.changed({REF: Change.CLOSED})

    def form(self, minute: int, close: float) -> None:
        self.writer.set_forming(self.index, minute * MINUTE, 1, 2, 0.5, close, 3, 4, STAMPS)
        self.sender.changed({REF: Change.FORMING})


@asynccontextmanager
async def pipes(folder: Path, *traders: TraderAssignment) -> AsyncIterator[Pipes]:
    made = Pipes(folder)
    made.sender.assign(traders)
    await made.sender.start()
    try:
        yield made
    finally:
        await made.sender.stop()
        made.writer.close()


class Reader:
    def __init__(self, stream: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._stream = stream
        self._writer = writer
        self._splitter = FrameSplitter()
        self._waiting: list[bytes] = []

    @classmethod
    async def connect(cls, path: Path, name: str) -> Reader:
        stream, writer = await asyncio.open_unix_connection(str(path))
        writer.write(name.encode() + b"\n")
        return cls(stream, writer)

    async def next(self) -> WindowMessage | None:
        """The next message; None when the feed hung up."""
        while not self._waiting:
            chunk = await asyncio.wait_for(self._stream.read(65_536), 20)
            if not chunk:
                return None
            self._waiting += self._splitter.feed(chunk)
        return decode_window(self._waiting.pop(0))

    async def message(self) -> WindowMessage:
        message = await self.next()
        assert message is not None, "the feed hung up"
        return message

    def close(self) -> None:
        self._writer.close()


async def test_a_whole_window_first_then_what_is_new(tmp_path: Path) -> None:
    async with pipes(tmp_path, trader("a", [BTC])) as made:
        for minute in range(5):
            made.append(minute)
        reader = await Reader.connect(made.path, "desk/a@1")
        first = await reader.message()
        assert (first.header.symbol, first.header.interval, first.header.session) == (BTC, "1m", 1)
        assert (first.header.count, first.header.rows) == (5, 5)
        assert list(first.close) == [0, 1, 2, 3, 4]
        assert first.header.stamps[-1] == STAMPS
        made.append(5)
        second = await reader.message()
        assert (second.header.count, list(second.close)) == (6, [5])
        reader.close()


async def test_a_revision_sends_the_whole_window_again(tmp_path: Path) -> None:
    async with pipes(tmp_path, trader("a", [BTC])) as made:
        for minute in range(3):
            made.append(minute)
        reader = await Reader.connect(made.path, "desk/a@1")
        first = await reader.message()
        assert made.writer.revise(made.index, MINUTE, 1, 2, 0.5, 99.0, 3, 4)
        made.sender.changed({REF: Change.CLOSED})
        second = await reader.message()
        assert list(second.close) == [0, 99, 2]
        assert second.header.revision > first.header.revision
        reader.close()


@pytest.mark.parametrize(("trigger", "told"), [("CandleClose", False), ("EveryUpdate", True)])
async def test_forming_candles_are_sent_to_those_who_decide_on_them(tmp_path: Path, trigger: str, told: bool) -> None:
    async with pipes(tmp_path, trader("a", [BTC], trigger=trigger)) as made:
        made.append(0)
        reader = await Reader.connect(made.path, "desk/a@1")
        await reader.message()
        made.form(1, 42.0)
        if told:
            message = await reader.message()
            assert message.header.forming is not None
            assert (message.header.forming.close, message.header.rows) == (42.0, 0)
        made.append(1)
        assert list((await reader.message()).close) == [1.0]
        reader.close()


async def test_a_slow_trader_misses_forming_candles_only(tmp_path: Path) -> None:
    async with pipes(tmp_path, trader("a", [BTC], trigger="EveryUpdate")) as made:
        reader = await Reader.connect(made.path, "desk/a@1")
        await reader.message()
        for minute in range(3_000):  # nothing is read meanwhile, and the sender has no room
            made.form(minute, 1.0)
            made.append(minute)
            if minute % 50 == 0:
                await asyncio.sleep(0)
        made.form(3_000, 7.0)
        closes: dict[int, float] = {}
        while True:
            message = await reader.message()
            closes |= dict(zip((message.open_time // MINUTE).tolist(), message.close.tolist(), strict=True))
            if message.header.forming is not None and message.header.forming.open_time_ms == 3_000 * MINUTE:
                break
        newest = range(3_000 - 336, 3_000)  # a whole window: 400 rows less 64 guard rows
        assert all(closes.get(minute) == float(minute) for minute in newest)
        assert made.counts["windows_conflated"] > 0
        reader.close()


async def test_unknown_traders_are_refused_and_others_served_on(tmp_path: Path) -> None:
    async with pipes(tmp_path, trader("a", [BTC])) as made:
        stranger = await Reader.connect(made.path, "desk/stranger")
        assert await stranger.next() is None
        made.append(0)
        reader = await Reader.connect(made.path, "desk/a@1")
        assert (await reader.message()).header.count == 1
        reader.close()


async def test_a_trader_that_talks_back_is_let_go_not_listened_to(tmp_path: Path) -> None:
    async with pipes(tmp_path, trader("a", [BTC])) as made:
        made.append(0)
        stream, writer = await asyncio.open_unix_connection(str(made.path))
        writer.write(b"desk/a@1\n" + b"x" * 1_000)
        assert await asyncio.wait_for(_until_closed(stream), 20), "the feed kept on listening"
        writer.close()


async def test_a_sender_that_ends_leaves_nothing_running(tmp_path: Path) -> None:
    before = asyncio.all_tasks()
    async with pipes(tmp_path, trader("one", [BTC])) as made:
        made.append(0)
        reader = await Reader.connect(made.path, "desk/one@1")
        await reader.message()
    reader.close()
    await asyncio.sleep(0)  # what was cancelled last ends
    assert asyncio.all_tasks() == before


async def _until_closed(stream: asyncio.StreamReader) -> bool:
    try:
        await stream.read()
    except ConnectionResetError:
        return True
    return stream.at_eof()


async def heard(market: PipeMarket, series: str, what: Callable[[PipeMarket], object]) -> None:
    """Wait until the market has heard it."""
    deadline_s = time.monotonic() + 20
    while not what(market):
        assert time.monotonic() < deadline_s, f"never heard of {series}"
        token = market.token()
        market.refresh()
        if not what(market):
            await asyncio.to_thread(market.wait, token, 1.0)


def holds(count: int) -> Callable[[PipeMarket], bool]:
    def look(market: PipeMarket) -> bool:
        series = market.series(BTC, "1m")
        return series is not None and series.count == count

    return look


def other_life(made: Pipes, begin: int, count: int) -> None:
    """BTC/USDT in another record, which happens to stand at the session and the revision of its first one."""
    made.writer.reset(made.writer.add_series("DOGE/USDT", "1m"), 1)
    made.index = made.writer.add_series(BTC, "1m")
    made.writer.reset(made.index, 1)
    for minute in range(begin, begin + count):
        made.writer.append(made.index, minute * MINUTE, 1, 2, 0.5, float(minute), 3, 4, STAMPS)


@pytest.mark.parametrize("grown", [False, True])
async def test_a_series_that_was_freed_and_came_anew_continues_nothing(tmp_path: Path, grown: bool) -> None:
    async with pipes(tmp_path, trader("a", [BTC])) as made:
        for minute in range(10):
            made.append(minute)
        market = PipeMarket(str(made.path), "desk/a@1")
        await heard(market, BTC, holds(10))
        before = market.series(BTC, "1m")
        made.sender.assign([])
        made.writer.remove_series(BTC, "1m")
        made.sender.assign([trader("a", [BTC])])
        other_life(made, 100, 340)
        if grown:
            for _ in made.writer.grow(8):
                pass
            made.sender.follow_segment()
        made.sender.changed({REF: Change.CLOSED})
        await heard(market, BTC, holds(340))
        series = market.series(BTC, "1m")
        assert before is not None
        assert series is not None
        assert (series.session, series.revision) == (before.session, before.revision), "as it may happen to be"
        assert not before.alive, "a trader would go on at its old ordinal, and leave candles out"
        window = series.window(340, 340)
        assert (window.open_time // MINUTE).tolist() == list(range(104, 440))


async def test_a_trader_is_told_of_a_series_that_is_not_there_and_of_its_coming_and_going(tmp_path: Path) -> None:
    eth = SeriesRef("ETH/USDT", "3m")
    async with pipes(tmp_path, trader("a", [eth.symbol], interval=eth.interval)) as made:
        made.writer.add_series(eth.symbol, "1m")
        market = PipeMarket(str(made.path), "desk/a@1")
        await heard(market, "its absence", lambda market: market.absence(eth.symbol, eth.interval))
        absence = market.absence(eth.symbol, eth.interval)
        assert absence is not None
        assert absence.told().startswith("holds ETH/USDT by 1m only;")
        made.writer.add_series(eth.symbol, eth.interval)
        made.sender.assign([trader("a", [eth.symbol], interval=eth.interval)])
        await heard(market, "it", lambda market: market.series(eth.symbol, eth.interval))
        assert market.absence(eth.symbol, eth.interval) is None
        held = market.series(eth.symbol, eth.interval)
        made.writer.remove_series(eth.symbol, eth.interval)
        made.sender.assign([trader("a", [eth.symbol], interval=eth.interval)])
        await heard(market, "its end", lambda market: market.absence(eth.symbol, eth.interval))
        assert held is not None
        assert not held.alive
        assert market.series(eth.symbol, eth.interval) is None


async def test_a_series_that_comes_only_when_the_segment_has_grown_is_told_of_before_its_first_candle(
    tmp_path: Path,
) -> None:
    async with pipes(tmp_path, trader("a", ["ETH/USDT"])) as made:
        market = PipeMarket(str(made.path), "desk/a@1")
        await heard(market, "its absence", lambda market: market.absence("ETH/USDT", "1m"))
        for _ in made.writer.grow(8):
            pass
        made.sender.follow_segment()
        made.writer.add_series("ETH/USDT", "1m")
        await heard(market, "it", lambda market: market.series("ETH/USDT", "1m"))


@pytest.mark.broker
async def test_candles_reach_a_trader_through_its_pipe(tmp_path: Path, kafka_settings: KafkaSettings) -> None:
    await ensure_topics(kafka_settings)
    settings = feed_settings(tmp_path, kafka_settings, transport="Pipe")
    async with candle_writer(kafka_settings) as writer, running_feed(settings) as feed, api(settings) as client:
        await writer.closed(BTC, 0, 20)
        await put(client, assignment(1, trader("a", [BTC], trigger="EveryUpdate")))
        await until("caught up", lambda: not feed.status().feed["catching_up"])
        reader = await Reader.connect(Path(settings.rings_dir) / "windows.sock", "desk/a@1")
        message = await reader.message()
        assert list(message.close) == [float(minute) for minute in range(20)]
        await writer.write(writer.topics.candles_live, BTC, candle(20 * MINUTE, "forming", close="3"))
        await writer.flush()
        message = await reader.message()
        assert message.header.forming is not None
        assert message.header.forming.close == 3.0
        await writer.closed(BTC, 20, 1)
        message = await reader.message()
        assert (list(message.close), message.header.forming) == ([20.0], None)
        reader.close()
