"""Intervals, symbols, durations and amounts of memory: what is read, what is refused, and with which words."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chandlery.core.durations import format_duration, parse_duration
from chandlery.core.errors import InputError
from chandlery.core.intervals import parse_interval
from chandlery.core.quantities import format_quantity, parse_quantity
from chandlery.core.settings import parse_listen
from chandlery.core.symbols import exchange_symbol, parse_symbol

DAY_MS = 86_400_000
times_ms = st.integers(0, 4_102_444_800_000)
intervals = st.sampled_from(["1s", "5s", "1m", "5m", "15m", "1h", "4h", "1d", "1w", "1M", "3M", "12M"])


def at(text: str) -> int:
    return int(dt.datetime.fromisoformat(text).replace(tzinfo=dt.UTC).timestamp() * 1000)


@given(intervals, times_ms)
def test_every_moment_is_in_exactly_one_candle(text: str, time_ms: int) -> None:
    interval = parse_interval(text)
    begin = interval.floor_ms(time_ms)
    assert begin <= time_ms < interval.next_ms(begin)
    assert interval.floor_ms(begin) == begin
    assert interval.floor_ms(interval.next_ms(begin)) == interval.next_ms(begin)


@pytest.mark.parametrize(
    ("interval", "time", "begin"),
    [
        ("1m", "2024-08-08T23:54:13", "2024-08-08T23:54:00"),
        ("1w", "2024-08-08T23:54:13", "2024-08-05T00:00:00"),  # a Thursday's week begins on Monday
        ("1M", "2024-02-29T12:00:00", "2024-02-01T00:00:00"),
        ("3M", "2024-02-29T12:00:00", "2024-01-01T00:00:00"),
        ("1d", "2024-08-08T23:59:59", "2024-08-08T00:00:00"),
    ],
)
def test_candles_align_to_utc(interval: str, time: str, begin: str) -> None:
    assert parse_interval(interval).floor_ms(at(time)) == at(begin)


def test_a_month_has_its_own_length() -> None:
    month = parse_interval("1M")
    assert month.next_ms(at("2024-02-01T00:00:00")) == at("2024-03-01T00:00:00")
    assert month.next_ms(at("2024-12-01T00:00:00")) == at("2025-01-01T00:00:00")


@pytest.mark.parametrize("text", ["", "1", "m", "1x", "01m", "-1m", "1 m", "1.5m", "7m", "25h", "5M", "1m\n", "١m"])
def test_what_is_no_interval_is_refused_by_name(text: str) -> None:
    with pytest.raises(InputError, match=r"interval|divide") as caught:
        parse_interval(text)
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize(
    ("text", "near"),
    [("7s", "5s, 6s, 8s, 9s"), ("11h", "6h, 8h, 12h, 24h"), ("25h", "12h, 24h"), ("9999s", "8640s, 9600s")],
)
def test_an_interval_that_divides_no_day_is_told_the_nearest_that_do(text: str, near: str) -> None:
    with pytest.raises(InputError, match=f"the nearest that do: {near}$"):
        parse_interval(text)
    for one in near.split(", "):
        assert DAY_MS % parse_interval(one).length_ms == 0


def test_case_tells_a_minute_from_a_month() -> None:
    assert parse_interval("1m").length_ms == 60_000
    assert parse_interval("1M").length_ms == 30 * DAY_MS


def test_intervals_below_a_minute_are_fast() -> None:
    assert [parse_interval(text).is_fast for text in ("1s", "30s", "1m")] == [True, True, False]


@pytest.mark.parametrize(
    ("given_text", "unified"),
    [
        ("BTC/USDT", "BTC/USDT"),
        ("btc/usdt", "BTC/USDT"),
        ("BTCUSDT", "BTC/USDT"),
        ("btcfdusd", "BTC/FDUSD"),
        ("ethbtc", "ETH/BTC"),
        ("1000PEPEUSDT", "1000PEPE/USDT"),
        ("BTC/USDT:USDT", "BTC/USDT:USDT"),
        ("BTC/USDT:USDT-240927", "BTC/USDT:USDT-240927"),
    ],
)
def test_symbols_are_unified(given_text: str, unified: str) -> None:
    assert parse_symbol(given_text) == unified
    assert parse_symbol(unified) == unified


@pytest.mark.parametrize(
    "text", ["", "BTC", "USDT", "BTC-USDT", "BTC/", "/USDT", "BTC/USDT ", "BTC/USDT/X", "B!C/USDT"]
)
def test_what_is_no_symbol_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(InputError, match="such as BTC/USDT"):
        parse_symbol(text)


@pytest.mark.parametrize("symbol", ["BTC/USDT", "BTC/USDT:USDT"])
def test_the_exchange_writes_symbols_in_one_word(symbol: str) -> None:
    assert exchange_symbol(symbol) == "BTCUSDT"


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("500ms", 500),
        ("5s", 5_000),
        ("1m30s", 90_000),
        ("12h", 43_200_000),
        ("180d", 180 * DAY_MS),
        ("2w", 14 * DAY_MS),
        ("0s", 0),
    ],
)
def test_durations_become_milliseconds(text: str, ms: int) -> None:
    assert parse_duration(text) == ms


@pytest.mark.parametrize("text", ["", "5", "s", "5 s", "-5s", "1.5s", "5S", "5s1m", "5s5s", "5s\n", "999999999d"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_duration(text)
    assert repr(text) in str(caught.value)


@given(st.integers(0, 3_000 * DAY_MS))
def test_a_duration_survives_being_written(ms: int) -> None:
    assert parse_duration(format_duration(ms)) == ms


@pytest.mark.parametrize(
    ("text", "size"),
    [("256Mi", 256 * 2**20), ("1.5Gi", 3 * 2**29), ("1G", 10**9), ("1000", 1000), ("64k", 64_000), ("0.1Ki", 103)],
)
def test_amounts_of_memory_become_bytes(text: str, size: int) -> None:
    assert parse_quantity(text) == size


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("256MB", "write 256Mi"),
        ("128m", "thousandths"),
        ("lots", "256Mi"),
        ("-1Mi", "256Mi"),
        ("1e3", "256Mi"),
        ("", "256Mi"),
        ("9999999999Ti", "too much"),
    ],
)
def test_what_is_no_amount_of_memory_is_refused(text: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        parse_quantity(text)


@given(st.integers(0, 2**50))
def test_an_amount_of_memory_survives_being_written(size: int) -> None:
    assert parse_quantity(format_quantity(size)) == size


@pytest.mark.parametrize("read", [parse_duration, parse_interval, parse_quantity, parse_listen])
@pytest.mark.parametrize("digits", ["9" * 5000, "²"])
def test_numbers_that_are_none_or_have_thousands_of_digits_are_refused_in_words(read: Any, digits: str) -> None:
    """``int()`` refuses both in words of its own."""
    unit = {parse_quantity: "Mi", parse_listen: ""}.get(read, "s")
    with pytest.raises(InputError):
        read(("host:" if read is parse_listen else "") + digits + unit)
