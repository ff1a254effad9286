"""Generated history: closed candles of every interval before a synthetic market opens, coherent with each other.

One line of pieces is generated, fine near the present and coarser further back (1 s, 1 m, 1 h, 1 d), each
region as long as the intervals built on it need. Every interval's candles are sums of the same pieces, so
where two intervals overlap one is exactly the resampling of the other; the last piece ends at the live path's
first price. The piece that contains the present is cut there: it gives each interval's forming candle.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from chandlery.core.intervals import Interval, parse_interval
from chandlery.core.wire import BackfillRecord
from chandlery.stream.ingest.decimals import least_scale
from chandlery.stream.ingest.history import ROWS_PER_RECORD
from chandlery.stream.ingest.options import SyntheticOptions
from chandlery.stream.ingest.synthetic_path import QUANTITY_SCALE, PriceGrid, generator, price_grid

# Lengths of pieces, ms, fine to coarse; each divides the next.
_GRIDS_MS: Final = (1_000, 60_000, 3_600_000, 86_400_000)
# Mean of a log-normal size with median 0.05 and spread 1.2, in units of the quantity scale.
_MEAN_QUANTITY: Final = 0.05 * float(np.exp(1.2**2 / 2)) * 10**QUANTITY_SCALE
_ALPHA: Final = 0.09
_BETA: Final = 0.89
# Most that the log price moves over one piece, as a standard deviation: days at a wild setting stay plausible.
_MAX_STEP: Final = 0.05

IntArray = npt.NDArray[np.int64]


class Pieces(NamedTuple):
    """Candles of unequal length that follow each other without a gap, one row each, int64, ascending.

    Attributes:
        open_ms: open times. open, high, low, close, volume: scaled integers. trades: counts.
    """

    open_ms: IntArray
    open: IntArray
    high: IntArray
    low: IntArray
    close: IntArray
    volume: IntArray
    trades: IntArray


def generate_history(
    options: SyntheticOptions, session: int, symbol: str, intervals: Sequence[str], candles: int, now_ms: int
) -> Iterator[BackfillRecord]:
    """History of one symbol.

    Args:
        options: as of the live path. session: that of the records. symbol: with the seed it fixes the
            history, given ``now_ms``.
        intervals: every interval wanted. candles: closed candles of each.
        now_ms: the present (exchange time), where the live path begins.

    Yields:
        Records of at most 2,000 candles, ascending for each interval; the last one of an interval ends with
        the forming candle.
    """
    if candles <= 0 or not intervals:
        return
    parsed = [parse_interval(text) for text in intervals]
    starts = {interval.text: _start_ms(interval, candles, now_ms) for interval in parsed}
    times = _piece_times(parsed, starts, now_ms)
    grid = price_grid(options, symbol)
    pieces = _fill(options, grid, generator(options, symbol, "history"), times, now_ms)
    for interval in parsed:
        yield from _records(symbol, session, interval, grid, roll_up(pieces, interval, starts[interval.text]))


def _start_ms(interval: Interval, candles: int, now_ms: int) -> int:
    """Open time of the oldest candle wanted; not before 1970."""
    forming_ms = interval.floor_ms(now_ms)
    if not interval.text.endswith("M"):
        return max(interval.floor_ms(forming_ms - candles * interval.length_ms), interval.floor_ms(interval.length_ms))
    start_ms = forming_ms
    for _ in range(candles):
        if start_ms < 2 * interval.length_ms:
            break
        start_ms = interval.floor_ms(start_ms - 1)
    return start_ms


def _grid_of(interval: Interval) -> int:
    """The coarsest piece that never straddles a boundary of this interval."""
    if interval.text[-1] in "wM":
        return _GRIDS_MS[-1]
    return max(grid for grid in _GRIDS_MS if interval.length_ms % grid == 0)


def _piece_times(intervals: Sequence[Interval], starts: dict[str, int], now_ms: int) -> IntArray:
    """Open times of the pieces: each grid reaches back as far as its intervals, rounded down to the next grid's."""
    regions: list[IntArray] = []
    end_ms = now_ms // 1_000 * 1_000 + 1_000
    for index, grid in enumerate(_GRIDS_MS):
        needed = [starts[interval.text] for interval in intervals if _grid_of(interval) == grid]
        begin_ms = min([end_ms, now_ms // grid * grid, *needed])
        if index + 1 < len(_GRIDS_MS):
            begin_ms = begin_ms // _GRIDS_MS[index + 1] * _GRIDS_MS[index + 1]
        regions.append(np.arange(begin_ms, end_ms, grid, dtype=np.int64))
        end_ms = min(end_ms, begin_ms)
        # Coarser pieces are only made where an interval reaches further back than this region.
        if all(start >= end_ms for start in starts.values()):
            break
    return np.concatenate(regions[::-1])


def _fill(
    options: SyntheticOptions, grid: PriceGrid, random: np.random.Generator, times: IntArray, now_ms: int
) -> Pieces:
    count = len(times)
    seconds = np.diff(np.append(times, now_ms)).clip(min=1) / 1000.0
    shocks = random.standard_normal(count)
    # Backwards in time the last piece comes first: its variance is near the live path's at its begin.
    steps = shocks * np.sqrt(_variances(shocks[::-1])[::-1])
    steps *= np.minimum(options.volatility * np.sqrt(seconds), _MAX_STEP)
    levels = np.log(grid.start) - np.append(np.cumsum(steps[::-1])[::-1], 0.0)
    # A walk may drift to where ticks are too coarse, or to absurd heights: keep it within a factor of 20.
    levels = np.log(grid.start) + 3.0 * np.tanh((levels - np.log(grid.start)) / 3.0)
    prices = np.maximum(np.rint(np.exp(levels)), 1).astype(np.int64)
    opens, closes = prices[:-1], prices[1:]
    spread = np.abs(random.standard_normal((2, count))) * np.minimum(options.volatility * np.sqrt(seconds), _MAX_STEP)
    highs = np.maximum(opens, closes) + np.rint(spread[0] * closes * 0.5).astype(np.int64)
    lows = np.maximum(np.minimum(opens, closes) - np.rint(spread[1] * closes * 0.5).astype(np.int64), 1)
    trades = np.maximum(random.poisson(options.trades_per_second * seconds), 1).astype(np.int64)
    volume = np.maximum(np.rint(trades * _MEAN_QUANTITY * np.exp(random.normal(-0.08, 0.4, count))), 1).astype(np.int64)
    return Pieces(times, opens, highs, lows, closes, volume, trades)


def _variances(shocks: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """GARCH(1,1) variances with mean 1 along these standard normal shocks."""
    variances = np.empty(len(shocks))
    variance = 1.0
    for index, squared in enumerate((shocks * shocks).tolist()):
        variances[index] = variance
        variance = min(1.0 - _ALPHA - _BETA + variance * (_ALPHA * squared + _BETA), 25.0)
    return variances


def roll_up(pieces: Pieces, interval: Interval, start_ms: int) -> Pieces:
    """Candles of an interval from the pieces at or after ``start_ms``; the last one may be unfinished."""
    first = int(np.searchsorted(pieces.open_ms, start_ms))
    part = Pieces(*(column[first:] for column in pieces))
    opens_ms = _floors(part.open_ms, interval)
    begins = np.flatnonzero(np.diff(opens_ms, prepend=opens_ms[0] - 1))
    ends = np.append(begins[1:], len(opens_ms)) - 1
    return Pieces(
        opens_ms[begins],
        part.open[begins],
        np.maximum.reduceat(part.high, begins),
        np.minimum.reduceat(part.low, begins),
        part.close[ends],
        np.add.reduceat(part.volume, begins),
        np.add.reduceat(part.trades, begins),
    )


def _floors(times_ms: IntArray, interval: Interval) -> IntArray:
    if interval.text.endswith("M"):
        return np.array([interval.floor_ms(int(time)) for time in times_ms], dtype=np.int64)
    shift = interval.floor_ms(0) % interval.length_ms
    return (times_ms - shift) // interval.length_ms * interval.length_ms + shift


def _records(
    symbol: str, session: int, interval: Interval, grid: PriceGrid, candles: Pieces
) -> Iterator[BackfillRecord]:
    rows = len(candles.open_ms)
    for start in range(0, rows, ROWS_PER_RECORD):
        part = Pieces(*(column[start : start + ROWS_PER_RECORD] for column in candles))
        prices, price_scale = least_scale(
            [*part.open.tolist(), *part.high.tolist(), *part.low.tolist(), *part.close.tolist()], grid.scale
        )
        volume, quantity_scale = least_scale(part.volume.tolist(), QUANTITY_SCALE)
        count = len(part.open_ms)
        yield BackfillRecord(
            symbol, session, interval.text, price_scale, quantity_scale, part.open_ms.tolist(),
            prices[:count], prices[count : 2 * count], prices[2 * count : 3 * count], prices[3 * count :],
            volume, part.trades.tolist(), forming=start + count == rows,
        )  # fmt: skip
