"""What the benchmarks rest on: they measure what they say, with equal work for all. No figure is judged here."""

from __future__ import annotations

import importlib
import os
import shutil
from itertools import pairwise
from pathlib import Path

import pytest
from benchmarks import edits, memory
from benchmarks._census import Measured, _kind, census
from benchmarks._handover import Channel, bare_wakes, c_wakes, hand_over
from benchmarks._trades import PER_RECORD, START_MS, records, symbols
from benchmarks.harness import Row
from benchmarks.wakeups import PULSE_ROUNDS, TRADERS, traders_decide

from chandlery.cli.runtime.procfs import Memory
from chandlery.core.manifests import read_manifests

ROOT = Path(__file__).resolve().parents[2]
NAMES = sorted(
    path.stem for path in (ROOT / "benchmarks").glob("*.py") if not path.stem.startswith("_") and path.stem != "harness"
)


@pytest.mark.parametrize("name", NAMES)
def test_each_benchmark_says_what_it_measures_and_can_be_run_alone(name: str) -> None:
    module = importlib.import_module(f"benchmarks.{name}")
    assert module.__doc__
    assert callable(module.measure)
    assert "run(measure, __doc__" in (ROOT / "benchmarks" / f"{name}.py").read_text(encoding="utf-8")


def test_every_benchmark_is_found_by_the_one_that_runs_all() -> None:
    from benchmarks.__main__ import names

    assert names(ROOT) == NAMES


def test_a_trader_alone_gives_a_sample_for_every_crossing_after_the_warm_rounds() -> None:
    rounds = 40
    samples = traders_decide(1, rounds)
    # The pulse comes every fourth candle, and two candles later the average falls back.
    assert len(samples.together) == rounds // 4
    assert len(samples.alone) == rounds // 4
    assert min(samples.alone + samples.together) > 0
    assert samples.woken_to_decided_mean_ns > 0


def test_all_traders_buy_at_the_pulse_and_sell_each_at_its_own_time() -> None:
    samples = traders_decide(TRADERS, PULSE_ROUNDS)
    assert len(samples.together) == TRADERS
    assert len(samples.alone) == TRADERS


@pytest.mark.parametrize("channel", ["Queue", "Pipe"])
def test_a_peer_decides_once_a_round_and_process(channel: Channel) -> None:
    samples = hand_over(channel, processes=3, subscribed=2, rounds=5, warm_rounds=2, period_s=0.001)
    assert len(samples) == 10
    assert min(samples) > 0


def test_the_floors_give_a_sample_a_wake_up(tmp_path: Path) -> None:
    bare = bare_wakes(str(tmp_path), processes=3, subscribed=2, rounds=5, warm_rounds=2, period_s=0.02)
    # Two rings before a waiter has looked are one wake-up.
    assert 0 < len(bare) <= 10
    assert min(bare) > 0


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
def test_the_floor_in_c_wakes_only_those_subscribed() -> None:
    in_c = c_wakes(processes=3, subscribed=1, rounds=5, period_s=0.02)
    assert in_c is not None
    assert 0 < len(in_c) <= 5


def test_trades_are_seeded_ascending_and_as_dense_as_asked() -> None:
    markets = symbols(2)
    made = list(records(markets, 3, per_trade_us=10_000))
    assert made == list(records(markets, 3, per_trade_us=10_000))
    assert [record.symbol for record in made] == markets * 3
    one = [record for record in made if record.symbol == markets[0]]
    times = [time_ms for record in one for time_ms in record.time_ms]
    assert times == [START_MS + 10 * at for at in range(3 * PER_RECORD)]
    assert [trade for record in one for trade in record.id] == list(range(3 * PER_RECORD))
    assert all(later.watermark_ms > earlier.watermark_ms for earlier, later in pairwise(one))


@pytest.mark.parametrize(("name", "symbols_wanted"), [("frame_to_signal", 10), ("memory", 100)])
def test_the_manifests_of_whole_runs_are_valid(name: str, symbols_wanted: int, tmp_path: Path) -> None:
    from benchmarks._up import write_manifests

    made = importlib.import_module(f"benchmarks.{name}").manifests()
    found = read_manifests([str(write_manifests(tmp_path / "m", made))])
    assert not found.problems
    assert len(found.traders) == 20
    (feed,) = found.feeds.values()
    assert len(feed.spec.symbols) == symbols_wanted


