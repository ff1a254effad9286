"""What stands in for a Trader that can't be read: as much of it as its workers have, for what runs to go on. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from chandlery.core.assignment import Assignment, TraderAssignment
from chandlery.core.errors import InputError
from chandlery.core.intervals import parse_interval
from chandlery.core.resources import Trader
from chandlery.core.resources.base import Metadata, Reference
from chandlery.core.resources.status import MAX_MESSAGE_CHARS
from chandlery.core.resources.trader import ConfigMapKey, Informative, Market, Strategy, StrategySource, TraderSpec
from chandlery.operator.cache import Held
from chandlery.operator.planner_types import Verdict


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
    if held.pool is None or not held.pool[1] or not all(map(_has_intervals, incarnations)):
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
    return StrategySource.model_construct(config_map_ref=ConfigMapKey.model_construct(name="", key=""))


def _has_intervals(one: TraderAssignment) -> bool:
    try:
        for series in one.series():
            parse_interval(series.interval)
    except InputError:
        return False
    return True


def told_of_unread(verdict: Verdict, problem: str) -> Verdict:
    """The verdict of a Trader whose newest version can't be read: what is wrong with that, and what runs."""
    if verdict.reason == "BadManifest":
        return verdict
    if verdict.worker is None:
        message = f"{verdict.message}; besides, it can't be read: {problem}"
        return replace(verdict, message=message[:MAX_MESSAGE_CHARS])
    asleep = f"; {verdict.message}" if verdict.reason == "Suspended" else ""
    stays = f" (generation {verdict.generation} stays){asleep}"
    message = problem[: MAX_MESSAGE_CHARS - len(stays)] + stays
    # What failed was told when it did: the words of now aren't about that.
    return replace(verdict, reason="BadManifest", message=message, keeps=True, failed=None)
