"""The assignment a worker holds: taken in, refused, kept over a restart. Pure but for one small file."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import msgspec

from chandlery.core.assignment import (
    MOST_INCARNATIONS,
    MOST_TRADERS,
    Assignment,
    Mode,
    TraderAssignment,
    incarnation_in,
    trader_of,
    unsound,
)

log = logging.getLogger("chandlery.feed.assignments")

Verdict = Literal["taken", "same", "lower", "conflict", "invalid"]


class Fence(msgspec.Struct, frozen=True):
    """Which signals of an incarnation may pass: while active, for these series, on candles of its own.

    Attributes:
        incarnation: the one that may signal. mode: only ``active`` may.
        symbols, interval: what it may decide on.
        from_ms, until_ms: open times of the candles that it decides. Until its process has acknowledged ``until_ms``
            it may have decided later ones: what it signalled on them before is its own decision too (see RingDrain).
    """

    incarnation: int
    mode: Mode
    symbols: frozenset[str]
    interval: str
    from_ms: int = 0
    until_ms: int | None = None

    @classmethod
    def of(cls, trader: TraderAssignment) -> Fence:
        """The fence of an assigned incarnation."""
        symbols = frozenset(trader.symbols)
        return cls(trader.incarnation, trader.mode, symbols, trader.interval, trader.from_ms, trader.until_ms)


class Kept(msgspec.Struct):
    """What survives a restart of the feed (``rings_dir/assignment.json``).

    Attributes:
        bells: doorbell index by incarnation (``namespace/name@3``, as all keys here).
        draining: fences of incarnations that are assigned no more and may have left signals in their rings.
    """

    assignment: Assignment
    bells: dict[str, int]
    draining: dict[str, Fence] = {}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of an assignment that was offered, and why in one line."""

    verdict: Verdict
    message: str = ""


_decode_kept: Final = msgspec.json.Decoder(Kept).decode


