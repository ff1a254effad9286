"""Figures of the API's process: requests, streams, and what was dropped. Every label is one of a known few."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from chandlery.core.histogram import Histogram

if TYPE_CHECKING:
    from prometheus_client import Metric

#: The label of requests that no route took: what anybody may invent is no label.
UNKNOWN_ROUTE: Final = "_other"
#: Requests by another method share this label.
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"})


class ApiMetrics:
    """Counts what the API does.

    Attributes:
        requests: by (method, route, status). latency: of requests that are no stream, by route.
        opened, open: streams by kind, ever and now. cut: streams whose client read nothing for too long.
        refused: streams beyond the most. lost: signals that a stream couldn't tell (its ``gap`` events said so).
        failed: topics that couldn't be told for a time.
    """

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, str, int]] = Counter()
        self.latency: dict[str, Histogram] = {}
        self.opened: Counter[str] = Counter()
        self.open: Counter[str] = Counter()
        self.cut = 0
        self.refused = 0
        self.lost = 0
        self.failed = 0

    def answered(self, method: str, route: str, status: int, took_us: float | None) -> None:
        """A request ended; ``took_us`` None: a stream, whose length says nothing."""
        self.requests[(method if method in _METHODS else "_other", route, status)] += 1
        if took_us is not None:
            self.latency.setdefault(route, Histogram()).record(took_us)

    def families(self) -> Iterable[Metric]:
        """As Prometheus takes them."""
        from prometheus_client.core import CounterMetricFamily

        from chandlery.core.telemetry.exposition import counter, gauge, histogram

        requests = CounterMetricFamily(
            "chandlery_api_requests", "Requests answered, by route and status", labels=("method", "route", "status")
        )
        for (method, route, status), number in self.requests.items():
            requests.add_metric((method, route, str(status)), number)
        yield requests
        yield histogram(
            "chandlery_api_request_seconds", "From a request to its whole answer, streams aside", self.latency, "route"
        )
        yield gauge("chandlery_api_streams_open", "Streams that are open", dict(self.open), "stream")
        yield counter("chandlery_api_streams_opened", "Streams ever opened", dict(self.opened), "stream")
        yield counter("chandlery_api_streams_cut", "Streams cut because their client read nothing", self.cut)
        yield counter("chandlery_api_streams_refused", "Streams refused because too many were open", self.refused)
        yield counter("chandlery_api_signals_lost", "Signals a stream couldn't tell; it said so by a gap", self.lost)
        yield counter("chandlery_api_topics_failed", "Times that a topic couldn't be told to a stream", self.failed)
