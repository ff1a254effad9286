"""Figures of the process: what is counted, under labels that nobody can invent."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator

import aiohttp
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from tests.console_api.conftest import Serve
from tests.console_api.stage import Stage, stream, until
from tests.support.promtool import promtool_finds_nothing

from chandlery.stream.metrics_server import MetricsServer


async def test_requests_are_counted_by_route_and_status(stage: Stage) -> None:
    async with stage.ask() as api:
        await api.get("traders/default/alpha")
        await api.get("traders/default/beta")
        await api.get("traders/default/none")
        await api.get("traders?limit=0")
        await api.patch("traders")
        await api.get("http://127.0.0.1/index.nothing")
    requests = stage.services.metrics.requests
    route = "/api/v1/traders/{namespace}/{name}"
    assert (requests["GET", route, 200], requests["GET", route, 404]) == (2, 1)
    assert requests["GET", "/api/v1/traders", 422] == 1
    assert stage.services.metrics.latency[route].count == 3


async def test_what_anybody_may_invent_is_no_label(stage: Stage) -> None:
    async with stage.ask() as api:
        for number in range(300):
            await api.get(f"invented-{number}")
            await api.request(f"M{number}", "overview")
            await api.get(f"http://127.0.0.1/invented-{number}.js")
            await api.get("overview", headers={"Host": f"h{number}.example.com"})
    assert len(stage.services.metrics.requests) <= 6
    assert len(stage.services.metrics.latency) <= 3


async def test_the_figures_are_served_for_prometheus(stage: Stage, serve: Serve) -> None:
    server = await serve()
    figures = MetricsServer("127.0.0.1:0", stage.services.metrics.families)
    await figures.start()
    try:
        async with stream(server.address, "live?topics=overview") as live, aiohttp.ClientSession() as session:
            await live.next("overview")
            await session.get(f"{server.address}/api/v1/overview")
            accept = {"Accept": "application/openmetrics-text; version=1.0.0"}
            async with session.get(f"http://{figures.bound}/metrics", headers=accept) as answer:
                families = text_string_to_metric_families(await answer.text())  # type: ignore[no-untyped-call]
                told = {family.name: family for family in families}
            async with session.get(f"http://{figures.bound}/metrics") as answer:
                promtool_finds_nothing(await answer.text())
        assert _values(told["chandlery_api_requests"])["GET", "/api/v1/overview", "200"] == 1
        assert _values(told["chandlery_api_streams_open"])["live",] == 1
        assert _values(told["chandlery_api_streams_opened"])["live",] == 1
        assert "chandlery_api_request_seconds" in told
        for name in ("streams_cut", "streams_refused", "signals_lost", "topics_failed"):
            assert f"chandlery_api_{name}" in told
        await until(lambda: stage.services.streams.open == 0)
        # A stream is a request too, counted when it ends; its length is no latency.
        assert stage.services.metrics.requests["GET", "/api/v1/live", 200] == 1
        assert "/api/v1/live" not in stage.services.metrics.latency
    finally:
        await figures.stop()


def _values(family: Metric) -> dict[tuple[str, ...], float]:
    found: Counter[tuple[str, ...]] = Counter()
    for labels, value in _samples(family):
        found[labels] += value  # type: ignore[assignment]
    return dict(found)


def _samples(family: Metric) -> Iterator[tuple[tuple[str, ...], float]]:
    for sample in family.samples:
        if not sample.name.endswith("_created"):
            yield tuple(sample.labels.values()), sample.value


async def test_a_client_that_went_before_its_answer_is_counted_apart(stage: Stage, serve: Serve) -> None:
    server = await serve()
    host, _, port = server.address.removeprefix("http://").partition(":")
    _, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"POST /api/v1/traders HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: 10\r\n\r\n{")  # fmt: skip
    await writer.drain()
    await until(lambda: server.connections == 1)
    writer.close()
    await writer.wait_closed()
    await until(lambda: server.connections == 0)
    async with aiohttp.ClientSession() as session, session.get(f"{server.address}/api/v1/healthz") as answer:
        assert answer.status == 200
