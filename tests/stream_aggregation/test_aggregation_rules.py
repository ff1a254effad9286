"""The rules one by one: sessions, history, lateness, revisions, fills, gaps, scales, ids, saved state."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.stream_aggregation.aggregation_oracle import Reader, Trade, expected_candles

from chandlery.core.errors import InputError, InvariantError
from chandlery.core.wire import BackfillRecord, CandleUpdate, Opening, TradesRecord, encode
from chandlery.stream.aggregation import AggregationPlan, Emission, SeenIds, SymbolState
from chandlery.stream.aggregation import seen_ids as seen_ids_module
from chandlery.stream.aggregation.emission import MAX_UPDATES

SYMBOL = "BTC/USDT"
#: A multiple of every interval up to a day: 2024-08-08.
T0 = 1_723_075_200_000


def state_of(*intervals: str, lateness_ms: int = 5_000, max_fill: int = 5_000) -> SymbolState:
    return SymbolState(SYMBOL, AggregationPlan(list(intervals), lateness_ms=lateness_ms, max_fill_candles=max_fill))


def trades(
    *rows: tuple[int, int, int, int], watermark_ms: int = -2, session: int = 0, scales: tuple[int, int] = (2, 3)
) -> TradesRecord:
    """A record of (id, ms after T0, price, quantity); its watermark (after T0) is the newest trade's, or as told."""
    if watermark_ms == -2:
        watermark_ms = max(row[1] for row in rows)
    columns = [list(column) for column in zip(*rows, strict=True)] or [[], [], [], []]
    return TradesRecord(
        SYMBOL, session, T0 + watermark_ms, *scales, columns[0], [T0 + at for at in columns[1]], columns[2], columns[3]
    )


def heartbeat(watermark_ms: int) -> TradesRecord:
    return trades(watermark_ms=watermark_ms)


def told(emission: Emission, *states: str) -> list[tuple[str, int, str, int, str]]:
    """(interval, open time after T0, state, revision, close) of the updates in those states (all if none named)."""
    return [
        (update.interval, update.open_time_ms - T0, update.state, update.revision, update.close)
        for update in updates(emission)
        if not states or update.state in states
    ]


def updates(emission: Emission) -> list[CandleUpdate]:
    return [update for _, record in emission.candles for update in record.updates]


def test_a_candle_closes_when_the_watermark_reaches_its_end_and_the_trade_there_is_the_next_ones() -> None:
    state = state_of("1s")
    assert told(state.apply(trades((1, 0, 100, 1), (2, 999, 101, 1)))) == [("1s", 0, "forming", 0, "1.01")]
    emission = state.apply(trades((3, 1_000, 105, 1)))
    assert told(emission) == [("1s", 0, "closed", 0, "1.01"), ("1s", 1_000, "forming", 0, "1.05")]
    assert [update.prev_open_time_ms for update in updates(emission)] == [-1, T0]


def test_a_heartbeat_closes_a_quiet_candle_and_never_moves_the_watermark_back() -> None:
    state = state_of("1s")
    state.apply(trades((1, 300, 100, 1)))
    assert told(state.apply(heartbeat(900))) == []
    assert told(state.apply(heartbeat(1_000))) == [("1s", 0, "closed", 0, "1")]
    state.apply(heartbeat(200))
    assert state.watermark_ms == T0 + 1_000


def test_silence_is_filled_with_the_last_close() -> None:
    state = state_of("1s")
    state.apply(trades((1, 0, 100, 1), (2, 10, 120, 1)))
    emission = state.apply(heartbeat(4_000))
    assert told(emission) == [
        ("1s", 0, "closed", 0, "1.2"),
        ("1s", 1_000, "closed", 0, "1.2"),
        ("1s", 2_000, "closed", 0, "1.2"),
        ("1s", 3_000, "closed", 0, "1.2"),
    ]
    made_up = updates(emission)[1]
    assert (made_up.open, made_up.high, made_up.low, made_up.volume) == ("1.2", "1.2", "1.2", "0")
    assert (made_up.trades, made_up.filled, made_up.prev_open_time_ms) == (0, True, T0)
    assert (state.candle_counts.closed, state.candle_counts.filled) == (1, 3)


