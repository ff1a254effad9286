"""Kubernetes events on what a person should know, once each: names are derived from what they say, so that one
that is there already is refused by the API server and that is that. One that it could not take now is tried again: what
brought it about isn't said twice."""

from __future__ import annotations

import asyncio
import datetime as dt
import hashlib
import logging
import random
from typing import Final, Literal, Protocol

from chandlery.core.errors import ChandleryError, UnavailableError
from chandlery.core.resources import API_VERSION, MEANWHILE_NOTHING
from chandlery.operator.cache import Held
from chandlery.operator.conditions import State
from chandlery.operator.kubernetes.api import ExistsError, GoneError, Kind, Object, backoff
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
#: Most that wait for an API server that is away: one for each of a thousand Traders, about a mebibyte with the longest notes.
_MOST_WAITING: Final = 1_000
_MOST_NOTE_CHARS: Final = 1_000


class Creator(Protocol):
    """What of the API server is needed."""

    async def create(self, kind: Kind, body: Object) -> Object: ...


class Events:
    """Tells what becomes of resources.

    Args:
        instance: name of this operator's pod.

    Attributes:
        told: how many events were written. dropped: how many will not be: refused, or one too many to wait.
    """

    def __init__(self, api: Creator, instance: str) -> None:
        self.told = 0
        self.dropped = 0
        self._api = api
        self._instance = instance
        self._names: dict[str, None] = {}
        self._waiting: dict[str, Object] = {}
        self._some_wait = asyncio.Event()
        self._chance = random.Random()

    def __len__(self) -> int:
        """Events that wait to be tried again."""
        return len(self._waiting)

    async def run(self) -> None:
        """Try again what the API server could not take, until it does; runs until cancelled."""
        attempt = 0
        while True:
            await self._some_wait.wait()
            attempt += 1
            await backoff(attempt, self._chance.random())
            while self._waiting:
                name = next(iter(self._waiting))
                if not await self._try(name, self._waiting.pop(name)):
                    break  # it waits again, behind the others
                attempt = 0
            else:
                self._some_wait.clear()
                attempt = 0

    async def tell_state(self, held: Held, state: State) -> None:
        """Tell of a state that a person should look at."""
        if state.reason not in _USUAL:
            await self.tell(
                held, "Warning" if state.stalled or not state.ready else "Normal", state.reason, state.message
            )

    async def tell(self, held: Held, level: Literal["Normal", "Warning"], reason: str, note: str) -> None:
        """Tell something of a resource, unless that was told before of this generation. Failing is no failure: what the
        API server could not take is tried again, what it refused may be told again."""
        # Who suspends and resumes a kept version's pool is told nothing that wasn't told before.
        said = f"{held.uid}/{held.generation}/{reason}/{note.partition(MEANWHILE_NOTHING)[0]}"
        name = f"{held.key[1]}.{hashlib.sha256(said.encode()).hexdigest()[:16]}"
        if name not in self._names:
            self._waiting.pop(name, None)
            await self._try(name, self._event(held, level, reason, note, name))

    async def _try(self, name: str, body: Object) -> bool:
        """Write one; False: it could not be taken now, and waits."""
        self._names[name] = None  # also while it is under way: whoever says it meanwhile has it told
        while len(self._names) > _MOST_REMEMBERED:
            del self._names[next(iter(self._names))]
        try:
            await self._api.create(EVENT, body)
            self.told += 1
        except ExistsError:
            pass  # told by the operator before us, or by an attempt whose answer was lost
        except ChandleryError as error:
            self._names.pop(name, None)
            if isinstance(error, UnavailableError) and not isinstance(error, GoneError):
                self._wait(name, body)
                log.warning("event not told yet; it is tried again", extra=_facts(body, error))
                return False
            self.dropped += 1  # its namespace is gone, or it is refused
            log.warning("event not told", extra=_facts(body, error))
        return True

    def _wait(self, name: str, body: Object) -> None:
        self._waiting[name] = body
        while len(self._waiting) > _MOST_WAITING:
            del self._waiting[next(iter(self._waiting))]
            self.dropped += 1
        self._some_wait.set()

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


def _facts(body: Object, error: ChandleryError) -> Object:
    """For the log."""
    of = body["regarding"]
    return {"reason": body["reason"], "of": f"{of['namespace']}/{of['name']}", "problem": str(error)}
