"""Watching manifest folders: the kernel's events, and a slow look beside them for what events miss."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import AsyncGenerator
from typing import Final

from watchfiles import awatch

from chandlery.cli.runtime.folder import GRACE_S, Folder, scan

log = logging.getLogger("chandlery.up")

#: Changes within this time are one change.
DEBOUNCE_MS: Final = 80
#: A look without an event: inotify says nothing of a folder that was moved away and made anew, nor of network
#: file systems. Reading some tens of small files costs less than a millisecond.
LOOK_S: Final = 0.5

Identity = tuple[tuple[str, int, int], ...]


async def changes(folder: Folder) -> AsyncGenerator[Folder, None]:
    """Yield the folder after each change of the files that count, or of what there is to say about them."""
    dirty = asyncio.Event()
    watching: asyncio.Task[None] | None = None
    watched: Identity = ()
    told = ""
    try:
        while True:
            identity = _identity(folder.roots)
            if watching is None or watching.done() or identity != watched:
                why = await _end(watching)
                if why and why != told:  # as where the user has no inotify watches left
                    told = why
                    log.warning(
                        "the kernel tells no changes; looking for them", extra={"problem": why, "every_s": LOOK_S}
                    )
                watched = identity
                watching = _start_listening(identity, dirty)
            notices = folder.notices
            if folder.advance(scan(folder.roots), time.monotonic()) or folder.notices != notices:
                yield folder
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(GRACE_S / 2 if folder.unsettled else LOOK_S):
                    await dirty.wait()
            dirty.clear()
    finally:
        await _end(watching)


def _identity(roots: tuple[str, ...]) -> Identity:
    """The roots that exist, with device and inode: a folder made anew is another one to watch."""
    found: list[tuple[str, int, int]] = []
    for root in roots:
        with contextlib.suppress(OSError):
            # A file given by -f is watched through its folder: editors replace files by rename.
            folder = root if os.path.isdir(root) else os.path.dirname(os.path.abspath(root))
            stat = os.stat(folder)
            found.append((folder, stat.st_dev, stat.st_ino))
    return tuple(found)


def _start_listening(identity: Identity, dirty: asyncio.Event) -> asyncio.Task[None]:
    return asyncio.create_task(_listen({folder for folder, _, _ in identity}, dirty), name="watch manifests")


async def _listen(folders: set[str], dirty: asyncio.Event) -> None:
    if not folders:
        await asyncio.Event().wait()
    with contextlib.suppress(FileNotFoundError):  # gone meanwhile: the next look sees it
        async for _ in awatch(*folders, debounce=DEBOUNCE_MS, step=20, rust_timeout=1_000, recursive=False):
            dirty.set()


async def _end(task: asyncio.Task[None] | None) -> str:
    """End listening; returns why it had ended by itself, empty where it hadn't."""
    if task is None:
        return ""
    task.cancel()
    await asyncio.wait([task])  # not the task itself: a cancellation of ours would be taken for its own
    error = None if task.cancelled() else task.exception()
    return "" if error is None else str(error) or type(error).__name__