@pytest.mark.parametrize("in_steps", [False, True])
def test_a_gap_longer_than_the_limit_is_filled_so_far_then_left_open_and_counted_once(in_steps: bool) -> None:
    state = state_of("1s", max_fill=3)
    reader = Reader()
    reader.read(state.apply(trades((1, 0, 100, 1))))
    for at in range(500, 20_000, 500) if in_steps else []:
        reader.read(state.apply(heartbeat(at)))
    reader.read(state.apply(trades((2, 20_000, 100, 1))))
    reader.read(state.apply(heartbeat(21_000)))
    assert [at - T0 for at in reader.rows("1s")] == [0, 1_000, 2_000, 3_000, 20_000]
    assert reader.closed["1s", T0 + 20_000].prev_open_time_ms == T0 + 3_000
    assert (state.candle_counts.filled, state.candle_counts.gaps) == (3, 1)


def test_nothing_is_filled_before_the_first_candle() -> None:
    state = state_of("1s")
    assert told(state.apply(heartbeat(0))) == []
    assert told(state.apply(heartbeat(60_000))) == []
    assert state.candle_counts.filled == 0


def test_late_trades_revise_every_interval_they_touch_and_the_fillers_behind_them() -> None:
    state = state_of("1s", "5s", "1m", lateness_ms=10_000)
    state.apply(trades((1, 500, 100, 1)))
    state.apply(heartbeat(6_000))
    emission = state.apply(trades((2, 900, 90, 1), watermark_ms=6_000))
    assert told(emission) == [
        *(("1s", at, "revised", 1, "0.9") for at in range(0, 6_000, 1_000)),
        ("5s", 0, "revised", 1, "0.9"),
        ("1m", 0, "forming", 0, "0.9"),
    ]
    assert [update.filled for update in updates(emission)][:6] == [False, True, True, True, True, True]
    again = state.apply(trades((3, 2_500, 95, 1), watermark_ms=6_000))
    assert told(again, "revised")[:2] == [("1s", 2_000, "revised", 2, "0.95"), ("1s", 3_000, "revised", 2, "0.95")]
    assert updates(again)[0].filled is False
    assert state.counts.counted == 3
    assert len(told(emission, "revised")) + len(told(again, "revised")) == 7 + 5
    counts = state.candle_counts
    assert (counts.closed, counts.filled, counts.revised) == (2, 5, 12), "a filler is not among those closed"


def test_open_and_close_are_those_of_the_earliest_and_latest_trade_whatever_came_first() -> None:
    state = state_of("1s", "1m")
    state.apply(trades((5, 400, 105, 1), (6, 400, 106, 1)))
    state.apply(trades((1, 100, 101, 1), watermark_ms=400))
    emission = state.apply(trades((4, 400, 104, 1), (7, 300, 107, 1), watermark_ms=400))
    for update in updates(emission):
        assert (update.open, update.high, update.low, update.close) == ("1.01", "1.07", "1.01", "1.06"), update.interval


def test_a_revision_is_numbered_up_and_final_repeats_its_values() -> None:
    state = state_of("1s", lateness_ms=2_000)
    state.apply(trades((1, 500, 100, 1)))
    state.apply(heartbeat(1_000))
    assert told(state.apply(trades((2, 600, 99, 2), watermark_ms=1_500))) == [("1s", 0, "revised", 1, "0.99")]
    assert told(state.apply(trades((3, 700, 98, 2), watermark_ms=1_500))) == [("1s", 0, "revised", 2, "0.98")]
    assert told(state.apply(heartbeat(2_999)), "final") == []
    emission = state.apply(heartbeat(3_000))
    assert told(emission, "final") == [("1s", 0, "final", 2, "0.98")]
    (final,) = [update for update in updates(emission) if update.state == "final"]
    assert (final.open, final.volume, final.trades, final.final) == ("1", "0.005", 3, True)


