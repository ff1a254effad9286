"""An assignment's hash is of its content, not of how its objects came about; how many a worker has room for."""

import msgspec
import pytest

from chandlery.core.assignment import TraderAssignment, content_hash, surge_of


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


@pytest.mark.parametrize(("traders", "surge"), [(1, 1), (4, 1), (5, 2), (20, 5), (256, 64)])
def test_a_worker_has_room_for_a_quarter_of_its_traders_as_successors(traders: int, surge: int) -> None:
    assert surge_of(traders) == surge
