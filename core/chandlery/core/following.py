"""Processes that follow their settings file: when it changes they end in order and begin again as the same process.

A ConfigMap is mounted as a file that changes in place. Beginning again by ``exec`` keeps the pod, its volumes and
what they hold, and asks no one for a restart.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from chandlery.core.errors import InputError
from chandlery.core.settings import read_settings

log = logging.getLogger("chandlery.settings")

#: A stat a second costs nothing, and a mounted ConfigMap takes longer than that to arrive.
_PERIOD_S: Final = 1.0
# Taking settings in waits for one acknowledgement of the broker: milliseconds, or the 4 s in which one that restarts is
# back. What lasts longer may be for the file to mend, and the next beginning reads that.
_ADOPT_TIMEOUT_S: Final = 5.0

SettingsT = TypeVar("SettingsT", bound=msgspec.Struct)


async def until_changed(path: str, current: SettingsT, period_s: float = _PERIOD_S) -> SettingsT:
    """Wait until the file holds other settings than ``current``, and return them. Ones that can't be read don't count."""
    seen: tuple[int, ...] = ()
    while True:
        await asyncio.sleep(period_s)
        try:
            state = Path(path).stat()
        except OSError:
            continue  # just being replaced
        now = (state.st_ino, state.st_mtime_ns, state.st_size)
        if now == seen:
            continue
        seen = now
        try:
            found = read_settings(path, type(current))
            if found != current:
                return found
        except InputError as error:
            log.warning("changed settings can't be read; going on with the old ones", extra={"problem": str(error)})


async def stop_when_changed(
    path: str,
    current: SettingsT,
    stop: asyncio.Event,
    adopt: Callable[[SettingsT], Awaitable[bool]] | None = None,
    period_s: float = _PERIOD_S,
    adopt_timeout_s: float = _ADOPT_TIMEOUT_S,
) -> None:
    """Set ``stop`` when the file holds other settings that can't be taken in by what runs.

    Args:
        adopt: takes changed settings in; False, or a failure: it can't. It is cancelled when it takes too long.
        adopt_timeout_s: how long that is.
    """
    while True:
        current = await until_changed(path, current, period_s)
        taken = False
        try:
            async with asyncio.timeout(adopt_timeout_s):
                taken = adopt is not None and await adopt(current)
        except TimeoutError:
            log.warning("changed settings can't be taken in quickly", extra={"path": path, "seconds": adopt_timeout_s})
        except Exception:
            log.exception("changed settings can't be taken in", extra={"path": path})
        finally:
            if not taken:
                log.info("settings changed; beginning again", extra={"path": path})
                stop.set()
        if not taken:
            return
        log.info("settings changed; taken in", extra={"path": path})


def begin_again() -> None:
    """Become this very command anew: same process id, same volumes, new settings. Does not return."""
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
