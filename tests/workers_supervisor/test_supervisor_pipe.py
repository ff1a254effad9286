"""``transport: Pipe``: the same traders, their candles sent through a socket by the feed's own sender."""

from __future__ import annotations

from collections import Counter

from tests.workers_supervisor.fake_feed import BTC, trader, worker

from chandlery.core.assignment import SeriesRef
from chandlery.workers.feed.sequencing import Change
from chandlery.workers.feed.window_sender import WindowSender


async def test_traders_decide_on_windows_as_on_shared_memory() -> None:
    async with worker(transport="Pipe") as made:
        made.close(1.0, 2.0)
        specs = [trader("a", "buys", warmup=3), trader("b", "buys", trigger="EveryUpdate")]
        sender = WindowSender(made.rings / "windows.sock", made.segment, Counter())
        sender.assign(specs)
        await sender.start()
        try:
            await made.applied(made.assign(*specs))
            for price in (3.0, 4.0, 5.0):
                made.close(price)
                sender.changed({SeriesRef(BTC, "1s"): Change.CLOSED})
            for name in ("a", "b"):
                signals = await made.signals(f"desk/{name}", 3)
                assert [each.price for each in signals] == ["3", "4", "5"]
            status = await made.states(a="Active", b="Active")
            assert {each.restarts for each in status.values()} == {0}
        finally:
            await sender.stop()
