"""An edit to a symbol that the feed's source lacks, in an instance whose processes are only told of."""

from __future__ import annotations

from pathlib import Path

from tests.runtime.unstarted import MARKET, POOL, market_of, unstarted, wanted

from chandlery.cli.runtime.local import LocalRuntime
from chandlery.cli.runtime.recent import RecentSignals
from chandlery.cli.runtime.viewing import Viewer
from chandlery.console.model import TraderRow
from chandlery.core.assignment import TraderStatus, WorkerStatus

EXCHANGE = "{binance: {}}"


def row_of(runtime: LocalRuntime) -> TraderRow:
    (row,) = Viewer(runtime, RecentSignals()).traders()
    return row


async def test_the_version_before_runs_on_and_is_ready_while_the_symbol_stays_asked_for(tmp_path: Path) -> None:
    runtime = unstarted(tmp_path, wanted(EXCHANGE))
    made = await runtime._next_plan()
    group = market_of(runtime)
    worker = runtime._new_worker(made, POOL, "demo-0")
    worker.want(made.pools[POOL].workers["demo-0"])
    worker._was_ready = True
    told = {"default/one": TraderStatus("Active", generation=1, incarnation=1)}
    worker.watch.status = WorkerStatus("demo-0", 1, 1, worker.delivery.assignment.hash, 1, True, told, [], {})
    runtime.wanted = wanted(EXCHANGE, "LOST/USDT")
    made = await runtime._next_plan()
    worker.want(made.pools[POOL].workers["demo-0"])
    assert [one.mode for one in worker.delivery.assignment.traders] == ["active", "standby"]
    group.ingest_watch.status = {"unknown_symbols": ["LOST/USDT"]}
    assert row_of(runtime).ready, "what decides has its symbol, also before the next plan"
    for _ in range(2):
        made = await runtime._next_plan()
        worker.want(made.pools[POOL].workers["demo-0"])
        assert [one.incarnation for one in worker.delivery.assignment.traders] == [1]
        assert made.feeds[MARKET].symbols == ("BTC/USDT", "LOST/USDT")
    row = row_of(runtime)
    assert (row.state, row.reason, row.ready) == ("Active", "UnknownSymbol", True)
    assert row.message == "the feed's source has no LOST/USDT: mend spec.market (generation 1 stays)"
    group.ingest_watch.status = {"unknown_symbols": ["BTC/USDT", "LOST/USDT"]}
    await runtime._next_plan()
    row = row_of(runtime)
    assert (row.state, row.reason, row.ready) == ("Stalled", "UnknownSymbol", False), "of no version it has all"