def test_a_trade_of_a_final_candle_goes_to_the_late_topic_for_every_interval() -> None:
    state = state_of("1s", "1m", lateness_ms=2_000)
    state.apply(trades((1, 500, 100, 1)))
    state.apply(heartbeat(3_000))
    emission = state.apply(trades((2, 999, 1, 1), (3, 1_000, 105, 7), watermark_ms=3_000))
    assert emission.late is not None
    assert (emission.late.id, emission.late.time_ms, emission.late.watermark_ms) == ([2], [T0 + 999], T0 + 3_000)
    assert told(emission, "revised")[0][:4] == ("1s", 1_000, "revised", 1)
    minute = next(update for update in updates(emission) if update.interval == "1m")
    assert (minute.low, minute.trades) == ("1", 2), "what is late at one second is late at one minute"
    assert (state.counts.late, state.counts.counted, state.counts.open) == (1, 2, 0)


def test_a_trade_before_the_first_candle_comes_as_a_revision_with_the_fillers_between() -> None:
    state = state_of("1s")
    state.apply(trades((5, 3_500, 100, 1)))
    state.apply(heartbeat(4_000))
    emission = state.apply(trades((1, 500, 80, 1), watermark_ms=4_000))
    assert told(emission) == [
        ("1s", 0, "revised", 1, "0.8"),
        ("1s", 1_000, "revised", 1, "0.8"),
        ("1s", 2_000, "revised", 1, "0.8"),
    ]
    assert [update.prev_open_time_ms - T0 for update in updates(emission)][1:] == [0, 1_000]


def test_the_forming_update_of_an_interval_comes_once_and_only_when_it_changed() -> None:
    state = state_of("1s", "1m", "1h")
    emission = state.apply(trades((1, 0, 100, 1), (2, 100, 101, 1), (3, 200, 99, 1)))
    assert told(emission) == [
        ("1s", 0, "forming", 0, "0.99"),
        ("1m", 0, "forming", 0, "0.99"),
        ("1h", 0, "forming", 0, "0.99"),
    ]
    assert told(state.apply(heartbeat(500))) == []
    assert told(state.apply(trades((2, 100, 101, 1), watermark_ms=600))) == [], "a duplicate changes nothing"


def test_a_watermark_behind_the_trades_keeps_several_candles_open_and_closes_them_in_order() -> None:
    state = state_of("1s")
    emission = state.apply(trades((1, 100, 100, 1), (2, 1_100, 101, 1), (3, 2_100, 102, 1), watermark_ms=0))
    assert told(emission) == [("1s", 2_000, "forming", 0, "1.02")]
    assert state.counts.open == 3
    emission = state.apply(trades((4, 500, 90, 1), watermark_ms=2_000))
    assert told(emission, "closed") == [("1s", 0, "closed", 0, "0.9"), ("1s", 1_000, "closed", 0, "1.01")]
    assert (state.counts.open, state.counts.counted) == (1, 3)


def test_a_higher_session_begins_afresh_and_a_lower_one_is_dropped_and_counted() -> None:
    state = state_of("1s")
    state.apply(trades((1, 0, 100, 1), session=5))
    state.apply(trades((2, 1_000, 100, 1), session=5))
    assert (state.session, state.seq) == (5, 2)
    state.apply(Opening(SYMBOL, 6))
    assert (state.session, state.seq, state.watermark_ms, state.counts.received) == (6, 0, -1, 0)
    assert state.apply(trades((3, 0, 100, 1), (4, 1, 100, 1), session=5)) == Emission()
    assert state.apply(Opening(SYMBOL, 5)) == Emission()
    assert (state.dropped.session, state.dropped.session_trades) == (2, 2)
    emission = state.apply(trades((1, 0, 100, 1), session=6))
    assert emission.candles[0][1].seq == 1
    assert (emission.candles[0][1].session, state.counts.duplicate) == (6, 0)


