"""The protocol at every point where a reader and the writer can meet, access by access.

Sequentially consistent interleavings: they hold the order of stores and checks. The fences for weaker machines
are held by tests/segment_memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from tests.segment.interleavings import Interleavings, Schedule
from tests.segment.segment_rows import SESSION_MS, STEP_MS, Row, row, stamps

ROWS, GUARD, LENGTH = 4, 1, 3
SAMPLE = 12_000


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Interleavings:
    return Interleavings.build(tmp_path_factory.mktemp("interleavings"))


def append(lab: Interleavings, series: int, session: int, ordinal: int) -> None:
    lab.append(series, row(session, ordinal), stamps(session, ordinal))


def started(lab: Interleavings, count: int) -> int:
    """A segment with one series of so many rows, marked."""
    lab.begin(rows=ROWS, guard_rows=GUARD, series=2, stamp_rows=2)
    series = lab.insert("BTC/USDT")
    for ordinal in range(count):
        append(lab, series, 0, ordinal)
    return series


def go_round(lab: Interleavings, series: int) -> None:
    for ordinal in range(5, 9):
        append(lab, series, 0, ordinal)


def revise_twice(lab: Interleavings, series: int) -> None:
    lab.revise(series, row(0, 4, 1))
    lab.revise(series, row(0, 3, 2))


def revise_and_append(lab: Interleavings, series: int) -> None:
    lab.revise(series, row(0, 4, 1))
    append(lab, series, 0, 5)
    lab.revise(series, row(0, 3, 2))


def start_over(lab: Interleavings, series: int) -> None:
    lab.reset(series, 1)
    for ordinal in range(3):
        append(lab, series, 1, ordinal)


def give_record_away(lab: Interleavings, series: int) -> None:
    lab.discard("BTC/USDT")
    assert lab.insert("ETH/USDT") == series
    lab.reset(series, 2)
    for ordinal in range(4):
        append(lab, series, 2, ordinal)


def go_round_and_start_over(lab: Interleavings, series: int) -> None:
    """`reserved` falls back after it rose: who looks at it last takes a lapped row for a whole one."""
    for ordinal in range(5, 8):
        append(lab, series, 0, ordinal)
    lab.reset(series, 1)
    for ordinal in range(4):
        append(lab, series, 1, ordinal)


HISTORIES = [go_round, revise_twice, revise_and_append, start_over, give_record_away, go_round_and_start_over]


def runs(lab: Interleavings, operation: Callable[[], object], seed: int = 1) -> Iterator[tuple[Schedule, object]]:
    """The operation under each schedule, and what it gave."""
    lab.play(Schedule(lab.states - 1, []))
    operation()
    loads = lab.loads() + 1
    for schedule in lab.schedules(loads, SAMPLE, seed):
        lab.play(schedule)
        yield schedule, operation()


@pytest.mark.parametrize("history", HISTORIES)
def test_a_valid_window_is_whole_and_true_when_it_is_judged(
    lab: Interleavings, history: Callable[[Interleavings, int], None]
) -> None:
    series = started(lab, 5)
    epoch = lab.epoch(series)
    lab.mark()
    history(lab, series)
    valid_ones = refused = 0
    for schedule, result in runs(lab, lambda: lab.window(series, epoch, LENGTH)):
        assert isinstance(result, tuple)
        valid, session, begin, rows = result
        if not valid:
            refused += 1
            continue
        valid_ones += 1
        for place, found in enumerate(rows):
            ordinal = begin + place
            version = found[6] - ordinal * 1_000
            assert found == row(session, ordinal, version), f"{schedule}: row {ordinal} of session {session}"
            assert 0 <= version < 1_000, f"{schedule}: row {ordinal} is {found}"
        # Its revision is judged by the last load: at that moment the rows were the truth.
        lab.play(Schedule(schedule.state_at(lab.loads() - 1), []))
        _, now_session, now_begin, now_rows = lab.window(series, epoch, LENGTH)
        if now_session == session:
            now = {now_begin + place: values for place, values in enumerate(now_rows)}
            for place, found in enumerate(rows):
                assert now.get(begin + place, found) == found, f"{schedule}: row {begin + place} was out of date"
    assert valid_ones > 0
    assert refused > 0


@pytest.mark.parametrize("history", HISTORIES)
def test_what_nobody_disturbs_is_valid_before_and_after(
    lab: Interleavings, history: Callable[[Interleavings, int], None]
) -> None:
    series = started(lab, 5)
    epoch = lab.epoch(series)
    lab.mark()
    history(lab, series)
    for state in (0, lab.states - 1):
        lab.play(Schedule(state, []))
        epoch_there = epoch if state == 0 else lab.epoch(series)
        assert lab.window(series, epoch_there, LENGTH)[0], f"refused in state {state} of {lab.states}"


def test_a_forming_row_is_one_of_those_that_were_set(lab: Interleavings) -> None:
    series = started(lab, 1)
    lab.form(series, row(0, 1, 0), stamps(0, 1))
    lab.mark()
    lab.form(series, row(0, 1, 1), stamps(0, 1))
    lab.unform(series)
    lab.form(series, row(0, 2, 3), stamps(0, 2))
    allowed = [
        None,
        (row(0, 1, 0), stamps(0, 1)),
        (row(0, 1, 1), stamps(0, 1)),
        (row(0, 2, 3), stamps(0, 2)),
    ]
    seen = set()
    for schedule, result in runs(lab, lambda: lab.forming(series)):
        assert result in allowed, f"{schedule}: {result}"
        seen.add(result)
    assert len(seen) == len(allowed)


def test_a_candle_is_never_seen_closed_and_afterwards_forming(lab: Interleavings) -> None:
    series = started(lab, 3)
    epoch = lab.epoch(series)
    lab.form(series, row(0, 3, 1), stamps(0, 3))
    lab.mark()
    append(lab, series, 0, 3)
    lab.form(series, row(0, 4, 0), stamps(0, 4))

    def look() -> tuple[int, object]:
        _, _, begin, rows = lab.window(series, epoch, LENGTH)
        return begin + len(rows), lab.forming(series)

    for schedule, result in runs(lab, look):
        assert isinstance(result, tuple)
        count, forming = result
        assert forming is None or forming[0][0] >= count * STEP_MS, f"{schedule}: {count} closed, forming {forming}"


@pytest.mark.parametrize("history", [go_round, start_over, give_record_away, go_round_and_start_over])
def test_stamps_are_those_of_the_row_asked_for(
    lab: Interleavings, history: Callable[[Interleavings, int], None]
) -> None:
    series = started(lab, 5)
    lab.mark()
    history(lab, series)
    for ordinal in (2, 3, 4, 5):
        for schedule, result in runs(lab, lambda asked=ordinal: lab.stamps(series, asked), seed=ordinal):  # type: ignore[misc]
            allowed = [None, *(stamps(session, ordinal) for session in range(3))]
            assert result in allowed, f"{schedule}: stamps of row {ordinal} are {result}"


def test_find_after_answers_for_a_moment_that_was(lab: Interleavings) -> None:
    series = started(lab, 5)
    lab.mark()
    go_round(lab, series)
    for ordinal in range(9):
        time_ms = ordinal * STEP_MS
        for schedule, found in runs(lab, lambda asked=time_ms: lab.find_after(series, asked), seed=ordinal):  # type: ignore[misc]
            # Rows are never before the answer and after the time at once; what is gone moves it forward.
            oldest_ever, newest_ever = 5 - (ROWS - GUARD), 9
            lowest = max(oldest_ever, min(ordinal + 1, 5))
            assert lowest <= int(str(found)) <= newest_ever, f"{schedule}: after row {ordinal} comes {found}"
            if ordinal >= newest_ever - (ROWS - GUARD):
                assert int(str(found)) <= ordinal + 1, f"{schedule}: after row {ordinal} comes {found}"


def symbols_of_one_home(lab: Interleavings, count: int) -> list[str]:
    """Symbols that all want the same hash slot, so that they stand in each other's way."""
    chosen: list[str] = []
    for number in range(10_000):
        symbol = f"S{number}"
        if _home(symbol) == 5:
            chosen.append(symbol)
            if len(chosen) == count:
                return chosen
    raise AssertionError("no such symbols")


