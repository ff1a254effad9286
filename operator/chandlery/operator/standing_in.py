"""What stands in for a Trader that can't be read: as much of it as its workers have, for what runs to go on. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from chandlery.core.assignment import Assignment, TraderAssignment
from chandlery.core.manifests import Key
from chandlery.core.resources import Trader
from chandlery.core.resources.base import Metadata, Reference
from chandlery.core.resources.status import MAX_MESSAGE_CHARS
from chandlery.core.resources.trader import ConfigMapKey, Informative, Market, Strategy, StrategySource, TraderSpec
from chandlery.operator.cache import Held
from chandlery.operator.planner_standing import has_known_intervals
from chandlery.operator.planner_traders import asleep
from chandlery.operator.planner_types import Verdict

#: No ConfigMap has this name, nor one of its keys.
_NOWHERE: Final = ""


def incarnations_of(assigned: Iterable[Assignment]) -> Mapping[str, Sequence[TraderAssignment]]:
    """What workers have of each Trader, by its uid, the newest last."""
    everything = [one for assignment in assigned for one in assignment.traders]
    by_uid: dict[str, list[TraderAssignment]] = defaultdict(list)
    for one in sorted(everything, key=lambda one: one.incarnation):
        by_uid[one.uid].append(one)
    return by_uid


def stand_in(held: Held, incarnations: Sequence[TraderAssignment]) -> Trader | None:
    """The Trader that has these incarnations; None: it names no pool, or nobody here knows what they run on.

    Nothing is checked: what was sound for the version that assigned it may be just what this one can't read. What is to run is
    the newest incarnation; of this only who may run, where, and ``suspend`` are asked.
    """
    if held.pool is None or not held.pool[1] or not all(map(has_known_intervals, incarnations)):
        return None
    namespace, name = held.pool
    newest = incarnations[-1]
    spec = TraderSpec.model_construct(
        pool=Reference.model_construct(name=name, namespace=namespace),
        strategy=Strategy.model_construct(
            name=newest.strategy,
            parameters=newest.parameters,
            source=None if newest.source is None else _somewhere(),
        ),
        market=Market.model_construct(
            symbols=newest.symbols,
            interval=newest.interval,
            informative=[
                Informative.model_construct(symbol=one.symbol, interval=one.interval) for one in newest.informative
            ],
        ),
        tier=newest.tier,
        suspend=held.spec.get("suspend") is True,
    )
    metadata = Metadata.model_construct(
        namespace=held.key[0], name=held.key[1], uid=held.uid, generation=newest.generation
    )
    return Trader.model_construct(metadata=metadata, spec=spec)


def _somewhere() -> StrategySource:
    """A source whose text is in the assignment alone: whether the pool takes any is asked all the same."""
    return StrategySource.model_construct(config_map_ref=ConfigMapKey.model_construct(name=_NOWHERE, key=_NOWHERE))


def with_sources_of(
    held: Iterable[Held], configmaps: Mapping[Key, Mapping[str, str]]
) -> Mapping[Key, Mapping[str, str]]:
    """The ConfigMaps with those that stand-ins name: nobody is to be told that they aren't there."""
    return {**configmaps, **{(one.key[0], _NOWHERE): {_NOWHERE: ""} for one in held if one.is_stand_in}}


def told_of_unread(verdict: Verdict, problem: str) -> Verdict:
    """The verdict of a Trader whose newest version can't be read: what is wrong with that, and what runs."""
    if verdict.reason == "BadManifest":
        return verdict
    if verdict.worker is None:
        message = f"{verdict.message}; besides, it can't be read: {problem}"
        return replace(verdict, message=message[:MAX_MESSAGE_CHARS])
    change = verdict.rollout
    newest = change.generation if change is not None and change.incarnation else verdict.generation
    stays = f" (generation {newest} stays)" + asleep(verdict.suspended)
    message = problem[: MAX_MESSAGE_CHARS - len(stays)] + stays
    # An event of what has failed would have these words, which aren't about that.
    return replace(verdict, reason="BadManifest", message=message, keeps=True, failed=None)
