"""What keeps containers of a pool's workers from running, as events: once an episode. Pure but for what was told.

Conditions say it too, in a message that comes and goes; people look at ``kubectl get events`` and ``kubectl describe``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from chandlery.core.manifests import Key
from chandlery.operator.conditions import WorkerView

#: Reason, note and episode of an event.
Told = tuple[str, str, str]


class Troubles:
    """Which trouble of its workers' containers each pool has.

    An episode begins with the first worker whose container can't run for a reason, and lasts as long as any worker's
    can't for that: an image that nobody can pull is told once, not of each worker. It has the name of that worker's pod
    (its uid), so that a container that runs for a while between two of its ends, or an operator that starts again, begins
    none anew.
    """

    def __init__(self) -> None:
        self._began: dict[Key, dict[tuple[str, str], str]] = {}

    def to_tell(self, pool: Key, status: Mapping[str, Any], workers: Sequence[WorkerView]) -> Iterator[Told]:
        """What is to be told now, also if it was told before: whoever tells knows the episode.

        Args:
            status: the pool's, as it was: what that says already was told before, by whichever operator.
        """
        before, now = self._began.get(pool, {}), dict[tuple[str, str], str]()
        for worker in workers:
            ails = worker.ails
            if ails is None or (ails.container, ails.reason) in now:
                continue
            key = ails.container, ails.reason
            episode = before.get(key, "" if _says(status, str(ails)) else worker.pod_uid)
            now[key] = episode
            if episode:
                note = f"container {ails.container} of worker {worker.name} can't run: {ails.what}; {_look(worker)}"
                yield ails.reason, note, f"container {ails.container} since pod {episode}"
        self._began[pool] = now

    def forget(self, pool: Key) -> None:
        """A pool is gone."""
        self._began.pop(pool, None)


def _says(status: Mapping[str, Any], words: str) -> bool:
    return any(words in one.get("message", "") for one in status.get("conditions") or () if one.get("type") == "Ready")


def _look(worker: WorkerView) -> str:
    assert worker.ails is not None
    described = f"`kubectl describe pod {worker.pod}`"
    if worker.ails.reason != "CrashLoopBackOff":
        return f"{described} tells more"
    return f"{described} and `kubectl logs {worker.pod} -c {worker.ails.container} --previous` tell why"
