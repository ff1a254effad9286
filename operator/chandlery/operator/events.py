"""Kubernetes events on what a person should know, once each.

Names are derived from what events say: one that is there already is refused by the API server, and that is that. So
whoever writes a status tells of it first. An operator that is killed in between has its successor find the status as it
was, and say the same again under the same name; the other way round nobody would. One that the API server could not take
now is tried again, and holds its status back for a while. Where one waits, those that come after it wait too, without an
attempt of their own: whoever reconciles is not to find out for each that events aren't taken.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import hashlib
import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, Protocol

from chandlery.core.errors import ChandleryError, UnavailableError
from chandlery.core.resources import API_VERSION, MEANWHILE_NOTHING
from chandlery.operator.cache import Held
from chandlery.operator.changes import stands
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
#: So long nobody tells again what was refused (403): where events may not be written, each look at a Trader would ask.
_REFUSED_S: Final = 300.0
#: So long a status waits for its event. A request that is too many, or a conflict, is over within seconds; where events alone
#: are not taken (by a webhook that is away) the status matters more.
_PATIENCE_S: Final = 10.0
#: So long whoever tells waits for the API server. The slowest write on a busy machine took 1 s; where it takes longer, its
#: reconcile goes on and the event is tried again. It may have been made all the same: the next attempt finds its name taken.
_FIRST_ATTEMPT_S: Final = 2.0


class Creator(Protocol):
    """What of the API server is needed."""

    async def create(self, kind: Kind, body: Object) -> Object: ...


@dataclass(frozen=True, slots=True)
class _Waiting:
    """An event to be tried again, since when (monotonic s), and how often that failed while it waited."""

    body: Object
    since_s: float
    failures: int = 0


class Events:
    """Tells what becomes of resources.

    Args:
        instance: name of this operator's pod. clock: steady, s.

    Attributes:
        told: how many events were written. dropped: how many will not be: refused, or one too many to wait.
    """

    def __init__(self, api: Creator, instance: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.told = 0
        self.dropped = 0
        self._api = api
        self._instance = instance
        self._clock = clock
        self._names: dict[str, None] = {}
        self._refused_s: dict[str, float] = {}
        self._waiting: dict[str, _Waiting] = {}
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
                # What failed least often first: one that is never taken holds up none that comes later.
                name, waiting = min(self._waiting.items(), key=lambda item: item[1].failures)
                if not await self._try(name, waiting.body):
                    break  # it waits again, behind the others
                attempt = 0
            else:
                self._some_wait.clear()
                attempt = 0

    async def tell_state(self, held: Held, state: State) -> bool:
        """Tell of a state that a person should look at, as :meth:`tell`; not of one that its status says already: that was
        told before, by whichever operator, and its event may have expired since."""
        if state.reason in _USUAL or stands(held.status, state.reason, state.message, held.generation):
            return True
        level: Literal["Normal", "Warning"] = "Warning" if state.stalled or not state.ready else "Normal"
        return await self.tell(held, level, state.reason, state.message, state.episode)

    async def tell(
        self,
        held: Held,
        level: Literal["Normal", "Warning"],
        reason: str,
        note: str,
        episode: str = "",
        *,
        outlasts_edits: bool = False,
    ) -> bool:
        """Tell something of a resource, unless that was told before of this generation. Failing is no failure: what the
        API server could not take is tried again, what it refused may be told again after some minutes.

        Args:
            episode: within which the reason is told once, whatever the note; empty: each note is. outlasts_edits: the
                episode isn't over with an edit of the resource.

        Returns:
            Whether the status that goes with it may be written. False: it waits to be tried again. Ask again soon.
        """
        # Who suspends and resumes a kept version's pool is told nothing that wasn't told before.
        generation = "" if outlasts_edits else held.generation
        said = f"{held.uid}/{generation}/{reason}/{episode or note.partition(MEANWHILE_NOTHING)[0]}"
        name = f"{held.key[1]}.{hashlib.sha256(said.encode()).hexdigest()[:16]}"
        if name in self._names or self._was_refused(name):
            return True
        if name in self._waiting:
            return self._has_waited(name)
        body = self._event(held, level, reason, note, name)
        if self._waiting:
            self._wait(name, _Waiting(body, self._clock()))
            return self._has_waited(name)
        return await self._try(name, body, _FIRST_ATTEMPT_S) or self._has_waited(name)

    def _was_refused(self, name: str) -> bool:
        refused_s = self._refused_s.get(name)
        return refused_s is not None and self._clock() - refused_s < _REFUSED_S

    def _has_waited(self, name: str) -> bool:
        """Whether an event that waits holds nothing back any more."""
        waiting = self._waiting.get(name)
        is_full = len(self._waiting) >= _MOST_WAITING  # others have to go for it: it may never be told
        return waiting is None or is_full or self._clock() - waiting.since_s >= _PATIENCE_S

    async def _try(self, name: str, body: Object, timeout_s: float | None = None) -> bool:
        """Write one; False: it could not be taken now, and waits.

        Args:
            timeout_s: for so long, at most; None: as long as any request.
        """
        try:
            await self._create(body, timeout_s)
            self.told += 1
            self._remember(name)
        except ExistsError:
            self._remember(name)  # told by the operator before us, or by an attempt whose answer was lost
        except ChandleryError as error:
            if isinstance(error, UnavailableError) and not isinstance(error, GoneError):
                before = self._waiting.get(name) or _Waiting(body, self._clock())
                self._wait(name, replace(before, failures=before.failures + 1))
                log.warning("event not told yet; it is tried again", extra=_facts(body, error))
                return False
            self.dropped += 1  # its namespace is gone, or it is refused
            self._refused_s.pop(name, None)
            self._refused_s[name] = self._clock()
            _keep_newest(self._refused_s)
            log.warning("event not told", extra=_facts(body, error))
        self._waiting.pop(name, None)
        return True

    async def _create(self, body: Object, timeout_s: float | None) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                await self._api.create(EVENT, body)
        except TimeoutError:
            raise UnavailableError(f"no answer within {timeout_s:g} s") from None

    def _remember(self, name: str) -> None:
        self._refused_s.pop(name, None)
        self._names[name] = None
        _keep_newest(self._names)

    def _wait(self, name: str, waiting: _Waiting) -> None:
        """Have one tried again, behind the others."""
        self._waiting.pop(name, None)
        self._waiting[name] = waiting
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


def _keep_newest(names: dict[str, Any]) -> None:
    while len(names) > _MOST_REMEMBERED:
        del names[next(iter(names))]


def _facts(body: Object, error: ChandleryError) -> Object:
    """For the log."""
    of = body["regarding"]
    return {"reason": body["reason"], "of": f"{of['namespace']}/{of['name']}", "problem": str(error)}
