"""The fan-out: every mechanism hands over every candle, with the same work; what is missing is told. No figure is judged."""

from __future__ import annotations

import asyncio
import importlib.util
import shutil
import sys
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from benchmarks._fanout_chandlery import Chandlery
from benchmarks._fanout_floor import floor
from benchmarks._fanout_iceoryx import Iceoryx
from benchmarks._fanout_kafka import Kafka, make_topics
from benchmarks._fanout_parts import STEPS, steps
from benchmarks._fanout_peers import Multiprocessing, Redis, ZeroMq
from benchmarks._fanout_report import FLOOR, OURS, figures_of, markdown, svg
from benchmarks._fanout_stage import Measured, Mechanism, Plan, Unmeasured, perform
from benchmarks._fanout_work import WINDOW, Case, OwnWindow, as_message, candles, open_ms, pace
from benchmarks.fanout import Found, rows_of
from benchmarks.harness import Row, run
from benchmarks.window_cost import memory, window_times
from tests.support.needed import missing, need

from chandlery.stream.broker import EmbeddedBroker

#: Enough to see each candle come; the pace leaves room on a busy machine.
PLAN = Plan(warm=3, one=5, all=4, one_period_ns=5_000_000, all_period_ns=5_000_000)
READERS = 3


def _mechanisms() -> list[Mechanism]:
    return [Chandlery(), Multiprocessing("Queue"), Multiprocessing("Pipe"), ZeroMq(), Iceoryx(), Redis()]


#: What the extra packages are called where they are imported.
_PACKAGES = {"zeromq": "zmq", "iceoryx2": "iceoryx2", "redis": "redis"}


def _assert_whole(found: Mapping[Case, Measured]) -> None:
    assert len(found["one"].in_hand_ns) == PLAN.one
    assert len(found["all"].in_hand_ns) == PLAN.all * READERS
    for measured in found.values():
        assert measured.in_hand_ns.min() > 0
        assert (measured.read_ns >= measured.in_hand_ns).all()
        assert measured.cpu_ns > 0


@pytest.mark.parametrize("mechanism", _mechanisms(), ids=lambda each: each.name)
def test_a_mechanism_gives_a_sample_for_every_subscribed_reader_and_candle(mechanism: Mechanism) -> None:
    if mechanism.name in _PACKAGES and importlib.util.find_spec(_PACKAGES[mechanism.name]) is None:
        missing(f"needs the peer {mechanism.name}: make bench-peers")
    if mechanism.name == "redis":
        need("redis-server", "redis-server")
    _assert_whole(perform(mechanism, READERS, PLAN))


@pytest.mark.broker
def test_kafka_gives_a_sample_for_every_subscribed_reader_and_candle(broker: EmbeddedBroker) -> None:
    asyncio.run(make_topics(broker.bootstrap))
    kafka = Kafka()
    kafka.use(broker.pid, broker.bootstrap)
    _assert_whole(perform(kafka, READERS, PLAN))


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
def test_the_floor_gives_as_many_samples_as_a_mechanism() -> None:
    _assert_whole(floor(READERS, PLAN))
    assert set(floor(1, PLAN)) == {"one"}


def test_the_steps_are_told_in_their_order() -> None:
    taken = steps("all", READERS, PLAN)
    assert tuple(taken.steps_us) == STEPS
    assert min(taken.steps_us.values()) > 0


def test_an_own_window_always_shows_the_newest_candles() -> None:
    own = OwnWindow()
    made = candles(WINDOW, 8_000)
    history = [candle[0] for candle in candles(0, WINDOW)]
    opened = np.array(history + [candle[0] for candle in made])
    for number, candle in enumerate(made):
        columns = own.push(as_message(*candle))
        assert len(columns) == len(candle)
        if number % 97 == 0 or 3_590 < number < 3_610:  # where it moves back, too
            assert np.array_equal(columns[0], opened[number + 1 : number + 1 + WINDOW])
            assert [column[-1] for column in columns] == list(candle)


def test_a_candle_that_is_late_counts_from_when_it_was_due() -> None:
    stamps = list(pace(50, 1))  # a nanosecond apart: no writer keeps up
    assert {later - earlier for earlier, later in pairwise(stamps)} == {1}


def test_a_peer_that_is_not_installed_is_told_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, mechanism in (("zmq", ZeroMq()), ("iceoryx2", Iceoryx()), ("redis", Redis())):
        monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(Unmeasured, match="make bench-peers"):
            perform(mechanism, READERS, PLAN)


def test_a_server_that_is_not_there_is_told_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "redis", pytest)  # any module: it isn't asked for anything
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(Unmeasured, match="apt-get install redis-server"):
        perform(Redis(), READERS, PLAN)
    with pytest.raises(Unmeasured, match="broker"):
        perform(Kafka(), READERS, PLAN)
    with pytest.raises(Unmeasured, match="apt-get install gcc"):
        floor(READERS, PLAN)


