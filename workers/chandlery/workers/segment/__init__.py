"""The segment: candles shared by one feed with many traders, and the rings by which signals come back.

The writer never waits for a reader. A reader takes windows without a copy and asks afterwards whether they were
whole; docs/segment.md has layout and protocol. Every error is :class:`chandlery.core.errors.SegmentError`.
"""

from chandlery.core.errors import SegmentError
from chandlery.workers.segment.description import SegmentInfo, SeriesInfo
from chandlery.workers.segment.layout import COLUMNS, STAMPS, Geometry
from chandlery.workers.segment.reader import SegmentReader
from chandlery.workers.segment.ring import RingInfo, RingItem, SignalRing
from chandlery.workers.segment.series import FormingRow, SeriesReader, Window
from chandlery.workers.segment.writer import SegmentWriter

__all__ = [
    "COLUMNS",
    "STAMPS",
    "FormingRow",
    "Geometry",
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
