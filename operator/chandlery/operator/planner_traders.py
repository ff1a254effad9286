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
        assignment: what it shall run, with the incarnation of before. With a reason but Suspended, the content
            is that of before too, whatever the manifest says now.
    """

    pool: Key
    assignment: TraderAssignment
    reason: str = ""
    message: str = ""

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
    finding = _first_finding(trader, desired, world)
    old = before.assignment if before is not None and before.pool == pool else None
    if finding is not None:
        if old is not None and finding.reason in KEEPS_THE_OLD and _still_has_its_symbols(old, pool, world):
            return _keep(trader, pool, old, finding.reason, finding.message)
        return Refusal(pool if pool in desired.pools else None, finding.reason, finding.message)
    wanted = _assignment(trader, world, before.assignment if before else None, seen)
    if old is not None and _awaits_approval(trader, wanted, old):
        approval = f'{APPROVE_ANNOTATION}: "{wanted.generation}"'
        message = f"generation {wanted.generation} waits for the annotation {approval}"
        return _keep(trader, pool, old, "AwaitingApproval", message)
    if trader.spec.suspend:
        message = "spec.suspend is true: it keeps its place and decides nothing"
        return Candidate(pool, wanted, "Suspended", message)
    return Candidate(pool, wanted)


def _keep(trader: Trader, pool: Key, old: TraderAssignment, reason: str, message: str) -> Candidate:
    # Suspending takes effect whatever else stands in the manifest.
    kept = msgspec.structs.replace(old, mode=_mode(trader))
    return Candidate(pool, kept, reason, f"{message} (generation {old.generation} stays)")


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


def _assignment(trader: Trader, world: World, old: TraderAssignment | None, seen: Seen | None) -> TraderAssignment:
    """What the Trader's spec says, with the generation of now and the incarnation of before."""
    spec = trader.spec
    source = source_of(trader, world)
    assert not isinstance(source, Finding)
    wanted = TraderAssignment(
        trader=trader.full_name,
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
    digest = content_digest(wanted)
    if old is not None:
        seen = Seen(old.generation, old.incarnation, content_digest(old))
    if seen is None:
        wanted.incarnation = 0
        wanted.generation = trader.metadata.generation or 1
        return wanted
    same = seen.digest == digest
    # Without a cluster nobody counts generations: a changed content is the next one.
    wanted.generation = trader.metadata.generation or seen.generation + (not same)
    wanted.incarnation = seen.incarnation
    return wanted


def _awaits_approval(trader: Trader, wanted: TraderAssignment, old: TraderAssignment) -> bool:
    # Suspending and resuming change no code and no parameter: they need no approval.
    if trader.spec.rollout != "Manual" or content_digest(wanted) == content_digest(old, mode=wanted.mode):
        return False
    return trader.metadata.annotations.get(APPROVE_ANNOTATION) != str(wanted.generation)


def content_digest(assignment: TraderAssignment, *, mode: Mode | None = None) -> str:
    """Digest of what a Trader runs, apart from which generation and incarnation that is (16 hex digits).

    Args:
        mode: taken instead of the assignment's own.
    """
    bare = msgspec.structs.replace(assignment, generation=1, incarnation=1, mode=mode or assignment.mode)
    return hashlib.sha256(wire.encode(bare)).hexdigest()[:16]
