"""Decimals stay exact from text to scaled integers and back."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chandlery.core.wire import scaled_to_text
from chandlery.stream.ingest.decimals import float_text, least_scale, parse_column, parse_decimal


@given(st.decimals(min_value=0, max_value=10**12, places=8, allow_nan=False))
def test_a_text_of_up_to_eight_decimals_is_read_exactly(value: Decimal) -> None:
    scaled, scale = parse_decimal(f"{value:f}")
    assert scale == 8
    assert Decimal(scaled).scaleb(-scale) == value


@given(st.integers(0, 10**25), st.integers(0, 18))
def test_any_digits_and_decimals_survive_the_way_to_integers_and_back(digits: int, places: int) -> None:
    text = scaled_to_text(digits, places)
    scaled, scale = parse_decimal(text)
    assert scaled_to_text(scaled, scale) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("61837.63000000", (6183763000000, 8)),
        ("1e-3", (100000, 8)),
        ("2.5E+3", (250000000000, 8)),
        ("-1.5", (-150000000, 8)),
        (".5", (50000000, 8)),
        ("0.000000001", (1, 9)),
        ("0.100000000000000000000", (10000000, 8)),
    ],
)
def test_unusual_but_valid_forms_are_understood(text: str, expected: tuple[int, int]) -> None:
    assert parse_decimal(text) == expected


@pytest.mark.parametrize("text", ["", ".", "abc", "1.2.3", "NaN", "inf", "1e400", "1_000", "١", "0." + "1" * 19])
def test_what_is_no_sensible_decimal_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_decimal(text)


@given(st.lists(st.integers(0, 10**15), min_size=1, max_size=20), st.integers(0, 8))
def test_the_least_scale_holds_every_value_and_no_smaller_one_would(values: list[int], scale: int) -> None:
    reduced, least = least_scale(values, scale)
    assert [Decimal(value).scaleb(-least) for value in reduced] == [Decimal(value).scaleb(-scale) for value in values]
    assert least == 0 or any(value % 10 for value in reduced)


def test_a_column_gets_one_scale_that_holds_its_finest_value() -> None:
    assert parse_column(["1.5", "0.0000000001"]) == ([15_000_000_000, 1], 10)


@pytest.mark.parametrize(
    ("value", "places", "text"),
    [
        (0.1 + 0.2, 12, "0.3"),
        (61837.63, 12, "61837.63"),
        (1e-10, 12, "0.0000000001"),
        (123.123456789, 8, "123.12345679"),
    ],
)
def test_floats_lose_their_binary_noise(value: float, places: int, text: str) -> None:
    assert float_text(value, places) == text
