"""Candles by pandas alone: what the aggregator's must equal, to the last decimal."""

from __future__ import annotations

from decimal import Decimal
from typing import NamedTuple

import pandas as pd
from tests.real_input.real_captures import PLACES

#: Our intervals → pandas' names of the same.
RULES = {"1s": "1s", "1m": "1min"}


class Bar(NamedTuple):
    """One candle; ``filled``: without a trade, at the close before it."""

    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal
    trades: int
    filled: bool


def resample(trades: pd.DataFrame, interval: str, end_ms: int) -> dict[int, Bar]:
    """Resample one symbol's trades.

    Args:
        trades: of :func:`read_trades`, one symbol, in order. interval: ``1s`` or ``1m``.
        end_ms: exchange time up to which the market is known: candles run on to it, filled where nothing traded.

    Returns:
        Bars by open time, ms: from the first trade's to the one that holds ``end_ms``, which may be unfinished.
    """
    moments = pd.to_datetime(trades["time_ms"].to_numpy(), unit="ms", utc=True)
    # Nullable integers: an empty bin must not turn its column into binary floats.
    table = trades[["price", "quantity"]].astype("Int64").set_axis(moments)
    bins = table.resample(RULES[interval], label="left", closed="left", origin="epoch")
    made = bins["price"].agg(["first", "max", "min", "last"])
    made["volume"] = bins["quantity"].sum()
    made["count"] = bins["price"].count()
    last = pd.Timestamp(end_ms, unit="ms", tz="UTC").floor(RULES[interval])
    made = made.reindex(pd.date_range(made.index[0], last, freq=RULES[interval]))
    made["last"] = made["last"].ffill()
    for name in ("first", "max", "min"):
        made[name] = made[name].fillna(made["last"])
    made[["volume", "count"]] = made[["volume", "count"]].fillna(0)
    names = ("first", "max", "min", "last", "volume", "count")
    rows = zip(made.index, *(made[name].astype("int64").tolist() for name in names), strict=True)
    return {
        int(moment.value) // 1_000_000: Bar(
            _decimal(first), _decimal(high), _decimal(low), _decimal(last), _decimal(volume), count, count == 0
        )
        for moment, first, high, low, last, volume, count in rows
    }


def _decimal(scaled: int) -> Decimal:
    return Decimal(scaled).scaleb(-PLACES)
