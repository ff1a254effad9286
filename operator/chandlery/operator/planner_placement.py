"""Which worker of a pool runs which trader: sticky, first fit, within bounds. Pure.

Rules, in this order:

1. A trader stays where it is, as long as its worker stays and has room for it: first those that run as they
   shall, then those that have been edited and may have grown, one after the other, beside what the others still run.
2. Workers above ``max`` go at once: empty ones first, then the last.
3. A worker not Ready for too long is *lost*: its traders move to others that can be made, where there is room. Of the workers with an
   older template one at a time is emptied into Ready ones with room, also beside one that can't be made.
4. New traders fill the first worker with room (in order of number, one that can't be made last); none has room: a new
   worker, up to ``max``; then a lost worker, whose place is better than none; then they wait.
5. There are at least ``min`` workers, and ``spare`` empty ones within ``max``.
6. A worker that isn't needed goes after a delay: empty ones first, then the last whose traders fit elsewhere.

A trader that runs leaves its worker only when its successor has taken over: until then it takes its room there
(*leaving*), and a worker that goes stays for so long (*retiring*).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final

from chandlery.core.assignment import SeriesRef
from chandlery.operator.planner_standing import lost_at_ms
from chandlery.operator.planner_types import Delays

#: A ConfigMap, in which an assignment is kept, holds 1 MiB: what is around the traders, and some room.
MOST_ASSIGNMENT_BYTES: Final = 900 * 1024

Wanted = Mapping[str, frozenset[SeriesRef]]
"""Traders by name, each with the series it reads."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a pool allows: workers; traders and series a worker, and the bytes of its encoded assignment."""

    least: int
    most: int
    spare: int
    traders: int
    series: int
    assignment_bytes: int = MOST_ASSIGNMENT_BYTES


@dataclass(frozen=True, slots=True)
class Leaving:
    """What the incarnation that decides takes in its worker (by its number)."""

    number: int
    series: frozenset[SeriesRef]
    size_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Existing:
    """A worker that is there: its number, the traders in it, and for how long it has been (not) Ready.

    Attributes:
        traders: those whose home it is. leaving: those that run here, but whose successor is elsewhere, with the series
            and bytes they take. outdated, rolled_out, unmade: as :class:`WorkerNow` has them.
    """

    number: int
    traders: tuple[str, ...]
    ready: bool
    since_ms: int
    was_ready: bool
    leaving: Mapping[str, Leaving] = field(default_factory=dict)
    outdated: bool = False
    rolled_out: bool = True
    unmade: bool = False


@dataclass(slots=True)
class Placement:
    """The result.

    Attributes:
        workers: number → names of its traders, in order.
        waiting: traders that found no place. crowded: those of them for which only bytes of an assignment lack.
        surplus_since_ms: since when a worker could be missed; None: none could.
        again_ms: when a delay passes next; None: no delay is running.
        to_roll: numbers of outdated workers from which all has moved that can.
    """

    workers: dict[int, list[str]]
    waiting: list[str]
    surplus_since_ms: int | None
    again_ms: int | None
    crowded: frozenset[str] = frozenset()
    to_roll: tuple[int, ...] = ()


