"""Grafana's dashboards, as what each panel asks Prometheus. Queries are checked against a real one (tests/telemetry)."""

from __future__ import annotations

import json
from typing import Any, Final, Literal, NamedTuple

from grafana_foundation_sdk.builders import dashboard, heatmap, prometheus, stat, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import DataSourceRef
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

SOURCE: Final = DataSourceRef(type_val="prometheus", uid="${datasource}")
#: Grafana's variable for how far apart points are: a rate needs at least four scrapes.
RATE: Final = "$__rate_interval"


class Query(NamedTuple):
    """One question; ``legend`` with labels in double braces."""

    expr: str
    legend: str = ""


class Panel(NamedTuple):
    """One panel: a row of it is 24 wide; ``stat`` shows the newest value, ``heatmap`` takes buckets."""

    title: str
    queries: tuple[Query, ...]
    unit: str = "short"
    kind: Literal["timeseries", "stat", "heatmap"] = "timeseries"
    width: int = 12
    description: str = ""
    exemplars: bool = False


class Board(NamedTuple):
    """One dashboard; ``variables``: name and what gives its values."""

    uid: str
    title: str
    panels: tuple[Panel, ...]
    variables: tuple[tuple[str, str], ...] = ()


def quantile(share: float, family: str, by: str = "", where: str = "") -> str:
    """A percentile of a histogram over the rate interval."""
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({share}, sum by ({labels}) (rate({family}_bucket{where}[{RATE}])))"


def rates_by_reason(counter: str, from_start: str) -> str:
    """Rates of a counter whose reasons are born on their first event: ``none`` at zero before, where there is who counts.

    A zero for whatever isn't there would say the same of a process that is away, and of a name that is wrong.

    Args:
        from_start: a counter that the same process has from its start.
    """
    zero = f'label_replace(0 * sum(rate({from_start}[{RATE}])), "reason", "none", "", "")'
    return f"sum by (reason) (rate({counter}[{RATE}])) or on () {zero}"


def one(title: str, expr: str, unit: str = "short", **more: Any) -> Panel:
    """A number to be read at a look."""
    return Panel(title, (Query(expr),), unit, "stat", width=4, **more)


OVERVIEW: Final = Board(
    "chandlery-overview",
    "Chandlery / Overview",
    (
        one("Feeds alive", "sum(chandlery_feed_broker_connected)"),
        one("Markets alive", "sum(chandlery_ingest_connected)"),
        one("Traders Active", 'sum(chandlery_trader_state{state="Active"}) or 0 * sum(chandlery_feed_traders)'),
        one("Signals a minute", f"sum(rate(chandlery_feed_signals_published_total[{RATE}])) * 60"),
        one("Frame to signal, p99", quantile(0.99, "chandlery_frame_to_signal_seconds"), "s"),
        one(
            "Memory",
            "sum(process_proportional_memory_bytes or chandlery_trader_pss_bytes or chandlery_worker_pss_bytes)",
            "bytes",
            description="Each process's share (PSS): what several share is counted once.",
        ),
        Panel(
            "Frame to signal",
            (
                Query(quantile(0.5, "chandlery_frame_to_signal_seconds"), "p50"),
                Query(quantile(0.99, "chandlery_frame_to_signal_seconds"), "p99"),
            ),
            "s",
            exemplars=True,
            description="From the exchange's frame received to the broker's acknowledgement. Dots lead to traces.",
        ),
        Panel(
            "Traders by state",
            (Query("sum by (state) (chandlery_trader_state)", "{{state}}"),),
        ),
        Panel(
            "Signals",
            (
                Query(f"sum(rate(chandlery_feed_signals_published_total[{RATE}]))", "published"),
                Query(
                    rates_by_reason("chandlery_feed_signals_dropped_total", "chandlery_feed_signals_emitted_total"),
                    "dropped: {{reason}}",
                ),
            ),
            "ops",
        ),
        Panel(
            "Trades",
            (
                Query(f"sum(rate(chandlery_ingest_trades_appended_total[{RATE}]))", "appended"),
                Query("sum(chandlery_ingest_trades_waiting)", "waiting"),
            ),
            "ops",
        ),
        Panel(
            "Left out, by reason",
            (
                Query(rates_by_reason("chandlery_feed_drops_total", "chandlery_feed_records_total"), "feed {{reason}}"),
                Query(f"sum by (reason) (rate(chandlery_aggregator_drops_total[{RATE}]))", "aggregator {{reason}}"),
                Query(
                    rates_by_reason("chandlery_ingest_trades_dropped_total", "chandlery_ingest_trades_received_total"),
                    "ingest {{reason}}",
                ),
            ),
            "ops",
        ),
        Panel(
            "Behind",
            (
                Query("sum(chandlery_aggregator_lag_records)", "aggregator"),
                Query("sum(chandlery_feed_lag_records)", "feeds"),
            ),
            description="Records that the broker has and the reader not yet.",
        ),
        Panel(
            "Lives of signals on forming candles",
            (Query(f"sum by (state) (rate(chandlery_feed_signal_lives_total[{RATE}]))", "{{state}}"),),
            "ops",
            width=24,
            description="What the closes of their candles say: confirmed or invalidated; the rest stay detected. Of "
            "signals on closed candles nothing is told: closed and expired follow from what comes later, and the clock.",
        ),
    ),
)

