"""Planning one pool at a time: what the planner is given from the cache, and what must be remembered between. Pure.

The planner plans whatever it is given; given one pool with its Traders it plans that pool. Its memory is one for all
pools: a Trader that changes its pool goes on counting its incarnations.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import msgspec

from chandlery.core.assignment import Assignment, TraderAssignment, TraderStatus, content_hash
from chandlery.core.checks import CatalogueEntry, Finding, check_strategy
from chandlery.core.errors import InputError
from chandlery.core.intervals import parse_interval
from chandlery.core.manifests import Key, Problem
from chandlery.core.quantities import format_quantity
from chandlery.core.resources import MarketFeed, Trader, TraderPool
from chandlery.core.resources.status import MAX_MESSAGE_CHARS
from chandlery.core.wording import path_text
from chandlery.operator.cache import Cache, Held
from chandlery.operator.children.workers import traders_bytes
from chandlery.operator.planner import (
    Current,
    Delays,
    Desired,
    FeedPlan,
    Memory,
    PoolPlan,
    Verdict,
    WorkerNow,
    assigned_before,
    plan,
)
from chandlery.operator.planner_since import without_pool
from chandlery.operator.planner_standing import has_known_intervals, told_of
from chandlery.operator.planner_types import Waited
from chandlery.operator.standing_in import incarnations_of, stand_in, told_of_unread, with_sources_of

#: An assignment travels in a ConfigMap, which holds 1 MiB: one Trader's parameters must not take it from the others.
MOST_PARAMETER_BYTES: Final = 16 * 1024
_MEBIBYTE: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Planned:
    """One pool's plan.

    Attributes:
        pool: None where there is no such pool (its Traders have verdicts all the same). Where there is no feed its
            workers are those that are there, with what is left to them: nothing is to be made or to go.
        left: what is left to the workers of a pool that is there and can't be read. Neither names one to which nothing
            is to be told.
        again_ms: when a delay passes, None: none runs.
    """

    pool: PoolPlan | None
    verdicts: Mapping[str, Verdict]
    again_ms: int | None
    left: Mapping[str, Assignment] = field(default_factory=dict)


class PoolPlanner:
    """Plans pools, one at a time.

    Args:
        cache: resources as seen now.
    """

    def __init__(self, cache: Cache, delays: Delays | None = None) -> None:
        self._cache = cache
        self._delays = delays or Delays()
        self._memory = Memory()
        self._asked: dict[Key, FeedPlan] = {}
        self._planned: set[Key] = set()

    def adopt(self, assigned: Iterable[tuple[Key, Assignment]]) -> None:
        """Begin with what workers are assigned, by their pools: a Trader may have got another pool while nobody planned.

        A Trader that can't be read is held as its workers have it. To be called before the first plan: whichever pool is
        planned first finds what the others know.
        """
        feeds = {held.key: held.feed for held in self._cache.all_of(TraderPool.KIND)}
        ours = [(key, one) for key, one in assigned if key in feeds]
        self._memory = assigned_before((key, feeds[key] or ("", ""), one) for key, one in ours)
        running = incarnations_of(one for _, one in ours)
        for held in [one for one in self._cache.all_of(Trader.KIND) if one.resource is None and one.uid in running]:
            if (trader := stand_in(held, running[held.uid])) is not None:
                self._cache.stand_in(held.uid, trader)

    def plan(
        self,
        key: Key,
        workers: Mapping[str, WorkerNow],
        *,
        configmaps: Mapping[Key, Mapping[str, str]],
        namespaces: Mapping[str, Mapping[str, str]],
        catalogue: Collection[CatalogueEntry] | None,
        unknown_symbols: Collection[str] = (),
        now_ms: int,
        wall_ms: int = 0,
    ) -> Planned:
        """Plan one pool.

        Args:
            workers: the pool's workers as they are. configmaps: data of those that its Traders name.
            namespaces: labels by namespace. catalogue: of the pool's workers; None: not known, so not checked.
            unknown_symbols: what the source of the pool's feed says it doesn't have.
            now_ms, wall_ms: see :func:`plan`.
        """
        pools: dict[Key, TraderPool] = self._sound(TraderPool)
        mine = [held for held in self._cache.traders_of(key) if isinstance(held.resource, Trader)]
        traders = {held.key: held.resource for held in mine if isinstance(held.resource, Trader)}
        there = key in pools
        desired = Desired(
            feeds=self._sound(MarketFeed),
            # All of them where the named one isn't there: the message says what is near.
            pools={key: pools[key]} if there else pools,
            traders=traders,
            configmaps=with_sources_of(mine, configmaps),
            namespaces=namespaces,
            problems=_problems(mine, catalogue, pools.get(key)),
            unknown_symbols={pools[key].spec.feed.key(key[0]): unknown_symbols} if there else {},
            waited={held.key: waited for held in mine if (waited := _waited(held)) is not None},
            delays=self._delays,
            unreadable=self._unreadable(),
        )
        made = plan(desired, Current({key: workers} if there else {}, self._memory), now_ms=now_ms, wall_ms=wall_ms)
        if not there:
            left = self._left_unread(key, workers)
            self._ask_on(key, workers, left)
            return Planned(None, _told(mine, _with_kept(key, made.verdicts, left)), None, left)
        self._remember(made.memory, pools[key].full_name, workers, made.verdicts)
        self._planned.add(key)
        planned, verdicts = made.pools[key], made.verdicts
        if planned.feed is None:
            self._asked.pop(key, None)
            if planned.reason == "UnknownFeed":
                stay = self._stay_without_feed(pools[key], made.verdicts)
                left = _left(workers, stay)
                planned, verdicts = replace(planned, workers=left), _with_kept(key, verdicts, left)
        else:
            self._asked[key] = made.feeds[planned.feed]
        return Planned(planned, _told(mine, verdicts), made.plan_again_ms)

    def asked_of(self, feed: MarketFeed) -> FeedPlan:
        """What the feed lists itself and all planned pools ask of it together."""
        asked = [one for one in self._asked.values() if one.feed.key == feed.key]
        symbols = {symbol for one in asked for symbol in one.symbols}
        if feed.spec.symbols != "auto":
            symbols |= set(feed.spec.symbols)
        intervals = {interval for one in asked for interval in one.intervals} | set(feed.spec.intervals)
        return FeedPlan(feed, tuple(sorted(symbols)), by_length(intervals))

    @property
    def memory(self) -> Memory:
        """What the next plan finds again."""
        return self._memory

    def feed_of(self, key: Key) -> Key | None:
        """The feed that a planned pool asks something of; None: none."""
        asked = self._asked.get(key)
        return asked.feed.key if asked is not None else None

    def has_planned(self, key: Key) -> bool:
        """Whether a pool has been planned, so that it is known what it asks for."""
        return key in self._planned

    def forget(self, key: Key) -> None:
        """A pool is gone."""
        self._asked.pop(key, None)
        self._planned.discard(key)

    def _sound(self, kind: type[Any]) -> dict[Key, Any]:
        return {held.key: held.resource for held in self._cache.all_of(kind.KIND) if isinstance(held.resource, kind)}

    def _unreadable(self) -> dict[tuple[str, Key], str]:
        kinds = (MarketFeed.KIND, TraderPool.KIND)
        held = (one for kind in kinds for one in self._cache.all_of(kind) if one.resource is None)
        return {(one.kind, one.key): one.problem for one in held}

    def _remember(
        self, memory: Memory, pool: str, workers: Mapping[str, WorkerNow], verdicts: Mapping[str, Verdict]
    ) -> None:
        # What the plan of one pool says nothing of stays, as long as it is there.
        before = self._memory
        others = {name: since for name, since in before.surplus_since_ms.items() if name != pool}
        since = {name: one for name, one in before.taking_over_since_ms.items() if self._is_elsewhere(name, verdicts)}
        failed = {name: one for name, one in before.failed.items() if self._is_elsewhere(name, verdicts)}
        there = {trader.trader for worker in workers.values() for trader in worker.assignment.traders}
        left = [name for name in there if self._is_elsewhere(name, verdicts)]
        self._memory = Memory(
            {**others, **memory.surplus_since_ms},
            memory.sequences,
            without_pool(memory.traders, left, pool) if left else memory.traders,
            {**since, **memory.taking_over_since_ms},
            {**failed, **memory.failed},
        )

    def _stay_without_feed(self, pool: TraderPool, verdicts: Mapping[str, Verdict]) -> dict[str, str]:
        """Uids of a pool's Traders that run on without a feed, by Trader: none, but where the feed is there and can't be read.

        That one stops nothing, but whatever else stops a Trader at once does.
        """
        held = self._cache.get(MarketFeed.KIND, pool.spec.feed.key(pool.namespace))
        if held is None or pool.spec.suspend:
            return {}
        may_run = {name for name, one in verdicts.items() if one.reason == "UnknownFeed" or one.is_of_newest}
        traders: Iterable[Trader] = self._sound(Trader).values()
        return {one.full_name: one.identity for one in traders if one.full_name in may_run and not one.spec.suspend}

    def _left_unread(self, key: Key, workers: Mapping[str, WorkerNow]) -> dict[str, Assignment]:
        """What is left to the workers of a pool that is there and can't be read: all but what stops a Trader at once, as far
        as that can be told."""
        pool = self._cache.get(TraderPool.KIND, key)
        if pool is None:
            return {}
        traders = [] if pool.is_suspended else self._cache.traders_of(key)
        return _left(workers, {"/".join(held.key): held.uid for held in traders if not held.is_suspended})

    def _ask_on(self, key: Key, workers: Mapping[str, WorkerNow], left: Mapping[str, Assignment]) -> None:
        """Ask a feed for what runs on in a pool that can't be read."""
        self._asked.pop(key, None)
        held = self._cache.get(TraderPool.KIND, key)
        if held is None or held.feed is None:
            return
        self._planned.add(key)
        feed = self._sound(MarketFeed).get(held.feed)
        running = (trader for assignment in left.values() for trader in assignment.traders)
        series = {one for trader in filter(has_known_intervals, running) for one in trader.series()}
        if workers.keys() - left.keys():  # any of the pool's Traders may run there
            traders = (held.resource for held in self._cache.traders_of(key))
            series |= {one for each in traders if isinstance(each, Trader) for one in each.spec.market.series()}
        if feed is not None and series:
            symbols, intervals = {one.symbol for one in series}, {one.interval for one in series}
            self._asked[key] = FeedPlan(feed, tuple(sorted(symbols)), by_length(intervals))

    def _is_elsewhere(self, trader: str, verdicts: Mapping[str, Verdict]) -> bool:
        namespace, _, name = trader.partition("/")
        return trader not in verdicts and self._cache.get(Trader.KIND, (namespace, name)) is not None


