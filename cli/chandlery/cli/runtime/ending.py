"""The end of a run, in order: everything that came in comes out before anything is stopped.

1. ingest flushes and ends; 2. the aggregator applies all that ingest appended, and ends; 3. the feeds take in
the last candles; 4. the traders decide on them and their rings run empty; 5. supervisors, 6. feeds, 7. Kafka.
Every step has a bound, so that the whole has one: 22 s for workers that are ending already, then 25 + 30 + 12 + 15 + 10 +
10 + 12 + 10 s, 146 s in all at worst; 2-4 s when all is well.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Final

from chandlery.cli.collecting import Collected
from chandlery.cli.runtime.counting import Evidence, FeedEvidence
from chandlery.cli.runtime.draining import Draining, Outcome
from chandlery.cli.runtime.feedgroup import FeedGroup
from chandlery.cli.runtime.lagging import WHAT_TO_DO
from chandlery.cli.runtime.local import LocalRuntime
from chandlery.cli.runtime.procfs import memory_of
from chandlery.cli.runtime.say import Say
from chandlery.cli.runtime.version import own_version
from chandlery.cli.runtime.viewing import Viewer
from chandlery.cli.runtime.workergroup import WorkerGroup
from chandlery.cli.signal_topic import SignalTopic
from chandlery.console.model import TraderRow
from chandlery.console.summary import MemoryFigures
from chandlery.core.checks import UNKNOWN_SYMBOL
from chandlery.core.errors import ChandleryError, UnavailableError
from chandlery.stream.topics import end_offsets

log = logging.getLogger("chandlery.up")

# A replay at full speed may stand 10 million trades behind: at 400,000/s that is 25 s.
_AGGREGATOR_DRAIN_S: Final = 30.0
# Candles are a hundredth of the trades.
_FEED_DRAIN_S: Final = 15.0
# The strategy's own hang limit is 10 s; a broker that restarts 4 s.
_TRADERS_IDLE_S: Final = 10.0
_POLL_S: Final = 0.05
#: A trader is idle when its counters stood still for this long: a wake-up on a busy machine takes 0.02 s.
_STILL_S: Final = 0.3


async def end_in_order(runtime: LocalRuntime, viewer: Viewer, seconds: float, say: Say) -> Evidence:
    """End everything in order.

    Returns:
        What the summary is made of.
    """
    evidence = _begin(runtime, viewer, seconds)
    await runtime.quiesce()
    # Nobody waits for the console: it ends beside the rest, before Kafka does.
    console = asyncio.create_task(runtime.console.stop()) if runtime.console is not None else None
    say("ending: the markets")
    await asyncio.gather(*(group.stop_ingest() for group in runtime.feeds.values()))
    say("ending: the aggregators")
    draining = Draining(say, "ending: the aggregators", "records", _AGGREGATOR_DRAIN_S)
    await asyncio.gather(*(_end_aggregator(group, evidence, draining) for group in runtime.feeds.values()))
    say("ending: waiting for the traders' last decisions")
    draining = Draining(say, "ending: the feeds", "candles", _FEED_DRAIN_S)
    await asyncio.gather(*(_let_decide(group, evidence, draining) for group in runtime.workers.values()))
    say("ending: traders and feeds")
    in_order = await asyncio.gather(*(group.stop_supervisor() for group in runtime.workers.values()))
    in_order += await asyncio.gather(*(group.stop_feed() for group in runtime.workers.values()))
    if not all(in_order):
        log.warning("not every worker ended in order", extra={"exits": _exits(runtime)})
    # Not before: a signal of the last moment would stand on the topic and in nobody's count.
    evidence.workers += [*runtime.ended_workers, *(group.evidence() for group in runtime.workers.values())]
    await _collect(runtime, evidence)
    if console is not None:
        await console
    say("ending: Kafka")
    await runtime.broker.stop()
    await runtime.close()
    return evidence


def _begin(runtime: LocalRuntime, viewer: Viewer, seconds: float) -> Evidence:
    rows = [row for row in viewer.traders() if row.state != "Suspended" and row.reason != "Suspended"]
    late = [(row.trader, _why(row)) for row in rows if _never_ready(runtime, row)]
    return Evidence(
        version=own_version(),
        session=runtime.session,
        seconds=seconds,
        desired=[row.trader for row in rows],
        not_ready=late,
        memory=memory_figures(runtime, rows),
        problems=[group.wrong_input for group in runtime.feeds.values() if group.wrong_input],
        behind_ms=viewer.lagging.most_ms(),
    )


def _never_ready(runtime: LocalRuntime, row: TraderRow) -> bool:
    """Whether a Trader could not do its work: one without a market of its own has a process that was Ready for nothing."""
    without_market = row.state == "Stalled" and row.reason == UNKNOWN_SYMBOL
    return without_market or not runtime.readiness.was_ready(row.trader)


def _why(row: TraderRow) -> str:
    return " ".join(part for part in (row.state, row.reason, row.message, row.last_error) if part)


def memory_figures(runtime: LocalRuntime, rows: list[TraderRow]) -> dict[str, MemoryFigures]:
    """Memory of every process now, by name."""
    pids = {child.name: child.pid for child in runtime.children()}
    if runtime.broker.embedded:
        pids["kafka"] = runtime.broker.pid
    if runtime.strategies.pid:
        pids["strategies"] = runtime.strategies.pid
    pids.update({row.trader: row.pid for row in rows})
    figures: dict[str, MemoryFigures] = {}
    for name, pid in sorted(pids.items()):
        memory = memory_of(pid) if pid else None
        if memory is not None:
            figures[name] = MemoryFigures(memory.rss, memory.pss)
    return figures


def _exits(runtime: LocalRuntime) -> dict[str, int | None]:
    return {child.name: child.last_exit for child in runtime.children() if child.last_exit}


async def _until(done: Callable[[], Awaitable[bool]], timeout_s: float) -> bool:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        try:
            if await done():
                return True
        except UnavailableError:
            pass  # asked again until the bound
        await asyncio.sleep(_POLL_S)
    return False


async def _end_aggregator(group: FeedGroup, evidence: Evidence, draining: Draining) -> None:
    if not group.started:
        # The end came upon its start: no trade of it has been let through, and none is to be waited for.
        await group.stop_aggregator()
        return
    try:
        ends = await end_offsets(group.kafka, group.topics.trades)
    except ChandleryError as error:
        evidence.problems.append(f"{group.label}: Kafka did not tell how many trades there are: {error}")
        evidence.all_read = False
        ends = {}

    async def left() -> int | None:
        status = await group.aggregator_watch.refresh()
        if not status.get("ready"):
            return None
        partitions = status.get("partitions", {})
        applied = {number: int(partitions.get(str(number), {}).get("applied", 0)) for number in ends}
        return sum(max(0, end - applied[number]) for number, end in ends.items())

    name, lagged_ms = group.aggregator.name, int(group.aggregator_watch.status.get("behind_ms", 0))
    outcome = await draining.wait(name, left)
    if not outcome.is_through:
        evidence.all_read = False
        evidence.causes.append(_behind(name, "its market", lagged_ms, outcome, WHAT_TO_DO["aggregator"]))
    evidence.feeds.append(
        FeedEvidence(group.ingest_counts(), group.ingest_exact, group.aggregator_watch.status, group.baseline)
    )
    await group.stop_aggregator()


def _behind(name: str, what: str, lagged_ms: int, outcome: Outcome, what_to_do: str) -> str:
    """One that did not catch up at the end. lagged_ms: how far it was behind when the end began."""
    if not outcome.answers:  # more of a core would hardly help it
        return f"{name} {outcome.words}: see its log"
    lagged = f"{lagged_ms / 1000:.0f} s" if lagged_ms >= 1000 else ""
    return f"{name} was {lagged or 'less than a second'} behind {what} and {outcome.words}: {what_to_do}"


async def _let_decide(group: WorkerGroup, evidence: Evidence, draining: Draining) -> None:
    async def left() -> int | None:
        await group.watch.refresh()
        counts = group.feed_counts()
        if "lag" not in counts:
            return None
        return int(counts["lag"]) + len(counts["catching_up"]) + int(counts["held_now"])

    name, lagged_ms = group.feed.name, int(group.feed_counts().get("behind_ms", 0))
    outcome = await draining.wait(name, left)
    if not outcome.is_through:
        evidence.causes.append(_behind(name, "the candles", lagged_ms, outcome, WHAT_TO_DO["feed"]))
    await _until(_Stillness(group).reached, _TRADERS_IDLE_S)


class _Stillness:
    """Whether a worker's traders have nothing left to do: no call under way, nothing moves, rings empty."""

    def __init__(self, group: WorkerGroup) -> None:
        self._group = group
        self._seen: dict[str, Counter[str]] = {}
        self._since = time.monotonic()

    async def reached(self) -> bool:
        counts = self._group.ring_counts()
        # Heartbeats go on for ever.
        moving = {name: Counter({**ring, "heartbeat_ns": 0}) for name, ring in counts.items()}
        if moving != self._seen:
            self._seen, self._since = moving, time.monotonic()
            return False
        still = time.monotonic() - self._since >= _STILL_S
        return still and not any(ring["depth"] or ring["busy_since_ns"] for ring in counts.values())


async def _collect(runtime: LocalRuntime, evidence: Evidence) -> None:
    """Read the run's signals from the topics, and the restarts of our own processes."""
    evidence.signals = Collected()
    for key, group in runtime.feeds.items():
        try:
            async with SignalTopic(group.kafka, group.topics.signals) as topic:
                found = await topic.collect(runtime.signals_from.get(key))
        except ChandleryError as error:
            evidence.problems.append(f"{group.label}: its signals can't be read back: {error}")
            continue
        evidence.signals.merge(found)
    evidence.restarts = {child.name: child.restarts for child in runtime.children()}
    evidence.restarts["strategies"] = runtime.strategies.restarts
    if runtime.broker.embedded:
        evidence.restarts["kafka"] = runtime.broker.restarts
