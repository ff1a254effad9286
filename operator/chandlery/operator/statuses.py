"""Writing statuses: only news, on the version they were made from, and never sooner than they may be.

Each write is a server-side apply on ``/status`` that carries the resource version it was made from (409 if that is
stale). The version that a write returns is remembered: the watch brings it later, and a second write must not be
made on what the first has replaced. Whatever isn't written is looked at again by the caller.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol

import msgspec

from chandlery.core.resources import TraderPool
from chandlery.core.resources.status import merge_conditions, read_status, status_manifest
from chandlery.operator.cache import Held
from chandlery.operator.conditions import RIDING
from chandlery.operator.kubernetes.api import GoneError, Kind, Object, StaleError

#: Figures (and words that move as they do) that moved without any news are written at most this often.
FIGURES_PERIOD_S: Final = 600.0
#: A first status that only says "under way" waits this long: most are Ready by then, which saves a write.
PATIENCE_S: Final = 1.0
#: A pool's status, which every Trader changes, is written at most once a second.
POOL_PERIOD_S: Final = 1.0

Outcome = Literal["unchanged", "written", "gone", "stale"]


class Writer(Protocol):
    """What of the API server is needed."""

    async def apply(self, kind: Kind, body: Object, *, subresource: str = "") -> Object: ...


@dataclass(slots=True)
class _Last:
    """The last that is known of one resource's status: by which version, and since when (monotonic s)."""

    version: int
    status: Any
    at_s: float


class Statuses:
    """Statuses of all resources.

    Attributes:
        writes, conflicts: how many there were.
    """

    def __init__(self, api: Writer, clock: Callable[[], float] = time.monotonic) -> None:
        self.writes = 0
        self.conflicts = 0
        self._api = api
        self._clock = clock
        self._last: dict[str, _Last] = {}
        self._first_seen_s: dict[tuple[str, int], float] = {}

    def wait_s(self, held: Held, status: Any, *, words_ride: bool = False) -> float | None:
        """Seconds until this status may be written: 0 now, None: it says nothing new.

        Args:
            status: the whole status as it should be, its conditions' transition times those of now.
            words_ride: other messages of the same conditions and reasons are no news either.
        """
        last = self._known(held)
        merged = _merged(last.status, status)
        if _news(merged, words_ride) == _news(last.status, words_ride):
            figures_wait_s = last.at_s + FIGURES_PERIOD_S - self._clock()
            return None if merged == last.status or figures_wait_s > 0 else 0.0
        if held.kind == TraderPool.KIND:
            return max(0.0, last.at_s + POOL_PERIOD_S - self._clock())
        if last.status.observed_generation != held.generation and _under_way(merged):
            first_s = self._first_seen_s.setdefault((held.uid, held.generation), self._clock())
            return max(0.0, first_s + PATIENCE_S - self._clock())
        return 0.0

    async def write(self, kind: Kind, held: Held, status: Any) -> Outcome:
        """Write a status if it says anything new.

        Returns:
            ``stale``: the resource is another version by now; ``gone``: it isn't there. Look again.

        Raises:
            ChandleryError: not written.
        """
        last = self._known(held)
        merged = _merged(last.status, status)
        if merged == last.status:
            return "unchanged"
        body: Object = {
            "metadata": {"name": held.key[1], "namespace": held.key[0], "resourceVersion": str(last.version)},
            "status": status_manifest(merged),
        }
        try:
            answer = await self._api.apply(kind, body, subresource="status")
        except StaleError:
            self.conflicts += 1
            if last.version > held.version:
                # Somebody wrote after us, and the watch hasn't brought that yet: go by what it brings.
                self._last.pop(held.uid, None)
            return "stale"
        except GoneError:
            self.forget(held.uid)
            return "gone"
        self.writes += 1
        self._last[held.uid] = _Last(int(answer["metadata"]["resourceVersion"]), merged, self._clock())
        self._first_seen_s.pop((held.uid, held.generation), None)
        return "written"

    def keep_only(self, uids: Collection[str]) -> None:
        """Forget all other resources."""
        for uid in {*self._last, *(uid for uid, _ in self._first_seen_s)} - set(uids):
            self.forget(uid)

    def forget(self, uid: str) -> None:
        """A resource is gone."""
        self._last.pop(uid, None)
        for key in [key for key in self._first_seen_s if key[0] == uid]:
            del self._first_seen_s[key]

    def _known(self, held: Held) -> _Last:
        last = self._last.get(held.uid)
        if last is not None and last.version >= held.version:
            return last
        # Somebody changed the resource since our last write (or that was before this process): what is there counts.
        at_s = last.at_s if last is not None else self._clock()
        last = self._last[held.uid] = _Last(held.version, read_status(held.kind, held.status), at_s)
        return last


def _merged(before: Any, after: Any) -> Any:
    return msgspec.structs.replace(after, conditions=merge_conditions(before.conditions, after.conditions))


def _news(status: Any, words_ride: bool) -> Any:
    """The status without what may change without being news."""
    blank: dict[str, Any] = {name: None for name in RIDING if hasattr(status, name)}
    if words_ride:
        blank["conditions"] = [msgspec.structs.replace(one, message="") for one in status.conditions]
    return msgspec.structs.replace(status, **blank)


def _under_way(status: Any) -> bool:
    return any(condition.type == "Reconciling" and condition.status == "True" for condition in status.conditions)
