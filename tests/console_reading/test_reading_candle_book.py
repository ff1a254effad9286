"""The candles of one series: repeated, revised, of a new session, read back in stretches, told to those who look on."""

from __future__ import annotations

from collections import Counter

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.workers_feed.feed_setup import MINUTE, candle

from chandlery.console.api.models import Candle
from chandlery.console.reading.candle_book import CandleBook, CandleChange, Changes, Lookback, candle_of
from chandlery.core.wire import CandleUpdate

#: No example is timed: other work of the machine is no fault.
quick = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
Written = list[tuple[int, CandleUpdate]]


@st.composite
def topics(draw: st.DrawFn) -> Written:
    """Closed candles of one symbol with revisions and final repetitions, of one interval or another, of sessions."""
    written: Written = []
    for session in range(draw(st.integers(1, 3))):
        revisions: dict[int, int] = {}
        for minute in range(draw(st.integers(0 if session else 1, 12))):
            written.append((session, candle(minute * MINUTE, close=f"{session}.{minute}")))
            revisions[minute] = 0
            if draw(st.booleans()):
                written.append((session, candle(minute * MINUTE, interval="5m", close="9")))
            if draw(st.integers(0, 3)) == 0:
                late = draw(st.integers(max(0, minute - 2), minute))
                revisions[late] += 1
                text = f"{session}.{late}{revisions[late]}"
                written.append((session, candle(late * MINUTE, "revised", revision=revisions[late], close=text)))
            if draw(st.integers(0, 3)) == 0:
                done = draw(st.integers(0, minute))
                text = f"{session}.{done}{revisions[done]}" if revisions[done] else f"{session}.{done}"
                final = candle(done * MINUTE, "final", revision=revisions[done], close=text, final=True)
                written.append((session, final))
    return written


def newest_session(written: Written) -> dict[int, str]:
    """Closes by open time as they stand at the end."""
    last = max(session for session, _ in written)
    held: dict[int, CandleUpdate] = {}
    for session, update in written:
        if session == last and update.interval == "1m":
            before = held.get(update.open_time_ms)
            if before is None or update.revision > before.revision:
                held[update.open_time_ms] = update
    return {open_time_ms: held[open_time_ms].close for open_time_ms in sorted(held)}


def closes(candles: list[Candle]) -> dict[int, str]:
    return {one.open_time_ms: one.close for one in candles}


def take_1m(book: CandleBook, written: Written) -> None:
    for session, update in written:
        if update.interval == "1m":
            book.take(session, update)


@quick
@given(topics(), st.integers(1, 8), st.data())
def test_whatever_is_repeated_the_newest_candles_are_as_they_were_written(
    written: Written, kept: int, data: st.DataObject
) -> None:
    delivered: Written = []
    for at, one in enumerate(written):
        delivered.append(one)
        if data.draw(st.booleans()):
            again = data.draw(st.integers(0, at))
            delivered += written[again : at + 1]  # whoever writes them began again there
    book, once = CandleBook(kept, Counter()), CandleBook(kept, Counter())
    take_1m(book, delivered)
    take_1m(once, written)
    assert book.candles(100) == once.candles(100)
    want = newest_session(written)
    assert closes(book.candles(100)) == dict(list(want.items())[-kept:])


@quick
@given(topics(), st.integers(1, 15), st.data())
def test_a_look_back_in_stretches_finds_the_newest_of_the_session(
    written: Written, need: int, data: st.DataObject
) -> None:
    look = Lookback("BTC/USDT", "1m", need)
    high = len(written)
    while high and not look.enough:
        low = max(0, high - data.draw(st.integers(1, 6)))
        look.stretch((session, [update]) for session, update in written[low:high])
        high = low
    book = CandleBook(100, Counter())
    for session, update in look.updates():
        book.take(session, update)
    found, want = closes(book.candles(100)), newest_session(written)
    assert list(found) == list(want)[len(want) - len(found) :]  # without a hole
    assert len(found) >= min(need, len(want))
    assert {at: want[at] for at in found} == found
    if high == 0:
        assert found == want


