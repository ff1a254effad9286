"""The fan-out's rows as the tables of docs/performance.md and as a drawing. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from html import escape
from typing import Final

from benchmarks._fanout_work import CASES, Case
from benchmarks.harness import Row, figure

OURS: Final = "chandlery"
FLOOR: Final = "c-futex"
#: Stands where a mechanism's name stands, in the names of the rows that tell Chandlery's time by steps.
STEPS: Final = "steps"
PERCENTILES: Final = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999}
_TITLES: Final[dict[Case, str]] = {
    "one": "One of them subscribed to what changes",
    "all": "All of them subscribed",
}
#: Readable on white and on black; in the order in which mechanisms are told.
_COLOURS: Final = ("#8a8a8a", "#2f81f7", "#ca8a04", "#ea580c", "#16a34a", "#a855f7", "#db2777", "#0d9488")

#: Figures of one case by mechanism, then by number of readers, then by name of the figure.
Figures = dict[str, dict[int, dict[str, float]]]


def figures_of(rows: Sequence[Row], case: Case) -> Figures:
    """Sort the rows of one case; mechanisms in their order of appearance."""
    found: Figures = {}
    prefix = "one_of_" if case == "one" else "all_"
    for row in rows:
        parts = row.name.split("/")
        if len(parts) == 4 and parts[1].startswith(prefix) and parts[2] != STEPS:
            readers = int(parts[1].removeprefix(prefix))
            found.setdefault(parts[2], {}).setdefault(readers, {})[parts[3]] = row.value
    return found


def _counts(figures: Figures) -> list[int]:
    return sorted({count for by_count in figures.values() for count in by_count})


def _table(figures: Figures, head: str, names: Sequence[str]) -> Iterator[str]:
    counts = _counts(figures)
    yield f"| {head} | " + " | ".join(map(str, counts)) + " |"
    yield "|---|" + "---:|" * len(counts)
    for mechanism, by_count in figures.items():
        cells = []
        for count in counts:
            values = by_count.get(count, {})
            cells.append(" / ".join(figure(values.get(name)) for name in names) if values else "–")
        yield f"| {mechanism} | " + " | ".join(cells) + " |"


def _goals(rows: Sequence[Row]) -> Iterator[str]:
    yield "| figure (p50) | value | goal | holds |"
    yield "|---|---:|---:|---|"
    for row in rows:
        if row.goal is not None:
            limit = f"{'≤' if row.direction == 'at most' else '≥'} {figure(row.goal)}"
            yield f"| `{row.name}` | {figure(row.value)} {row.unit} | {limit} | {'yes' if row.holds else '**no**'} |"


def _steps(rows: Sequence[Row]) -> Iterator[str]:
    by_place: dict[str, dict[str, float]] = {}
    for row in rows:
        parts = row.name.split("/")
        if len(parts) == 4 and parts[2] == STEPS:
            by_place.setdefault(parts[1], {})[parts[3]] = row.value
    if by_place:
        names = list(next(iter(by_place.values())))
        yield f"| where Chandlery's time goes, medians, µs | {' | '.join(names)} |"
        yield "|---|" + "---:|" * len(names)
        for place, values in by_place.items():
            yield f"| {place} | " + " | ".join(figure(values.get(name)) for name in names) + " |"


def markdown(rows: Sequence[Row]) -> str:
    """All tables: goals, latencies and CPU of both cases, what wasn't measured."""
    lines = [*_goals(rows), ""]
    for case in CASES:
        figures = figures_of(rows, case)
        if figures:
            title = _TITLES[case]
            lines += [*_table(figures, f"{title}: p50 / p99 / p99.9 in hand, µs", list(PERCENTILES)), ""]
            lines += [*_table(figures, f"{title}: read p50, µs; CPU s a million candles", ["read_p50", "cpu"]), ""]
    lines += [*_steps(rows), ""]
    lines += [f"`{row.name}`: {row.note}" for row in rows if "/not_measured/" in row.name]
    return "\n".join(lines).rstrip()


_WIDTH, _HEIGHT, _LEFT, _TOP, _GAP, _PANEL_WIDTH, _PANEL_HEIGHT = 960, 500, 70, 60, 60, 390, 330

