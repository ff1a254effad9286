"""Checks across resources: what each refers to is there, lets itself be used, and has what is asked for.

One place for the rules and their sentences: the command line checks manifests with them before anything starts,
the planner decides with them what runs.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from chandlery.core.assignment import SeriesRef
from chandlery.core.configurations import Answers, configuration_of
from chandlery.core.documents import Path
from chandlery.core.errors import InputError
from chandlery.core.manifestset import Key, ManifestSet, Problem, Reason
from chandlery.core.parameters import ParameterSpec, value_problem
from chandlery.core.resources import MAX_SOURCE_BYTES, MarketFeed, Resource, Trader, TraderPool
from chandlery.core.resources.pool import GUARD_ROWS
from chandlery.core.wording import did_you_mean, shown

#: One element of ``python -m chandlery.workers.catalogue``'s list: name, parameters, errors …
CatalogueEntry = Mapping[str, Any]
#: Why a Trader is stalled that asks for a symbol its feed hasn't.
UNKNOWN_SYMBOL: Final = "UnknownSymbol"
_LISTED: Final = 12
#: Nobody was asked.
NO_ANSWERS: Final[Answers] = {}


@dataclass(frozen=True, slots=True)
class Finding:
    """Something wrong with one resource: a stable word, the field, and a sentence."""

    reason: Reason
    path: Path
    message: str


@dataclass(frozen=True, slots=True)
class World:
    """What resources may refer to.

    Attributes:
        feeds, pools: by (namespace, name).
        configmaps: data of ConfigMaps by (namespace, name).
        namespaces: labels by namespace; one that isn't there has none.
        unreadable: feeds and pools that are there and can't be read, by kind and (namespace, name), with what is wrong.
    """

    feeds: Mapping[Key, MarketFeed]
    pools: Mapping[Key, TraderPool]
    configmaps: Mapping[Key, Mapping[str, str]]
    namespaces: Mapping[str, Mapping[str, str]]
    unreadable: Mapping[tuple[str, Key], str] = field(default_factory=dict)

    def labels(self, namespace: str) -> dict[str, str]:
        """Labels of a namespace."""
        return dict(self.namespaces.get(namespace, {}))


def check_pool(pool: TraderPool, world: World) -> Iterator[Finding]:
    """The pool's feed is there and may be used."""
    key = pool.spec.feed.key(pool.namespace)
    feed = world.feeds.get(key)
    path: Path = ("spec", "feed", "name")
    if feed is None:
        yield Finding("UnknownFeed", path, _absent(MarketFeed.KIND, key, world, pool.namespace))
    elif not feed.spec.allowed_pools.admits(own=key[0], other=pool.namespace, labels=world.labels(pool.namespace)):
        yield Finding("NotAllowed", path, _not_allowed(feed, "pools", "allowedPools", pool.namespace))
    elif not_lent := _not_lent(pool, feed):
        yield Finding("NotAllowed", ("spec", "feed", "secrets"), not_lent)


def _not_lent(pool: TraderPool, feed: MarketFeed) -> str:
    """What of the pool's namespace a feed of another one names and the pool doesn't lend it; empty: nothing.

    Whoever writes the feed says which Secrets the workers mount and to whom they are shown: with ones of a namespace
    that isn't his, only as far as that namespace agrees.
    """
    if feed.namespace == pool.namespace:
        return ""
    missing = [name for name in feed.spec.kafka.secrets() if name not in pool.spec.feed.secrets]
    if not missing:
        return ""
    return (
        f"MarketFeed {feed.full_name} has workers mount Secrets of namespace {pool.namespace} that the pool doesn't lend "
        f"it: {', '.join(missing)}; name them in the pool's spec.feed.secrets, if its Kafka may have them"
    )