def _left(workers: Mapping[str, WorkerNow], stay: Mapping[str, str]) -> dict[str, Assignment]:
    """What is left to workers where nothing can be planned: of their Traders those that stay, by their uids.

    What a worker has of which nothing is kept that one could go by may be just what stays: it is left out, as long as
    any does.
    """
    known = [now.assignment for now in workers.values()]
    staying = [one for each in known for one in each.traders if stay.get(one.trader) == one.uid and _decides(one)]
    newest = {one.trader: one for one in sorted(staying, key=lambda one: one.incarnation)}
    return {name: _left_of(now, stay, newest) for name, now in workers.items() if now.assignment.sequence or not stay}


def _left_of(now: WorkerNow, stay: Mapping[str, str], newest: Mapping[str, TraderAssignment]) -> Assignment:
    """A worker's assignment with what stays of its Traders; the very object where that is all."""
    before, traders = now.assignment, list[TraderAssignment]()
    for one in before.traders:
        told = told_of(now.status, one.trader, one.incarnation)
        settled = _settled(one, newest.get(one.trader), told) if stay.get(one.trader) == one.uid else None
        if settled is not None:
            traders.append(settled)
    if traders == before.traders:
        return before
    return Assignment(before.worker, before.sequence + 1, content_hash(traders), traders)


