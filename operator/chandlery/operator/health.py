"""What others see of the operator: ``/healthz``, ``/readyz`` and ``/metrics``."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from aiohttp import web
from aiohttp.typedefs import Handler
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from chandlery.core.errors import MachineError
from chandlery.core.telemetry.exposition import Exposition

Counts = Callable[[], dict[str, float]]


class Figures(Collector):
    """Counters and gauges that are read where they are kept, when somebody asks.

    Args:
        counters, gauges: give name (without ``chandlery_operator_``) → value.
        requests: API requests by (method, kind, status).
    """

    def __init__(
        self, counters: Counts, gauges: Counts, requests: Callable[[], dict[tuple[str, str, int], int]]
    ) -> None:
        self._counters = counters
        self._gauges = gauges
        self._requests = requests

    def collect(self) -> Iterable[Metric]:
        """Every figure of now."""
        for name, value in self._counters().items():
            yield CounterMetricFamily(f"chandlery_operator_{name}", HELP[name], value=value)
        for name, value in self._gauges().items():
            yield GaugeMetricFamily(f"chandlery_operator_{name}", HELP[name], value=value)
        family = CounterMetricFamily(
            "chandlery_operator_api_requests", "Requests to the API server", labels=("method", "resource", "status")
        )
        for (method, resource, status), number in self._requests().items():
            family.add_metric((method, resource, str(status)), number)
        yield family


#: What each figure means.
HELP = {
    "reconciles": "Reconciles of pools and feeds",
    "reconcile_failures": "Reconciles that failed and are repeated",
    "status_writes": "Statuses written",
    "status_conflicts": "Statuses not written because the resource had changed",
    "child_writes": "Children written",
    "events": "Kubernetes events written",
    "events_dropped": "Kubernetes events not written: refused, or too many waited for the API server",
    "events_waiting": "Kubernetes events that the API server could not take, to be tried again",
    "ghosts_dropped": "Resources dropped because a list did not have them",
    "watch_reconnects": "Times that a watch of the API server went on after it had failed",
    "queue": "Pools and feeds that wait for a reconcile, or are in one",
    "watch_silence_seconds": "Longest time that one of the watches has brought nothing; each brings something in 25 s",
    "traders": "Traders in the cache",
    "workers": "Workers",
    "workers_ready": "Workers that are Ready",
    "assignments_pending": "Workers whose newest assignment is not acknowledged",
}


class HealthServer:
    """Serves the three.

    Args:
        healthy, ready: what is wrong; empty: nothing.
    """

    def __init__(
        self, listen: tuple[str, int], figures: Figures, healthy: Callable[[], str], ready: Callable[[], str]
    ) -> None:
        self._listen = listen
        self._exposition = Exposition(figures.collect)
        app = web.Application()
        app.router.add_get("/healthz", _answer(healthy))
        app.router.add_get("/readyz", _answer(ready))
        app.router.add_get("/metrics", self._metrics)
        self._runner = web.AppRunner(app, access_log=None)
        #: Port bound; 0 in ``listen`` is resolved.
        self.port = 0

    async def start(self) -> None:
        """Listen.

        Raises:
            MachineError: the address is taken.
        """
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, *self._listen, reuse_address=True).start()
        except OSError as error:
            await self._runner.cleanup()
            raise MachineError(f"can't listen on {self._listen[0]}:{self._listen[1]}: {error.strerror}") from error
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Stop listening."""
        await self._runner.cleanup()

    async def _metrics(self, request: web.Request) -> web.Response:
        body, content_type = await self._exposition.answer(request.headers.get("Accept", ""))
        return web.Response(body=body, headers={"Content-Type": content_type})


def _answer(problem: Callable[[], str]) -> Handler:
    async def answer(_request: web.Request) -> web.Response:
        wrong = problem()
        return web.Response(text=f"{wrong or 'ok'}\n", status=503 if wrong else 200)

    return answer
