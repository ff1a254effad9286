"""A Trader that can't be read, as its worker has it: enough of it to be judged, so that what runs goes on. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from chandlery.core.assignment import Assignment, TraderAssignment
from chandlery.core.resources import Trader
from chandlery.core.resources.base import Metadata, Reference
from chandlery.core.resources.trader import Informative, Market, Strategy, TraderSpec
from chandlery.operator.cache import Held


def newest_by_uid(assigned: Iterable[Assignment]) -> dict[str, TraderAssignment]:
    """The highest incarnation of each Trader that workers have, by its uid."""
    everything = (one for assignment in assigned for one in assignment.traders)
    return {one.uid: one for one in sorted(everything, key=lambda one: one.incarnation)}


def recalled(held: Held, newest: TraderAssignment) -> Trader | None:
    """The Trader whose newest assigned version is this one; None: it names no pool that could run it.

    Nothing is checked, since what was sound for the version that assigned it may be what this one can't read. What runs
    is the assignment; of this only the pool, ``suspend``, and what decides who may run where are asked.
    """
    if held.pool is None or not held.pool[1]:
        return None
    namespace, name = held.pool
    suspend = held.spec.get("suspend")
    spec = TraderSpec.model_construct(
        pool=Reference.model_construct(name=name, namespace=namespace),
        strategy=Strategy.model_construct(name=newest.strategy, parameters=newest.parameters),
        market=Market.model_construct(
            symbols=newest.symbols,
            interval=newest.interval,
            informative=[
                Informative.model_construct(symbol=one.symbol, interval=one.interval) for one in newest.informative
            ],
        ),
        tier=newest.tier,
        suspend=suspend if isinstance(suspend, bool) else newest.mode == "suspended",
    )
    metadata = Metadata.model_construct(
        namespace=held.key[0], name=held.key[1], uid=held.uid, generation=newest.generation
    )
    return Trader.model_construct(metadata=metadata, spec=spec)
