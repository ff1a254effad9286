"""Live figures are the pods' own, within bounds; what can't be asked is said and leaves the statuses."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from tests.console_cluster.api_server import a_trader, an_object
from tests.workers_feed.feed_setup import api, assignment, feed_settings, put, running_feed, supervisor, trader, until

from chandlery.console.backends.cluster_figures import (
    AggregatorFigures,
    IngestFigures,
    ProcessFigures,
    WorkerFigures,
    process_figures,
    worker_figures,
)
from chandlery.console.backends.cluster_follow import Names
from chandlery.console.backends.cluster_poll import FeedFigures, Poller, PoolFigures, resolve
from chandlery.console.backends.cluster_rows import (
    amount_us,
    feed_row,
    idle,
    kept,
    kept_trader,
    notices_of,
    pool_row,
    processes_of,
    segments_of,
    trader_row,
    transports_of,
)
from chandlery.core.assignment import TraderStatus
from chandlery.core.settings import KafkaSettings

QUANTS = ("desk", "quants")
READY = {"type": "Ready", "status": "True", "reason": "Running", "lastTransitionTime": "2026-01-01T00:00:00Z"}
STATUS = {"observedGeneration": 1, "conditions": [READY], "worker": "w0", "signals": 7, "latency": {"p50": "3.1ms", "p99": "1.2s", "count": 9}}  # fmt: skip


class Places:
    """Addresses by port of what is asked for; a port without one: no such name."""

    def __init__(self, **by_host: list[tuple[str, int]]) -> None:
        self.by_host = by_host
        self.asked: list[str] = []

    async def __call__(self, name: str, port: int) -> Sequence[tuple[str, int]]:
        self.asked.append(f"{name}:{port}")
        return self.by_host.get(name.partition(".")[0].replace("-", "_"), [])


@asynccontextmanager
async def answering(answers: dict[str, Any]) -> AsyncIterator[tuple[str, int]]:
    """A pod that answers paths so; None: it never does."""

    async def answer(request: web.Request) -> web.StreamResponse:
        told = answers[request.path]
        if told is None:
            await asyncio.sleep(60)
        if isinstance(told, int):
            return web.Response(status=told)
        return web.Response(body=told if isinstance(told, bytes) else json.dumps(told).encode())

    app = web.Application()
    for path in answers:
        app.router.add_get(path, answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.05)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield runner.addresses[0][0], runner.addresses[0][1]
    finally:
        await runner.cleanup()


async def turns(places: Places, number: int, pools: Sequence[Names] = (), feeds: Sequence[Names] = ()) -> Poller:
    poller = Poller(lambda: (pools, feeds), resolve=places)
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=0.5)) as session:
        for _ in range(number):
            await poller.turn(session)
    return poller


async def test_a_workers_own_figures_are_read_as_it_tells_them(tmp_path: Path, unused_tcp_port: int) -> None:
    kafka = KafkaSettings(bootstrap=f"127.0.0.1:{unused_tcp_port}", feed="none")
    settings = feed_settings(tmp_path, kafka, metrics_listen="127.0.0.1:0", metrics_traders=2)
    async with running_feed(settings) as feed, api(settings) as client, supervisor(settings) as said:
        await put(client, assignment(1, *[trader(name, ["BTC/USDT"]) for name in "abc"]))
        status = TraderStatus("Active", calls=10, signals=3, restarts=1, errors=2, rss_bytes=5_000, lapped=4)
        shares = {"supervisor": 30, "fork_server": 20}
        said.say(sequence=1, hash="x", traders={f"desk/{name}": status for name in "abc"}, pss_bytes=shares)
        await until("told", lambda: feed.status().traders["desk/a"].calls == 10)
        host, _, port = feed.metrics_address.rpartition(":")
        poller = await turns(Places(quants_workers=[(host, int(port))]), 1, [QUANTS])
        told = feed.status().feed
    (worker,) = poller.pools[QUANTS].workers.values()
    assert worker.worker == settings.worker
    assert worker.transport == "SharedMemory"
    assert (worker.segment_bytes, worker.series_capacity) == (told["segment"]["size_bytes"], settings.segment_series)
    assert worker.rss_bytes > 10_000_000
    assert worker.traders.keys() == {"desk/a", "desk/b"}, "those that share a label are nobody's"
    one = worker.traders["desk/a"]
    assert (one.state, one.calls, one.signals, one.restarts, one.errors) == ("Active", 10, 3, 1, 2)
    assert (one.rss_bytes, one.lapped) == (5_000, 4)
    assert (worker.supervisor_pss_bytes, worker.fork_server_pss_bytes) == (30, 20)


async def test_a_pod_that_never_answers_costs_one_time_out_and_is_said_after_a_while() -> None:
    async with (
        answering({"/metrics": None}) as deaf,
        answering({"/metrics": b'chandlery_feed_info{worker="w1"} 1\n'}) as well,
    ):
        places = Places(quants_workers=[deaf, well])
        assert (await turns(places, 2, [QUANTS])).pools[QUANTS].problem == "", "a pod that restarts is away for a while"
        poller = await turns(places, 3, [QUANTS])
    assert poller.pools[QUANTS].workers.keys() == {"w1"}
    assert "TimeoutError" in poller.pools[QUANTS].problem
    row = pool_row(an_object("TraderPool", "quants", {"feed": {"name": "market"}}, {"readyWorkers": 2}))
    assert "desk/quants" in notices_of(poller.pools, {}, [row])[0]
    row.ready_workers = 0
    assert notices_of(poller.pools, {}, [row]) == [], "a pool whose workers are on their way says so itself"


async def test_an_answer_without_an_end_is_cut_off() -> None:
    async with answering({"/metrics": b"x" * (5 << 20)}) as pod:
        poller = await turns(Places(quants_workers=[pod]), 3, [QUANTS])
    assert "more than" in poller.pools[QUANTS].problem


async def test_a_feeds_pods_tell_whether_it_is_alive_and_how_quick_its_market_is() -> None:
    ingest: dict[str, Any] = {
        "connected": True, "finished": False, "frames": 12, "trades": {"appended": 100, "dropped": {}}, "reconnects": 2,
        "symbols": {"BTC/USDT": {"gap_ids": 0, "trades": 70}, "ETH/USDT": {"gap_ids": 0}}, "malformed": {"json": 0},
    }  # fmt: skip
    aggregator = {
        "ready": True,
        "dead_letters": 0,
        "lag": 2,
        "behind_ms": 70,
        "totals": {"candles": {"closed": 9}, "counts": {"late": 1, "duplicate": 3}},
    }
    memory = b"process_resident_memory_bytes 2.5e+07\nprocess_start_time_seconds 1.7e+09\n"
    item = kept(an_object("MarketFeed", "market", {"source": {"synthetic": {}}}, {"observedGeneration": 1, "conditions": [READY]}))  # fmt: skip
    async with (
        answering({"/v1/status": ingest, "/metrics": memory}) as first,
        answering({"/v1/status": aggregator, "/metrics": memory}) as second,
    ):
        places = Places(market_ingest=[first], market_aggregator=[second])
        poller = Poller(lambda: ([], [("desk", "market")]), resolve=places)
        async with aiohttp.ClientSession() as session:
            await poller.turn(session)
            feed = poller.feeds["desk", "market"]
            assert feed_row(item, feed, feed.ingest_at_s).lost_ages_ms == {}
            ingest["trades"] = {"appended": 150, "dropped": {"buffer": 3}}
            ingest["malformed"] = {"json": 4}
            ingest["symbols"]["ETH/USDT"]["gap_ids"] = 11
            aggregator["dead_letters"] = 5
            await poller.turn(session)
            ingest["trades"] = {"appended": 200, "dropped": {"buffer": 3}}
            await poller.turn(session)  # trades that are missing at one look alone came a little late
        row = feed_row(item, feed, feed.ingest_at_s)
    assert (row.missing_ids, row.dropped, row.dead_letters, row.reconnects) == (11, 7, 5, 2)
    assert row.lost_ages_ms.keys() == {"missing_ids", "dropped", "dead_letters"}
    assert row.lost_ages_ms["missing_ids"] == 0
    assert places.asked[:2] == ["market-ingest.desk.svc:8081", "market-aggregator.desk.svc:8082"]
    assert row.alive
    assert row.behind_ms == 70
    assert (row.frames, row.trades, row.lag, row.candles_closed, row.late, row.duplicate) == (12, 200, 2, 9, 1, 3)
    assert row.trades_per_s > 100
    assert [(one.instance, one.rss_bytes) for one in processes_of({}, poller.feeds, feed.ingest_at_s)] == [
        (1_700_000_000, 25_000_000)
    ] * 2


def test_a_feed_that_is_connected_and_not_aggregated_is_not_alive() -> None:
    item = kept(an_object("MarketFeed", "market", {"source": {"synthetic": {}}}, {"observedGeneration": 1, "conditions": [READY]}))  # fmt: skip
    ended = FeedFigures(
        IngestFigures(connected=False, finished=True),
        AggregatorFigures(ready=True),
        ingest_at_s=10.0,
        aggregator_at_s=10.0,
    )
    assert feed_row(item, ended, 11.0).alive, "a replay that ended in order"
    assert not feed_row(item, FeedFigures(IngestFigures(connected=True), None, ingest_at_s=10.0), 11.0).alive
    away = FeedFigures(problem="market-ingest.desk.svc: TimeoutError")
    row = feed_row(item, away, 11.0)
    assert row.alive
    assert "no figures of now" in row.message


def feed_of(**condition: str) -> dict[str, Any]:
    status = {"observedGeneration": 1, "conditions": [{**READY, **condition}]}
    return kept(an_object("MarketFeed", "market", {"source": {"synthetic": {}}}, status))


def test_a_feed_whose_aggregator_is_gone_is_not_alive_and_its_memory_does_not_count() -> None:
    memory = ProcessFigures(5_000, 1)
    figures = FeedFigures(IngestFigures(connected=True), AggregatorFigures(ready=True), memory, memory, ingest_at_s=100.0, aggregator_at_s=80.0)  # fmt: skip
    names = ("desk", "market")
    assert not feed_row(feed_of(), figures, 101.0).alive
    assert [one.kind for one in processes_of({}, {names: figures}, 101.0)] == ["ingest"]
    figures.aggregator_at_s = 100.0
    assert feed_row(feed_of(), figures, 101.0).alive
    assert not feed_row(feed_of(status="False", reason="AggregatorDown"), figures, 101.0).alive


def test_a_process_tells_its_share_where_it_knows_it() -> None:
    text = "process_resident_memory_bytes 5e+07\nprocess_start_time_seconds 7\n"
    assert process_figures(text) == ProcessFigures(50_000_000, 7, 0)
    assert process_figures(text + "process_proportional_memory_bytes 3e+07\n").pss_bytes == 30_000_000


async def test_a_part_of_a_feed_that_has_no_pod_is_said_unless_nobody_needs_it() -> None:
    status = {"connected": True, "finished": False, "frames": 1, "trades": {"appended": 1}}
    names = ("desk", "market")
    async with answering({"/v1/status": status, "/metrics": b""}) as pod:
        poller = await turns(Places(market_ingest=[pod]), 3, feeds=[names])
    assert "market-aggregator.desk.svc: there is no such pod" in notices_of({}, poller.feeds, [])[0]
    row = feed_row(feed_of(), poller.feeds[names], poller.feeds[names].ingest_at_s)
    assert not row.alive
    assert "no such pod" in row.message
    assert notices_of({}, poller.feeds, [], {names}) == []
    assert idle(feed_of(reason="Idle"))
    assert not idle(feed_of())


@pytest.mark.parametrize("name", ["x" * 64 + ".desk.svc", "a..b.desk.svc"])
async def test_a_name_that_no_resolver_takes_is_not_there(name: str) -> None:
    assert await resolve(name, 9464) == []


async def test_a_pool_that_cannot_be_asked_keeps_no_other_from_being_asked(caplog: pytest.LogCaptureFixture) -> None:
    odd = ("desk", "odd")

    async def places(name: str, port: int) -> Sequence[tuple[str, int]]:
        if name.startswith("odd"):
            raise RuntimeError("a name of which nobody thought")
        return [pod]

    async with answering({"/metrics": b'chandlery_feed_info{worker="w1"} 1\n'}) as pod:
        poller = Poller(lambda: ([odd, QUANTS], [odd]), resolve=places)
        async with aiohttp.ClientSession() as session:
            for _ in range(3):
                await poller.turn(session)
    assert poller.pools[QUANTS].workers.keys() == {"w1"}
    assert poller.pools[odd].problem == poller.feeds[odd].problem == "a defect: RuntimeError: a name of which nobody thought"  # fmt: skip
    assert len([one for one in caplog.records if one.levelname == "ERROR"]) == 2, "once each"


async def test_lines_without_an_end_are_skipped_and_said() -> None:
    hostile = "chandlery_trader_calls_total{" + "a" * (2 << 20) + "} 1\n"
    text = (
        hostile + "chandlery_feed_series 3\n" + hostile[:3_000] + '="x"} 1\n' + 'chandlery_feed_info{worker="w1"} 1\n'
    )
    figures = worker_figures(text, 1.0)
    assert (figures.series, figures.worker, figures.skipped) == (3, "w1", 1)
    assert figures.traders == {}
    async with answering({"/metrics": text.encode()}) as pod:
        poller = await turns(Places(quants_workers=[pod]), 3, [QUANTS])
    assert "1 lines of its figures are too long" in poller.pools[QUANTS].problem


def test_labels_are_matched_where_the_one_before_ended_and_nowhere_else() -> None:
    name = "a" * 4_000
    told = f'chandlery_trader_calls_total{{{name}trader="desk/one"}} 4'
    assert worker_figures(told, 1.0).traders == {}, "looked for at each place of a word, it takes its length squared"
    assert worker_figures(told.replace(name, 'state="x",'), 1.0).traders.keys() == {"desk/one"}
    many = "chandlery_feed_series 1\n" * 50_000
    assert worker_figures(many, 1.0).skipped == 10_000


def test_a_trader_has_its_workers_figures_or_its_statuss_with_their_age() -> None:
    text = 'chandlery_feed_info{worker="w0"} 1\nchandlery_trader_calls_total{trader="desk/one"} 40\nchandlery_trader_state{trader="desk/one",state="Active"} 1\n'
    pools = {QUANTS: PoolFigures({"w0": worker_figures(text, at_s=100.0)})}
    entry = {"subresource": "status", "time": "2026-01-01T00:00:00Z"}
    item = kept_trader(a_trader("one", STATUS, managedFields=[entry, {"time": "2027-01-01T00:00:00Z"}]))
    written_ms = 1_767_225_600_000
    live = trader_row(item, pools, 102.0, written_ms + 60_000)
    assert (live.state, live.calls, live.age_ms) == ("Active", 40, 2_000)
    assert (live.ready, live.reason, live.message) == (True, "", ""), "there is nothing to be known of it"
    assert (live.latency.p50_us, live.latency.p99_us) == (3_100.0, 1_200_000.0)
    old = trader_row(item, pools, 200.0, written_ms + 60_000)
    assert (old.state, old.signals, old.calls, old.age_ms) == ("Running", 7, 0, 60_000)


def test_what_is_ready_all_the_same_keeps_its_reason() -> None:
    blocked = {**READY, "reason": "Blocked", "message": "Kafka takes no signals"}
    row = trader_row(kept_trader(a_trader("one", {**STATUS, "conditions": [blocked]})), {}, 1.0, 0)
    assert (row.ready, row.reason, row.message) == (True, "Blocked", "Kafka takes no signals")
    waits = {**READY, "type": "Stalled", "reason": "AwaitingApproval", "message": "approve generation 2"}
    rolls = {**READY, "type": "Reconciling", "reason": "HandingOver", "message": "at 12:00"}
    row = trader_row(kept_trader(a_trader("one", {**STATUS, "conditions": [READY, rolls, waits]})), {}, 1.0, 0)
    assert (row.ready, row.reason, row.message) == (True, "AwaitingApproval", "approve generation 2")
    row = trader_row(kept_trader(a_trader("one", {**STATUS, "conditions": [READY, rolls]})), {}, 1.0, 0)
    assert (row.ready, row.reason) == (True, "HandingOver")
    full = {**READY, "status": "False", "reason": "PoolFull", "message": "raise spec.workers.max"}
    row = trader_row(kept_trader(a_trader("one", {"observedGeneration": 1, "conditions": [full]})), {}, 1.0, 0)
    assert (row.ready, row.state, row.message) == (False, "PoolFull", "raise spec.workers.max")
    paused = {**READY, "status": "False", "reason": "Suspended", "message": "spec.suspend of its TraderPool is true"}
    row = trader_row(kept_trader(a_trader("one", {**STATUS, "conditions": [paused]})), {}, 1.0, 0)
    assert (row.ready, row.state, row.suspended) == (False, "Suspended", True), (
        "with its pool: it needs nobody's attention"
    )
    kept = {**paused, "reason": "PoolFull", "message": f"no room (generation 1 stays); {paused['message']}"}
    row = trader_row(kept_trader(a_trader("one", {**STATUS, "conditions": [kept]})), {}, 1.0, 0)
    assert (row.ready, row.state, row.suspended, row.reason) == (False, "Suspended", True, "PoolFull")
    unseen = trader_row(kept_trader(a_trader("one", {**STATUS, "observedGeneration": 0})), {}, 1.0, 0)
    assert (unseen.ready, unseen.state) == (False, "Unseen")


def test_only_its_own_pools_workers_speak_for_a_trader() -> None:
    text = 'chandlery_feed_info{worker="w0"} 1\nchandlery_trader_calls_total{trader="desk/one"} 40\n'
    pools = {("desk", "others"): PoolFigures({"w0": worker_figures(text, at_s=100.0)})}
    assert trader_row(kept_trader(a_trader("one", STATUS)), pools, 100.0, 0).calls == 0


def test_segments_and_processes_are_told_while_they_are_fresh() -> None:
    text = "\n".join(
        [
            'chandlery_feed_info{worker="w0"} 1',
            "chandlery_feed_segment_bytes 6e+07",
            "chandlery_feed_series 3",
            "chandlery_feed_series_capacity 500",
            "process_resident_memory_bytes 5e+07",
            "process_proportional_memory_bytes 2e+07",
            'chandlery_worker_pss_bytes{process="supervisor"} 3e+07',
            'chandlery_worker_pss_bytes{process="fork_server"} 7e+06',
            'chandlery_worker_pss_bytes{process="rss"} 1',
            'chandlery_trader_resident_memory_bytes{trader="desk/one"} 1e+07',
            'chandlery_trader_resident_memory_bytes{trader="desk/new"} 9e+06',
            'chandlery_trader_pss_bytes{trader="desk/one"} 4e+06',
            'chandlery_trader_ring_depth{trader="desk/one"} 2',
            'chandlery_trader_ring_capacity{trader="desk/one"} 256',
            'chandlery_trader_lapped_total{trader="desk/one"} 5',
        ]
    )
    pools = {QUANTS: PoolFigures({"w0": worker_figures(text, at_s=100.0)})}
    (segment,) = segments_of(pools, 101.0)
    assert (segment.worker, segment.size_bytes, segment.series_used) == ("desk/w0", 60_000_000, 3)
    assert (segment.rings, segment.ring_depth, segment.laps) == (1, 2, 5)
    assert [(one.name, one.kind, one.rss_bytes, one.pss_bytes) for one in processes_of(pools, {}, 101.0)] == [
        ("desk/w0/feed", "feed", 50_000_000, 20_000_000),
        ("desk/w0/supervisor", "supervisor", 0, 30_000_000),
        ("desk/w0/fork_server", "fork_server", 0, 7_000_000),
        ("desk/new", "trader", 9_000_000, None),  # nobody has looked yet
        ("desk/one", "trader", 10_000_000, 4_000_000),
    ]
    assert list(processes_of(pools, {}, 120.0)) == []


@given(st.text(max_size=400), st.lists(st.text(st.characters(codec="utf-8"), max_size=20), max_size=5))
def test_no_text_is_more_than_a_text(noise: str, names: list[str]) -> None:
    escaped = [name.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") for name in names]
    lines = [f'chandlery_trader_calls_total{{trader="{name}"}} 3' for name in escaped]
    figures = worker_figures(
        "\n".join([noise, "chandlery_feed_series NaN", "chandlery_feed_series 1e400", *lines]), 1.0
    )
    assert isinstance(figures, WorkerFigures)
    assert figures.series == 0
    whole = [
        name for name in names if name != "_other" and not set(name) & set("\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029")
    ]
    assert set(whole) <= figures.traders.keys()


@pytest.mark.parametrize(
    ("text", "us"), [("3.1ms", 3_100.0), ("950us", 950.0), ("2s", 2e6), ("soon", None), ("..s", None)]
)
def test_amounts_of_statuses_are_microseconds(text: str, us: float | None) -> None:
    assert amount_us(text) == us


def test_a_traders_transport_is_its_own_word_else_its_pools() -> None:
    pools = [pool_row(an_object("TraderPool", "quants", {"feed": {"name": "market"}, "transport": "Pipe"}))]
    silent, shared, lost = (kept_trader(a_trader(name, STATUS)) for name in ("silent", "shared", "lost"))
    shared["spec"] = {**shared["spec"], "transport": "SharedMemory"}
    lost["row"] = lost["row"].model_copy(update={"pool": "desk/gone"})
    told = transports_of([silent, shared, lost], pools)
    assert told == {silent["row"].trader: "Pipe", shared["row"].trader: "SharedMemory"}
