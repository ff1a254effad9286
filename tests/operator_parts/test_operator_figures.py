"""The operator's figures are as Prometheus' linter wants them, and name what they mean."""

from __future__ import annotations

import aiohttp
from prometheus_client.parser import text_string_to_metric_families
from tests.support.promtool import promtool_finds_nothing

from chandlery.operator.health import HELP, Figures, HealthServer


async def test_the_figures_are_clean_and_complete() -> None:
    gauges = ("queue", "traders", "workers", "workers_ready", "assignments_pending")
    counters = [name for name in HELP if name not in gauges]
    figures = Figures(
        lambda: dict.fromkeys(counters, 1.0),
        lambda: dict.fromkeys(gauges, 2.0),
        lambda: {("GET", "pods", 200): 3, ("PATCH", 'a "b"', 409): 4},
    )
    server = HealthServer(("127.0.0.1", 0), figures, lambda: "", lambda: "starting")
    await server.start()
    try:
        async with (
            aiohttp.ClientSession(f"http://127.0.0.1:{server.port}") as client,
            client.get("/metrics") as answer,
        ):
            text = await answer.text()
    finally:
        await server.stop()
    promtool_finds_nothing(text)
    names = {sample.name for family in text_string_to_metric_families(text) for sample in family.samples}
    assert names == {
        *(f"chandlery_operator_{name}" for name in gauges),
        *(f"chandlery_operator_{name}_total" for name in counters),
        "chandlery_operator_api_requests_total",
    }
