"""One-line forms, for streams and for output that is no terminal."""

from __future__ import annotations

from typing import Final

from rich.text import Text

from chandlery.console.amounts import clock_time, count, duration_us
from chandlery.console.model import FeedRow, SignalRow, TraderRow, View
from chandlery.console.tables import lag_text, state_text

_ACTION_STYLE: Final = {"buy": "green", "sell": "red", "close": "yellow", "custom": "cyan"}


def signal_line(signal: SignalRow) -> Text:
    """``12:00:01  1a2b3c4d  default/sma-btc  buy  BTC/USDT 1s at 61837.63  4.2 ms  active  reason``, what is known of it."""
    latency = f"  {duration_us(signal.latency_us)}" if signal.latency_us is not None else ""
    return Text.assemble(
        f"{clock_time(signal.emitted_wall_ms)}  {signal.id[:8]}  {signal.trader}  ",
        (signal.action, _ACTION_STYLE.get(signal.action, "")),
        f"  {signal.symbol} {signal.interval} at {signal.price}{latency}  ",
        *((state_text(signal.state), "  ") if signal.state else ()),
        signal.reason,
    )


def life_line(signal: SignalRow, state: str, at_ms: int, ended_by: str = "") -> Text:
    """``12:00:04  1a2b3c4d  default/sma-btc  closed  by 5e6f7a8b``: what became of a signal, and when."""
    return Text.assemble(
        f"{clock_time(at_ms)}  {signal.id[:8]}  {signal.trader}  ",
        state_text(state),
        f"  by {ended_by[:8]}" if ended_by else "",
    )


def view_line(view: View) -> str:
    """The whole instance in a line: traders by state, trades, candles, signals, the slowest trader's p99."""
    states: dict[str, int] = {}
    for trader in view.traders:
        states[trader.state] = states.get(trader.state, 0) + 1
    by_state = " ".join(f"{number} {state}" for state, number in sorted(states.items())) or "none"
    p99 = max((row.frame_to_signal_p99_us or 0.0 for row in view.traders), default=0.0)
    return (
        f"traders: {by_state} | {'; '.join(feed_line(feed) for feed in view.feeds)} | "
        f"signals {count(sum(row.signals for row in view.traders))}"
        + (f", p99 {duration_us(p99)} at worst" if p99 else "")
    )


def feed_line(feed: FeedRow) -> str:
    """``market: connected, 12 trades/s, lag 0, 1,200 trades, 80 candles``."""
    state = "finished" if feed.finished else "connected" if feed.connected else "not connected"
    if is_replaying(feed):
        state = f"{replayed_text(feed)} replayed"
    return (
        f"{feed.feed}: {state}, {feed.trades_per_s:,.0f} trades/s, lag {lag_text(feed)}, "
        f"{count(feed.trades)} trades, {count(feed.candles_closed)} candles"
        # A notice says the whole of it.
        + (" (lags)" if feed.lagging else f" ({feed.message})" if feed.message else "")
    )


def is_replaying(feed: FeedRow) -> bool:
    """Whether it is a replay on its way to an end."""
    return feed.replayed is not None and feed.connected and not feed.finished


def replayed_text(feed: FeedRow) -> str:
    """``43%``: how far a replay is, rounded down: all of it is read before all of it is through."""
    return f"{min(99, int((feed.replayed or 0.0) * 100))}%"


def trader_line(row: TraderRow) -> str:
    """``default/sma-btc: Active`` with reason and message."""
    why = " ".join(part for part in (row.reason, row.message) if part)
    return f"{row.trader}: {row.state}" + (f" ({why})" if why else "")