def test_the_same_opening_again_changes_nothing_and_trades_may_come_without_one() -> None:
    state = state_of("1s")
    state.apply(trades((1, 0, 100, 1)))
    saved = state.encode()
    state.apply(Opening(SYMBOL, 0))
    assert state.encode() == saved
    assert state.session == 0


def history(interval: str, first_ms: int, closes: list[int], *, step_ms: int, forming: bool = False) -> BackfillRecord:
    count = len(closes)
    times = [T0 + first_ms + at * step_ms for at in range(count)]
    highs, lows = [close + 5 for close in closes], [close - 5 for close in closes]
    return BackfillRecord(
        SYMBOL, 0, interval, 2, 3, times, closes, highs, lows, closes, [10] * count, [4] * count, forming
    )


def test_history_closes_candles_finally_in_order_and_seeds_the_forming_one() -> None:
    state = state_of("1m", "5m")
    emission = state.apply(history("1m", 0, [100, 101, 102], step_ms=60_000, forming=True))
    assert told(emission) == [
        ("1m", 0, "closed", 0, "1"),
        ("1m", 60_000, "closed", 0, "1.01"),
        ("1m", 120_000, "forming", 0, "1.02"),
    ]
    first, second, seed = updates(emission)
    assert (first.backfill, first.final, second.prev_open_time_ms) == (True, True, T0)
    assert (seed.backfill, seed.trades) == (False, 4)
    state.apply(history("5m", 0, [102], step_ms=300_000, forming=True))
    emission = state.apply(trades((9, 150_000, 110, 1)))
    minute, five = updates(emission)
    assert (minute.open, minute.high, minute.close, minute.volume, minute.trades) == ("1.02", "1.1", "1.1", "0.011", 5)
    assert (five.open, five.close, five.trades) == ("1.02", "1.1", 5)
    emission = state.apply(heartbeat(180_000))
    (closed,) = updates(emission)
    assert (closed.state, closed.backfill, closed.prev_open_time_ms) == ("closed", False, T0 + 60_000)
    assert (state.counts.counted, state.counts.received, state.candle_counts.backfilled) == (1, 1, 2)


def test_live_candles_after_history_follow_it_with_the_hole_filled() -> None:
    state = state_of("1m")
    state.apply(history("1m", 0, [100, 101], step_ms=60_000))
    emission = state.apply(trades((1, 250_000, 105, 1), watermark_ms=300_000))
    assert told(emission, "closed") == [
        ("1m", 120_000, "closed", 0, "1.01"),
        ("1m", 180_000, "closed", 0, "1.01"),
        ("1m", 240_000, "closed", 0, "1.05"),
    ]


def test_history_that_is_not_newer_and_of_intervals_not_built_is_left_out_and_counted() -> None:
    state = state_of("1m")
    state.apply(history("1m", 0, [100, 101], step_ms=60_000))
    assert state.apply(history("1m", 0, [7, 7], step_ms=60_000)) == Emission()
    assert state.apply(history("1h", 0, [7], step_ms=3_600_000)) == Emission()
    assert state.dropped.history == 3


