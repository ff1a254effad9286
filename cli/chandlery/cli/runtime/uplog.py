"""The log of ``chandlery up`` itself: a file, as the terminal belongs to the view."""

from __future__ import annotations

import logging
from pathlib import Path

from chandlery.cli.runtime.children import rotate
from chandlery.core.logs import JsonFormatter


def log_to(path: Path, level: str) -> None:
    """Send everything that is logged in this process to a file, libraries' warnings included."""
    rotate(path)
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(JsonFormatter("up"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("chandlery").setLevel(level.upper())
