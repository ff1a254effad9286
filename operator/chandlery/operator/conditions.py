"""What the operator says of each resource: conditions in kstatus' words, and the figures beside them. Pure.

``Ready`` is True when all is as the spec asks. ``Reconciling``: it will get there by itself. ``Stalled``: it will not
without a change by somebody. Neither: as somebody wants it (suspended). Messages hold no figure that moves by itself,
so that a status changes only when something has. Strategies' own words may (``State.episode``).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import msgspec

from chandlery.core.assignment import READY_STATES, TraderAssignment, WorkerStatus
from chandlery.core.assignment import TraderStatus as Reported
from chandlery.core.checks import UNKNOWN_SYMBOL, unknown_symbols_of, unknown_symbols_of_feed
from chandlery.core.durations import format_duration
from chandlery.core.kafka_login import KafkaProblem
from chandlery.core.resources import MarketFeed, Trader
from chandlery.core.resources.status import (
    MAX_MESSAGE_CHARS,
    Condition,
    ConditionStatus,
    ConditionType,
    FeedStatus,
    Latency,
    PoolStatus,
    TraderStatus,
    Warmth,
)
from chandlery.operator.cache import Held
from chandlery.operator.planner import FeedPlan, PoolPlan, Verdict
from chandlery.operator.planner_homes import pool_full_message
from chandlery.operator.planner_standing import ending_of, told_of
from chandlery.operator.podstate import ContainerTrouble

_WORD: Final = re.compile(r"[A-Za-z][A-Za-z0-9]{0,63}")
_WARM_STATES: Final = frozenset({"Warm", "Active", "Blocked"})
#: Verdicts that pass by themselves, or by a person's consent.
_UNDER_WAY: Final = frozenset({"AwaitingApproval"})


@dataclass(frozen=True, slots=True)
class PodRefusal:
    """Why a pod can't be made: a stable word, and a sentence that says what to do."""

    reason: str
    message: str


def no_kafka(feed: str) -> PodRefusal:
    """Why nothing of a feed, and nothing of its pools, can be made.

    Args:
        feed: ``namespace/name``.
    """
    return PodRefusal(
        "NoKafka",
        f"MarketFeed {feed} names no Kafka: give it spec.kafka.bootstrapServers, or the operator a default Kafka "
        f"(`--kafka`; kafka.bootstrapServers of the chart)",
    )


@dataclass(frozen=True, slots=True)
class WorkerView:
    """A worker as far as its Traders' conditions depend on it.

    Attributes:
        pod: name of its pod; empty: none yet. ready: whether the pod is Ready. was_ready: whether it ever was.
        status: its newest answer, None: none yet. problem: why it can't be reached; empty: it can.
        undelivered: why its assignment could not be kept or pushed at the last attempt; empty: it could.
        pod_uid: of its pod. trouble: what keeps that from running, in the cluster's words; empty: nothing known.
        ails: that, where it is a container's.
        refused: why it has no pod; None: it has one, or nothing is known.
        lags_ms: its feed is at least so far behind, and has been for a while; 0: it isn't.
    """

    name: str
    pod: str = ""
    ready: bool = False
    was_ready: bool = False
    status: WorkerStatus | None = None
    problem: str = ""
    undelivered: str = ""
    trouble: str = ""
    pod_uid: str = ""
    ails: ContainerTrouble | None = None
    refused: PodRefusal | None = None
    lags_ms: int = 0


@dataclass(frozen=True, slots=True)
class State:
    """One resource's state, from which its three kstatus conditions follow.

    Attributes:
        ready: it does its work. stalled: it doesn't do what the spec asks, and won't without a change by somebody; where it
            is ready all the same, an older version is. settled: neither ready, nor on its way.
        under_way, under_way_message: what of the spec is still under way while it is ready; empty: nothing.
        episode: within which another message of the same reason is no news: a strategy's own words, which may hold a figure
            that is another at each attempt; empty: each message is.
    """

    reason: str
    message: str = ""
    ready: bool = False
    stalled: bool = False
    settled: bool = False
    under_way: str = ""
    under_way_message: str = ""
    episode: str = ""


