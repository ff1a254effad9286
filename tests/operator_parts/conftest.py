"""What several files of tests start from."""

from __future__ import annotations

from collections.abc import AsyncIterator

import aiohttp
import pytest_asyncio
from tests.operator_parts.pools_bench import Bench


@pytest_asyncio.fixture
async def bench() -> AsyncIterator[Bench]:
    async with aiohttp.ClientSession() as session:
        made = Bench(session)
        yield made
        await made.workers.close()
