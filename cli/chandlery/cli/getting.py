"""``chandlery get``, ``chandlery version``."""

from __future__ import annotations

import asyncio
import enum
import platform
from collections.abc import Sequence
from typing import Annotated

import msgspec
import typer
from rich.table import Table

from chandlery.cli.endings import ends_well
from chandlery.cli.instance import current_view
from chandlery.cli.options import DEFAULT_STATE, Json, State
from chandlery.cli.runtime.version import own_version
from chandlery.cli.screen import output, remarks
from chandlery.cli.signal_states import with_states
from chandlery.console.model import View
from chandlery.console.tables import feeds_table, pools_table, processes_table, signals_table, traders_table
from chandlery.core.errors import InputError


class Kind(enum.StrEnum):
    """What can be listed."""

    traders = "traders"
    pools = "pools"
    feeds = "feeds"
    signals = "signals"
    processes = "processes"


class Form(enum.StrEnum):
    """How it is printed."""

    table = "table"
    wide = "wide"
    json = "json"


def register(app: typer.Typer) -> None:
    """Add this module's verbs."""
    app.command("get")(ends_well(get))
    app.command("version")(ends_well(version))


def get(
    kind: Annotated[Kind, typer.Argument(help="What to list.")],
    names: Annotated[list[str] | None, typer.Argument(help="Only these (name or namespace/name).")] = None,
    form: Annotated[Form, typer.Option("-o", "--output", help="How to print it.")] = Form.table,
    state: State = DEFAULT_STATE,
) -> None:
    """List traders, pools, feeds, signals or processes of the running instance."""
    view = current_view(state)
    if kind is Kind.signals:
        view = _with_states(view)
    rows = select(rows_of(view, kind), names or [])
    if form is Form.json:
        print(msgspec.json.format(msgspec.json.encode(rows), indent=2).decode())
        return
    if not rows:
        remarks().print(f"no {kind.value}")
        return
    output().print(table_of(kind, rows, wide=form is Form.wide))


def version(json: Json = False) -> None:
    """Print the version."""
    facts = {"version": own_version(), "python": platform.python_version(), "platform": platform.platform()}
    print(msgspec.json.encode(facts).decode() if json else f"chandlery {facts['version']} (Python {facts['python']})")


def _with_states(view: View) -> View:
    rows, problems = asyncio.run(with_states(view))
    for problem in problems:
        remarks().print(f"without states of {problem}", style="yellow", markup=False)
    return msgspec.structs.replace(view, signals=rows)


def rows_of(view: View, kind: Kind) -> Sequence[msgspec.Struct]:
    """The rows of one kind."""
    rows: dict[Kind, Sequence[msgspec.Struct]] = {
        Kind.traders: view.traders,
        Kind.pools: view.pools,
        Kind.feeds: view.feeds,
        Kind.signals: view.signals,
        Kind.processes: view.processes,
    }
    return rows[kind]


def select(rows: Sequence[msgspec.Struct], names: Sequence[str]) -> Sequence[msgspec.Struct]:
    """The rows of these names; all without names.

    Raises:
        InputError: a name that none has.
    """
    if not names:
        return rows
    by_name: dict[str, msgspec.Struct] = {}
    for row in rows:
        full = next(getattr(row, field) for field in ("trader", "pool", "feed", "name", "id") if hasattr(row, field))
        by_name[full] = row
        by_name.setdefault(full.rpartition("/")[2], row)
    unknown = [name for name in names if name not in by_name]
    if unknown:
        known = ", ".join(sorted(name for name in by_name if "/" in name) or sorted(by_name)) or "none"
        raise InputError(f"not found: {', '.join(unknown)}; there are: {known}")
    return [by_name[name] for name in names]


def table_of(kind: Kind, rows: Sequence[msgspec.Struct], *, wide: bool) -> Table:
    """A table of one kind's rows."""
    if kind is Kind.traders:
        return traders_table(rows, wide=wide)  # type: ignore[arg-type]
    if kind is Kind.feeds:
        return feeds_table(rows, wide=wide)  # type: ignore[arg-type]
    if kind is Kind.pools:
        return pools_table(rows)  # type: ignore[arg-type]
    if kind is Kind.signals:
        return signals_table(rows, wide=wide)  # type: ignore[arg-type]
    return processes_table(rows)  # type: ignore[arg-type]
