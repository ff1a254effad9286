"""A feed's writer that real traders read: it publishes what it is told, and dies after a store of a revision."""

from __future__ import annotations

import functools
import sys
from pathlib import Path
from typing import Final

from tests.segment_crash.fault_points import FaultPoints, Point

from chandlery.workers.segment import SegmentWriter

SERIES: Final = ("BTC/USDT", "1s")
SESSION: Final = 1
STEP_MS: Final = 1_000
STAMPS: Final = (5, 10, 15, 20, 25, 30, 35, 0)
BELLS: Final = 24


def run(fault_points: FaultPoints, folder: Path) -> None:
    """Lines on standard input: ``close PRICE`` appends a candle; ``die STORE`` revises the newest one and dies in it."""
    writer = SegmentWriter.create(str(folder / "segment"), rows=256, series=8, bells=BELLS)
    index = writer.add_series(*SERIES)
    writer.reset(index, SESSION)
    count = 0
    print("ready", flush=True)
    for line in sys.stdin:
        order, number = line.split()
        if order == "close":
            price = float(number)
            writer.append(index, count * STEP_MS, price, price, price, price, 1.0, 1, STAMPS)
            count += 1
            writer.ring_many(range(BELLS))
        else:
            newest = (index, (count - 1) * STEP_MS, 7.0, 7.0, 7.0, 7.0, 1.0, 1)
            fault_points.die_in(functools.partial(writer.revise, *newest), Point("store", int(number)))
        print("done", flush=True)
