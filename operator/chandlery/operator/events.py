"""Kubernetes events on what a person should know, once each: names are derived from what they say, so that one
that is there already is refused by the API server and that is that."""

from __future__ import annotations

import datetime as dt
import hashlib
import logging
from typing import Final, Literal, Protocol

from chandlery.core.errors import ChandleryError
from chandlery.core.resources import API_VERSION
from chandlery.operator.cache import Held
from chandlery.operator.conditions import State
from chandlery.operator.kubernetes.api import Kind, Object, StaleError
from chandlery.operator.kubernetes.kinds import EVENT

log = logging.getLogger("chandlery.operator.events")

#: What comes and goes with every start is no news to a person.
_USUAL: Final = frozenset(
    {
        "Pending",
        "Starting",
        "WorkerStarting",
        "WorkersStarting",
        "Running",
        "Warming",
        "Idle",
        "Suspended",
        "Rolling",
        # Told of the pool, once for all of a worker's Traders.
        "WorkerUnready",
        "WorkerUnreachable",
    }
)
_MOST_REMEMBERED: Final = 10_000
_MOST_NOTE_CHARS: Final = 1_000


class Creator(Protocol):
    """What of the API server is needed."""

    async def create(self, kind: Kind, body: Object) -> Object: ...


class Events:
    """Tells what becomes of resources.

    Args:
        instance: name of this operator's pod.
    """

    def __init__(self, api: Creator, instance: str) -> None:
        self.told = 0
        self._api = api
        self._instance = instance
        self._names: dict[str, None] = {}

    async def tell_state(self, held: Held, state: State) -> None:
        """Tell of a state that a person should look at."""
        if state.reason not in _USUAL:
            await self.tell(
                held, "Warning" if state.stalled or not state.ready else "Normal", state.reason, state.message
            )

    async def tell(self, held: Held, level: Literal["Normal", "Warning"], reason: str, note: str) -> None:
        """Tell something of a resource, unless that was told before of this generation. Failing is no failure: it may
        be told again."""
        said = f"{held.uid}/{held.generation}/{reason}/{note}"
        name = f"{held.key[1]}.{hashlib.sha256(said.encode()).hexdigest()[:16]}"
        if name in self._names:
            return
        self._names[name] = None
        while len(self._names) > _MOST_REMEMBERED:
            del self._names[next(iter(self._names))]
        try:
            await self._api.create(EVENT, self._event(held, level, reason, note, name))
            self.told += 1
        except StaleError:
            pass  # told by the operator before us
        except ChandleryError as error:
            self._names.pop(name, None)  # whoever says it again has it told then
            log.warning("event not told", extra={"reason": reason, "of": "/".join(held.key), "problem": str(error)})

    def _event(self, held: Held, level: str, reason: str, note: str, name: str) -> Object:
        now = dt.datetime.now(dt.UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        return {
            "metadata": {"name": name, "namespace": held.key[0]},
            "eventTime": now,
            "reportingController": "chandlery.dev/operator",
            "reportingInstance": self._instance[:128],
            "action": "Reconcile",
            "reason": reason,
            "type": level,
            "note": note[:_MOST_NOTE_CHARS],
            "regarding": {
                "apiVersion": API_VERSION,
                "kind": held.kind,
                "namespace": held.key[0],
                "name": held.key[1],
                "uid": held.uid,
            },
        }
