"""Which records are decoded, what reaches which series, and who is rung."""

from __future__ import annotations

import math
import random
from collections import Counter
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.workers_feed.feed_setup import MINUTE, candle

from chandlery.core import wire
from chandlery.core.assignment import SeriesRef
from chandlery.core.clocks import HEADER_NAME, Stamps
from chandlery.core.wire import CandlesRecord, CandleUpdate
from chandlery.workers.feed.candle_rows import row_of
from chandlery.workers.feed.router import SHARE_MASK, Bells, RawRecord, Router, Track
from chandlery.workers.feed.sequencing import SeriesSequence

LIVE, CLOSED = "x.candles-live", "x.candles"
BTC, ETH = "BTC/USDT", "ETH/USDT"
INTERVALS = ("1m", "5m", "1h")


@dataclass
class Sink:
    """Remembers what is shown."""

    closed: list[int] = field(default_factory=list)
    forming: str = ""

    def reset(self, session: int) -> None:
        self.closed, self.forming = [], ""

    def append(self, update: CandleUpdate, stamps: Stamps) -> None:
        self.closed.append(update.open_time_ms)

    def revise(self, update: CandleUpdate) -> bool:
        return True

    def set_forming(self, update: CandleUpdate, stamps: Stamps) -> None:
        self.forming = update.close

    def clear_forming(self) -> None:
        self.forming = ""


@dataclass
class Record:
    topic: str
    key: bytes | None
    value: bytes | None
    offset: int = 0
    partition: int = 0
    headers: tuple[tuple[str, bytes], ...] = ()


