"""Everything that can go wrong between people, operator, API server and workers, at once; and what is left of it.

Traders are added, edited and deleted in random order over two pools. Meanwhile pushes to workers fail, come late, twice
and in another order; the operator is killed every few seconds, and the API server too where that may be.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import psutil
from tests.support.operator_stage import OperatorProcess, Stage, conditions_of, feed, pool, trader
from tests.support.simulated_workers import SimulatedWorkers

from chandlery.core.errors import UnavailableError
from chandlery.operator.kubernetes.kinds import TRADER

#: Of all pushes.
_FAILING: Final = 0.3
_POOLS: Final = ("a", "b")
#: Of Traders that are there: edited, or deleted; some of the deleted come back at once under their name.
_EDITED: Final = 0.6
_RECREATED: Final = 0.3


@dataclass
class Chances:
    """What shall happen.

    Attributes:
        changes: adds, edits and deletes. names: of so many Traders. pause_s: mean time between two changes.
        pushes: changes go on until so many assignments were pushed, ten times as many changes at most. A busy operator
            takes many of them up in one push.
        operator_lives_s: between two kills. api_kills: of the API server, spread evenly.
        seed: of everything random but what the machine itself does.
    """

    changes: int
    names: int = 60
    pushes: int = 0
    pause_s: float = 0.0
    operator_lives_s: tuple[float, float] = (1.0, 3.0)
    api_kills: int = 0
    seed: int = 20_251_125


@dataclass
class Outcome:
    """What is left, and what has happened.

    Attributes:
        lost: Traders that no worker runs in their newest generation. doubled: that more than one runs.
        ghosts: in a worker though nobody wants them. unready: whose status doesn't say that they run.
        contradictions: sequences that were pushed with two contents. settled_s: from the last change until all was right.
    """

    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    ghosts: list[str] = field(default_factory=list)
    unready: list[str] = field(default_factory=list)
    contradictions: int = 0
    changes: Counter[str] = field(default_factory=Counter)
    pushes: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    operator_kills: int = 0
    api_kills: int = 0
    settled_s: float = 0.0

    @property
    def is_right(self) -> bool:
        """Whether every Trader is in one worker, in its newest generation, says so, and nothing else is there."""
        return not (self.lost or self.doubled or self.ghosts or self.unready)


class Faults:
    """What becomes of each request to a worker; ``counted`` by kind."""

    def __init__(self, chance: random.Random) -> None:
        self.counted: Counter[str] = Counter()
        self._chance = chance

    def __call__(self, method: str) -> str:
        """A fault, or none."""
        fault = ""
        if method == "PUT":
            if self._chance.random() < _FAILING:
                fault = self._chance.choice(["lost", "answer lost", "busy", "late"])
            elif self._chance.random() < 0.1:
                fault = "doubled"
        elif self._chance.random() < 0.05:
            fault = "lost"
        if fault:
            self.counted[f"{method} {fault}"] += 1
        return fault


def faulty_workers(chances: Chances) -> SimulatedWorkers:
    """Workers for :func:`unleash`."""
    return SimulatedWorkers(fault=Faults(random.Random(chances.seed)), late_s=(0.05, 2.0))


class Chaos:
    """One run over a stage with :func:`faulty_workers`.

    Args:
        arguments: of every operator. space: namespace of everything.
    """

    def __init__(self, stage: Stage, space: str, chances: Chances, arguments: tuple[str, ...]) -> None:
        self.outcome = Outcome()
        self._stage = stage
        self._space = space
        self._chances = chances
        self._arguments = arguments
        self._chance = random.Random(chances.seed + 1)
        self._live: set[str] = set()
        self._operator: OperatorProcess | None = None
        self._enough = asyncio.Event()

    async def unleash(self, patience_s: float) -> Outcome:
        """Do everything, then wait until all is right, or for so long."""
        stage, space = self._stage, self._space
        self._operator = await stage.operator(*self._arguments)
        room = -(-self._chances.names // 2) + 10
        await stage.apply(feed(space), *(pool(space, name, workers=2, room=room) for name in _POOLS))
        killing = asyncio.create_task(self._kill_operators())
        try:
            await self._change()
        finally:
            # Not cancelled: one that is just starting would live on beside the next.
            self._enough.set()
            await killing
        began_s = time.monotonic()
        while True:
            if self._operator.process is None or self._operator.process.poll() is not None:
                self._operator = await self._start()
            await self._look()
            self.outcome.settled_s = time.monotonic() - began_s
            if self.outcome.is_right and not stage.workers.late:
                break
            if self.outcome.settled_s > patience_s:
                break
            await asyncio.sleep(0.1)
        histories = [set(pod.pushed) for pod in stage.workers.pods.values()]
        self.outcome.contradictions = sum(
            len(history) - len({sequence for sequence, _ in history}) for history in histories
        )
        self.outcome.pushes = stage.workers.pushes
        faults = stage.workers.fault
        self.outcome.faults = faults.counted if isinstance(faults, Faults) else Counter()
        return self.outcome

    async def _change(self) -> None:
        chances, chance = self._chances, self._chance
        kills = {chances.changes * (n + 1) // (chances.api_kills + 1) for n in range(chances.api_kills)}
        for number in range(10 * chances.changes):
            if number >= chances.changes and self._stage.workers.pushes >= chances.pushes:
                return
            if number in kills:
                self._kill_api_server()
            name = f"t{chance.randrange(chances.names):03d}"
            if name not in self._live or chance.random() < _EDITED:
                self.outcome.changes["edited" if name in self._live else "added"] += 1
                await self._put(name, chance.choice(_POOLS))
            else:
                self.outcome.changes["deleted"] += 1
                await self._insist(partial(self._stage.api.delete, TRADER, self._space, name))
                self._live.discard(name)
                if chance.random() < _RECREATED:
                    self.outcome.changes["added"] += 1
                    await self._put(name, "a")
            if chances.pause_s:
                await asyncio.sleep(chance.expovariate(1 / chances.pause_s))

    async def _put(self, name: str, where: str) -> None:
        manifest = trader(self._space, name, in_pool=where, fast=self._chance.randrange(2, 50))
        await self._insist(partial(self._stage.put, manifest))
        self._live.add(name)

    async def _insist(self, act: Callable[[], Any]) -> None:
        """Do it as a person does: again, as long as the API server doesn't answer."""
        deadline = time.monotonic() + 60.0  # it is back within 5 s
        while True:
            try:
                await act()
                return
            except UnavailableError:
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(0.1)

    async def _kill_operators(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._chance.uniform(*self._chances.operator_lives_s)):
                    await self._enough.wait()
                return
            assert self._operator is not None
            self._operator.kill()
            self.outcome.operator_kills += 1
            self._operator = await self._start()

    async def _start(self) -> OperatorProcess:
        """An operator; one that finds no API server may end, and is started again as the kubelet would."""
        while True:
            try:
                return await self._stage.operator(*self._arguments)
            except (AssertionError, UnavailableError):
                await asyncio.sleep(0.5)

    def _kill_api_server(self) -> None:
        os.kill(api_server_of(self._stage.kubeconfig.parent), signal.SIGKILL)
        self.outcome.api_kills += 1

    async def _look(self) -> None:
        outcome = self.outcome
        try:
            items = (await self._stage.api.list(TRADER, self._space)).items
        except UnavailableError:
            outcome.unready = ["the API server doesn't answer"]
            return
        wanted = {f"{self._space}/{item['metadata']['name']}": item["metadata"]["generation"] for item in items}
        there = {
            name: [generation for _, generation in where]
            for name, where in self._stage.workers.traders().items()
            if name.startswith(f"{self._space}/")
        }
        outcome.lost = sorted(name for name, generation in wanted.items() if generation not in there.get(name, ()))
        # Whatever the API server has lost of what it had answered is lost as well.
        outcome.lost += sorted({f"{self._space}/{name}" for name in self._live} - set(wanted))
        outcome.doubled = sorted(name for name, generations in there.items() if len(generations) > 1)
        outcome.ghosts = sorted(set(there) - set(wanted))
        outcome.ghosts += sorted(set(wanted) - {f"{self._space}/{name}" for name in self._live})
        outcome.unready = sorted(item["metadata"]["name"] for item in items if not _says_running(item))


def _says_running(item: dict[str, Any]) -> bool:
    current = item.get("status", {}).get("observedGeneration") == item["metadata"]["generation"]
    return bool(current and conditions_of(item).get("Ready", {}).get("reason") == "Running")


def api_server_of(folder: Path) -> int:
    """The process id of a cluster's API server."""
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if words and words[0].endswith("kube-apiserver") and any(str(folder) in word for word in words):
            return int(process.pid)
    raise AssertionError(f"no API server of {folder}")
