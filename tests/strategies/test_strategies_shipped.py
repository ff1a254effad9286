"""Each shipped strategy against an independent computation: plain Python and numpy, no TA-Lib."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from tests.strategies.strategy_bench import decisions, market, part, walk

from chandlery.core.errors import StrategyError
from chandlery.workers.candles import COLUMNS, Candles
from chandlery.workers.strategies.bollinger_breakout import BollingerBreakout
from chandlery.workers.strategies.donchian_breakout import DonchianBreakout
from chandlery.workers.strategies.macd import Macd
from chandlery.workers.strategies.rsi_reversion import RsiReversion
from chandlery.workers.strategies.sma_cross import SmaCross
from chandlery.workers.strategy import Strategy

Found = list[tuple[int, str, str]]


def brief(strategy: Strategy, candles: Candles, *, forming: bool = False) -> Found:
    return [(row, made.action, made.rule) for row, made in decisions(strategy, candles, forming=forming)]


def crossings(before: float, now: float, row: int, up: str, down: str, tiny: float) -> Found:
    before, now = (0.0 if abs(value) < tiny else value for value in (before, now))
    if before <= 0 < now:
        return [(row, "buy", up)]
    if before >= 0 > now:
        return [(row, "sell", down)]
    return []


def expected_sma(candles: Candles, fast: int, slow: int) -> Found:
    close = candles.close
    found: Found = []
    for row in range(slow, len(close)):
        gaps = [close[at - fast + 1 : at + 1].mean() - close[at - slow + 1 : at + 1].mean() for at in (row - 1, row)]
        found += crossings(gaps[0], gaps[1], row, "cross-up", "cross-down", 1e-10 * close[row])
    return found


def wilder_rsi(close: np.ndarray, period: int) -> list[float]:
    """RSI after Wilder, seeded by the plain mean of the first ``period`` moves; one value a row from ``period``."""
    moves = np.diff(close)
    gain = np.maximum(moves[:period], 0).mean()
    loss = np.maximum(-moves[:period], 0).mean()
    values = []
    for at in range(period, len(close)):
        if at > period:
            gain = (gain * (period - 1) + max(moves[at - 1], 0)) / period
            loss = (loss * (period - 1) + max(-moves[at - 1], 0)) / period
        values.append(100.0 * gain / (gain + loss) if gain + loss > 1e-14 else 0.0)
    return values


def expected_rsi(candles: Candles, period: int, low: float, high: float) -> Found:
    need = 8 * period + 2
    found: Found = []
    for row in range(need - 1, len(candles)):
        before, now = wilder_rsi(candles.close[row - need + 1 : row + 1], period)[-2:]
        if before < low <= now:
            found.append((row, "buy", "leaves-oversold"))
        elif before > high >= now:
            found.append((row, "sell", "leaves-overbought"))
    return found


def expected_bollinger(candles: Candles, period: int, deviations: float) -> Found:
    close = candles.close
    found: Found = []
    for row in range(period, len(close)):
        over, under = [], []
        for at in (row - 1, row):
            window = close[at - period + 1 : at + 1]
            width = deviations * window.std()
            over.append(close[at] - window.mean() - width)
            under.append(window.mean() - width - close[at])
        tiny = 1e-10 * close[row]
        if over[0] <= tiny < over[1]:
            found.append((row, "buy", "breaks-upper"))
        elif under[0] <= tiny < under[1]:
            found.append((row, "sell", "breaks-lower"))
    return found


def expected_donchian(candles: Candles, period: int) -> Found:
    def outside(at: int) -> int:
        top = candles.high[at - period : at].max()
        bottom = candles.low[at - period : at].min()
        return int(candles.close[at] > top) - int(candles.close[at] < bottom)

    found: Found = []
    for row in range(period + 1, len(candles)):
        if outside(row) == 1 and outside(row - 1) != 1:
            found.append((row, "buy", "breaks-high"))
        elif outside(row) == -1 and outside(row - 1) != -1:
            found.append((row, "sell", "breaks-low"))
    return found


def ema(values: list[float], span: int) -> list[float]:
    """Exponential average seeded by the plain mean of the first ``span`` values; one value a row from there."""
    smoothed = [sum(values[:span]) / span]
    for value in values[span:]:
        smoothed.append(smoothed[-1] + 2.0 / (span + 1) * (value - smoothed[-1]))
    return smoothed


def expected_macd(candles: Candles, fast: int, slow: int, signal: int) -> Found:
    need = 4 * slow + signal
    found: Found = []
    for row in range(need - 1, len(candles)):
        close = [float(value) for value in candles.close[row - need + 1 : row + 1]]
        slow_line = ema(close, slow)
        # The fast average begins so late that its first value stands beside the slow one's.
        fast_line = ema(close[slow - fast :], fast)
        line = [quick - lazy for quick, lazy in zip(fast_line, slow_line, strict=True)]
        signal_line = ema(line, signal)
        gaps = [line[at] - signal_line[at] for at in (-2, -1)]
        found += crossings(gaps[0], gaps[1], row, "cross-up", "cross-down", 1e-10 * close[-1])
    return found


CASES: list[tuple[str, Strategy, Callable[[Candles], Found]]] = [
    ("sma 10/30", SmaCross(), lambda candles: expected_sma(candles, 10, 30)),
    ("sma 2/3", SmaCross({"fast": 2, "slow": 3}), lambda candles: expected_sma(candles, 2, 3)),
    ("rsi 14", RsiReversion(), lambda candles: expected_rsi(candles, 14, 30.0, 70.0)),
    (
        "rsi 5, 20/80",
        RsiReversion({"period": 5, "oversold": 20, "overbought": 80}),
        lambda candles: expected_rsi(candles, 5, 20.0, 80.0),
    ),
    ("bollinger 20, 2", BollingerBreakout(), lambda candles: expected_bollinger(candles, 20, 2.0)),
    (
        "bollinger 8, 1.5",
        BollingerBreakout({"period": 8, "deviations": 1.5}),
        lambda candles: expected_bollinger(candles, 8, 1.5),
    ),
    ("donchian 20", DonchianBreakout(), lambda candles: expected_donchian(candles, 20)),
    ("donchian 1", DonchianBreakout({"period": 1}), lambda candles: expected_donchian(candles, 1)),
    ("macd 12/26/9", Macd(), lambda candles: expected_macd(candles, 12, 26, 9)),
    ("macd 3/10/4", Macd({"fast": 3, "slow": 10, "signal": 4}), lambda candles: expected_macd(candles, 3, 10, 4)),
]


@pytest.mark.parametrize(("strategy", "expected"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_decides_as_an_independent_computation(
    strategy: Strategy, expected: Callable[[Candles], Found], seed: int
) -> None:
    candles = walk(700, seed)
    wanted = expected(candles)
    actions = {action for _, action, _ in wanted}
    assert actions == {"buy", "sell"}, "the market of this test must make the strategy do both"
    assert brief(strategy, candles) == wanted


@pytest.mark.parametrize("strategy", [case[1] for case in CASES], ids=[case[0] for case in CASES])
def test_a_market_without_moves_gives_no_signal(strategy: Strategy) -> None:
    flat = market(np.full(400, 61_837.63))
    still = Candles.of(**{name: flat.close if name in ("high", "low") else getattr(flat, name) for name in COLUMNS})
    assert brief(strategy, still) == []


@pytest.mark.parametrize("strategy", [case[1] for case in CASES], ids=[case[0] for case in CASES])
def test_a_forming_candle_is_decided_like_a_closed_one(strategy: Strategy) -> None:
    candles = walk(500, 5)
    assert brief(strategy, candles, forming=True) == brief(strategy, candles)


# RSI and MACD are smoothed by all of their window, on purpose: the trader gives them exactly warmup candles.
WINDOWED = [case for case in CASES if not isinstance(case[1], RsiReversion | Macd)]


@pytest.mark.parametrize("strategy", [case[1] for case in WINDOWED], ids=[case[0] for case in WINDOWED])
def test_history_before_the_window_changes_no_decision_of_a_windowed_rule(strategy: Strategy) -> None:
    candles = walk(300, 9)
    need = strategy.warmup
    short = [row for row, _ in decisions(strategy, candles)]
    long = [row + 50 for row, _ in decisions(strategy, part(candles, 50, 300))]
    assert [row for row in short if row >= need + 49] == long


@pytest.mark.parametrize("strategy", [case[1] for case in CASES], ids=[case[0] for case in CASES])
def test_reasons_carry_numbers_and_fit(strategy: Strategy) -> None:
    for _, made in decisions(strategy, walk(700, 1)):
        assert any(character.isdigit() for character in made.reason), made
        assert len(made.reason) <= 200, made
        assert 0 <= made.strength <= 1, made


@pytest.mark.parametrize(
    ("strategy", "parameters", "says"),
    [
        (SmaCross, {"fast": 30, "slow": 30}, "fast (30) must be below slow (30)"),
        (Macd, {"fast": 40}, "fast (40) must be below slow (26)"),
        (RsiReversion, {"oversold": 50, "overbought": 50}, "oversold (50) must be below overbought (50)"),
    ],
)
def test_parameters_that_contradict_each_other_are_refused(
    strategy: type[Strategy], parameters: dict[str, object], says: str
) -> None:
    with pytest.raises(StrategyError) as caught:
        strategy(parameters)
    assert caught.value.reason == "BadParameter"
    assert says in str(caught.value)
