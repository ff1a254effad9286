"""Resources and live figures as the API's rows. Pure: what is there, in; rows, out.

A figure is its worker's own where the worker answered lately; else its status's, with its age.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import re
from collections.abc import Container, Iterable, Iterator, Mapping
from typing import Any, Final

import msgspec

from chandlery.console.api.models import Feed, Pool, Quantiles, SegmentUse, Trader
from chandlery.console.backends.cluster_figures import WorkerFigures
from chandlery.console.backends.cluster_follow import Names
from chandlery.console.backends.cluster_poll import FeedFigures, PoolFigures
from chandlery.console.backends.memory_history import Measured
from chandlery.console.cluster import AS_WANTED, UNSEEN, TraderState
from chandlery.console.statuses import Object, feed_state, kept_by, pool_state, trader_state
from chandlery.core.resources import OF_ITS_POOL
from chandlery.core.resources.status import TraderStatus, read_status
from chandlery.core.wording import printable

#: Figures older than this are no more "now": four turns of asking, and a pod's restart.
FRESH_S: Final = 15.0
_UNITS_US: Final = {"ns": 1e-3, "us": 1.0, "µs": 1.0, "ms": 1e3, "s": 1e6, "m": 60e6}
_AMOUNT: Final = re.compile(r"([0-9.]+)(ns|us|µs|ms|s|m)")
#: Reasons of a Trader that is Ready which say no more than that; a reason in a row is something to be known.
_WELL: Final = frozenset({"Running", "Warming"})
#: What ``kubectl apply`` keeps for itself; it is the manifest once more.
_NOT_SHOWN: Final = frozenset({"kubectl.kubernetes.io/last-applied-configuration"})


def kept(item: Object) -> Object:
    """What of a resource is kept in memory: all but its managed fields, of which two things are noted."""
    meta = {name: value for name, value in item["metadata"].items() if name != "managedFields"}
    return {
        "metadata": meta,
        "spec": item.get("spec", {}),
        "status": item.get("status", {}),
        "keptBy": kept_by(item),
        "statusMs": _status_ms(item),
    }


def manifest_of(item: Object) -> dict[str, Any]:
    """A Trader as it was written."""
    meta = item["metadata"]
    shown: dict[str, Any] = {"name": meta["name"], "namespace": meta["namespace"]}
    if labels := meta.get("labels"):
        shown["labels"] = labels
    notes = {name: value for name, value in (meta.get("annotations") or {}).items() if name not in _NOT_SHOWN}
    if notes:
        shown["annotations"] = notes
    return {"apiVersion": "chandlery.dev/v1alpha1", "kind": "Trader", "metadata": shown, "spec": item.get("spec", {})}


def edition_of(item: Object) -> str:
    """Which edit of a Trader this is: changes with spec, labels and annotations, and not with its status, which nobody edits.

    An approval is an annotation: whoever looked before it was made must not write over it.
    """
    meta = item["metadata"]
    notes = {name: value for name, value in (meta.get("annotations") or {}).items() if name not in _NOT_SHOWN}
    noted = msgspec.json.encode([meta.get("labels") or {}, notes], order="deterministic")
    return f"{meta.get('uid', '')}.{meta.get('generation', 0)}.{hashlib.sha256(noted).hexdigest()[:12]}"


def kept_trader(item: Object) -> Object:
    """The same of a Trader, and its row as its status alone has it: that changes seldom, and rows are made often."""
    whole = kept(item)
    return {**whole, "row": _status_row(whole)}


def trader_row(item: Object, pools: Mapping[Names, PoolFigures], now_s: float, now_ms: int) -> Trader:
    """A Trader; ``now_s`` is of the monotonic clock by which figures were read.

    Args:
        item: see :func:`kept_trader`.
    """
    row: Trader = item["row"]
    worker = worker_of(row, pools)
    figures = worker.traders.get(row.trader) if worker is not None else None
    if worker is None or figures is None or now_s - worker.at_s > FRESH_S:
        return row.model_copy(update={"age_ms": max(0, now_ms - item["statusMs"]) if item["statusMs"] else 0})
    return row.model_copy(
        update={
            "state": row.state if row.suspended or not figures.state else printable(figures.state),
            "calls": figures.calls,
            "signals": figures.signals,
            "restarts": figures.restarts,
            "errors": figures.errors,
            "rss_bytes": figures.rss_bytes,
            "warm_have": figures.warm_have,
            "warm_need": figures.warm_need,
            "last_open_time_ms": figures.last_open_time_ms,
            "age_ms": max(0, round((now_s - worker.at_s) * 1_000)),
        }
    )


def _status_row(item: Object) -> Trader:
    state = trader_state(item)
    status: TraderStatus = read_status("Trader", item.get("status"))
    reason, message = _to_be_known(state, status)
    # By itself, or with its pool; the reason may be why its newest version doesn't run.
    suspended = bool(item["spec"].get("suspend", False)) or state.reason in AS_WANTED or OF_ITS_POOL in state.message
    return Trader(
        trader=state.trader,
        state="Suspended" if suspended else state.reason or UNSEEN,
        reason=reason,
        message=message,
        ready=state.ready == "True",
        suspended=suspended,
        strategy=state.strategy,
        symbols=state.symbols,
        interval=state.interval,
        pool=state.pool,
        worker=state.worker,
        generation=state.generation,
        warm_have=state.warm_have or 0,
        warm_need=state.warm_need or 0,
        signals=state.signals or 0,
        restarts=state.restarts or 0,
        last_error=state.last_error,
        latency=latency_of(status),
    )


def _to_be_known(state: TraderState, status: TraderStatus) -> tuple[str, str]:
    """Reason and message. Of one that is Ready: why its newest version doesn't run, or how far it is on its way."""
    if state.ready != "True" or state.reason not in _WELL:
        return state.reason, state.message
    for wanted in ("Stalled", "Reconciling"):
        for condition in status.conditions:
            if condition.type == wanted and condition.status == "True":
                return condition.reason, printable(condition.message)
    return "", ""


