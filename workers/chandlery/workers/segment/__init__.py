"""The segment: candles shared by one feed with many traders, and the rings by which signals come back.

The writer never waits for a reader. A reader takes windows without a copy and asks afterwards whether they were
whole; docs/segment.md has layout and protocol. Every error is :class:`chandlery.core.errors.SegmentError`.

What reads windows is loaded when it is asked for: it needs numpy, 12 MB that the feed, which writes, and the
supervisor, which looks at rings, do without.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Final

from chandlery.core.errors import SegmentError
from chandlery.workers.segment.description import SegmentInfo, SeriesInfo
from chandlery.workers.segment.layout import COLUMNS, STAMPS, Geometry
from chandlery.workers.segment.ring import Heritage, RingInfo, RingItem, SignalRing
from chandlery.workers.segment.writer import SegmentWriter

if TYPE_CHECKING:
    from chandlery.workers.segment.reader import SegmentReader
    from chandlery.workers.segment.series import FormingRow, SeriesReader, Window

_READING: Final = {"SegmentReader": "reader", "FormingRow": "series", "SeriesReader": "series", "Window": "series"}

__all__ = [
    "COLUMNS",
    "STAMPS",
    "FormingRow",
    "Geometry",
    "Heritage",
    "RingInfo",
    "RingItem",
    "SegmentError",
    "SegmentInfo",
    "SegmentReader",
    "SegmentWriter",
    "SeriesInfo",
    "SeriesReader",
    "SignalRing",
    "Window",
]


def __getattr__(name: str) -> object:
    module = _READING.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found: object = getattr(importlib.import_module(f"{__name__}.{module}"), name)
    globals()[name] = found
    return found
