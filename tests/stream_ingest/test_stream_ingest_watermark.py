"""Exchange time in silence, and the clocks' offset."""

from chandlery.stream.ingest.watermark import FLOWING_NS, MARGIN_MS, ClockOffset, ExchangeTime

_MS = 1_000_000


def test_nothing_is_known_before_the_first_frame_of_a_connection() -> None:
    time = ExchangeTime()
    assert time.estimate_ms(0) is None
    time.connected(0)
    assert time.estimate_ms(10 * _MS) is None
    time.heard(50_000, 20 * _MS)
    assert time.estimate_ms(20 * _MS) == 50_000 - MARGIN_MS


def test_the_estimate_goes_on_with_our_monotonic_clock() -> None:
    time = ExchangeTime()
    time.connected(0)
    time.heard(50_000, 0)
    assert time.estimate_ms(700 * _MS) == 50_700 - MARGIN_MS


def test_the_newest_frame_counts_even_when_it_says_less() -> None:
    time = ExchangeTime()
    time.connected(0)
    time.heard(50_000, 0)
    time.heard(48_000, 100 * _MS)
    assert time.estimate_ms(100 * _MS) == 48_000 - MARGIN_MS


def test_nothing_is_said_while_disconnected_and_the_next_connection_begins_unknown() -> None:
    time = ExchangeTime()
    time.connected(0)
    time.heard(50_000, 0)
    time.disconnected()
    assert time.estimate_ms(10 * _MS) is None
    time.connected(20 * _MS)
    assert time.estimate_ms(30 * _MS) is None


def test_a_stalled_connection_stops_the_estimate_and_a_pong_revives_it() -> None:
    time = ExchangeTime()
    time.connected(0)
    time.heard(50_000, 0)
    late = FLOWING_NS + 1
    assert time.estimate_ms(FLOWING_NS) is not None
    assert time.estimate_ms(late) is None
    time.alive(late)
    assert time.estimate_ms(late) == 50_000 + late // _MS - MARGIN_MS


def test_the_clock_offset_is_that_of_the_least_delayed_frame_of_the_last_minute() -> None:
    offset = ClockOffset()
    unknown = offset.offset_ms
    assert unknown is None
    for second, delay_ms in enumerate((80, 20, 50)):
        offset.observe(1_000 * second + 1_270 - delay_ms, second * 1_000 * _MS)
    assert offset.offset_ms == 1_250
    for second in range(60, 130, 5):
        offset.observe(1_000 * second + 1_200, second * 1_000 * _MS)
    assert offset.offset_ms == 1_200
