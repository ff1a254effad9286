"""Python's face of weak_memory.c, and the sites of protocol.h at which the order of memory can be taken away."""

from __future__ import annotations

import ctypes
import re
from dataclasses import dataclass
from pathlib import Path

from tests.segment_memory.compiling import HEADERS, HERE, PROTOCOL, library

MOST_RUNS = 3_000_000  # a hundred times what the longest scenario needs
LIST_BYTES = 1 << 16
STRONG = re.compile(
    r"\b(load_acquire|store_release|add_release|load_acquire_32|add_release_32|fence_acquire|fence_release)\("
)


@dataclass(frozen=True)
class Site:
    """One place in protocol.h that asks for order, for one kind of word."""

    line: int
    function: str
    access: str
    word: str

    @property
    def labels(self) -> str:
        """The labels on its line, as ``[COUNT] [REVISION]``."""
        return " ".join(re.findall(r"\[[A-Z]+\]", PROTOCOL.read_text().splitlines()[self.line - 1]))

    @property
    def name(self) -> str:
        """What the table of mutations calls it."""
        parts = [self.function, self.access, *([self.word] if self.word != "-" else []), self.labels]
        return " ".join(part for part in parts if part)


@dataclass(frozen=True)
class Outcome:
    """What a scenario came to: the first thing found wrong, or nothing."""

    wrong: str | None
    runs: int
    accepted: int
    refused: int
    exhaustive: bool


class WeakMemory:
    """Scenarios of one writer's history and a reader on a memory of weak order."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        library.explore.restype = ctypes.c_char_p
        library.scenario_name.restype = ctypes.c_char_p
        names: list[str] = []
        while (name := library.scenario_name(len(names))) is not None:
            names.append(name.decode())
        self.at_random = [name for name in names if name.endswith("at_random")]
        self.scenarios = [name for name in names if name not in self.at_random]
        self._names = names

    @classmethod
    def build(cls, folder: Path, headers: Path = HEADERS) -> WeakMemory:
        """Compile with the protocol.h of a folder."""
        return cls(library(HERE / "weak_memory.c", folder / "weak_memory.so", headers))

    def explore(self, scenario: str, *, sample: int = 0, seed: int = 1, most_runs: int = MOST_RUNS) -> Outcome:
        """Every choice of messages; with a sample, so many drawn ones, of rows whose every word tells which it is.

        The seed also is that of a history at random.
        """
        numbers = (ctypes.c_long * 4)()
        wrong = self._library.explore(
            self._names.index(scenario),
            int(sample > 0),
            ctypes.c_long(0 if sample else most_runs),
            ctypes.c_long(sample),
            ctypes.c_uint64(seed),
            numbers,
        )
        runs, accepted, refused, exhaustive = numbers
        return Outcome(wrong.decode() if wrong else None, runs, accepted, refused, bool(exhaustive))

    def wrong(self) -> dict[str, str]:
        """What is found wrong, by scenario."""
        outcomes = {scenario: self.explore(scenario) for scenario in self.scenarios}
        return {scenario: outcome.wrong for scenario, outcome in outcomes.items() if outcome.wrong}

    def sites(self) -> list[Site]:
        """Those that the scenarios explored so far have come by."""
        text = ctypes.create_string_buffer(LIST_BYTES)
        self._library.list_sites(text, LIST_BYTES)
        rows = [line.split() for line in text.value.decode().splitlines()]
        return [Site(int(line), function, access, word) for line, function, access, word in rows]

    def weaken(self, *sites: Site) -> None:
        """Take the order away at these sites alone."""
        self._library.mend_all()
        for site in sites:
            assert self._library.weaken(site.line, site.word.encode())


def lines_that_ask_for_order() -> set[int]:
    """Numbers of the lines in protocol.h, but for the definitions of the accesses."""
    text = PROTOCOL.read_text()
    begin = text[: text.index("/* ---- places ---- */")].count("\n") + 1
    return {
        number
        for number, line in enumerate(text.splitlines(), 1)
        if number > begin and STRONG.search(line) and not line.lstrip().startswith(("* ", "/*"))
    }