@dataclass(slots=True)
class _Worker:
    number: int
    ready: bool
    lost: bool
    sizes: Mapping[str, int]
    size_bytes: int = 0
    traders: dict[str, frozenset[SeriesRef]] = field(default_factory=dict)
    series: Counter[SeriesRef] = field(default_factory=Counter)
    leaving: dict[str, Leaving] = field(default_factory=dict)
    before: dict[str, Leaving] = field(default_factory=dict)
    outdated: bool = False
    rolled_out: bool = True
    unmade: bool = False

    def copy(self) -> _Worker:
        return replace(
            self,
            traders=dict(self.traders),
            series=Counter(self.series),
            leaving=dict(self.leaving),
            before=dict(self.before),
        )

    def fits(self, name: str, series: frozenset[SeriesRef], bounds: Bounds) -> bool:
        size_bytes = self.size_bytes + self.sizes.get(name, 0)
        return size_bytes <= bounds.assignment_bytes and self.fits_but_for_bytes(series, bounds)

    def fits_but_for_bytes(self, series: frozenset[SeriesRef], bounds: Bounds) -> bool:
        if len(self.traders) + len(self.leaving) >= bounds.traders:
            return False
        more = sum(1 for one in series if one not in self.series)
        return len(self.series) + more <= bounds.series

    def add(self, name: str, series: frozenset[SeriesRef]) -> None:
        self.traders[name] = series
        self.series.update(series)
        self.size_bytes += self.sizes.get(name, 0)

    def remove(self, name: str) -> None:
        self.size_bytes -= self.sizes.get(name, 0)
        self._forget(self.traders.pop(name))
        self.free(name)

    def reserve(self, name: str, before: Leaving) -> None:
        """Keep room for the version of a trader that runs here, until the one after it does."""
        self.before[name] = before
        self.series.update(before.series)
        self.size_bytes += before.size_bytes

    def free(self, name: str) -> None:
        """What was reserved is not needed."""
        before = self.before.pop(name, None)
        if before is not None:
            self.size_bytes -= before.size_bytes
            self._forget(before.series)

    def hold(self, name: str, leaving: Leaving) -> None:
        """Keep room for an incarnation that decides here until its successor does elsewhere."""
        self.leaving[name] = leaving
        self.series.update(leaving.series)
        self.size_bytes += leaving.size_bytes

    def release(self, name: str) -> None:
        """What was held is not needed."""
        leaving = self.leaving.pop(name)
        self.size_bytes -= leaving.size_bytes
        self._forget(leaving.series)

    def _forget(self, series: frozenset[SeriesRef]) -> None:
        for one in series:
            self.series[one] -= 1
            if not self.series[one]:
                del self.series[one]


def place(
    wanted: Wanted,
    existing: Iterable[Existing],
    bounds: Bounds,
    *,
    surplus_since_ms: int | None,
    now_ms: int,
    delays: Delays,
    sizes: Mapping[str, int] = MappingProxyType({}),
    running: Mapping[str, Leaving] = MappingProxyType({}),
    stuck: frozenset[str] = frozenset(),
    edited: frozenset[str] = frozenset(),
    alone: frozenset[str] = frozenset(),
    begun: frozenset[str] = frozenset(),
) -> Placement:
    """Place a pool's traders. The result depends on no order of the inputs.

    Args:
        sizes: bytes that each trader takes in an encoded assignment; none: 0.
        running: traders that run where they are, and may end there only when their successor decides; with what the
            one that runs takes.
        stuck: those of them that failed elsewhere: nothing is emptied of them.
        edited: traders of which another version runs: they push none of the others out of its worker.
        alone: those of them for which ``wanted`` and ``sizes`` leave out what runs: that ends before they begin.
        begun: those whose new version is on its way already: they are admitted before the others.
    """
    placer = _Placer(bounds, now_ms, delays, sizes, running, stuck, edited, alone, begun)
    placer.keep(wanted, existing)
    placer.settle()
    surplus = placer.shrink(surplus_since_ms)
    if surplus is not None and surplus + delays.shrink_ms > now_ms:
        placer.deadlines.append(surplus + delays.shrink_ms)
    placer.let_go()
    return Placement(
        workers={number: sorted(worker.traders) for number, worker in sorted(placer.everywhere().items())},
        waiting=sorted(placer.waiting),
        surplus_since_ms=surplus,
        again_ms=min(placer.deadlines, default=None),
        crowded=placer.crowded(),
        to_roll=placer.to_roll(),
    )


