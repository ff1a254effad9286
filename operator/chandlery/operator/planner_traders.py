"""What one Trader's assignment says, and whether the Trader may run at all. Pure."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final

import msgspec

from chandlery.core import assignment as wire
from chandlery.core.assignment import Mode, SeriesRef, TraderAssignment
from chandlery.core.checks import Finding, World, check_pool, check_trader, source_of
from chandlery.core.manifests import Key
from chandlery.core.resources import APPROVE_ANNOTATION, Trader
from chandlery.operator.planner_types import Desired, Seen

#: With one of these, a version of a Trader that runs already is kept: a bad edit stops nothing.
KEEPS_THE_OLD: Final = frozenset({"BadParameter", "UnknownStrategy", "BadStrategy", "BadSource", "UnknownTier"})


@dataclass(frozen=True, slots=True)
class Before:
    """What a Trader's newest assignment was, and the worker that has it."""

    pool: Key
    worker: str
    assignment: TraderAssignment


@dataclass(frozen=True, slots=True)
class Candidate:
    """A Trader that may run.

    Attributes:
        assignment: what it shall run, with the incarnation of before.
        reason, message: ``Suspended``, or why the content is that of before, whatever the manifest says now;
            then ``stays`` is the end of the message.
    """

    pool: Key
    assignment: TraderAssignment
    reason: str = ""
    message: str = ""
    stays: str = ""

    @property
    def series(self) -> frozenset[SeriesRef]:
        """Every series that it reads."""
        return frozenset(self.assignment.series())


@dataclass(frozen=True, slots=True)
class Refusal:
    """A Trader that may not run, and why."""

    pool: Key | None
    reason: str
    message: str


def judge(trader: Trader, desired: Desired, before: Before | None, seen: Seen | None) -> Candidate | Refusal:
    """Decide whether a Trader may run, and what."""
    world = desired.world
    pool = trader.spec.pool.key(trader.namespace)
    refusal_pool = pool if pool in desired.pools else None
    old = before.assignment if before is not None else None
    finding = _first_finding(trader, desired, world)
    if finding is not None:
        reason, message = finding.reason, finding.message
        keep = reason in KEEPS_THE_OLD and before is not None and before.pool == pool
        return (keep and _keep(trader, world, old, reason, message)) or Refusal(refusal_pool, reason, message)
    wanted = _assignment(trader, world)
    last = seen_of(old) if old is not None else seen
    if last is not None:
        _number(wanted, trader, last)
        if _awaits_approval(trader, wanted, last):
            approval = f'{APPROVE_ANNOTATION}: "{wanted.generation}"'
            message = f"generation {wanted.generation} waits for the annotation {approval}"
            return _keep(trader, world, old, "AwaitingApproval", message) or Refusal(pool, "AwaitingApproval", message)
    if trader.spec.suspend:
        message = "spec.suspend is true: it keeps its place and decides nothing"
        return Candidate(pool, wanted, "Suspended", message)
    return Candidate(pool, wanted)


def _keep(trader: Trader, world: World, old: TraderAssignment | None, reason: str, message: str) -> Candidate | None:
    """The version of before, where there is one and its symbols still are."""
    pool = trader.spec.pool.key(trader.namespace)
    if old is None or not _still_has_its_symbols(old, pool, world):
        return None
    # Suspending takes effect whatever else stands in the manifest.
    kept = msgspec.structs.replace(old, mode=_mode(trader))
    return Candidate(pool, kept, reason, message, f" (generation {old.generation} stays)")


def _mode(trader: Trader) -> Mode:
    return "suspended" if trader.spec.suspend else "active"


def _first_finding(trader: Trader, desired: Desired, world: World) -> Finding | None:
    for finding in check_trader(trader, world):
        return finding
    pool = world.pools[trader.spec.pool.key(trader.namespace)]
    for finding in check_pool(pool, world):
        return Finding(finding.reason, (), f"its TraderPool {pool.full_name} can't run: {finding.message}")
    for problem in desired.problems.get(trader.key, ()):
        field = f"{problem.field}: " if problem.field else ""
        return Finding(problem.reason, (), f"{field}{problem.message}")
    return None


def _still_has_its_symbols(old: TraderAssignment, pool: Key, world: World) -> bool:
    feed = world.feeds.get(world.pools[pool].spec.feed.key(pool[0]))
    if feed is None:
        return False
    return feed.spec.symbols == "auto" or all(one.symbol in feed.spec.symbols for one in old.series())


def _assignment(trader: Trader, world: World) -> TraderAssignment:
    """What the Trader's spec says, as if it had never run."""
    spec = trader.spec
    source = source_of(trader, world)
    assert not isinstance(source, Finding)
    return TraderAssignment(
        trader=trader.full_name,
        generation=trader.metadata.generation or 1,
        incarnation=0,
        uid=trader.identity,
        strategy=spec.strategy.name,
        symbols=list(spec.market.symbols),
        interval=spec.market.interval,
        parameters=dict(spec.strategy.parameters),
        source=source,
        informative=spec.market.informative_series(),
        warmup=spec.market.warmup,
        trigger=spec.trigger,
        mode=_mode(trader),
        tier=spec.tier,
        signal_ttl_ms=trader.signal_ttl_ms,
        cooldown_ms=spec.signals.cooldown,
        memory_bytes=spec.resources.memory,
    )


def _number(wanted: TraderAssignment, trader: Trader, last: Seen) -> None:
    """Go on from what ran last."""
    # Without a cluster nobody counts generations: a changed content is the next one.
    changed = last.digest != content_digest(wanted)
    wanted.generation = trader.metadata.generation or last.generation + changed
    wanted.incarnation = last.incarnation


def _awaits_approval(trader: Trader, wanted: TraderAssignment, last: Seen) -> bool:
    if trader.spec.rollout != "Manual" or last.uid != wanted.uid:
        return False
    # Suspending and resuming change no code and no parameter: they need no approval.
    modes: tuple[Mode, ...] = ("active", "suspended")
    if last.digest in {content_digest(wanted, mode=mode) for mode in modes}:
        return False
    return trader.metadata.annotations.get(APPROVE_ANNOTATION) != str(wanted.generation)


def seen_of(old: TraderAssignment) -> Seen:
    """What is remembered of an assignment."""
    return Seen(old.uid, old.generation, old.incarnation, content_digest(old))


def content_digest(assignment: TraderAssignment, *, mode: Mode | None = None) -> str:
    """Digest of what a Trader runs, apart from which generation and incarnation that is (16 hex digits).

    Args:
        mode: taken instead of the assignment's own.
    """
    bare = msgspec.structs.replace(assignment, generation=1, incarnation=1, mode=mode or assignment.mode)
    return hashlib.sha256(wire.encode(bare)).hexdigest()[:16]
