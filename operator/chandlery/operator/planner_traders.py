"""What one Trader's assignment says, and whether the Trader may run at all. Pure."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

import msgspec

from chandlery.core.assignment import Mode, SeriesRef, TraderAssignment
from chandlery.core.checks import (
    UNKNOWN_SYMBOL,
    Finding,
    World,
    check_pool,
    check_trader,
    source_of,
    unknown_symbols_of,
)
from chandlery.core.manifests import Key
from chandlery.core.resources import APPROVE_ANNOTATION, CHANGED_IN_PLACE, MEANWHILE_NOTHING, OF_ITS_POOL, Trader
from chandlery.core.resources.status import MAX_MESSAGE_CHARS
from chandlery.core.transports import Transport
from chandlery.operator.planner_standing import Standing, content_digest
from chandlery.operator.planner_types import Desired, Failed, Seen, Waited

#: With one of these, a version of a Trader that runs already is kept: a bad edit stops nothing. What a Trader may no
#: longer do (``NotAllowed``), or do without (its pool, its feed), stops it.
KEEPS_THE_OLD: Final = frozenset(
    {"BadManifest", "BadParameter", "UnknownStrategy", "BadStrategy", "BadSource", "UnknownTier", "UnknownSymbol"}
)
#: The end of the message of one that awaits its approval and runs nowhere.
RUNS_NOWHERE: Final = "; no version of it runs until then"


@dataclass(frozen=True, slots=True)
class Candidate:
    """A Trader that may run.

    Attributes:
        assignment: what it shall run, with the incarnation of before.
        reason, message: ``Suspended``, or why the content is that of before, whatever the manifest says now;
            then ``stays`` is the end of the message. failed: the version of now, where it has been tried.
        suspended: who wants that it decides nothing, in words; empty: nobody.
    """

    pool: Key
    assignment: TraderAssignment
    reason: str = ""
    message: str = ""
    stays: str = ""
    failed: Failed | None = None
    suspended: str = ""

    @property
    def told(self) -> str:
        """``message`` and ``stays``, of a status's length: what is too long loses its middle, not what goes on."""
        return self.message[: MAX_MESSAGE_CHARS - len(self.stays)] + self.stays

    @property
    def told_without_place(self) -> str:
        """``message`` where the version of before has lost its place."""
        return self.message + (RUNS_NOWHERE if self.reason == "AwaitingApproval" else "")

    @property
    def series(self) -> frozenset[SeriesRef]:
        """Every series that it reads."""
        return frozenset(self.assignment.series())


@dataclass(frozen=True, slots=True)
class Refusal:
    """A Trader that may not run, and why.

    Attributes:
        is_of_newest: what is wrong is wrong with its newest version alone.
    """

    pool: Key | None
    reason: str
    message: str
    is_of_newest: bool = False


def judge(trader: Trader, desired: Desired, standing: Standing, seen: Seen | None) -> Candidate | Refusal:
    """Decide whether a Trader may run, and what."""
    world = desired.world
    pool = trader.spec.pool.key(trader.namespace)
    refusal_pool = pool if pool in desired.pools else None
    old = standing.newest.assignment if standing.newest is not None else None
    finding = _first_finding(trader, desired, world)
    if finding is not None:
        reason, message = finding.reason, finding.message
        before = _version_before(standing, desired.unknown_of(trader))
        is_of_newest = _leaves_the_old(finding, before)
        keep = _keep(trader, world, before, reason, message) if is_of_newest else None
        return keep or Refusal(refusal_pool, reason, message, is_of_newest)
    if (kept := _keep_for_its_symbols(trader, desired, standing)) is not None:
        return kept
    wanted = _assignment(trader, world)
    last = seen_of(old) if old is not None else seen
    waited = desired.waited.get(trader.key)
    if last is None and waited is not None and (message := _goes_on_waiting(trader, wanted.generation, waited)):
        return Refusal(pool, "AwaitingApproval", message + RUNS_NOWHERE)
    wanted.transport = _transport(wanted, world.pools[pool].spec.transport, standing, last)
    if last is not None:
        _number(wanted, trader, last)
        known = {last.digest, *(one.digest for one in standing.entries)}
        message = _awaits_approval(trader, wanted, known, standing, last) if last.uid == wanted.uid else ""
        if message:
            # Where it runs nowhere a digest is all that is left of the version before.
            nowhere = Refusal(pool, "AwaitingApproval", message + RUNS_NOWHERE)
            return _keep(trader, world, old, "AwaitingApproval", message) or nowhere
    failed, decider = standing.failed, standing.decider
    # What failed was to decide: suspended meanwhile, it is the same version still.
    is_same = failed is not None and failed.digest == content_digest(wanted, mode="active")
    tried = is_same and not standing.move_failed
    # Also while the old one only restarts: what is there no more when that fails could not be gone back to.
    if failed is not None and tried and decider is not None and decider.failure() is None:
        return _keep_before(trader, world, decider.assignment, failed, wanted.generation)
    if said := _suspended(trader, world):
        return Candidate(pool, wanted, "Suspended", f"{said}: it keeps its place and decides nothing", suspended=said)
    return Candidate(pool, wanted)


