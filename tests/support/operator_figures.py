"""The operator's figures as its endpoint serves them, without an operator."""

from __future__ import annotations

from typing import Final

import aiohttp

from chandlery.operator.health import HELP, Figures, HealthServer

GAUGES: Final = ("queue", "traders", "workers", "workers_ready", "assignments_pending")
COUNTERS: Final = tuple(name for name in HELP if name not in GAUGES)


async def served_figures() -> str:
    """The answer of ``GET /metrics``: every counter 1, every gauge 2."""
    figures = Figures(
        lambda: dict.fromkeys(COUNTERS, 1.0),
        lambda: dict.fromkeys(GAUGES, 2.0),
        lambda: {("GET", "pods", 200): 3, ("PATCH", 'a "b"', 409): 4},
    )
    server = HealthServer(("127.0.0.1", 0), figures, lambda: "", lambda: "starting")
    await server.start()
    try:
        async with (
            aiohttp.ClientSession(f"http://127.0.0.1:{server.port}") as client,
            client.get("/metrics") as answer,
        ):
            return await answer.text()
    finally:
        await server.stop()