@quick
@given(topics(), st.integers(1, 5), st.lists(st.integers(1, 6), max_size=30))
def test_who_looks_on_now_and_then_ends_with_what_the_book_holds(written: Written, most: int, turns: list[int]) -> None:
    changes, shown = Changes(100), dict[int, str]()
    book = CandleBook(100, Counter(), changes.add)
    book.open = True
    bounded = Changes(most)

    def look() -> None:
        for change in changes.take():
            bounded.add(change)
            if change.reset:
                shown.clear()
            shown[change.candle.open_time_ms] = change.candle.close

    left = list(written)
    for turn in [*turns, len(written)]:
        take_1m(book, left[:turn])
        del left[:turn]
        look()
    assert shown == closes(book.candles(100))
    assert len(bounded.take()) <= most


def test_a_reset_stays_with_the_first_candle_of_its_session_whatever_is_left_out() -> None:
    changes = Changes(2)
    changes.add(CandleChange(candle_of(candle(9 * MINUTE)), reset=False))
    for minute in range(4):
        changes.add(CandleChange(candle_of(candle(minute * MINUTE)), reset=minute == 0))
    assert [(change.candle.open_time_ms // MINUTE, change.reset) for change in changes.take()] == [
        (2, True),
        (3, False),
    ]
    assert changes.left_out == 2


def test_a_forming_candle_is_shown_last_until_it_closes() -> None:
    book = CandleBook(10, Counter())
    book.take(0, candle(0))
    book.take(0, candle(MINUTE, "forming", close="5"))
    assert [one.state for one in book.candles(10)] == ["closed", "forming"]
    assert [one.state for one in book.candles(1)] == ["forming"]
    assert [one.open_time_ms for one in book.candles(10, MINUTE)] == [0]
    book.take(0, candle(MINUTE, close="6"))
    assert [(one.state, one.close) for one in book.candles(10)] == [("closed", "100.5"), ("closed", "6")]


def test_a_final_repetition_marks_the_candle_final_and_tells_nobody() -> None:
    told: list[CandleChange] = []
    book = CandleBook(10, Counter(), told.append)
    book.open = True
    book.take(0, candle(0))
    book.take(0, candle(0, "final", final=True))
    assert [one.state for one in book.candles(10)] == ["final"]
    assert [change.candle.state for change in told] == ["closed"]


def test_values_that_are_no_numbers_leave_the_book_as_it_was() -> None:
    book = CandleBook(10, Counter())
    book.take(0, candle(0))
    before = book.candles(10)
    for state in ("closed", "forming"):
        with pytest.raises(ValueError, match="finite"):
            book.take(0, msgspec.structs.replace(candle(MINUTE, close="inf"), state=state))
    assert book.candles(10) == before


def test_a_book_that_was_full_no_longer_claims_to_begin_with_the_session() -> None:
    book = CandleBook(2, Counter())
    book.from_beginning = True
    for minute in range(3):
        book.take(0, candle(minute * MINUTE))
    assert not book.from_beginning
    assert [one.open_time_ms // MINUTE for one in book.candles(10)] == [1, 2]


def test_older_candles_are_put_before_as_far_as_there_is_room() -> None:
    book = CandleBook(4, Counter())
    for minute in (5, 6):
        book.take(0, candle(minute * MINUTE))
    book.put_before([candle_of(candle(minute * MINUTE)) for minute in (2, 3, 4)])
    assert [one.open_time_ms // MINUTE for one in book.candles(10)] == [3, 4, 5, 6]
    book.put_before([candle_of(candle(MINUTE))])
    assert [one.open_time_ms // MINUTE for one in book.candles(10)] == [3, 4, 5, 6]


def test_all_candles_are_told_as_of_a_new_session_and_of_an_empty_book_the_next() -> None:
    told: list[CandleChange] = []
    book = CandleBook(3, Counter(), told.append)
    for minute in range(5):
        book.take(0, candle(minute * MINUTE))
    book.open = True
    book.take(0, candle(5 * MINUTE, "forming"))
    told.clear()
    book.tell_all()
    book.take(0, candle(5 * MINUTE))
    assert [(one.candle.open_time_ms // MINUTE, one.reset) for one in told] == [(3, True), (4, False), (5, False), (5, False)]  # fmt: skip
    empty = CandleBook(3, Counter(), told.append)
    empty.open = True
    told.clear()
    empty.tell_all()
    empty.take(0, candle(0))
    empty.take(0, candle(MINUTE))
    assert [one.reset for one in told] == [True, False]