def check_trader(trader: Trader, world: World) -> Iterator[Finding]:
    """The trader's pool is there, may be used, and has what the trader asks for."""
    key = trader.spec.pool.key(trader.namespace)
    pool = world.pools.get(key)
    path: Path = ("spec", "pool", "name")
    if pool is None:
        yield Finding("UnknownPool", path, _absent(TraderPool.KIND, key, world, trader.namespace))
        return
    if not pool.spec.allowed_traders.admits(own=key[0], other=trader.namespace, labels=world.labels(trader.namespace)):
        yield Finding("NotAllowed", path, _not_allowed(pool, "traders", "allowedTraders", trader.namespace))
        return
    tiers = [tier.name for tier in pool.spec.tiers]
    if trader.spec.tier not in tiers:
        near = did_you_mean(trader.spec.tier, tiers)
        message = f"{pool.KIND} {pool.full_name} has no tier {shown(trader.spec.tier)}; it has {_listed(tiers)}{near}"
        yield Finding("UnknownTier", ("spec", "tier"), message)
    longest = pool.spec.segment.candles - GUARD_ROWS
    if trader.spec.market.warmup is not None and trader.spec.market.warmup > longest:
        message = (
            f"must be at most {longest} in {pool.KIND} {pool.full_name}, got {trader.spec.market.warmup}; "
            "raise the pool's spec.segment.candles for more"
        )
        yield Finding("BadParameter", ("spec", "market", "warmup"), message)
    yield from _check_symbols(trader, pool, world)
    source = source_of(trader, world)
    if isinstance(source, Finding):
        yield source


def _check_symbols(trader: Trader, pool: TraderPool, world: World) -> Iterator[Finding]:
    feed = world.feeds.get(pool.spec.feed.key(pool.namespace))
    if feed is None or feed.spec.symbols == "auto":
        return
    known = feed.spec.symbols
    market = trader.spec.market
    asked: list[tuple[Path, str]] = [(("symbols", index), symbol) for index, symbol in enumerate(market.symbols)]
    asked += [
        (("informative", index, "symbol"), informative.symbol)
        for index, informative in enumerate(market.informative)
        if informative.symbol is not None
    ]
    for path, symbol in asked:
        if symbol not in known:
            message = f"MarketFeed {feed.full_name} has no {symbol}; its spec.symbols are {_listed(known)}"
            yield Finding(UNKNOWN_SYMBOL, ("spec", "market", *path), message)


def unknown_symbols_of(series: Iterable[SeriesRef], unknown: Collection[str]) -> str:
    """What is to be said of a Trader that reads symbols its feed's source says it doesn't have; empty: nothing."""
    missing = sorted({one.symbol for one in series} & set(unknown))
    return f"the feed's source has no {', '.join(missing)}: mend spec.market" if missing else ""


def unknown_symbols_of_feed(feed: MarketFeed, unknown: Collection[str]) -> str:
    """What is to be said of a feed that lists symbols its source says it doesn't have; empty: nothing.

    Those that Traders alone ask for are told by the Traders.
    """
    listed = feed.spec.symbols if feed.spec.symbols != "auto" else ()
    missing = sorted({*listed} & {*unknown})
    if not missing:
        return ""
    rest = "the others are" if len(missing) < len({*listed}) else "nothing is"
    return f"its source has no {_listed(missing)}: mend spec.symbols; {rest} ingested"


def source_of(trader: Trader, world: World) -> str | Finding | None:
    """Text of the trader's strategy from its ConfigMap; None: the pool's image has it; a Finding: why not.

    The pool must be there (:func:`check_trader` says so first).
    """
    source = trader.spec.strategy.source
    if source is None:
        return None
    pool = world.pools[trader.spec.pool.key(trader.namespace)]
    path: Path = ("spec", "strategy", "source", "configMapRef")
    if not pool.spec.allow_config_map_strategies:
        message = f"TraderPool {pool.full_name} takes no strategies from ConfigMaps (its spec.allowConfigMapStrategies)"
        return Finding("NotAllowed", path, message)
    key = (trader.namespace, source.config_map_ref.name)
    data = world.configmaps.get(key)
    if data is None:
        message = f"there is no ConfigMap {_name(key)}{_near(key, world.configmaps)}"
        return Finding("BadSource", (*path, "name"), message)
    text = data.get(source.config_map_ref.key)
    if text is None:
        near = did_you_mean(source.config_map_ref.key, data)
        message = f"ConfigMap {_name(key)} has no {shown(source.config_map_ref.key)}; it has {_listed(data)}{near}"
        return Finding("BadSource", (*path, "key"), message)
    size = len(text.encode())
    if size > MAX_SOURCE_BYTES:
        message = f"the source has {size} bytes; {MAX_SOURCE_BYTES} (64Ki) are the most"
        return Finding("BadSource", (*path, "key"), message)
    return text


