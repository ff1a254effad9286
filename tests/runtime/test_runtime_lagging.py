"""A part that is too slow for its market: told in words, and first among the reasons at the end."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.runtime.unstarted import POOL, market_of, quiet, unstarted, wanted

from chandlery.cli.runtime.counting import Evidence, FeedEvidence, summarise
from chandlery.cli.runtime.draining import MEASURED_S, Draining, Pace
from chandlery.cli.runtime.ending import _end_aggregator
from chandlery.cli.runtime.lagging import Lagging, Part, parts_of, silent_of
from chandlery.cli.runtime.polling import OLD_S, OLD_WORKER_S
from chandlery.cli.runtime.recent import RecentSignals
from chandlery.cli.runtime.viewing import Viewer
from chandlery.console.lines import feed_line
from chandlery.console.model import FeedRow
from chandlery.core.assignment import WorkerStatus
from chandlery.core.behind import BEHIND_MS, CAUGHT_UP_MS
from chandlery.core.errors import UnavailableError

SLOW = Part("aggregator-market", "aggregator")
FEED = Part("feed-demo-0", "feed")
SYNTHETIC = "{synthetic: {seed: 7}}"


def after(looks: list[int], part: Part = SLOW) -> Lagging:
    """A part that was so far behind, ms, at looks a second apart."""
    lagging = Lagging()
    for second, behind_ms in enumerate(looks):
        lagging.note({part: behind_ms}, float(second))
    return lagging


def test_a_part_lags_when_it_has_been_far_behind_for_a_while_and_no_longer_once_it_has_caught_up() -> None:
    far, near = BEHIND_MS + 1, CAUGHT_UP_MS - 1
    assert after([far] * 3).notices == [], "what comes and goes by itself"
    assert after([far] * 3 + [BEHIND_MS] + [far] * 3).notices == []
    (told,) = after([far] * 4).notices
    assert told.startswith("aggregator-market fell more than 10s behind its market")
    assert "a second MarketFeed has an aggregator of its own" in told, "what to do"
    assert after([far] * 4 + [near] * 3).notices == [told], "not yet for long enough"
    assert after([far] * 4 + [near] * 4).notices == []
    assert after([far] * 4 + [near] * 4).most_ms() == {"aggregator-market": far}, "the summary names it all the same"


def test_the_words_change_when_it_is_twice_as_far_and_never_with_each_second() -> None:
    lagging, told = Lagging(), []
    for second in range(200):
        lagging.note({SLOW: 1_000 * second}, float(second))
        told += [notice for notice in lagging.notices if notice not in told]
    assert [one.partition(" behind")[0].removeprefix("aggregator-market fell more than ") for one in told] == [
        "10s", "20s", "40s", "1m20s", "2m40s"
    ]  # fmt: skip


@given(st.lists(st.integers(CAUGHT_UP_MS, BEHIND_MS), max_size=60), st.booleans())
def test_between_the_two_thresholds_nothing_changes(looks: list[int], lags: bool) -> None:
    begun = [BEHIND_MS + 1] * 4 if lags else [0]
    assert after([*begun, *looks]).lags(SLOW.name) is lags


def test_a_part_that_is_gone_lags_no_more() -> None:
    lagging = after([60_000] * 5, FEED)
    assert "its worker's Traders decide that late" in lagging.words(FEED.name)
    lagging.note({}, 6.0)
    assert (lagging.notices, lagging.most_ms()) == ([], {FEED.name: 60_000})


def test_the_line_of_a_feed_says_for_how_long_records_have_waited_and_that_it_lags() -> None:
    row = FeedRow("default/market", "binance", connected=True, aggregator_lag=12_000, behind_ms=34_567)
    assert "lag 12,000 (34 s), " in feed_line(row)
    row.lagging, row.message = True, "what the notice says"
    assert feed_line(row).endswith("(lags)")
    row.behind_ms = 700
    assert "lag 12,000, " in feed_line(row)


async def test_a_view_says_which_part_lags_at_the_feed_its_pool_and_each_trader(tmp_path: Path) -> None:
    runtime = unstarted(tmp_path, wanted(SYNTHETIC))
    made = await runtime._next_plan()
    group = market_of(runtime)
    group.started = True
    worker = runtime._new_worker(made, POOL, "demo-0")
    group.aggregator_watch.status = {"lag": 900, "behind_ms": 42_000}
    worker.watch.status = WorkerStatus("demo-0", 1, 1, "", 1, True, {}, [], {"behind_ms": 7}, {})
    await runtime._next_plan()
    assert parts_of(runtime) == {SLOW: 42_000, FEED: 7}
    viewer = Viewer(runtime, RecentSignals())
    calm = viewer.view()
    assert (calm.feeds[0].behind_ms, calm.feeds[0].lagging, calm.notices) == (42_000, False, [])
    for second in range(5):
        viewer.lagging.note({SLOW: 42_000, FEED: 30_000}, float(second))
    view = viewer.view()
    assert view.feeds[0].lagging
    assert [notice.partition(" ")[0] for notice in view.notices] == ["aggregator-market", "feed-demo-0"]
    assert view.feeds[0].message == view.notices[0]
    assert view.pools[0].message == view.notices[1]
    (row,) = view.traders
    assert row.reason == "Lagging"
    assert "aggregator-market is behind" in row.message, "the cause that comes first on the way"


async def test_a_replay_as_fast_as_possible_has_no_pace_to_be_behind_of(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("")
    source = f"{{replay: {{files: [{{path: {tmp_path}/t.csv, symbol: BTC/USDT}}], speed: max}}}}"
    runtime = unstarted(tmp_path, wanted(source))
    made = await runtime._next_plan()
    group = market_of(runtime)
    group.started = True
    if made.pools:
        runtime._new_worker(made, POOL, "demo-0")
    group.aggregator_watch.status = {"lag": 900, "behind_ms": 42_000}
    assert parts_of(runtime) == {}


# The end


def test_a_wait_that_would_take_far_longer_than_there_is_time_is_given_up() -> None:
    slow = Pace(30.0)
    assert not slow.is_hopeless(100_000, 0.0)
    assert not slow.is_hopeless(99_900, MEASURED_S - 0.1), "not judged yet"
    assert slow.is_hopeless(99_900, MEASURED_S)
    quick = Pace(30.0)
    assert not any(quick.is_hopeless(100_000 - 4_000 * second, float(second)) for second in range(25))
    stuck = Pace(30.0)
    assert not any(stuck.is_hopeless(700, at) for at in (0.0, MEASURED_S, 29.0)), "it may wait for a broker's restart"


@given(st.integers(1, 1_000_000), st.floats(0.1, 29.0))
def test_what_would_be_through_in_time_is_never_given_up(records: int, takes_s: float) -> None:
    pace = Pace(30.0)
    for step in range(200):
        waited_s = takes_s * step / 200
        assert not pace.is_hopeless(round(records * (1 - waited_s / takes_s)) + 1, waited_s)


class Clock:
    """Goes on by a second with each look at what is left."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s

    def looked(self) -> None:
        self.now_s += 1.0


