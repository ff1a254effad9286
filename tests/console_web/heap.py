"""What a page weighs, and quick switching through all views."""

from __future__ import annotations

from typing import NamedTuple

from tests.console_web.browsing import VIEWS, Sight


class Weight(NamedTuple):
    """After the garbage is collected: JavaScript's heap, all DOM nodes (detached ones too), listeners."""

    heap_bytes: int
    nodes: int
    listeners: int


async def switch_views(sight: Sight) -> int:
    """Each view once, as quickly as it shows its data. Returns how many."""
    for view in VIEWS:
        await sight.show(view)
    return len(VIEWS)


async def weigh(sight: Sight) -> Weight:
    """Weigh the page on the one view whose size doesn't depend on what came meanwhile."""
    await sight.show("new")
    session = await sight.page.context.new_cdp_session(sight.page)
    try:
        # What a first collection sets free may hold what a second one does.
        for _ in range(3):
            await session.send("HeapProfiler.collectGarbage")
        heap = await session.send("Runtime.getHeapUsage")
        counters = await session.send("Memory.getDOMCounters")
    finally:
        await session.detach()
    return Weight(int(heap["usedSize"]), int(counters["nodes"]), int(counters["jsEventListeners"]))
