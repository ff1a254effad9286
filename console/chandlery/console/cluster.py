"""A Chandlery on Kubernetes as plain data and as tables: what its resources' statuses say, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from chandlery.console.amounts import count, duration_us, size
from chandlery.console.tables import plain_table, state_text, symbols_text
from chandlery.core.resources import CHANGED_IN_PLACE

#: Reasons of a condition Ready that is not True, and that nobody need do anything about.
AS_WANTED: Final = frozenset({"Suspended"})
#: Our own word for a resource whose newest generation the operator has said nothing of.
UNSEEN: Final = "Unseen"


class FeedState(msgspec.Struct):
    """One MarketFeed as its status has it. ready: True, False or Unknown."""

    feed: str
    ready: str = "Unknown"
    reason: str = ""
    message: str = ""
    source: str = ""
    symbols: list[str] = []
    intervals: list[str] = []
    kafka: str = ""


class PoolState(msgspec.Struct):
    """One TraderPool as its status has it; None: not known."""

    pool: str
    ready: str = "Unknown"
    reason: str = ""
    message: str = ""
    workers: int | None = None
    ready_workers: int | None = None
    capacity: int | None = None
    used: int | None = None
    pending: int | None = None


class TraderState(msgspec.Struct):
    """One Trader as its status has it.

    Attributes:
        trader, pool: ``namespace/name``. ready: True, False or Unknown.
        generation: the newest. running_generation: the one that runs; None: none does.
        pod: of the worker that runs it, in the pool's namespace; empty: none.
        warm_have, warm_need, signals, latency_p99, restarts: at most ten minutes old.
    """

    trader: str
    ready: str = "Unknown"
    reason: str = ""
    message: str = ""
    strategy: str = ""
    symbols: list[str] = []
    interval: str = ""
    pool: str = ""
    worker: str = ""
    pod: str = ""
    rollout: str = "Auto"
    generation: int = 0
    running_generation: int | None = None
    warm_have: int | None = None
    warm_need: int | None = None
    signals: int | None = None
    latency_p99: str = ""
    restarts: int | None = None
    last_error: str = ""

    @property
    def namespace(self) -> str:
        """Its namespace."""
        return self.trader.partition("/")[0]

    @property
    def pod_namespace(self) -> str:
        """The namespace of its pod: its pool's."""
        return self.pool.partition("/")[0]


class Attention(msgspec.Struct):
    """One thing that isn't as it should be, and what to do about it (empty: it passes by itself)."""

    what: str
    reason: str
    message: str
    advice: str = ""


class ClusterStatus(msgspec.Struct):
    """Everything that ``kubectl chandlery status`` shows. ready: all is Ready, or as somebody wanted it."""

    ready: bool
    feeds: list[FeedState] = []
    pools: list[PoolState] = []
    traders: list[TraderState] = []
    attention: list[Attention] = []


class TopRow(msgspec.Struct):
    """One Trader's figures.

    Attributes:
        live: whether they are its worker's own, of this moment; else those of its status, up to ten minutes old.
        calls_per_s: None: not known yet. p50_us, p99_us: of its newest signals, frame to acknowledgement.
    """

    trader: str
    state: str
    live: bool = False
    reason: str = ""
    calls: int | None = None
    calls_per_s: float | None = None
    signals: int | None = None
    p50_us: float | None = None
    p99_us: float | None = None
    rss_bytes: int = 0
    restarts: int | None = None
    errors: int | None = None
    pool: str = ""
    pod: str = ""


