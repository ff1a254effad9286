"""What is saved of a symbol, and its encoded form (JSON: volumes may pass 64 bits)."""

from __future__ import annotations

from typing import Final

import msgspec

from chandlery.core.errors import InvariantError
from chandlery.stream.aggregation.seen_ids import SeenIds
from chandlery.stream.aggregation.series import SeriesState

VERSION: Final = 1


class Counts(msgspec.Struct, array_like=True):
    """Trades of one (symbol, session); ``received = counted + open + late + duplicate + dead`` always.

    Attributes:
        received: all. counted: in closed candles. open: in open candles. late: sent to the late topic.
        duplicate: id seen before. dead: in records that can't be used (1 where their number is unknowable).
        unreadable: of ``dead``, those ones: records that stand for whatever trades they may hold, or none.
    """

    received: int = 0
    counted: int = 0
    open: int = 0
    late: int = 0
    duplicate: int = 0
    dead: int = 0
    unreadable: int = 0

    def reconciles(self) -> bool:
        """Whether every trade received is accounted for."""
        return self.received == self.counted + self.open + self.late + self.duplicate + self.dead


class CandleCounts(msgspec.Struct, array_like=True):
    """Candles of one (symbol, session), all intervals together.

    Attributes:
        closed: closed from trades. revised: revisions by late trades. filled: made up. gaps: gaps left open.
        backfilled: closed from history.
    """

    closed: int = 0
    revised: int = 0
    filled: int = 0
    gaps: int = 0
    backfilled: int = 0


class Dropped(msgspec.Struct, array_like=True):
    """What was left out for a reason of its own, over all sessions of a symbol.

    Attributes:
        session: records of a session that is over. session_trades: trades in them.
        history: history rows not newer than what was closed, or of an interval that isn't built.
        covered: trades left out of a longer candle that history had closed already.
        records: records that can't be used, each of them a dead letter.
    """

    session: int = 0
    session_trades: int = 0
    history: int = 0
    covered: int = 0
    records: int = 0


class Snapshot(msgspec.Struct, array_like=True):
    """The whole state of one symbol.

    Attributes:
        applied_offset: offset of the newest input record in it, -1 for none.
        session: the newest session seen, -1 for none. watermark_ms: -1 for none.
        seq: that of the last emission in this session.
        series: by interval text.
    """

    version: int
    symbol: str
    applied_offset: int = -1
    session: int = -1
    watermark_ms: int = -1
    seq: int = 0
    price_scale: int = 0
    quantity_scale: int = 0
    counts: Counts = msgspec.field(default_factory=Counts)
    candles: CandleCounts = msgspec.field(default_factory=CandleCounts)
    dropped: Dropped = msgspec.field(default_factory=Dropped)
    seen: SeenIds = msgspec.field(default_factory=SeenIds)
    series: dict[str, SeriesState] = {}


_encoder: Final = msgspec.json.Encoder()
_decoder: Final = msgspec.json.Decoder(Snapshot)


def encode_snapshot(snapshot: Snapshot) -> bytes:
    """Encode; equal snapshots give equal bytes."""
    return _encoder.encode(snapshot)


def decode_snapshot(data: bytes) -> Snapshot:
    """Decode what :func:`encode_snapshot` wrote.

    Raises:
        InvariantError: it isn't that, or of another version.
    """
    try:
        snapshot = _decoder.decode(data)
    except msgspec.DecodeError as error:
        raise InvariantError(f"a saved aggregator state can't be read: {error}") from error
    if snapshot.version != VERSION:
        raise InvariantError(
            f"the saved state of {snapshot.symbol} is of version {snapshot.version}, this program reads {VERSION}"
        )
    return snapshot
