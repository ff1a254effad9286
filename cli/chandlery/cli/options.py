"""Options that several verbs share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from chandlery.core.durations import parse_duration
from chandlery.core.errors import InputError


def duration_ms(option: str, text: str) -> int:
    """The duration that an option names, ms.

    Raises:
        InputError: names the option, its value and what to write instead.
    """
    try:
        return parse_duration(text)
    except InputError as error:
        raise InputError(f"{option} {error}") from error


State = Annotated[
    Path,
    typer.Option("--state", envvar="CHANDLERY_STATE", help="State folder of the local instance.", show_default=True),
]
DEFAULT_STATE = Path(".chandlery")
Json = Annotated[bool, typer.Option("--json", help="JSON for programs instead of text.")]
Manifests = Annotated[
    list[str],
    typer.Option("-f", "--filename", help="Folder or file of manifests; may be given more than once."),
]
Strategies = Annotated[
    Path | None,
    typer.Option("--strategies", help="Folder of Python files with strategies of your own."),
]
