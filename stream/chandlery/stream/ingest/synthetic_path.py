"""A synthetic market's path: prices, sizes and gaps between trades, from a seed.

Lifelike in what matters to strategies and to load: volatility comes in clusters (GARCH(1,1) over slices of 16
trades), activity too (a slow log-normal factor), with quiet spells and jumps; prices lie on a tick grid and
bounce between bid and ask; sizes are log-normal. Everything is drawn from one generator a symbol, in one
order, so that the path is a function of (seed, symbol), at the same options, and of nothing else: not of the
session either, or no run could be repeated.
"""

from __future__ import annotations

import hashlib
import math
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from chandlery.stream.ingest.options import SyntheticOptions

#: Trades generated at a time, in slices of one volatility each.
BLOCK: Final = 256
_SLICE: Final = 16
_SLICES: Final = BLOCK // _SLICE
# GARCH(1,1) with unit mean: v' = ω + α·v·z² + β·v, where ω = 1 - α - β. α + β near 1 makes clusters last.
_ALPHA: Final = 0.09
_BETA: Final = 0.89
_OMEGA: Final = 1.0 - _ALPHA - _BETA
_MAX_VARIANCE: Final = 25.0
# Log activity is an AR(1) over slices.
_ACTIVITY_SPREAD: Final = 0.5
_ACTIVITY_MEMORY: Final = 0.97
_ACTIVITY_SHOCK: Final = _ACTIVITY_SPREAD * math.sqrt(1 - _ACTIVITY_MEMORY**2)
_QUIET_FACTOR: Final = 0.1
_QUIET_SECONDS: Final = 20.0
# Pull towards the start price, a slice: keeps a week of trading within the same order of magnitude.
_REVERSION: Final = 2e-5
_JUMP_SIZE: Final = 30.0
#: Quantities are integers at this scale; a median trade is 0.05 units.
QUANTITY_SCALE: Final = 5
_MEDIAN_QUANTITY: Final = 0.05 * 10**QUANTITY_SCALE
_QUANTITY_SPREAD: Final = 1.2

_KNOWN_PRICES: Final = {"BTC": 60_000.0, "ETH": 2_500.0, "BNB": 600.0, "SOL": 150.0, "XRP": 0.6, "DOGE": 0.1}

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]


class PriceGrid(NamedTuple):
    """Where a symbol's prices lie: integers at ``scale`` decimals, starting at ``start``."""

    start: int
    scale: int


class Block(NamedTuple):
    """A run of :data:`BLOCK` trades, one row each, int64.

    Attributes:
        gap_ns: time since the trade before. price, quantity: scaled integers. buyer_maker: 0 or 1.
    """

    gap_ns: IntArray
    price: IntArray
    quantity: IntArray
    buyer_maker: IntArray


def generator(options: SyntheticOptions, symbol: str, purpose: str) -> np.random.Generator:
    """The random generator of one symbol and purpose."""
    digest = hashlib.sha256(f"{symbol}\0{purpose}".encode()).digest()
    return np.random.default_rng([options.seed, int.from_bytes(digest[:8], "little")])


def price_grid(options: SyntheticOptions, symbol: str) -> PriceGrid:
    """Start price and decimals of a symbol: as set, or plausible for its base, or drawn from its name."""
    base = symbol.partition("/")[0]
    price = options.start_price
    if isinstance(price, dict):
        price = price.get(symbol, price.get(base, 0.0)) or _KNOWN_PRICES.get(base) or _named_price(symbol)
    # About six significant digits, as exchanges choose their ticks, and two decimals at least.
    scale = min(8, max(2, 6 - math.floor(math.log10(price))))
    return PriceGrid(max(1, round(price * 10**scale)), scale)


def _named_price(symbol: str) -> float:
    number = int.from_bytes(hashlib.sha256(symbol.encode()).digest()[:4], "little") / 2**32
    return float(f"{10 ** (3 * number):.3g}")


class PricePath:
    """Endless blocks of one symbol's trades.

    Args:
        options: rate, volatility and so on. symbol: with ``options.seed`` it fixes the path.
    """

    def __init__(self, options: SyntheticOptions, symbol: str) -> None:
        self.grid = price_grid(options, symbol)
        self._random = generator(options, symbol, "path")
        self._options = options
        self._start_log = math.log(self.grid.start)
        self._log = self._start_log
        self._variance = 1.0
        self._activity = 0.0
        self._quiet = False
        self._begun = False

    def next_block(self) -> Block:
        """The next :data:`BLOCK` trades."""
        random, options = self._random, self._options
        mean_gap_s = 1.0 / options.trades_per_second
        rates, variances = self._slices()
        gaps_s = random.exponential(mean_gap_s, BLOCK) / np.repeat(rates, _SLICE)
        # Student's t with 5 degrees of freedom has variance 5/3.
        shocks = random.standard_t(5, BLOCK) * math.sqrt(3 / 5)
        steps = shocks * np.repeat(np.sqrt(variances), _SLICE) * (options.volatility * math.sqrt(mean_gap_s))
        chance = options.jumps_per_hour / 3600.0 * mean_gap_s
        jumps = random.random(BLOCK) < chance
        steps += jumps * random.standard_normal(BLOCK) * (_JUMP_SIZE * options.volatility)
        steps += _REVERSION * (self._start_log - self._log)
        path = self._log + np.cumsum(steps)
        self._log = float(path[-1])
        makers = (random.random(BLOCK) < 0.5).astype(np.int64)
        sizes = np.exp(random.normal(math.log(_MEDIAN_QUANTITY), _QUANTITY_SPREAD, BLOCK))
        # A maker who buys stands at the bid, half a spread below; one who sells at the ask.
        prices = np.rint(np.exp(path)).astype(np.int64) - makers
        if not self._begun:
            self._begun = True
            prices[0] = self.grid.start
        gaps_ns = np.maximum(np.rint(gaps_s * 1e9), 1).astype(np.int64)
        return Block(gaps_ns, np.maximum(prices, 1), np.maximum(np.rint(sizes), 1).astype(np.int64), makers)

    def _slices(self) -> tuple[FloatArray, FloatArray]:
        """Relative rate and variance of each slice of a block; over time both have mean 1."""
        random, share = self._random, self._options.quiet_share
        shocks = random.standard_normal((_SLICES, 2))
        turns = random.random(_SLICES)
        leave = 1.0 / max(1.0, self._options.trades_per_second * _QUIET_SECONDS * _QUIET_FACTOR / _SLICE)
        # Part of the slices that is quiet when ``share`` of the time is: a quiet slice lasts ten times as long.
        quiet = share * _QUIET_FACTOR / (share * _QUIET_FACTOR + 1.0 - share)
        enter = leave * quiet / (1.0 - quiet)
        # Mean time of a slice without it, so that with it the mean rate over time is as asked.
        boost = math.exp(_ACTIVITY_SPREAD**2 / 2) * (1.0 - quiet + quiet / _QUIET_FACTOR)
        rates, variances = np.empty(_SLICES), np.empty(_SLICES)
        for index in range(_SLICES):
            self._quiet = turns[index] >= leave if self._quiet else turns[index] < enter
            self._activity = _ACTIVITY_MEMORY * self._activity + _ACTIVITY_SHOCK * shocks[index, 0]
            z = shocks[index, 1]
            grown = _OMEGA + _ALPHA * self._variance * z * z + _BETA * self._variance
            self._variance = min(grown, _MAX_VARIANCE)
            rates[index] = math.exp(self._activity) * (_QUIET_FACTOR if self._quiet else 1.0) * boost
            variances[index] = self._variance
        return rates, variances
