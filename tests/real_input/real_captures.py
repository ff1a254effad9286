"""The real captures, read without the project's own code: their frames, and their trades as a table.

Whole captures (trades, quotes and depth) lie in ``../shared/data`` of a checkout that has it. Elsewhere the
examples' captures stand in: the same trades, the other frames left out.
"""

from __future__ import annotations

import gzip
import json
from decimal import Decimal
from pathlib import Path
from typing import Final, NamedTuple

import pandas as pd

_ROOT: Final = Path(__file__).resolve().parents[2]
_WHOLE: Final = _ROOT.parent / "shared" / "data"
_TRADES_ONLY: Final = _ROOT / "examples" / "replay"

#: The exchange's spelling → ours.
SYMBOLS: Final = {"BTCUSDT": "BTC/USDT", "ETHUSDT": "ETH/USDT"}
#: What the captures hold, known before any program read them.
TRADES: Final = {"BTC/USDT": 9_757, "ETH/USDT": 6_106}
#: Decimals of the scaled integers; the exchange quotes no more.
PLACES: Final = 8


class Captures(NamedTuple):
    """One file a symbol. ``whole``: with quotes and depth between the trades."""

    paths: list[Path]
    whole: bool


def captures() -> Captures:
    """The best captures there are."""
    whole = [_WHOLE / f"binance-spot-{name.lower()}-20240808.frames.gz" for name in SYMBOLS]
    if all(path.is_file() for path in whole):
        return Captures(whole, True)
    return Captures([_TRADES_ONLY / f"{name.lower()}-20240808.frames.gz" for name in SYMBOLS], False)


def read_trades(paths: list[Path]) -> pd.DataFrame:
    """Every trade in order of receipt.

    Returns:
        Columns ``symbol`` (ours), ``id``, ``time_ms`` (exchange), ``price`` and ``quantity`` (int64, units of
        1e-8), ``skew_ns`` (the capture's receive time less the trade's time).
    """
    rows = []
    for path in paths:
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            for line in lines:
                received, _, text = line.partition(" ")
                frame = json.loads(text)
                if not frame.get("stream", "").endswith("@trade"):
                    continue
                trade = frame["data"]
                skew_ns = int(received) - trade["T"] * 1_000_000
                amounts = _scaled(trade["p"]), _scaled(trade["q"])
                rows.append((SYMBOLS[trade["s"]], trade["t"], trade["T"], *amounts, skew_ns))
    return pd.DataFrame(rows, columns=["symbol", "id", "time_ms", "price", "quantity", "skew_ns"])


def _scaled(text: str) -> int:
    exact = Decimal(text).scaleb(PLACES)
    assert exact == int(exact), f"{text} has more than {PLACES} decimals"
    return int(exact)
