"""A signal's life is made from records alone, whatever their order, and it only goes forward."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chandlery.core.signal_life import STANDINGS, STATES, Lives, SignalLife
from chandlery.core.signals import Action, Life, Signal, SignalStamps, Word, decode_record, encode

MINUTE = 60_000
T0 = 1_700_000_000_000
quick = settings(max_examples=150, deadline=None)


def signal(number: int, action: Action = "buy", at_ms: int = 0, **changes: Any) -> Signal:
    base = Signal(
        id=f"{number:032x}",
        trader="desk/a",
        strategy="x",
        code="c0de",
        rule="r",
        ordinal=0,
        action=action,
        symbol="BTC/USDT",
        interval="1m",
        open_time_ms=T0,
        session=1,
        price="1",
        strength=1.0,
        reason="",
        emitted_wall_ms=T0 + at_ms,
        stamps=SignalStamps(signalled_ns=at_ms * 1_000_000 + number),
    )
    return msgspec.structs.replace(base, **changes)


def word(number: int, state: Word, at_ms: int) -> Life:
    return Life(f"{number:032x}", "desk/a", "BTC/USDT", state, T0, T0 + at_ms)


def life(records: Sequence[Signal | Life], number: int = 1, now_ms: int = 0) -> SignalLife:
    lives = Lives()
    for record in records:
        lives.add(record)
    found = lives.of(f"{number:032x}", T0 + now_ms)
    assert found is not None
    return found


def steps(of: SignalLife) -> list[tuple[str, int]]:
    return [(step.state, step.at_ms - T0) for step in of.steps]


def test_one_on_a_closed_candle_is_active_from_the_start_and_expires_after_ten_intervals() -> None:
    records = [signal(1)]
    assert steps(life(records)) == [("detected", 0), ("active", 0)]
    assert life(records).expires_ms == T0 + 10 * MINUTE
    assert life(records, now_ms=10 * MINUTE - 1).state == "active"
    ended = life(records, now_ms=99 * MINUTE)
    assert steps(ended) == [("detected", 0), ("active", 0), ("expired", 10 * MINUTE)]
    assert ended.expires_ms is None


def test_the_traders_own_ttl_counts_where_the_signal_carries_it() -> None:
    assert steps(life([signal(1, ttl_ms=5_000)], now_ms=6_000))[-1] == ("expired", 5_000)


def test_one_on_a_forming_candle_is_what_its_close_says() -> None:
    forming = signal(1, forming=True)
    assert life([forming]).state == "detected"
    confirmed = life([forming, word(1, "confirmed", 20)], now_ms=30)
    assert steps(confirmed) == [("detected", 0), ("confirmed", 20), ("active", 20)]
    assert confirmed.expires_ms == T0 + 20 + 10 * MINUTE, "its time counts from when it became active"
    withdrawn = life([forming, word(1, "invalidated", 20)], now_ms=99 * MINUTE)
    assert steps(withdrawn) == [("detected", 0), ("invalidated", 20)]


def test_a_second_record_of_the_same_signal_on_the_closed_candle_confirms_it_and_another_action_does_not() -> None:
    forming = signal(1, forming=True)
    assert steps(life([forming, signal(1, at_ms=30)]))[1] == ("confirmed", 30)
    assert life([forming, signal(1, "sell", at_ms=30)]).state == "detected"
    assert life([forming, signal(1, at_ms=30, session=2)]).state == "detected", "another session's candle"


def test_one_of_whose_close_nothing_is_known_stays_detected_until_it_expires() -> None:
    forming = signal(1, forming=True)
    assert life([forming], now_ms=11 * MINUTE - 1).state == "detected"
    assert steps(life([forming], now_ms=11 * MINUTE)) == [("detected", 0), ("expired", 11 * MINUTE)]
    late: list[Signal | Life] = [forming, word(1, "confirmed", 12 * MINUTE)]
    assert life(late, now_ms=13 * MINUTE).state == "expired", "an end is an end"


@pytest.mark.parametrize(
    ("first", "then", "closes"),
    [
        ("buy", "sell", True),
        ("buy", "close", True),
        ("buy", "buy", False),
        ("buy", "custom", False),
        ("sell", "buy", True),
        ("sell", "close", True),
        ("close", "buy", True),
        ("close", "close", False),
        ("custom", "sell", False),
    ],
)
def test_an_active_one_is_closed_by_the_next_opposite_one(first: Action, then: Action, closes: bool) -> None:
    found = life([signal(1, first), signal(2, then, at_ms=7), signal(3, then, at_ms=9)], now_ms=10)
    assert (found.state, found.ended_by) == (("closed", f"{2:032x}") if closes else ("active", ""))
    if closes:
        assert steps(found)[-1] == ("closed", 7)


@pytest.mark.parametrize("changes", [{"trader": "desk/b"}, {"symbol": "ETH/USDT"}, {"forming": True}])
def test_only_an_active_one_of_the_same_trader_and_symbol_closes_another(changes: dict[str, Any]) -> None:
    assert life([signal(1), signal(2, "sell", at_ms=7, **changes)], now_ms=10).state == "active"


def test_a_confirmed_opposite_closes_when_it_is_confirmed_and_a_withdrawn_one_never() -> None:
    opposite = signal(2, "sell", at_ms=7, forming=True)
    assert steps(life([signal(1), opposite, word(2, "confirmed", 40)]))[-1] == ("closed", 40)
    assert life([signal(1), opposite, word(2, "invalidated", 40)]).state == "active"


def test_what_comes_after_its_time_does_not_close_it() -> None:
    assert life([signal(1, ttl_ms=5), signal(2, "sell", at_ms=6)], now_ms=10).state == "expired"


def test_a_forgotten_one_ends_no_other() -> None:
    lives = Lives()
    for one in (signal(1), signal(2, "sell", at_ms=7)):
        lives.add(one)
    lives.forget(f"{2:032x}")
    left = lives.of(f"{1:032x}", T0 + 10)
    assert left is not None
    assert left.state == "active"
    assert lives.of(f"{2:032x}", T0) is None


def test_what_is_told_of_a_life_reads_back_from_the_topic() -> None:
    told = word(1, "invalidated", 5)
    assert decode_record(encode(told)) == told
    assert b'"kind":"life"' in encode(told)


records_of_some = st.lists(
    st.one_of(
        st.builds(
            signal,
            st.integers(1, 4),
            st.sampled_from(["buy", "sell", "close", "custom"]),
            st.integers(0, 12 * MINUTE).map(lambda at: at // 5_000 * 5_000),
            forming=st.booleans(),
            ttl_ms=st.sampled_from([0, 10_000, 4 * MINUTE]),
            session=st.sampled_from([1, 1, 2]),
        ),
        st.builds(
            word,
            st.integers(1, 4),
            st.sampled_from(["confirmed", "invalidated"]),
            st.integers(0, 15 * MINUTE).map(lambda at: at // 5_000 * 5_000),
        ),
    ),
    max_size=12,
)


class Watched(list[Any]):
    """Counts how often it is looked into."""

    looks = 0

    def __getitem__(self, at: Any) -> Any:
        Watched.looks += 1
        return super().__getitem__(at)


def test_a_life_costs_the_same_however_many_alike_are_active_beside_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Watched, "looks", 0)
    lives = Lives()
    for number in range(2_000):
        lives.add(signal(number, at_ms=number, ttl_ms=99 * MINUTE))
    lives.add(signal(9_999, "sell", at_ms=9_999))
    for key, alike in lives._active.items():
        lives._active[key] = Watched(alike)
    found = lives.of(f"{1:032x}", T0)
    assert found is not None
    assert steps(found) == [("detected", 1), ("active", 1), ("closed", 9_999)]
    assert Watched.looks < 50


@quick
@given(records_of_some, st.data())
def test_records_in_any_order_and_any_number_tell_the_same_lives(
    records: list[Signal | Life], data: st.DataObject
) -> None:
    repeated = records + data.draw(st.lists(st.sampled_from(records), max_size=6) if records else st.just([]))
    shuffled = data.draw(st.permutations(repeated))
    now_ms = T0 + data.draw(st.integers(0, 40 * MINUTE))
    ones, others = Lives(), Lives()
    for record in records:
        ones.add(record)
    for record in shuffled:
        others.add(record)
    for number in range(1, 5):
        identity = f"{number:032x}"
        assert ones.of(identity, now_ms) == others.of(identity, now_ms)


@quick
@given(records_of_some)
def test_states_only_go_forward_and_there_is_one_end_at_most(records: list[Signal | Life]) -> None:
    lives = Lives()
    for record in records:
        lives.add(record)
    for number in range(1, 5):
        identity = f"{number:032x}"
        before: tuple[tuple[str, int], ...] = ()
        for now_ms in range(T0, T0 + 40 * MINUTE, MINUTE // 2):
            found = lives.of(identity, now_ms)
            if found is None:
                break
            assert found.steps[: len(before)] == before, "what was, stays"
            before = found.steps
            states = [step.state for step in found.steps]
            assert found.state in STANDINGS, "none stays confirmed: it is active at once"
            assert states[0] == "detected"
            assert [STATES.index(state) for state in states] == sorted({STATES.index(state) for state in states})
            times = [step.at_ms for step in found.steps]
            assert times == sorted(times)
            ends = [state for state in states if state in ("invalidated", "closed", "expired")]
            assert len(ends) <= 1
            assert bool(ends) == (found.expires_ms is None)
            assert not ends or states[-1] == ends[0]
            assert bool(found.ended_by) == (found.state == "closed")


@quick
@given(records_of_some)
def test_one_that_was_forgotten_leaves_nothing_behind(records: list[Signal | Life]) -> None:
    lives = Lives()
    for record in records:
        lives.add(record)
    for number in range(1, 5):
        lives.forget(f"{number:032x}")
    assert len(lives) == 0
    assert lives._active == {}
