"""``chandlery logs``."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated, Final

import typer

from chandlery.cli.endings import ends_well
from chandlery.cli.options import DEFAULT_STATE, State
from chandlery.core.errors import InputError

_LOOK_S: Final = 0.2


def register(app: typer.Typer) -> None:
    """Add this module's verb."""
    app.command("logs")(ends_well(logs))


def logs(
    name: Annotated[str | None, typer.Argument(help="Process, such as feed-quants-0; none: list them.")] = None,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on as the log grows.")] = False,
    tail: Annotated[int, typer.Option("--tail", help="Only the last lines; -1: all.")] = -1,
    state: State = DEFAULT_STATE,
) -> None:
    """Print a process's log (also of one that has ended)."""
    known = {path.stem: path for path in sorted((state / "logs").glob("*.log"))}
    broker = state / "broker" / "broker.log"
    if broker.exists():
        known["kafka"] = broker
    if name is None:
        if not known:
            raise InputError(f"no logs in {state / 'logs'}: nothing has run over this state folder")
        print("\n".join(known))
        return
    if name not in known:
        raise InputError(f"no log of {name!r} in {state / 'logs'}; there are: {', '.join(known) or 'none'}")
    _print_tail(known[name], tail)
    if follow:
        _follow(known[name])


def _print_tail(path: Path, tail: int) -> None:
    text = path.read_text(encoding="utf-8", errors="replace")
    lines = text.splitlines(keepends=True)
    sys.stdout.writelines(lines if tail < 0 else lines[len(lines) - min(tail, len(lines)) :])
    sys.stdout.flush()


def _follow(path: Path) -> None:
    position, inode = path.stat().st_size, path.stat().st_ino
    while True:
        time.sleep(_LOOK_S)
        stat = path.stat()
        if stat.st_ino != inode or stat.st_size < position:  # set aside at a restart
            position, inode = 0, stat.st_ino
        if stat.st_size == position:
            continue
        with path.open("rb") as file:
            file.seek(position)
            data = file.read()
        position += len(data)
        sys.stdout.write(data.decode(errors="replace"))
        sys.stdout.flush()
