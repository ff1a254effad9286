"""Chandlery's resources as the API server has them, as rows: what their statuses say, and who keeps them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from chandlery.console.cluster import UNSEEN, FeedState, PoolState, TraderState
from chandlery.core.resources.status import Condition, FeedStatus, PoolStatus, TraderStatus, read_status
from chandlery.core.wording import printable

Object = dict[str, Any]

#: Who applies what is in a repository: a label or annotation of theirs → what they are called.
_KEEPERS: Final = {
    "kustomize.toolkit.fluxcd.io/name": "Flux Kustomization",
    "helm.toolkit.fluxcd.io/name": "Flux HelmRelease",
    "argocd.argoproj.io/tracking-id": "Argo CD Application",
    "argocd.argoproj.io/instance": "Argo CD Application",
}
_KEEPING_MANAGERS: Final = {
    "kustomize-controller": "Flux' kustomize-controller",
    "helm-controller": "Flux' helm-controller",
    "argocd-controller": "Argo CD",
    "argocd-application-controller": "Argo CD",
}


def feed_state(item: Object) -> FeedState:
    """A MarketFeed as a row."""
    status: FeedStatus = read_status("MarketFeed", item.get("status"))
    return FeedState(
        _full(item), *_readiness(item, status.conditions, status.observed_generation),
        source=status.source or _source(item), symbols=list(status.symbols), intervals=list(status.intervals),
        kafka=status.bootstrap_servers or "",
    )  # fmt: skip


def pool_state(item: Object) -> PoolState:
    """A TraderPool as a row."""
    status: PoolStatus = read_status("TraderPool", item.get("status"))
    return PoolState(
        _full(item), *_readiness(item, status.conditions, status.observed_generation),
        workers=status.workers, ready_workers=status.ready_workers, capacity=status.capacity, used=status.used,
        pending=status.pending,
    )  # fmt: skip


def trader_state(item: Object) -> TraderState:
    """A Trader as a row."""
    status: TraderStatus = read_status("Trader", item.get("status"))
    spec, meta = item.get("spec", {}), item["metadata"]
    market, pool = spec.get("market", {}), spec.get("pool", {})
    return TraderState(
        _full(item), *_readiness(item, status.conditions, status.observed_generation),
        strategy=spec.get("strategy", {}).get("name", ""), symbols=list(market.get("symbols", ())),
        interval=market.get("interval", ""),
        pool=f"{pool.get('namespace') or meta['namespace']}/{pool.get('name', '')}",
        worker=status.worker or "", pod=status.pod or "", rollout=spec.get("rollout", "Auto"),
        generation=int(meta.get("generation", 0)), running_generation=status.running_generation,
        warm_have=status.warm.have if status.warm else None, warm_need=status.warm.need if status.warm else None,
        signals=status.signals, latency_p99=status.latency.p99 if status.latency else "",
        restarts=status.restarts, last_error=printable(status.last_error or ""),
    )  # fmt: skip


def _readiness(item: Object, conditions: Iterable[Condition], observed: int | None) -> tuple[str, str, str]:
    """(status, reason, message) of Ready; of a generation that the operator hasn't looked at: Unknown."""
    generation = int(item["metadata"].get("generation", 0))
    if observed is None or observed < generation:
        return "Unknown", UNSEEN, f"the operator has not looked at generation {generation} yet"
    ready = next((condition for condition in conditions if condition.type == "Ready"), None)
    return (ready.status, ready.reason, printable(ready.message)) if ready is not None else ("Unknown", UNSEEN, "")


def _full(item: Object) -> str:
    return f"{item['metadata']['namespace']}/{item['metadata']['name']}"


def _source(item: Object) -> str:
    return next(iter(item.get("spec", {}).get("source", {})), "")


def kept_by(item: Object) -> str:
    """Who applies a resource from a repository, in words; empty: nobody known."""
    meta = item["metadata"]
    notes = {**(meta.get("labels") or {}), **(meta.get("annotations") or {})}
    for note, keeper in _KEEPERS.items():
        if note in notes:
            named = notes[note].partition(":")[0]
            return f"{keeper} {named}" if named else keeper
    for entry in meta.get("managedFields") or ():
        if entry.get("manager") in _KEEPING_MANAGERS:
            return _KEEPING_MANAGERS[entry["manager"]]
    return ""