_TRADER: Final = '{trader=~"$trader"}'
TRADER: Final = Board(
    "chandlery-trader",
    "Chandlery / Traders",
    (
        Panel("State", (Query(f"chandlery_trader_state{_TRADER}", "{{trader}} {{state}}"),)),
        Panel("Calls", (Query(f"rate(chandlery_trader_calls_total{_TRADER}[{RATE}])", "{{trader}}"),), "ops"),
        Panel("Signals", (Query(f"rate(chandlery_trader_signals_total{_TRADER}[{RATE}])", "{{trader}}"),), "ops"),
        Panel(
            "Memory",
            (
                Query(f"chandlery_trader_resident_memory_bytes{_TRADER}", "{{trader}} resident"),
                Query(f"chandlery_trader_pss_bytes{_TRADER}", "{{trader}} its share (PSS)"),
            ),
            "bytes",
        ),
        Panel(
            "Calls not made, or made again",
            tuple(
                Query(f"rate(chandlery_trader_{name}_total{_TRADER}[{RATE}])", f"{{{{trader}}}} {name}")
                for name in ("reruns", "stale", "lapped", "informative_missing", "errors")
            ),
            "ops",
        ),
        Panel(
            "Signal ring",
            (
                Query(f"chandlery_trader_ring_depth{_TRADER}", "{{trader}} in use"),
                Query(f"chandlery_trader_ring_in_flight{_TRADER}", "{{trader}} not acknowledged"),
            ),
        ),
        Panel(
            "Restarts and pauses",
            (
                Query(f"rate(chandlery_trader_restarts_total{_TRADER}[{RATE}])", "{{trader}} restarts"),
                Query(f"rate(chandlery_trader_blocked_total{_TRADER}[{RATE}])", "{{trader}} blocked"),
            ),
            "ops",
        ),
        Panel(
            "Warm-up",
            (
                Query(f"chandlery_trader_warm_candles{_TRADER}", "{{trader}} has"),
                Query(f"chandlery_trader_warm_candles_needed{_TRADER}", "{{trader}} needs"),
            ),
        ),
    ),
    (("trader", "label_values(chandlery_trader_calls_total, trader)"),),
)