def check_strategy(trader: Trader, catalogue: Iterable[CatalogueEntry]) -> Iterator[Finding]:
    """The trader's strategy is in the catalogue and takes its parameters; nothing is known of one with a source."""
    strategy = trader.spec.strategy
    if strategy.source is not None:
        return
    entries = _by_name(catalogue)
    entry = entries.get(strategy.name)
    if entry is None:
        near = did_you_mean(strategy.name, entries)
        message = f"there is no strategy {shown(strategy.name)}; there are {_listed(sorted(entries))}{near}"
        yield Finding("UnknownStrategy", ("spec", "strategy", "name"), message)
        return
    if entry.get("errors"):
        message = f"{strategy.name} can't be used: {entry['errors'][0]}"
        yield Finding("BadStrategy", ("spec", "strategy", "name"), message)
        return
    specs = _specs(entry)
    for name, value in strategy.parameters.items():
        path: Path = ("spec", "strategy", "parameters", name)
        spec = specs.get(name)
        if spec is None:
            known = f"; it has {_listed(specs)}" if specs else "; it has none"
            message = f"{strategy.name} has no such parameter{known}{did_you_mean(name, specs)}"
            yield Finding("BadParameter", path, message)
        elif (problem := value_problem(spec, value)) is not None:
            yield Finding("BadParameter", path, problem)


def _by_name(catalogue: Iterable[CatalogueEntry]) -> dict[str, CatalogueEntry]:
    """One entry a name: the first that can be used, else the first.

    A file that can't be used goes by a name too, and may not take it from a strategy that can: a Trader's process finds that one.
    """
    entries: dict[str, CatalogueEntry] = {}
    for entry in catalogue:
        name = str(entry["name"])
        if name not in entries or (entries[name].get("errors") and not entry.get("errors")):
            entries[name] = entry
    return entries


def _specs(entry: CatalogueEntry) -> dict[str, ParameterSpec]:
    try:
        return msgspec.convert(entry.get("parameters", {}), dict[str, ParameterSpec])
    except msgspec.ValidationError as error:
        raise InputError(f"the catalogue's entry {entry['name']}: {error}") from error


def check_configured(trader: Trader, pool: TraderPool | None, answers: Answers) -> Iterator[Finding]:
    """The trader's parameters fit each other, and the pool keeps as many candles as they need.

    Args:
        pool: the trader's; None: it isn't there. answers: what is known; of the others nothing is found.
    """
    asked = configuration_of(trader)
    answer = answers.get(asked.key) if asked is not None else None
    if asked is None or answer is None:
        return
    path: Path = ("spec", "strategy", "parameters" if asked.parameters else "name")
    if answer.problem:
        yield Finding(answer.reason, path, answer.problem)
    elif pool is not None and answer.warmup > (longest := pool.spec.segment.candles - GUARD_ROWS):
        given = "with these parameters" if asked.parameters else "by default"
        message = (
            f"{asked.strategy} needs {answer.warmup} closed candles {given}, and {pool.KIND} {pool.full_name} keeps "
            f"{longest} for a call; change them, or raise the pool's spec.segment.candles to at least "
            f"{answer.warmup + GUARD_ROWS}"
        )
        yield Finding("BadParameter", path, message)


def trader_findings(
    manifests: ManifestSet, trader: Trader, catalogue: Iterable[CatalogueEntry], answers: Answers = NO_ANSWERS
) -> Iterator[Finding]:
    """All that is wrong with one Trader beside manifests that are right without it."""
    world = World(manifests.feeds, manifests.pools, manifests.configmaps, manifests.namespaces)
    yield from check_trader(trader, world)
    yield from _check_whole_strategy(trader, world, catalogue, answers)