async def test_the_wait_is_told_with_what_is_left_and_the_share_that_is_done() -> None:
    said: list[tuple[str, float | None]] = []
    clock = Clock()
    draining = Draining(
        lambda line, fraction=None: said.append((line, fraction)), "ending: the aggregators", "records", 30, clock
    )
    rest = iter([400, None, 100, 100, 50, 0])

    async def left() -> int | None:
        clock.looked()
        number = next(rest)
        if number is None:
            raise UnavailableError("busy")
        return number

    assert (await draining.wait("aggregator-market", left)).is_through
    words = "ending: the aggregators have 100 records to go, 30 s at most; a second Ctrl-C ends at once"
    assert said == [(words, 0.75), (words, 0.75), (words, 0.875)], "none of the first second"


async def test_what_does_not_come_to_the_end_says_how_much_is_left() -> None:
    clock = Clock()

    async def left() -> int | None:
        clock.looked()
        return 1234

    async def silent() -> int | None:
        clock.looked()
        raise UnavailableError("gone")

    draining = Draining(quiet, "", "records", 3.0, clock)
    assert (await draining.wait("a", left)).words == "did not catch up within 3 s (1,234 records left)"
    assert "it didn't answer" in (await draining.wait("b", silent)).words


async def test_of_one_that_has_not_answered_yet_no_number_is_told() -> None:
    clock, said = Clock(), list[str]()
    draining = Draining(lambda line, fraction=None: said.append(line), "ending: the aggregators", "records", 3.0, clock)

    async def silent() -> int | None:
        clock.looked()
        return None

    assert not (await draining.wait("aggregator-market", silent)).answers
    assert said == [], "not that there are 0 records to go"


def evidence(**changes: Any) -> Evidence:
    return Evidence("1", 5, 1.0, [], [("default/b", "Backoff")], **changes)


def behind_by(trades: int) -> FeedEvidence:
    return FeedEvidence(Counter({"appended": trades, "received": trades}), True, {}, {})


def test_the_summary_names_the_lag_as_the_cause_before_what_follows_from_it() -> None:
    cause = "aggregator-market was 47 s behind its market"
    told = summarise(
        evidence(feeds=[behind_by(900)], causes=[cause], all_read=False, behind_ms={"aggregator-market": 47_000})
    )
    assert not told.reconciles
    assert told.problems[1:] == [
        cause,
        "900 trades were not counted: ingested 900, the aggregator got to 0 of them",
    ]
    assert told.behind_ms == {"aggregator-market": 47_000}
    (lost,) = summarise(evidence(feeds=[behind_by(900)])).problems[1:]
    assert "lost or repeated" in lost, "one that read everything and counts less has lost some"


