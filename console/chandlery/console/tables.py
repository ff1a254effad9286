"""Tables of traders, feeds, pools, processes and signals."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from rich import box
from rich.table import Table
from rich.text import Text

from chandlery.console.amounts import clock_time, count, duration_us, size
from chandlery.console.model import FeedRow, PoolRow, ProcessRow, SignalRow, TraderRow

_STATE_STYLE: Final = {
    "Active": "green",
    "Warm": "green",
    "Ready": "cyan",
    "Blocked": "yellow",
    "Backoff": "yellow",
    "Stalled": "bold red",
    "Suspended": "dim",
    "running": "green",
    "backoff": "yellow",
    "ended": "dim",
    "detected": "cyan",
    "confirmed": "green",
    "active": "green",
    "invalidated": "red",
    "closed": "dim",
    "expired": "dim",
}
_ACTION_STYLE: Final = {"buy": "green", "sell": "red", "close": "yellow", "custom": "cyan"}


def plain_table(*columns: str, right: Sequence[str] = ()) -> Table:
    """A table without rules, in the manner of kubectl; columns named in ``right`` are right-aligned."""
    table = Table(box=None, pad_edge=False, show_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(
            column, justify="right" if column in right else "left", no_wrap=column not in ("MESSAGE", "REASON")
        )
    return table


def state_text(state: str) -> Text:
    """A state in its colour."""
    return Text(state, style=_STATE_STYLE.get(state, ""))


def lag_text(feed: FeedRow) -> str:
    """``12,000 (34 s)``: records that wait, and for how long where that is a second or more."""
    waited = f" ({feed.behind_ms // 1000} s)" if feed.aggregator_lag and feed.behind_ms >= 1000 else ""
    return f"{count(feed.aggregator_lag)}{waited}"


def signals_table(signals: Iterable[SignalRow], *, wide: bool = False) -> Table:
    """Signals, in the order given; with the states of their lives where they are known of any."""
    rows = list(signals)
    with_state = any(signal.state for signal in rows)
    columns = ["TIME", "ID", "TRADER", "ACTION", "SYMBOL", "INTERVAL", "PRICE", "LATENCY", "REASON"]
    columns[8:8] = [*(["STATE"] if with_state else []), *(["RULE", "CANDLE"] if wide else [])]
    table = plain_table(*columns, right=("PRICE", "LATENCY"))
    for signal in rows:
        extra: list[str | Text] = [state_text(signal.state)] if with_state else []
        extra += [signal.rule, clock_time(signal.open_time_ms)] if wide else []
        table.add_row(
            clock_time(signal.emitted_wall_ms),
            signal.id if wide else signal.id[:8],
            signal.trader,
            Text(signal.action, style=_ACTION_STYLE.get(signal.action, "")),
            signal.symbol,
            signal.interval,
            signal.price,
            duration_us(signal.latency_us),
            *extra,
            signal.reason,
        )
    return table


def narrow_traders_table(traders: Iterable[TraderRow]) -> Table:
    """Traders for terminals of 80 columns: what happens, not what was asked for. Long names end in an ellipsis."""
    right = ("CALLS", "SIGNALS", "P50", "P99", "MEMORY")
    table = plain_table("NAME", "STATE", *right, right=right)
    # All other columns are as wide as they must be: numbers that are cut tell something else.
    table.columns[0].no_wrap, table.columns[0].overflow = False, "ellipsis"
    for row in traders:
        table.add_row(
            row.trader,
            state_text(row.state),
            count(row.calls),
            count(row.signals),
            duration_us(row.frame_to_signal_p50_us),
            duration_us(row.frame_to_signal_p99_us),
            size(row.rss_bytes),
        )
    return table


def traders_table(traders: Iterable[TraderRow], *, wide: bool = False, messages: bool = True) -> Table:
    """Traders: READY STATE STRATEGY SYMBOLS INTERVAL …, as ``kubectl get traders`` shows them.

    Args:
        wide: with worker, transport, pid and more. messages: with the column that says why, which wraps.
    """
    right = ("CALLS", "SIGNALS", "P50", "P99", "MEMORY", "RESTARTS", "PID", "WARM")
    columns = ["NAME", "READY", "STATE", "STRATEGY", "SYMBOLS", "INTERVAL", "CALLS", "SIGNALS", "P50", "P99", "MEMORY"]
    columns += ["RESTARTS"] + (["WORKER", "TRANSPORT", "PID", "WARM", "CANDLE"] if wide else [])
    columns += ["MESSAGE"] if messages else []
    table = plain_table(*columns, right=right)
    for row in traders:
        extra = (
            [
                row.worker,
                row.transport,
                str(row.pid or "–"),
                f"{row.warm_have}/{row.warm_need}",
                clock_time(row.last_open_time_ms),
            ]
            if wide
            else []
        )
        table.add_row(
            row.trader,
            "True" if row.ready else "False",
            state_text(row.state),
            row.strategy,
            symbols_text(row.symbols),
            row.interval,
            count(row.calls),
            count(row.signals),
            duration_us(row.frame_to_signal_p50_us),
            duration_us(row.frame_to_signal_p99_us),
            size(row.rss_bytes),
            str(row.restarts),
            *extra,
            *([" ".join(part for part in (row.reason, row.message) if part)] if messages else []),
        )
    return table


def symbols_text(symbols: Sequence[str], most: int = 2) -> str:
    """The first symbols, and how many more."""
    shown = ",".join(symbols[:most])
    return shown if len(symbols) <= most else f"{shown} +{len(symbols) - most}"


def feeds_table(feeds: Iterable[FeedRow], *, wide: bool = False) -> Table:
    """Market feeds. wide: with what was left out, and why."""
    left_out = ("LATE", "DUPLICATE", "MISSING", "DROPPED", "DEAD", "RECONNECTS")
    right = ("FRAMES", "TRADES", "TRADES/S", "CLOSED", "LAG", *left_out)
    columns = ["NAME", "SOURCE", "CONNECTED", "SYMBOLS", "INTERVALS", "FRAMES", "TRADES", "TRADES/S", "CLOSED", "LAG"]
    columns += ([*left_out, "SESSION"] if wide else []) + ["MESSAGE"]
    table = plain_table(*columns, right=right)
    for row in feeds:
        told = (row.late, row.duplicate, row.missing_ids, row.dropped, row.dead_letters, row.reconnects)
        extra = [*map(count, told), str(row.session)] if wide else []
        table.add_row(
            row.feed,
            row.source,
            "finished" if row.finished else str(row.connected),
            symbols_text(row.symbols),
            ",".join(row.intervals),
            count(row.frames),
            count(row.trades),
            f"{row.trades_per_s:,.0f}",
            count(row.candles_closed),
            lag_text(row),
            *extra,
            row.message,
        )
    return table


def pools_table(pools: Iterable[PoolRow]) -> Table:
    """Trader pools."""
    numbers = ("WORKERS", "CAPACITY", "USED", "PENDING")
    table = plain_table("NAME", *numbers, "TRANSPORT", "MESSAGE", right=numbers)
    for row in pools:
        room = (str(row.workers), str(row.capacity), str(row.used), str(row.pending))
        table.add_row(row.pool, *room, row.transport, row.message)
    return table


def processes_table(processes: Iterable[ProcessRow]) -> Table:
    """Our own processes."""
    table = plain_table("PROCESS", "STATE", "PID", "MEMORY", "RESTARTS", "LOG", right=("PID", "MEMORY", "RESTARTS"))
    for row in processes:
        table.add_row(
            row.name, state_text(row.state), str(row.pid or "–"), size(row.rss_bytes), str(row.restarts), row.log
        )
    return table


def figures_table(rows: Iterable[tuple[str, str]]) -> Table:
    """Two columns: what, and how much."""
    table = Table(box=box.SIMPLE_HEAD, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(name, value)
    return table