def _settled(
    one: TraderAssignment, newest: TraderAssignment | None, told: TraderStatus | None
) -> TraderAssignment | None:
    """An incarnation where nobody takes its Trader's change any further; None: it goes.

    Args:
        newest: the Trader's highest that decides; None: it may be where nobody knows. told: by its worker of this one.
    """
    if newest is None:
        return one
    if one.incarnation == newest.incarnation:  # to whatever end it was told: nobody is there to follow it
        return msgspec.structs.replace(one, until_ms=None)
    if not _decides(one) or one.until_ms is None:
        return None
    retired = told is not None and told.state == "Retired" and told.until_ms == one.until_ms
    return None if retired and one.until_ms >= newest.from_ms else one


def _decides(trader: TraderAssignment) -> bool:
    return trader.mode != "standby"


def _with_kept(pool: Key, verdicts: Mapping[str, Verdict], left: Mapping[str, Assignment]) -> Mapping[str, Verdict]:
    """Verdicts that say of what is left to workers that it runs on there."""
    kept = dict(verdicts)
    known = [(worker, one) for worker, each in left.items() for one in each.traders if one.trader in verdicts]
    entries = [(worker, one) for worker, one in known if _decides(one)]
    # Of two the one before only finishes what is its own.
    for worker, trader in sorted(entries, key=lambda each: each[1].incarnation):
        verdict, stays = verdicts[trader.trader], f" (generation {trader.generation} stays)"
        kept[trader.trader] = replace(
            verdict,
            worker=worker,
            pool=pool,
            message=verdict.message[: MAX_MESSAGE_CHARS - len(stays)] + stays,
            generation=trader.generation,
            incarnation=trader.incarnation,
            keeps=True,
        )
    return kept


