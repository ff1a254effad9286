"""The worker's figures for Prometheus: the feed's own, and what supervisor and traders told it.

The traders' container has no network: what is to be known of it comes this way. Everything is read from the status and
the histograms that are there anyway, when somebody asks; a tick costs nothing more for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, Protocol

from aiohttp import web
from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily

from chandlery.core.assignment import TraderStatus, WorkerStatus, trader_of
from chandlery.core.errors import InputError, MachineError
from chandlery.core.settings import FeedSettings, parse_listen
from chandlery.core.telemetry.exposition import Exposition, Labelled, counter, gauge, histogram
from chandlery.workers.feed.histogram import LatencyBook


class Told(Protocol):
    """Where the figures are kept."""

    def status(self) -> WorkerStatus: ...
    @property
    def latency(self) -> LatencyBook: ...


#: Counters of a Trader by field of its status: name behind ``chandlery_trader_``, and what it means.
_COUNTERS: Final = {
    "calls": ("calls", "Calls of the strategy on closed and forming candles"),
    "signals": ("signals", "Signals written into the ring"),
    "reruns": ("reruns", "Calls that ran again because their data was overwritten or revised meanwhile"),
    "stale": ("stale", "Closed candles too far behind the newest (signals.ttl), without a call"),
    "lapped": ("lapped", "Closed candles that the segment no longer held, without a call"),
    "cooled_down": ("cooled_down", "Signals held back by the cooldown"),
    "informative_missing": ("informative_missing", "Calls without one of the informative series"),
    "errors": ("errors", "Calls that raised"),
    "blocked": ("blocked", "Pauses for a full signal ring"),
    "restarts": ("restarts", "Unexpected ends of the process"),
}
_GAUGES: Final = {
    "rss_bytes": ("resident_memory_bytes", "Resident memory of the process"),
    "warm_have": ("warm_candles", "Closed candles there are, of those wanted to be warm"),
    "warm_need": ("warm_candles_needed", "Closed candles wanted to be warm"),
}


#: It takes the kernel a walk over all pages, so it is looked at seldom.
_SHARE: Final = "Memory, of what is shared its share (PSS), looked at twice a minute,"


def families(status: WorkerStatus, latency: LatencyBook, labelled: Labelled) -> Iterable[Metric]:
    """Every figure of the worker."""
    feed = status.feed
    yield InfoMetricFamily(
        "chandlery_feed", "The worker", value={"worker": status.worker, "transport": str(feed["transport"])}
    )
    yield from _of_feed(status, feed)
    yield from _of_signals(feed, labelled)
    yield from _of_traders(status.traders, labelled)
    yield from _of_latency(latency)
    yield from _of_traces(feed["traces"])


def _of_feed(status: WorkerStatus, feed: dict[str, Any]) -> Iterable[Metric]:
    segment = feed["segment"]
    yield gauge("chandlery_feed_broker_connected", "Whether the broker answers", feed["broker_connected"])
    yield counter("chandlery_feed_reconnects", "Times the broker came back after having been away", feed["reconnects"])
    yield gauge("chandlery_feed_supervisor_connected", "Whether the supervisor is there", status.supervisor_connected)
    yield gauge("chandlery_feed_assignment_received", "Sequence of the newest assignment", status.received_sequence)
    yield gauge("chandlery_feed_assignment_applied", "Sequence that every trader acknowledged", status.sequence)
    yield gauge("chandlery_feed_segment_bytes", "Size of the segment", segment["size_bytes"])
    yield gauge("chandlery_feed_segment_rows", "Closed candles that a series keeps", segment["rows"])
    yield gauge("chandlery_feed_segment_generation", "Times the segment was made anew", segment["generation"])
    yield gauge("chandlery_feed_segment_series", "Series in the segment, unread ones too", segment["series_used"])
    yield gauge("chandlery_feed_segment_series_room", "Series that the segment holds as it is", segment["series_room"])
    yield counter("chandlery_feed_segment_growths", "Times the segment was made larger", segment["growths"])
    yield gauge("chandlery_feed_series", "Series that a Trader reads", feed["series"])
    yield gauge("chandlery_feed_series_unread", "Series kept for a while, read by none", segment["series_in_grace"])
    yield counter("chandlery_feed_series_freed", "Series taken out of the segment", segment["series_freed"])
    yield gauge("chandlery_feed_series_capacity", "Series that there may be", segment["series_capacity"])
    yield gauge("chandlery_feed_series_refused", "Series that can't be had", len(feed["refused_series"]))
    yield gauge("chandlery_feed_series_catching_up", "Series whose history is being read", len(feed["catching_up"]))
    yield counter("chandlery_feed_records", "Candle records taken in live", feed["records"])
    yield gauge("chandlery_feed_lag_records", "Records that the broker has and the segment not yet", feed["lag"])
    yield gauge("chandlery_feed_behind_seconds", "For how long the oldest of them waits", feed["behind_ms"] / 1e3)
    yield counter("chandlery_feed_candles", "Candle updates by what became of them", feed["candles"], "outcome")
    yield counter("chandlery_feed_gaps", "Closed candles whose predecessor never came", feed["gaps"])
    yield counter("chandlery_feed_held", "Forming updates that waited for their predecessor", feed["held"])
    yield gauge("chandlery_feed_held_now", "Forming updates that wait now", feed["held_now"])
    yield counter("chandlery_feed_drops", "What was left out, by reason", feed["drops"], "reason")
    yield counter("chandlery_feed_dead_letters", "Records sent to the dead-letter topic", feed["dead_letters"])
    yield counter("chandlery_feed_events", "What else happened", feed["events"], "event")
    yield gauge(
        "chandlery_worker_pss_bytes",
        f"{_SHARE} of the supervisor and the fork server",
        feed["worker_pss_bytes"],
        "process",
    )


def by_trader(rings: Mapping[str, Mapping[str, int]], field: str) -> dict[str, int]:
    """One figure of all rings by Trader: a successor beside its Trader, shown by its key, counts with it."""
    figures: dict[str, int] = {}
    for shown, ring in rings.items():
        trader = _trader_shown(shown)
        figures[trader] = figures.get(trader, 0) + ring[field]
    return figures


def _trader_shown(shown: str) -> str:
    return trader_of(shown) if "@" in shown else shown


def _of_signals(feed: dict[str, Any], labelled: Labelled) -> Iterable[Metric]:
    signals, rings = feed["signals"], feed["rings"]
    yield counter("chandlery_feed_signals_emitted", "Signals taken from rings", signals["emitted"])
    yield counter("chandlery_feed_signals_published", "Signals that the broker acknowledged", signals["published"])
    yield counter("chandlery_feed_signals_dropped", "Signals left out, by reason", signals["dropped"], "reason")
    yield counter(
        "chandlery_feed_signal_lives", "What closes told of signals on forming candles", feed["lives"], "state"
    )
    for field, name, meaning in (
        ("depth", "ring_depth", "Slots in use of the signal ring"),
        ("capacity", "ring_capacity", "Slots of the signal ring"),
        ("in_flight", "ring_in_flight", "Signals sent and not acknowledged"),
    ):
        values = labelled.summed(by_trader(rings, field))
        yield gauge(f"chandlery_trader_{name}", meaning, values, "trader")


def _of_traders(traders: dict[str, TraderStatus], labelled: Labelled) -> Iterable[Metric]:
    states = GaugeMetricFamily(
        "chandlery_trader_state", "Traders by state: 1 for the one that each is in", labels=("trader", "state")
    )
    counts: dict[tuple[str, str], int] = {}
    for name, trader in traders.items():
        key = (labelled[name], str(trader.state))
        counts[key] = counts.get(key, 0) + 1
    for key, number in counts.items():
        states.add_metric(key, number)
    yield states
    yield gauge("chandlery_feed_traders", "Traders assigned", len(traders))
    yield gauge("chandlery_feed_traders_unlabelled", "Traders that share the label _other", labelled.others)
    for field, (name, meaning) in _COUNTERS.items():
        values = labelled.summed({trader: getattr(one, field) for trader, one in traders.items()})
        yield counter(f"chandlery_trader_{name}", meaning, values, "trader")
    for field, (name, meaning) in _GAUGES.items():
        values = labelled.summed({trader: getattr(one, field) for trader, one in traders.items()})
        yield gauge(f"chandlery_trader_{name}", meaning, values, "trader")
    shares = {trader: one.pss_bytes for trader, one in traders.items() if one.pss_bytes}
    yield gauge("chandlery_trader_pss_bytes", f"{_SHARE} of the Trader's process", labelled.summed(shares), "trader")
    newest = {
        trader: one.last_open_time_ms / 1e3
        for trader, one in traders.items()
        if one.last_open_time_ms and labelled[trader] == trader
    }
    yield gauge(
        "chandlery_trader_decided_timestamp_seconds", "Open time of the newest candle decided on", newest, "trader"
    )


def _of_latency(latency: LatencyBook) -> Iterable[Metric]:
    yield histogram("chandlery_stage_seconds", "Time that signals spent in each stage", latency.stages, "stage")
    yield histogram(
        "chandlery_frame_to_signal_seconds", "Exchange's frame received to signal acknowledged", latency.frame_to_signal
    )
    yield histogram(
        "chandlery_visible_to_decided_seconds", "Visible in the segment to decided", latency.visible_to_decided
    )
    yield counter("chandlery_feed_corrected_stamps", "Stamps that contradicted their neighbours", latency.corrected)


def _of_traces(traces: dict[str, Any]) -> Iterable[Metric]:
    yield counter("chandlery_feed_traces_built", "Traces to be exported", traces["built"])
    yield counter("chandlery_feed_traces_exported", "Traces that the receiver took", traces["exported"])
    yield gauge("chandlery_feed_traces_waiting", "Traces that wait for the receiver", traces["waiting"])
    yield counter("chandlery_feed_traces_dropped", "Traces given up, by reason", traces["dropped"], "reason")
    yield counter(
        "chandlery_feed_spans_rejected", "Spans that a receiver left out of what it took", traces["spans_rejected"]
    )


class MetricsServer:
    """Serves ``GET /metrics``, to anybody: it says nothing that a token would have to guard.

    Raises:
        InputError: ``metrics_listen`` is no address.
    """

    def __init__(self, settings: FeedSettings, told: Told) -> None:
        try:
            self._address = parse_listen(settings.metrics_listen)
        except InputError as error:
            raise InputError(f"metrics_listen: {error}") from error
        self._told = told
        self._labelled = Labelled(settings.metrics_traders)
        self._exposition = Exposition(self._families)
        app = web.Application()
        app.router.add_get("/metrics", self._get)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
        #: ``host:port`` bound, port 0 resolved.
        self.bound = ""

    async def start(self) -> None:
        """Listen.

        Raises:
            MachineError: the address is taken.
        """
        await self._runner.setup()
        try:
            if isinstance(self._address, str):
                await web.UnixSite(self._runner, self._address).start()
            else:
                await web.TCPSite(self._runner, *self._address).start()
                self.bound = f"{self._address[0]}:{self._runner.addresses[0][1]}"
        except OSError as error:
            await self._runner.cleanup()
            raise MachineError(f"can't listen on {self._address} for metrics: {error.strerror or error}") from error

    async def stop(self) -> None:
        """Stop listening."""
        await self._runner.cleanup()

    def _families(self) -> Iterable[Metric]:
        status = self._told.status()
        self._labelled.follow({*status.traders, *map(_trader_shown, status.feed["rings"])})
        return families(status, self._told.latency, self._labelled)

    async def _get(self, request: web.Request) -> web.Response:
        body, content_type = await self._exposition.answer(request.headers.get("Accept", ""))
        return web.Response(body=body, headers={"Content-Type": content_type})
