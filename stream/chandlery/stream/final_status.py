"""The last status of a process, for whoever asks what it did when it has ended."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import msgspec

from chandlery.core.errors import MachineError


def write_final_status(path: str, status: Callable[[], msgspec.Struct]) -> None:
    """Leave a status behind as JSON; written by rename, so it is whole. An empty path: nobody wants it, and it isn't asked for.

    Raises:
        MachineError: it can't be written.
    """
    if not path:
        return
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        temporary.write_bytes(msgspec.json.encode(status()))
        temporary.replace(target)
    except OSError as error:
        raise MachineError(f"{target}: can't write the final status: {error.strerror}") from error
