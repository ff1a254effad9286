"""Assignments to local workers: each kept in a file, which is written before :meth:`FileDelivery.want` returns."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from pathlib import Path

import msgspec

from chandlery.cli.runtime.statedir import write_atomically
from chandlery.core.assignment import Assignment, content_hash, decode_assignment, encode
from chandlery.operator.delivery import Caller, Delivery

log = logging.getLogger("chandlery.up")


class FileDelivery(Delivery):
    """Keeps one local worker's assignment delivered.

    Args:
        worker: its name. path: file that holds its last assignment. endpoint: its feed's API.
        chance: source of jitter, 0 … 1.
    """

    def __init__(
        self, worker: str, path: Path, endpoint: Caller, *, chance: Callable[[], float] = random.random
    ) -> None:
        self._path = path
        super().__init__(_read(worker, path), endpoint, chance=chance)

    def _is_kept(self) -> bool:
        return self._path.exists()

    def _replace(self, assignment: Assignment) -> None:
        write_atomically(self._path, encode(assignment))
        super()._replace(assignment)


def _read(worker: str, path: Path) -> Assignment:
    """The last one from disk; an unreadable one counts as none (the worker's 409 then tells the sequence)."""
    try:
        return decode_assignment(path.read_bytes())
    except FileNotFoundError:
        pass
    except (OSError, msgspec.DecodeError) as error:
        log.warning("assignment file unreadable, starting anew", extra={"path": str(path), "why": str(error)})
        path.unlink(missing_ok=True)
    return Assignment(worker, 0, content_hash([]), [])
