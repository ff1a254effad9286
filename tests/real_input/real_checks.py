"""What must hold after a real-input run, each check against the captures alone."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

import msgspec
import numpy as np
import pandas as pd
import pytest
from tests.real_input.real_captures import PLACES, TRADES
from tests.real_input.real_desk import HISTORY_ROWS, MINUTE_MS, Desk, history
from tests.real_input.real_resampling import RULES, Bar, resample
from tests.real_input.real_topics import OnTopics

from chandlery.console.summary import Summary
from chandlery.core.intervals import parse_interval
from chandlery.core.latency import STAGES, account
from chandlery.core.signals import Action, Signal
from chandlery.core.wire import CandleUpdate
from chandlery.workers.candles import COLUMNS, Candles
from chandlery.workers.strategy import Context

#: What a MarketFeed's allowedLateness is where the manifest doesn't say.
LATENESS_MS: Final = 5_000
#: By symbol and interval: candles by open time, ms.
Bars = dict[tuple[str, str], dict[int, Bar]]
#: Open time (ms), rule and action.
Decided = tuple[int, str, Action]


@dataclass
class Outcome:
    """What a run left behind.

    Attributes:
        served: frames that the exchange sent; 0 where none did. ingest: its status when all was taken.
        between: wall clock before and after the run, s.
    """

    desks: list[Desk]
    summary: Summary
    topics: OnTopics
    served: int
    ingest: dict[str, Any]
    between: tuple[float, float]


def firsts(trades: pd.DataFrame) -> dict[str, tuple[int, Decimal]]:
    """By symbol: open time of the first minute (ms), and the first price."""
    found = {}
    for symbol in TRADES:
        first = trades[trades["symbol"] == symbol].iloc[0]
        found[symbol] = int(first["time_ms"]) // MINUTE_MS * MINUTE_MS, Decimal(int(first["price"])).scaleb(-PLACES)
    return found


def expected_bars(outcome: Outcome, trades: pd.DataFrame) -> tuple[Bars, Bars]:
    """By pandas alone, up to each symbol's last watermark: closed candles, and those still open that have trades."""
    closed: Bars = {}
    unfinished: Bars = {}
    for symbol in TRADES:
        watermark_ms = outcome.topics.watermark_ms[symbol]
        own = trades[trades["symbol"] == symbol]
        for interval in RULES:
            bars = resample(own, interval, watermark_ms)
            length_ms = parse_interval(interval).length_ms
            series = symbol, interval
            closed[series] = {at: bar for at, bar in bars.items() if at + length_ms <= watermark_ms}
            unfinished[series] = {at: bar for at, bar in bars.items() if at not in closed[series] and bar.trades}
    return closed, unfinished


def bar_of(update: CandleUpdate) -> Bar:
    """A candle as it stands on a topic."""
    return Bar(
        Decimal(update.open),
        Decimal(update.high),
        Decimal(update.low),
        Decimal(update.close),
        Decimal(update.volume),
        update.trades,
        update.filled,
    )


def differing(expected: dict[int, Bar], got: dict[int, Bar]) -> list[str]:
    """What isn't equal, for a person."""
    return [
        f"{pd.Timestamp(at, unit='ms')}: pandas {expected.get(at)}, topic {got.get(at)}"
        for at in sorted(expected.keys() | got.keys())
        if expected.get(at) != got.get(at)
    ]


def check_candles(outcome: Outcome, trades: pd.DataFrame) -> None:
    """Final candles are those of pandas, to the last decimal; each closed once, and became final in its time."""
    closed, unfinished = expected_bars(outcome, trades)
    topics = outcome.topics
    for series, bars in closed.items():
        found = {key[2]: updates for key, updates in topics.candles.items() if key[:2] == series}
        newest = {at: max(updates, key=lambda update: update.revision) for at, updates in found.items()}
        wrong = differing(bars, {at: bar_of(update) for at, update in newest.items()})
        assert not wrong, f"{len(wrong)} candles of {series} differ, the first: {wrong[:3]}"
        for at, updates in found.items():
            # A record repeated after a crash would be equal to the letter.
            closings = {msgspec.json.encode(update) for update in updates if update.state == "closed"}
            assert len(closings) == 1, f"{series} {at} closed as {closings}"
            if at + parse_interval(series[1]).length_ms + LATENESS_MS <= topics.watermark_ms[series[0]]:
                assert any(update.final for update in updates), f"{series} {at} never became final: {updates}"
        assert topics.backfilled[series] == (HISTORY_ROWS if series[1] == "1m" else 0)
        forming = {at: bar_of(topics.forming[*series, at]) for at in unfinished[series]}
        assert not (wrong := differing(unfinished[series], forming)), f"the open candle of {series}: {wrong}"
    assert sum(bar.filled for bar in closed["BTC/USDT", "1s"].values()) > 0, "filled candles are among them"
    told = outcome.summary.candles
    assert told.closed == sum(not bar.filled for bars in closed.values() for bar in bars.values())
    assert told.filled == sum(bar.filled for bars in closed.values() for bar in bars.values())


