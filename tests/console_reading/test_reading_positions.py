"""Positions in the log of signals, as texts."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.console_reading.simulated_topics import (
    quick,
)

from chandlery.console.reading.positions import MOST_CHARS, Position, decode, feed_key
from chandlery.core.errors import InputError

# ---- positions ----


@quick
@given(st.dictionaries(st.tuples(st.binary(min_size=5, max_size=5), st.integers(0, 7)), st.integers(0, 2**62)), st.integers(0, 2**42))  # fmt: skip
def test_a_position_reads_back_as_it_was(offsets: dict[tuple[bytes, int], int], time_ms: int) -> None:
    position = Position()
    for place, offset in offsets.items():
        position.set(place, offset, time_ms)
    text = position.encode()
    assert len(text) <= MOST_CHARS
    assert set(text) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")
    again = decode(text)
    assert again.encode() == text
    if len(offsets) <= 12:
        assert {place: again.get(place) for place in offsets} == offsets


def test_a_position_of_33_feeds_of_four_partitions_fits_and_of_more_leaves_out_the_newest() -> None:
    position = Position()
    for number in range(60):
        for partition in range(4):
            position.set((feed_key(f"desk/{number}", "t"), partition), 5_000_000 + number, 1_000 + number)
    again = decode(position.encode())
    kept = [number for number in range(60) if again.get((feed_key(f"desk/{number}", "t"), 0)) is not None]
    assert kept == list(range(len(kept)))
    assert len(kept) >= 33
    assert again.time_ms == 1_059


@quick
@given(st.text(max_size=40) | st.binary(max_size=60).map(lambda raw: raw.hex()) | st.text("AQab_-9", max_size=1_200))
def test_any_text_is_a_position_or_refused(text: str) -> None:
    with suppress(InputError):
        decode(text).encode()  # nothing else may come of it


@pytest.mark.parametrize("text", ["x", "=", "AA", "A" * 1_025, "Ae!", "AceEPU8aHJ", "AQ-\n"])
def test_what_is_no_position_is_refused_by_name(text: str) -> None:
    with pytest.raises(InputError, match="is no position of the signals"):
        decode(text)