def _check_whole_strategy(
    trader: Trader, world: World, catalogue: Iterable[CatalogueEntry], answers: Answers
) -> Iterator[Finding]:
    """Each parameter by itself; where all are right, all together."""
    found = list(check_strategy(trader, catalogue))
    yield from found or check_configured(trader, world.pools.get(trader.spec.pool.key(trader.namespace)), answers)


def check_against_catalogue(
    manifests: ManifestSet, catalogue: Sequence[CatalogueEntry] | None, answers: Answers = NO_ANSWERS
) -> list[Problem]:
    """Check what manifests refer to, and strategies and their parameters.

    Args:
        manifests: as read.
        catalogue: as ``python -m chandlery.workers.catalogue`` prints it; None: not known, so not checked.
        answers: what its process said of the Traders' parameters together.

    Returns:
        One problem for each thing wrong, in order of file and line.

    Raises:
        InputError: the catalogue itself is malformed.
    """
    world = World(manifests.feeds, manifests.pools, manifests.configmaps, manifests.namespaces)
    # What has a problem of its own is not "missing" too.
    broken = {problem.identity for problem in manifests.problems}
    problems: list[Problem] = []
    for pool in manifests.pools.values():
        if (MarketFeed.KIND, *pool.spec.feed.key(pool.namespace)) not in broken:
            problems += _problems(manifests, pool, check_pool(pool, world))
    for trader in manifests.traders.values():
        if (TraderPool.KIND, *trader.spec.pool.key(trader.namespace)) not in broken:
            problems += _problems(manifests, trader, check_trader(trader, world))
        if catalogue is not None:
            problems += _problems(manifests, trader, _check_whole_strategy(trader, world, catalogue, answers))
    return sorted(problems)


def _problems(manifests: ManifestSet, resource: Resource, findings: Iterable[Finding]) -> Iterator[Problem]:
    identity = (resource.KIND, *resource.key)
    origin = manifests.origins.get(identity)
    for finding in findings:
        if origin is None:
            yield Problem("", 0, 0, *identity, "", finding.message, finding.reason)
        else:
            yield origin.problem(identity, finding.path, finding.message, finding.reason)


def _name(key: Key) -> str:
    return "/".join(key)


def _listed(names: Iterable[str]) -> str:
    every = list(names)
    more = f" and {len(every) - _LISTED} more" if len(every) > _LISTED else ""
    return (", ".join(every[:_LISTED]) + more) if every else "none"


def _absent(kind: str, key: Key, world: World, own: str) -> str:
    """Why a feed or pool can't be had: there is none, or there is and can't be read. What is wrong with one of a namespace
    that isn't one's own is for its people to see."""
    problem = world.unreadable.get((kind, key))
    if problem is None:
        known = world.feeds if kind == MarketFeed.KIND else world.pools
        return f"there is no {kind} {_name(key)}{_instead(key, known, own)}"
    return f"{kind} {_name(key)} is there and can't be read: {problem if key[0] == own else 'its status says why'}"


def _instead(key: Key, known: Iterable[Key], own: str) -> str:
    """What there is instead; of a namespace that isn't one's own, only what is near: the rest is for its people to see."""
    every = sorted(known)
    if key[0] != own or any(name == key[1] for _, name in every):
        return _near(key, every)
    return f"; namespace {own} has {_listed(name for namespace, name in every if namespace == own)}{_near(key, every)}"


def _near(key: Key, known: Iterable[Key]) -> str:
    every = sorted(known)
    elsewhere = [other for other in every if other[1] == key[1]]
    if elsewhere:
        return f"; there is {_name(elsewhere[0])}: name its namespace"
    return did_you_mean(key[1], [name for namespace, name in every if namespace == key[0]])


def _not_allowed(owner: MarketFeed | TraderPool, users: str, field: str, namespace: str) -> str:
    access = owner.spec.allowed_pools if isinstance(owner, MarketFeed) else owner.spec.allowed_traders
    return (
        f"{owner.KIND} {owner.full_name} takes no {users} from namespace {namespace} "
        f"(its spec.{field}.namespaces.from is {access.namespaces.from_})"
    )
