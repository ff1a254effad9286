"""What closes a candle is noticed, whatever intervals are built."""

from hypothesis import given
from hypothesis import strategies as st

from chandlery.core.intervals import parse_interval
from chandlery.stream.ingest.closing import NextClose

INTERVALS = ("1s", "3s", "5s", "1m", "3m", "5m", "1h", "1d", "1w", "1M")


@given(
    st.lists(st.sampled_from(INTERVALS), min_size=1, unique=True),
    st.lists(st.integers(0, 40 * 86_400_000), min_size=2, max_size=30),
)
def test_a_watermark_passes_exactly_when_some_interval_enters_another_candle(
    intervals: list[str], times_ms: list[int]
) -> None:
    close = NextClose(intervals)
    close.passes(newest_ms := times_ms[0])
    for time_ms in times_ms[1:]:
        entered = any(
            parse_interval(text).floor_ms(time_ms) > parse_interval(text).floor_ms(newest_ms) for text in intervals
        )
        assert close.passes(time_ms) is entered
        newest_ms = max(newest_ms, time_ms)


def test_without_intervals_nothing_ever_closes() -> None:
    assert not any(NextClose(()).passes(time_ms) for time_ms in (0, 1_000, 86_400_000))
