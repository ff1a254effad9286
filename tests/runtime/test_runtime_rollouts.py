"""Traders that are edited while ``chandlery up`` runs: from one version to the next without a gap, or not at all."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from collections.abc import Iterator

import pytest
from tests.runtime.up_process import Up, teller, until, write_manifests

from chandlery.cli.signal_topic import SignalTopic
from chandlery.console.model import TraderRow
from chandlery.core.signals import Signal

pytestmark = [pytest.mark.broker, pytest.mark.slow, pytest.mark.timeout(400)]

SYMBOLS = "BTC/USDT, ETH/USDT"


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """One instance for all tests here; each has Traders of its own names."""
    folder = tmp_path_factory.mktemp("rollouts")
    with Up(folder, write_manifests(folder / "m", keep=teller("keep"))) as running:
        running.running()
        yield running
        assert running.end() == 0, running.said
        assert running.left() == []


def apply(up: Up, name: str, every: int) -> None:
    (up.state.parent / "m" / f"{name}.yaml").write_text(teller(name, SYMBOLS, every))


def row_of(up: Up, name: str) -> TraderRow:
    row = up.trader(name)
    return row if row is not None else TraderRow(name, "absent")


def runs(up: Up, name: str, generation: int) -> None:
    """Wait until a generation decides, and nothing of a change is under way."""

    def done() -> bool:
        row = row_of(up, name)
        return row.ready and (row.generation, row.reason) == (generation, "") and row.state == "Active"

    until(done, lambda: f"generation {generation} runs: {up.trader(name)}")


def signals_of(up: Up, name: str) -> list[Signal]:
    """Every signal of a Trader on the topic."""
    view = up.view()
    assert view is not None
    (feed,) = view.feeds

    async def read() -> list[Signal]:
        async with SignalTopic(feed.kafka(), feed.signals_topic) as topic:
            return list((await topic.collect()).signals.values())

    return [one for one in asyncio.run(read()) if one.trader == f"default/{name}"]


def each_candle_once(signals: list[Signal]) -> None:
    """Every candle from a symbol's first to its last was decided, and by one version alone."""
    for symbol in SYMBOLS.split(", "):
        mine = [one.open_time_ms for one in signals if one.symbol == symbol]
        assert [open_ms for open_ms, count in Counter(mine).items() if count > 1] == [], f"{symbol}: decided twice"
        assert sorted(mine) == list(range(min(mine), max(mine) + 1, 1_000)), f"{symbol}: not decided"


def more_signals(up: Up, name: str, versions: int) -> list[Signal]:
    """Wait until so many versions have signalled (the last one on five candles); all signals until then."""
    found: list[Signal] = []

    def enough() -> bool:
        found[:] = signals_of(up, name)
        by_code = Counter(one.code for one in found)
        newest = max(found, key=lambda one: one.open_time_ms).code if found else ""
        return len(by_code) == versions and by_code[newest] >= 10

    until(enough, lambda: f"{versions} versions signal: {Counter(one.code for one in found)}, {up.trader(name)}")
    return found


def test_an_edited_trader_misses_no_candle_and_decides_none_twice(up: Up) -> None:
    apply(up, "edited", 1)
    runs(up, "edited", 1)
    more_signals(up, "edited", 1)
    first = row_of(up, "edited")
    for generation in (2, 3):
        apply(up, "edited", generation)
        runs(up, "edited", generation)
        signals = more_signals(up, "edited", generation)
    after = row_of(up, "edited")
    assert (after.incarnation, after.restarts) == (first.incarnation + 2, 0)
    assert after.pid != first.pid
    each_candle_once(signals)


def test_a_version_that_fails_leaves_the_one_before_running_and_going_back_starts_nothing(up: Up) -> None:
    apply(up, "failing", 1)
    runs(up, "failing", 1)
    before = row_of(up, "failing")
    apply(up, "failing", 99)

    def told() -> bool:
        row = row_of(up, "failing")
        return "generation 2 failed" in row.message and "ninety-nine" in row.message

    until(told, lambda: f"says that it failed: {up.trader('failing')}")
    row = row_of(up, "failing")
    assert (row.ready, row.pid, row.generation, row.state) == (True, before.pid, 1, "Active")
    apply(up, "failing", 1)
    until(lambda: row_of(up, "failing").reason == "", lambda: f"all is well again: {up.trader('failing')}")
    assert row_of(up, "failing").pid == before.pid
    each_candle_once(more_signals(up, "failing", 1))


