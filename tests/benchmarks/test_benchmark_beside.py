"""What is measured beside something else: turns, what is taken of an account, real requests. No figure is judged here."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from aiohttp import ClientSession, web
from benchmarks import operator_ready, quickstart, scrapes, signal_beside_grpc
from benchmarks._accounts import AccountOf, Sides, Signalled, Spell, accounts_within, in_turns, rows_of_sides
from benchmarks._slow_collector import slow_collector
from benchmarks._up import without_telemetry

from chandlery.console.summary import LatencyFigures, Quantiles, Summary
from chandlery.core.latency import STAGES
from chandlery.core.manifests import ManifestSet, parse_manifests, read_manifests
from chandlery.core.settings import TelemetrySettings
from chandlery.core.telemetry import trace_export
from chandlery.workers.feed.otlp import exporter_to

MS = 1_000_000


def an_account(stage_us: float, *, stages: tuple[str, ...] = STAGES) -> AccountOf:
    """Every stage takes so long."""
    parts = [(name, stage_us, 0.0, "monotonic") for name in stages]
    return AccountOf(parts, stage_us * len(stages), stage_us * 2)


def test_each_side_is_as_often_the_first_of_a_pair() -> None:
    turns = list(in_turns(4))
    assert turns == [False, True, True, False, False, True, True, False]


def test_a_spell_has_the_signals_whose_frame_came_in_it() -> None:
    entries = [
        {"signal": {"stamps": {"received_ns": at}}, "account": msgspec.to_builtins(an_account(at))}
        for at in (5, 10, 20, 25)
    ]
    signals = msgspec.convert(entries, list[Signalled])
    assert [each.stages[0][1] for each in accounts_within(signals, Spell(10, 20))] == [10, 20]


def test_wake_to_signal_is_the_traders_three_stages_and_what_lacks_one_is_left_out() -> None:
    cut = an_account(1_000.0, stages=("fed", "published", "woken", "decided"))
    sides = Sides([an_account(10.0), an_account(10.0), cut], [an_account(20.0), an_account(20.0)])
    rows = {row.name: row for row in rows_of_sides("x", sides, "something")}
    p50 = rows["x/wake_to_signal/p50"]
    assert (p50.value, p50.peer) == (60.0, 30.0)
    assert rows["x/wake_to_signal/p50_ratio"].value == 2.0
    assert p50.note.startswith("2 signals beside something; peer: 2 without")
    last = rows["x/acknowledged/p50"]
    assert (last.value, last.peer) == (20.0, 10.0), "one stage, and of those that have it"
    whole = rows["x/frame_to_signal/p99"]
    assert (whole.value, whole.peer) == (20.0 * len(STAGES), 4_000.0)


def test_a_side_without_signals_has_no_figure_and_does_not_end_the_benchmark() -> None:
    rows = rows_of_sides("x", Sides([], [an_account(20.0)]), "something")
    assert all(row.value != row.value for row in rows if row.name.endswith("_ratio"))


# Scrapes ------------------------------------------------------------------------------------------------------


def test_the_worker_is_found_among_what_prometheus_is_told() -> None:
    def group(port: int, component: str) -> dict[str, Any]:
        return {"targets": [f"127.0.0.1:{port}"], "labels": {"app_kubernetes_io_component": component}}

    groups = [group(1, "ingest"), group(2, "worker"), group(3, "aggregator")]
    assert scrapes.address_of(json.dumps(groups).encode(), "worker") == "127.0.0.1:2"
    with pytest.raises(LookupError, match="2 processes of kind worker"):
        scrapes.address_of(json.dumps([*groups, group(4, "worker")]).encode(), "worker")


async def test_a_request_is_measured_whole_and_one_that_fails_ends_the_benchmark() -> None:
    async def answer(request: web.Request) -> web.Response:
        assert request.headers["Accept"] == scrapes.ACCEPT
        return web.Response(body=b"x" * 70_000, status=int(request.query["status"]))

    app = web.Application()
    app.router.add_get("/metrics", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}/metrics?status="
        async with ClientSession() as session:
            asked = await scrapes.ask(session, f"{url}200", os.getpid())
            with pytest.raises(RuntimeError, match="503"):
                await scrapes.ask(session, f"{url}503", os.getpid())
    finally:
        await runner.cleanup()
    assert asked.size_bytes == 70_000
    assert asked.cpu_ns > 0
    assert asked.wall_ns > 0


def test_what_the_process_takes_anyway_is_no_part_of_a_scrapes_cpu() -> None:
    asked = [scrapes.Asked(100 * MS, 30 * MS, 1_000), scrapes.Asked(50 * MS, 25 * MS, 3_000)]
    assert scrapes.cpu_ms(asked, 0.2) == pytest.approx((10 + 15) / 2)
    floors = [scrapes.Asked(MS, 2 * MS, 15)]
    sides = Sides([an_account(1.0)], [an_account(1.0)])
    rows = {row.name: row for row in scrapes.rows_of(scrapes.Measured(asked, floors, 0.2, sides))}
    assert rows["scrapes/cpu"].floor == pytest.approx(1.8)
    assert rows["scrapes/size"].value == 2.0
    assert (rows["scrapes/wall/p99"].value, rows["scrapes/wall/p50"].floor) == (100.0, 1.0)


# A slow collector ---------------------------------------------------------------------------------------------


async def test_the_collector_takes_a_feeds_request_but_late() -> None:
    delay_s = 0.2
    with slow_collector(delay_s) as endpoint:
        export = trace_export(TelemetrySettings(endpoint, "grpc"), {})
        assert export is not None
        exporter = exporter_to(export)
        try:
            begun_s = time.monotonic()
            answer = await exporter.send(b"")
            took_s = time.monotonic() - begun_s
        finally:
            await exporter.close()
    assert answer.verdict == "taken"
    assert took_s >= delay_s


def everything(folder: Path) -> ManifestSet:
    """All of ``signal_beside_grpc``'s manifests, with the traced pool's traders running."""
    signal_beside_grpc.write(folder, "market", signal_beside_grpc.market("http://127.0.0.1:4317"))
    for arm in signal_beside_grpc.ARMS:
        suspended = arm != signal_beside_grpc.TRACED
        signal_beside_grpc.write(folder, arm, signal_beside_grpc.traders(arm, suspended=suspended))
    return read_manifests([str(folder)])


def test_both_pools_have_the_same_traders_and_one_of_them_exports(tmp_path: Path) -> None:
    found = everything(tmp_path)
    assert not found.problems
    pools = {name: pool.spec.telemetry for (_, name), pool in found.pools.items()}
    assert (pools["plain"].otlp_endpoint, pools["traced"].otlp_endpoint) == (None, "http://127.0.0.1:4317")
    assert pools["traced"].otlp_protocol == "grpc"
    sides: dict[str, list[Any]] = {"plain": [], "traced": []}
    for trader in found.traders.values():
        spec = trader.spec
        assert spec.suspend == (spec.pool.name == "plain")
        sides[spec.pool.name].append((spec.strategy, spec.market, spec.trigger))
    assert len(sides["plain"]) == 20
    assert sides["plain"] == sides["traced"]


def test_traces_of_a_measured_run_go_where_its_manifests_say_and_nowhere_else() -> None:
    asked = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:4317",
        "OTEL_TRACES_SAMPLER": "always_on",
        "HOME": "/root",
    }
    assert without_telemetry(asked) == {"HOME": "/root"}


def test_without_a_trace_taken_there_is_no_figure() -> None:
    sides = Sides([an_account(1.0)], [an_account(1.0)])
    traces = {"built": 9, "exported": 0, "waiting": 9, "dropped": {}}
    with pytest.raises(RuntimeError, match="took no trace"):
        signal_beside_grpc.rows_of(sides, traces)
    rows = signal_beside_grpc.rows_of(sides, traces | {"exported": 4, "waiting": 5})
    assert rows[-1].value == 4
    assert "5 waiting" in rows[-1].note


# Others' rows -------------------------------------------------------------------------------------------------


def test_every_trader_on_a_new_series_has_a_symbol_of_its_own_that_the_market_has() -> None:
    content = operator_ready.market(20)
    found = parse_manifests(yaml.safe_dump(content))
    assert not found.problems
    (feed,) = found.feeds.values()
    wanted = [operator_ready.new_symbol(number) for number in range(20 // operator_ready.NEW_AFTER)]
    assert feed.spec.symbols == ["BTC/USDT", *wanted]
    assert len(set(wanted)) == 5


def test_new_series_stand_beside_those_that_were_there() -> None:
    rows = {row.name: row for row in operator_ready.rows_of([0.2, 0.3], [0.4, 0.5], [2.0, 3.0])}
    assert (rows["operator_ready/p99"].value, rows["operator_ready/p99"].goal) == (300, 1000)
    new = rows["operator_ready/new_series/p99"]
    assert (new.value, new.peer, new.goal) == (500, 300, None)
    assert "the slowest 3000 ms" in rows["operator_ready/new_series_warm/p50"].note


def test_a_run_of_the_quickstart_is_told_by_its_own_summary() -> None:
    latency = LatencyFigures(
        Quantiles(9_000.0, 90_000.0, 40), Quantiles(500.0, 600.0, 40), {}, Quantiles(7_000.0, None, 1)
    )
    summary = Summary("v", 1, latency_us=latency)
    rows = {row.name: row for row in quickstart.rows_of(summary, [3 * MS, 3 * MS])}
    settled = rows["quickstart/settled/p50"]
    assert (settled.value, settled.floor) == (7.0, 3.0)
    assert settled.note.startswith("1 signals of frames from 5 s on")
    assert rows["quickstart/settled/p99"].value != rows["quickstart/settled/p99"].value, "no figure, and no end"
    assert rows["quickstart/whole_run/p99"].value == 90.0
    assert (rows["quickstart/visible_to_decided/p50"].value, rows["quickstart/visible_to_decided/p50"].floor) == (
        0.5,
        None,
    )