class AssignmentStore:
    """Takes assignments in by their sequence and remembers the newest.

    Args:
        worker: an assignment for another worker is refused.
        path: where the newest one is kept; written by rename, so it is whole at any moment.
    """

    def __init__(self, worker: str, path: Path) -> None:
        self._worker = worker
        self._path = path
        self.current: Assignment | None = None
        self.bells: dict[str, int] = {}
        self.draining: dict[str, Fence] = {}
        #: Fences of every incarnation whose ring is drained: the assigned ones and those that left.
        self.fences: dict[str, Fence] = {}

    @property
    def sequence(self) -> int:
        """Sequence of the newest assignment, 0 if there is none."""
        return self.current.sequence if self.current else 0

    @property
    def hash(self) -> str:
        """Hash of the newest assignment, empty if there is none."""
        return self.current.hash if self.current else ""

    def restore(self) -> None:
        """Come back with what was kept; a file that can't be used is left aside (the mount brings it again)."""
        try:
            kept = _decode_kept(self._path.read_bytes())
        except FileNotFoundError:
            return
        except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
            log.warning("kept assignment unusable", extra={"path": str(self._path), "reason": str(error)})
            return
        problem = self._problem(kept.assignment)
        if problem:
            log.warning("kept assignment unusable", extra={"path": str(self._path), "reason": problem})
            return
        # An earlier version kept fences by Trader.
        draining = {key if "@" in key else f"{key}@{fence.incarnation}": fence for key, fence in kept.draining.items()}
        self._set(Kept(kept.assignment, self._ring_order(kept.assignment, kept.bells), draining))

    def offer(self, assignment: Assignment) -> Outcome:
        """Take an assignment in if it is newer than the one held; else say why not.

        Raises:
            OSError: it could not be kept; then it isn't taken in either.
        """
        problem = self._problem(assignment)
        if problem:
            return Outcome("invalid", problem)
        if self.current is not None:
            if assignment.sequence < self.sequence:
                return Outcome("lower", f"sequence {assignment.sequence} is lower than {self.sequence}")
            if assignment.sequence == self.sequence:
                if assignment.hash == self.hash:
                    return Outcome("same")
                return Outcome("conflict", f"sequence {assignment.sequence} was taken with another content")
        self._take(assignment)
        return Outcome("taken")

    def _set(self, kept: Kept) -> None:
        self.current, self.bells, self.draining = kept.assignment, kept.bells, kept.draining
        self.fences = {**kept.draining, **{trader.key: Fence.of(trader) for trader in kept.assignment.traders}}

    def forget(self, key: str) -> None:
        """An incarnation that left has no ring any more: nothing of it can come.

        Where that can't be written down (traders can fill the folder) it stays, to be forgotten at the next call.
        """
        if key in self.draining and self.current is not None:
            left = {other: fence for other, fence in self.draining.items() if other != key}
            kept = Kept(self.current, self.bells, left)
            try:
                self._write(kept)
            except OSError as error:
                log.debug("departure not kept", extra={"trader": key, "reason": str(error)})
                return
            self._set(kept)

    def _take(self, assignment: Assignment) -> None:
        staying = {trader.key for trader in assignment.traders}
        draining = {key: fence for key, fence in self.fences.items() if key not in staying}
        kept = Kept(assignment, self._ring_order(assignment, self.bells), draining)
        self._write(kept)
        self._set(kept)

    def _write(self, kept: Kept) -> None:
        temporary = self._path.with_suffix(".json.new")
        temporary.write_bytes(msgspec.json.encode(kept))
        os.replace(temporary, self._path)

    def _problem(self, assignment: Assignment) -> str:
        """Why an assignment can't be taken at all; empty when it can."""
        names = Counter(trader.trader for trader in assignment.traders)
        if wrong := unsound(assignment, self._worker):
            return wrong
        if len({trader.key for trader in assignment.traders}) != len(assignment.traders):
            return "an incarnation stands in it twice"
        if max(names.values(), default=0) > 2:
            return f"{max(names, key=lambda name: names[name])} stands in it {max(names.values())} times"
        if len(assignment.traders) > MOST_INCARNATIONS:
            return f"{len(assignment.traders)} incarnations; a worker has doorbells for {MOST_INCARNATIONS}"
        if len(names) > MOST_TRADERS:
            return f"{len(names)} traders; a worker has room for {MOST_TRADERS}, and beside them for successors"
        for name in names:
            if not _is_trader_name(name):
                return f"{name!r} is no trader name: write namespace/name"
        return ""

    @staticmethod
    def _ring_order(assignment: Assignment, before: dict[str, int]) -> dict[str, int]:
        """Doorbell of each incarnation: the one it had, else the lowest free one."""
        keys = [trader.key for trader in assignment.traders]
        bells: dict[str, int] = {}
        for key in keys:
            bell = before.get(key, -1)
            if 0 <= bell < MOST_INCARNATIONS and bell not in bells.values():
                bells[key] = bell
        free = iter(sorted(set(range(MOST_INCARNATIONS)) - set(bells.values())))
        return {key: bells[key] if key in bells else next(free) for key in keys}

    def shown(self, keys: Iterable[str]) -> dict[str, str]:
        """Names for people: the Trader's for its first incarnation here, the key for every other one."""
        assigned = {} if self.current is None else {trader.key: trader for trader in self.current.traders}
        # The assigned ones first: what has left takes no name from what is there.
        ordered = sorted(keys, key=lambda key: (key not in assigned, incarnation_in(key)))
        names: dict[str, str] = {}
        for key in ordered:
            names.setdefault(trader_of(key), key)
        return {key: trader if names[trader := trader_of(key)] == key else key for key in ordered}


def _is_trader_name(name: str) -> bool:
    """``namespace/name`` that is safe as part of a file name."""
    namespace, slash, rest = name.partition("/")
    return bool(
        slash
        and namespace
        and rest
        and len(name) <= 200
        and all(part.replace("-", "").replace(".", "").replace("_", "").isalnum() for part in (namespace, rest))
        and not rest.startswith(".")
        and not namespace.startswith(".")
    )