def _told(held: Iterable[Held], verdicts: Mapping[str, Verdict]) -> Mapping[str, Verdict]:
    """Verdicts that say of what can't be read that it can't."""
    unread = {"/".join(one.key): one.problem for one in held if one.problem}
    return {name: told_of_unread(one, unread[name]) if name in unread else one for name, one in verdicts.items()}


def _waited(held: Held) -> Waited | None:
    """What a Trader's status says of an approval that it waits for; None: of none."""
    generation, conditions = held.status.get("observedGeneration"), held.status.get("conditions")
    if not isinstance(generation, int) or not isinstance(conditions, list):
        return None
    said = (one.get("message") for one in conditions if one.get("reason") == "AwaitingApproval")
    return next((Waited(generation, str(message or "")) for message in said), None)


def _problems(
    held: Iterable[Held], catalogue: Collection[CatalogueEntry] | None, pool: TraderPool | None
) -> dict[Key, list[Problem]]:
    found: dict[Key, list[Problem]] = {}
    room_bytes = traders_bytes(pool) if pool is not None else None
    for one in held:
        trader = one.resource
        assert isinstance(trader, Trader)
        if one.is_stand_in:
            # It is enough to keep what runs, and no Trader to begin with.
            found[trader.key] = [Problem("", 0, 0, trader.KIND, *trader.key, "", one.problem, "BadManifest")]
            continue
        if pool is not None and room_bytes is not None and trader.spec.resources.memory > room_bytes:
            message = (
                f"{format_quantity(trader.spec.resources.memory)} is more than all traders of a worker of TraderPool "
                f"{pool.full_name} have together ({format_quantity(room_bytes // _MEBIBYTE * _MEBIBYTE)}): lower it, or "
                f"raise the pool's spec.tradersPerWorker, or resources.limits.memory of the container traders in its "
                f"spec.podTemplate"
            )
            problem = Problem("", 0, 0, trader.KIND, *trader.key, "spec.resources.memory", message, "BadParameter")
            found.setdefault(trader.key, []).append(problem)
        size = len(msgspec.json.encode(trader.spec.strategy.parameters))
        if size > MOST_PARAMETER_BYTES:
            message = f"the parameters have {size} bytes; {MOST_PARAMETER_BYTES} are the most"
            problem = Problem("", 0, 0, trader.KIND, *trader.key, "spec.strategy.parameters", message, "BadParameter")
            found.setdefault(trader.key, []).append(problem)
        for finding in _findings(trader, catalogue) if catalogue is not None else ():
            problem = Problem(
                "", 0, 0, trader.KIND, *trader.key, path_text(finding.path), finding.message, finding.reason
            )
            found.setdefault(trader.key, []).append(problem)
    return found


def _findings(trader: Trader, catalogue: Collection[CatalogueEntry]) -> list[Finding]:
    """What the catalogue says against a Trader; an entry that can't be read is the finding of who names it, alone."""
    try:
        return list(check_strategy(trader, [entry for entry in catalogue if isinstance(entry.get("name"), str)]))
    except InputError as error:
        return [Finding("BadStrategy", ("spec", "strategy", "name"), str(error))]


def by_length(intervals: Iterable[str]) -> tuple[str, ...]:
    """Intervals from short to long."""
    return tuple(sorted(set(intervals), key=lambda text: (parse_interval(text).length_ms, text)))


class Grace:
    """Symbols that nobody asks for any more stay for a while: a Trader that is edited comes back at once.

    Args:
        period_s: how long.
    """

    def __init__(self, period_s: float) -> None:
        self._period_s = period_s
        self._last_s: dict[tuple[Key, str], float] = {}

    def with_leaving(self, feed: Key, asked: Iterable[str], running: Iterable[str], now_s: float) -> list[str]:
        """What shall run: what is asked for, and of what runs what was asked for lately, sorted.

        Args:
            running: what runs now. One that was never seen to be asked for counts as asked for now. One whose time is
                over is remembered until it is gone from here: what was written may be seen later.
        """
        wanted = set(asked)
        stays = wanted | set(running)
        for key in [key for key in self._last_s if key[0] == feed and key[1] not in stays]:
            del self._last_s[key]
        for name in wanted:
            self._last_s[feed, name] = now_s
        for name in set(running) - wanted:
            if now_s - self._last_s.setdefault((feed, name), now_s) < self._period_s:
                wanted.add(name)
        return sorted(wanted)

    def next_s(self, feed: Key, asked: Iterable[str], kept: Iterable[str]) -> float | None:
        """When the next one's time is over; None: none is leaving.

        Args:
            kept: what :meth:`with_leaving` gave.
        """
        leaving = set(kept) - set(asked)
        return min(
            (self._last_s[feed, name] + self._period_s for name in leaving if (feed, name) in self._last_s),
            default=None,
        )
