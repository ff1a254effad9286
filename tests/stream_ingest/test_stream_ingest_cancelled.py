"""An exchange client that is told to end in the middle of something leaves no connection behind."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest
from tests.stream_ingest.ingest_doubles import VirtualClock

from chandlery.core.errors import InvariantError
from chandlery.stream.ingest.binance import BinanceSource, Connection
from chandlery.stream.ingest.counts import new_counts
from chandlery.stream.ingest.options import BinanceOptions


class SlowToClose:
    """A connection whose peer takes its time to say goodbye."""

    def __init__(self, *, ready: bool, quiet: bool = False) -> None:
        self.ready, self.quiet, self.spoke = asyncio.Event(), asyncio.Event(), asyncio.Event()
        if quiet:
            self.quiet.set()
        self.closing, self.goodbye = asyncio.Event(), asyncio.Event()
        if ready:
            self.ready.set()

    def trust(self) -> None:
        self.quiet.clear()

    async def run(self) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            self.closing.set()
            await self.goodbye.wait()


@pytest.mark.parametrize(("ready", "quiet"), [(True, False), (False, False), (False, True)])
async def test_a_source_told_to_end_while_a_connection_hands_over_ends_the_next_one_too(
    ready: bool, quiet: bool
) -> None:
    source: Any = BinanceSource(BinanceOptions(), ["BTC/USDT"], 250, 10_000, new_counts({}), VirtualClock())
    old, successor = SlowToClose(ready=True, quiet=quiet), SlowToClose(ready=ready)
    successor.goodbye.set()
    current = asyncio.create_task(old.run())
    before = asyncio.all_tasks()
    handing_over = asyncio.create_task(source._hand_over(cast(Connection, old), cast(Connection, successor), current))
    if ready:
        await old.closing.wait()
    else:
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    handing_over.cancel()
    await asyncio.wait([handing_over])
    assert handing_over.cancelled()
    assert successor.closing.is_set()
    assert not asyncio.all_tasks() - before - {handing_over}
    current.cancel()
    old.goodbye.set()
    await asyncio.wait([current])


async def test_a_source_whose_heartbeats_fail_ends_with_what_made_them_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without them silent symbols' candles would never close, and nobody would know why."""
    source: Any = BinanceSource(BinanceOptions(), ["BTC/USDT"], 250, 10_000, new_counts({}), VirtualClock())

    async def fails(outlet: object) -> None:
        raise InvariantError("no lane of that symbol")

    async def stays(http: object, outlet: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(source, "_beat", fails)
    monkeypatch.setattr(source, "_stay_connected", stays)
    with pytest.raises(InvariantError, match="no lane"):
        await asyncio.wait_for(source.run(None, {}), 20)
