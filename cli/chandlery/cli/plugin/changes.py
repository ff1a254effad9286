"""What a change that waits would change: the version that runs, as its worker's assignment has it, beside the new spec."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import msgspec
from pydantic import ValidationError

from chandlery.cli.plugin.kubectl import Kubectl, Object, collection
from chandlery.console.cluster import TraderState
from chandlery.core.assignment import TraderAssignment, decode_assignment
from chandlery.core.durations import format_duration
from chandlery.core.errors import InputError
from chandlery.core.resources import Trader, TraderPool
from chandlery.core.transports import Transport
from chandlery.operator.children.workers import ASSIGNMENT_KEY, assignment_name


def changes_of(kubectl: Kubectl, item: Object, row: TraderState) -> list[str]:
    """Each difference in a line, ``strategy.parameters.fast: 3 → 4``; none where nothing runs, or it may not be read.

    Raises:
        UnavailableError: no answer.
    """
    if not row.worker:
        return []
    try:
        trader = Trader.model_validate(item)
        kept = _config_map(kubectl, row.pod_namespace, assignment_name(row.worker))
        assignment = decode_assignment(kept[ASSIGNMENT_KEY])
        running = next(one for one in assignment.traders if one.trader == row.trader)
        source = _source(kubectl, trader)
        of_pool = _transport_of_pool(kubectl, trader) if running.transport != trader.spec.transport else None
    except (InputError, ValidationError, KeyError, StopIteration, msgspec.DecodeError):
        return []  # a help to who decides, no condition of deciding
    return list(differences(running, trader, source, of_pool))


def differences(
    running: TraderAssignment, trader: Trader, source: str | None, of_pool: Transport | None = None
) -> Iterator[str]:
    """What of a Trader's spec isn't as it runs.

    Args:
        source: text of the strategy where it comes from a ConfigMap. of_pool: how candles reach Traders of its pool that
            say nothing of it; None: not known.
    """
    spec = trader.spec
    yield from _told("strategy.name", running.strategy, spec.strategy.name)
    before, after = running.parameters, spec.strategy.parameters
    for name in sorted(before.keys() | after.keys()):
        yield from _told(f"strategy.parameters.{name}", before.get(name), after.get(name))
    if running.source != source:
        yield f"strategy.source: {_lines(running.source or '', source or '')}"
    yield from _told("market.symbols", running.symbols, list(spec.market.symbols))
    yield from _told("market.interval", running.interval, spec.market.interval)
    yield from _told("market.warmup", running.warmup, spec.market.warmup)
    yield from _told(
        "market.informative",
        [f"{one.symbol} {one.interval}" for one in running.informative],
        [f"{one.symbol} {one.interval}" for one in spec.market.informative_series()],
    )
    yield from _told("trigger", running.trigger, spec.trigger)
    # What is its pool's anyway changes nothing when it is said, nor when it is left out.
    yield from _told("transport", running.transport or of_pool, spec.transport or of_pool)
    yield from _told("tier", running.tier, spec.tier)
    yield from _told("signals.ttl", format_duration(running.signal_ttl_ms), format_duration(trader.signal_ttl_ms))
    yield from _told("signals.cooldown", format_duration(running.cooldown_ms), format_duration(spec.signals.cooldown))
    yield from _told("resources.memory", running.memory_bytes, spec.resources.memory)


def _transport_of_pool(kubectl: Kubectl, trader: Trader) -> Transport | None:
    namespace, name = trader.spec.pool.key(trader.namespace)
    try:
        return TraderPool.model_validate(
            kubectl.get(f"{collection('traderpools', namespace)}/{quote(name)}")
        ).spec.transport
    except (InputError, ValidationError):
        return None  # then what is said is told as it stands


def _told(field: str, before: Any, after: Any) -> Iterator[str]:
    if before != after:
        yield f"{field}: {_shown(before)} → {_shown(after)}"


def _shown(value: Any) -> str:
    if value is None:
        return "not set"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _lines(before: str, after: str) -> str:
    marks = [line[:1] for line in difflib.ndiff(before.splitlines(), after.splitlines())]
    return f"{marks.count('+')} lines more, {marks.count('-')} less"


def _source(kubectl: Kubectl, trader: Trader) -> str | None:
    source = trader.spec.strategy.source
    if source is None:
        return None
    named = source.config_map_ref
    return _config_map(kubectl, trader.namespace, named.name)[named.key]


def _config_map(kubectl: Kubectl, namespace: str, name: str) -> dict[str, str]:
    found = kubectl.get(f"/api/v1/namespaces/{quote(namespace)}/configmaps/{quote(name)}")
    data: dict[str, str] = found.get("data") or {}
    return data