def is_applied(verdict: Verdict, reported: Reported | None) -> bool:
    """Whether the Trader's own process has said READY for what is assigned now."""
    return (
        reported is not None
        and reported.state in READY_STATES
        and (reported.generation, reported.incarnation) == (verdict.generation, verdict.incarnation)
    )


def trader_state(
    held: Held, verdict: Verdict | None, worker: WorkerView | None, unknown_symbols: Collection[str] = ()
) -> State:
    """What is to be said of a Trader.

    Args:
        verdict: the planner's; None: the Trader can't be read and never could. worker: the one it is assigned to.
        unknown_symbols: symbols that the feed's source says it doesn't have.
    """
    if verdict is None and held.problem:
        return State("BadManifest", held.problem, stalled=True)
    if verdict is None:
        return State("Pending", "not planned yet")
    if verdict.reason == "Suspended":
        return State("Suspended", verdict.message, settled=True)
    if verdict.reason:
        works = verdict.keeps and verdict.reason not in _UNDER_WAY and worker is not None
        ready = works and worker is not None and _work(verdict, worker).ready
        return State(verdict.reason, verdict.message, ready=ready, stalled=verdict.reason not in _UNDER_WAY)
    asked = held.resource.spec.market.series() if isinstance(held.resource, Trader) else ()
    # Where a version before has its symbols and runs on, the verdict has said so.
    if missing := unknown_symbols_of(asked, unknown_symbols):
        return State(UNKNOWN_SYMBOL, missing, stalled=True)
    if worker is None:
        return State("Pending", "no worker yet")
    state = _work(verdict, worker)
    if verdict.rollout is not None and state.ready:
        return replace(state, under_way=verdict.rollout.phase, under_way_message=verdict.rollout.message)
    return state


def _work(verdict: Verdict, worker: WorkerView) -> State:
    """What the worker makes of the incarnation that decides."""
    reported = _reported(verdict, worker)
    away = _away(worker)
    if away is not None:
        return away
    kafka = _kafka_problem(worker)
    if kafka is not None:
        return _kafka_state(kafka)
    if is_applied(verdict, reported):
        assert reported is not None
        return _running(reported)
    if reported is None or (reported.generation, reported.incarnation) != (verdict.generation, verdict.incarnation):
        if worker.undelivered:
            return State("NotDelivered", f"worker {worker.name} can't be told: {worker.undelivered}"[:300])
        return State("Starting", f"worker {worker.name} has not started it yet")
    return _not_running(reported, worker)


def _reported(verdict: Verdict, worker: WorkerView) -> Reported | None:
    """What is told of the incarnation that decides, or else of one before it."""
    if worker.status is None:
        return None
    told = told_of(worker.status, verdict.trader, verdict.incarnation)
    return told or worker.status.traders.get(verdict.trader)


def _away(worker: WorkerView) -> State | None:
    """Why nothing can be said of a worker's Traders; None: something can."""
    if not worker.ready:
        if worker.refused is not None:
            return State(worker.refused.reason, worker.refused.message, stalled=True)
        if not worker.was_ready:
            return State("WorkerStarting", _starting(worker))
        return State("WorkerUnready", f"worker {worker.name} is not Ready; its traders move after a while if they can")
    if worker.status is None:
        return State("WorkerUnreachable", f"worker {worker.name} doesn't answer the operator: {worker.problem}"[:300])
    return None


def _starting(worker: WorkerView) -> str:
    if not worker.pod:
        return (
            f"worker {worker.name} has no pod yet; `kubectl describe statefulset {worker.name}` tells why, if it lasts"
        )
    return f"worker {worker.name} is starting" + (f": {worker.trouble}" if worker.trouble else "")


