"""Views that close let go of what they held: the browser's heap stays flat however often somebody switches."""

from __future__ import annotations

import pytest
from playwright.async_api import Browser
from tests.console_web import browsing
from tests.console_web.heap import Weight, switch_views, weigh

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow]

ROUNDS = 20
WARM_ROUNDS = 5
#: A chart alone that is held leaves 770 nodes, 64 listeners and 1 MB behind in each round.
MOST_NODES = 100
MOST_LISTENERS = 20
MOST_BYTES = 1_000_000


async def test_the_heap_stays_flat_over_hundreds_of_switches(browser: Browser, demo: str) -> None:
    async with browsing.sight(browser, demo) as sight:
        await sight.open()
        before: Weight | None = None
        for number in range(1, ROUNDS + 1):
            await switch_views(sight)
            if number == WARM_ROUNDS:
                before = await weigh(sight)
        after = await weigh(sight)
        assert before is not None
        said = f"after {WARM_ROUNDS} rounds {before}, after {ROUNDS} {after}"
        assert after.nodes - before.nodes <= MOST_NODES, said
        assert after.listeners - before.listeners <= MOST_LISTENERS, said
        assert after.heap_bytes - before.heap_bytes <= MOST_BYTES, said
        assert sight.complaints == []
