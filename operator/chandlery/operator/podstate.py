"""What a pod's status says: whether it is Ready, where it is, and what keeps it from running. Pure."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

Pod = dict[str, Any]

#: What every container passes through.
_USUAL: Final = frozenset({"PodInitializing", "ContainerCreating"})
#: An image that can't be pulled is told by both in turn, for as long as it can't: one word, so that nothing comes and goes.
_ALIKE: Final = {"ErrImagePull": "ImagePullBackOff"}
#: What the kubelet says beside these stays as it is for as long as it holds: what is missing, and its name. Beside others it
#: names times, attempts and ids that are others each time, which is no news.
_STEADY: Final = frozenset({"CreateContainerConfigError", "InvalidImageName", "ErrImageNeverPull"})
#: The kubelet starts a container that ended again at once, and only then ever later, until it has run for ten minutes.
_FIRST_DELAYED: Final = 2
_FORGIVEN_AFTER: Final = dt.timedelta(minutes=10)
_MOST_CHARS: Final = 200


@dataclass(frozen=True, slots=True)
class ContainerTrouble:
    """Why a container doesn't run: the kubelet's word, and what it says beside that where it says the same each time."""

    container: str
    reason: str
    said: str = ""

    @property
    def what(self) -> str:
        """Word and what is said."""
        return f"{self.reason}: {self.said}" if self.said else self.reason

    def __str__(self) -> str:
        return f"container {self.container}: {self.what}"


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
    return str(container_trouble_of(pod) or "")


def container_trouble_of(pod: Pod | None) -> ContainerTrouble | None:
    """What keeps the first of a pod's containers that can't run from running; None: nothing that is known."""
    for one in _containers(pod or {}):
        waiting = one.get("state", {}).get("waiting", {})
        reason = waiting.get("reason", "")
        if not reason and _crash_loops(one):
            reason = "CrashLoopBackOff"
        if reason and reason not in _USUAL:
            said = str(waiting.get("message") or "")[:_MOST_CHARS] if reason in _STEADY else ""
            return ContainerTrouble(one["name"], _ALIKE.get(reason, reason), said)
    return None


def _conditions(pod: Pod) -> list[dict[str, Any]]:
    return pod.get("status", {}).get("conditions") or []


def _containers(pod: Pod) -> Iterator[dict[str, Any]]:
    status = pod.get("status", {})
    yield from status.get("initContainerStatuses") or ()
    yield from status.get("containerStatuses") or ()


def _crash_loops(container: dict[str, Any]) -> bool:
    """Whether a container that runs, or has just ended, is in its crash loop still: between two starts the kubelet says
    ``CrashLoopBackOff``, and what comes and goes with each start is no news."""
    if container.get("ready") or container.get("restartCount", 0) < _FIRST_DELAYED:
        return False
    before = container.get("lastState", {}).get("terminated")
    if before is None:
        return False
    try:
        ran = dt.datetime.fromisoformat(before["finishedAt"]) - dt.datetime.fromisoformat(before["startedAt"])
    except (KeyError, TypeError, ValueError):
        return True  # it never got to run
    return ran < _FORGIVEN_AFTER
