"""What a pod's status says: whether it is Ready, where it is, and what keeps it from running. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

Pod = dict[str, Any]

#: What every container passes through.
_USUAL: Final = frozenset({"PodInitializing", "ContainerCreating"})
#: An image that can't be pulled is told by both in turn, for as long as it can't: one word, so that nothing comes and goes.
_ALIKE: Final = {"ErrImagePull": "ImagePullBackOff"}
_MOST_CHARS: Final = 200


def is_ready(pod: Pod | None) -> bool:
    """Whether a pod is there, Ready, and not about to end."""
    if pod is None or "deletionTimestamp" in pod["metadata"]:
        return False
    return any(one["type"] == "Ready" and one["status"] == "True" for one in _conditions(pod))


def address_of(pod: Pod | None) -> str:
    """The pod's IP; empty: none yet."""
    return str((pod or {}).get("status", {}).get("podIP", ""))


def trouble_of(pod: Pod | None) -> str:
    """What keeps a pod from running, in the cluster's words; empty: nothing that is known."""
    if pod is None:
        return ""
    for one in _conditions(pod):
        if one["type"] == "PodScheduled" and one["status"] == "False":
            return f"{one.get('reason', 'Unscheduled')}: {one.get('message', '')}"[:_MOST_CHARS]
    for container, reason in _waiting(pod):
        if reason not in _USUAL:
            return f"container {container}: {_ALIKE.get(reason, reason)}"
    return ""


def _conditions(pod: Pod) -> list[dict[str, Any]]:
    return pod.get("status", {}).get("conditions") or []


def _waiting(pod: Pod) -> Iterator[tuple[str, str]]:
    status = pod.get("status", {})
    for one in [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]:
        reason = one.get("state", {}).get("waiting", {}).get("reason")
        if reason:
            yield one["name"], reason
