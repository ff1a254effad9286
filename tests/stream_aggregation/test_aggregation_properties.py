"""However the trades come in pieces, out of order and doubled, the candles are those of plain grouping."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.stream_aggregation.aggregation_oracle import Reader, Trade, expected_candles

from chandlery.core.wire import TradesRecord, encode
from chandlery.stream.aggregation import AggregationPlan, SymbolState

SYMBOL = "BTC/USDT"
#: 1s, 5s roll up from 1s; 1m from 5s. 3s and 7s-like leftovers are covered by the second set.
INTERVALS = ["1s", "5s", "1m"]
UNEVEN = ["2s", "3s", "4s", "1m"]
START_MS = 1_723_075_198_000
LATENESS_MS = 5_000

steps_ms = st.one_of(st.integers(0, 400), st.integers(0, 3), st.integers(2_000, 20_000), st.just(1_000))


@st.composite
def markets(draw: st.DrawFn) -> list[Trade]:
    trades = []
    time_ms = START_MS + draw(st.integers(0, 2_000))
    for number in range(draw(st.integers(1, 60))):
        time_ms += draw(steps_ms)
        trades.append(Trade(1_000 + number, time_ms, draw(st.integers(90, 110)), draw(st.integers(1, 50))))
    return trades


def deliver(trades: list[Trade], seed: int, *, disorder_ms: int, doubles: float) -> list[TradesRecord]:
    """Records of random length whose trades came up to ``disorder_ms`` too late, some of them twice."""
    chance = random.Random(seed)
    arrivals = [(trade.time_ms + chance.randint(0, disorder_ms), trade) for trade in trades]
    arrivals += [(at + chance.randint(0, 30_000), trade) for at, trade in arrivals if chance.random() < doubles]
    arrivals.sort(key=lambda each: each[0])
    records, watermark = [], -1
    while arrivals:
        count = chance.choice([1, 1, 2, 3, 10, 40])
        piece, arrivals = arrivals[:count], arrivals[count:]
        # The watermark lags the newest trade by nothing, so that the disorder really makes trades late.
        watermark = max(watermark, *(trade.time_ms for _, trade in piece))
        records.append(record_of([trade for _, trade in piece], watermark))
        if chance.random() < 0.2:
            records.append(record_of([], watermark))
    return records


def record_of(trades: list[Trade], watermark_ms: int, *, session: int = 0) -> TradesRecord:
    return TradesRecord(
        SYMBOL,
        session,
        watermark_ms,
        2,
        3,
        [trade.id for trade in trades],
        [trade.time_ms for trade in trades],
        [trade.price for trade in trades],
        [trade.quantity for trade in trades],
    )


def check_counts(state: SymbolState) -> None:
    assert state.counts.reconciles(), f"received isn't the sum of the others: {state.counts}"
    assert min(state.counts.open, state.counts.counted, state.counts.duplicate) >= 0


@settings(max_examples=400, deadline=None)
@given(
    trades=markets(),
    seed=st.integers(0, 1_000_000),
    disorder_ms=st.sampled_from([0, 300, LATENESS_MS]),
    doubles=st.sampled_from([0.0, 0.3]),
    intervals=st.sampled_from([INTERVALS, UNEVEN]),
)
def test_any_delivery_within_the_lateness_gives_the_candles_of_plain_grouping(
    trades: list[Trade], seed: int, disorder_ms: int, doubles: float, intervals: list[str]
) -> None:
    state, reader = SymbolState(SYMBOL, AggregationPlan(intervals, lateness_ms=LATENESS_MS)), Reader()
    records = deliver(trades, seed, disorder_ms=disorder_ms, doubles=doubles)
    for record in records:
        reader.read(state.apply(record))
        check_counts(state)
    assert state.counts.late == 0
    assert state.counts.counted + state.counts.open == len(trades)
    assert state.counts.duplicate == sum(len(record.id) for record in records) - len(trades)
    for interval in intervals:
        assert reader.rows(interval) == expected_candles(trades, interval, state.watermark_ms)

    end_ms = max(trade.time_ms for trade in trades) // 60_000 * 60_000 + 60_000
    reader.read(state.apply(record_of([], end_ms)))
    assert state.counts.counted == len(trades)
    reader.read(state.apply(record_of([], end_ms + LATENESS_MS + 60_000)))
    for interval in intervals:
        assert reader.rows(interval) == expected_candles(trades, interval, state.watermark_ms)
        finals = [update.final for (name, at), update in reader.closed.items() if name == interval and at < end_ms]
        assert all(finals), f"{interval}: the watermark passed the lateness of every candle before {end_ms}"


@settings(max_examples=150, deadline=None)
@given(trades=markets(), seed=st.integers(0, 1_000_000), data=st.data())
def test_a_replay_from_any_saved_state_emits_the_same_bytes(
    trades: list[Trade], seed: int, data: st.DataObject
) -> None:
    plan = AggregationPlan(INTERVALS, lateness_ms=1_500)
    records = deliver(trades, seed, disorder_ms=6_000, doubles=0.3)
    state = SymbolState(SYMBOL, plan)
    saved, emitted = [state.encode()], []
    for record in records:
        emitted.append(encode(state.apply(record)))
        saved.append(state.encode())
    at = data.draw(st.integers(0, len(records) - 1), label="restart after")
    restored = SymbolState.decode(saved[at], plan)
    assert restored.encode() == saved[at]
    for index in range(at, len(records)):
        assert encode(restored.apply(records[index])) == emitted[index], f"record {index} of {len(records)}"
    assert restored.encode() == saved[-1]


@settings(max_examples=200, deadline=None)
@given(trades=markets(), seed=st.integers(0, 1_000_000), disorder_ms=st.integers(0, 30_000))
def test_what_is_beyond_the_lateness_goes_to_the_late_topic_and_the_rest_into_the_candles(
    trades: list[Trade], seed: int, disorder_ms: int
) -> None:
    state, reader = SymbolState(SYMBOL, AggregationPlan(INTERVALS, lateness_ms=2_000)), Reader()
    for record in deliver(trades, seed, disorder_ms=disorder_ms, doubles=0.2):
        reader.read(state.apply(record))
        check_counts(state)
    assert len(reader.late) == state.counts.late
    in_time = set(trades) - set(reader.late)
    assert len(in_time) == state.counts.counted + state.counts.open
    rows = expected_candles(in_time, "1s", state.watermark_ms)
    with_trades = {at: row for at, row in reader.rows("1s").items() if not row.filled}
    assert with_trades == {at: row for at, row in rows.items() if not row.filled}
    assert {at for at, row in reader.rows("5s").items() if not row.filled} == {
        at for at, row in expected_candles(in_time, "5s", state.watermark_ms).items() if not row.filled
    }