def test_processes_are_told_apart_by_their_command() -> None:
    assert _kind("python -m chandlery.workers.feed --config f") == "feed"
    assert _kind("java -cp x kafka.Kafka server.properties") == "kafka"
    assert _kind("python -m chandlery.workers.trader.nursery 7") == "nursery"
    assert _kind("python -m pytest") == ""
    assert isinstance(census(os.getpid()), dict)


def test_memory_has_pss_and_rss_of_every_kind_of_process_beside_an_empty_interpreter_and_one_with_numpy() -> None:
    bare = memory.bare_processes()
    assert bare.empty.rss >= bare.empty.pss > 0
    assert bare.numpy.rss > bare.empty.rss
    kinds = ("up", "kafka", "ingest", "aggregator", "feed", "supervisor", "nursery")
    found = {kind: [Measured(Memory(rss=3_000_000, pss=2_000_000), 0.0)] for kind in kinds}
    found["trader"] = [Measured(Memory(rss=rss, pss=1_000_000), 0.0) for rss in (2_000_000, 4_000_000)]
    rows = {row.name: row for row in memory.rows_of(found, bare, 5_000_000, "")}
    for kind in kinds:
        assert (rows[f"memory/{kind}_pss"].value, rows[f"memory/{kind}_rss"].value) == (2.0, 3.0)
    assert (rows["memory/trader_pss"].value, rows["memory/trader_rss"].value) == (1.0, 3.0)
    # Feed, supervisor, fork server and both traders.
    assert (rows["memory/worker_pss"].value, rows["memory/worker_rss"].value) == (8.0, 15.0)
    floors = {name: row.floor for name, row in rows.items() if row.floor is not None}
    assert set(floors) == {f"memory/{kind}_{what}" for kind in (*kinds, "trader") for what in ("pss", "rss")} - {
        "memory/kafka_pss",
        "memory/kafka_rss",
    }
    assert floors["memory/trader_pss"] == rows["memory/empty_pss"].value == bare.empty.pss / 1e6
    assert floors["memory/feed_rss"] == rows["memory/empty_rss"].value == bare.empty.rss / 1e6
    peers = {name: row.peer for name, row in rows.items() if row.peer is not None}
    assert peers == {f"memory/trader_{what}": rows[f"memory/bare_{what}"].value for what in ("pss", "rss")}
    assert peers["memory/trader_rss"] == bare.numpy.rss / 1e6


def test_the_manifest_that_edits_write_is_a_trader_of_the_quickstart_and_its_versions_differ(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "examples" / "quickstart", tmp_path / "m")
    versions = []
    for fast in (5, 6):
        (tmp_path / "m" / "edited.yaml").write_text(edits.manifest(fast), encoding="utf-8")
        found = read_manifests([str(tmp_path / "m")])
        assert not found.problems
        versions.append(found.traders["default", edits.NAME].spec.strategy.parameters)
    assert versions[0] != versions[1]


def test_the_symbols_that_edits_bring_are_none_of_the_quickstarts(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "examples" / "quickstart", tmp_path / "m")

    def symbols_of() -> set[str]:
        found = read_manifests([str(tmp_path / "m")])
        assert not found.problems
        return {symbol for trader in found.traders.values() for symbol in trader.spec.market.symbols}

    before = symbols_of()
    (tmp_path / "m" / "edited.yaml").write_text(edits.manifest(5, edits.new_symbol(3)), encoding="utf-8")
    assert symbols_of() - before == {edits.new_symbol(3)}
    assert edits.new_symbol(3) != edits.new_symbol(4)


def test_edits_tell_of_new_symbols_without_a_goal_and_of_the_slowest() -> None:
    taken = {"added": [0.1, 0.2], "new_symbol": [1.5, 2.5, 1.6]}
    rows = {row.name: row for row in edits.rows_of(taken, 0.1)}
    assert rows["edits/added"].goal == edits.GOAL_S
    assert (rows["edits/new_symbol"].value, rows["edits/new_symbol"].goal) == (1.6, None)
    assert rows["edits/new_symbol_max"].value == 2.5


def test_the_floor_of_edits_is_told_of_every_write(tmp_path: Path) -> None:
    assert 0 < edits.bare_notice(tmp_path, 2) < edits._DEADLINE_S


def test_a_figure_that_is_not_a_number_keeps_no_goal() -> None:
    assert Row("frame_to_signal/p50", float("nan"), "ms", goal=8.0).holds is False