#: The chart's monitors have it from pods, ``chandlery up`` gives it to its targets.
_BY_FEED: Final = "namespace, chandlery_dev_feed"
_FEED: Final = '{chandlery_dev_feed=~"$feed"}'
FEED: Final = Board(
    "chandlery-feed",
    "Chandlery / Market and feed",
    (
        Panel(
            "Trades received by symbol",
            (
                Query(
                    f"rate(chandlery_ingest_symbol_trades_total{_FEED}[{RATE}])",
                    "{{namespace}}/{{chandlery_dev_feed}} {{symbol}}",
                ),
            ),
            "ops",
        ),
        Panel(
            "Watermark behind our clock",
            (
                Query(
                    f"chandlery_ingest_watermark_lateness_seconds{_FEED}",
                    "{{namespace}}/{{chandlery_dev_feed}} ingest {{symbol}}",
                ),
                Query(
                    f"chandlery_aggregator_watermark_lateness_seconds{_FEED}",
                    "{{namespace}}/{{chandlery_dev_feed}} aggregator {{symbol}}",
                ),
            ),
            "s",
            description="Years in replays: their market's time is of back then.",
        ),
        Panel(
            "Received to appended",
            (
                Query(
                    quantile(0.5, "chandlery_ingest_append_seconds", _BY_FEED, _FEED),
                    "{{namespace}}/{{chandlery_dev_feed}} p50",
                ),
                Query(
                    quantile(0.99, "chandlery_ingest_append_seconds", _BY_FEED, _FEED),
                    "{{namespace}}/{{chandlery_dev_feed}} p99",
                ),
            ),
            "s",
        ),
        Panel(
            "Received to aggregated",
            (
                Query(
                    quantile(0.5, "chandlery_aggregator_aggregated_seconds", _BY_FEED, _FEED),
                    "{{namespace}}/{{chandlery_dev_feed}} p50",
                ),
                Query(
                    quantile(0.99, "chandlery_aggregator_aggregated_seconds", _BY_FEED, _FEED),
                    "{{namespace}}/{{chandlery_dev_feed}} p99",
                ),
            ),
            "s",
        ),
        Panel(
            "Candles in the segment, by what became of them",
            (
                Query(
                    f"sum by ({_BY_FEED}, outcome) (rate(chandlery_feed_candles_total{_FEED}[{RATE}]))",
                    "{{namespace}}/{{chandlery_dev_feed}} {{outcome}}",
                ),
            ),
            "ops",
        ),
        Panel(
            "Trades, by what became of them",
            (
                Query(
                    f"sum by ({_BY_FEED}, outcome) (rate(chandlery_aggregator_trades_total{_FEED}[{RATE}]))",
                    "{{namespace}}/{{chandlery_dev_feed}} {{outcome}}",
                ),
            ),
            "ops",
        ),
        Panel(
            "Series of those that there is room for",
            (
                Query(
                    f"chandlery_feed_series{_FEED} / chandlery_feed_series_capacity{_FEED}",
                    "{{namespace}}/{{chandlery_dev_feed}} {{instance}}",
                ),
            ),
            "percentunit",
        ),
        Panel(
            "Reconnects",
            (
                Query(
                    f"rate(chandlery_ingest_reconnects_total{_FEED}[{RATE}])",
                    "{{namespace}}/{{chandlery_dev_feed}} to the exchange",
                ),
                Query(
                    f"rate(chandlery_ingest_kafka_reconnects_total{_FEED}[{RATE}])",
                    "{{namespace}}/{{chandlery_dev_feed}} to Kafka, ingest",
                ),
                Query(
                    f"rate(chandlery_aggregator_reconnects_total{_FEED}[{RATE}])",
                    "{{namespace}}/{{chandlery_dev_feed}} to Kafka, aggregator {{instance}}",
                ),
                Query(
                    f"rate(chandlery_feed_reconnects_total{_FEED}[{RATE}])",
                    "{{namespace}}/{{chandlery_dev_feed}} to Kafka, feed {{instance}}",
                ),
            ),
            "ops",
        ),
        Panel(
            "Assignment",
            (
                Query(
                    f"chandlery_feed_assignment_received{_FEED} - chandlery_feed_assignment_applied{_FEED}",
                    "{{namespace}}/{{chandlery_dev_feed}} {{instance}} to apply",
                ),
            ),
        ),
        Panel(
            "Gaps and dead letters",
            (
                Query(f"rate(chandlery_feed_gaps_total{_FEED}[{RATE}])", "{{namespace}}/{{chandlery_dev_feed}} gaps"),
                Query(
                    f"rate(chandlery_feed_dead_letters_total{_FEED}[{RATE}])",
                    "{{namespace}}/{{chandlery_dev_feed}} dead letters, feed",
                ),
                Query(
                    f"rate(chandlery_aggregator_dead_letters_total{_FEED}[{RATE}])",
                    "{{namespace}}/{{chandlery_dev_feed}} dead letters, aggregator",
                ),
                Query(
                    f"sum by ({_BY_FEED}, symbol) (chandlery_ingest_missing_ids{_FEED})",
                    "{{namespace}}/{{chandlery_dev_feed}} missing ids {{symbol}}",
                ),
            ),
        ),
    ),
    (("feed", "label_values(chandlery_ingest_connected, chandlery_dev_feed)"),),
)

