"""Since when candles are an incarnation's to decide, where no position tells how far it has come. Pure.

A worker's pod takes its rings with it, and the positions in them. Whoever comes up in its place, with nobody there to
ask, finds in its assignment alone which candles it must not leave out.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from chandlery.core.assignment import TraderAssignment
from chandlery.operator.planner_standing import Entry, content_digest


def with_since(trader: TraderAssignment, before: Iterable[Entry], wall_ms: int) -> TraderAssignment:
    """The assignment with what it shall say in ``since_ms``, see :func:`since_of`."""
    since_ms = since_of(trader, before, wall_ms)
    return trader if trader.since_ms == since_ms else msgspec.structs.replace(trader, since_ms=since_ms)


def since_of(trader: TraderAssignment, before: Iterable[Entry], wall_ms: int) -> int:
    """What an assignment says in its :attr:`TraderAssignment.since_ms`.

    Args:
        trader: what shall be assigned. before: the Trader's incarnations in its pool as they are assigned, lowest first.
        wall_ms: now, by the wall clock; 0: not known.

    Returns:
        What it says already, once it is active: it stays. The candle at which it takes over. Where nobody can say at
        which, what the same version says elsewhere, for its signals have the same ids. Else now, also of one that was
        assigned by a version that said nothing: it is told with whatever else makes its assignment be written.
    """
    if trader.mode != "active":
        return 0
    known = [one for one in before if one.assignment.uid == trader.uid and one.assignment.mode == "active"]
    for one in known:
        if one.assignment.incarnation == trader.incarnation:
            return one.assignment.since_ms or one.assignment.from_ms or wall_ms
    if trader.from_ms:
        return trader.from_ms
    digest = content_digest(trader)
    return next((one.assignment.since_ms for one in reversed(known) if one.digest == digest), 0) or wall_ms