@pytest.mark.parametrize(
    ("record", "why"),
    [
        (TradesRecord(SYMBOL, 0, T0, 2, 2, [1, 2], [T0, T0], [1], [1, 1]), "unequal length"),
        (TradesRecord(SYMBOL, 0, T0, 2, 2, [1], [1 << 60], [1], [1]), "are no times"),
        (TradesRecord(SYMBOL, 0, 1 << 60, 2, 2, [1], [T0], [1], [1]), "is no time"),
        (TradesRecord(SYMBOL, 0, T0, 2, 5_000, [1], [T0], [1], [1]), "scales"),
        (TradesRecord(SYMBOL, 0, T0, 2, 2, [1], [T0], [1], [-1]), "negative quantity"),
        (BackfillRecord(SYMBOL, 0, "1x", 2, 2, [T0], [1], [1], [1], [1], [1], [1]), "no interval"),
        (BackfillRecord(SYMBOL, 0, "1m", 2, 2, [T0], [1], [1], [1], [1], [1], []), "unequal length"),
        (BackfillRecord(SYMBOL, 0, "1m", 2, 2, [T0 + 1], [1], [1], [1], [1], [1], [1]), "not where a 1m candle opens"),
        (BackfillRecord(SYMBOL, 0, "1m", 2, 2, [T0, T0], [1] * 2, [1] * 2, [1] * 2, [1] * 2, [1] * 2, [1] * 2), "ascending"),
        (BackfillRecord(SYMBOL, 0, "1m", -1, 2, [T0], [1], [1], [1], [1], [1], [1]), "scales"),
    ],
)  # fmt: skip
def test_a_record_that_makes_no_sense_is_dead_and_changes_only_the_counts(
    record: TradesRecord | BackfillRecord, why: str
) -> None:
    state = state_of("1m")
    state.apply(trades((100, 0, 100, 1)))
    emission = state.apply(record)
    assert why in emission.dead
    assert not emission.candles
    assert state.counts.dead == max(1, len(getattr(record, "id", [])))
    assert state.counts.unreadable == isinstance(record, BackfillRecord), "a record of trades says how many it has"
    assert state.counts.reconciles()
    assert told(state.apply(trades((101, 10, 101, 1)))) == [("1m", 0, "forming", 0, "1.01")]


def test_a_finer_scale_rescales_what_is_there_exactly() -> None:
    state = state_of("1s", "1m")
    state.apply(trades((1, 0, 100, 1), (2, 1_500, 101, 1), scales=(2, 0)))
    emission = state.apply(trades((3, 1_600, 1_000_001, 5), watermark_ms=2_000, scales=(6, 3)))
    second, minute = updates(emission)
    assert (second.open, second.low, second.close, second.volume) == ("1.01", "1.000001", "1.000001", "1.005")
    assert (minute.open, minute.high, minute.volume) == ("1", "1.01", "2.005")
    emission = state.apply(trades((4, 2_500, 11, 2), scales=(1, 0)))
    assert (updates(emission)[0].close, updates(emission)[1].volume) == ("1.1", "4.005")


def test_a_long_fill_is_split_into_records_with_a_seq_each() -> None:
    state = state_of("1s", max_fill=2 * MAX_UPDATES + 10)
    state.apply(trades((1, 0, 100, 1)))
    emission = state.apply(trades((2, (2 * MAX_UPDATES + 500) * 1_000, 100, 1)))
    fast = [record for to, record in emission.candles if to == "fast"]
    assert [record.seq for record in fast] == [2, 3, 4]
    assert [len(record.updates) for record in fast[:2]] == [MAX_UPDATES, MAX_UPDATES]
    assert state.seq == 4
    assert emission.candles[-1][0] == "live"


def test_volumes_beyond_64_bits_survive_being_saved() -> None:
    state = state_of("1s")
    for number in range(4):
        state.apply(trades((number, number, 100, 1 << 62), scales=(2, 18)))
    plan = AggregationPlan(["1s"])
    restored = SymbolState.decode(state.encode(), plan)
    emission = restored.apply(heartbeat(1_000))
    assert updates(emission)[0].volume == "18.446744073709551616"
    assert restored.encode() != state.encode()


def test_a_saved_state_takes_up_other_intervals_and_keeps_its_counts() -> None:
    state = state_of("1s", "1m")
    state.apply(trades((1, 0, 100, 1), (2, 60_500, 101, 1)))
    total = state.counts.counted + state.counts.open
    restored = SymbolState.decode(state.encode(), AggregationPlan(["5s", "1m"]))
    assert restored.counts.counted + restored.counts.open == total
    assert restored.counts.reconciles()
    emission = restored.apply(trades((3, 61_000, 102, 1)))
    assert {update.interval for update in updates(emission)} == {"5s", "1m"}
    restored.apply(heartbeat(120_000))
    assert restored.counts.reconciles()
    assert restored.counts.open == 0


