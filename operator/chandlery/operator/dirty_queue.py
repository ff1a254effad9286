"""What must be looked at again: keys with a due time, one reconcile a key at a time. No I/O of its own."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Hashable
from typing import Final, Generic, TypeVar

from chandlery.core.errors import ChandleryError

log = logging.getLogger("chandlery.operator.queue")

#: Events come in bursts (`kubectl apply` of a folder): this long what follows the first joins it.
WINDOW_S: Final = 0.05
#: After work that took long (a big pool, a slow API server, a busy machine) what follows is gathered for as long, up to this:
#: where there is much to do, fewer rounds do more each, instead of one round for each event.
LONGEST_REST_S: Final = 2.0
_FIRST_BACKOFF_S: Final = 0.5
_LAST_BACKOFF_S: Final = 30.0

KeyT = TypeVar("KeyT", bound=Hashable)


class DirtyQueue(Generic[KeyT]):
    """Calls ``work(key)`` for every key marked, after its delay, never twice at once for one key.

    A key marked while its work runs is worked on again afterwards: when it has rested for as long as the work took, 2 s at
    most. Work that raises is repeated with backoff.

    Attributes:
        runs, failures: how often work was called, and raised.
    """

    def __init__(self, work: Callable[[KeyT], Awaitable[None]]) -> None:
        self.runs = 0
        self.failures = 0
        self._work = work
        self._due_s: dict[KeyT, float] = {}
        self._running: dict[KeyT, asyncio.Task[None]] = {}
        self._failed: dict[KeyT, int] = {}
        self._rests_until_s: dict[KeyT, float] = {}
        self._wake = asyncio.Event()

    def __len__(self) -> int:
        """Keys that wait or are worked on."""
        return len(self._due_s.keys() | self._running.keys())

    def mark(self, key: KeyT, delay_s: float = WINDOW_S) -> None:
        """Have a key worked on ``delay_s`` from now, or sooner if it is due sooner."""
        due_s = asyncio.get_running_loop().time() + delay_s
        if due_s < self._due_s.get(key, float("inf")):
            self._due_s[key] = due_s
            self._wake.set()

    async def run(self) -> None:
        """Work until cancelled; work under way is cancelled with it."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                next_s = self._start_due(loop.time())
                self._wake.clear()
                try:
                    async with asyncio.timeout_at(next_s):
                        await self._wake.wait()
                except TimeoutError:
                    continue
        finally:
            for task in self._running.values():
                task.cancel()
            await asyncio.gather(*self._running.values(), return_exceptions=True)

    def _start_due(self, now_s: float) -> float | None:
        """Start what is due; returns when the next is."""
        next_s: float | None = None
        for key, due_s in list(self._due_s.items()):
            if key in self._running:
                continue
            due_s = max(due_s, self._rests_until_s.get(key, 0.0))
            if due_s <= now_s:
                del self._due_s[key]
                task = asyncio.create_task(self._one(key), name=f"reconcile {key}")
                self._running[key] = task
            elif next_s is None or due_s < next_s:
                next_s = due_s
        return next_s

    async def _one(self, key: KeyT) -> None:
        self.runs += 1
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        try:
            await self._work(key)
            self._failed.pop(key, None)
        except ChandleryError as error:
            self._again(key)
            log.warning("reconcile failed; trying again", extra={"key": str(key), "problem": str(error)})
        except Exception:
            # One key's defect must not stop the others; it is told with everything that is known.
            self._again(key)
            log.exception("reconcile failed by a defect; trying again", extra={"key": str(key)})
        finally:
            del self._running[key]
            ended_s = loop.time()
            resting = {one: until_s for one, until_s in self._rests_until_s.items() if until_s > ended_s}
            self._rests_until_s = {**resting, key: ended_s + min(ended_s - began_s, LONGEST_REST_S)}
            self._wake.set()

    def _again(self, key: KeyT) -> None:
        self.failures += 1
        failed = self._failed[key] = self._failed.get(key, 0) + 1
        self.mark(key, min(_FIRST_BACKOFF_S * 2.0 ** min(failed - 1, 10), _LAST_BACKOFF_S))
