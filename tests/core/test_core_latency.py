"""The latency account: never negative, sums to the whole, says what it doesn't know."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chandlery.core.latency import STAGES, account
from chandlery.core.signals import SignalStamps

MS = 1_000_000
WALL = 1_700_000_000_000 * MS  # the wall clock when the monotonic one stood at 0


def a_signal(**changes: int) -> SignalStamps:
    stamps = {
        "exchange_ns": WALL + 90 * MS,
        "received_ns": 100 * MS,
        "appended_ns": WALL + 101 * MS,
        "aggregated_ns": 104 * MS,
        "emitted_ns": 105 * MS,
        "fed_ns": 107 * MS,
        "published_ns": 108 * MS,
        "woken_ns": 109 * MS,
        "decided_ns": 110 * MS,
        "signalled_ns": 111 * MS,
        "acknowledged_ns": 115 * MS,
        "wall_offset_ns": WALL,
    }
    return SignalStamps(**{**stamps, **changes})


def test_every_stage_is_named_in_order_and_sums_to_the_whole() -> None:
    told = account(a_signal())
    assert [stage.name for stage in told.stages] == list(STAGES)
    assert told.whole_us == pytest.approx(15_000)
    assert sum(stage.duration_us for stage in told.stages) == pytest.approx(told.whole_us)
    assert told.frame_to_signal_us == pytest.approx(15_000)
    assert told.visible_to_decided_us == pytest.approx(2_000)
    assert told.corrected == 0


def test_the_brokers_stamp_lies_in_its_millisecond_with_half_of_it_uncertain() -> None:
    stage = account(a_signal()).stages[0]
    assert stage.name == "appended"
    assert stage.duration_us == pytest.approx(1_500)  # 101 ms … 102 ms, received at 100 ms
    assert stage.uncertainty_us == pytest.approx(500, abs=1)
    assert stage.clock == "wall"


def test_a_brokers_clock_that_contradicts_causality_is_bounded_by_its_neighbours() -> None:
    for shift_ms in (-10_000, 10_000):
        told = account(a_signal(appended_ns=WALL + (101 + shift_ms) * MS))
        appended, aggregated = told.stages[0], told.stages[1]
        assert appended.duration_us + aggregated.duration_us == pytest.approx(4_000)
        assert appended.uncertainty_us == pytest.approx(4_000)


def test_an_unknown_wall_offset_leaves_causality_alone() -> None:
    appended = account(a_signal(wall_offset_ns=0)).stages[0]
    assert appended.duration_us == pytest.approx(2_000)
    assert appended.uncertainty_us == pytest.approx(2_000, abs=1)


def test_the_exchanges_clock_is_skew_beside_the_stages() -> None:
    told = account(a_signal(exchange_ns=WALL + 1_370 * MS, recorded_skew_ns=-1_270 * MS))
    assert told.skew_us == pytest.approx(-1_270_000)
    assert told.recorded_skew_us == pytest.approx(-1_270_000)
    assert told.whole_us == pytest.approx(15_000)
    assert account(a_signal(exchange_ns=0)).skew_us is None


def test_a_missing_stamp_makes_the_next_stage_longer() -> None:
    told = account(a_signal(aggregated_ns=0, appended_ns=0))
    assert [stage.name for stage in told.stages][:2] == ["emitted", "fed"]
    assert told.stages[0].duration_us == pytest.approx(5_000)
    assert told.whole_us == pytest.approx(15_000)


def test_a_stamp_before_its_predecessor_is_moved_and_its_move_is_the_uncertainty() -> None:
    told = account(a_signal(decided_ns=106 * MS))
    by_name = {stage.name: stage for stage in told.stages}
    assert by_name["decided"].duration_us == 0
    assert by_name["decided"].uncertainty_us == pytest.approx(3_000)
    assert told.corrected == 1


def test_no_stamps_give_an_empty_account() -> None:
    told = account(SignalStamps())
    assert (told.stages, told.whole_us, told.frame_to_signal_us) == ([], 0.0, None)


stamp = st.one_of(
    st.just(0), st.integers(-(10**6), 10**6), st.integers(-(2**70), 2**70), st.sampled_from([10**400, -(10**400)])
)


@given(st.fixed_dictionaries({name: stamp for name in SignalStamps.__struct_fields__}))
def test_no_stamps_whatever_make_a_negative_stage(fields: dict[str, int]) -> None:
    told = account(SignalStamps(**fields))
    for stage in told.stages:
        assert stage.duration_us >= 0, (stage, fields)
        assert stage.uncertainty_us >= 0, (stage, fields)
    assert told.whole_us >= 0
    assert sum(stage.duration_us for stage in told.stages) == pytest.approx(told.whole_us, rel=1e-6)
    names = [stage.name for stage in told.stages]
    assert names == sorted(names, key=list(STAGES).index)
    for span in (told.frame_to_signal_us, told.visible_to_decided_us):
        assert span is None or span >= 0


@given(st.lists(st.integers(1, 10**9), min_size=9, max_size=9), st.integers(-(10**9), 10**9))
def test_ordered_stamps_are_never_moved(steps: list[int], broker_error_ns: int) -> None:
    at, times = 10**9, []
    for step in steps:
        at += step
        times.append(at)
    names = ("received", "aggregated", "emitted", "fed", "published", "woken", "decided", "signalled", "acknowledged")
    fields = {f"{name}_ns": time for name, time in zip(names, times, strict=True)}
    told = account(SignalStamps(**fields, appended_ns=WALL + times[0] + broker_error_ns, wall_offset_ns=WALL))
    assert told.corrected == 0
    assert told.frame_to_signal_us == pytest.approx((times[-1] - times[0]) / 1_000)
