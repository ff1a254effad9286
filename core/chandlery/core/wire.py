"""Wire format of the topics: JSON records by msgspec. ``docs/asyncapi.yaml`` describes the same for others.

Every record is keyed by its symbol (UTF-8). Records with trades and with candle updates are packed: one
record holds everything of one symbol and one emission. The header ``stamps`` (see clocks.py) carries the
stage times of the newest trade in the record.

Decimals: prices and quantities travel as integers with a scale (number of decimals) a record, so that
aggregation is exact: ``61837.63`` is ``6183763`` at ``price_scale`` 2. In candle updates they are
decimal strings.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

#: What decoding bytes of others' making may raise; the last where they nest deeper than any decoder follows.
UNDECODABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class TradesRecord(msgspec.Struct, tag="trades", tag_field="kind", omit_defaults=True):
    """Trades of one symbol (topic ``trades``), as parallel lists of equal length n ≥ 0.

    With n = 0 the record is a heartbeat: it only moves the watermark.

    Attributes:
        symbol: unified symbol.
        session: 0 for a continuous exchange; replay and synthetic markets open one per run (start, ms).
        watermark_ms: exchange time up to which ingest believes it has seen everything, or -1 for none.
        price_scale, quantity_scale: decimals of ``price`` and ``quantity``.
        id: trade ids, unique per (feed, symbol, session), usually ascending by one.
        time_ms: exchange's trade times.
        price, quantity: scaled integers.
        buyer_maker: 1 where the buyer was the maker; may be empty (unknown).
    """

    symbol: str
    session: int
    watermark_ms: int
    price_scale: int = 0
    quantity_scale: int = 0
    id: list[int] = []
    time_ms: list[int] = []
    price: list[int] = []
    quantity: list[int] = []
    buyer_maker: list[int] = []


class BackfillRecord(msgspec.Struct, tag="backfill", tag_field="kind", omit_defaults=True):
    """Closed candles of one series from elsewhere than our own trades (topic ``trades``).

    Parallel lists, ascending by ``open_time_ms``. ``forming`` says that the last row is a candle still
    open at the start of live trades: live trades are added to it.
    """

    symbol: str
    session: int
    interval: str
    price_scale: int
    quantity_scale: int
    open_time_ms: list[int]
    open: list[int]
    high: list[int]
    low: list[int]
    close: list[int]
    volume: list[int]
    trades: list[int]
    forming: bool = False


class Opening(msgspec.Struct, tag="opening", tag_field="kind", omit_defaults=True):
    """First record of a session for a symbol (topic ``trades``): the aggregator starts its series afresh."""

    symbol: str
    session: int


InputRecord = TradesRecord | BackfillRecord | Opening

CandleState = Literal["forming", "closed", "revised", "final"]


class CandleUpdate(msgspec.Struct, array_like=True):
    """One candle as it stands after an emission.

    Attributes:
        interval: canonical interval text.
        open_time_ms: UTC open time.
        prev_open_time_ms: open time of the last closed candle of the series before this one, -1 if none:
            a reader that hasn't seen that one yet must wait for it.
        state: ``forming``; ``closed`` (revision 0, triggers); ``revised`` (late trades, revision ≥ 1);
            ``final`` (nothing can change any more; same values).
        revision: 0 at the close, + 1 for each revision.
        open, high, low, close, volume: decimal strings without exponent.
        trades: number of trades.
        filled: True for a candle without trades (values are the previous close, volume 0).
        backfill: True where the candle came from history and not from our own trades.
        final: True where no later revision can come.
    """

    interval: str
    open_time_ms: int
    prev_open_time_ms: int
    state: CandleState
    revision: int
    open: str
    high: str
    low: str
    close: str
    volume: str
    trades: int
    filled: bool = False
    backfill: bool = False
    final: bool = False


class CandlesRecord(msgspec.Struct, tag="candles", tag_field="kind"):
    """Candle updates of one symbol and one emission (topics ``candles-live``, ``candles-fast``, ``candles``).

    ``seq`` counts the emissions of (symbol, session) across the three topics, from 1: records of one
    emission share it; a record whose seq isn't above the last of its topic is a repetition, equal to the
    first. ``final`` updates carry the same values again with ``final`` set.
    """

    symbol: str
    session: int
    seq: int
    updates: list[CandleUpdate]


class LateRecord(msgspec.Struct, tag="late", tag_field="kind"):
    """Trades that came after their candle was final (topic ``trades-late``); columns as in TradesRecord."""

    symbol: str
    session: int
    watermark_ms: int
    price_scale: int
    quantity_scale: int
    id: list[int]
    time_ms: list[int]
    price: list[int]
    quantity: list[int]


class DeadLetter(msgspec.Struct, tag="dead-letter", tag_field="kind"):
    """A record that could not be decoded (topic ``dead-letters``): where it stands, why, and its bytes."""

    topic: str
    partition: int
    offset: int
    reason: str
    value_base64: str
    component: str


#: Longest accepted record value; the topics' max.message.bytes is the same.
MAX_RECORD_BYTES: Final = 1_048_576

encode: Final = msgspec.json.Encoder().encode
decode_input: Final = msgspec.json.Decoder(InputRecord).decode
decode_candles: Final = msgspec.json.Decoder(CandlesRecord).decode
decode_late: Final = msgspec.json.Decoder(LateRecord).decode
decode_dead_letter: Final = msgspec.json.Decoder(DeadLetter).decode


def scaled_to_text(value: int, scale: int) -> str:
    """Decimal string of ``value · 10^-scale`` without exponent or trailing zeros: (6183760, 2) → 61837.6."""
    if scale == 0:
        return str(value)
    sign = "-" if value < 0 else ""
    digits = str(abs(value)).rjust(scale + 1, "0")
    fraction = digits[-scale:].rstrip("0")
    return f"{sign}{digits[:-scale]}.{fraction}" if fraction else f"{sign}{digits[:-scale]}"


def text_to_scaled(text: str, scale: int) -> int:
    """Inverse of :func:`scaled_to_text`.

    Raises:
        ValueError: not a plain decimal, or more decimals than ``scale`` that aren't zero.
    """
    whole, _, fraction = text.partition(".")
    significant = fraction[:scale]
    if fraction[scale:].strip("0"):
        raise ValueError(f"{text!r} has more than {scale} decimals")
    return int(whole + significant + "0" * (scale - len(significant)))