def test_an_edited_transport_restarts_that_trader_alone_and_misses_no_candle(up: Up) -> None:
    path = up.state.parent / "m" / "piped.yaml"
    keeps = row_of(up, "keep").pid
    for generation, transport in enumerate(("SharedMemory", "Pipe", "SharedMemory"), start=1):
        path.write_text(teller("piped", SYMBOLS) + f"  transport: {transport}\n")
        runs(up, "piped", generation)
        assert row_of(up, "piped").transport == transport
        newest = max((one.open_time_ms for one in signals_of(up, "piped")), default=0)

        def decided_since(after_ms: int = newest, incarnation: int = generation) -> bool:
            mine = [one for one in signals_of(up, "piped") if one.incarnation == incarnation]
            return sum(one.open_time_ms > after_ms for one in mine) >= 4

        until(decided_since, lambda: f"it decides again: {up.trader('piped')}")
    assert row_of(up, "keep").pid == keeps
    assert row_of(up, "keep").transport == "SharedMemory"
    each_candle_once(signals_of(up, "piped"))


def test_a_trader_that_changes_its_pool_and_back_misses_no_candle_and_has_one_signal_of_each(up: Up) -> None:
    folder = up.state.parent / "m"
    pool = "apiVersion: chandlery.dev/v1alpha1\nkind: TraderPool\nmetadata: {name: side}\nspec: {feed: {name: market}}\n---"
    (folder / "side.yaml").write_text(pool + teller("stays").replace("{name: demo}", "{name: side}"))
    runs(up, "stays", 1)
    # Far more than a worker takes to start a Trader on a machine that is busy.
    text = teller("moves", SYMBOLS) + "  signals: {ttl: 2m}\n"

    def newest_of(name: str) -> int:
        return max((one.open_time_ms for one in signals_of(up, name)), default=0)

    for incarnation, name in enumerate(("demo", "side", "demo"), start=1):
        newest = newest_of("moves")

        def others_are_ahead(after_ms: int = newest) -> bool:
            return newest_of("stays") > after_ms + 3_000

        if incarnation == 2:  # it is behind when it has to go: what has closed is decided where it comes to
            os.kill(row_of(up, "moves").pid, signal.SIGSTOP)
            until(others_are_ahead, lambda: "candles that it doesn't decide")
        (folder / "moves.yaml").write_text(text.replace("{name: demo}", f"{{name: {name}}}"))

        def decided_there(after_ms: int = newest, incarnation: int = incarnation) -> bool:
            mine = [one for one in signals_of(up, "moves") if one.incarnation == incarnation]
            return len({one.symbol for one in mine if one.open_time_ms > after_ms + 4_000}) == 2

        until(decided_there, lambda: f"it decides in its new pool: {up.trader('moves')}")
        assert row_of(up, "moves").pool == f"default/{name}"
    each_candle_once(signals_of(up, "moves"))
    for name in ("moves", "side"):
        (folder / f"{name}.yaml").unlink()


def test_many_traders_edited_at_once_all_get_there_without_a_gap(up: Up) -> None:
    names = [f"many-{number}" for number in range(8)]
    for name in names:
        apply(up, name, 1)
    for name in names:
        runs(up, name, 1)
        more_signals(up, name, 1)
    for name in names:
        apply(up, name, 2)
    for name in names:
        runs(up, name, 2)
    for name in names:
        each_candle_once(more_signals(up, name, 2))


def test_a_successor_that_waits_for_history_says_how_much_it_has_while_the_old_one_decides(up: Up) -> None:
    apply(up, "patient", 1)
    runs(up, "patient", 1)
    pid = row_of(up, "patient").pid
    path = up.state.parent / "m" / "patient.yaml"
    path.write_text(teller("patient", SYMBOLS, 2).replace("interval: 1s}", "interval: 1s, warmup: 900}"))

    def says() -> bool:
        row = row_of(up, "patient")
        return row.reason == "Warming" and "of 900 closed candles" in row.message

    until(says, lambda: f"says how warm it is: {up.trader('patient')}")
    row = row_of(up, "patient")
    assert (row.ready, row.pid, row.state, row.generation) == (True, pid, "Active", 1)
    path.unlink()
    until(lambda: up.trader("patient") is None, "deleted")
