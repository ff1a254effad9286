"""Why a pod can't be made: a StatefulSet has no condition for it, its controller tells it by events alone."""

from __future__ import annotations

import re
import time
from typing import Final, Protocol

from chandlery.operator.applied import labels_of
from chandlery.operator.children.naming import FEED_LABEL
from chandlery.operator.conditions import PodRefusal
from chandlery.operator.kubernetes.api import Kind, Object, Page
from chandlery.operator.kubernetes.kinds import EVENT

#: A pod comes within milliseconds of its StatefulSet; nobody is asked why there is none before this is over.
_USUAL_S: Final = 1.0
#: While there is none its controller tries again at ever longer intervals, up to minutes.
_ASK_S: Final = 5.0
_QUOTA: Final = re.compile(r"exceeded quota: (\S+), requested: (.*?), used: (.*?), limited: (.*)")
_UNSAID: Final = re.compile(r"failed quota: ([^\s:]+): must specify (\S+) for: (\S+)")
_ERROR: Final = re.compile(r"failed error: (.*)", re.DOTALL)
_MOST_CHARS: Final = 300


class Lister(Protocol):
    """What of the API server is needed."""

    async def list(
        self, kind: Kind, namespace: str = "", *, selector: str = "", fields: str = "", metadata_only: bool = False
    ) -> Page: ...


class Refusals:
    """Finds out why StatefulSets have no pods."""

    def __init__(self, api: Lister) -> None:
        self._api = api
        self._without_pod_s: dict[str, float] = {}
        self._asked_s: dict[str, float] = {}
        self._found: dict[str, PodRefusal | None] = {}

    async def look(self, item: Object, *, has_pod: bool) -> tuple[PodRefusal | None, float | None]:
        """Why a StatefulSet has no pod.

        Args:
            item: the StatefulSet. has_pod: whether its pod is there.

        Returns:
            Why, None: it has one, or nothing is known; and seconds until it must be looked at again, None: it has one.

        Raises:
            ChandleryError: the events can't be listed now.
        """
        meta = item["metadata"]
        uid, now_s = meta["uid"], time.monotonic()
        if has_pod:
            for known in (self._without_pod_s, self._asked_s, self._found):
                known.pop(uid, None)
            return None, None
        due_s = max(
            self._without_pod_s.setdefault(uid, now_s) + _USUAL_S, self._asked_s.get(uid, float("-inf")) + _ASK_S
        )
        if now_s < due_s:
            return self._found.get(uid), due_s - now_s
        self._asked_s[uid] = now_s
        page = await self._api.list(EVENT, meta["namespace"], fields=f"regarding.uid={uid},reason=FailedCreate")
        newest = max(page.items, key=lambda event: int(event["metadata"]["resourceVersion"]), default=None)
        self._found[uid] = None
        if newest is not None:
            self._found[uid] = refusal_of(
                str(newest.get("note", "")), meta["name"], of_feed=FEED_LABEL in labels_of(item)
            )
        return self._found[uid], _ASK_S


def refusal_of(said: str, workload: str, *, of_feed: bool = False) -> PodRefusal:
    """What the cluster's words mean for a workload. Without what is used already, which moves by itself.

    Args:
        said: an event's note, or the answer to a write. workload: name of the StatefulSet.
        of_feed: whether it is a MarketFeed's, which has no pod template, and not a TraderPool's.
    """
    if found := _QUOTA.search(said):
        quota, requested, _, limited = found.groups()
        less = "" if of_feed else ", or ask for less: the pool's spec.tradersPerWorker, spec.segment, spec.workers"
        return PodRefusal(
            "QuotaExceeded",
            f"ResourceQuota {quota} refuses {workload}: it asks for {requested}, all together may have {limited}; "
            f"raise the quota's spec.hard{less}",
        )
    if found := _UNSAID.search(said):
        quota, amounts, containers = found.groups()
        give = (
            "give the namespace a LimitRange whose default has them"
            if of_feed
            else "give them in the pool's spec.podTemplate"
        )
        return PodRefusal(
            "QuotaExceeded",
            f"ResourceQuota {quota} refuses {workload}: it counts {amounts}, which {containers} don't name; "
            f"{give}, or leave {amounts} out of the quota",
        )
    cause = _ERROR.search(said)
    words = cause[1] if cause is not None else said
    return PodRefusal("PodRefused", f"the cluster refuses the pod of {workload}: {words[:_MOST_CHARS]}")


def refusal_to_make(said: str, worker: str) -> PodRefusal:
    """Why a worker has no StatefulSet.

    Args:
        said: the API server's answer to a write of one of its objects.
    """
    if is_of_quota(said):
        return refusal_of(said, worker)
    return PodRefusal("Refused", f"the API server refuses what worker {worker} needs: {said}")


def is_of_quota(said: str) -> bool:
    """Whether these words tell of a quota."""
    return bool(_QUOTA.search(said) or _UNSAID.search(said))
