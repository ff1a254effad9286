"""Alert rules, as data. Each has a section of its name in docs/alerts.md that says what to do; promtool tests them."""

from __future__ import annotations

from functools import partial
from typing import Any, Final, NamedTuple

import yaml

RUNBOOK: Final = "docs/alerts.md"
#: A signal shall be acknowledged this soon after its frame, s: a bound of the histogram.
SIGNAL_S: Final = "0.065536"
#: Shares that may miss their objective over 30 days: signals, and the time in which an assignment isn't applied.
SIGNAL_BUDGET: Final = 0.01
DELIVERY_BUDGET: Final = 0.001
#: For how long the oldest record may wait, s: a broker's restart takes 4, a killed aggregator's start 5, a growth 6.
BEHIND_S: Final = 10
#: Windows of burn rates (Google's SRE workbook): budget of 30 days used up in 2 and in 5 days.
FAST: Final = ("1h", "5m", 14.4)
SLOW: Final = ("6h", "30m", 6.0)
#: Groups: what may be watched wherever Chandlery runs, and what only an installation in a cluster is sure to have.
EVERYWHERE: Final = "chandlery"
CLUSTER: Final = "chandlery-cluster"


class Alert(NamedTuple):
    """One rule; ``lasting``: how long before it fires. ``summary`` may name labels. ``group``: the file it stands in."""

    name: str
    expr: str
    lasting: str
    severity: str
    summary: str
    group: str = EVERYWHERE


def process(component: str) -> str:
    """Whether processes answered: the labels are the pods' own, and those of the targets that ``chandlery up`` lists."""
    match = "=~" if "|" in component else "="
    return f'up{{app_kubernetes_io_part_of="chandlery",app_kubernetes_io_component{match}"{component}"}}'


def _of_a_feed(component: str, other: str) -> str:
    """Doesn't answer; or its feed has only the other of the two; or there is neither, and Traders read what they would make.

    Workers alone want neither: a feed of which nobody asks anything runs none.
    """
    by = "count by (namespace, chandlery_dev_feed)"
    return (
        f"{process(component)} == 0"
        f" or ({by} ({process(other)}) unless {by} ({process(component)}))"
        f" or (absent({process('ingest|aggregator')}) and on () sum(chandlery_feed_series) > 0)"
    )


def _slow_signals(window: str) -> str:
    family = "chandlery_frame_to_signal_seconds"
    within = f'sum(rate({family}_bucket{{le="{SIGNAL_S}"}}[{window}]))'
    return f"(1 - {within} / sum(rate({family}_count[{window}])))"


def _not_applied(window: str, *, begun: str) -> str:
    """The larger of what workers and operator see: a worker can't know of what the operator couldn't deliver, and the
    operator knows all, but may be away, and there is none beside ``chandlery up``.

    Args:
        begun: so long ago the operator must have had workers. Where the first of all starts, nothing is delivered yet,
            and the average over a window that has hardly begun would be that alone.
    """
    behind = "chandlery_feed_assignment_received > bool chandlery_feed_assignment_applied"
    of_workers = f"avg(avg_over_time(({behind})[{window}:15s]))"
    pending = f"sum(avg_over_time(chandlery_operator_assignments_pending[{window}]))"
    share = f"{pending} / (sum(avg_over_time(chandlery_operator_workers[{window}])) > 0)"
    of_operator = f"{share} and sum(chandlery_operator_workers offset {begun}) > 0"
    named = 'label_replace({}, "seen_by", "{}", "", "")'
    return f"max({named.format(of_workers, 'worker')} or {named.format(of_operator, 'operator')})"


def _burns(share: Any, budget: float, windows: tuple[str, str, float]) -> str:
    long, short, rate = windows
    limit = f"{rate * budget:.6g}"
    return f"{share(long)} > {limit} and {share(short)} > {limit}"


