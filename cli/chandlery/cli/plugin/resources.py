"""Chandlery's resources as the API server has them, as rows; and Traders by the names that people give."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from chandlery.cli.plugin.kubectl import ForbiddenError, Kubectl, NotFoundError, Object, collection
from chandlery.console.cluster import UNSEEN, ClusterStatus, FeedState, PoolState, TraderState, cluster_status
from chandlery.core.errors import InputError, MachineError, UnavailableError
from chandlery.core.resources.status import Condition, FeedStatus, PoolStatus, TraderStatus, read_status
from chandlery.core.wording import did_you_mean, printable

Row = TypeVar("Row")
#: A namespace with more is asked for by name.
_MOST_NAMED = 20


def fetch_status(kubectl: Kubectl, names: Sequence[str] = ()) -> tuple[ClusterStatus, list[str]]:
    """Everything in the namespace meant, and what could not be looked at and why.

    Args:
        names: only these Traders, with their pools and feeds left out.

    Raises:
        InputError: no such Trader, or Traders may not be listed. UnavailableError: no answer.
    """
    if names:
        return cluster_status([], [], [trader_state(find_trader(kubectl, name)) for name in names]), []
    namespace = "" if kubectl.everywhere else kubectl.namespace
    remarks: list[str] = []

    def listed(plural: str, row: Callable[[Object], Row]) -> list[Row]:
        try:
            items = fetch_items(kubectl, plural, namespace)
        except ForbiddenError as error:
            if plural == "traders":
                raise
            remarks.append(str(error))
            return []
        return [row(item) for item in items]

    with ThreadPoolExecutor(3) as threads:
        feeds = threads.submit(listed, "marketfeeds", feed_state)
        pools = threads.submit(listed, "traderpools", pool_state)
        traders = threads.submit(listed, "traders", trader_state)
    return cluster_status(feeds.result(), pools.result(), traders.result()), remarks


def fetch_items(kubectl: Kubectl, plural: str, namespace: str) -> list[Object]:
    """All resources of a kind, by name; empty namespace: of all.

    Raises:
        MachineError: the cluster has no such kind. InputError, UnavailableError: see Kubectl.
    """
    try:
        items: list[Object] = kubectl.get(collection(plural, namespace)).get("items") or []
    except NotFoundError as error:
        raise _not_installed(kubectl) from error
    return sorted(items, key=lambda item: (item["metadata"]["namespace"], item["metadata"]["name"]))


def find_trader(kubectl: Kubectl, name: str) -> Object:
    """The Trader that a person means by ``[NAMESPACE/]NAME``.

    Raises:
        InputError: there is none; names one that is near. UnavailableError: no answer.
    """
    namespace, short = split_name(kubectl, name)
    try:
        return kubectl.get(f"{collection('traders', namespace)}/{short}")
    except NotFoundError as error:
        raise _no_trader(kubectl, namespace, short) from error


def split_name(kubectl: Kubectl, name: str) -> tuple[str, str]:
    """(namespace, name) of ``[NAMESPACE/]NAME``; ``trader/NAME`` is a Trader too, as kubectl prints it.

    Raises:
        InputError: it is neither, or contradicts ``--namespace``.
    """
    for kind in ("trader/", "traders/", "trader.chandlery.dev/", "traders.chandlery.dev/"):
        name = name.removeprefix(kind)
    namespace, slash, short = name.rpartition("/")
    if not short or "/" in namespace or (slash and not namespace):
        raise InputError(f"{name!r} is no Trader's name: write TRADER or NAMESPACE/TRADER")
    if namespace and kubectl.given_namespace not in ("", namespace):
        raise InputError(f"{name!r} and --namespace {kubectl.given_namespace} contradict each other")
    return namespace or kubectl.namespace, short


def _no_trader(kubectl: Kubectl, namespace: str, name: str) -> InputError | MachineError:
    here = [item["metadata"]["name"] for item in fetch_items(kubectl, "traders", namespace)]
    told = f'no Trader "{name}" in namespace {namespace}'
    if hint := did_you_mean(name, here):
        return NotFoundError(told + hint)
    try:
        elsewhere = [
            f"{item['metadata']['namespace']}/{name}"
            for item in fetch_items(kubectl, "traders", "")
            if item["metadata"]["name"] == name
        ]
    except (InputError, UnavailableError):
        elsewhere = []  # who may look at one namespace alone gets no hint of others
    if elsewhere:
        return NotFoundError(f"{told}; there is {', '.join(elsewhere)}")
    if not here:
        return NotFoundError(f"{told}: there are none at all; -n names another namespace")
    return NotFoundError(f"{told}; there are: {', '.join(here[:_MOST_NAMED])}{' …' if len(here) > _MOST_NAMED else ''}")


def _not_installed(kubectl: Kubectl) -> MachineError:
    return MachineError(
        f"{kubectl.server} has no Chandlery (its CustomResourceDefinitions aren't there): "
        "docs/operations.md tells how to install it"
    )


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
