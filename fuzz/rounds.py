"""One process of the Python side: real inputs, spoiled again and again, until its time is over.

It runs apart because what it looks for may end it: the input at work stands in ``FOLDER/current`` for whoever is left.
Its lines are JSON: ``{"executed": n}`` each second, ``{"error": …, "file": …}`` for each new kind of error.
"""

from __future__ import annotations

import argparse
import ctypes
import faulthandler
import hashlib
import json
import random
import resource
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from chandlery.workers.segment import SegmentReader, description
from fuzz.exercise import KINDS
from fuzz.inputs import Input

#: A round needs a millisecond or two; one that needs this long has no end.
_ROUND_S: Final = 20.0
#: A round's files have 64 KB. What it maps beyond this is memory that an input decides on.
_MOST_MEMORY_BYTES: Final = 1 << 30
#: Rounds on one real input before the next is made: making one costs as much as several rounds.
_ROUNDS_AN_INPUT: Final = 40


def _plant_decoding() -> None:
    """Names are decoded without allowing for bytes that are no UTF-8."""
    description._text = lambda padded: padded.rstrip(b"\0").decode("utf-8")


def _plant_crash() -> None:
    """A superseded segment's description reads from an address that isn't mapped."""
    whole: Callable[[SegmentReader], Any] = SegmentReader.info

    def info(reader: SegmentReader) -> Any:
        return ctypes.string_at(8) if reader.superseded else whole(reader)

    setattr(SegmentReader, "info", info)  # noqa: B010 - a type checker refuses it rightly


def _plant_endless() -> None:
    """A superseded segment's description never comes to its end."""
    whole: Callable[[SegmentReader], Any] = SegmentReader.info

    def info(reader: SegmentReader) -> Any:
        while reader.superseded:
            pass
        return whole(reader)

    setattr(SegmentReader, "info", info)  # noqa: B010 - a type checker refuses it rightly


#: Faults for ``--self-check``, by what they need to be found.
PLANTED: Final[dict[str, Callable[[], None]]] = {
    "decoding": _plant_decoding,
    "crash": _plant_crash,
    "endless": _plant_endless,
}


def run_one(kind: str, given: Input, folder: Path) -> str:
    """Do with an input what its kind does; what came of it that must not, or empty."""
    (folder / "current").write_bytes(given.pack())
    try:
        KINDS[kind].exercise(given, folder / "file")
    except Exception as error:  # noqa: BLE001 - any but those promised is what is looked for
        return _described(error)
    return ""


def _described(error: Exception) -> str:
    """Type, words and innermost place of the project's own: what makes one finding another."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "chandlery" in frame.filename or "fuzz" in frame.filename]
    place = f"{Path(own[-1].filename).name}:{own[-1].lineno}" if own else "?"
    return f"{type(error).__name__} at {place}: {str(error)[:200]}"


def rounds(kind: str, seed: int, folder: Path, seconds: float, round_s: float) -> int:
    """Try inputs until the time is over; how many kinds of error were found."""
    draw = random.Random(f"{kind}{seed}")
    known: set[str] = set()
    executed = 0
    end_s, next_line_s = time.monotonic() + seconds, 0.0
    made = Input(b"")
    while (now_s := time.monotonic()) < end_s:
        if now_s >= next_line_s:
            # Not each round: the watch is a thread, that has to be ended before it begins anew.
            faulthandler.dump_traceback_later(round_s, exit=True)
        if executed % _ROUNDS_AN_INPUT == 0:
            made = Input(KINDS[kind].make(draw))
        given = made if executed % _ROUNDS_AN_INPUT == 0 else KINDS[kind].spoil(draw, made)
        if draw.random() < 0.3:
            given = KINDS[kind].spoil(draw, given)
        executed += 1
        error = run_one(kind, given, folder)
        place = error.partition(": ")[0]
        if error and place not in known:
            known.add(place)
            packed = given.pack()
            file = folder / f"{kind}-{hashlib.sha256(packed).hexdigest()[:12]}"
            file.write_bytes(packed)
            print(json.dumps({"error": error, "file": str(file)}), flush=True)
        if now_s >= next_line_s:
            next_line_s = now_s + 1
            print(json.dumps({"executed": executed}), flush=True)
    faulthandler.cancel_dump_traceback_later()
    print(json.dumps({"executed": executed}), flush=True)
    return len(known)


def main() -> int:
    """Run as ``python -m fuzz.rounds KIND FOLDER``."""
    parser = argparse.ArgumentParser(prog="python -m fuzz.rounds", description=__doc__)
    parser.add_argument("kind", choices=sorted(KINDS))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--round-s", type=float, default=_ROUND_S)
    parser.add_argument("--plant", choices=sorted(PLANTED))
    parser.add_argument("--file", type=Path, help="this input alone")
    given = parser.parse_args()
    faulthandler.enable()
    # What is mapped by now depends on the machine: numpy's threads have buffers of their own.
    mapped = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + _MOST_MEMORY_BYTES,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if given.plant:
        PLANTED[given.plant]()
    if given.file:
        faulthandler.dump_traceback_later(given.round_s, exit=True)
        error = run_one(given.kind, Input.unpack(given.file.read_bytes()), given.folder)
        print(json.dumps({"error": error, "file": str(given.file)} if error else {"executed": 1}))
        return 1 if error else 0
    return 1 if rounds(given.kind, given.seed, given.folder, given.seconds, given.round_s) else 0


if __name__ == "__main__":
    sys.exit(main())