def _version_before(standing: Standing, unknown: Collection[str]) -> TraderAssignment | None:
    """The version to keep where the newest may not run: the newest that was assigned, as far as its source has its symbols.

    A successor without them stands by for ever: then it is what decides.
    """
    if standing.newest is None:
        return None
    newest, decider = standing.newest.assignment, standing.decider
    assert decider is not None
    waits_in_vain = newest.mode == "standby" and unknown_symbols_of(newest.series(), unknown)
    return decider.assignment if waits_in_vain else newest


def _keep_for_its_symbols(trader: Trader, desired: Desired, standing: Standing) -> Candidate | None:
    """The version of before, where the source hasn't the symbols of the newest one, and has those of that.

    None: it has the newest one's, or of no version all of them. Then the newest one is to run: should its symbols come
    to be, it is there; who tells of it says what it lacks.
    """
    unknown = desired.unknown_of(trader)
    missing = unknown_symbols_of(trader.spec.market.series(), unknown)
    before = _version_before(standing, unknown) if missing else None
    if before is None or unknown_symbols_of(before.series(), unknown):
        return None
    return _keep(trader, desired.world, before, UNKNOWN_SYMBOL, missing)


def _leaves_the_old(finding: Finding, old: TraderAssignment | None) -> bool:
    """Whether what is wrong is wrong with the newest version alone."""
    # A source that the pool takes from nobody, in a Trader that has run without one: that one may run on.
    source_alone = finding.reason == "NotAllowed" and "source" in finding.path and old is not None and not old.source
    return finding.reason in KEEPS_THE_OLD or source_alone


def _keep_before(trader: Trader, world: World, old: TraderAssignment, failed: Failed, generation: int) -> Candidate:
    message = f"generation {generation} failed before it took over: {failed.message or failed.reason}"
    kept = msgspec.structs.replace(old, mode=_mode(trader, world))
    said = _suspended(trader, world)
    stays = (
        f" (generation {old.generation} goes on; mend generation {generation} and apply it again, "
        f"or apply what generation {old.generation} was){asleep(said)}"
    )
    return Candidate(trader.spec.pool.key(trader.namespace), kept, failed.reason, message, stays, failed, said)


def _keep(trader: Trader, world: World, old: TraderAssignment | None, reason: str, message: str) -> Candidate | None:
    """The version of before, where there is one and its symbols still are."""
    pool = trader.spec.pool.key(trader.namespace)
    if old is None or not _still_has_its_symbols(old, pool, world):
        return None
    # Suspending takes effect whatever else stands in the manifest.
    kept = msgspec.structs.replace(old, mode=_mode(trader, world))
    said = _suspended(trader, world)
    stays = f" (generation {old.generation} stays){asleep(said)}"
    return Candidate(pool, kept, reason, message, stays, suspended=said)


def asleep(suspended: str) -> str:
    """The end of the message of a version that is kept: that it decides nothing, where somebody wants that."""
    return f"{MEANWHILE_NOTHING}{suspended}" if suspended else ""


def _mode(trader: Trader, world: World) -> Mode:
    return "suspended" if _suspended(trader, world) else "active"