_ADVICE: Final = {
    "AwaitingApproval": "kubectl chandlery approve {name} -n {namespace}",
    "BadManifest": "change what the message names",
    "Blocked": "is Kafka there, with enough replicas in sync (spec.kafka.minInsyncReplicas)?",
    "CrashLoop": "kubectl chandlery logs {name} -n {namespace}",
    "Crashed": "kubectl chandlery logs {name} -n {namespace}",
    "MemoryLimit": "raise spec.resources.memory, or have the strategy keep less",
    "NoKafka": "spec.kafka.bootstrapServers of the feed, or kafka.bootstrapServers of the chart",
    "NotAllowed": "ask who owns the pool for spec.allowedTraders (or allowConfigMapStrategies)",
    "Refused": "the API server's words are in the message: a quota, a policy, a podTemplate that doesn't fit",
    "WorkerStarting": "kubectl describe pod {pod} -n {pod_namespace}",
    "WorkerUnready": "kubectl describe pod {pod} -n {pod_namespace}",
    "WorkerUnreachable": "kubectl logs {pod} -c feed -n {pod_namespace}; does a NetworkPolicy keep the operator out?",
    UNSEEN: "does the operator run? kubectl get deployments -A -l app.kubernetes.io/component=operator",
}


def advice(reason: str, trader: TraderState | None = None) -> str:
    """What to do about a reason; empty where the operator's own message says all there is to say."""
    text = _ADVICE.get(reason, "")
    if trader is not None and reason == "AwaitingApproval" and CHANGED_IN_PLACE in trader.message:
        return ""  # an approval would change nothing
    if trader is None:
        return "" if "{" in text else text
    if "{pod}" in text and not trader.pod:
        return ""
    return text.format(
        name=trader.trader.partition("/")[2],
        namespace=trader.namespace,
        pod=trader.pod,
        pod_namespace=trader.pod_namespace,
    )


def cluster_status(
    feeds: Sequence[FeedState], pools: Sequence[PoolState], traders: Sequence[TraderState]
) -> ClusterStatus:
    """What is there, and what of it needs attention."""
    attention: list[Attention] = []
    for feed in feeds:
        if feed.ready != "True":
            attention.append(Attention(f"marketfeed {feed.feed}", feed.reason, feed.message, advice(feed.reason)))
    for pool in pools:
        if (pool.ready != "True" and pool.reason not in AS_WANTED) or pool.pending:
            told = pool.message or (f"{pool.pending} Traders wait for room" if pool.pending else "")
            attention.append(Attention(f"traderpool {pool.pool}", pool.reason, told, advice(pool.reason)))
    for trader in traders:
        if (trader.ready != "True" and trader.reason not in AS_WANTED) or trader.reason == "Blocked":
            told = trader.message or trader.last_error
            attention.append(Attention(f"trader {trader.trader}", trader.reason, told, advice(trader.reason, trader)))
    rows: list[FeedState | PoolState | TraderState] = [*feeds, *pools, *traders]
    ready = all(row.ready == "True" or row.reason in AS_WANTED for row in rows)
    return ClusterStatus(ready, list(feeds), list(pools), list(traders), attention)


def status_view(status: ClusterStatus, *, wide: bool = False) -> RenderableType:
    """Feeds, pools, traders, and below them what needs attention."""
    parts: list[RenderableType] = []
    for table, rows in (
        (_feeds(status.feeds, wide=wide), status.feeds),
        (_pools(status.pools), status.pools),
        (_traders(status.traders, wide=wide), status.traders),
    ):
        if rows:
            parts += [table, Text()]
    parts.append(_verdict(status))
    for one in status.attention:
        parts.append(Text.assemble(("! ", "bold yellow"), (one.what, "bold"), f": {one.reason}"))
        if one.message:
            parts.append(Text(f"    {one.message}"))
        if one.advice:
            parts.append(Text(f"    → {one.advice}", style="cyan"))
    return Group(*parts)


def _verdict(status: ClusterStatus) -> Text:
    ready = sum(row.ready == "True" for row in status.traders)
    told = f"{ready} of {len(status.traders)} Traders Ready"
    aside = sum(row.ready != "True" and row.reason in AS_WANTED for row in status.traders)
    if aside:
        told += f", {aside} suspended"
    return Text(told, style="bold green" if status.ready else "bold yellow")


