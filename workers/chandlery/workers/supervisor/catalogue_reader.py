"""The catalogue, read by a process of its own: a broken strategy file must not touch the supervisor."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

import msgspec

from chandlery.core.processes import child_environment
from chandlery.workers.supervisor.exits import signal_name

_log = logging.getLogger("chandlery")
#: Importing TA-Lib and a folder of strategies takes a second; a file that never returns costs this once.
TIMEOUT_S: Final = 30.0
#: How often the folder is looked at, so that a mended file is tried again.
LOOK_S: Final = 1.0
#: What could not be read on a busy machine is tried again after this, doubled each time: a file that never returns costs
#: half a minute of a core each time, in the long run a thirtieth of one.
FIRST_RETRY_S: Final = 10.0
LAST_RETRY_S: Final = 900.0

#: Longest line that is read: a catalogue of hundreds of strategies with long docs.
_MOST_LINE_BYTES: Final = 64 * 1024 * 1024

_decode: Final = msgspec.json.Decoder(str | list[dict[str, Any]]).decode

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


class Reading(NamedTuple):
    """What came of reading the catalogue.

    Attributes:
        catalogue: None: it can't be read. left_out: entry points that it names as broken because they ended the process
            that imported them, or never returned.
    """

    catalogue: list[dict[str, Any]] | None
    left_out: frozenset[str] = frozenset()


class _Stopped(NamedTuple):
    """A process that told no catalogue: at which entry point (empty: at none of them), and what became of it."""

    name: str
    problem: str


async def read_catalogue(strategies_dir: str) -> Reading:
    """Run ``python -m chandlery.workers.catalogue``, again without an entry point that ends it or never returns (logged)."""
    without: dict[str, str] = {}
    while True:
        found = await _run(strategies_dir, without)
        if not isinstance(found, _Stopped):
            return Reading(found, frozenset(without))
        facts = {"strategy": found.name, "strategies": strategies_dir, "problem": found.problem}
        if not found.name or found.name in without:
            _log.error("catalogue can't be read", extra=facts)
            return Reading(None)
        _log.error("installed strategy left out of the catalogue", extra=facts)
        without[found.name] = f"{found.name}: the process that imported it {found.problem}"


async def _run(strategies_dir: str, without: Mapping[str, str]) -> list[dict[str, Any]] | _Stopped:
    arguments = ["-m", "chandlery.workers.catalogue", "--announce"]
    if strategies_dir:
        arguments += ["--strategies", strategies_dir]
    arguments += [f"--without={name}={problem}" for name, problem in without.items()]
    # By way of processes: a file that never returns must not outlive a supervisor that was killed.
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "chandlery.core.processes", sys.executable, *arguments,
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, env=child_environment(),
        limit=_MOST_LINE_BYTES,
    )  # fmt: skip
    assert process.stdout is not None
    name = ""
    try:
        async with asyncio.timeout(TIMEOUT_S) as limit:
            async for line in process.stdout:
                said: str | list[dict[str, Any]] = _decode(line)
                if not isinstance(said, str):
                    return said
                name = said
                # For each anew: on a slow machine the last one must not pay for all before it.
                limit.reschedule(asyncio.get_running_loop().time() + TIMEOUT_S)
            return _Stopped(name, _end(await process.wait()))
    except TimeoutError:
        return _Stopped(name, f"took more than {TIMEOUT_S:g} s")
    except (msgspec.DecodeError, ValueError) as error:  # of no text, or of a line that is too long
        return _Stopped("", f"said what is no catalogue: {error}")
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


def _end(code: int) -> str:
    return f"was killed by {signal_name(-code)}" if code < 0 else f"ended with exit code {code}"


async def follow_catalogue(
    strategies_dir: str, changed: Callable[[list[dict[str, Any]]], None], clock: Callable[[], float] = time.monotonic
) -> None:
    """Tell ``changed`` the catalogue, now and whenever the folder's files change; until cancelled.

    One that could not be read, or only without an entry point, is tried again, though the files stay as they are.

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
                # A file that never returns: without the folder the shipped ones are still there.
                catalogue, _ = await read_catalogue("")
            if catalogue is not None and catalogue != told:
                told = catalogue
                changed(catalogue)
            again_s = math.inf if is_read else clock() + pause_s
        if not strategies_dir and again_s == math.inf:
            return
        await asyncio.sleep(LOOK_S)
