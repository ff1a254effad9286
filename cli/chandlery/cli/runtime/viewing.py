"""The instance as plain data for every view: made from the plan and the newest statuses."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Mapping
from typing import Any, Final

from chandlery.cli.runtime.desired import wrong_with
from chandlery.cli.runtime.feedgroup import FeedGroup
from chandlery.cli.runtime.lagging import Lagging
from chandlery.cli.runtime.local import LocalRuntime
from chandlery.cli.runtime.procfs import resident_bytes
from chandlery.cli.runtime.readiness import is_ready
from chandlery.cli.runtime.recent import RecentSignals
from chandlery.cli.runtime.settings import transport_of as pool_transport
from chandlery.cli.runtime.version import own_version
from chandlery.cli.runtime.workergroup import WorkerGroup
from chandlery.console.model import FeedRow, PoolRow, ProcessRow, SegmentRow, TraderRow, View
from chandlery.core.assignment import TraderStatus
from chandlery.core.checks import UNKNOWN_SYMBOL, unknown_symbols_of
from chandlery.core.manifests import Key, Problem
from chandlery.core.resources import OF_ITS_POOL, Trader
from chandlery.core.transports import transport_of
from chandlery.core.wording import printable
from chandlery.operator.planner import Verdict
from chandlery.operator.planner_standing import told_of

_RATE_WINDOW_S: Final = 5.0
#: Processes that serve no status on a socket of their own.
_SOCKETLESS: Final = ("supervisor-", "console")


class Viewer:
    """Makes views of a runtime; remembers what rates need. lagging: which parts lag, while somebody follows that."""

    def __init__(self, runtime: LocalRuntime, recent: RecentSignals) -> None:
        self._runtime = runtime
        self._recent = recent
        self.lagging = Lagging()
        self._rates: dict[str, deque[tuple[float, int]]] = {}

    def view(self) -> View:
        """The instance now."""
        runtime = self._runtime
        return View(
            run=runtime.run,
            version=own_version(),
            state_dir=str(runtime.options.state),
            pid=os.getpid(),
            started_ms=runtime.session,
            phase=runtime.phase,
            manifests=list(runtime.options.manifests),
            feeds=[*(self._feed(group) for group in runtime.feeds.values()), *self._failed_feeds()],
            pools=self._pools(),
            traders=self.traders(),
            processes=self._processes(),
            signals=self._recent.rows(),
            notices=[*runtime.notices, *self.lagging.notices],
            segments=[segment_row(group) for _, group in sorted(runtime.workers.items())],
            console=runtime.console.row() if runtime.console is not None else None,
        )

    def written(self, trader: str) -> tuple[dict[str, Any], str] | None:
        """A Trader's manifest as it counts, and the file that it stands in; None where there is none of that name."""
        namespace, _, name = trader.partition("/")
        manifests = self._runtime.wanted.manifests
        found = manifests.traders.get((namespace, name))
        if found is None:
            return None
        origin = manifests.origins.get(("Trader", namespace, name))
        return dict(found.manifest()), origin.file if origin is not None else ""

    async def wrong(self, manifest: dict[str, Any]) -> list[tuple[str, str]]:
        """(field, sentence) of what keeps a Trader from running beside the pools, feeds and strategies there are."""
        return await wrong_with(manifest, self._runtime.wanted.manifests, self._runtime.strategies.answering)

    def traders(self) -> list[TraderRow]:
        """Every Trader of the manifests, those refused included."""
        plan = self._runtime.plan
        rows = {name: self._trader(verdict) for name, verdict in plan.verdicts.items()} if plan else {}
        for (namespace, name), problems in self._runtime.wanted.refused_traders().items():
            full = f"{namespace}/{name}"
            told = self._told(problems[0])
            row = rows.get(full)
            if row is None:
                rows[full] = TraderRow(full, "Stalled", reason=problems[0].reason, message=told)
            else:
                row.reason = problems[0].reason
                row.message = f"{told} (the version before keeps running)"
        return [rows[name] for name in sorted(rows)]

    def _told(self, problem: Problem) -> str:
        """A refused document's problem, with its file where the Trader that counts stands in another one."""
        origin = self._runtime.wanted.manifests.origins.get(("Trader", problem.namespace, problem.name))
        place = problem.file if origin is not None and origin.file != problem.file else ""
        return ": ".join(part for part in (place, problem.field, problem.message) if part)

    def _trader(self, verdict: Verdict) -> TraderRow:
        namespace, _, name = verdict.trader.partition("/")
        trader = self._runtime.wanted.manifests.traders.get((namespace, name))
        status = self._status_of(verdict)
        row = TraderRow(verdict.trader, *_state(verdict, status))
        row.message += self._how_warm(verdict)
        row.ready = verdict.worker is not None and is_ready(verdict, status)
        row.pool = "/".join(verdict.pool) if verdict.pool else ""
        row.worker = verdict.worker or ""
        if trader is not None:
            row.strategy = trader.spec.strategy.name
            row.symbols = list(trader.spec.market.symbols)
            row.interval = trader.spec.market.interval
            # By itself, or with its pool; the reason may be why its newest version doesn't run.
            row.suspended = trader.spec.suspend or verdict.reason == "Suspended" or OF_ITS_POOL in verdict.message
            row.transport = self._transport(trader)
        if status is not None:
            _copy(status, row)
            row.told_ms = self._told_ms(verdict)
            row.transport = status.transport or row.transport
        if trader is not None and not verdict.reason and (missing := self._unknown_symbols(verdict, trader)):
            # Its process may well be Ready: it waits for candles that never come.
            row.state, row.reason, row.message, row.ready = "Stalled", UNKNOWN_SYMBOL, missing, False
        if not row.reason and (why := self._why_no_feed(verdict)):
            # Its process may well be Ready: it waits for a market that doesn't come.
            row.reason, row.message = "FeedFailed", why
        if not row.reason and (slow := self._what_lags(verdict)):
            # As Ready as before; but what it decides on is old.
            row.reason, row.message = "Lagging", f"its candles come late: {slow} is behind (chandlery get feeds)"
        latency = self._recent.quantiles(verdict.trader)
        row.frame_to_signal_p50_us, row.frame_to_signal_p99_us = latency.p50, latency.p99
        row.latency_count = latency.count
        return row

    def _transport(self, trader: Trader) -> str:
        """How candles are to reach a Trader; empty while its pool isn't known."""
        pool = self._runtime.wanted.manifests.pools.get(trader.spec.pool.key(trader.namespace))
        if pool is None:
            return ""
        options = self._runtime.options
        return transport_of(trader.spec.transport, pool_transport(pool, options), for_all=options.transport is not None)

    def _told_ms(self, verdict: Verdict) -> int:
        group = self._group_of(verdict)
        return group.watch.told_ms if group is not None else 0

    def _how_warm(self, verdict: Verdict) -> str:
        """How much history a successor has that waits for more; empty: none does."""
        rollout = verdict.rollout
        if rollout is None or rollout.phase != "Warming" or verdict.pool is None or verdict.reason:
            return ""
        group = self._runtime.workers.get((verdict.pool, rollout.worker))
        told = told_of(group.watch.status, verdict.trader, rollout.incarnation) if group is not None else None
        if told is None or not told.warm_need:
            return ""
        return f"; it has {told.warm_have} of {told.warm_need} closed candles"

    def _why_no_feed(self, verdict: Verdict) -> str:
        """Why the market of an assigned Trader's pool isn't there; empty when it is."""
        plan = self._runtime.plan
        pool = plan.pools.get(verdict.pool) if plan is not None and verdict.pool is not None else None
        return self._runtime.feed_starts.why(pool.feed) if pool is not None and pool.feed is not None else ""

    def _unknown_symbols(self, verdict: Verdict, trader: Trader) -> str:
        """What to say of symbols of what decides that its feed's source says it doesn't have; empty: nothing."""
        group = self._group_of(verdict)
        market = self._runtime.feeds.get(group.market) if group is not None else None
        if group is None or market is None:
            return ""
        assigned = {(one.trader, one.incarnation): one for one in group.delivery.assignment.traders}
        runs = assigned.get((verdict.trader, verdict.incarnation))
        return unknown_symbols_of((runs or trader.spec.market).series(), market.note_unknown_symbols())

    def _what_lags(self, verdict: Verdict) -> str:
        """Which process has a Trader's candles come late; empty: none."""
        group = self._group_of(verdict)
        market = self._runtime.feeds.get(group.market) if group is not None else None
        names = [*([market.aggregator.name] if market else []), *([group.feed.name] if group else [])]
        return next((name for name in names if self.lagging.lags(name)), "")

    def _failed_feeds(self) -> list[FeedRow]:
        starts = self._runtime.feed_starts
        return [
            FeedRow("/".join(key), failed.feed.spec.source.kind, message=starts.why(key))
            for key, failed in starts.failed.items()
            if key not in self._runtime.feeds
        ]

    def _group_of(self, verdict: Verdict) -> WorkerGroup | None:
        if verdict.worker is None or verdict.pool is None:
            return None
        return self._runtime.workers.get((verdict.pool, verdict.worker))

    def _status_of(self, verdict: Verdict) -> TraderStatus | None:
        group = self._group_of(verdict)
        if group is None or group.watch.status is None:
            return None
        status = group.watch.status
        return told_of(status, verdict.trader, verdict.incarnation) or status.traders.get(verdict.trader)

    def _feed(self, group: FeedGroup) -> FeedRow:
        ingest, aggregator = group.ingest_watch.status, group.aggregator_watch.status
        counts = group.ingest_counts()
        totals: Mapping[str, Any] = aggregator.get("totals", {})
        symbols: Mapping[str, Mapping[str, Any]] = aggregator.get("symbols", {})
        waiting = ingest.get("waiting_for_go", False)
        return FeedRow(
            feed="/".join(group.feed.key),
            source=group.feed.spec.source.kind,
            bootstrap=group.kafka.bootstrap,
            security=group.kafka.security,
            topic=group.kafka.feed,
            prefix=group.kafka.prefix,
            partitions=group.kafka.partitions,
            signals_topic=group.topics.signals,
            connected=bool(ingest.get("connected", False)),
            finished=bool(ingest.get("finished", False)),
            session=int(ingest.get("session", 0)),
            symbols=sorted(group.symbols),
            intervals=list(aggregator.get("intervals", sorted(group.intervals))),
            frames=counts["frames"],
            trades=counts["appended"],
            trades_per_s=self._rate(f"trades {group.label}", counts["received"]),
            candles_closed=int(totals.get("candles", {}).get("closed", 0)),
            aggregator_lag=int(aggregator.get("lag", 0)),
            behind_ms=int(aggregator.get("behind_ms", 0)),
            late=int(totals.get("counts", {}).get("late", 0)),
            duplicate=int(totals.get("counts", {}).get("duplicate", 0)),
            dropped=sum(
                number for name, number in counts.items() if name.startswith(("drop:malformed_", "drop:ingest_"))
            ),
            missing_ids=counts["drop:missing_ids"],
            dead_letters=int(aggregator.get("dead_letters", 0)),
            reconnects=counts["reconnects"],
            message="waiting for the traders" if waiting else self.lagging.words(group.aggregator.name),
            lagging=self.lagging.lags(group.aggregator.name),
            replayed=ingest.get("replayed"),
            watermark_ms=max([0, *(int(one.get("watermark_ms", 0)) for one in symbols.values())]),
        )

    def _pools(self) -> list[PoolRow]:
        plan = self._runtime.plan
        if plan is None:
            return []
        return [
            PoolRow(
                "/".join(key),
                workers=len(pool.workers),
                capacity=pool.capacity,
                used=pool.used,
                pending=pool.pending,
                transport=pool_transport(pool.pool, self._runtime.options),
                message=self._why_no_market(key, pool.feed),
                feed="/".join(pool.feed) if pool.feed is not None else "",
                ready_workers=sum(group.is_ready for (of, _), group in self._runtime.workers.items() if of == key),
            )
            for key, pool in plan.pools.items()
        ]

    def _why_no_market(self, pool: Key, feed: Key | None) -> str:
        """Why a pool's candles don't come, or come late; empty: they do."""
        why = self._runtime.feed_starts.why(feed) if feed is not None else ""
        groups = [group for (of, _), group in self._runtime.workers.items() if of == pool]
        return why or next((words for group in groups if (words := self.lagging.words(group.feed.name))), "")

    def _processes(self) -> list[ProcessRow]:
        runtime = self._runtime
        log = str(runtime.state.log("up"))
        rows = [ProcessRow("up", "running", os.getpid(), 0, resident_bytes(os.getpid()), log)]
        if pid := runtime.strategies.pid:  # what becomes of it is told there
            rows.append(ProcessRow("strategies", "running", pid, runtime.strategies.restarts, resident_bytes(pid), log))
        if runtime.broker.embedded:
            pid = runtime.broker.pid
            log = str(runtime.state.broker / "broker.log")
            rows.append(
                ProcessRow(
                    "kafka", "running" if pid else "ended", pid, runtime.broker.restarts, resident_bytes(pid), log
                )
            )
        for child in runtime.children():
            rows.append(
                ProcessRow(
                    child.name,
                    child.state,
                    child.pid,
                    child.restarts,
                    resident_bytes(child.pid),
                    str(child.log_path),
                    str(runtime.state.socket(child.name)) if not child.name.startswith(_SOCKETLESS) else "",
                )
            )
        return rows

    def _rate(self, name: str, total: int) -> float:
        samples = self._rates.setdefault(name, deque())
        now = time.monotonic()
        samples.append((now, total))
        while now - samples[0][0] > _RATE_WINDOW_S:
            samples.popleft()
        first_s, first = samples[0]
        return max(0.0, (total - first) / (now - first_s)) if now - first_s > 0.2 else 0.0


