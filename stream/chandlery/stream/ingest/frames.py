"""Frames of Binance's market streams, as they come over the WebSocket and as they are captured.

A combined stream wraps its events: ``{"stream": "btcusdt@trade", "data": {"e": "trade", …}}``; a raw stream
sends the event alone. Only ``trade`` events matter; of the others the kind and the exchange's time ``E`` are
kept.
"""

from __future__ import annotations

from typing import Final

import msgspec

from chandlery.core.wire import UNDECODABLE
from chandlery.stream.ingest.decimals import parse_decimal

# 2100-01-01: a time beyond it is garbage, and as a watermark it would close every candle there will ever be.
LAST_SENSIBLE_MS: Final = 4_102_444_800_000
#: Events and streams of the exchange that are told apart. Whatever else it, or who speaks in its place, names is ``other``:
#: kinds are counted each on its own, and a name that anybody may invent must not make a counter.
EVENT_KINDS: Final = frozenset(
    {
        "trade", "aggTrade", "kline", "depthUpdate", "depth", "depth5", "depth10", "depth20", "bookTicker", "avgPrice",
        "24hrTicker", "24hrMiniTicker", "1hTicker", "4hTicker", "1dTicker", "serverShutdown",
    }
)  # fmt: skip
# A trade is announced after it happened; a minute covers any skew between an exchange's machines.
_MAX_AHEAD_MS: Final = 60_000


class TradeEvent(msgspec.Struct):
    """A trade as the exchange writes it.

    Attributes:
        E: event time, ms. s: exchange's symbol. t: trade id. p, q: price and quantity as decimal text.
        T: trade time, ms. m: whether the buyer was the maker, None for unknown.
    """

    E: int
    s: str
    t: int
    p: str
    q: str
    T: int
    m: bool | None = None


class TradeAmounts(msgspec.Struct):
    """A trade's price and quantity as integers at their scales (numbers of decimals)."""

    price: int
    price_scale: int
    quantity: int
    quantity_scale: int


class OtherFrame(msgspec.Struct):
    """A frame that is no trade.

    Attributes:
        kind: event name (``depthUpdate``) or ``bookTicker``-like stream kind, one of :data:`EVENT_KINDS`; or ``response``,
            ``error``, ``other``.
        exchange_ms: exchange's event time, 0 where the frame has none.
        payload: the frame, for kinds that need a closer look (``response``, ``error``); else empty.
    """

    kind: str
    exchange_ms: int = 0
    payload: bytes = b""


class MalformedFrame(msgspec.Struct):
    """A frame that can't be read. ``reason`` is a stable word: ``json``, ``trade``, ``price``, ``time`` …"""

    reason: str


Frame = TradeEvent | OtherFrame | MalformedFrame


class _Envelope(msgspec.Struct):
    data: TradeEvent


class _Event(msgspec.Struct):
    e: str = ""
    E: int = 0


class _OtherEnvelope(msgspec.Struct):
    stream: str = ""
    data: _Event | None = None
    e: str = ""
    E: int = 0
    id: int | str | None = None
    error: msgspec.Raw = msgspec.Raw()
    code: int | None = None
    result: msgspec.Raw = msgspec.Raw()


_decode_envelope: Final = msgspec.json.Decoder(_Envelope).decode
_decode_event: Final = msgspec.json.Decoder(TradeEvent).decode
_decode_other: Final = msgspec.json.Decoder(_OtherEnvelope).decode
_decode_any: Final = msgspec.json.Decoder().decode


def read_frame(data: bytes) -> Frame:
    """Read one frame. Never raises: what can't be read is a :class:`MalformedFrame`."""
    # Only a trade event has the word in quotes of its own; stream names end in `@trade"`.
    if b'"trade"' in data:
        try:
            trade = _decode_envelope(data).data
        except UNDECODABLE:
            return _read_bare_trade(data)
        return trade if trade.E < LAST_SENSIBLE_MS else MalformedFrame("time")
    return _read_other(data)


def _read_bare_trade(data: bytes) -> Frame:
    try:
        trade = _decode_event(data)
    except msgspec.ValidationError:
        return MalformedFrame("trade")
    except UNDECODABLE:
        return MalformedFrame("json")
    return trade if trade.E < LAST_SENSIBLE_MS else MalformedFrame("time")


def _read_other(data: bytes) -> OtherFrame | MalformedFrame:
    try:
        frame = _decode_other(data)
    except msgspec.ValidationError:
        return OtherFrame("other")
    except UNDECODABLE:
        return MalformedFrame("json")
    if max(frame.E, frame.data.E if frame.data is not None else 0) >= LAST_SENSIBLE_MS:
        return MalformedFrame("time")
    if frame.data is not None:
        return OtherFrame(_known(frame.data.e or frame.stream.partition("@")[2].partition("@")[0]), frame.data.E)
    if frame.e:
        return OtherFrame(_known(frame.e), frame.E)
    if bytes(frame.error) not in (b"", b"null") or frame.code is not None:
        return OtherFrame("error", payload=data)
    if bytes(frame.result) or frame.id is not None:
        return OtherFrame("response", payload=data)
    return OtherFrame("other")


def _known(kind: str) -> str:
    return kind if kind in EVENT_KINDS else "other"


def read_amounts(trade: TradeEvent) -> TradeAmounts | MalformedFrame:
    """A trade's price and quantity as integers, or why the trade can't be believed."""
    if not 0 < trade.T < LAST_SENSIBLE_MS or trade.T > trade.E + _MAX_AHEAD_MS:
        return MalformedFrame("time")
    if trade.t < 0:
        return MalformedFrame("id")
    try:
        price, price_scale = parse_decimal(trade.p)
    except ValueError:
        return MalformedFrame("price")
    try:
        quantity, quantity_scale = parse_decimal(trade.q)
    except ValueError:
        return MalformedFrame("quantity")
    if price <= 0:
        return MalformedFrame("price")
    if quantity <= 0:
        return MalformedFrame("quantity")
    return TradeAmounts(price, price_scale, quantity, quantity_scale)


def read_error(payload: bytes) -> tuple[int | str | None, int | None, str]:
    """The request's id, the code and the message of an ``error`` frame."""
    frame = _decode_any(payload)
    error = frame.get("error")
    body = error if isinstance(error, dict) else frame
    code = body.get("code")
    return read_request(payload), (code if isinstance(code, int) else None), str(body.get("msg", ""))


def read_request(payload: bytes) -> int | str | None:
    """The id of the request that an ``error`` or ``response`` frame answers; None: it names none."""
    request = _decode_any(payload).get("id")
    return request if isinstance(request, int | str) else None