def check_counts(outcome: Outcome, trades: pd.DataFrame) -> None:
    """Every trade of the captures is on the topic once, and in a candle once."""
    for symbol in TRADES:
        assert outcome.topics.ids[symbol] == list(trades.loc[trades["symbol"] == symbol, "id"])
    _, unfinished = expected_bars(outcome, trades)
    still_open = sum(
        bar.trades for (_, interval), bars in unfinished.items() if interval == "1s" for bar in bars.values()
    )
    total = sum(TRADES.values())
    told = outcome.summary.trades
    assert (told.ingested, told.received) == (total, total)
    assert (told.counted, told.open) == (total - still_open, still_open)
    assert (told.late, told.duplicate, told.dead) == (0, 0, 0)
    assert (outcome.topics.late, outcome.topics.dead_letters) == (0, 0)
    assert outcome.summary.problems == []
    assert outcome.summary.reconciles


def check_frames(outcome: Outcome) -> None:
    """Every frame served is a frame in; every frame is a trade of a symbol or left out for a reason."""
    ingest = outcome.ingest
    assert outcome.summary.frames == ingest["frames"] == outcome.served
    assert ingest["malformed"] == {}
    assert ingest["frames"] - sum(ingest["skipped_frames"].values()) == sum(TRADES.values())
    for symbol, one in ingest["symbols"].items():
        assert (one["trades"], one["gap_ids"], one["duplicates"]) == (TRADES[symbol], 0, 0)
    assert ingest["reconnects"] == 0


def check_traders(outcome: Outcome) -> None:
    """Every trader became Ready and signalled; what was emitted is what stands on the topic, once."""
    summary, signals = outcome.summary, outcome.topics.signals
    assert summary.traders.desired == summary.traders.ready == len(outcome.desks)
    assert (summary.traders.restarts, summary.restarts) == (0, {})
    by_trader = Counter(signal.trader for signal in signals)
    silent = [desk.trader for desk in outcome.desks if not by_trader[desk.trader]]
    assert not silent, f"never signalled: {silent}; the others: {by_trader}"
    assert by_trader.keys() == {desk.trader for desk in outcome.desks}
    ids = {signal.id for signal in signals}
    told = summary.signals
    assert told.emitted - told.dropped == told.published == told.unique == len(signals) == len(ids)
    assert (told.carried, told.pending) == (0, 0)
    # A close that repeats what was signalled on the forming candle is no signal of its own: it tells of that one's life.
    assert told.dropped == 0
    # Forming states may be overtaken by a newer one or by their close. Nothing else may be left out.
    assert summary.drops.keys() <= {"stale_forming", "held_dropped"}
    assert Counter(outcome.topics.completed) == Counter(dict.fromkeys(ids, 1)), "one completion a signal"


def check_account(signal: Signal) -> None:
    """Every stage from the frame's receipt to the broker's acknowledgement is there, in order, and adds up."""
    told = account(signal.stamps)
    stages = ", ".join(f"{stage.name} {stage.duration_us:.0f}±{stage.uncertainty_us:.0f}" for stage in told.stages)
    what = f"{signal.trader} on {signal.open_time_ms}: {stages}; {signal.stamps}"
    assert tuple(stage.name for stage in told.stages) == STAGES, what
    assert all(stage.duration_us >= 0 for stage in told.stages), what
    assert sum(stage.duration_us for stage in told.stages) == pytest.approx(told.whole_us, abs=0.01), what
    assert told.frame_to_signal_us == told.whole_us > 0, what
    assert told.visible_to_decided_us is not None
    # Nothing had to be bent for that: the stamps of this host are in order as they are.
    assert told.corrected == 0, what