def segment_row(group: WorkerGroup) -> SegmentRow:
    """A worker's shared memory by its newest status; nothing but the name until it has told one."""
    status = group.watch.status
    if status is None:
        return SegmentRow(group.label)
    segment, rings = status.feed.get("segment", {}), status.feed.get("rings", {})
    traders = [*status.traders.values(), *status.successors.values()]
    return SegmentRow(
        group.label,
        size_bytes=int(segment.get("size_bytes", 0)),
        series=int(status.feed.get("series", 0)),
        series_capacity=int(segment.get("series_capacity", 0)),
        rings=len(rings),
        ring_depth=sum(int(ring.get("depth", 0)) for ring in rings.values()),
        laps=sum(trader.lapped for trader in traders),
    )


def _state(verdict: Verdict, status: TraderStatus | None) -> tuple[str, str, str]:
    """State, reason and message: the planner's word first, where it has one."""
    if verdict.worker is None:
        return ("Pending" if verdict.reason == "PoolFull" else "Stalled"), verdict.reason, verdict.message
    state = status.state if status is not None else "Pending"
    if verdict.reason:
        return state, verdict.reason, verdict.message
    if verdict.rollout is not None:
        return state, verdict.rollout.phase, verdict.rollout.message
    return (state, status.reason, status.message) if status is not None else (state, "", "")


def _copy(status: TraderStatus, row: TraderRow) -> None:
    for name in (
        "pid", "generation", "incarnation", "warm_have", "warm_need", "calls", "signals", "restarts", "errors",
        "rss_bytes", "last_open_time_ms",
    ):  # fmt: skip
        setattr(row, name, getattr(status, name))
    row.last_error = printable(status.last_error)