ALERTS: Final = (
    # Rules on a process' own figures are silent once it is gone. Three minutes: a pod's start takes less, once its image
    # is there.
    Alert(
        "ChandleryIngestAway",
        _of_a_feed("ingest", "aggregator"),
        "3m",
        "critical",
        "Ingest{{ with $labels.chandlery_dev_feed }} of {{ . }}{{ end }} doesn't answer, or is gone.",
    ),
    Alert(
        "ChandleryAggregatorAway",
        _of_a_feed("aggregator", "ingest"),
        "3m",
        "critical",
        "The aggregator{{ with $labels.chandlery_dev_feed }} of {{ . }}{{ end }} doesn't answer, or is gone.",
    ),
    Alert(
        "ChandleryFeedAway",
        f"{process('worker')} == 0 or sum(chandlery_operator_workers) - (count({process('worker')}) or vector(0)) > 0",
        "3m",
        "critical",
        "The feed of a worker{{ with $labels.pod }} ({{ . }}){{ end }} doesn't answer, or is gone.",
    ),
    Alert(
        "ChandleryOperatorAway",
        f"{process('operator')} == 0 or absent({process('operator')})",
        "5m",
        "warning",
        "The operator doesn't answer, or is gone: nothing is assigned or mended.",
        CLUSTER,
    ),
    Alert(
        "ChandleryConsoleAway",
        f"{process('console')} == 0 or absent({process('console')})",
        "5m",
        "warning",
        "The console doesn't answer, or is gone.",
        CLUSTER,
    ),
    Alert(
        "ChandleryMarketAway",
        "chandlery_ingest_connected == 0",
        "1m",
        "critical",
        "Ingest {{ $labels.instance }} has no connection to its market.",
    ),
    Alert(
        "ChandleryKafkaAway",
        "chandlery_feed_broker_connected == 0",
        "1m",
        "critical",
        "Worker {{ $labels.instance }} doesn't reach Kafka: its signals wait in their rings.",
    ),
    Alert(
        "ChandlerySupervisorAway",
        "chandlery_feed_supervisor_connected == 0",
        "1m",
        "critical",
        "Worker {{ $labels.instance }} has no supervisor: its Traders don't run.",
    ),
    Alert(
        "ChandleryTraderNotRunning",
        'sum by (trader, state) (chandlery_trader_state{state=~"Pending|Init|Backoff|Stalled"}) > 0',
        "5m",
        "warning",
        "Trader {{ $labels.trader }} is {{ $labels.state }}.",
    ),
    Alert(
        "ChandleryTraderMemoryGrows",
        # Not of those that share a label: each that joins them looks like growth.
        'deriv(chandlery_trader_resident_memory_bytes{trader!="_other"}[1h]) * 3600 > 8 * 1024 * 1024',
        "30m",
        "warning",
        "Trader {{ $labels.trader }} grows by {{ $value | humanize1024 }}B an hour.",
    ),
    Alert(
        "ChandleryTraderBlocked",
        "chandlery_trader_ring_depth > 0.8 * chandlery_trader_ring_capacity",
        "1m",
        "warning",
        "The signal ring of {{ $labels.trader }} is nearly full: it will pause.",
    ),
    Alert(
        "ChandleryCandlesLapped",
        "increase(chandlery_trader_lapped_total[10m]) > 0",
        "0m",
        "warning",
        "Trader {{ $labels.trader }} was too slow for {{ $value | humanize }} closed candles.",
    ),
    Alert(
        "ChandleryTradesDropped",
        "sum by (instance, reason) (increase(chandlery_ingest_trades_dropped_total[10m])) > 0",
        "0m",
        "critical",
        "Ingest {{ $labels.instance }} gave up trades ({{ $labels.reason }}).",
    ),
    Alert(
        "ChandleryAggregatorBehind",
        f"chandlery_aggregator_behind_seconds > {BEHIND_S}",
        "2m",
        "warning",
        "The aggregator {{ $labels.instance }} is {{ $value | humanizeDuration }} behind: Traders decide on candles that old.",
    ),
    Alert(
        "ChandleryFeedBehind",
        f"chandlery_feed_behind_seconds > {BEHIND_S}",
        "2m",
        "warning",
        "The feed {{ $labels.instance }} is {{ $value | humanizeDuration }} behind: its Traders decide on candles that old.",
    ),
    Alert(
        "ChandleryDeadLetters",
        "sum by (instance) (increase(chandlery_feed_dead_letters_total[10m])) > 0 or "
        "sum by (instance) (increase(chandlery_aggregator_dead_letters_total[10m])) > 0",
        "0m",
        "warning",
        "{{ $labels.instance }} refused records: they are in the dead-letter topic.",
    ),
    Alert(
        "ChandleryTracesDropped",
        "sum by (instance, reason) (increase(chandlery_feed_traces_dropped_total[30m])) > 0",
        "10m",
        "info",
        "Traces of {{ $labels.instance }} are dropped ({{ $labels.reason }}); signals are not.",
    ),
    Alert(
        "ChandlerySegmentNearlyFull",
        "chandlery_feed_series > 0.9 * chandlery_feed_series_capacity",
        "5m",
        "warning",
        "Worker {{ $labels.instance }} has room for few more series.",
    ),
    Alert(
        "ChandlerySignalLatencyBurnsFast",
        _burns(_slow_signals, SIGNAL_BUDGET, FAST),
        "2m",
        "critical",
        "Too many signals take longer than 66 ms: the month's budget is gone in two days.",
    ),
    Alert(
        "ChandlerySignalLatencyBurnsSlowly",
        _burns(_slow_signals, SIGNAL_BUDGET, SLOW),
        "15m",
        "warning",
        "Too many signals take longer than 66 ms: the month's budget is gone in five days.",
    ),
    Alert(
        "ChandleryAssignmentDeliveryBurnsFast",
        _burns(partial(_not_applied, begun="10m"), DELIVERY_BUDGET, FAST),
        "2m",
        "critical",
        "Workers are too long without what they are assigned: the month's budget is gone in two days.",
    ),
    Alert(
        "ChandleryAssignmentDeliveryBurnsSlowly",
        _burns(partial(_not_applied, begun="1h"), DELIVERY_BUDGET, SLOW),
        "15m",
        "warning",
        "Workers are too long without what they are assigned: the month's budget is gone in five days.",
    ),
)


def groups(*names: str) -> dict[str, Any]:
    """The rules of these groups, or of all, in Prometheus' form. The chart adds ``runbook_url``."""
    rules: dict[str, list[dict[str, Any]]] = {name: [] for name in names or (EVERYWHERE, CLUSTER)}
    for alert in ALERTS:
        if alert.group in rules:
            rules[alert.group].append(
                {
                    "alert": alert.name,
                    "expr": alert.expr,
                    "for": alert.lasting,
                    "labels": {"severity": alert.severity},
                    "annotations": {"summary": alert.summary, "runbook": f"{RUNBOOK}#{alert.name.lower()}"},
                }
            )
    return {"groups": [{"name": name, "rules": those} for name, those in rules.items()]}


def rendered(group: str) -> str:
    """A group's file."""
    head = "# Made by python -m monitoring; don't edit.\n"
    return head + yaml.safe_dump(groups(group), sort_keys=False, allow_unicode=True, width=120)
