"""Frames: trades are read, others known by kind and time, garbage named by reason."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.exchange_server import other_frame, trade_frame

from chandlery.stream.ingest.frames import (
    EVENT_KINDS,
    MalformedFrame,
    OtherFrame,
    TradeAmounts,
    TradeEvent,
    read_amounts,
    read_error,
    read_frame,
)

_TIME = 1_723_161_255_342


def _trade(**changes: object) -> bytes:
    frame = json.loads(trade_frame("BTCUSDT", 7, "61837.63000000", "0.02000000", _TIME))
    frame["data"] |= changes
    return json.dumps(frame).encode()


def test_a_combined_trade_frame_is_read_whatever_its_spacing() -> None:
    tight = trade_frame("BTCUSDT", 7, "61837.63", "0.02", _TIME, buyer_maker=True)
    for text in (tight, json.dumps(json.loads(tight), indent=1)):
        frame = read_frame(text.encode())
        assert frame == TradeEvent(_TIME, "BTCUSDT", 7, "61837.63", "0.02", _TIME, True)


def test_a_raw_stream_trade_without_an_envelope_is_read() -> None:
    bare = json.dumps(json.loads(_trade())["data"]).encode()
    assert isinstance(read_frame(bare), TradeEvent)


@pytest.mark.parametrize(
    ("data", "kind", "exchange_ms"),
    [
        (other_frame("BTCUSDT", "depthUpdate", 5).encode(), "depthUpdate", 5),
        (b'{"stream":"btcusdt@bookTicker","data":{"u":1,"s":"BTCUSDT","b":"1"}}', "bookTicker", 0),
        (b'{"lastUpdateId":1,"bids":[],"asks":[]}', "other", 0),
        (b'{"e":"serverShutdown","E":9}', "serverShutdown", 9),
        (b'{"stream":"!miniTicker@arr","data":[{"e":"24hrMiniTicker"}]}', "other", 0),
        (b'{"result":null,"id":1}', "response", 0),
        (b'{"error":{"code":2,"msg":"no"},"id":1}', "error", 0),
        (b'{"code":2,"msg":"no"}', "error", 0),
        # Events that only call themselves an answer have none of its text.
        (b'{"stream":"x@error","data":{"e":"error","E":5}}', "other", 5),
        (b'{"e":"response","E":9}', "other", 9),
    ],
)
def test_other_frames_are_known_by_kind_and_exchange_time(data: bytes, kind: str, exchange_ms: int) -> None:
    frame = read_frame(data)
    assert isinstance(frame, OtherFrame)
    assert (frame.kind, frame.exchange_ms) == (kind, exchange_ms)


@given(st.text(max_size=40).filter(lambda kind: kind != "trade"), st.sampled_from(["event", "stream", "bare"]))
def test_however_many_kinds_an_exchange_names_there_are_few_to_count(kind: str, where: str) -> None:
    frame = {
        "event": {"stream": "btcusdt@x", "data": {"e": kind}},
        "stream": {"stream": f"btcusdt@{kind}", "data": {}},
        "bare": {"e": kind},
    }[where]
    read = read_frame(json.dumps(frame).encode())
    assert isinstance(read, OtherFrame)
    assert read.kind in EVENT_KINDS | {"other"}


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"not json", "json"),
        (b'{"stream":"btcusdt@trade","data":{"e":"trade"', "json"),
        (b"", "json"),
        (b"\xff\xfe", "json"),
        (b'{"x":' + b"[" * 5_000, "json"),
        (b'{"data":{"e":"trade","x":' + b"[" * 5_000, "json"),
        (_trade(t="seven"), "trade"),
        (_trade(p=1.5), "trade"),
    ],
)
def test_what_cannot_be_read_is_named_by_its_reason(data: bytes, reason: str) -> None:
    assert read_frame(data) == MalformedFrame(reason)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"p": "abc"}, "price"),
        ({"p": "0.00"}, "price"),
        ({"p": "-1"}, "price"),
        ({"q": ""}, "quantity"),
        ({"q": "0"}, "quantity"),
        ({"T": 0}, "time"),
        ({"T": _TIME + 3_600_000}, "time"),
        ({"t": -1}, "id"),
    ],
)
def test_a_trade_that_cannot_be_believed_is_named_by_its_reason(changes: dict[str, object], reason: str) -> None:
    frame = read_frame(_trade(**changes))
    assert isinstance(frame, TradeEvent)
    assert read_amounts(frame) == MalformedFrame(reason)


def test_amounts_are_exact_at_their_scales() -> None:
    frame = read_frame(_trade(p="0.0000000012", q="12"))
    assert isinstance(frame, TradeEvent)
    assert read_amounts(frame) == TradeAmounts(12, 10, 1_200_000_000, 8)


def test_an_error_names_its_request_and_message() -> None:
    assert read_error(b'{"error":{"code":2,"msg":"no such stream"},"id":3}') == (3, 2, "no such stream")
    assert read_error(b'{"code":2,"msg":"bad"}') == (None, 2, "bad")


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_no_bytes_make_the_reader_raise(data: bytes) -> None:
    for candidate in (data, b'{"e":"trade"' + data, b'{"data":{"e":"trade","p":' + data + b"}}"):
        frame = read_frame(candidate)
        if isinstance(frame, TradeEvent):
            read_amounts(frame)
        elif isinstance(frame, OtherFrame) and frame.kind == "error":
            read_error(frame.payload)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (_trade(s="??").replace(b"??", b"\xff\xfe"), "trade"),
        (json.dumps(json.loads(_trade(s="??"))["data"]).encode().replace(b"??", b"\xff\xfe"), "json"),
        (_trade(E=4_102_444_800_000), "time"),
        (_trade(E=9_000_000_000_000, T=9_000_000_000_000), "time"),
        (json.dumps(json.loads(_trade(E=4_102_444_800_000))["data"]).encode(), "time"),
        (b'{"stream":"btcusdt@depth","data":{"e":"depthUpdate","E":4102444800000}}', "time"),
        (b'{"e":"depthUpdate","E":99999999999999999999}', "time"),
    ],
    ids=[
        "broken text",
        "broken text, bare",
        "event time",
        "both times",
        "event time, bare",
        "other event's time",
        "bare event's time",
    ],
)
def test_damage_neither_ends_the_reader_nor_moves_the_exchanges_time(data: bytes, reason: str) -> None:
    assert read_frame(data) == MalformedFrame(reason)