def _home(symbol: str) -> int:
    value = 0xCBF29CE484222325
    for byte in symbol.encode() + b"\0" + b"1s":
        value = (value ^ byte) * 0x100000001B3 & (1 << 64) - 1
    return (value ^ value >> 32) % 8


def test_a_series_is_found_while_its_neighbours_move(lab: Interleavings) -> None:
    lab.begin(rows=ROWS, guard_rows=GUARD, series=4, stamp_rows=1)
    first, second, lasting, later = symbols_of_one_home(lab, 4)
    for symbol in (first, second, lasting):
        lab.insert(symbol)
    lab.mark()
    lab.discard(first)
    lab.insert(later)
    lab.discard(second)
    for schedule, found in runs(lab, lambda: lab.look_up(lasting)):
        assert found == (2, 1), f"{schedule}: found {found}"


def test_names_with_one_hash_are_told_apart(lab: Interleavings) -> None:
    lab.begin(rows=ROWS, guard_rows=GUARD, series=4, stamp_rows=1)
    one, other = "C5202/USDT", "C55375/USDT"  # equal in all 32 bits that the table keeps
    lab.insert(one)
    lab.mark()
    lab.insert(other)
    lab.discard(one)
    for schedule, found in runs(lab, lambda: lab.look_up(other)):
        assert found in (None, (1, 1)), f"{schedule}: found {found}"
    lab.play(Schedule(lab.states - 1, []))
    assert (lab.look_up(one), lab.look_up(other)) == (None, (1, 1))


def test_a_name_never_leads_to_the_series_that_took_its_record(lab: Interleavings) -> None:
    series = started(lab, 1)
    before = lab.epoch(series)
    lab.mark()
    give_record_away(lab, series)
    lab.discard("ETH/USDT")
    lab.insert("BTC/USDT")
    allowed = [None, (series, before), (series, before + 4)]
    seen = set()
    for schedule, found in runs(lab, lambda: lab.look_up("BTC/USDT")):
        assert found in allowed, f"{schedule}: found {found}"
        seen.add(found)
    assert len(seen) == len(allowed)


def test_counts_and_sessions_belong_together(lab: Interleavings) -> None:
    series = started(lab, 5)
    lab.mark()
    start_over(lab, series)
    for schedule, result in runs(lab, lambda: lab.state(series)):
        assert isinstance(result, tuple)
        revision, count, session = result
        if not revision & 1:
            assert (count == 5) if session == 0 else (count <= 3), f"{schedule}: {count} rows of session {session}"


def test_sessions_are_far_enough_apart_for_these_tests() -> None:
    rows: list[Row] = [row(session, ordinal) for session in range(3) for ordinal in range(100)]
    assert len({values[0] for values in rows}) == len(rows)
    assert SESSION_MS > 100 * STEP_MS
