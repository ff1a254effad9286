"""Chandlery's resources as the API server has them, as rows; and Traders by the names that people give."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from chandlery.cli.plugin.kubectl import ForbiddenError, Kubectl, NotFoundError, Object, collection
from chandlery.console.cluster import ClusterStatus, cluster_status
from chandlery.console.statuses import feed_state, pool_state, trader_state
from chandlery.core.errors import InputError, MachineError, UnavailableError
from chandlery.core.wording import did_you_mean

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