def _suspended(trader: Trader, world: World) -> str:
    """Who wants that a Trader decides nothing: itself, or its pool, for all that it runs; empty: nobody."""
    pool = world.pools[trader.spec.pool.key(trader.namespace)]
    if not pool.spec.suspend:
        return "spec.suspend is true" if trader.spec.suspend else ""
    of_pool = f"{OF_ITS_POOL} {pool.full_name}"
    return f"spec.suspend is true, and that {of_pool} too" if trader.spec.suspend else f"spec.suspend {of_pool} is true"


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
        transport=spec.transport,
        mode=_mode(trader, world),
        tier=spec.tier,
        signal_ttl_ms=trader.signal_ttl_ms,
        cooldown_ms=spec.signals.cooldown,
        memory_bytes=spec.resources.memory,
    )


def _transport(wanted: TraderAssignment, of_pool: Transport, standing: Standing, last: Seen | None) -> Transport | None:
    """How an assignment says by what candles reach its Trader.

    Where that is what its pool has anyway there are two ways to say it. The one in which it runs is kept: saying it
    otherwise changes nothing that would be worth another incarnation. Else it is left out, so that workers of an image
    that doesn't know the field take the assignment.
    """
    effective = wanted.transport or of_pool
    ways: tuple[Transport | None, ...] = (None, effective) if effective == of_pool else (effective,)
    for entry in reversed(standing.entries):
        if entry.assignment.transport in ways:
            return entry.assignment.transport
    for way in ways:  # it runs nowhere now, and what is remembered is a digest
        said = msgspec.structs.replace(wanted, transport=way)
        if last is not None and last.digest == content_digest(said):
            return way
    return ways[0]


def _number(wanted: TraderAssignment, trader: Trader, last: Seen) -> None:
    """Go on from what ran last."""
    # Without a cluster nobody counts generations: a changed content is the next one.
    changed = last.digest != content_digest(wanted)
    wanted.generation = trader.metadata.generation or last.generation + changed
    wanted.incarnation = last.incarnation


def _awaits_approval(trader: Trader, wanted: TraderAssignment, known: set[str], standing: Standing, last: Seen) -> str:
    """What is waited for before a change may run; empty: nothing."""
    if trader.spec.rollout != "Manual":
        return ""
    # Suspending and resuming change no code and no parameter, nor does going back to what runs: no approval needed.
    modes: tuple[Mode, ...] = ("active", "suspended")
    if known & {content_digest(wanted, mode=mode) for mode in modes}:
        return ""
    of_now = [one.assignment for one in standing.entries if one.assignment.generation == wanted.generation]
    named = trader.spec.strategy.source
    # Nothing else changes what a generation holds.
    changed_while_nowhere = not of_now and last.generation == wanted.generation
    if named is not None and (changed_while_nowhere or any(one.source != wanted.source for one in of_now)):
        return f"{_changed_in_place(trader, wanted.generation)}, or put back what it held"
    return _unapproved(trader, wanted.generation)


def _goes_on_waiting(trader: Trader, generation: int, waited: Waited) -> str:
    """What a Trader waits for of whose version before only its status tells, that it waits; empty: nothing."""
    if trader.spec.rollout != "Manual":
        return ""
    if (
        trader.spec.strategy.source is not None
        and waited.generation == generation
        and CHANGED_IN_PLACE in waited.message
    ):
        # What the ConfigMap held is forgotten: putting it back helps no more.
        return _changed_in_place(trader, generation)
    return _unapproved(trader, generation)


def _changed_in_place(trader: Trader, generation: int) -> str:
    named = trader.spec.strategy.source
    assert named is not None
    # A ConfigMap's text is no part of a generation: whoever approved this one had seen another text.
    return (
        f"ConfigMap {trader.namespace}/{named.config_map_ref.name} {CHANGED_IN_PLACE}, which no approval of generation "
        f"{generation} covers: give what it holds now a ConfigMap of a new name and apply the Trader with that"
    )


def _unapproved(trader: Trader, generation: int) -> str:
    if trader.metadata.annotations.get(APPROVE_ANNOTATION) == str(generation):
        return ""
    return f'generation {generation} waits for the annotation {APPROVE_ANNOTATION}: "{generation}"'


def seen_of(old: TraderAssignment, pool: str = "", feed: str = "") -> Seen:
    """What is remembered of an assignment, in a pool and by a feed where these are known."""
    return Seen(old.uid, old.generation, old.incarnation, content_digest(old), old.since_ms, pool, feed)
