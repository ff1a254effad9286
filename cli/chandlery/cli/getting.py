"""``chandlery get``, ``chandlery version``."""

from __future__ import annotations

import asyncio
import enum
import platform
from collections.abc import Sequence
from typing import Annotated, Final

import msgspec
import typer
from rich.table import Table

from chandlery.cli.endings import ends_well
from chandlery.cli.instance import current_view
from chandlery.cli.options import DEFAULT_STATE, Json, State
from chandlery.cli.runtime.version import own_version
from chandlery.cli.screen import output, remarks
from chandlery.cli.signal_states import with_states
from chandlery.console.model import SignalRow, View
from chandlery.console.tables import feeds_table, pools_table, processes_table, signals_table, traders_table
from chandlery.core.errors import InputError

_NAMES_HELP: Final = (
    "Only these (name or namespace/name; signals: of these Traders, or with an id that begins so and no other does)."
)
#: Fields of rows that hold their full name, the first that a row has.
_NAMED_BY: Final = ("trader", "pool", "feed", "name")
#: Of names, where one isn't found: more fill the screen.
_MOST_NAMED: Final = 20


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
    names: Annotated[list[str] | None, typer.Argument(help=_NAMES_HELP)] = None,
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
    """The rows of these names, in their own order; all without names.

    Args:
        names: full names or ones without their namespace, which several rows may have; of signals, those of their Traders,
            or enough of an id's beginning.

    Raises:
        InputError: a name that none has, or the beginning of several signals' ids.
    """
    if not names:
        return rows
    found = {name: _of(rows, name) for name in names}
    if unknown := [name for name, those in found.items() if not those]:
        known = list(dict.fromkeys(map(_full_name, rows)))
        shown = ", ".join(known[:_MOST_NAMED]) + (" …" if len(known) > _MOST_NAMED else "")
        raise InputError(f"not found: {', '.join(unknown)}; there are: {shown or 'none'}")
    taken = {index for those in found.values() for index in those}
    return [row for index, row in enumerate(rows) if index in taken]


def _of(rows: Sequence[msgspec.Struct], name: str) -> list[int]:
    """Places of the rows of one name.

    Raises:
        InputError: see :func:`select`.
    """
    if named := [index for index, row in enumerate(rows) if name in (full := _full_name(row), full.rpartition("/")[2])]:
        return named
    ids = {
        index: row.id
        for index, row in enumerate(rows)
        if isinstance(row, SignalRow) and row.id.startswith(name.lower())
    }
    if len(set(ids.values())) > 1:
        raise InputError(f"{len(set(ids.values()))} signals' ids begin with {name!r}: give more of it")
    return list(ids)


def _full_name(row: msgspec.Struct) -> str:
    return str(next(getattr(row, field) for field in _NAMED_BY if hasattr(row, field)))


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