@pytest.mark.parametrize("data", [b"", b"{}", b"[99]", b'[99,"BTC/USDT"]'])
def test_what_is_no_saved_state_is_refused(data: bytes) -> None:
    with pytest.raises(InvariantError, match="state"):
        SymbolState.decode(data, AggregationPlan(["1m"]))


def test_a_plan_rolls_up_where_boundaries_meet_and_builds_the_rest_from_trades() -> None:
    plan = AggregationPlan(["1h", "1M", "3m", "5m", "1w", "1d", "15m", "1h"])
    parents = {
        step.interval.text: plan.steps[step.parent].interval.text if step.parent >= 0 else "" for step in plan.steps
    }
    assert parents == {
        "3m": "", "5m": "", "15m": "5m", "1h": "15m", "1d": "1h", "1w": "1d", "1M": "1d"
    }  # fmt: skip
    for wrong in ([], ["1x"]):
        with pytest.raises(InputError):
            AggregationPlan(wrong)
    with pytest.raises(InputError):
        AggregationPlan(["1m"], lateness_ms=-1)


def test_weeks_and_months_are_those_of_the_calendar() -> None:
    chance = random.Random(4)
    day = 86_400_000
    rows = [Trade(number, T0 + number * 7 * day // 5, chance.randint(1, 99), 1) for number in range(60)]
    state, reader = state_of("1d", "1w", "1M", lateness_ms=0), Reader()
    for row in rows:
        reader.read(
            state.apply(
                TradesRecord(SYMBOL, 0, row.time_ms, 2, 3, [row.id], [row.time_ms], [row.price], [row.quantity])
            )
        )
    for interval in ("1d", "1w", "1M"):
        assert reader.rows(interval) == expected_candles(rows, interval, rows[-1].time_ms)


@settings(max_examples=200, deadline=None)
@given(ids=st.lists(st.integers(-5, 60), max_size=80), pieces=st.integers(1, 9))
def test_seen_ids_are_a_set_kept_as_ranges(ids: list[int], pieces: int) -> None:
    seen, plain = SeenIds(), set[int]()
    for at in range(0, len(ids), pieces):
        piece = ids[at : at + pieces]
        want = [at for at, each in enumerate(piece) if each not in plain and each not in piece[:at]]
        fresh = seen.add_all(piece)
        assert (list(range(len(piece))) if fresh is None else fresh) == want
        plain.update(piece)
    assert all((each in seen) == (each in plain) for each in range(-7, 63))
    assert seen.starts == sorted(seen.starts)
    assert all(end + 1 < start for end, start in zip(seen.ends, seen.starts[1:], strict=False))


def test_ids_in_a_row_cost_one_range_however_many(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = SeenIds()
    for at in range(0, 1_000_000, 1_000):
        assert seen.add_all(list(range(at, at + 1_000))) is None
    assert (seen.starts, seen.ends) == ([0], [999_999])
    monkeypatch.setattr(seen_ids_module, "MAX_RANGES", 10)
    for each in range(2_000_000, 2_000_100, 2):
        seen.add_all([each])
    assert len(seen.starts) <= 10
    assert 5 in seen
    assert 2_000_001 in seen, "a gap below the horizon counts as seen"
    assert 2_000_097 not in seen


def test_equal_input_gives_equal_bytes() -> None:
    first, second = state_of("1s", "1m"), state_of("1s", "1m")
    records = [trades((1, 0, 100, 1)), heartbeat(5_000), trades((2, 4_000, 90, 1), watermark_ms=5_000)]
    assert [encode(first.apply(record)) for record in records] == [encode(second.apply(record)) for record in records]
    assert first.encode() == second.encode()
