"""The manifests of a real-input run: a market, a pool, and traders of all five shipped strategies."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import yaml
from tests.real_input.real_captures import SYMBOLS

from chandlery.workers.strategies.bollinger_breakout import BollingerBreakout
from chandlery.workers.strategies.donchian_breakout import DonchianBreakout
from chandlery.workers.strategies.macd import Macd
from chandlery.workers.strategies.rsi_reversion import RsiReversion
from chandlery.workers.strategies.sma_cross import SmaCross
from chandlery.workers.strategy import Strategy

FEED: Final = "market"
MINUTE_MS: Final = 60_000
#: Most traders that differ: five strategies on four series.
MOST: Final = 20
_SERIES: Final = [(symbol, interval) for interval in ("1s", "1m") for symbol in SYMBOLS.values()]
#: Each signals on closed candles of either symbol within the captures, the 1m ones with the history below.
_PARAMETERS: Final[dict[type[Strategy], dict[str, dict[str, float]]]] = {
    SmaCross: {"1s": {"fast": 4, "slow": 12}, "1m": {"fast": 2, "slow": 3}},
    RsiReversion: {"1s": {"period": 7}, "1m": {"period": 2}},
    BollingerBreakout: {"1s": {"period": 20}, "1m": {"period": 4, "deviations": 1.0}},
    DonchianBreakout: {"1s": {"period": 20}, "1m": {"period": 2}},
    Macd: {"1s": {}, "1m": {"fast": 2, "slow": 4, "signal": 2}},
}
#: Closes of the history's candles, in 1/10,000 around the market's first price, over and over.
_WAVE: Final = (0, 4, 8, 4, 0, -4, -8, -4)
HISTORY_ROWS: Final = 40


@dataclass(frozen=True)
class Desk:
    """One Trader of a run."""

    name: str
    kind: type[Strategy]
    parameters: dict[str, float]
    symbol: str
    interval: str

    @property
    def trader(self) -> str:
        """Its full name."""
        return f"default/{self.name}"

    @property
    def forming(self) -> bool:
        """Whether it decides on forming candles too: the 1m ones, for the captures hold only five whole minutes."""
        return self.interval == "1m"

    def manifest(self) -> dict[str, Any]:
        """Its resource."""
        spec = {
            "pool": {"name": "desk"},
            "strategy": {"name": self.kind.name, "parameters": self.parameters},
            "market": {"symbols": [self.symbol], "interval": self.interval},
            "trigger": "EveryUpdate" if self.forming else "CandleClose",
            # At many times the market's pace ten candles (the default) are a fraction of a second: a trader that
            # waits for the processor that long would rightly skip what this test counts.
            "signals": {"ttl": "1h"},
        }
        return _resource("Trader", self.name, spec)


def desks(count: int) -> list[Desk]:
    """So many Traders that differ; the first five already have every strategy, symbol and interval."""
    assert count <= MOST
    kinds = list(_PARAMETERS)
    made = []
    for index in range(count):
        kind = kinds[index % len(kinds)]
        symbol, interval = _SERIES[index % len(_SERIES)]
        name = f"{kind.name}-{symbol[:3].lower()}-{interval}"
        made.append(Desk(name, kind, _PARAMETERS[kind][interval], symbol, interval))
    return made


def history(first_price: Decimal, first_open_ms: int) -> list[tuple[int, Decimal, Decimal, Decimal, Decimal]]:
    """Made-up minutes before the captures: open time (ms), open, high, low, close; the last ends where they begin."""
    rows = []
    for back in range(HISTORY_ROWS, 0, -1):
        before, close = (first_price * (1 + Decimal(_WAVE[-at % len(_WAVE)]).scaleb(-4)) for at in (back + 1, back))
        high, low = max(before, close), min(before, close)
        rows.append((first_open_ms - back * MINUTE_MS, before, high, low, close))
    return rows


def write_manifests(
    folder: Path, source: dict[str, Any], prefix: str, traders: list[Desk], first: dict[str, tuple[int, Decimal]]
) -> Path:
    """Write a run's manifests and its history.

    Args:
        source: ``spec.source`` of the feed. prefix: of its topics.
        first: by symbol, open time (ms) of the first minute and the first price.

    Returns:
        The folder of the manifests.
    """
    folder.mkdir()
    files = []
    for symbol, (open_ms, price) in first.items():
        lines = ["date,open,high,low,close,volume,trades"]
        lines += [f"{row[0]},{','.join(f'{value:f}' for value in row[1:])},1,10" for row in history(price, open_ms)]
        path = folder / f"{symbol[:3].lower()}-1m.csv"
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        files.append({"symbol": symbol, "interval": "1m", "path": path.name})
    feed = {
        "source": source,
        "kafka": {"topicPrefix": prefix},
        "symbols": list(SYMBOLS.values()),
        "intervals": ["1s", "1m"],
        "history": {"files": files},
    }
    resources = [
        _resource("MarketFeed", FEED, feed),
        _resource("TraderPool", "desk", {"feed": {"name": FEED}, "tradersPerWorker": MOST}),
        *(trader.manifest() for trader in traders),
    ]
    (folder / "all.yaml").write_text(yaml.safe_dump_all(resources, sort_keys=False), encoding="utf-8")
    return folder


def _resource(kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "chandlery.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}
