"""File systems that are too small or read-only, for as long as a test needs them."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from tests.support.needed import missing


def lacks_mounts(complaint: str) -> NoReturn:
    """This user may not mount: the test is skipped, and fails in CI, where it would never run otherwise."""
    missing(f"needs the right to mount a tmpfs (root, or CAP_SYS_ADMIN): {complaint.strip()}")


@contextlib.contextmanager
def mounted(place: Path, options: str) -> Iterator[Path]:
    """A tmpfs of its own; skips where this user may not mount, and fails there in CI."""
    place.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", place], capture_output=True, text=True)
    if done.returncode:
        lacks_mounts(done.stderr)
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


@contextlib.contextmanager
def read_only(folder: Path, view: Path) -> Iterator[Path]:
    """The same folder by a read-only mount of it."""
    view.mkdir()
    subprocess.run(["mount", "--bind", folder, view], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", view], check=True)
        yield view
    finally:
        subprocess.run(["umount", view], check=True)
