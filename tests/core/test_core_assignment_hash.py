"""An assignment's hash is of its content, not of how its objects came about; how many a worker has room for."""

import hashlib

import msgspec
import pytest

from chandlery.core.assignment import MOST_SEQUENCE, Assignment, TraderAssignment, content_hash, surge_of, unsound
from chandlery.core.transports import Transport, transport_of


def trader(name: str, trigger: str) -> TraderAssignment:
    # Joined at run time: an equal string that is not the same object as the default.
    return TraderAssignment(
        trader=name,
        uid="u",
        strategy="s",
        symbols=["BTC/USDT"],
        interval="1s",
        trigger="".join(list(trigger)),  # type: ignore[arg-type]
    )


def test_the_hash_survives_encoding_and_decoding() -> None:
    sent = [trader("default/a", "CandleClose"), trader("default/b", "EveryUpdate")]
    received = msgspec.json.decode(msgspec.json.encode(sent), type=list[TraderAssignment])
    assert content_hash(received) == content_hash(sent)


def test_the_order_of_traders_does_not_matter_and_their_content_does() -> None:
    one, two = trader("default/a", "CandleClose"), trader("default/b", "CandleClose")
    assert content_hash([one, two]) == content_hash([two, one])
    assert content_hash([one, two]) != content_hash([one, trader("default/b", "EveryUpdate")])


def test_a_field_that_a_later_version_has_changes_no_hash_as_long_as_it_says_nothing() -> None:
    # As it would be computed by hand: what is at its default doesn't stand in it.
    said = [
        {"trader": "default/a", "uid": "u", "strategy": "s", "symbols": ["BTC/USDT"], "interval": "1s"},
    ]
    by_hand = hashlib.sha256(msgspec.json.encode(said, order="deterministic")).hexdigest()[:16]
    assert content_hash([trader("default/a", "CandleClose")]) == by_hand


def test_how_candles_reach_a_trader_is_part_of_what_it_is_where_it_says_so() -> None:
    silent = trader("default/a", "CandleClose")
    shared, piped = (msgspec.structs.replace(silent, transport=one) for one in ("SharedMemory", "Pipe"))
    assert len({content_hash([one]) for one in (silent, shared, piped)}) == 3


@pytest.mark.parametrize(
    ("asked", "default", "for_all", "used"),
    [
        (None, "SharedMemory", False, "SharedMemory"),
        (None, "Pipe", False, "Pipe"),
        ("Pipe", "SharedMemory", False, "Pipe"),
        ("SharedMemory", "Pipe", False, "SharedMemory"),
        ("Pipe", "SharedMemory", True, "SharedMemory"),
        ("SharedMemory", "Pipe", True, "Pipe"),
    ],
)
def test_a_trader_has_the_last_word_on_its_transport_but_for_the_command_line(
    asked: Transport | None, default: Transport, for_all: bool, used: Transport
) -> None:
    assert transport_of(asked, default, for_all=for_all) == used


@pytest.mark.parametrize(
    ("worker", "sequence", "digest", "is_sound"),
    [
        ("w-0", 1, "", True),
        ("w-0", MOST_SEQUENCE, "", True),
        ("w-1", 1, "", False),
        ("w-0", 0, "", False),
        ("w-0", MOST_SEQUENCE + 1, "", False),
        ("w-0", 1, "0" * 16, False),
    ],
)
def test_what_nobody_may_go_by_is_said(worker: str, sequence: int, digest: str, is_sound: bool) -> None:
    traders = [trader("default/a", "CandleClose")]
    found = Assignment(worker, sequence, digest or content_hash(traders), traders)
    assert (unsound(found, "w-0") == "") == is_sound


@pytest.mark.parametrize(("traders", "surge"), [(1, 1), (4, 1), (5, 2), (20, 5), (256, 64)])
def test_a_worker_has_room_for_a_quarter_of_its_traders_as_successors(traders: int, surge: int) -> None:
    assert surge_of(traders) == surge
