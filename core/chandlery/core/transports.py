"""How candles reach a trader, and who has the last word on it."""

from __future__ import annotations

from typing import Literal

Transport = Literal["SharedMemory", "Pipe"]


def transport_of(asked: Transport | None, default: Transport, *, for_all: bool = False) -> Transport:
    """The transport of one Trader.

    Args:
        asked: what the Trader itself says; None: nothing.
        default: its worker's, which is its pool's, or that of ``chandlery up --transport``.
        for_all: whether the worker's holds whatever its Traders say.
    """
    return default if for_all or asked is None else asked
