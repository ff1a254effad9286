"""A comparison on a terminal: two tables, bars, and what follows from them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from rich.bar import Bar
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from chandlery.cli.comparing.result import TRANSPORTS, Comparison, Measured, SideBySide, Size
from chandlery.console.amounts import count, duration_us, size
from chandlery.console.tables import plain_table
from chandlery.core.transports import Transport

WORDS: Final[dict[Transport, str]] = {"SharedMemory": "shared memory", "Pipe": "pipe"}
_STYLES: Final[dict[Transport, str]] = {"SharedMemory": "green", "Pipe": "yellow"}
_BAR_CELLS: Final = 40
#: What is drawn: its name, its value, and that value in words.
CHARTS: Final[tuple[tuple[str, Callable[[Measured], float | None], Callable[[float], str]], ...]] = (
    ("visible → decided, p50", lambda one: one.visible_to_decided_us.p50, duration_us),
    ("visible → decided, p99", lambda one: one.visible_to_decided_us.p99, duration_us),
    ("CPU of the worker, % of a core", lambda one: one.worker_cpu_percent, lambda value: f"{value:.1f} %"),
    ("memory of the worker, PSS", lambda one: one.worker_pss_bytes, lambda value: size(int(value))),
)


def comparison_view(found: Comparison) -> RenderableType:
    """All of it."""
    parts: list[RenderableType] = [_conditions(found), Text()]
    parts += [_latency_table(found.sizes), Text(), _cost_table(found.sizes), Text()]
    parts += [*_bars(found.sizes)]
    if found.side_by_side is not None:
        parts += [_side_by_side(found.side_by_side), Text()]
    parts.append(Text(found.advice, style="bold"))
    parts += [Text(f"note: {note}", style="yellow") for note in found.notes]
    parts += [Text(f"doubtful: {problem}", style="yellow") for problem in found.problems]
    return Group(*parts)


def _conditions(found: Comparison) -> Text:
    of, machine = found.conditions, found.machine
    return Text(
        f"{of.symbols} symbols at 1s, {of.rate:g} trades a second each; every trader decides on all of them "
        f"({of.trigger}) by a window of {of.window} candles; {of.seconds} s a measurement, one transport at a time. "
        f"{machine.cores} cores, {size(machine.memory_bytes)}, Linux {machine.kernel}, Python {machine.python}."
    )


def _rows(sizes: Sequence[Size]) -> Iterator[tuple[str, Transport, Measured, Size]]:
    for one in sizes:
        for transport in TRANSPORTS:
            first = str(one.traders) if transport == TRANSPORTS[0] else ""
            yield first, transport, one.by_transport[transport], one


def _latency_table(sizes: Sequence[Size]) -> RenderableType:
    right = ("TRADERS", "P50", "P99", "P99.9", "F→S P50", "F→S P99")
    table = plain_table("TRADERS", "TRANSPORT", *right[1:], right=right)
    for first, transport, of, whole in _rows(sizes):
        decided, signalled = of.visible_to_decided_us, of.frame_to_signal_us
        figures = (decided.p50, decided.p99, decided.p999, signalled.p50, signalled.p99)
        table.add_row(first, _name(transport), *map(duration_us, figures))
        if transport == TRANSPORTS[-1]:
            told = whole.ratios
            by = (told.visible_to_decided_p50, told.visible_to_decided_p99, None)
            table.add_row("", _DIVIDED, *map(_times, (*by, told.frame_to_signal_p50, told.frame_to_signal_p99)))
    return Group(Text("Latency: candle visible → decided; and frame → signal (F→S)", style="bold"), table)


def _cost_table(sizes: Sequence[Size]) -> RenderableType:
    right = ("TRADERS", "CPU EACH", "FEED", "WORKER", "PSS EACH", "FEED", "WORKER")
    table = plain_table("TRADERS", "TRANSPORT", *right[1:], right=right)
    for first, transport, of, whole in _rows(sizes):
        cpu = (f"{each:.2f} %" for each in (of.trader_cpu_percent, of.feed_cpu_percent, of.worker_cpu_percent))
        memory = map(size, (of.trader_pss_bytes, of.feed_pss_bytes, of.worker_pss_bytes))
        table.add_row(first, _name(transport), *cpu, *memory)
        if transport == TRANSPORTS[-1]:
            told = whole.ratios
            by = (told.trader_cpu, told.feed_cpu, told.worker_cpu, told.trader_pss, None, told.worker_pss)
            table.add_row("", _DIVIDED, *map(_times, by))
    title = "CPU (% of a core) and memory (PSS): each trader, the feed, the whole worker"
    return Group(Text(title, style="bold"), table)


_DIVIDED: Final = Text("pipe ÷ shared", style="dim")


def _name(transport: Transport) -> Text:
    return Text(WORDS[transport], style=_STYLES[transport])


def _times(ratio: float | None) -> Text:
    return Text("" if ratio is None else f"{ratio:.2f}", style="dim")


def _bars(sizes: Sequence[Size]) -> Iterator[RenderableType]:
    for title, value_of, in_words in CHARTS:
        values = [value_of(one.by_transport[each]) or 0.0 for one in sizes for each in TRANSPORTS]
        most = max(values, default=0.0)
        if not most:
            continue
        grid = Table.grid(padding=(0, 1))
        grid.add_column(justify="right", width=7)
        grid.add_column(width=13)
        grid.add_column(width=_BAR_CELLS)
        grid.add_column(no_wrap=True)
        for first, transport, of, _ in _rows(sizes):
            value = value_of(of)
            bar = Bar(most, 0, value or 0.0, width=_BAR_CELLS, color=_STYLES[transport])
            grid.add_row(first, _name(transport), bar, "–" if value is None else in_words(value))
        yield Text(title, style="bold")
        yield grid
        yield Text()


def _side_by_side(both: SideBySide) -> Text:
    spreads = " and ".join(f"{WORDS[each]} {duration_us(both.visible_to_decided_us[each].p50)}" for each in TRANSPORTS)
    alike = "all of them alike" if not both.different else f"{count(both.different)} of them differently"
    return Text(
        f"Side by side in one worker, {both.traders} on each: {count(both.decisions)} decisions made by both, "
        f"{alike}. Visible → decided p50 there: {spreads}; each waits for the other's processes too."
    )