def _running(reported: Reported) -> State:
    if reported.state == "Blocked":
        return State("Blocked", "its signal ring is full: it waits for Kafka to take signals", ready=True)
    if reported.state in _WARM_STATES:
        return State("Running", ready=True)
    return State("Warming", "it waits for closed candles before its first decision", ready=True)


def _not_running(reported: Reported, worker: WorkerView) -> State:
    # A process that is being started again is still in its crash loop: no coming and going of conditions.
    crashed = reported.state == "Backoff" or (reported.attempt > 0 and reported.state in ("Pending", "Init"))
    if crashed:
        said = ending_of(reported) or "its process ended; it is started again"
        return State(_word(reported.reason, "CrashLoop"), said, episode=f"incarnation {reported.incarnation}")
    if reported.state == "Stalled":
        return State(_word(reported.reason, "BadStrategy"), reported.message, stalled=True)
    if reported.reason == "SeriesRefused":  # tried again by itself, but as a rule somebody has to make room
        return State(reported.reason, reported.message, stalled=True)
    said = f": {reported.message}" if reported.state == "Init" and reported.message else ""
    return State(_word(reported.reason, "Starting"), f"worker {worker.name} is starting it{said}")


def _word(reason: str, default: str) -> str:
    return reason if _WORD.fullmatch(reason) else default


def trader_status(
    held: Held,
    state: State,
    verdict: Verdict | None,
    assigned: TraderAssignment | None,
    worker: WorkerView | None,
    now: str,
    successor: Reported | None = None,
) -> TraderStatus:
    """The Trader's whole status.

    Args:
        assigned: what decides, as its worker has it. successor: what is told of what is to take over, None: nothing.
        now: RFC 3339.
    """
    answer = worker.status if worker is not None else None
    reported = _reported(verdict, worker) if worker is not None and verdict is not None else None
    applied = (
        assigned is not None and verdict is not None and verdict.reason != "Suspended" and is_applied(verdict, reported)
    )
    running = assigned.generation if assigned is not None else held.generation
    conditions = [
        *kstatus(state, held.generation, now),
        _condition(
            "AssignmentApplied", applied, "Applied" if applied else state.reason, running, now,
            "" if applied else "its process has not said READY for this generation",
        ),
        _warm(reported, state, held.generation, now),
    ]  # fmt: skip
    if worker is None or assigned is None:
        return TraderStatus(observed_generation=held.generation, conditions=conditions)
    figures = _figures(reported, answer) if reported is not None and answer is not None else {}
    if successor is not None and successor.warm_need:
        figures["warm"] = Warmth(successor.warm_have, successor.warm_need)
    return TraderStatus(
        observed_generation=held.generation,
        conditions=conditions,
        worker=worker.name,
        pod=worker.pod or None,
        running_generation=assigned.generation,
        incarnation=assigned.incarnation,
        **figures,
    )


def _warm(reported: Reported | None, state: State, generation: int, now: str) -> Condition:
    if reported is None:
        return _condition("Warm", None, state.reason, generation, now, "nothing is known of its history yet")
    if reported.state in _WARM_STATES:
        return _condition("Warm", True, "Warm", generation, now)
    return _condition("Warm", False, "Warming", generation, now, "status.warm has the candles there are and needed")


def _figures(reported: Reported, answer: WorkerStatus) -> dict[str, Any]:
    return {
        "code": reported.code or None,
        "warm": Warmth(reported.warm_have, reported.warm_need) if reported.warm_need else None,
        "signals": reported.signals,
        "latency": _latency(answer.feed),
        "restarts": reported.restarts,
        "last_error": reported.last_error[:MAX_MESSAGE_CHARS] or None,
    }


def _latency(feed: dict[str, Any]) -> Latency | None:
    measured = feed.get("latency", {}).get("frame_to_signal", {})
    if not measured.get("count"):
        return None
    return Latency(_milliseconds(measured["p50"]), _milliseconds(measured["p99"]), measured["count"])


def _milliseconds(us: float) -> str:
    ms = us / 1000
    return f"{ms:.0f}ms" if ms >= 100 else f"{ms:.3g}ms"