class Desk:
    """A router with every interval of two symbols."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.refused: list[str] = []
        self.router = Router(LIVE, self.counts, lambda _record, reason: self.refused.append(reason))
        self.sinks: dict[SeriesRef, Sink] = {}
        for symbol in (BTC, ETH):
            for number, interval in enumerate(INTERVALS):
                ref, sink = SeriesRef(symbol, interval), Sink()
                track = Track(SeriesSequence(sink, self.counts), Bells(frozenset({number}), frozenset({number + 10})))
                self.router.add(ref, track)
                self.router.join(ref, track)
                self.sinks[ref] = sink
        self.router.take_rung()

    def forming(self, symbol: str = BTC) -> list[str]:
        return [self.sinks[SeriesRef(symbol, interval)].forming for interval in INTERVALS]


def record(topic: str, seq: int, *updates: CandleUpdate, symbol: str = BTC, session: int = 0) -> RawRecord:
    return Record(topic, symbol.encode(), wire.encode(CandlesRecord(symbol, session, seq, list(updates))))


def forming(close: int, *intervals: str, minute: int = 0) -> list[CandleUpdate]:
    return [candle(minute * MINUTE, "forming", interval=each, prev=-1, close=str(close)) for each in intervals]


def test_only_the_newest_of_a_batch_is_taken_in() -> None:
    desk = Desk()
    desk.router.live([record(LIVE, number, *forming(number, *INTERVALS)) for number in range(1, 100)])
    assert desk.forming() == ["99", "99", "99"]
    assert (desk.counts["conflated"], desk.counts["forming"]) == (98, 3)


def test_an_interval_that_the_newest_record_lacks_comes_from_an_older_one() -> None:
    desk = Desk()
    desk.router.live(
        [
            record(LIVE, 1, *forming(1, "1m", "5m", "1h")),
            record(LIVE, 2, *forming(2, "5m")),
            record(LIVE, 3, *forming(3, "1m")),
            record(LIVE, 4, *forming(4, "1m")),
        ]
    )
    assert desk.forming() == ["4", "2", "1"]


def test_symbols_are_conflated_apart() -> None:
    desk = Desk()
    desk.router.live(
        [
            record(LIVE, 1, *forming(1, *INTERVALS)),
            record(LIVE, 1, *forming(7, *INTERVALS), symbol=ETH),
            record(LIVE, 2, *forming(2, *INTERVALS)),
        ]
    )
    assert desk.forming(BTC) == ["2"] * 3
    assert desk.forming(ETH) == ["7"] * 3


def test_a_batch_that_ends_in_repetitions_still_shows_its_newest() -> None:
    desk = Desk()
    desk.router.live([record(LIVE, number, *forming(number, *INTERVALS)) for number in range(1, 6)])
    # The aggregator went on to 7, restarted, and emitted 4 and 5 again.
    desk.router.live([record(LIVE, seq, *forming(seq, *INTERVALS)) for seq in (6, 7, 4, 5)])
    assert desk.forming() == ["7"] * 3
    assert desk.counts["repetition"] == 2


def test_a_writer_that_counts_from_the_start_again_is_followed() -> None:
    desk = Desk()
    desk.router.closed([record(CLOSED, 50, candle(0))])
    desk.router.live([record(LIVE, 51, *forming(1, "1m", minute=1))])
    desk.router.closed([record(CLOSED, 1, candle(MINUTE))])
    desk.router.live([record(LIVE, 2, *forming(2, "1m", minute=2))])
    assert desk.forming()[0] == "2"
    assert desk.counts["seq_restarts"] == 1


def test_repeated_closed_records_change_nothing() -> None:
    desk = Desk()
    first = record(CLOSED, 1, candle(0), candle(0, interval="5m"))
    desk.router.closed([first])
    desk.router.take_rung()
    desk.router.closed([first])
    assert desk.router.take_rung() == set()
    assert desk.sinks[SeriesRef(BTC, "1m")].closed == [0]
    assert desk.counts["repetition"] == 1


def test_an_older_session_is_dropped_and_a_newer_one_starts_every_series_afresh() -> None:
    desk = Desk()
    desk.router.closed([record(CLOSED, 9, candle(0), candle(0, interval="5m"), session=5)])
    desk.router.closed([record(CLOSED, 1, candle(MINUTE), session=6)])
    desk.router.closed([record(CLOSED, 10, candle(2 * MINUTE), session=5)])
    assert desk.sinks[SeriesRef(BTC, "1m")].closed == [MINUTE]
    assert desk.sinks[SeriesRef(BTC, "5m")].closed == []
    assert desk.counts["session"] == 1


def test_doorbells_are_those_of_what_changed() -> None:
    desk = Desk()
    desk.router.live([record(LIVE, 1, *forming(1, "1m", "1h"))])
    assert desk.router.take_rung() == {10, 12}
    desk.router.closed([record(CLOSED, 2, candle(0, interval="5m"))])
    assert desk.router.take_rung() == {1}
    assert desk.router.take_rung() == set()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (None, b"{}"),
        (BTC.encode(), None),
        (BTC.encode(), b""),
        (BTC.encode(), b"\x00"),
        (BTC.encode(), b'{"kind":"trades"}'),
        (BTC.encode(), wire.encode(CandlesRecord(ETH, 0, 1, []))),
        (BTC.encode(), wire.encode(CandlesRecord(BTC, -4, 1, []))),
        (BTC.encode(), wire.encode(CandlesRecord(BTC, 0, 1, [candle(1 << 80)]))),
        (BTC.encode(), wire.encode(CandlesRecord(BTC, 0, 1, [candle(0, close="inf")]))),
        (BTC.encode(), wire.encode(CandlesRecord(BTC, 0, 1, [candle(0, close="")]))),
        (BTC.encode(), wire.encode(CandlesRecord(BTC, 0, 1, [candle(0, trades=-1)]))),
    ],
)
@pytest.mark.parametrize("topic", [LIVE, CLOSED])
def test_what_cannot_be_used_is_refused_with_a_reason_and_the_rest_goes_on(
    topic: str, key: bytes | None, value: bytes | None
) -> None:
    desk = Desk()
    real = desk.sinks[SeriesRef(BTC, "1m")]
    sink = _Strict(real)
    track = Track(SeriesSequence(sink, desk.counts))
    desk.router.add(SeriesRef(BTC, "1m"), track)
    desk.router.join(SeriesRef(BTC, "1m"), track)
    bad = Record(topic, key, value)
    take = desk.router.live if topic == LIVE else desk.router.closed
    take([bad])
    assert len(desk.refused) == 1
    assert desk.refused[0]
    desk.router.closed([record(CLOSED, 2, candle(0))])
    assert real.closed == [0]


class _Strict:
    """A sink that parses, as the segment's does."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self.reset, self.clear_forming = sink.reset, sink.clear_forming

    def append(self, update: CandleUpdate, stamps: Stamps) -> None:
        row_of(update)
        self._sink.append(update, stamps)

    def revise(self, update: CandleUpdate) -> bool:
        row_of(update)
        return True

    def set_forming(self, update: CandleUpdate, stamps: Stamps) -> None:
        row_of(update)
        self._sink.set_forming(update, stamps)