LATENCY: Final = Board(
    "chandlery-latency",
    "Chandlery / Latency budget",
    (
        Panel(
            "Where the time goes, p50",
            (Query(quantile(0.5, "chandlery_stage_seconds", "stage"), "{{stage}}"),),
            "s",
            exemplars=True,
        ),
        Panel(
            "Where the time goes, p99",
            (Query(quantile(0.99, "chandlery_stage_seconds", "stage"), "{{stage}}"),),
            "s",
            exemplars=True,
        ),
        Panel(
            "Mean of each stage",
            (
                Query(
                    f"sum by (stage) (rate(chandlery_stage_seconds_sum[{RATE}])) / "
                    f"sum by (stage) (rate(chandlery_stage_seconds_count[{RATE}]))",
                    "{{stage}}",
                ),
            ),
            "s",
            description="Means add up to the whole, which percentiles don't.",
        ),
        Panel(
            "Visible to decided",
            (
                Query(quantile(0.5, "chandlery_visible_to_decided_seconds"), "p50"),
                Query(quantile(0.99, "chandlery_visible_to_decided_seconds"), "p99"),
            ),
            "s",
            exemplars=True,
        ),
        Panel(
            "Frame to signal",
            (Query(f"sum by (le) (rate(chandlery_frame_to_signal_seconds_bucket[{RATE}]))", "{{le}}"),),
            "s",
            "heatmap",
            width=24,
            exemplars=True,
        ),
        Panel(
            "Traces",
            (
                Query(f"sum(rate(chandlery_feed_traces_exported_total[{RATE}]))", "exported"),
                Query("sum(chandlery_feed_traces_waiting)", "waiting"),
                Query(
                    rates_by_reason("chandlery_feed_traces_dropped_total", "chandlery_feed_traces_built_total"),
                    "dropped: {{reason}}",
                ),
            ),
        ),
        Panel(
            "Stamps that contradicted their neighbours",
            (Query(f"sum(rate(chandlery_feed_corrected_stamps_total[{RATE}]))", "corrected"),),
            "ops",
        ),
    ),
)

MEMORY: Final = Board(
    "chandlery-memory",
    "Chandlery / Memory",
    (
        Panel("Processes, their share (PSS)", (Query("process_proportional_memory_bytes", "{{instance}}"),), "bytes"),
        Panel("Processes, resident", (Query("process_resident_memory_bytes", "{{instance}}"),), "bytes"),
        Panel(
            "Traders, their share (PSS)",
            (Query("chandlery_trader_pss_bytes", "{{trader}}"),),
            "bytes",
            description="What a Trader adds to its worker: what it shares with others counts in parts. Resident sizes "
            "count it once for each.",
        ),
        Panel(
            "Supervisors and fork servers, their share (PSS)",
            (Query("chandlery_worker_pss_bytes", "{{instance}} {{process}}"),),
            "bytes",
        ),
        Panel("Traders, resident", (Query("chandlery_trader_resident_memory_bytes", "{{trader}}"),), "bytes"),
        Panel("Segments", (Query("chandlery_feed_segment_bytes", "{{instance}}"),), "bytes"),
        Panel(
            "Growth of traders, an hour",
            (Query('deriv(chandlery_trader_resident_memory_bytes{trader!="_other"}[15m]) * 3600', "{{trader}}"),),
            "bytes",
        ),
        Panel("File descriptors", (Query("process_open_fds", "{{instance}}"),)),
    ),
)

BOARDS: Final = (OVERVIEW, TRADER, FEED, LATENCY, MEMORY)


def rendered(board: Board) -> str:
    """A dashboard's JSON, as Grafana imports it."""
    made = (
        dashboard.Dashboard(board.title)
        .uid(board.uid)
        .tags(["chandlery"])
        .refresh("10s")
        .time("now-30m", "now")
        .editable()
        .with_variable(dashboard.DatasourceVariable("datasource").type("prometheus").label("Prometheus"))
    )
    for name, values in board.variables:
        made = made.with_variable(
            dashboard.QueryVariable(name).query(values).datasource(SOURCE).multi(True).include_all(True).all_value(".*")
        )
    for panel in board.panels:
        made = made.with_panel(_panel(panel))
    plain = _stated(json.loads(JSONEncoder().encode(made.build())))
    for number, panel in enumerate(plain["panels"]):
        panel["id"] = number + 1
    return json.dumps(plain, indent=1, sort_keys=True) + "\n"


def _stated(plain: Any) -> Any:
    """Without what is null: Grafana's schema knows fields that are left out, and no nulls."""
    if isinstance(plain, dict):
        return {name: _stated(value) for name, value in plain.items() if value is not None}
    return [_stated(value) for value in plain] if isinstance(plain, list) else plain


def _panel(panel: Panel) -> Any:
    kinds: dict[str, Any] = {"timeseries": timeseries.Panel, "stat": stat.Panel, "heatmap": heatmap.Panel}
    made: Any = kinds[panel.kind]()
    made = made.title(panel.title).datasource(SOURCE).span(panel.width).height(4 if panel.kind == "stat" else 8)
    made = made.unit(panel.unit)
    if panel.description:
        made = made.description(panel.description)
    for number, query in enumerate(panel.queries):
        target = prometheus.Dataquery().expr(query.expr).ref_id(chr(ord("A") + number)).exemplar(panel.exemplars)
        target = target.range() if panel.kind != "stat" else target.instant()
        if query.legend:
            target = target.legend_format(query.legend)
        if panel.kind == "heatmap":
            target = target.format(PromQueryFormat.HEATMAP)
        made = made.with_target(target)
    return made