def worker_of(row: Trader, pools: Mapping[Names, PoolFigures]) -> WorkerFigures | None:
    """The worker whose figures of a Trader count: the one that its status names, else one of its pool that has it.

    Only workers of its own pool: what those of another say of it is hearsay.
    """
    namespace, _, name = row.pool.partition("/")
    pool = pools.get((namespace, name))
    if pool is None:
        return None
    named = pool.workers.get(row.worker)
    if named is not None and row.trader in named.traders:
        return named
    having = [one for one in pool.workers.values() if row.trader in one.traders]
    return max(having, key=lambda one: one.at_s, default=None)


def pool_row(item: Object) -> Pool:
    """A TraderPool."""
    state = pool_state(item)
    namespace, spec = item["metadata"]["namespace"], item.get("spec", {})
    feed = spec.get("feed", {})
    pending = state.pending or 0
    told = state.message or (f"{pending} Traders wait for room: raise spec.workers.max" if pending else "")
    return Pool(
        pool=state.pool,
        feed=f"{feed.get('namespace') or namespace}/{feed.get('name', '')}",
        workers=state.workers or 0,
        ready_workers=state.ready_workers or 0,
        capacity=state.capacity or 0,
        used=state.used or 0,
        pending=pending,
        transport=spec.get("transport", "SharedMemory"),
        message=told if state.ready != "True" or pending else "",
    )


def transports_of(items: Iterable[Object], pools: Iterable[Pool]) -> dict[str, str]:
    """How candles reach each Trader: as it says itself, else as its pool does; one of no pool is left out.

    Args:
        items: Traders, see :func:`kept_trader`.
    """
    of_pool = {pool.pool: pool.transport for pool in pools}
    found = {item["row"].trader: item["spec"].get("transport") or of_pool.get(item["row"].pool) for item in items}
    return {trader: transport for trader, transport in found.items() if transport}


def feed_row(item: Object, figures: FeedFigures | None, now_s: float) -> Feed:
    """A MarketFeed. Where its pods can't be asked its status decides whether it is alive, and ``message`` says so."""
    state = feed_state(item)
    row = Feed(feed=state.feed, source=state.source, symbols=state.symbols, intervals=state.intervals)
    row.message = "" if state.ready == "True" else f"{state.reason}: {state.message}"
    if state.ready != "True" and state.reason in AS_WANTED:
        row.message = state.message
    if figures is not None and figures.problem and not idle(item):
        row.message = row.message or f"no figures of now: {figures.problem}"
    if figures is None or figures.ingest is None or now_s - figures.ingest_at_s > FRESH_S:
        row.alive = state.ready == "True" and state.reason != "Idle"
        return row
    ingest, aggregator = figures.ingest, figures.aggregator
    row.connected, row.finished = ingest.connected, ingest.finished
    row.frames, row.trades, row.trades_per_s = ingest.frames, ingest.trades.appended, round(figures.trades_per_s, 3)
    row.missing_ids, row.dropped, row.reconnects = ingest.missing_ids, ingest.dropped, ingest.reconnects
    row.lost_ages_ms = figures.losses.ages_ms(now_s)
    if ingest.kafka_problem is not None:
        row.message = row.message or printable(ingest.kafka_problem.message)
    if aggregator is not None:
        row.lag, row.behind_ms = aggregator.lag, aggregator.behind_ms
        row.candles_closed = aggregator.totals.candles.closed
        row.late, row.duplicate = aggregator.totals.counts.late, aggregator.totals.counts.duplicate
        row.dead_letters = aggregator.dead_letters
    row.alive = (
        state.ready != "False"
        and (ingest.connected or ingest.finished)
        and ingest.kafka_problem is None
        and (aggregator is not None and aggregator.ready and now_s - figures.aggregator_at_s <= FRESH_S)
    )
    return row


