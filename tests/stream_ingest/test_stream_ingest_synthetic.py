"""Synthetic markets: reproducible, lifelike, coherent with their history, in step with the clock."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.stream_ingest.ingest_doubles import NotedOutlet, VirtualClock

from chandlery.core.errors import InputError
from chandlery.core.intervals import parse_interval
from chandlery.core.wire import MAX_RECORD_BYTES, BackfillRecord, encode
from chandlery.stream.ingest.counts import new_counts
from chandlery.stream.ingest.options import SyntheticOptions, read_options
from chandlery.stream.ingest.source import Position
from chandlery.stream.ingest.synthetic import Market, SyntheticSource
from chandlery.stream.ingest.synthetic_history import generate_history
from chandlery.stream.ingest.synthetic_path import BLOCK, Block, PricePath, price_grid

NOW_MS = 1_700_000_123_456
SESSION = 1_700_000_000_000


def _blocks(count: int, symbol: str = "BTC/USDT", **options: Any) -> list[Block]:
    path = PricePath(SyntheticOptions(**options), symbol)
    return [path.next_block() for _ in range(count)]


def _column(blocks: list[Block], name: str) -> np.ndarray:
    return np.concatenate([getattr(block, name) for block in blocks])


def test_a_path_is_a_function_of_seed_and_symbol() -> None:
    first, again = _blocks(5), _blocks(5)
    for name in Block._fields:
        assert np.array_equal(_column(first, name), _column(again, name)), name
    for other in (_blocks(5, seed=2), _blocks(5, symbol="ETH/USDT")):
        assert not np.array_equal(_column(first, "quantity"), _column(other, "quantity"))


def test_a_path_begins_at_its_start_price_and_stays_positive_on_its_grid() -> None:
    blocks = _blocks(20, start_price=61_837.63)
    grid = price_grid(SyntheticOptions(start_price=61_837.63), "BTC/USDT")
    prices = _column(blocks, "price")
    assert (int(prices[0]), grid.scale) == (6_183_763, 2)
    assert prices.min() > 0
    assert _column(blocks, "quantity").min() > 0
    assert _column(blocks, "gap_ns").min() > 0


def test_start_prices_are_taken_by_symbol_or_base_and_plausible_otherwise() -> None:
    options = SyntheticOptions(start_price={"ABC/USDT": 5.0, "XYZ": 7.0})
    assert price_grid(options, "ABC/USDT").start == 5 * 10 ** price_grid(options, "ABC/USDT").scale
    assert price_grid(options, "XYZ/BTC").start == 7 * 10 ** price_grid(options, "XYZ/BTC").scale
    assert price_grid(options, "BTC/USDT") == (6_000_000, 2)
    assert price_grid(options, "QQQ/USDT").start > 0


@pytest.mark.parametrize("rate", [0.5, 20.0, 1_000.0])
def test_the_mean_rate_is_as_asked(rate: float) -> None:
    blocks = _blocks(2_000, trades_per_second=rate)
    measured = len(blocks) * BLOCK / (_column(blocks, "gap_ns").sum() / 1e9)
    assert measured == pytest.approx(rate, rel=0.2)


def test_volatility_clusters_and_tails_are_fat() -> None:
    blocks = _blocks(400, trades_per_second=10, jumps_per_hour=0)
    prices = np.log(_column(blocks, "price").astype(float))
    returns = np.diff(prices[:: BLOCK // 16])
    size = np.abs(returns) - np.abs(returns).mean()
    correlation = (size[1:] * size[:-1]).mean() / size.var()
    assert correlation > 0.05, f"sizes of neighbouring moves: correlation {correlation:.3f}"
    kurtosis = ((returns - returns.mean()) ** 4).mean() / returns.var() ** 2
    assert kurtosis > 3.2, f"kurtosis {kurtosis:.2f}"


def test_quiet_spells_and_jumps_come_when_asked_for() -> None:
    calm = _column(_blocks(300, trades_per_second=50, jumps_per_hour=0, quiet_share=0), "gap_ns")
    spells = _column(_blocks(300, trades_per_second=50, jumps_per_hour=0, quiet_share=0.5), "gap_ns")
    means = [gaps.reshape(-1, 64).mean(axis=1) for gaps in (calm, spells)]
    assert means[1].max() / np.median(means[1]) > 2 * means[0].max() / np.median(means[0])
    moves = [
        np.abs(
            np.diff(np.log(_column(_blocks(300, trades_per_second=50, jumps_per_hour=jumps), "price").astype(float)))
        )
        for jumps in (0, 120)
    ]
    assert moves[1].max() > 2 * moves[0].max()


def test_a_market_resumed_goes_on_with_the_same_path() -> None:
    options = SyntheticOptions(trades_per_second=50)
    whole = Market(PricePath(options, "BTC/USDT"), 0, 0)
    resumed = Market(PricePath(options, "BTC/USDT"), 300, 0)
    later = 10**15
    rows = []
    for market in (whole, resumed):
        batches = [market.take("BTC/USDT", later) for _ in range(3)]
        rows.append(
            [row for batch in batches if batch for row in zip(batch.id, batch.price, batch.quantity, strict=True)]
        )
    assert rows[1][0][0] == 301
    assert rows[1][:400] == rows[0][300:700]


class Live:
    """A synthetic source on a virtual clock, until that has moved on by ``seconds``."""

    def __init__(self, symbols: list[str], seconds: float, session: int = SESSION, **options: Any) -> None:
        self.clock = VirtualClock()
        self.outlet = NotedOutlet(self.clock)
        self.counts = new_counts(dict.fromkeys(symbols, -1))
        self.source = SyntheticSource(
            SyntheticOptions(**options), symbols, ["1s"], 0, session, 250, self.counts, self.clock
        )
        end_ns = self.clock.now_ns + int(seconds * 1e9)

        def check() -> None:
            if self.clock.now_ns >= end_ns:
                raise TimeoutError

        self.clock.on_sleep = check

    async def run(self, **counts: int) -> "Live":
        with pytest.raises(TimeoutError):
            await self.source.run(self.outlet, {name.replace("_", "/"): Position(n) for name, n in counts.items()})
        return self


async def test_trades_happen_on_time_in_ascending_order_and_at_the_rate() -> None:
    live = await Live(["BTC/USDT", "ETH/USDT"], 60, trades_per_second=20, quiet_share=0).run()
    for symbol in ("BTC/USDT", "ETH/USDT"):
        ids = live.outlet.ids(symbol)
        assert ids == list(range(1, len(ids) + 1))
        assert 600 < len(ids) < 2_400
    for batch, pushed_ns in zip(live.outlet.batches, live.outlet.pushed_ns, strict=True):
        wall_ns = live.clock.wall_ns() - live.clock.now_ns + pushed_ns
        assert batch.time_ms == sorted(batch.time_ms)
        assert 0 <= wall_ns - batch.exchange_ns < 5_000_000, "pushed within the loop's shortest wait"
        assert batch.time_ms[-1] == batch.exchange_ns // 1_000_000
        assert batch.received_ns == pushed_ns


async def test_another_run_with_the_same_seed_brings_the_same_trades() -> None:
    symbols = ["BTC/USDT", "ETH/USDT"]
    runs = [await Live(symbols, 60, session=SESSION + hours * 3_600_000, seed=7).run() for hours in (0, 1)]
    first, again = (
        [(batch.symbol, batch.id, batch.price, batch.quantity, batch.buyer_maker) for batch in live.outlet.batches]
        for live in runs
    )
    assert len(first) > 100
    assert first == again
    histories = [
        list(generate_history(SyntheticOptions(), session, "BTC/USDT", ["1m"], 50, NOW_MS)) for session in (1, 2)
    ]
    assert [record.close for record in histories[0]] == [record.close for record in histories[1]]


async def test_silence_moves_the_watermark_and_no_trade_comes_behind_it() -> None:
    live = Live(["BTC/USDT"], 120, trades_per_second=1, quiet_share=0)
    mark = 0
    early: list[int] = []
    noted_trades, noted_heartbeat = live.outlet.trades, live.outlet.heartbeat

    def trades(batch: Any) -> None:
        early.extend(time for time in batch.time_ms if time < mark)
        noted_trades(batch)

    def heartbeat(symbol: str, exchange_ms: int, *, last: bool = False) -> None:
        nonlocal mark
        mark = max(mark, exchange_ms)
        noted_heartbeat(symbol, exchange_ms, last=last)

    live.outlet.trades, live.outlet.heartbeat = trades, heartbeat  # type: ignore[method-assign]
    await live.run()
    assert early == []
    marks = [exchange_ms for _, exchange_ms, _ in live.outlet.heartbeats]
    assert len(marks) > 100
    assert marks == sorted(marks)


async def test_a_market_that_was_held_up_goes_on_from_now_without_losing_a_trade() -> None:
    live = Live(["BTC/USDT"], 40, trades_per_second=20, quiet_share=0)
    held = False

    async def room() -> None:
        nonlocal held
        if not held and live.clock.now_ns > 10_000_000_000:
            held = True
            live.clock.now_ns += 20_000_000_000

    live.outlet.room = room  # type: ignore[method-assign]
    await live.run()
    ids = live.outlet.ids("BTC/USDT")
    assert ids == list(range(1, len(ids) + 1))
    times = [time for batch in live.outlet.batches for time in batch.time_ms]
    assert times == sorted(times)
    assert max(later - sooner for sooner, later in itertools.pairwise(times)) >= 19_000


async def test_a_restart_resumes_after_the_acknowledged_trade_with_times_of_now() -> None:
    live = await Live(["BTC/USDT"], 5, trades_per_second=20).run(BTC_USDT=1_000)
    assert live.outlet.ids("BTC/USDT")[0] == 1_001
    begin_ms = (live.clock.wall_ns() - live.clock.now_ns) // 10**6 + 1_000
    assert live.outlet.batches[0].time_ms[0] >= begin_ms


def test_history_of_live_sources_begins_now() -> None:
    live = Live(["BTC/USDT"], 1)
    assert live.source.first_trade_ms("BTC/USDT") == live.clock.wall_ns() // 10**6


Rows = list[tuple[int, int, int, int, int, int, int]]


def _history(intervals: list[str], candles: int = 120, now_ms: int = NOW_MS, **options: Any) -> dict[str, Rows]:
    found: dict[str, Rows] = {interval: [] for interval in intervals}
    forming: dict[str, int] = dict.fromkeys(intervals, 0)
    grid = price_grid(SyntheticOptions(**options), "BTC/USDT")
    for record in generate_history(SyntheticOptions(**options), SESSION, "BTC/USDT", intervals, candles, now_ms):
        assert len(encode(record)) < MAX_RECORD_BYTES
        assert not forming[record.interval], "rows after the forming one"
        forming[record.interval] = record.forming
        found[record.interval] += _rows(record, grid.scale)
    assert all(forming.values())
    return found


def _rows(record: BackfillRecord, scale: int) -> Rows:
    price, quantity = 10 ** (scale - record.price_scale), 10 ** (5 - record.quantity_scale)
    return [
        (time, o * price, h * price, low * price, c * price, v * quantity, n)
        for time, o, h, low, c, v, n in zip(
            record.open_time_ms, record.open, record.high, record.low, record.close, record.volume, record.trades,
            strict=True,
        )
    ]  # fmt: skip


def _resample(rows: Rows, text: str) -> Rows:
    interval = parse_interval(text)
    found: Rows = []
    for open_ms, group in itertools.groupby(rows, key=lambda row: interval.floor_ms(row[0])):
        part = list(group)
        found.append(
            (
                open_ms, part[0][1], max(row[2] for row in part), min(row[3] for row in part), part[-1][4],
                sum(row[5] for row in part), sum(row[6] for row in part),
            )
        )  # fmt: skip
    return found


def test_every_interval_has_its_candles_without_a_gap_and_one_that_is_forming() -> None:
    intervals = ["1s", "15s", "90s", "1m", "5m", "1h", "4h", "1d", "1w", "1M"]
    for text, rows in _history(intervals, 30).items():
        interval = parse_interval(text)
        assert len(rows) == 31, text
        assert rows[-1][0] == interval.floor_ms(NOW_MS), text
        assert all(interval.next_ms(sooner[0]) == later[0] for sooner, later in itertools.pairwise(rows)), text
        for _, opened, high, low, closed, volume, trades in rows:
            assert 0 < low <= min(opened, closed) <= max(opened, closed) <= high
            assert volume > 0
            assert trades > 0


@pytest.mark.parametrize(
    ("fine", "coarse"), [("1s", "1m"), ("1s", "15s"), ("1m", "5m"), ("5m", "1h"), ("1h", "1d"), ("1d", "1w")]
)
def test_a_longer_interval_is_the_resampling_of_a_shorter_one_where_both_exist(fine: str, coarse: str) -> None:
    history = _history([fine, coarse], 400)
    first = parse_interval(coarse).next_ms(parse_interval(coarse).floor_ms(history[fine][0][0] - 1))
    resampled = [row for row in _resample(history[fine], coarse) if row[0] >= first]
    assert resampled
    assert history[coarse][-len(resampled) :] == resampled


def test_history_ends_at_the_first_live_price() -> None:
    [first] = _blocks(1, start_price=123.45)
    history = _history(["1s", "1m", "1d"], start_price=123.45)
    assert {rows[-1][4] for rows in history.values()} == {int(first.price[0])}


def test_history_is_continuous_and_reproducible() -> None:
    history = _history(["1m"])
    assert history == _history(["1m"])
    assert history != _history(["1m"], seed=9)
    assert all(sooner[4] == later[1] for sooner, later in itertools.pairwise(history["1m"]))


def test_history_goes_in_records_of_bounded_size_with_only_the_last_row_forming() -> None:
    records = list(generate_history(SyntheticOptions(), SESSION, "BTC/USDT", ["1s"], 5_000, NOW_MS))
    assert [len(record.open_time_ms) for record in records] == [2_000, 2_000, 1_001]
    assert [record.forming for record in records] == [False, False, True]


def test_no_candles_are_made_before_1970_or_where_none_are_wanted() -> None:
    assert list(generate_history(SyntheticOptions(), SESSION, "BTC/USDT", ["1m"], 0, NOW_MS)) == []
    [record] = generate_history(SyntheticOptions(), SESSION, "BTC/USDT", ["12M"], 500, NOW_MS)
    assert record.open_time_ms[0] > 0
    assert len(record.open_time_ms) < 60


def test_on_the_very_boundary_the_forming_candle_is_the_one_that_begins() -> None:
    now_ms = NOW_MS // 60_000 * 60_000
    history = _history(["1s", "1m"], now_ms=now_ms)
    assert [rows[-1][0] for rows in history.values()] == [now_ms, now_ms]


@pytest.mark.parametrize("options", [{"trades_per_second": 0}, {"quiet_share": 1.5}, {"seed": -1}, {"rate": 5}])
def test_options_that_cannot_be_used_are_refused_by_name(options: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=next(iter(options))):
        read_options("synthetic", options, SyntheticOptions)
