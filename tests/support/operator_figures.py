"""The operator's figures as its endpoint serves them, without an operator that runs."""

from __future__ import annotations

from typing import NamedTuple

import aiohttp

from chandlery.core.kube_credentials import Credentials
from chandlery.operator.app import Operator
from chandlery.operator.health import Figures, HealthServer
from chandlery.operator.options import read_options


class Names(NamedTuple):
    """Of the operator's own counters and gauges, without ``chandlery_operator_``."""

    counters: list[str]
    gauges: list[str]


def figure_names() -> Names:
    """As the operator itself tells them."""
    operator = Operator(read_options(["--worker-image", "workers:1"]), Credentials("http://none", None))
    return Names([*operator._counters()], [*operator._gauges()])


async def served_figures(accept: str = "*/*") -> str:
    """The answer of ``GET /metrics``: every counter 1, every gauge 2."""
    names = figure_names()
    figures = Figures(
        lambda: dict.fromkeys(names.counters, 1.0),
        lambda: dict.fromkeys(names.gauges, 2.0),
        lambda: {("GET", "pods", 200): 3, ("PATCH", 'a "b"', 409): 4},
    )
    server = HealthServer(("127.0.0.1", 0), figures, lambda: "", lambda: "starting")
    await server.start()
    try:
        async with (
            aiohttp.ClientSession(f"http://127.0.0.1:{server.port}") as client,
            client.get("/metrics", headers={"Accept": accept}) as answer,
        ):
            return await answer.text()
    finally:
        await server.stop()