def ready_text(ready: str, reason: str) -> Text:
    """``True`` in green, what is as wanted dim, ``Unknown`` in yellow, else red."""
    if ready == "True":
        return Text(ready, style="green")
    if reason in AS_WANTED:
        return Text(ready, style="dim")
    return Text(ready, style="bold red" if ready == "False" else "yellow")


def _feeds(feeds: Iterable[FeedState], *, wide: bool) -> Table:
    columns = ["FEED", "READY", "REASON", "SOURCE", "SYMBOLS", "INTERVALS"] + (["KAFKA"] if wide else [])
    table = plain_table(*columns)
    for row in feeds:
        symbols = ",".join(row.symbols) if wide else symbols_text(row.symbols)
        table.add_row(
            row.feed, ready_text(row.ready, row.reason), row.reason, row.source, symbols or "–",
            ",".join(row.intervals) or "–", *([row.kafka or "–"] if wide else []),
        )  # fmt: skip
    return table


def _pools(pools: Iterable[PoolState]) -> Table:
    numbers = ("WORKERS", "CAPACITY", "USED", "PENDING")
    table = plain_table("POOL", "READY", "REASON", *numbers, right=numbers)
    for row in pools:
        workers = f"{row.ready_workers or 0}/{row.workers}" if row.workers is not None else "–"
        pending = Text(_known(row.pending), style="bold yellow" if row.pending else "")
        table.add_row(
            row.pool, ready_text(row.ready, row.reason), row.reason, workers, _known(row.capacity), _known(row.used),
            pending,
        )  # fmt: skip
    return table


def _traders(traders: Iterable[TraderState], *, wide: bool) -> Table:
    right = ("GENERATION", "SIGNALS", "P99", "RESTARTS", "WARM")
    columns = ["TRADER", "READY", "REASON", "STRATEGY", "SYMBOLS", "INTERVAL", "POD", "GENERATION", "SIGNALS", "P99"]
    columns += ["RESTARTS", "WARM", "ROLLOUT", "POOL"] if wide else []
    table = plain_table(*columns, right=right)
    for row in traders:
        warm = f"{row.warm_have}/{row.warm_need}" if row.warm_need is not None else "–"
        extra = [_known(row.restarts), warm, row.rollout, row.pool] if wide else []
        table.add_row(
            row.trader, ready_text(row.ready, row.reason), row.reason, row.strategy,
            ",".join(row.symbols) if wide else symbols_text(row.symbols), row.interval, row.pod or "–",
            _generation(row), _known(row.signals), row.latency_p99 or "–", *extra,
        )  # fmt: skip
    return table


def _generation(row: TraderState) -> Text:
    """``7``, or ``6 of 7`` where an older one runs, or ``– of 7``."""
    if row.running_generation == row.generation:
        return Text(str(row.generation))
    running = "–" if row.running_generation is None else str(row.running_generation)
    return Text(f"{running} of {row.generation}", style="yellow")


def _known(value: int | None) -> str:
    return "–" if value is None else count(value)


def top_table(rows: Iterable[TopRow], *, wide: bool = False) -> Table:
    """Traders with their figures of now."""
    right = ("CALLS", "CALLS/S", "SIGNALS", "P50", "P99", "MEMORY", "RESTARTS", "ERRORS")
    columns = ["TRADER", "STATE", *right[:-1]] + (["ERRORS", "POOL", "POD"] if wide else ["POD"])
    table = plain_table(*columns, right=right)
    for row in rows:
        rate = "–" if row.calls_per_s is None else f"{row.calls_per_s:,.1f}"
        state = state_text(row.state) if row.live else Text(f"{row.state} (status)", style="dim")
        extra = [_known(row.errors), row.pool, row.pod or "–"] if wide else [row.pod or "–"]
        table.add_row(
            row.trader, state, _known(row.calls), rate, _known(row.signals), duration_us(row.p50_us),
            duration_us(row.p99_us), size(row.rss_bytes), _known(row.restarts), *extra,
        )  # fmt: skip
    return table