#: What of a status may change without being worth a write of its own.
RIDING: Final = ("warm", "signals", "latency", "restarts", "last_error")


def pool_state(held: Held, plan: PoolPlan | None, workers: Sequence[WorkerView], outdated: int, problem: str) -> State:
    """What is to be said of a TraderPool.

    Args:
        workers: those that are to be. outdated: how many of them still run an older template.
        problem: what the API server refused; empty: nothing.
    """
    if held.problem:
        return State("BadManifest", held.problem, stalled=True)
    if plan is None:
        return State("Pending", "not planned yet")
    if plan.reason:
        return State(plan.reason, plan.message, stalled=True)
    refused = next((worker.refused for worker in workers if worker.refused is not None), None)
    if refused is not None:
        return State(refused.reason, refused.message, stalled=True)
    if problem:
        return State("Refused", problem, stalled=True)
    unready = _unready(workers)
    if outdated:
        more = f"; {unready}" if unready else ""
        return State("Rolling", f"{outdated} of {len(workers)} workers still run an older template{more}")
    kafka = next(filter(None, map(_kafka_problem, workers)), None)
    if kafka is not None:
        return _kafka_state(kafka)
    if unready:
        left = any(worker.was_ready and not worker.ready for worker in workers)
        return State("WorkersUnready" if left else "WorkersStarting", unready)
    full = pool_full_message(plan.lacks)
    if plan.pool.spec.suspend:
        message = "spec.suspend is true: its workers stay, and its traders keep their places and decide nothing"
        return State("Suspended", f"{message}; {full}" if full else message, settled=True)
    if full:
        return State("PoolFull", full, ready=True)
    slowest = max(workers, key=lambda worker: worker.lags_ms, default=None)
    if slowest is not None and slowest.lags_ms:
        message = (
            f"the feed of worker {slowest.name} fell more than {format_duration(slowest.lags_ms)} behind the candles, and "
            f"its Traders decide that late: give its container more CPU, or fewer symbols and intervals (a lower "
            f"spec.tradersPerWorker spreads them)"
        )
        return State("Lagging", message, ready=True)
    return State("Running", ready=True)


def _kafka_state(problem: KafkaProblem) -> State:
    """A Secret may come by itself (Strimzi, a tool that copies it), and Kafka back; the others somebody must mend."""
    stalled = problem.reason in ("BadSecret", "KafkaUnauthorized", "KafkaUntrusted")
    return State(_word(problem.reason, "KafkaUnreachable"), problem.message, stalled=stalled)


def _kafka_problem(worker: WorkerView) -> KafkaProblem | None:
    """Why the worker's feed can't enter Kafka, as it tells itself."""
    told = worker.status.feed.get("broker_problem") if worker.status is not None and worker.ready else None
    try:
        return msgspec.convert(told, KafkaProblem | None)
    except msgspec.ValidationError:
        return None  # another version's


def _unready(workers: Sequence[WorkerView]) -> str:
    """Which workers aren't Ready, and what is known of the first; empty: all are."""
    names = [worker.name for worker in workers if not worker.ready]
    if not names:
        return ""
    known = [_starting(worker) for worker in workers if worker.trouble or not (worker.ready or worker.pod)]
    return f"not Ready: {', '.join(names[:5])}" + (f" ({known[0]})" if known else "")


def pool_status(
    held: Held, state: State, plan: PoolPlan | None, workers: Sequence[WorkerView], outdated: int, now: str
) -> PoolStatus:
    """The pool's whole status."""
    return PoolStatus(
        observed_generation=held.generation,
        conditions=kstatus(state, held.generation, now),
        capacity=plan.capacity if plan is not None else None,
        used=plan.used if plan is not None else None,
        pending=plan.pending if plan is not None else None,
        rolling=plan.rolling if plan is not None else None,
        workers=len(workers),
        ready_workers=sum(1 for worker in workers if worker.ready),
        updated_workers=len(workers) - outdated,
    )


