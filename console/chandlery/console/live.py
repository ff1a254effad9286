"""The live view of ``chandlery up``: feeds, traders, recent signals, and what needs attention."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.text import Text

from chandlery.console.amounts import count, duration_us, size
from chandlery.console.lines import feed_line, is_replaying, replayed_text, signal_line
from chandlery.console.model import FeedRow, TraderRow, View
from chandlery.console.summary import SETTLING_S, LatencyFigures, Summary
from chandlery.console.tables import figures_table, narrow_traders_table, traders_table
from chandlery.console.waterfall import bar

#: Lines of a screen that aren't rows of traders or signals: heads, feeds, notices, rules.
_FIXED_LINES: Final = 9
_FEWEST_SIGNALS: Final = 3
#: Columns that the whole table of traders takes.
_WIDE: Final = 140
#: Columns of a bar that fills as a replay goes on.
_REPLAY_BAR: Final = 40
#: Columns that the first line takes with the console's address in it.
_ROOM_FOR_ADDRESS: Final = 110


def live_view(view: View, height: int, width: int = _WIDE) -> RenderableType:
    """The view as a screen of at most ``height`` lines: what doesn't fit is counted, worst traders come first."""
    replays = [feed for feed in view.feeds if is_replaying(feed)]
    room = max(height - _FIXED_LINES - len(view.feeds) - len(replays) - len(view.notices), 6)
    most_traders = max(room - _FEWEST_SIGNALS - 2, 3)
    traders = worst_first(view.traders)[:most_traders]
    hidden = len(view.traders) - len(traders)
    signals = view.signals[-max(room - len(traders) - 2, _FEWEST_SIGNALS) :]
    parts: list[RenderableType] = [
        _head(view, width),
        *(_one_line(Text(feed_line(feed))) for feed in view.feeds),
        *(_one_line(_replay_bar(feed)) for feed in replays),
        Text(),
    ]
    shown = sorted(traders, key=lambda row: row.trader)
    parts.append(traders_table(shown) if width >= _WIDE else narrow_traders_table(shown))
    if hidden:
        parts.append(Text(f"… and {hidden} more: chandlery get traders", style="dim"))
    parts.append(Text())
    parts.extend(_one_line(signal_line(signal)) for signal in reversed(signals))
    if not signals:
        parts.append(Text("no signals yet", style="dim"))
    parts.extend(Text(notice, style="bold yellow") for notice in view.notices)
    return Group(*parts)


def _head(view: View, width: int) -> Text:
    ready = sum(row.ready for row in view.traders)
    memory = sum(row.rss_bytes for row in view.processes) + sum(row.rss_bytes for row in view.traders)
    # On a narrow screen it would take a second line; the start's panel has said it.
    shown = view.console is not None and view.console.address and width >= _ROOM_FOR_ADDRESS
    console = f"{view.console.address}   " if view.console is not None and shown else ""
    return Text.assemble(
        ("chandlery ", "bold"),
        f"{view.phase}   traders {ready}/{len(view.traders)} ready   memory {size(memory)} RSS   ",
        console,
        ("Ctrl-C ends it", "dim"),
    )


def _replay_bar(feed: FeedRow) -> Text:
    return Text.assemble(bar(0, feed.replayed or 0.0, 1, _REPLAY_BAR), f" {replayed_text(feed)} of {feed.feed}")


def _one_line(text: Text) -> Text:
    text.no_wrap, text.overflow = True, "ellipsis"
    return text


def worst_first(traders: Sequence[TraderRow]) -> list[TraderRow]:
    """Traders that need attention before those that are well; else by name."""
    return sorted(traders, key=lambda row: (row.ready, row.state == "Suspended", row.trader))


def start_panel(view: View, commands: Sequence[tuple[str, str]]) -> RenderableType:
    """What runs, where to look, what to type next."""
    rows = [
        (f"feed {row.feed}", f"{row.source}: {', '.join(row.symbols)}; {', '.join(row.intervals)}")
        for row in view.feeds
    ]
    for pool in view.pools:
        rows.append(
            (f"pool {pool.pool}", f"{pool.workers} worker(s), {pool.used} of {pool.capacity} traders, {pool.transport}")
        )
    ready = sum(row.ready for row in view.traders)
    rows.append(("traders", f"{ready} of {len(view.traders)} ready"))
    for bootstrap in sorted({row.bootstrap for row in view.feeds}):
        rows.append(("Kafka", bootstrap))
    if view.console is not None:
        rows.append(("console", ", ".join(part for part in (view.console.address, view.console.message) if part)))
    rows.append(("logs", f"{view.state_dir}/logs"))
    rows.extend((f"$ {command}", meaning) for command, meaning in commands)
    return Panel(figures_table(rows), title="chandlery is up", title_align="left", expand=False)


def summary_view(summary: Summary) -> RenderableType:
    """A run's summary for a person."""
    trades, signals, latency = summary.trades, summary.signals, summary.latency_us
    rows = [
        ("traders", f"{summary.traders.ready} of {summary.traders.desired} ready, {summary.traders.restarts} restarts"),
        ("frames", count(summary.frames)),
        (
            "trades",
            f"received {count(trades.received)} = counted {count(trades.counted)} + open {count(trades.open)} "
            f"+ late {count(trades.late)} + duplicate {count(trades.duplicate)} + dead {count(trades.dead)}",
        ),
        (
            "candles",
            f"{count(summary.candles.closed)} closed, {count(summary.candles.revised)} revised, "
            f"{count(summary.candles.filled)} filled",
        ),
        (
            "signals",
            f"{count(signals.emitted)} emitted, {count(signals.published)} published, {count(signals.unique)} different",
        ),
        ("frame to signal", _frame_to_signal(latency)),
        ("visible to decided", _quantiles(latency.visible_to_decided.p50, latency.visible_to_decided.p99)),
        ("memory", f"{size(sum(figure.pss for figure in summary.memory_bytes.values()))} PSS in all"),
    ]
    if summary.drops:
        rows.append(
            ("drops", ", ".join(f"{reason} {count(number)}" for reason, number in sorted(summary.drops.items())))
        )
    if summary.behind_ms:
        furthest = (f"{name} {ms / 1000:.0f} s at most" for name, ms in sorted(summary.behind_ms.items()))
        rows.append(("lagged behind", ", ".join(furthest)))
    if summary.restarts:
        rows.append(("process restarts", ", ".join(f"{name} {n}" for name, n in sorted(summary.restarts.items()))))
    rows.append(("counts", "reconcile" if summary.reconciles else "DO NOT RECONCILE"))
    lines = [Text(problem, style="bold red") for problem in summary.problems]
    return Group(Panel(figures_table(rows), title=f"{summary.seconds:.0f} s", title_align="left", expand=False), *lines)


def _frame_to_signal(latency: LatencyFigures) -> str:
    told = _quantiles(latency.frame_to_signal.p50, latency.frame_to_signal.p99)
    settled = latency.settled
    if not 0 < settled.count < latency.frame_to_signal.count:
        return told
    return f"{told}; {_quantiles(settled.p50, settled.p99)} without the first {SETTLING_S} s, in which Kafka and all else warm up"


def _quantiles(p50: float | None, p99: float | None) -> str:
    return f"p50 {duration_us(p50)}, p99 {duration_us(p99)}"