def check_exchange_clock(outcome: Outcome, trades: pd.DataFrame) -> None:
    """The exchange's time is a captured trade's, and how far it is from ours is told beside the stages."""
    moments = {symbol: set(trades.loc[trades["symbol"] == symbol, "time_ms"]) for symbol in TRADES}
    skewed = 0
    for signal in outcome.topics.signals:
        told = account(signal.stamps)
        assert told.recorded_skew_us is None, "nothing was replayed"
        if not signal.stamps.exchange_ns:
            # The quiet market's time closed that candle: no frame of its symbol completed the decision.
            assert told.skew_us is None
            continue
        assert signal.stamps.exchange_ns // 1_000_000 in moments[signal.symbol]
        assert told.skew_us is not None
        earliest, latest = (moment - signal.stamps.exchange_ns / 1e9 for moment in outcome.between)
        assert earliest <= told.skew_us / 1e6 <= latest, "received by our clock less the exchange's: years"
        skewed += 1
    assert skewed > len(outcome.topics.signals) / 2


def check_decisions(outcome: Outcome, trades: pd.DataFrame) -> None:
    """On closed candles every trader decided what its strategy decides over the resampled table."""
    closed, _ = expected_bars(outcome, trades)
    revised = {key for key, updates in outcome.topics.candles.items() if any(update.revision for update in updates)}
    words = Counter(word.id for word in outcome.topics.lives)
    assert words == Counter(dict.fromkeys(words, 1)), "each is told once"
    told = {word.id: word.state for word in outcome.topics.lives}
    said = Counter[str]()
    for desk in outcome.desks:
        bars = closed[desk.symbol, desk.interval]
        expected = backtest(desk, bars, firsts(trades)[desk.symbol])
        signals = {
            (signal.open_time_ms, signal.rule, signal.action): signal
            for signal in outcome.topics.signals
            if signal.trader == desk.trader
        }
        # Where a late trade revised a candle, the decision was made on what was known before.
        disturbed = {at for symbol, interval, at in revised if (symbol, interval) == (desk.symbol, desk.interval)}
        reach_ms = desk.kind(desk.parameters).warmup * parse_interval(desk.interval).length_ms
        calm = {one for one in expected | signals.keys() if not any(0 <= one[0] - at < reach_ms for at in disturbed)}
        missing = calm & expected - signals.keys()
        assert not missing, f"{desk.trader} did not signal {sorted(missing)}"
        if desk.forming:
            for one in calm & signals.keys():
                if signals[one].forming and one[0] in bars:
                    word = "confirmed" if one in expected else "invalidated"
                    assert told.get(signals[one].id) == word, f"{desk.trader} {one}: {told.get(signals[one].id)}"
                    said[word] += 1
        else:
            more = calm & signals.keys() - expected
            assert not more, f"{desk.trader} signalled {sorted(more)} too"
            assert not any(signal.forming for signal in signals.values())
            assert not told.keys() & {signal.id for signal in signals.values()}
    if not revised:
        assert said == Counter(told.values()), "nothing is told of others"
    assert said["confirmed"] + said["invalidated"] > 0


def backtest(desk: Desk, bars: dict[int, Bar], first: tuple[int, Decimal]) -> set[Decided]:
    """What a strategy decides over a table of closed candles, each call seeing exactly its warm-up."""
    rows = [(at, *map(float, bar[:5]), bar.trades) for at, bar in bars.items()]
    if desk.interval == "1m":
        rows = [(row[0], *map(float, row[1:]), 1.0, 10) for row in history(first[1], first[0])] + rows
    columns = dict(zip(COLUMNS, map(np.array, zip(*rows, strict=True)), strict=True))
    strategy = desk.kind(desk.parameters)
    found: set[Decided] = set()
    for end in range(strategy.warmup, len(rows) + 1):
        window = Candles.of(**{name: column[end - strategy.warmup : end] for name, column in columns.items()})
        open_time_ms = window.last.open_time
        if open_time_ms not in bars:
            continue
        context = Context(desk.symbol, desk.interval, strategy.parameters)
        strategy.on_candle(context, window)
        found |= {(open_time_ms, decision.rule, decision.action) for decision in context.decisions}
    return found
