"""Whether the fuzzers find what they are for: faults planted in protocol.h and in Python, each to be found in its turn.

A fault is a change of one passage of protocol.h, in a copy: what is shipped knows nothing of it.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from fuzz import compiled
from fuzz.python_side import Found, run
from fuzz.rounds import PLANTED


class Fault(NamedTuple):
    """``right`` becomes ``wrong``; ``because`` says which check that takes away."""

    because: str
    right: str
    wrong: str


FAULTS: Final = (
    Fault("an index from the hash isn't compared", "|| *series >= s->geometry.series)", ")"),
    Fault("a probe never ends where no slot is empty", "for (uint64_t probe = 0; probe <= mask; probe++)",
          "for (uint64_t probe = 0;; probe++)"),
    Fault("an ordinal isn't folded into the ring", "block_of(s, series) + ordinal % s->geometry.rows * WORD_BYTES);",
          "block_of(s, series) + ordinal * WORD_BYTES);"),
    Fault("stamps aren't folded into their ring", "ordinal % s->geometry.stamp_rows * (STAMP_COUNT",
          "ordinal * (STAMP_COUNT"),
    Fault("a search never gives up on a series that changes", "== taken.revision) ||\n            attempt == MAX_ATTEMPTS)", "== taken.revision))"),
    Fault("a forming row is waited for without end", "attempt <= MAX_ATTEMPTS; attempt++) {\n        *sequence",
          "; attempt++) {\n        *sequence"),
)  # fmt: skip
#: Each was found within two seconds wherever it was tried; a busy machine is given more.
_MOST_S: Final = 30


def headers_with(fault: Fault, folder: Path) -> Path:
    """A copy of the headers with the fault in it.

    Raises:
        ValueError: protocol.h has the passage not just once: the fault must be written anew.
    """
    headers = Path(shutil.copytree(compiled.HEADERS, folder / "headers", ignore=_all_but_headers))
    text = (headers / "protocol.h").read_text(encoding="utf-8")
    if text.count(fault.right) != 1:
        raise ValueError(f"protocol.h has {fault.right!r} {text.count(fault.right)} times")
    (headers / "protocol.h").write_text(text.replace(fault.right, fault.wrong), encoding="utf-8")
    return headers


def _all_but_headers(_: str, names: list[str]) -> set[str]:
    return {name for name in names if not name.endswith(".h")}


def self_check(seed: int) -> Iterator[tuple[str, str, float]]:
    """Plant each fault and look for it: (fault, what was found or empty, seconds)."""
    for fault in FAULTS:
        begin_s = time.monotonic()
        yield fault.because, find_in_protocol(fault, seed), time.monotonic() - begin_s
    for name in PLANTED:
        begin_s = time.monotonic()
        found = find_in_python(name, seed)
        yield f"Python: {name}", found[0].error if found else "", time.monotonic() - begin_s


def find_in_protocol(fault: Fault, seed: int) -> str:
    """Fuzz a protocol with this fault; what was found, or empty."""
    with tempfile.TemporaryDirectory(prefix="chandlery-fuzz-") as name:
        folder = Path(name)
        program = compiled.build(folder, headers_with(fault, folder))
        return compiled.finish(compiled.start(program, folder, _MOST_S, seed), folder).error


def find_in_python(name: str, seed: int) -> list[Found]:
    """Fuzz segments in Python with this fault, until the first find."""
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="chandlery-fuzz-") as folder:
        # An endless operation is told by a deadline: a short one where it is expected.
        round_s = 2.0 if name == "endless" else 20.0
        done = run("segment", Path(folder), seconds=_MOST_S, seed=seed, plant=name, round_s=round_s, first=True)
        return list(done.found)
