"""The first look: its figures, and what needs attention first."""

from __future__ import annotations

import httpx
import pytest
from monitoring.alerts import SIGNAL_S
from tests.console_api.stage import Stage

from chandlery.console.api.models import Feed, Latency, Memory, Pool, ProcessMemory, Quantiles, Trader
from chandlery.console.api.overview import SIGNAL_US, attention
from chandlery.console.backend import Snapshot


async def test_the_overview_counts_what_is_and_leaves_the_suspended_out(api: httpx.AsyncClient, stage: Stage) -> None:
    stage.add_trader("default/beta", ready=False, state="CrashLoop", reason="CrashLoop", message="exited 4 times")
    stage.add_trader("research/gamma", ready=False, suspended=True, state="Suspended")
    stage.signals.rate = 12.0
    stage.backend.memory = Memory(processes=[], total_bytes=1_000, measure="PSS", total_rss_bytes=3_000)
    told = (await api.get("overview")).json()
    assert (told["traders"], told["traders_ready"], told["traders_suspended"]) == (2, 1, 1)
    assert (told["feeds"], told["feeds_alive"]) == (1, 1)
    assert (told["signals_per_min"], told["memory_bytes"], told["memory_measure"]) == (12.0, 1_000, "PSS")
    assert told["attention"] == ["Trader default/beta is CrashLoop: CrashLoop: exited 4 times"]


def test_the_worst_comes_first_and_all_well_says_nothing() -> None:
    well = Snapshot(
        traders=[Trader(trader="a/a", state="Active", ready=True), Trader(trader="a/s", state="Init", suspended=True)],
        feeds=[
            Feed(feed="a/f", alive=True, missing_ids=9, reconnects=2, lost_ages_ms={"missing_ids": 600_000})
        ],  # no news any more
        pools=[Pool(pool="a/p", workers=1, ready_workers=1)],
    )
    assert list(attention(well, Quantiles(p99_us=9_000.0, count=500))) == []
    ill = Snapshot(
        traders=[
            Trader(trader="a/a", state="Init"),
            Trader(trader="a/z", state="Failed", reason="BadParameter", message="fast must be below slow"),
            Trader(trader="a/k", state="Active", ready=True, reason="BadParameter", message="no parameter slwo"),
            # Its version is its newest; that its candles come late a notice tells once for all.
            Trader(trader="a/l", state="Active", ready=True, reason="Lagging", message="its candles come late"),
        ],
        feeds=[
            Feed(feed="a/f", connected=True),
            Feed(feed="a/g", message="refused"),
            Feed(
                feed="a/h",
                alive=True,
                missing_ids=9,
                dropped=1,
                lost_ages_ms={"missing_ids": 0, "dropped": 600_000, "dead_letters": 0},
            ),
            Feed(
                feed="a/i",
                alive=True,
                missing_ids=1,
                dropped=2,
                dead_letters=3,
                lost_ages_ms={"missing_ids": 599_999, "dropped": 1, "dead_letters": 2},
            ),
        ],
        pools=[Pool(pool="a/p", pending=2, message="full"), Pool(pool="a/q", workers=2, ready_workers=1)],
        memory=Memory(
            processes=[
                ProcessMemory(name="a/z", kind="trader", rss_bytes=1, growth_bytes_per_h=9e7),
                # A heap of fixed size that fills is nobody's concern.
                ProcessMemory(name="kafka", kind="kafka", rss_bytes=1, bounded=True, growth_bytes_per_h=2e8),
            ]
        ),
        notices=["a notice"],
    )
    assert list(attention(ill, Quantiles(p99_us=82_000.0, count=20))) == [
        "feed a/f is connected, but no candles come",
        "feed a/g is not connected: refused",
        "Trader a/z is Failed: BadParameter: fast must be below slow",
        "Trader a/a is Init",
        "Trader a/k goes on with its version before: BadParameter: no parameter slwo",
        "pool a/p: 2 Traders wait for room: full",
        "pool a/q: 1 of 2 workers are Ready",
        "feed a/h has lost some of its market: trades are missing by their ids",
        "feed a/i has lost some of its market: trades are missing by their ids, frames or trades were "
        "dropped, records went to the dead letters",
        "signals are slow: p99 from frame to signal is over 66 ms in the last minute",
        "memory of a/z grows by 90 MB an hour",
        "a notice",
    ]


@pytest.mark.parametrize(
    ("p99_us", "count", "slow"),
    [(65_536.0, 500, False), (65_537.0, 500, True), (82_000.0, 19, False), (None, 0, False)],
)
async def test_signals_that_miss_their_objective_are_said_where_there_are_enough_to_say(
    api: httpx.AsyncClient, stage: Stage, p99_us: float | None, count: int, slow: bool
) -> None:
    stage.signals.summary = Latency(window_s=60, frame_to_signal=Quantiles(p50_us=1.0, p99_us=p99_us, count=count))
    told = (await api.get("overview")).json()
    assert (told["slow"], len(told["attention"])) == (slow, int(slow))


def test_the_objective_is_that_of_the_alerts() -> None:
    assert float(SIGNAL_S) * 1e6 == SIGNAL_US


async def test_a_thousand_troubles_are_counted_not_listed(api: httpx.AsyncClient, stage: Stage) -> None:
    for number in range(1_000):
        stage.add_trader(f"many/t-{number}", ready=False, state="Init")
    told = (await api.get("overview")).json()["attention"]
    assert len(told) == 21
    assert told[-1] == "and 980 more"


async def test_who_can_t_be_asked_is_told_by_backend_and_readers(stage: Stage) -> None:
    stage.backend.away = ["the API server doesn't answer"]
    stage.services.readers_away = lambda: ["Kafka of default/binance doesn't answer"]
    async with stage.ask() as api:
        told = (await api.get("overview")).json()["away"]
    assert told == ["the API server doesn't answer", "Kafka of default/binance doesn't answer"]
