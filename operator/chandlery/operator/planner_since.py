"""Since when candles are an incarnation's to decide, where no position tells how far it has come. Pure.

A worker's pod takes its rings with it, and the positions in them. Whoever comes up in its place, with nobody there to
ask, finds in its assignment alone which candles it must not leave out.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import msgspec

from chandlery.core.assignment import TraderAssignment
from chandlery.operator.planner_standing import Entry, content_digest
from chandlery.operator.planner_types import Seen, Verdict


def with_since(
    trader: TraderAssignment, before: Iterable[Entry], wall_ms: int, elsewhere: Seen | None = None
) -> TraderAssignment:
    """The assignment with what it shall say in ``since_ms``, see :func:`since_of`."""
    since_ms = since_of(trader, before, wall_ms, elsewhere)
    return trader if trader.since_ms == since_ms else msgspec.structs.replace(trader, since_ms=since_ms)


def since_of(trader: TraderAssignment, before: Iterable[Entry], wall_ms: int, elsewhere: Seen | None = None) -> int:
    """What an assignment says in its :attr:`TraderAssignment.since_ms`.

    Args:
        trader: what shall be assigned. before: the Trader's incarnations in its pool as they are assigned, lowest first.
        wall_ms: now, by the wall clock; 0: not known.
        elsewhere: what it was last in another pool of the same feed, or before it left this one, where it comes from there.

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
    owned_ms = next((one.assignment.since_ms for one in reversed(known) if one.digest == digest), 0)
    if not owned_ms and elsewhere is not None and (elsewhere.uid, elsewhere.digest) == (trader.uid, digest):
        owned_ms = elsewhere.since_ms
    return owned_ms or wall_ms


def elsewhere_of(seen: Seen | None, pool: str, feed: str) -> Seen | None:
    """What is remembered of a Trader, if that was in another pool of the same feed: there its signals have the same ids.

    One that left this pool and comes back comes from elsewhere too.
    """
    return seen if seen is not None and seen.pool != pool and seen.feed == feed else None


def with_waiting(
    traders: Mapping[str, Seen], verdicts: Mapping[str, Verdict], pools: Collection[str]
) -> dict[str, Seen]:
    """What is remembered, of Traders that run nowhere now too.

    Of candles that close while one may not run none is its own, wherever it may go on. One that has left its pool, and
    waits in another or names one that isn't there, is in none: back in its pool it owns what it owned, as in the other.

    Args:
        pools: names (``namespace/name``) of those that are there.
    """
    after = dict(traders)
    for name, verdict in verdicts.items():
        if verdict.worker is not None or name not in after:
            continue
        seen = after[name]
        if verdict.reason == "NotAllowed":
            after[name] = msgspec.structs.replace(seen, since_ms=0)
        elif seen.pool in pools if verdict.pool is None else "/".join(verdict.pool) != seen.pool:
            after[name] = msgspec.structs.replace(seen, pool="")
    return after


def without_pool(traders: Mapping[str, Seen], gone: Collection[str], pool: str) -> dict[str, Seen]:
    """What is remembered once Traders have left a pool (``namespace/name``) for another: they are in none."""
    left = {name: traders[name] for name in gone if name in traders and traders[name].pool == pool}
    return {**traders, **{name: msgspec.structs.replace(seen, pool="") for name, seen in left.items()}}