def market_group(status: dict[str, Any], refresh: Callable[[], Awaitable[dict[str, Any]]]) -> Any:
    """A feed's processes, as its end asks for them."""

    async def stop() -> bool:
        return True

    return SimpleNamespace(
        started=True, kafka=None, topics=SimpleNamespace(trades="t"), aggregator=SimpleNamespace(name=SLOW.name),
        aggregator_watch=SimpleNamespace(status=status, refresh=refresh), stop_aggregator=stop, label="MarketFeed market",
        ingest_counts=Counter, ingest_exact=True, baseline={},
    )  # fmt: skip


@pytest.mark.parametrize(("lagged_ms", "answers"), [(47_000, True), (20, True), (20, False)])
async def test_an_aggregator_that_does_not_come_to_the_end_is_a_cause_with_what_to_do(
    monkeypatch: pytest.MonkeyPatch, lagged_ms: int, answers: bool
) -> None:
    async def ends(kafka: object, topic: str) -> dict[int, int]:
        return {0: 500, 1: 20}

    monkeypatch.setattr("chandlery.cli.runtime.ending.end_offsets", ends)
    status = {"ready": answers, "behind_ms": lagged_ms, "partitions": {"0": {"applied": 100}, "1": {"applied": 20}}}

    clock = Clock()

    async def refresh() -> dict[str, Any]:
        clock.looked()
        return status

    group = market_group(status, refresh)
    found = evidence()
    await _end_aggregator(group, found, Draining(quiet, "", "records", 2.0, clock))
    (cause,) = found.causes
    assert not found.all_read
    if not answers:
        assert cause == "aggregator-market did not catch up within 2 s (it didn't answer): see its log"
        return
    how_far = "47 s" if lagged_ms > 1000 else "less than a second"
    assert cause.startswith(f"aggregator-market was {how_far} behind its market and did not catch up within 2 s")
    assert "(400 records left): give it more of a core" in cause


async def test_where_kafka_tells_no_end_nobody_says_that_all_was_read(monkeypatch: pytest.MonkeyPatch) -> None:
    async def ends(kafka: object, topic: str) -> dict[int, int]:
        raise UnavailableError("Kafka is away")

    monkeypatch.setattr("chandlery.cli.runtime.ending.end_offsets", ends)
    status = {"ready": True, "partitions": {}}

    async def refresh() -> dict[str, Any]:
        return status

    found = evidence()
    await _end_aggregator(market_group(status, refresh), found, Draining(quiet, "", "records", 2.0, Clock()))
    assert not found.all_read
    assert found.problems == ["MarketFeed market: Kafka did not tell how many trades there are: Kafka is away"]


def test_of_a_part_that_says_nothing_any_more_no_lag_is_told_but_that(tmp_path: Path) -> None:
    """What it said last would else be told for ever."""
    lagging = after([60_000] * 5)
    lagging.note_silence({SLOW})
    lagging.note({}, 6.0)
    assert not lagging.lags(SLOW.name)
    assert lagging.notices == [
        "aggregator-market runs and doesn't answer: what is shown of it is of before; see its log"
    ]
    lagging.note_silence(set())
    assert lagging.notices == []


async def test_a_process_that_runs_and_has_not_answered_for_a_while_is_silent(tmp_path: Path) -> None:
    runtime = unstarted(tmp_path, wanted(SYNTHETIC))
    made = await runtime._next_plan()
    group = market_of(runtime)
    worker = runtime._new_worker(made, POOL, "demo-0")
    assert silent_of(runtime) == set(), "they don't even run"
    now_s = time.monotonic()
    for child in (group.aggregator, worker.feed):
        child.state, child.started_s = "running", now_s - 20
    assert silent_of(runtime) == set(), "they have only been started"
    group.aggregator_watch.told_s = worker.watch.told_s = now_s - OLD_S - 1
    assert silent_of(runtime) == {SLOW}
    worker.watch.told_s = now_s - OLD_WORKER_S - 1
    assert silent_of(runtime) == {SLOW, FEED}


async def test_one_that_was_begun_anew_and_never_answered_is_silent_once_a_start_would_be_over(tmp_path: Path) -> None:
    runtime = unstarted(tmp_path, wanted(SYNTHETIC))
    made = await runtime._next_plan()
    group = market_of(runtime)
    worker = runtime._new_worker(made, POOL, "demo-0")
    now_s = time.monotonic()
    group.aggregator_watch.told_s = worker.watch.told_s = now_s - 100  # the processes before them said that
    for child in (group.aggregator, worker.feed):
        child.state, child.started_s = "running", now_s - 20
    assert silent_of(runtime) == set()
    for child in (group.aggregator, worker.feed):
        child.started_s = now_s - 50
    assert silent_of(runtime) == {FEED}
    for child in (group.aggregator, worker.feed):
        child.started_s = now_s - 70
    assert silent_of(runtime) == {SLOW, FEED}
