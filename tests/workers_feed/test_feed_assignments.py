"""Assignments: lost, doubled, delayed, reordered or forged, the worker ends with the newest whole state."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.workers_feed.feed_setup import assignment, trader

from chandlery.core.assignment import (
    MOST_INCARNATIONS,
    MOST_TRADERS,
    Assignment,
    SeriesRef,
    content_hash,
    surge_of,
)
from chandlery.workers.feed.assignments import AssignmentStore
from chandlery.workers.feed.board import bells_of
from chandlery.workers.ring_names import ring_file_name

BTC, ETH = "BTC/USDT", "ETH/USDT"


def a_store(folder: Path) -> AssignmentStore:
    return AssignmentStore("w-0", folder / "assignment.json")


def test_a_lower_sequence_is_refused_and_an_equal_one_is_idempotent(tmp_path: Path) -> None:
    store = a_store(tmp_path)
    assert store.offer(assignment(5, trader("a", [BTC]))).verdict == "taken"
    assert store.offer(assignment(5, trader("a", [BTC]))).verdict == "same"
    assert store.offer(assignment(4, trader("b", [BTC]))).verdict == "lower"
    assert store.offer(assignment(5, trader("b", [BTC]))).verdict == "conflict"
    assert store.sequence == 5
    assert list(store.bells) == ["desk/a@1"]


@pytest.mark.parametrize(
    "forged",
    [
        Assignment("w-0", 1, "0" * 16, [trader("a", [BTC])]),
        assignment(1, trader("a", [BTC]), worker="w-1"),
        assignment(0, trader("a", [BTC])),
        assignment(1, trader("a", [BTC]), trader("a", [ETH])),
        assignment(1, *(trader("a", [BTC], incarnation=number) for number in (1, 2, 3))),
        assignment(1, *(trader(f"t{number}", [BTC]) for number in range(257))),
        assignment(1, *(trader(f"t{number}", [BTC], incarnation=each) for number in range(161) for each in (1, 2))),
        assignment(1, trader("../../etc/passwd", [BTC])),
        assignment(1, msgspec.structs.replace(trader("a", [BTC]), trader="..")),
    ],
    ids=["hash", "worker", "sequence", "twice", "thrice", "too many", "too many successors", "path", "no namespace"],
)
def test_an_assignment_that_cannot_be_right_is_refused(tmp_path: Path, forged: Assignment) -> None:
    store = a_store(tmp_path)
    outcome = store.offer(forged)
    assert outcome.verdict == "invalid"
    assert outcome.message
    assert store.current is None


def test_traders_in_another_order_are_the_same_content() -> None:
    one, two = trader("a", [BTC]), trader("b", [ETH])
    assert content_hash([one, two]) == content_hash([two, one])


def test_a_trader_keeps_its_bell_while_it_stays_and_over_a_restart(tmp_path: Path) -> None:
    store = a_store(tmp_path)
    store.offer(assignment(1, trader("a", [BTC]), trader("b", [BTC]), trader("c", [BTC])))
    bell = store.bells["desk/c@1"]
    store.offer(assignment(2, trader("c", [BTC]), trader("d", [BTC])))
    assert store.bells["desk/c@1"] == bell
    assert store.bells["desk/d@1"] != bell
    again = a_store(tmp_path)
    again.restore()
    assert again.bells == store.bells
    assert again.sequence == 2
    assert set(again.draining) == {"desk/a@1", "desk/b@1"}
    again.forget("desk/a@1")
    third = a_store(tmp_path)
    third.restore()
    assert set(third.draining) == {"desk/b@1"}


def test_two_incarnations_of_one_trader_have_bells_and_fences_of_their_own(tmp_path: Path) -> None:
    store = a_store(tmp_path)
    store.offer(assignment(1, trader("a", [BTC], incarnation=3, until_ms=60), trader("b", [BTC])))
    old, new = trader("a", [BTC], incarnation=3, until_ms=60), trader("a", [BTC], incarnation=4, from_ms=60)
    assert store.offer(assignment(2, new, trader("b", [BTC]), old)).verdict == "taken"
    assert store.bells == {"desk/a@3": 0, "desk/b@1": 1, "desk/a@4": 2}
    assert (store.fences["desk/a@3"].until_ms, store.fences["desk/a@4"].from_ms) == (60, 60)
    assert store.shown(store.bells) == {"desk/a@3": "desk/a", "desk/b@1": "desk/b", "desk/a@4": "desk/a@4"}
    store.offer(assignment(3, new, trader("b", [BTC])))
    assert set(store.draining) == {"desk/a@3"}
    assert store.draining["desk/a@3"].until_ms == 60
    assert store.shown(store.fences) == {"desk/a@3": "desk/a@3", "desk/b@1": "desk/b", "desk/a@4": "desk/a"}


def test_as_many_traders_and_successors_as_a_worker_has_room_for_are_taken(tmp_path: Path) -> None:
    store = a_store(tmp_path)
    traders = [trader(f"t{number}", [BTC]) for number in range(MOST_TRADERS)]
    successors = [trader(f"t{number}", [BTC], incarnation=2) for number in range(surge_of(MOST_TRADERS))]
    assert store.offer(assignment(1, *traders, *successors)).verdict == "taken"
    assert sorted(store.bells.values()) == list(range(MOST_INCARNATIONS))


def test_what_an_earlier_version_kept_is_taken_over(tmp_path: Path) -> None:
    store = a_store(tmp_path)
    store.offer(assignment(1, trader("a", [BTC]), trader("gone", [BTC], incarnation=2)))
    store.offer(assignment(2, trader("a", [BTC])))
    path = tmp_path / "assignment.json"
    path.write_bytes(path.read_bytes().replace(b"desk/gone@2", b"desk/gone").replace(b"desk/a@1", b"desk/a"))
    again = a_store(tmp_path)
    again.restore()
    assert (again.bells, set(again.fences)) == ({"desk/a@1": 0}, {"desk/a@1", "desk/gone@2"})


@pytest.mark.parametrize("kept", [b"", b"{", b"null", b'{"assignment": 1}', bytes(range(256))])
def test_a_kept_assignment_that_is_garbage_is_left_aside(tmp_path: Path, kept: bytes) -> None:
    (tmp_path / "assignment.json").write_bytes(kept)
    store = a_store(tmp_path)
    store.restore()
    assert store.current is None
    assert store.offer(assignment(1, trader("a", [BTC]))).verdict == "taken"


def test_a_kept_assignment_with_a_wrong_hash_is_left_aside(tmp_path: Path) -> None:
    store = a_store(tmp_path)
    store.offer(assignment(1, trader("a", [BTC])))
    path = tmp_path / "assignment.json"
    path.write_bytes(path.read_bytes().replace(b'"desk/a","uid"', b'"desk/z","uid"'))
    again = a_store(tmp_path)
    again.restore()
    assert again.current is None


@given(st.lists(st.tuples(st.integers(1, 6), st.booleans()), min_size=1, max_size=20))
def test_any_delivery_ends_with_the_newest_that_arrived(
    tmp_path_factory: pytest.TempPathFactory, deliveries: list[tuple[int, bool]]
) -> None:
    folder = tmp_path_factory.mktemp("store")
    store = a_store(folder)
    newest = 0
    for sequence, restart in deliveries:
        if restart:
            store = a_store(folder)
            store.restore()
        store.offer(assignment(sequence, trader(f"t{sequence}", [BTC])))
        newest = max(newest, sequence)
        assert store.sequence == newest
        assert list(store.bells) == [f"desk/t{newest}@1"]


def test_bells_follow_series_trigger_and_mode() -> None:
    traders = [
        trader("close", [BTC]),
        trader("every", [ETH], trigger="EveryUpdate", informative=[SeriesRef(BTC, "1m")]),
        trader("off", [BTC], mode="suspended"),
    ]
    rung = bells_of(traders, {"desk/close@1": 0, "desk/every@1": 1, "desk/off@1": 2})
    assert rung[SeriesRef(BTC, "1m")].closed == {0, 1}
    assert rung[SeriesRef(BTC, "1m")].forming == frozenset()
    assert rung[SeriesRef(ETH, "1m")].closed == rung[SeriesRef(ETH, "1m")].forming == {1}


def test_a_ring_file_is_named_for_its_incarnation() -> None:
    assert ring_file_name("desk/btc-sma@3") == "desk__btc-sma@3.ring"


def test_a_folder_that_takes_no_file_delays_forgetting_and_breaks_nothing(tmp_path: Path) -> None:
    store = a_store(tmp_path)
    store.offer(assignment(1, trader("a", [BTC])))
    store.offer(assignment(2))
    (tmp_path / "assignment.json.new").mkdir()  # as good as a full folder: the file can't be written
    store.forget("desk/a@1")
    assert list(store.draining) == ["desk/a@1"]
    (tmp_path / "assignment.json.new").rmdir()
    store.forget("desk/a@1")
    assert not store.draining