def test_a_reader_that_misses_a_candle_is_no_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = candles

    def with_one_left_out(first: int, count: int) -> list[object]:
        made: list[object] = list(whole(first, count))
        return [*made[:1], (open_ms(first), *made[1][1:]), *made[2:]] if first and count > 1 else made  # type: ignore[index]

    monkeypatch.setattr("benchmarks._fanout_peers.candles", with_one_left_out)
    with pytest.raises(Unmeasured, match="not in order"):
        perform(Multiprocessing("Pipe"), 1, PLAN)


def _measured(us: int) -> Measured:
    samples = np.full(10, us * 1_000, np.int64)
    return Measured(samples, samples + 1_000, us * 10_000, 10)


def _found() -> Found:
    found = Found()
    for name, us in ((FLOOR, 10), (OURS, 15), ("zeromq", 90)):
        found.take(name, 20, PLAN, lambda *_, us=us: {"one": _measured(us), "all": _measured(us * 10)})
        found.take(name, 1, PLAN, lambda *_, us=us: {"one": _measured(us)})

    def missing(*_: object) -> dict[str, Measured]:
        raise Unmeasured("no redis-server")

    found.take("redis", 20, PLAN, missing)  # type: ignore[arg-type]
    return found


def test_goals_are_ratios_of_the_same_run_and_what_is_missing_is_a_row() -> None:
    rows = {row.name: row for row in rows_of(_found(), [FLOOR, OURS, "zeromq", "redis"], [1, 20])}
    over_floor = rows[f"fanout/one_of_20/{OURS}_over_{FLOOR}"]
    assert (over_floor.value, over_floor.goal, over_floor.holds) == (1.5, 2.0, True)
    over_us = rows[f"fanout/one_of_20/zeromq_over_{OURS}"]
    assert (over_us.value, over_us.goal, over_us.direction, over_us.holds) == (6.0, 10.0, "at least", False)
    ours = rows[f"fanout/all_20/{OURS}/p50"]
    assert (ours.value, ours.peer, ours.floor) == (150.0, 900.0, 100.0)
    assert rows[f"fanout/one_of_20/{OURS}/read_p50"].value == 16.0
    assert rows[f"fanout/one_of_20/{OURS}/cpu"].value == pytest.approx(15.0)
    assert rows["fanout/not_measured/redis"].note == "20 readers: no redis-server"
    assert not any(name.startswith("fanout/all_1/") for name in rows)


@pytest.mark.parametrize(
    ("option", "content", "told"),
    [
        ("--table", None, "can't be read: No such file"),
        ("--table", "{}", "not the rows that --json prints"),
        ("--table", "<svg/>", "not the rows that --json prints"),
        ("--plot", None, "there is no folder"),
    ],
)
def test_a_file_that_is_no_use_is_named_before_anything_is_measured(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    option: str,
    content: str | None,
    told: str,
) -> None:
    named = tmp_path / "away" / "file" if content is None else tmp_path / "file"
    if content is not None:
        named.write_text(content)
    monkeypatch.setattr(sys, "argv", ["fanout.py", option, str(named)])

    def measure(_quick: bool) -> list[Row]:
        raise AssertionError("measured first")

    with pytest.raises(SystemExit) as ended:
        run(measure, "", plot=svg, markdown=markdown)
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert f"{option} {named}" in said
    assert told in said


def test_the_tables_and_the_drawing_show_every_figure() -> None:
    rows = rows_of(_found(), [FLOOR, OURS, "zeromq", "redis"], [1, 20])
    rows += [Row(f"fanout/one_of_20/steps/{step}", 3.5, "µs") for step in STEPS]
    assert figures_of(rows, "one")[OURS][1]["p99"] == 15.0
    text = markdown(rows)
    assert f"| {OURS} | 15 / 15 / 15 | 15 / 15 / 15 |" in text
    assert "| zeromq | 900 / 900 / 900 |" in text
    assert "≥ 10 | **no** |" in text
    assert "| one_of_20 | 3.5 |" in text
    assert "no redis-server" in text
    drawn = ElementTree.fromstring(svg(rows))
    lines = drawn.findall(".//{http://www.w3.org/2000/svg}polyline")
    assert len(lines) == 3 * 2 * 2  # mechanisms, cases, percentiles
    assert ElementTree.fromstring(svg([])) is not None


def test_a_window_costs_the_same_at_every_length_and_its_memory_is_told() -> None:
    names = [row.name for row in window_times(rounds=1) + memory()]
    for length in (10, 100, 500, 900):
        assert f"window_cost/{length}" in names
    assert "window_cost/segment" in names
    assert "window_cost/reader_pss" in names
