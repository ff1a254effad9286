"""What a connection asks an exchange for, and what it makes of the answers."""

import json
from typing import Any

from chandlery.stream.ingest.binance_subscription import (
    ASK_AGAIN_NS,
    INVALID_SYMBOL,
    STREAMS_PER_REQUEST,
    Subscription,
)


def _asked(subscription: Subscription, now_ns: int = 0) -> list[dict[str, Any]]:
    """All that it says at a time."""
    return [json.loads(request) for request in iter(lambda: subscription.next_request(now_ns), None)]


def test_a_stream_that_is_left_before_it_was_asked_for_is_never_asked_for() -> None:
    subscription = Subscription(["btcusdt@trade"])
    subscription.change(["ethusdt@trade", "solusdt@trade"], [])
    subscription.change([], ["btcusdt@trade", "ethusdt@trade"])
    asked = _asked(subscription)
    assert [(one["method"], one["params"]) for one in asked] == [
        ("UNSUBSCRIBE", ["btcusdt@trade"]),
        ("SUBSCRIBE", ["solusdt@trade"]),
    ]
    assert subscription.refused(asked[0]["id"], 2, "invalid request", 0) == []
    assert _asked(subscription, ASK_AGAIN_NS) == [], "nothing to ask for again"


def test_a_stream_that_is_left_while_it_is_asked_for_is_not_asked_for_again_when_that_is_refused() -> None:
    subscription = Subscription(["btcusdt@trade"])
    subscription.change(["ethusdt@trade", "solusdt@trade"], [])
    (request,) = _asked(subscription)
    subscription.change([], ["solusdt@trade"])
    assert [(one["method"], one["params"]) for one in _asked(subscription)] == [("UNSUBSCRIBE", ["solusdt@trade"])]
    # It may be about the one that has left, so the other isn't unknown.
    assert subscription.refused(request["id"], INVALID_SYMBOL, "Invalid symbol.", 0) == []
    assert [one["params"] for one in _asked(subscription, ASK_AGAIN_NS)] == [["ethusdt@trade"]]


def test_a_stream_that_is_left_before_it_is_asked_for_again_is_not() -> None:
    subscription = Subscription(["btcusdt@trade"])
    subscription.change(["ethusdt@trade", "solusdt@trade"], [])
    (request,) = _asked(subscription)
    assert subscription.refused(request["id"], 3, "Too many requests", 0) == []
    subscription.change([], ["solusdt@trade"])
    assert [one["params"] for one in _asked(subscription, ASK_AGAIN_NS)] == [["ethusdt@trade"]]


def test_an_error_that_names_no_stream_has_them_asked_for_one_by_one_later() -> None:
    subscription = Subscription([f"s{index}@trade" for index in range(STREAMS_PER_REQUEST + 3)])
    assert [one["params"] for one in _asked(subscription)] == [["s200@trade", "s201@trade", "s202@trade"]]
    assert subscription.refused(1, INVALID_SYMBOL, "Invalid symbol.", 5) == []
    assert _asked(subscription, 4 + ASK_AGAIN_NS) == []
    single = _asked(subscription, 5 + ASK_AGAIN_NS)
    assert [request["params"] for request in single] == [["s200@trade"], ["s201@trade"], ["s202@trade"]]
    assert subscription.refused(single[1]["id"], INVALID_SYMBOL, "Invalid symbol.", 6) == ["s201@trade"]


def test_an_error_about_something_else_than_a_symbol_makes_none_unknown_and_it_is_asked_for_again() -> None:
    subscription = Subscription(["btcusdt@trade"])
    subscription.change(["solusdt@trade"], [])
    (request,) = _asked(subscription)
    assert subscription.refused(request["id"], 3, "Too many requests", 1) == []
    (again,) = _asked(subscription, 1 + ASK_AGAIN_NS)
    assert again["params"] == ["solusdt@trade"]
    assert subscription.answered(again["id"]) == ["solusdt@trade"]
    assert _asked(subscription, 3 * ASK_AGAIN_NS) == []


def test_an_error_that_names_its_stream_refuses_that_one_alone() -> None:
    subscription = Subscription(["btcusdt@trade", "nopeusdt@trade"])
    assert subscription.refused(None, 2, "Invalid symbol in NOPEUSDT@trade", 0) == ["nopeusdt@trade"]
    assert subscription.refused(None, 2, "something else", 0) == []
    assert subscription.refused(None, 2, "Invalid symbol in wbtcusdt@trade", 0) == [], "another's name holds its own"
    assert subscription.refused(None, 2, "Invalid symbol in btcusdt@kline_1s", 0) == [], "another stream of it"


def test_those_that_were_asked_for_with_a_refused_one_are_asked_for_again() -> None:
    subscription = Subscription(["btcusdt@trade"])
    subscription.change(["ethusdt@trade", "nopeusdt@trade", "solusdt@trade"], [])
    (request,) = _asked(subscription)
    assert subscription.refused(request["id"], 2, "Invalid symbol in NOPEUSDT", 1) == ["nopeusdt@trade"]
    assert [one["params"] for one in _asked(subscription, 1)] == [["ethusdt@trade", "solusdt@trade"]]


def test_a_refused_stream_needs_no_message_to_be_left() -> None:
    subscription = Subscription(["btcusdt@trade", "nopeusdt@trade"])
    assert subscription.refused(None, 2, "Invalid symbol in NOPEUSDT@trade", 0) == ["nopeusdt@trade"]
    subscription.change([], ["nopeusdt@trade"])
    assert _asked(subscription) == []


def test_what_was_refused_by_an_earlier_connection_is_asked_for_by_a_message_of_its_own() -> None:
    subscription = Subscription(["btcusdt@trade"], ["nopeusdt@trade"])
    assert subscription.in_address == ["btcusdt@trade"]
    assert [one["params"] for one in _asked(subscription)] == [["nopeusdt@trade"]]


def test_an_error_to_a_message_that_leaves_streams_refuses_none() -> None:
    subscription = Subscription(["btcusdt@trade", "ethusdt@trade"])
    subscription.change([], ["ethusdt@trade"])
    (request,) = _asked(subscription)
    for _ in range(2):  # the second is about nothing that is open
        assert subscription.refused(request["id"], 2, "Invalid request about BTCUSDT@trade", 0) == []


def test_a_request_counts_as_unanswered_until_its_result_or_error_comes() -> None:
    subscription = Subscription(["btcusdt@trade", "xrpusdt@trade"])
    since = [subscription.unanswered_since_ns]
    for at_ns, stream in enumerate(("ethusdt@trade", "nopeusdt@trade")):
        subscription.change([stream], [])
        assert len(_asked(subscription, at_ns)) == 1
    subscription.change([], ["xrpusdt@trade"])
    assert len(_asked(subscription, 2)) == 1
    since.append(subscription.unanswered_since_ns)
    assert subscription.answered(1) == ["ethusdt@trade"]
    since.append(subscription.unanswered_since_ns)
    assert subscription.refused(2, 2, "Invalid symbol in NOPEUSDT", 3) == ["nopeusdt@trade"]
    since.append(subscription.unanswered_since_ns)
    assert subscription.answered(None) == subscription.answered(99) == subscription.answered(3) == []
    since.append(subscription.unanswered_since_ns)
    assert since == [None, 0, 1, 2, None]