def idle(item: Object) -> bool:
    """Whether a MarketFeed has no pods because nobody needs it, or none yet."""
    return feed_state(item).reason in ("Idle", UNSEEN)


def processes_of(
    pools: Mapping[Names, PoolFigures], feeds: Mapping[Names, FeedFigures], now_s: float
) -> Iterator[Measured]:
    """Memory of every process that told of it lately. Supervisors and fork servers tell their share alone, not what is
    resident."""
    for (namespace, name), feed in sorted(feeds.items()):
        for kind, process, at_s in (
            ("ingest", feed.ingest_process, feed.ingest_at_s),
            ("aggregator", feed.aggregator_process, feed.aggregator_at_s),
        ):
            if process.rss_bytes and now_s - at_s <= FRESH_S:
                shared = process.pss_bytes or None
                yield Measured(f"{namespace}/{name}-{kind}", kind, process.began_s, process.rss_bytes, shared)
    for namespace, worker in _workers(pools, now_s):
        if worker.rss_bytes:
            shared = worker.pss_bytes or None
            yield Measured(f"{namespace}/{worker.worker}/feed", "feed", worker.began_s, worker.rss_bytes, shared)
        for kind, adds in (
            ("supervisor", worker.supervisor_pss_bytes),
            ("fork_server", worker.fork_server_pss_bytes),
        ):
            if adds:
                yield Measured(f"{namespace}/{worker.worker}/{kind}", kind, worker.began_s, 0, adds)
        for trader, figures in sorted(worker.traders.items()):
            # A successor beside its Trader is told of by a key with an @: a process of its own. One that was started
            # again, or by another worker's supervisor, is another process.
            if figures.rss_bytes:
                instance, shared = worker.began_s + figures.restarts, figures.pss_bytes or None
                yield Measured(trader, "trader", instance, figures.rss_bytes, shared)


def segments_of(pools: Mapping[Names, PoolFigures], now_s: float) -> Iterator[SegmentUse]:
    """Each worker's shared memory."""
    for namespace, worker in _workers(pools, now_s):
        traders = worker.traders.values()
        yield SegmentUse(
            worker=f"{namespace}/{worker.worker}",
            size_bytes=worker.segment_bytes,
            series_used=worker.series,
            series_capacity=worker.series_capacity,
            rings=sum(one.ring_capacity > 0 for one in traders),
            ring_depth=sum(one.ring_depth for one in traders),
            laps=sum(one.lapped for one in traders),
        )


def _workers(pools: Mapping[Names, PoolFigures], now_s: float) -> Iterator[tuple[str, WorkerFigures]]:
    for (namespace, _), pool in sorted(pools.items()):
        for _, worker in sorted(pool.workers.items()):
            if now_s - worker.at_s <= FRESH_S:
                yield namespace, worker


def latency_of(status: TraderStatus) -> Quantiles:
    """Latency as the status has it, at most ten minutes old."""
    if status.latency is None:
        return Quantiles()
    return Quantiles(
        p50_us=amount_us(status.latency.p50), p99_us=amount_us(status.latency.p99), count=status.latency.count
    )


def amount_us(text: str) -> float | None:
    """``3.1ms`` in µs; None: it is no such text."""
    found = _AMOUNT.fullmatch(text.strip())
    try:
        return float(found[1]) * _UNITS_US[found[2]] if found else None
    except ValueError:
        return None


def notices_of(
    pools: Mapping[Names, PoolFigures],
    feeds: Mapping[Names, FeedFigures],
    rows: Iterable[Pool],
    idle: Container[Names] = (),
) -> list[str]:
    """Whose figures are not of now, and why. Pools without a Ready worker say so themselves; ``idle`` feeds have none."""
    running = {row.pool for row in rows if row.ready_workers}
    told = [
        f"no figures of now from workers of pool {namespace}/{name}: {pool.problem}"
        for (namespace, name), pool in sorted(pools.items())
        if pool.problem and f"{namespace}/{name}" in running
    ]
    told += [
        f"no figures of now from feed {namespace}/{name}: {feed.problem}"
        for (namespace, name), feed in sorted(feeds.items())
        if feed.problem and (namespace, name) not in idle
    ]
    return told


def _status_ms(item: Object) -> int:
    """When the status was last written, Unix ms; 0: unknown."""
    times = [
        str(entry.get("time", ""))
        for entry in item["metadata"].get("managedFields") or ()
        if entry.get("subresource") == "status"
    ]
    try:
        return max(
            (round(dt.datetime.fromisoformat(time.replace("Z", "+00:00")).timestamp() * 1_000) for time in times),
            default=0,
        )
    except ValueError:
        return 0
