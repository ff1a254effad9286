"""The live view of ``chandlery up``: feeds, traders, recent signals, and what needs attention."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.measure import Measurement
from rich.panel import Panel
from rich.text import Text

from chandlery.console.amounts import count, duration_us, size
from chandlery.console.lines import feed_line, is_replaying, replayed_text, signal_line, trader_line
from chandlery.console.model import FeedRow, TraderRow, View
from chandlery.console.summary import SETTLING_S, LatencyFigures, Summary
from chandlery.console.tables import figures_table, narrow_traders_table, traders_table
from chandlery.console.waterfall import bar

#: Lines of a screen that aren't rows of traders or signals: heads, feeds, notices, rules.
_FIXED_LINES: Final = 9
_FEWEST_SIGNALS: Final = 3
#: Of the lines for traders, one in so many says why one of them isn't well.
_LINES_A_REASON: Final = 3
#: Columns of a wide terminal.
_WIDE: Final = 140
#: Columns that no table needs.
_UNLIMITED: Final = 10_000
#: Columns of a bar that fills as a replay goes on.
_REPLAY_BAR: Final = 40
#: Columns that the first line takes with the console's address in it.
_ROOM_FOR_ADDRESS: Final = 110


def live_view(view: View, height: int, width: int = _WIDE) -> RenderableType:
    """The view as a screen of at most ``height`` lines: what doesn't fit is counted, worst traders come first."""
    replays = [feed for feed in view.feeds if is_replaying(feed)]
    room = max(height - _FIXED_LINES - len(view.feeds) - len(replays) - len(view.notices), 6)
    most_traders = max(room - _FEWEST_SIGNALS - 2, 3)
    in_order = worst_first(view.traders)
    reasons = [row for row in in_order if row.reason or row.message][: most_traders // _LINES_A_REASON]
    traders = in_order[: most_traders - len(reasons)]
    hidden = len(view.traders) - len(traders)
    signals = view.signals[-max(room - len(traders) - len(reasons) - 2, _FEWEST_SIGNALS) :]
    parts: list[RenderableType] = [
        _one_line(_head(view, width)),
        *(_one_line(Text(feed_line(feed))) for feed in view.feeds),
        *(_one_line(_replay_bar(feed)) for feed in replays),
        Text(),
    ]
    parts.append(_Traders(sorted(traders, key=lambda row: row.trader)))
    parts.extend(_one_line(Text(trader_line(row), style="yellow")) for row in reasons)
    if hidden:
        parts.append(Text(f"… and {hidden} more: chandlery get traders", style="dim"))
    parts.append(Text())
    parts.extend(_one_line(signal_line(signal)) for signal in reversed(signals))
    if not signals:
        parts.append(Text("no signals yet", style="dim"))
    parts.extend(Text(notice, style="bold yellow") for notice in view.notices)
    return Group(*parts)


class _Traders:
    """The table of traders: with what was asked for where all of it has room, else what happens alone."""

    def __init__(self, rows: Sequence[TraderRow]) -> None:
        self._rows = rows

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        whole = traders_table(self._rows, messages=False)
        # Unlimited: a measure within the options is never wider than they are.
        wanted = Measurement.get(console, options.update(width=_UNLIMITED), whole).maximum
        # Also where it happens to fit a narrow terminal: the next figure that grows would turn it back.
        fits = options.max_width >= max(_WIDE, wanted)
        yield whole if fits else narrow_traders_table(self._rows)


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
