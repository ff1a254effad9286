"""``kubectl chandlery top``: every Trader's figures of now, from its worker."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Annotated, Final

import msgspec
import typer
from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text

from chandlery.cli.plugin.completion import complete_trader
from chandlery.cli.plugin.kubectl import Kubectl
from chandlery.cli.plugin.options import Form, Json, Output
from chandlery.cli.plugin.resources import fetch_status
from chandlery.cli.plugin.watching import WorkerWatch, first_row
from chandlery.cli.screen import output, remarks
from chandlery.console.cluster import TopRow, TraderState, top_table
from chandlery.core.errors import InputError, UnavailableError

#: The first answer of a worker: kubectl and Python in the pod take 0.5 s together, a full node ten times that; two
#: looks are a second apart.
_FIRST_S: Final = 20.0
_APART_S: Final = 1.0
#: Traders come, go and move seldom.
_RELIST_S: Final = 5.0
_REDRAW_S: Final = 0.5
#: Head, column names, the line of what doesn't fit, and the shell's own.
_FIXED_LINES: Final = 6

#: States of workers, and reasons of statuses, that need nobody.
_WELL: Final = frozenset({"Active", "Warm", "Running", "Suspended"})

Place = tuple[str, str]


def top(
    kubectl: Kubectl,
    traders: Annotated[
        list[str] | None,
        typer.Argument(help="Only these Traders: [NAMESPACE/]TRADER.", autocompletion=complete_trader),
    ] = None,
    form: Output = Form.table,
    json: Json = False,
    every: Annotated[float, typer.Option("--every", min=0.5, help="Seconds between two looks, on a terminal.")] = 2.0,
    once: Annotated[bool, typer.Option("--once", help="Look once, as it does anyway off terminals.")] = False,
) -> None:
    """Each Trader live: calls, signals, latency, memory, restarts; the worst first. Refreshes on a terminal."""
    names = traders or []
    form = Form.json if json else form
    console = output()
    if form in (Form.table, Form.wide) and console.is_terminal and not once:
        with Live(console=console, auto_refresh=False, vertical_overflow="crop") as live:
            _Board(kubectl, names, every).show(live, wide=form is Form.wide)
        return
    rows, problems = _once(kubectl, names)
    if form is Form.json:
        print(msgspec.json.format(msgspec.json.encode(rows), indent=2).decode())
    elif form is Form.name:
        for row in rows:
            print(f"trader/{row.trader}")
    elif not rows:
        remarks().print(_nothing(kubectl), markup=False)
    else:
        console.print(top_table(rows, wide=form is Form.wide))
    for problem in problems:
        remarks().print(f"not live: {problem}", style="yellow", markup=False)


def _nothing(kubectl: Kubectl) -> str:
    return (
        "no Traders in the cluster"
        if kubectl.everywhere
        else f"no Traders in namespace {kubectl.namespace}; -A looks everywhere"
    )


def _once(kubectl: Kubectl, names: Sequence[str]) -> tuple[list[TopRow], list[str]]:
    """Rows of two looks a second apart, and which workers can't be asked and why."""
    status, _ = fetch_status(kubectl, names)
    watches = {place: WorkerWatch(kubectl, *place, every_s=_APART_S, count=2) for place in _places(status.traders)}
    for watch in watches.values():
        watch.start()
    deadline = time.monotonic() + _FIRST_S
    try:
        for watch in watches.values():
            watch.done.wait(max(0.0, deadline - time.monotonic()))
    finally:
        late = [watch for watch in watches.values() if not watch.done.is_set()]
        for watch in late:
            watch.stop()
    problems = [f"{watch.namespace}/{watch.pod} doesn't answer within {_FIRST_S:g} s" for watch in late]
    return worst_first(_rows(status.traders, watches)), problems + _problems(watches)


class _Board:
    """The refreshing view."""

    def __init__(self, kubectl: Kubectl, names: Sequence[str], every_s: float) -> None:
        self._kubectl = kubectl
        self._names = names
        self._every_s = every_s
        self._traders: list[TraderState] = []
        self._watches: dict[Place, WorkerWatch] = {}
        self._away = ""

    def show(self, live: Live, *, wide: bool) -> None:
        """Show until Ctrl-C."""
        relist_s = 0.0
        try:
            while True:
                if time.monotonic() >= relist_s:
                    self._relist(first=not relist_s)
                    relist_s = time.monotonic() + _RELIST_S
                live.update(self._view(live.console.height, wide=wide), refresh=True)
                time.sleep(_REDRAW_S)
        finally:
            for watch in self._watches.values():
                watch.stop()

    def _relist(self, *, first: bool) -> None:
        try:
            status, _ = fetch_status(self._kubectl, self._names)
        except (UnavailableError, InputError) as error:
            if first:
                raise
            self._away = str(error)  # what is known is shown on
            return
        self._away, self._traders = "", status.traders
        wanted = _places(self._traders)
        for place in self._watches.keys() - wanted:
            self._watches.pop(place).stop()
        for place in wanted - self._watches.keys():
            self._watches[place] = WorkerWatch(self._kubectl, *place, every_s=self._every_s)
            self._watches[place].start()

    def _view(self, height: int, *, wide: bool) -> RenderableType:
        rows = worst_first(_rows(self._traders, self._watches))
        problems = [*([self._away] if self._away else []), *_problems(self._watches)]
        shown = rows[: max(height - _FIXED_LINES - len(problems), 3)]
        active = sum(row.state == "Active" for row in rows)
        parts: list[RenderableType] = [
            Text.assemble(
                ("chandlery top ", "bold"), f"{active} of {len(rows)} Traders active on {len(self._watches)} worker(s)   ",
                ("Ctrl-C ends it", "dim"),
            ),
            top_table(shown, wide=wide),
        ]  # fmt: skip
        if len(rows) > len(shown):
            parts.append(Text(f"… and {len(rows) - len(shown)} more: --once shows all", style="dim"))
        parts += [
            Text(f"not live: {problem}", style="yellow", no_wrap=True, overflow="ellipsis") for problem in problems
        ]
        return Group(*parts)


def _places(traders: Sequence[TraderState]) -> set[Place]:
    return {(trader.pod_namespace, trader.pod) for trader in traders if trader.pod}


def _rows(traders: Sequence[TraderState], watches: dict[Place, WorkerWatch]) -> list[TopRow]:
    rows: list[TopRow] = []
    for trader in traders:
        row = first_row(trader)
        watch = watches.get((trader.pod_namespace, trader.pod))
        if watch is not None:
            watch.fill(row)
        rows.append(row)
    return rows


def _problems(watches: dict[Place, WorkerWatch]) -> list[str]:
    """One for each different reason: where nobody may look, one line says it."""
    return list(dict.fromkeys(str(watch.problem) for watch in watches.values() if watch.problem is not None))


def worst_first(rows: Sequence[TopRow]) -> list[TopRow]:
    """Those that need attention before those that are well, then the busiest; else by name."""
    return sorted(rows, key=lambda row: (row.state in _WELL, -(row.calls_per_s or 0.0), row.trader))
