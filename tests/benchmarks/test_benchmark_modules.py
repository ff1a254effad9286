"""What the benchmarks rest on: they measure what they say, with equal work for all. No figure is judged here."""

from __future__ import annotations

import importlib
import os
import shutil
from itertools import pairwise
from pathlib import Path

import pytest
from benchmarks._census import _kind, census
from benchmarks._handover import Channel, bare_wakes, c_wakes, hand_over
from benchmarks._trades import PER_RECORD, START_MS, records, symbols
from benchmarks.harness import Row
from benchmarks.wakeups import PULSE_ROUNDS, TRADERS, traders_decide

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


def test_a_figure_that_is_not_a_number_keeps_no_goal() -> None:
    assert Row("frame_to_signal/p50", float("nan"), "ms", goal=8.0).holds is False
