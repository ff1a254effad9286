"""The catalogue, read by a process of its own: a broken strategy file must not touch the supervisor."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
import time
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

from chandlery.core.errors import ChandleryError
from chandlery.workers.catalogue_process import listed

_log = logging.getLogger("chandlery")
#: How often the folder is looked at, so that a mended file is tried again.
LOOK_S: Final = 1.0
#: What could not be read on a busy machine is tried again after this, doubled each time: a file that never returns costs
#: half a minute of a core each time, in the long run a thirtieth of one.
FIRST_RETRY_S: Final = 10.0
LAST_RETRY_S: Final = 900.0

Fingerprint = tuple[tuple[str, int, int], ...]


def fingerprint(strategies_dir: str) -> Fingerprint:
    """Names, times and sizes of the folder's Python files, those of packages in it too; empty without a folder."""
    return tuple(sorted(_python_files(strategies_dir))) if strategies_dir else ()


def _python_files(folder: str, within: str = "") -> Iterator[tuple[str, int, int]]:
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(OSError):  # it went meanwhile, or is a link to nothing: of one file, not of all
                if entry.name.endswith(".py"):
                    status = entry.stat()
                    yield within + entry.name, status.st_mtime_ns, status.st_size
                # Only packages, which strategies import: beside them there may be anything, and it is looked at often.
                elif entry.is_dir(follow_symlinks=False) and os.path.isfile(os.path.join(entry.path, "__init__.py")):
                    yield from _python_files(entry.path, f"{within}{entry.name}/")


class Reading(NamedTuple):
    """What came of reading the catalogue.

    Attributes:
        catalogue: None: it can't be read. left_out: entry points and files of the folder that it names as broken because they
            ended the process that imported them, or never returned.
    """

    catalogue: list[dict[str, Any]] | None
    left_out: frozenset[str] = frozenset()


async def read_catalogue(strategies_dir: str) -> Reading:
    """The catalogue, without what ends the process that imports it or never returns (logged)."""
    try:
        async with listed(strategies_dir) as found:
            catalogue, left_out = found.entries, found.left_out
    except (ChandleryError, OSError) as error:
        _log.error("catalogue can't be read", extra={"strategies": strategies_dir, "problem": str(error)})
        return Reading(None)
    for name, problem in left_out.items():
        facts = {"strategy": name, "strategies": strategies_dir, "problem": problem}
        _log.error("strategy left out of the catalogue", extra=facts)
    return Reading(catalogue, frozenset(left_out))


async def follow_catalogue(
    strategies_dir: str, changed: Callable[[list[dict[str, Any]]], None], clock: Callable[[], float] = time.monotonic
) -> None:
    """Tell ``changed`` the catalogue, now and whenever the folder's files change; until cancelled.

    One that could not be read, or only without something that was left out, is tried again, though the files stay as they are.

    Args:
        clock: seconds that never go back.
    """
    seen: Fingerprint | None = None
    again_s, pause_s = math.inf, FIRST_RETRY_S
    told: list[dict[str, Any]] | None = None
    while True:
        present = fingerprint(strategies_dir)
        is_new = present != seen
        if is_new or clock() >= again_s:
            pause_s = FIRST_RETRY_S if is_new else min(2 * pause_s, LAST_RETRY_S)
            seen, told = present, None if is_new else told
            catalogue, left_out = await read_catalogue(strategies_dir)
            is_read = catalogue is not None and not left_out
            if catalogue is None and strategies_dir and told is None:
                # A folder that is gone: the shipped ones are still there.
                catalogue, _ = await read_catalogue("")
            if catalogue is not None and catalogue != told:
                told = catalogue
                changed(catalogue)
            again_s = math.inf if is_read else clock() + pause_s
        if not strategies_dir and again_s == math.inf:
            return
        await asyncio.sleep(LOOK_S)