def test_a_superseded_record_that_is_garbage_is_refused_too() -> None:
    desk = Desk()
    garbage = Record(LIVE, BTC.encode(), b"garbage")
    desk.router.live([garbage, record(LIVE, 1, *forming(1, *INTERVALS))])
    assert len(desk.refused) == 1
    assert desk.forming() == ["1"] * 3


def test_symbols_that_nobody_wants_are_not_even_decoded() -> None:
    desk = Desk()
    desk.router.closed([Record(CLOSED, b"XRP/USDT", b"garbage")])
    desk.router.live([Record(LIVE, b"XRP/USDT", b"garbage")])
    assert desk.refused == []


@given(
    st.lists(st.sets(st.sampled_from(INTERVALS), min_size=1), min_size=1, max_size=12),
    st.lists(st.integers(1, 6), min_size=1, max_size=12),
)
def test_conflation_shows_what_record_by_record_would(contents: list[set[str]], sizes: list[int]) -> None:
    records = [record(LIVE, number + 1, *forming(number, *sorted(held))) for number, held in enumerate(contents)]
    batched, single = Desk(), Desk()
    for one in records:
        single.router.live([one])
    rest = records
    for size in sizes:
        batched.router.live(rest[:size])
        rest = rest[size:]
    batched.router.live(rest)
    assert batched.forming() == single.forming()


def emitted_at(emitted_ns: int, *updates: CandleUpdate, seq: int) -> RawRecord:
    stamps = Stamps(received_ns=1, aggregated_ns=2, emitted_ns=emitted_ns)
    value = wire.encode(CandlesRecord(BTC, 0, seq, list(updates)))
    return Record(CLOSED, BTC.encode(), value, headers=((HEADER_NAME, stamps.pack(0)),))


def test_what_is_told_of_a_record_is_an_update_that_changed_a_series() -> None:
    desk = Desk()
    told: list[tuple[str, str]] = []
    desk.router.tell = lambda _symbol, update, _stamps: told.append((update.interval, update.state))
    desk.router.told_below = SHARE_MASK + 1
    desk.router.closed([emitted_at(3, candle(0, interval="5m"), candle(0, interval="1h"), seq=1)])
    # 5m and 1h have theirs already, nobody wants 4h: what changed is 1m.
    updates = [candle(0, interval=interval) for interval in ("5m", "1m", "1h", "4h")]
    desk.router.closed([emitted_at(4, *updates, seq=2)])
    assert told == [("5m", "closed"), ("1m", "closed")]


@given(share=st.sampled_from([0.01, 0.1, 0.5]), seed=st.integers(0, 1 << 60))
@settings(max_examples=20, deadline=None)
def test_of_records_emitted_at_any_time_the_set_share_is_told(share: float, seed: int) -> None:
    desk = Desk()
    told: list[int] = []
    desk.router.tell = lambda _symbol, _update, stamps: told.append(stamps.emitted_ns)
    desk.router.told_below = round(share * (SHARE_MASK + 1))
    count, times = 4_000, random.Random(seed)
    begin_ns = times.randrange(1 << 60)
    for number in range(count):
        begin_ns += times.randrange(1, 20_000_000)
        desk.router.closed([emitted_at(begin_ns, candle(number * MINUTE, prev=(number - 1) * MINUTE), seq=number + 1)])
    # Six standard deviations: once in 500 million runs by chance.
    assert abs(len(told) - share * count) < 6 * math.sqrt(count * share * (1 - share))