def feed_state(
    held: Held,
    *,
    symbols: int,
    kafka: str,
    unready: Mapping[str, str],
    problem: str,
    refused: PodRefusal | None = None,
    kafka_problem: KafkaProblem | None = None,
    lags_ms: int = 0,
    unknown: Collection[str] = (),
) -> State:
    """What is to be said of a MarketFeed.

    Args:
        unready: those of its parts that aren't Ready, each with what keeps its pod from running; empty: nothing known.
        problem: what the API server refused.
        refused: why one of them can't be made. kafka_problem: why ingest can't append.
        lags_ms: the aggregator is at least so far behind, and has been for a while; 0: it isn't.
        unknown: symbols that its source says it doesn't have.
    """
    if held.problem:
        return State("BadManifest", held.problem, stalled=True)
    if not kafka:
        without = no_kafka("/".join(held.key))
        return State(without.reason, without.message, stalled=True)
    if refused is not None:
        return State(refused.reason, refused.message, stalled=True)
    if problem:
        return State("Refused", problem, stalled=True)
    if not symbols:
        return State("Idle", "no trader asks for a symbol or interval yet, and spec lists none", ready=True)
    if kafka_problem is not None:
        return _kafka_state(kafka_problem)
    if unready:
        parts = [f"{name} ({trouble})" if trouble else name for name, trouble in unready.items()]
        return State("Starting", f"not Ready: {', '.join(parts)}")
    if lags_ms:
        message = (
            f"its aggregator fell more than {format_duration(lags_ms)} behind its market, and its Traders decide that "
            f"late: give its pod more CPU, or the feed fewer symbols or intervals (a second MarketFeed has an aggregator "
            f"of its own)"
        )
        return State("Lagging", message, ready=True)
    if isinstance(held.resource, MarketFeed) and (missing := unknown_symbols_of_feed(held.resource, unknown)):
        has_some = not {*held.resource.spec.symbols} <= {*unknown}
        return State(UNKNOWN_SYMBOL, missing, ready=has_some, stalled=not has_some)
    return State("Running", ready=True)


def feed_status(
    held: Held,
    state: State,
    plan: FeedPlan | None,
    *,
    source: str,
    session: int | None,
    kafka: str,
    topics: str,
    pools: int,
    unknown: Sequence[str],
    now: str,
) -> FeedStatus:
    """The feed's whole status; ``topics``: what their names begin with."""
    return FeedStatus(
        observed_generation=held.generation,
        conditions=kstatus(state, held.generation, now),
        source=source or None,
        symbol_count=len({*plan.symbols} - {*unknown}) if plan is not None else None,
        symbols=list(plan.symbols) if plan is not None else [],
        unknown_symbols=sorted(unknown),
        intervals=list(plan.intervals) if plan is not None else [],
        session=session,
        bootstrap_servers=kafka or None,
        topic_prefix=topics or None,
        pools=pools,
    )


def kstatus(state: State, generation: int, now: str) -> list[Condition]:
    """Ready, Reconciling and Stalled."""
    reconciling = bool(state.under_way) or not (state.ready or state.stalled or state.settled)
    why = state.under_way or state.reason
    other = "Settled" if state.ready or state.settled else state.reason
    return [
        _condition("Ready", state.ready, state.reason, generation, now, state.message),
        _condition("Reconciling", reconciling, why if reconciling else other, generation, now, state.under_way_message),
        _condition(
            "Stalled",
            state.stalled,
            state.reason if state.stalled else other,
            generation,
            now,
            state.message if state.stalled and state.ready else "",
        ),
    ]


def _condition(
    kind: ConditionType, holds: bool | None, reason: str, generation: int, now: str, message: str = ""
) -> Condition:
    status: ConditionStatus = "Unknown" if holds is None else "True" if holds else "False"
    return Condition(kind, status, reason, now, message[:MAX_MESSAGE_CHARS], generation)
