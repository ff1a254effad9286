"""The catalogue, read by a process of its own: a broken strategy file must not touch the supervisor."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
import sys
import time
from collections.abc import Callable
from typing import Any, Final

import msgspec

from chandlery.core.processes import child_environment

_log = logging.getLogger("chandlery")
#: Importing TA-Lib and a folder of strategies takes a second; a file that never returns costs this once.
TIMEOUT_S: Final = 30.0
#: How often the folder is looked at, so that a mended file is tried again.
LOOK_S: Final = 1.0
#: What could not be read on a busy machine is tried again after this, doubled each time: a file that never returns costs
#: half a minute of a core each time, in the long run a thirtieth of one.
FIRST_RETRY_S: Final = 10.0
LAST_RETRY_S: Final = 900.0

_decode: Final = msgspec.json.Decoder(list[dict[str, Any]]).decode

Fingerprint = tuple[tuple[str, int, int], ...]


def fingerprint(strategies_dir: str) -> Fingerprint:
    """Names, times and sizes of the folder's Python files; empty without a folder."""
    if not strategies_dir:
        return ()
    found = []
    with contextlib.suppress(OSError), os.scandir(strategies_dir) as entries:
        for entry in entries:
            if entry.name.endswith(".py"):
                with contextlib.suppress(
                    OSError
                ):  # it went meanwhile, or is a link to nothing: of one file, not of all
                    status = entry.stat()
                    found.append((entry.name, status.st_mtime_ns, status.st_size))
    return tuple(sorted(found))


async def read_catalogue(strategies_dir: str) -> list[dict[str, Any]] | None:
    """Run ``python -m chandlery.workers.catalogue``; None when it fails (logged)."""
    arguments = ["-m", "chandlery.workers.catalogue"]
    if strategies_dir:
        arguments += ["--strategies", strategies_dir]
    # By way of processes: a file that never returns must not outlive a supervisor that was killed.
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "chandlery.core.processes", sys.executable, *arguments,
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, env=child_environment(),
    )  # fmt: skip
    try:
        async with asyncio.timeout(TIMEOUT_S):
            output, _ = await process.communicate()
        return _decode(output)
    except TimeoutError:
        _log.error("catalogue takes too long", extra={"timeout_s": TIMEOUT_S, "strategies": strategies_dir})
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        _log.error("catalogue can't be read", extra={"exit": process.returncode, "error": str(error)})
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return None


async def follow_catalogue(
    strategies_dir: str, changed: Callable[[list[dict[str, Any]]], None], clock: Callable[[], float] = time.monotonic
) -> None:
    """Tell ``changed`` the catalogue, now and whenever the folder's files change; until cancelled.

    One that could not be read is tried again, though the files stay as they are.

    Args:
        clock: seconds that never go back.
    """
    seen: Fingerprint | None = None
    again_s, pause_s, is_told = math.inf, FIRST_RETRY_S, False
    while True:
        present = fingerprint(strategies_dir)
        is_new = present != seen
        if is_new or clock() >= again_s:
            pause_s = FIRST_RETRY_S if is_new else min(2 * pause_s, LAST_RETRY_S)
            seen, is_told = present, is_told and not is_new
            catalogue = await read_catalogue(strategies_dir)
            is_read = catalogue is not None
            if catalogue is None and strategies_dir and not is_told:
                # A file that never returns: without the folder the shipped ones are still there.
                catalogue = await read_catalogue("")
            if catalogue is not None:
                is_told = True
                changed(catalogue)
            again_s = math.inf if is_read else clock() + pause_s
        if not strategies_dir and again_s == math.inf:
            return
        await asyncio.sleep(LOOK_S)
