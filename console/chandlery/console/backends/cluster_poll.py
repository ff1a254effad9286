"""Live figures from pods: each worker, ingest and aggregator asked every few seconds, within bounds.

Pods are found by their headless Services' names, so no right to look at pods is needed, and asked where they tell
figures without a token. What a NetworkPolicy or a dead node keeps away costs one time-out a turn, and is said.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, TypeVar

import aiohttp
import msgspec

from chandlery.console.backends.cluster_api import read_bounded
from chandlery.console.backends.cluster_figures import (
    AggregatorFigures,
    IngestFigures,
    ProcessFigures,
    WorkerFigures,
    process_figures,
    worker_figures,
)
from chandlery.console.backends.cluster_follow import Names
from chandlery.console.backends.losses import FeedLosses
from chandlery.core.errors import UnavailableError
from chandlery.core.http_errors import in_words

log = logging.getLogger("chandlery.console.cluster")

#: Between two turns. A feed gives the same answer for 1 s, a person looks every few.
POLL_S: Final = 3.0
#: A pod answers within 50 ms, a busy one within a few hundred; a policy that drops packets never does.
_TIMEOUT_S: Final = 2.0
#: A name that isn't there is known at once; a resolver that is away takes 5 s by itself.
_RESOLVE_S: Final = 3.0
#: Requests under way at once: fifty workers are through within half a second, and one text is at most a few hundred kB.
_AT_ONCE: Final = 16
#: 2,000 Traders of 20 lines of 100 bytes.
_MOST_BYTES: Final = 4 << 20
#: Turns that may fail before it is said: a pod that restarts is away for some seconds.
_FAILED_TURNS: Final = 3

#: A worker that has told nothing for so long is another one's by now, or nobody's; its Traders' statuses say more.
_FORGOTTEN_S: Final = 120.0

#: Ports of pods (operator/children/naming.py), fixed as the operator makes them.
METRICS_PORT: Final = 9464
INGEST_PORT: Final = 8081
AGGREGATOR_PORT: Final = 8082

Resolve = Callable[[str, int], Awaitable[Sequence[tuple[str, int]]]]
"""Addresses (host, port) of a name with a port."""

Answer = TypeVar("Answer")
_UNTOLD: Final = ProcessFigures()


@dataclass(slots=True)
class PoolFigures:
    """A pool's workers by name. problem: why some can't be asked, for a while already; empty: all answer."""

    workers: dict[str, WorkerFigures] = field(default_factory=dict)
    problem: str = ""
    failed: int = 0


@dataclass(slots=True)
class FeedFigures:
    """A feed's ingest and aggregator; None: never known. See :class:`PoolFigures`.

    Attributes:
        ingest_at_s, aggregator_at_s: when each answered last, monotonic: one may be gone while the other goes on.
        problem: also where there is no such pod, which of a feed that nobody needs is as it should be.
        losses: when each kind was last seen to grow.
    """

    ingest: IngestFigures | None = None
    aggregator: AggregatorFigures | None = None
    ingest_process: ProcessFigures = _UNTOLD
    aggregator_process: ProcessFigures = _UNTOLD
    trades_per_s: float = 0.0
    ingest_at_s: float = 0.0
    aggregator_at_s: float = 0.0
    problem: str = ""
    failed: int = 0
    losses: FeedLosses = field(default_factory=FeedLosses)

    def note_losses(self, now_s: float) -> None:
        """Take in what both told to be lost, where they have told it now."""
        ingest, aggregator = self.ingest, self.aggregator
        self.losses.note(
            now_s,
            ingest=(ingest.missing_ids, ingest.dropped) if ingest is not None and self.ingest_at_s == now_s else None,
            dead_letters=aggregator.dead_letters if aggregator is not None and self.aggregator_at_s == now_s else None,
        )


async def resolve(name: str, port: int) -> list[tuple[str, int]]:
    """By this machine's resolver, every address; none: there is no such name, or there can't be (``a..b``).

    Raises:
        OSError: no answer. TimeoutError: none in time.
    """
    try:
        async with asyncio.timeout(_RESOLVE_S):
            found = await asyncio.get_running_loop().getaddrinfo(name, port, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        if error.errno in (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)):
            return []
        raise
    except UnicodeError:  # a part that is empty or of more than 63 characters: of no DNS name
        return []
    return list(dict.fromkeys((str(address[0]), int(address[1])) for *_, address in found))


class Poller:
    """Asks pods in turns.

    Args:
        wanted: gives the pools and feeds to ask for, as (namespace, name), at each turn.
        turned: called after each turn. resolve: addresses of a name. every_s: between two turns.

    Attributes:
        pools, feeds: what is known by (namespace, name). turns: how many there were.
    """

    def __init__(
        self,
        wanted: Callable[[], tuple[Iterable[Names], Iterable[Names]]],
        *,
        turned: Callable[[], None] = lambda: None,
        resolve: Resolve = resolve,
        every_s: float = POLL_S,
    ) -> None:
        self.pools: dict[Names, PoolFigures] = {}
        self.feeds: dict[Names, FeedFigures] = {}
        self.turns = 0
        self._wanted = wanted
        self._turned = turned
        self._resolve = resolve
        self._every_s = every_s
        self._room = asyncio.Semaphore(_AT_ONCE)

    async def run(self) -> None:
        """Ask until cancelled."""
        timeout = aiohttp.ClientTimeout(total=_TIMEOUT_S)
        # No connection outlives its turn: a pod that is gone may leave its address to another.
        async with aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, force_close=True), timeout=timeout
        ) as session:
            while True:
                began_s = time.monotonic()
                await self.turn(session)
                await asyncio.sleep(max(0.1, self._every_s - (time.monotonic() - began_s)))

    async def turn(self, session: aiohttp.ClientSession) -> None:
        """Ask everybody once, beside each other."""
        pools, feeds = (list(names) for names in self._wanted())
        for known, wanted in ((self.pools, pools), (self.feeds, feeds)):
            for gone in known.keys() - set(wanted):
                known.pop(gone)
        await asyncio.gather(
            *(
                _alone(partial(self._ask_pool, session, names), self.pools.setdefault(names, PoolFigures()), names)
                for names in pools
            ),
            *(
                _alone(partial(self._ask_feed, session, names), self.feeds.setdefault(names, FeedFigures()), names)
                for names in feeds
            ),
        )
        self.turns += 1
        self._turned()

    async def _ask_pool(self, session: aiohttp.ClientSession, names: Names) -> None:
        namespace, name = names
        pool = self.pools[names]
        try:
            places = await self._resolve(f"{name}-workers.{namespace}.svc", METRICS_PORT)
        except (OSError, TimeoutError) as error:
            places, problems = [], [f"its workers' addresses: {in_words(error)}"]
        else:
            problems = []
        answers = await self._each([self._metrics(session, place) for place in places])
        for place, answer in zip(places, answers, strict=True):
            if isinstance(answer, str):
                problems.append(f"{place[0]}:{place[1]}: {answer}")
                continue
            figures = worker_figures(answer.decode(errors="replace"), time.monotonic())
            if figures.skipped:
                problems.append(
                    f"{place[0]}:{place[1]}: {figures.skipped:,} lines of its figures are too long or too many"
                )
            if figures.worker:
                pool.workers[figures.worker] = figures
        for worker in [worker for worker, one in pool.workers.items() if time.monotonic() - one.at_s > _FORGOTTEN_S]:
            del pool.workers[worker]
        _count(pool, problems)

    async def _ask_feed(self, session: aiohttp.ClientSession, names: Names) -> None:
        namespace, name = names
        feed = self.feeds[names]
        problems: list[str] = []
        ingest, problem = await self._status(session, f"{name}-ingest.{namespace}.svc", INGEST_PORT, IngestFigures)
        problems += problem
        aggregator, problem = await self._status(
            session, f"{name}-aggregator.{namespace}.svc", AGGREGATOR_PORT, AggregatorFigures
        )
        problems += problem
        now_s = time.monotonic()
        if ingest is not None:
            figures, feed.ingest_process = ingest
            if feed.ingest is not None and now_s > feed.ingest_at_s > 0:
                more = figures.trades.appended - feed.ingest.trades.appended
                feed.trades_per_s = max(0.0, more / (now_s - feed.ingest_at_s))
            feed.ingest, feed.ingest_at_s = figures, now_s
        if aggregator is not None:
            (feed.aggregator, feed.aggregator_process), feed.aggregator_at_s = aggregator, now_s
        feed.note_losses(now_s)
        _count(feed, problems)

    async def _status(
        self, session: aiohttp.ClientSession, host: str, port: int, kind: type[Answer]
    ) -> tuple[tuple[Answer, ProcessFigures] | None, list[str]]:
        """Status and process of the one pod behind a name, or why not."""
        try:
            places = await self._resolve(host, port)
        except (OSError, TimeoutError) as error:
            return None, [f"{host}: {in_words(error)}"]
        if not places:
            return None, [f"{host}: there is no such pod"]
        status, metrics = await self._each(
            [self._get(session, places[0], "/v1/status"), self._metrics(session, places[0])]
        )
        if isinstance(status, str):
            return None, [f"{host}:{port}: {status}"]
        try:
            told = msgspec.json.decode(status, type=kind)
        except msgspec.DecodeError as error:
            return None, [f"{host}:{port}: {error}"]
        process = process_figures(metrics.decode(errors="replace")) if isinstance(metrics, bytes) else _UNTOLD
        return (told, process), []

    async def _each(self, asked: Iterable[Coroutine[Any, Any, bytes]]) -> list[bytes | str]:
        """Answers, or what went wrong in words."""

        async def one(asking: Coroutine[Any, Any, bytes]) -> bytes | str:
            async with self._room:
                try:
                    return await asking
                except UnavailableError as error:
                    return str(error)
                except (aiohttp.ClientError, OSError, TimeoutError) as error:
                    return in_words(error)

        return await asyncio.gather(*map(one, asked))

    async def _metrics(self, session: aiohttp.ClientSession, place: tuple[str, int]) -> bytes:
        return await self._get(session, place, "/metrics")

    async def _get(self, session: aiohttp.ClientSession, place: tuple[str, int], path: str) -> bytes:
        host = f"[{place[0]}]" if ":" in place[0] else place[0]
        async with session.get(
            f"http://{host}:{place[1]}{path}", headers={"Accept": "text/plain, application/json"}, allow_redirects=False
        ) as answer:
            if answer.status != 200:
                raise UnavailableError(f"HTTP {answer.status}")
            return await read_bounded(answer, _MOST_BYTES)


async def _alone(ask: Callable[[], Awaitable[None]], known: PoolFigures | FeedFigures, names: Names) -> None:
    """Ask; what can't be asked for a defect of ours says so, and keeps nobody else from being asked."""
    try:
        await ask()
    except Exception as error:
        problem = f"a defect: {type(error).__name__}: {error}"
        if known.problem != problem:
            log.exception("a resource's pods can't be asked", extra={"resource": "/".join(names)})
        known.failed, known.problem = known.failed + 1, problem


def _count(known: PoolFigures | FeedFigures, problems: Sequence[str]) -> None:
    if not problems:
        known.failed, known.problem = 0, ""
        return
    known.failed += 1
    if known.failed >= _FAILED_TURNS:
        others = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        known.problem = f"{problems[0]}{others}"