class _Placer:
    def __init__(
        self,
        bounds: Bounds,
        now_ms: int,
        delays: Delays,
        sizes: Mapping[str, int],
        running: Mapping[str, Leaving],
        stuck: frozenset[str],
        edited: frozenset[str],
        alone: frozenset[str],
        begun: frozenset[str],
    ) -> None:
        self.alone = alone
        self.begun = begun
        self.running = running
        self.stuck = stuck
        self.edited = edited
        self.retiring: dict[int, _Worker] = {}
        self.drained: _Worker | None = None
        self.sizes = sizes
        self.bounds = bounds
        self.now_ms = now_ms
        self.delays = delays
        self.workers: dict[int, _Worker] = {}
        self.waiting: dict[str, frozenset[SeriesRef]] = {}
        self.deadlines: list[int] = []
        self.gone: set[int] = set()

    def keep(self, wanted: Wanted, existing: Iterable[Existing]) -> None:
        """Rules 1 and 2."""
        homeless = dict(wanted)
        for one in sorted(existing, key=lambda worker: worker.number):
            worker = _Worker(
                one.number,
                one.ready,
                self._is_lost(one),
                self.sizes,
                outdated=one.outdated,
                rolled_out=one.rolled_out,
                unmade=one.unmade,
            )
            self.workers[one.number] = worker
            home = sorted(set(one.traders) & homeless.keys(), key=lambda name: (name not in self.begun, name))
            unfit = self._stay(worker, [name for name in home if name not in self.edited], homeless)
            # After those that stay: what goes must push nobody out.
            for name in sorted(one.leaving):
                worker.hold(name, one.leaving[name])
            unfit += self._stay(worker, [name for name in home if name in self.edited], homeless)
            for name in unfit:
                worker.free(name)
                self._leave(worker, name)
        self.waiting = homeless
        while len(self.workers) > self.bounds.most:
            self._drop(self._by_dispensability()[0])

    def _stay(self, worker: _Worker, names: list[str], homeless: dict[str, frozenset[SeriesRef]]) -> list[str]:
        """Those keep their place that fit; returns those that don't.

        One after the other takes what it shall, beside what the others run: an assignment never asks for more than its
        worker holds, whichever of them is through first.
        """
        unfit = []
        edited = {name: self.running[name] for name in names if name in self.edited and name in self.running}
        here = {name: held for name, held in edited.items() if held.number == worker.number}
        for name, held in here.items():
            worker.reserve(name, held)
        for name in names:
            worker.free(name)
            if worker.fits(name, homeless[name], self.bounds):
                worker.add(name, homeless.pop(name))
                if name not in self.alone:
                    continue
            else:
                unfit.append(name)
            if name in here:
                worker.reserve(name, here[name])
        return unfit

    def _is_lost(self, one: Existing) -> bool:
        if one.ready:
            return False
        at_ms = lost_at_ms(one.since_ms, one.was_ready, self.delays)
        if at_ms > self.now_ms:
            self.deadlines.append(at_ms)
            return False
        return True

    def _leave(self, worker: _Worker, name: str) -> None:
        """A trader's home is no longer here: if it runs, it does so until it has taken over elsewhere."""
        held = self.running.get(name)
        if held is not None and held.number == worker.number and not worker.lost and name not in worker.leaving:
            worker.hold(name, held)

    def settle(self) -> None:
        """Rules 3 to 5."""
        self._evacuate()
        self._drain()
        for name in sorted(self.waiting):
            worker = self._home_for(name, self.waiting[name])
            if worker is not None:
                worker.add(name, self.waiting.pop(name))
        while len(self.workers) < self.bounds.least:
            self._new()
        while self._empty(self.workers.values()) < self.bounds.spare and len(self.workers) < self.bounds.most:
            self._new()

    def _evacuate(self) -> None:
        for worker in [worker for worker in self._ordered() if worker.lost]:
            for name in sorted(worker.traders):
                series = worker.traders[name]
                refuge = self._refuge(name, series)
                if refuge is None:
                    continue
                worker.remove(name)
                refuge.add(name, series)

    def _drain(self) -> None:
        """Empty the outdated worker that is to be rolled next, as far as there is room in others."""
        # One that can't be made has nothing that could come up while another is down.
        made = [worker for worker in self.workers.values() if not worker.unmade]
        if not all(worker.ready and worker.rolled_out for worker in made):
            return
        outdated = [worker for worker in made if worker.outdated]
        if not outdated:
            return
        # Empty ones first: there is nothing to move out of them, and then room in them that need not be left again.
        drained = min(outdated, key=lambda worker: (bool(worker.traders or worker.leaving), worker.number))
        self.drained = drained
        others = sorted(
            (worker for worker in made if worker is not drained),
            key=lambda worker: (worker.outdated, worker.number),
        )
        for name in sorted(set(drained.traders) & set(self.running) - self.stuck):
            series = drained.traders[name]
            refuge = next((other for other in others if other.fits(name, series, self.bounds)), None)
            if refuge is None:
                continue
            drained.remove(name)
            self._leave(drained, name)
            refuge.add(name, series)

    def to_roll(self) -> tuple[int, ...]:
        """The outdated worker that has been emptied as far as can be."""
        drained = self.drained
        if drained is None or drained.leaving or drained.number not in self.workers:
            return ()
        if self.stuck & set(drained.traders):
            return ()  # what fails on workers with the newest template must not be taken where it runs
        return (drained.number,)

    def _refuge(self, name: str, series: frozenset[SeriesRef]) -> _Worker | None:
        # A Ready worker first: what is moved from a lost one should decide again soon.
        there = [worker for worker in self._ordered() if not worker.lost and not worker.unmade]
        sound = [worker for worker in there if worker.fits(name, series, self.bounds)]
        ready = [worker for worker in sound if worker.ready]
        return next(iter(ready or sound), None) or self._new_if_allowed()

    def _home_for(self, name: str, series: frozenset[SeriesRef]) -> _Worker | None:
        fitting = [worker for worker in self._ordered() if worker.fits(name, series, self.bounds)]
        sound = [worker for worker in fitting if not worker.lost]
        if sound:
            best = [worker for worker in sound if not worker.unmade] or sound
            return next((worker for worker in best if worker is not self.drained), best[0])
        alone = len(series) <= self.bounds.series and self.sizes.get(name, 0) <= self.bounds.assignment_bytes
        if alone and (new := self._new_if_allowed()) is not None:
            return new
        return fitting[0] if fitting else None

    def _new_if_allowed(self) -> _Worker | None:
        return self._new() if len(self.workers) < self.bounds.most else None

    def _new(self) -> _Worker:
        number = 0
        # A worker that goes in this plan can't come back in it: it would be taken for the same one.
        while number in self.workers or number in self.gone or number in self.retiring:
            number += 1
        worker = self.workers[number] = _Worker(number, ready=False, lost=False, sizes=self.sizes)
        self.deadlines.append(self.now_ms + self.delays.starting_ms)
        return worker

    def _ordered(self) -> list[_Worker]:
        return [self.workers[number] for number in sorted(self.workers)]

    def _empty(self, workers: Iterable[_Worker]) -> int:
        return sum(1 for worker in workers if not worker.traders and not worker.lost)

    def _by_dispensability(self) -> list[_Worker]:
        return sorted(
            self.workers.values(),
            key=lambda worker: (
                not worker.traders and (worker.lost or worker.unmade),
                not worker.traders and bool(worker.leaving),
                not worker.traders,
                worker.number,
            ),
            reverse=True,
        )

    def crowded(self) -> frozenset[str]:
        """Those that wait and would have a place, did their assignments take no room in the worker's."""
        return frozenset(
            name
            for name, series in self.waiting.items()
            if any(worker.fits_but_for_bytes(series, self.bounds) for worker in self.workers.values())
        )

    def _drop(self, worker: _Worker) -> None:
        del self.workers[worker.number]
        homeless = dict(worker.traders)
        for name in homeless:
            worker.remove(name)
            self._leave(worker, name)
        if worker.leaving:
            self.retiring[worker.number] = worker
        else:
            self.gone.add(worker.number)
        self.waiting.update(homeless)

    def let_go(self) -> None:
        """What found no other home ends where it is, and workers from which nothing moves go."""
        for worker in [*self.workers.values(), *self.retiring.values()]:
            for name in sorted(set(worker.leaving) & set(self.waiting)):
                worker.release(name)
        for number in [number for number, worker in self.retiring.items() if not worker.leaving]:
            del self.retiring[number]
            self.gone.add(number)

    def everywhere(self) -> dict[int, _Worker]:
        """The workers there are to be, those included that go when what runs there has moved."""
        return {**self.workers, **self.retiring}

    def shrink(self, surplus_since_ms: int | None) -> int | None:
        """Rule 6; returns since when there has been a worker too many, None: there is none."""
        since = surplus_since_ms
        while (worker := self._dispensable()) is not None:
            if since is None:
                since = self.now_ms
            if self.now_ms - since < self.delays.shrink_ms:
                return since
            self._drop(worker)
            self.settle()
            if worker.number in self.retiring:
                return since  # the next one's turn is when this one has gone
            since = self.now_ms
        return None

    def _dispensable(self) -> _Worker | None:
        """The worker that can be missed, if any: without it everything fits, and nothing calls it back."""
        if len(self.workers) <= self.bounds.least:
            return None
        if any(worker.lost and worker.traders for worker in self.workers.values()):
            return None
        for worker in self._by_dispensability():
            if self.stuck & set(worker.traders):
                continue
            others = self._without(worker)
            if others is not None and self._empty(others) >= self.bounds.spare:
                return worker
        return None

    def _without(self, leaver: _Worker) -> list[_Worker] | None:
        """The other workers as they would be with the leaver's traders; None: those don't fit."""
        others = [worker.copy() for worker in self._ordered() if worker is not leaver]
        homes = [other for other in others if not (other.lost or other.unmade)]
        for name in sorted(leaver.traders):
            series = leaver.traders[name]
            home = next((other for other in homes if other.fits(name, series, self.bounds)), None)
            if home is None:
                return None
            home.add(name, series)
        return others
