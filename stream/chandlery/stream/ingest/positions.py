"""What has been acknowledged, kept in a file so that a restart within the session resumes there."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path

import msgspec

from chandlery.core.errors import InputError, MachineError
from chandlery.core.settings import IngestSettings
from chandlery.stream.ingest.source import Position


class Positions(msgspec.Struct):
    """Content of a position file.

    Attributes:
        session: the session that the positions belong to; those of another one mean nothing.
        symbols: by symbol; a symbol that is there has had its opening and its history acknowledged.
    """

    session: int
    symbols: dict[str, Position] = {}


def read_positions(path: str, session: int) -> dict[str, Position]:
    """Positions of this session, empty where there are none.

    Raises:
        InputError: the file is no position file. Starting over it would append a whole session twice, so
            nobody guesses: remove it, or restore it.
    """
    if not path:
        return {}
    try:
        content = Path(path).read_bytes()
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise InputError(f"{path}: can't read the position file: {error.strerror}") from error
    try:
        positions = msgspec.json.decode(content, type=Positions)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: no position file ({error}); remove it to begin a new session") from error
    return positions.symbols if positions.session == session else {}


def in_session(settings: IngestSettings) -> IngestSettings:
    """The settings with ``session: -1`` replaced: by the position file's session, else by a new one (ms).

    Raises:
        InputError: the position file is none, see :func:`read_positions`.
    """
    if settings.session >= 0:
        return settings
    session = time.time_ns() // 1_000_000
    path = Path(settings.position_file)
    if settings.position_file and path.exists():
        try:
            session = msgspec.json.decode(path.read_bytes(), type=Positions).session
        except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
            raise InputError(f"{path}: no position file ({error}); remove it to begin a new session") from error
    return msgspec.structs.replace(settings, session=session)


def write_positions(path: str, session: int, symbols: Mapping[str, Position]) -> None:
    """Replace the file in one step: a reader, or a kill, sees the old content or the new.

    Raises:
        MachineError: the file can't be written.
    """
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(msgspec.json.encode(Positions(session, dict(symbols))))
        temporary.replace(target)
    except OSError as error:
        raise MachineError(
            f"{path}: can't write the position: {error.strerror}; make room or choose another folder"
        ) from error
