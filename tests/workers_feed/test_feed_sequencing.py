"""What one series accepts: whatever is repeated, delayed or replayed, the result is the same."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.workers_feed.feed_setup import MINUTE, candle

from chandlery.core.clocks import Stamps
from chandlery.core.wire import CandleUpdate
from chandlery.workers.feed.sequencing import Change, SeriesSequence

NO_STAMPS = Stamps()


@dataclass
class ListSink:
    """A series as plain data; as strict as the segment about order."""

    session: int = -1
    closed: dict[int, CandleUpdate] = field(default_factory=dict)
    forming: CandleUpdate | None = None

    def reset(self, session: int) -> None:
        assert session > self.session
        self.session, self.closed, self.forming = session, {}, None

    def append(self, update: CandleUpdate, stamps: Stamps) -> None:
        float(update.close)
        assert not self.closed or update.open_time_ms > max(self.closed)
        self.closed[update.open_time_ms] = update

    def revise(self, update: CandleUpdate) -> bool:
        if update.open_time_ms not in self.closed:
            return False
        self.closed[update.open_time_ms] = update
        return True

    def set_forming(self, update: CandleUpdate, stamps: Stamps) -> None:
        float(update.close)
        self.forming = update

    def clear_forming(self) -> None:
        self.forming = None


def a_series() -> tuple[SeriesSequence, ListSink, Counter[str]]:
    sink, counts = ListSink(), Counter[str]()
    return SeriesSequence(sink, counts), sink, counts


def test_closed_candles_are_appended_in_order() -> None:
    series, sink, counts = a_series()
    for minute in range(3):
        assert series.apply(0, candle(minute * MINUTE), NO_STAMPS) is Change.CLOSED
    assert list(sink.closed) == [0, MINUTE, 2 * MINUTE]
    assert counts["closed"] == 3


def test_a_repeated_closed_candle_is_counted_and_changes_nothing() -> None:
    series, sink, counts = a_series()
    series.apply(0, candle(0, close="1"), NO_STAMPS)
    assert series.apply(0, candle(0, close="2"), NO_STAMPS) is Change.NONE
    assert sink.closed[0].close == "1"
    assert counts["duplicate"] == 1


def test_a_higher_revision_replaces_the_row_and_a_lower_one_does_not() -> None:
    series, sink, counts = a_series()
    series.apply(0, candle(0, close="1"), NO_STAMPS)
    assert series.apply(0, candle(0, "revised", revision=2, close="3"), NO_STAMPS) is Change.CLOSED
    assert series.apply(0, candle(0, "revised", revision=1, close="2"), NO_STAMPS) is Change.NONE
    assert series.apply(0, candle(0, "final", revision=2, close="3"), NO_STAMPS) is Change.NONE
    assert sink.closed[0].close == "3"
    assert (counts["revised"], counts["duplicate"], counts["final"]) == (1, 1, 1)


def test_a_final_candle_stands_in_for_a_lost_revision() -> None:
    series, sink, _ = a_series()
    series.apply(0, candle(0, close="1"), NO_STAMPS)
    assert series.apply(0, candle(0, "final", revision=1, close="2"), NO_STAMPS) is Change.CLOSED
    assert sink.closed[0].close == "2"


def test_a_revision_of_a_candle_that_is_gone_is_counted() -> None:
    series, sink, counts = a_series()
    series.apply(0, candle(5 * MINUTE), NO_STAMPS)
    assert series.apply(0, candle(0, "revised", revision=1), NO_STAMPS) is Change.NONE
    assert counts["revision_too_old"] == 1
    assert list(sink.closed) == [5 * MINUTE]


def test_a_gap_is_counted_and_the_candle_accepted() -> None:
    series, sink, counts = a_series()
    series.apply(0, candle(0), NO_STAMPS)
    series.apply(0, candle(3 * MINUTE), NO_STAMPS)
    assert list(sink.closed) == [0, 3 * MINUTE]
    assert counts["gaps"] == 1


def test_a_forming_update_of_a_closed_candle_is_stale() -> None:
    series, sink, counts = a_series()
    series.apply(0, candle(0), NO_STAMPS)
    assert series.apply(0, candle(0, "forming"), NO_STAMPS) is Change.NONE
    assert sink.forming is None
    assert counts["stale_forming"] == 1


def test_a_forming_update_waits_for_its_predecessor() -> None:
    series, sink, counts = a_series()
    series.apply(0, candle(0), NO_STAMPS)
    assert series.apply(0, candle(2 * MINUTE, "forming", close="1"), NO_STAMPS) is Change.NONE
    assert series.apply(0, candle(2 * MINUTE, "forming", close="2"), NO_STAMPS) is Change.NONE
    assert (series.forming_open_time_ms, series.holds) == (-1, True)
    series.apply(0, candle(MINUTE), NO_STAMPS)
    assert sink.forming is not None
    assert sink.forming.close == "2"
    assert (counts["held"], counts["held_dropped"]) == (2, 1)


def test_closing_a_candle_ends_its_forming_row() -> None:
    series, sink, _ = a_series()
    series.apply(0, candle(0, "forming"), NO_STAMPS)
    assert series.forming_open_time_ms == 0
    series.apply(0, candle(0), NO_STAMPS)
    assert (sink.forming, series.forming_open_time_ms) == (None, -1)


def test_a_newer_session_starts_afresh_and_an_older_one_is_dropped() -> None:
    series, sink, counts = a_series()
    series.apply(1, candle(9 * MINUTE), NO_STAMPS)
    series.apply(1, candle(10 * MINUTE, "forming"), NO_STAMPS)
    series.apply(2, candle(0), NO_STAMPS)
    assert (sink.session, list(sink.closed), sink.forming) == (2, [0], None)
    assert series.apply(1, candle(MINUTE), NO_STAMPS) is Change.NONE
    assert counts["session"] == 1


@pytest.mark.parametrize("state", ["closed", "forming"])
def test_values_that_are_no_numbers_leave_the_series_as_it_was(state: str) -> None:
    series, sink, counts = a_series()
    series.apply(0, candle(0), NO_STAMPS)
    with pytest.raises(ValueError):
        series.apply(0, candle(MINUTE, state, close="abc"), NO_STAMPS)  # type: ignore[arg-type]
    assert (series.last_open_time_ms, counts["closed"]) == (0, 1)
    assert series.apply(0, candle(MINUTE), NO_STAMPS) is Change.CLOSED
    assert list(sink.closed) == [0, MINUTE]


# ---- against an oracle ----


@dataclass(frozen=True)
class Emission:
    closed_topic: bool
    session: int
    update: CandleUpdate


@st.composite
def emissions(draw: st.DrawFn) -> list[Emission]:
    """What a correct writer emits: sessions of candles that form, close, are revised and become final."""
    result: list[Emission] = []
    for session in range(draw(st.integers(1, 2))):
        minute, previous = draw(st.integers(0, 3)), -1
        for _ in range(draw(st.integers(0, 6))):
            at = minute * MINUTE
            for trade in range(draw(st.integers(0, 3))):
                update = candle(at, "forming", prev=previous, close=f"{trade}")
                result.append(Emission(False, session, update))
            closed = candle(at, "closed", prev=previous, close="10")
            result.append(Emission(True, session, closed))
            revisions = draw(st.integers(0, 2))
            for revision in range(1, revisions + 1):
                revised = msgspec.structs.replace(closed, state="revised", revision=revision, close=f"1{revision}")
                result.append(Emission(True, session, revised))
            previous = at
            minute += draw(st.integers(1, 2))
        if draw(st.booleans()):
            result.append(Emission(False, session, candle(minute * MINUTE, "forming", prev=previous, close="99")))
    return result


@st.composite
def deliveries(draw: st.DrawFn) -> tuple[list[Emission], list[Emission]]:
    """Emissions, and one way in which two topics may deliver them: each in its order, with replays."""
    emitted = draw(emissions())
    lanes = []
    for topic in (True, False):
        lane = [emission for emission in emitted if emission.closed_topic is topic]
        delivered: list[Emission] = []
        for index, emission in enumerate(lane):
            delivered.append(emission)
            if draw(st.integers(0, 5)) == 0:  # the writer restarts: it emits its newest ones again
                delivered += lane[max(0, index - draw(st.integers(0, 4))) : index + 1]
        lanes.append(delivered)
    merged: list[Emission] = []
    closed, live = lanes
    while closed or live:
        take = closed if (closed and (not live or draw(st.booleans()))) else live
        merged.append(take.pop(0))
    return emitted, merged


@given(deliveries())
def test_any_delivery_gives_the_closed_candles_of_the_newest_session(
    case: tuple[list[Emission], list[Emission]],
) -> None:
    emitted, delivered = case
    series, sink, counts = a_series()
    for emission in delivered:
        series.apply(emission.session, emission.update, NO_STAMPS)
    newest = max((emission.session for emission in emitted), default=-1)
    expected: dict[int, str] = {}
    for emission in emitted:
        if emission.session == newest and emission.closed_topic:
            expected[emission.update.open_time_ms] = emission.update.close
    assert {at: update.close for at, update in sink.closed.items()} == expected, [
        (emission.session, emission.update.state, emission.update.open_time_ms // MINUTE) for emission in delivered
    ]
    assert counts["gaps"] == 0
    assert counts["revision_too_old"] == 0


@given(deliveries())
def test_the_forming_candle_shown_is_never_stale_and_never_early(
    case: tuple[list[Emission], list[Emission]],
) -> None:
    emitted, delivered = case
    series, sink, _ = a_series()
    for emission in delivered:
        series.apply(emission.session, emission.update, NO_STAMPS)
        if sink.forming is not None:
            last = max(sink.closed, default=-1)
            assert sink.forming.open_time_ms > last
            assert sink.forming.prev_open_time_ms == last
    newest = max((emission.session for emission in emitted), default=-1)
    last_closed = max((e.update.open_time_ms for e in emitted if e.closed_topic and e.session == newest), default=-1)
    open_now = [
        e.update for e in emitted if not e.closed_topic and e.session == newest and e.update.open_time_ms > last_closed
    ]
    if open_now:  # everything was delivered: the one open candle is shown
        assert sink.forming is not None
        assert sink.forming.open_time_ms == open_now[-1].open_time_ms
    else:
        assert sink.forming is None


@given(deliveries())
def test_every_update_is_accounted_for(case: tuple[list[Emission], list[Emission]]) -> None:
    _, delivered = case
    series, _, counts = a_series()
    for emission in delivered:
        series.apply(emission.session, emission.update, NO_STAMPS)
    held_applied = counts["held"] - counts["held_dropped"] - series.holds
    taken_or_dropped = (
        counts["closed"] + counts["revised"] + counts["duplicate"] + counts["final"] + counts["revision_too_old"]
        + counts["forming"] - held_applied + counts["held"] + counts["stale_forming"] + counts["session"]
    )  # fmt: skip
    assert taken_or_dropped == len(delivered), counts
