"""What every benchmark shares: rows, options, the table, percentiles."""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

Direction = Literal["at most", "at least"]


class Row(msgspec.Struct):
    """One figure.

    Attributes:
        name: ``benchmark/figure``. value: the figure, in ``unit``; NaN where there was nothing to measure (in JSON null).
        peer: the best peer's figure in the same run, same unit; None where there is none.
        floor: what the bare mechanism below costs in the same run; None where there is none.
        goal: the limit promised; ``direction`` whether more or less is better. holds: whether it is kept.
        note: what the peer and the floor are, how many samples.
    """

    name: str
    value: float
    unit: str
    peer: float | None = None
    floor: float | None = None
    goal: float | None = None
    direction: Direction = "at most"
    holds: bool | None = None
    note: str = ""

    def __post_init__(self) -> None:
        if self.goal is not None and self.holds is None:
            self.holds = self.value <= self.goal if self.direction == "at most" else self.value >= self.goal


encode: Final = msgspec.json.Encoder().encode


def decode_rows(text: bytes) -> list[Row]:
    """The rows of a benchmark's ``--json``.

    Raises:
        MsgspecError: they are none.
    """
    rows = msgspec.json.decode(text, type=list[dict[str, Any]])
    # JSON has no NaN: it has become null on its way.
    measured = [{**row, "value": math.nan} if row.get("value", 0) is None else row for row in rows]
    return msgspec.convert(measured, list[Row])


def percentile(samples: Sequence[float], share: float) -> float:
    """The nearest-rank percentile of unsorted samples; ``share`` in 0 … 1."""
    ordered = sorted(samples)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def say(text: str) -> None:
    """Progress, on stderr: stdout is for the rows."""
    print(text, file=sys.stderr, flush=True)


def figure(value: float | None) -> str:
    """A number as short as it stays exact enough to compare."""
    if value is None or math.isnan(value):
        return "–"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def table(rows: Sequence[Row], before: dict[str, Row] | None = None) -> str:
    """The rows as a plain text table; ``before`` adds an earlier revision's values by name."""
    head = ["figure", "value", *(["before"] if before is not None else []), "unit", "peer", "floor", "goal", "holds"]
    lines = [head]
    for row in rows:
        goal = "–" if row.goal is None else f"{'≤' if row.direction == 'at most' else '≥'} {figure(row.goal)}"
        earlier = [figure(before[row.name].value) if row.name in before else "–"] if before is not None else []
        holds = {True: "yes", False: "NO", None: "–"}[row.holds]
        lines.append(
            [row.name, figure(row.value), *earlier, row.unit, figure(row.peer), figure(row.floor), goal, holds]
        )
    widths = [max(len(line[at]) for line in lines) for at in range(len(head))]
    text = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    text.insert(1, "  ".join("-" * width for width in widths))
    notes = [f"{row.name}: {row.note}" for row in rows if row.note]
    return "\n".join([*text, "", *notes])


def run(
    measure: Callable[[bool], list[Row]],
    summary: str | None,
    *,
    plot: Callable[[Sequence[Row]], str] | None = None,
    markdown: Callable[[Sequence[Row]], str] | None = None,
) -> None:
    """The ``main`` of a benchmark module: options, the measurement, rows or table on stdout.

    Args:
        measure: gets whether the run shall be quick. summary: the module's docstring.
        plot: makes an SVG of the rows; adds ``--plot``. markdown: makes the docs' tables of them; adds ``--table``.
    """
    parser = argparse.ArgumentParser(description=summary, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a shorter run, within 45 s on 2 cores")
    parser.add_argument("--json", action="store_true", help="a JSON list of rows instead of the table")
    if plot:
        parser.add_argument("--plot", metavar="FILE", type=Path, help="draw the figures as SVG too")
    if markdown:
        parser.add_argument("--table", metavar="ROWS", type=Path, help="measure nothing: tables of an earlier --json")
    arguments = parser.parse_args()
    earlier: Path | None = arguments.table if markdown else None
    if plot and arguments.plot and not arguments.plot.parent.is_dir():
        # Told before the minutes that it would cost.
        parser.error(f"--plot {arguments.plot}: there is no folder {arguments.plot.parent}; make it, or name another")
    if earlier:
        try:
            rows = decode_rows(earlier.read_bytes())
        except OSError as error:
            parser.error(f"--table {earlier}: can't be read: {error.strerror}")
        except msgspec.MsgspecError as error:
            parser.error(f"--table {earlier}: not the rows that --json prints: {error}")
    else:
        say(f"{os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f}: what others do is in the figures")
        rows = measure(arguments.quick)
    if plot and arguments.plot:
        arguments.plot.write_text(plot(rows), encoding="utf-8")
    if earlier and markdown:
        print(markdown(rows))
    else:
        print(encode(rows).decode() if arguments.json else table(rows))