_STYLE: Final = """
  .back { fill: #ffffff } text { fill: #1f2328; font: 12px system-ui, sans-serif } .title { font-size: 14px; font-weight: 600 }
  .grid { stroke: #d0d7de; stroke-width: 1 } .line { fill: none; stroke-width: 2 } .p99 { stroke-dasharray: 3 4; stroke-width: 1.2 }
  @media (prefers-color-scheme: dark) { .back { fill: #0d1117 } text { fill: #e6edf3 } .grid { stroke: #30363d } }
"""


class _Axes:
    """Where a number of readers and a latency lie: both logarithmic."""

    def __init__(self, left: float, counts: Sequence[int], low_us: float, high_us: float) -> None:
        self.left: Final = left
        self._counts: Final = counts
        self._decades: Final = (math.floor(math.log10(low_us)), math.ceil(math.log10(high_us)))

    def x(self, count: int) -> float:
        first, last = math.log(self._counts[0]), math.log(self._counts[-1])
        share = (math.log(count) - first) / (last - first) if last > first else 0.5
        return self.left + 15 + share * (_PANEL_WIDTH - 30)

    def y(self, value_us: float) -> float:
        low, high = self._decades
        return _TOP + _PANEL_HEIGHT * (1 - (math.log10(value_us) - low) / max(1, high - low))

    def grid(self) -> Iterator[str]:
        for decade in range(self._decades[0], self._decades[1] + 1):
            y = self.y(10.0**decade)
            yield f'<line class="grid" x1="{self.left}" x2="{self.left + _PANEL_WIDTH}" y1="{y:.1f}" y2="{y:.1f}"/>'
            label = f"{10.0**decade:g} µs" if decade < 3 else f"{10.0 ** (decade - 3):g} ms"
            yield f'<text x="{self.left - 6}" y="{y + 4:.1f}" text-anchor="end">{label}</text>'
        for count in self._counts:
            y = _TOP + _PANEL_HEIGHT + 18
            yield f'<text x="{self.x(count):.1f}" y="{y}" text-anchor="middle">{count}</text>'


def _lines(axes: _Axes, by_count: dict[int, dict[str, float]], colour: str) -> Iterator[str]:
    for name in ("p50", "p99"):
        points = [(axes.x(count), axes.y(values[name])) for count, values in sorted(by_count.items()) if name in values]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        yield f'<polyline class="line {name}" stroke="{colour}" points="{path}"/>'
        if name == "p50":
            yield from (f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in points)


def _legend(names: Sequence[str]) -> Iterator[str]:
    for at, name in enumerate(names):
        x, y = _LEFT + at % 4 * 210, _TOP + _PANEL_HEIGHT + 58 + at // 4 * 22
        yield f'<line class="line" x1="{x}" x2="{x + 24}" y1="{y - 4}" y2="{y - 4}" stroke="{_COLOURS[at % len(_COLOURS)]}"/>'
        yield f'<text x="{x + 32}" y="{y}">{escape(name)}</text>'


def svg(rows: Sequence[Row]) -> str:
    """A panel a case: p50 (solid) and p99 (dashed) by number of readers."""
    by_case = {case: figures_of(rows, case) for case in CASES}
    seen = [
        values[name]
        for figures in by_case.values()
        for by_count in figures.values()
        for values in by_count.values()
        for name in ("p50", "p99")
        if name in values
    ]
    low_us, high_us = (min(seen), max(seen)) if seen else (1.0, 1_000.0)
    names = list(dict.fromkeys(name for figures in by_case.values() for name in figures))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">',
        "<title>Writer to reader latency by number of readers</title>",
        f'<style>{_STYLE}</style><rect class="back" width="{_WIDTH}" height="{_HEIGHT}"/>',
    ]
    for at, (case, figures) in enumerate(by_case.items()):
        counts = _counts(figures)
        if not counts:
            continue
        axes = _Axes(_LEFT + at * (_PANEL_WIDTH + _GAP), counts, low_us, high_us)
        parts.append(f'<text class="title" x="{axes.left}" y="30">{_TITLES[case]}</text>')
        parts.append(
            f'<text x="{axes.left}" y="48">writer to window in hand: p50, dashed p99; by number of readers</text>'
        )
        parts += axes.grid()
        for name, by_count in figures.items():
            parts += _lines(axes, by_count, _COLOURS[names.index(name) % len(_COLOURS)])
    return "\n".join([*parts, *_legend(names), "</svg>", ""])
