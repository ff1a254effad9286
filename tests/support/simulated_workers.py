"""Workers' pods simulated in one process: the pod's API as feed and supervisor answer it, and no market behind it.

kwok says that pods run; their addresses are loopback addresses, on each of which this answers. What a pod has taken in
lives as long as it does, like a feed's own file.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec
from aiohttp import web

from chandlery.core.assignment import (
    Assignment,
    TraderAssignment,
    TraderState,
    TraderStatus,
    WorkerStatus,
    content_hash,
    decode_assignment,
)

CATALOGUE: list[dict[str, Any]] = [
    {"name": "sma-cross", "parameters": {"fast": {"type": "int", "default": 9}, "slow": {"type": "int", "default": 21}}}
]


@dataclass
class SimulatedWorker:
    """One pod.

    Attributes:
        pushed: sequence and hash of every assignment as it came, repetitions and refused ones too.
        supervisor: whether it says that its supervisor is connected. denies: whether it takes no token.
        feed: what its feed says of itself.
    """

    assignment: Assignment | None = None
    version: int = field(default_factory=lambda: time.time_ns() // 1_000_000)
    pushed: list[tuple[int, str]] = field(default_factory=list)
    refused: int = 0
    supervisor: bool = True
    denies: bool = False
    feed: dict[str, Any] = field(default_factory=dict)
    states: dict[str, TraderStatus] = field(default_factory=dict)
    successors: dict[str, TraderStatus] = field(default_factory=dict)
    news: asyncio.Event = field(default_factory=asyncio.Event)

    def bump(self) -> None:
        """There is news."""
        self.version += 1
        self.news.set()
        self.news = asyncio.Event()

    def take(self, assignment: Assignment, state_of: Callable[[TraderAssignment], TraderStatus]) -> int:
        """What the feed does with an assignment; returns the HTTP status."""
        if content_hash(assignment.traders) != assignment.hash:
            return 400
        self.pushed.append((assignment.sequence, assignment.hash))
        held = self.assignment
        if held is not None and assignment.sequence <= held.sequence:
            same = (assignment.sequence, assignment.hash) == (held.sequence, held.hash)
            self.refused += not same
            return 200 if same else 409
        self.assignment = assignment
        self.states, self.successors = {}, {}
        for one in sorted(assignment.traders, key=lambda each: each.incarnation):
            into = self.successors if one.trader in self.states else self.states
            into[one.trader] = state_of(one)
        self.bump()
        return 200

    def status(self) -> WorkerStatus:
        """What ``GET /v1/status`` answers."""
        held = self.assignment
        return WorkerStatus(
            worker=held.worker if held else "",
            version=self.version,
            sequence=held.sequence if held else 0,
            hash=held.hash if held else "",
            received_sequence=held.sequence if held else 0,
            supervisor_connected=self.supervisor,
            traders=self.states,
            catalogue=CATALOGUE,
            feed=self.feed,
            successors=self.successors,
        )


def active(assigned: TraderAssignment) -> TraderStatus:
    """A trader that runs as assigned, on a market whose candles close by this machine's clock, without any delay."""
    newest_ms = time.time_ns() // 1_000_000_000 * 1_000 - 1_000
    states: dict[str, TraderState] = {"suspended": "Suspended", "standby": "Warm", "active": "Active"}
    if assigned.until_ms is not None:
        newest_ms = min(newest_ms, assigned.until_ms - 1_000)
    return TraderStatus(
        states[assigned.mode] if assigned.until_ms is None else "Retired",
        generation=assigned.generation, incarnation=assigned.incarnation,
        code="simulated", warm_have=50, warm_need=50, last_open_time_ms=newest_ms if assigned.mode == "active" else 0,
        until_ms=assigned.until_ms,
    )  # fmt: skip


class SimulatedWorkers:
    """Every pod, by its address.

    Args:
        port: the port of workers. fault: asked before each request with its method; returns "", "lost" (no answer, and
            nothing done), "answer lost" (done, and no answer), "busy" (503), "late" (no answer, done later, after
            others maybe) or "doubled" (done now and once more later).
        late_s: how much later, from and to.

    Attributes:
        late: what is still to come.
    """

    def __init__(
        self,
        port: int = 0,
        fault: Callable[[str], str] = lambda _method: "",
        late_s: tuple[float, float] = (0.05, 1.0),
    ) -> None:
        self.pods: dict[str, SimulatedWorker] = {}
        self.state_of: Callable[[TraderAssignment], TraderStatus] = active
        self.pushes = 0
        self.port = port
        self.fault = fault
        self.late: set[asyncio.Task[None]] = set()
        self._late_s = late_s
        self._chance = random.Random(7)
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_put("/v1/assignment", self._put)
        app.router.add_get("/v1/status", self._get)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)

    async def start(self) -> None:
        """Answer on all loopback addresses."""
        await self._runner.setup()
        await web.TCPSite(self._runner, "0.0.0.0", self.port, reuse_address=True).start()

    async def stop(self) -> None:
        """Answer no more."""
        for task in self.late:
            task.cancel()
        for pod in self.pods.values():
            pod.bump()
        await self._runner.cleanup()

    def pod(self, address: str) -> SimulatedWorker:
        """The pod of an address."""
        return self.pods.setdefault(address, SimulatedWorker())

    def restarted(self, address: str) -> None:
        """The pod was replaced: it knows nothing."""
        self.pods.pop(address, None)

    def traders(self) -> dict[str, list[tuple[str, int]]]:
        """Trader → (address, generation) of every pod that runs it."""
        found: dict[str, list[tuple[str, int]]] = {}
        for address, pod in self.pods.items():
            for one in pod.assignment.traders if pod.assignment else []:
                found.setdefault(one.trader, []).append((address, one.generation))
        return found

    def _here(self, request: web.Request) -> SimulatedWorker:
        assert request.transport is not None
        return self.pod(request.transport.get_extra_info("sockname")[0])

    async def _put(self, request: web.Request) -> web.StreamResponse:
        self.pushes += 1
        fault = self.fault("PUT")
        body = await request.read()
        if fault == "lost":
            return self._cut(request)
        if fault == "busy":
            return web.Response(status=503)
        pod = self._here(request)
        if fault in ("late", "doubled"):
            task = asyncio.create_task(self._take_later(pod, body))
            self.late.add(task)
            task.add_done_callback(self.late.discard)
            if fault == "late":
                return self._cut(request)
        status = pod.take(decode_assignment(body), self.state_of)
        if fault == "answer lost":
            return self._cut(request)
        sequence = pod.assignment.sequence if pod.assignment else 0
        return web.json_response({"received_sequence": sequence, "sequence": sequence}, status=status)

    async def _take_later(self, pod: SimulatedWorker, body: bytes) -> None:
        await asyncio.sleep(self._chance.uniform(*self._late_s))
        pod.take(decode_assignment(body), self.state_of)

    async def _get(self, request: web.Request) -> web.StreamResponse:
        if self.fault("GET") == "lost":
            return self._cut(request)
        pod = self._here(request)
        if pod.denies:
            return web.Response(status=401)
        wait_s = int(request.query.get("wait_ms", "0")) / 1000
        if wait_s and pod.version <= int(request.query.get("after", "0")):
            try:
                async with asyncio.timeout(wait_s):
                    await pod.news.wait()
            except TimeoutError:
                pass
        return web.Response(body=msgspec.json.encode(pod.status()), content_type="application/json")

    @staticmethod
    def _cut(request: web.Request) -> web.StreamResponse:
        if request.transport is not None:
            request.transport.abort()
        return web.Response(status=500)
