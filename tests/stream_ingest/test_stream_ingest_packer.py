"""Lanes: order, packing, exact scales, and where the watermark goes."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from chandlery.core.wire import BackfillRecord, Opening, TradesRecord, decode_input
from chandlery.stream.ingest.packer import LARGEST_RECORD_BYTES, MAX_TRADES, Lane, Packed
from chandlery.stream.ingest.source import Position, Trades


def _lane(delay_ms: int = 0, **position: int) -> Lane:
    return Lane("BTC/USDT", 1, 7, delay_ms, Position(**position))


def _batch(ids: list[int], time_ms: int = 1_000, **changes: Any) -> Trades:
    values: dict[str, Any] = {
        "symbol": "BTC/USDT",
        "id": ids,
        "time_ms": [time_ms] * len(ids),
        "price": [6183763000000] * len(ids),
        "quantity": [2000000] * len(ids),
        "buyer_maker": [1] * len(ids),
        "price_scale": 8,
        "quantity_scale": 8,
        "received_ns": 5,
    }
    return Trades(**(values | changes))


def _all(lane: Lane) -> list[tuple[Packed, TradesRecord]]:
    popped = []
    while lane:
        packed = lane.pop()
        record = decode_input(packed.value)
        assert isinstance(record, TradesRecord)
        popped.append((packed, record))
    return popped


def test_trades_that_wait_go_in_one_record_at_the_least_scale() -> None:
    lane = _lane()
    lane.add(_batch([1], 1_000))
    lane.add(_batch([2], 1_007, price=[6183764500000], received_ns=9, exchange_ns=1_007_000_000, frame=4))
    [(packed, record)] = _all(lane)
    assert record == TradesRecord(
        "BTC/USDT", 7, 1_007, 3, 2, [1, 2], [1_000, 1_007], [61837630, 61837645], [2, 2], [1, 1]
    )
    assert (packed.trades, packed.last_id) == (2, 2)
    assert (packed.stamps.received_ns, packed.stamps.exchange_ns, packed.stamps.frame) == (9, 1_007_000_000, 4)


def test_batches_of_different_scales_meet_at_the_finer_one() -> None:
    lane = _lane()
    lane.add(_batch([1]))
    lane.add(_batch([2], price=[1], price_scale=11))
    [(_, record)] = _all(lane)
    assert (record.price_scale, record.price) == (11, [6183763000000000, 1])


def test_makers_are_left_out_where_one_batch_does_not_know_them() -> None:
    lane = _lane()
    lane.add(_batch([1]))
    lane.add(_batch([2], buyer_maker=[]))
    [(_, record)] = _all(lane)
    assert record.buyer_maker == []
    assert record.id == [1, 2]


@given(st.lists(st.integers(1, 1_200), min_size=1, max_size=6))
def test_order_is_kept_and_no_record_is_over_the_limit(sizes: list[int]) -> None:
    lane = _lane()
    given_ids: list[int] = []
    for size in sizes:
        ids = list(range(len(given_ids), len(given_ids) + size))
        lane.add(_batch(ids))
        given_ids += ids
    popped = _all(lane)
    assert [trade_id for _, record in popped for trade_id in record.id] == given_ids
    assert all(len(record.id) <= MAX_TRADES for _, record in popped)
    assert lane.waiting_trades == 0


def test_the_largest_record_stays_within_its_bound() -> None:
    lane = _lane()
    size = MAX_TRADES
    lane.add(_batch([10**17 - 1] * size, 4_000_000_000_000, price=[10**20 - 1] * size, quantity=[10**20 - 1] * size))
    [(packed, _)] = _all(lane)
    assert len(packed.value) <= LARGEST_RECORD_BYTES


def test_the_watermark_is_the_newest_trade_less_the_delay_and_never_goes_back() -> None:
    lane = _lane(delay_ms=100)
    marks = []
    for time_ms in (5_000, 4_000, 5_200):
        lane.add(_batch([time_ms], time_ms))
        marks += [record.watermark_ms for _, record in _all(lane)]
    assert marks == [4_900, 4_900, 5_100]


def test_a_split_record_claims_only_the_trades_it_has() -> None:
    lane = _lane()
    lane.add(_batch(list(range(MAX_TRADES)), 1_000))
    lane.add(_batch([MAX_TRADES], 2_000))
    lane.hint(3_000, 1)
    assert [record.watermark_ms for _, record in _all(lane)] == [1_000, 3_000]


def test_a_heartbeat_moves_the_watermark_only_forwards() -> None:
    lane = _lane(watermark_ms=10_000)
    assert not lane.hint(10_000, 1)
    assert not lane
    assert lane.hint(10_001, 2)
    [(packed, record)] = _all(lane)
    assert (record.watermark_ms, record.id, packed.heartbeat) == (10_001, [], True)
    assert packed.stamps.received_ns == 2
    assert not lane.hint(10_001, 3)


def test_the_last_heartbeat_of_a_market_knows_no_delay() -> None:
    lane = _lane(delay_ms=500)
    lane.hint(10_000, 1)
    lane.hint(10_000, 1, last=True)
    assert [record.watermark_ms for _, record in _all(lane)] == [10_000]


def test_openings_and_history_go_before_trades_that_came_earlier() -> None:
    lane = _lane()
    lane.add(_batch([1]))
    lane.open(Opening("BTC/USDT", 7))
    lane.open(BackfillRecord("BTC/USDT", 7, "1s", 0, 0, [1_000], [1], [1], [1], [1], [1], [1]))
    assert lane.waiting_bytes > 0
    kinds = []
    while lane:
        kinds.append(type(decode_input(lane.pop().value)).__name__)
    assert kinds == ["Opening", "BackfillRecord", "TradesRecord"]
    assert lane.waiting_bytes == 0


def test_the_position_counts_what_is_acknowledged_and_not_what_is_popped() -> None:
    lane = _lane(count=10, last_id=10, watermark_ms=500)
    lane.add(_batch([11, 12]))
    packed = lane.pop()
    assert lane.position == Position(10, 10, 500)
    lane.acknowledged(packed)
    assert lane.position == Position(12, 12, 1_000)
