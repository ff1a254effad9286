"""The local instance's order of things: what belongs together is started and ended one after the other."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from chandlery.cli.runtime import ending, local, recent
from chandlery.cli.runtime.catalogue import Catalogue
from chandlery.cli.runtime.counting import Evidence, FeedEvidence, WorkerEvidence, summarise
from chandlery.cli.runtime.desired import Wanted
from chandlery.cli.runtime.draining import Draining
from chandlery.cli.runtime.feedstarts import FeedStarts, pause_s
from chandlery.cli.runtime.history import history_left
from chandlery.cli.runtime.local import LocalRuntime
from chandlery.cli.runtime.options import UpOptions
from chandlery.cli.runtime.viewing import Viewer
from chandlery.core.errors import MachineError, UnavailableError
from chandlery.core.manifests import ManifestSet
from chandlery.core.resources import MarketFeed
from chandlery.core.settings import KafkaSettings
from chandlery.core.topics import topics_of
from chandlery.operator.planner import FeedPlan, Memory, Plan

KEY = ("default", "market")


class Turns:
    """Stands in for a feed's or a worker's processes: each step takes until the loop has gone round a while."""

    def __init__(self) -> None:
        self.steps: list[str] = []
        self.kafka = KafkaSettings(bootstrap="none:1", feed="market")
        self.topics = topics_of(self.kafka)
        self.continuous = False
        self.started = False
        self.endpoint = self
        self.socket = Path("feed-demo-0.sock")
        self.watch = SimpleNamespace(refresh=self._nothing)
        self._symbols: set[str] = set()

    def grow(self, symbols: set[str], intervals: set[str]) -> tuple[bool, bool]:
        more = bool(symbols - self._symbols)
        self._symbols |= symbols
        return more, False

    async def _nothing(self) -> None:
        return

    def evidence(self) -> WorkerEvidence:
        return WorkerEvidence({}, True, {}, {})

    def __getattr__(self, name: str) -> Any:
        async def step(**_: Any) -> None:
            self.steps.append(f"{name} begins")
            for _turn in range(20):
                await asyncio.sleep(0)
            self.steps.append(f"{name} ends")

        return step


def market(seed: int = 1) -> MarketFeed:
    spec = {"source": {"synthetic": {"seed": seed}}}
    return MarketFeed.model_validate({"metadata": {"name": "market", "namespace": "default"}, "spec": spec})


@pytest.fixture
def runtime(tmp_path: Path) -> LocalRuntime:
    wanted = Wanted(ManifestSet({}, {}, {}), [], [])
    return LocalRuntime(UpOptions((), tmp_path / "state"), wanted, Catalogue(), lambda *_: None)


async def test_a_feed_that_is_starting_grows_only_when_it_has_started(
    runtime: LocalRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nothing(*_: object) -> dict[int, int]:
        return {}

    feed: Any = Turns()
    monkeypatch.setattr(local, "ensure_topics", nothing)
    monkeypatch.setattr(local, "end_offsets", nothing)
    monkeypatch.setattr(runtime, "_new_feed", lambda _: feed)
    runtime.wanted = Wanted(ManifestSet({KEY: market()}, {}, {}), [], [])
    await asyncio.gather(runtime._run_feed(KEY, {"A/USDT"}, {"1s"}), runtime._run_feed(KEY, {"B/USDT"}, {"1s"}))
    assert feed.steps.index("start_ingest ends") < feed.steps.index("follow begins"), feed.steps


async def test_a_feed_whose_start_fails_while_all_runs_is_ended_and_tried_again(
    runtime: LocalRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After its pause and not before, with a group of its own; until then it says why it isn't there."""

    async def ensure(_: object) -> None:
        if answers.pop(0) == "fails":
            raise UnavailableError("Kafka is away")

    async def ends(*_: object) -> dict[int, int]:
        return {}

    now_s = 100.0
    answers = ["fails", "fails", "works"]
    groups: list[Any] = []

    def new_feed(_: object) -> Any:
        groups.append(Turns())
        return groups[-1]

    monkeypatch.setattr(local, "ensure_topics", ensure)
    monkeypatch.setattr(local, "end_offsets", ends)
    monkeypatch.setattr(runtime, "_new_feed", new_feed)
    runtime.wanted = Wanted(ManifestSet({KEY: market()}, {}, {}), [], [])
    runtime.feed_starts = FeedStarts(lambda: now_s, lambda: 1.0)
    runtime.phase = "running"
    for at_s, attempts in ((100.0, 1), (100.9, 1), (101.0, 2), (102.9, 2)):
        now_s = at_s
        await runtime._run_feed(KEY, {"A/USDT"}, {"1s"})
        assert len(groups) == attempts, at_s
        assert KEY not in runtime.feeds
        assert "Kafka is away" in runtime.notices[0]
    assert all(group.steps[-1] == "close ends" for group in groups)
    now_s = 103.0
    await runtime._run_feed(KEY, {"A/USDT"}, {"1s"})
    assert runtime.feeds == {KEY: groups[2]}
    assert [group.started for group in groups] == [False, False, True]
    assert "go ends" in groups[2].steps
    assert (runtime.notices, answers) == ([], [])


async def test_a_feed_that_failed_and_that_nobody_asks_for_any_more_is_not_due_for_ever(runtime: LocalRuntime) -> None:
    runtime.feed_starts = FeedStarts(lambda: 100.0, lambda: 1.0)
    runtime.feed_starts.fail(KEY, market(), "Kafka is away")
    unwanted = FeedPlan(market(), symbols=(), intervals=())
    await runtime._apply(Plan({KEY: unwanted}, {}, {}, Memory(), None), wait=True)
    assert runtime.feed_starts.next_s() is None


async def test_a_feed_whose_start_fails_at_the_start_of_all_ends_it(
    runtime: LocalRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def ensure(_: object) -> None:
        raise UnavailableError("Kafka is away")

    monkeypatch.setattr(local, "ensure_topics", ensure)
    monkeypatch.setattr(runtime, "_new_feed", lambda _: Turns())
    runtime.wanted = Wanted(ManifestSet({KEY: market()}, {}, {}), [], [])
    with pytest.raises(UnavailableError, match="Kafka is away"):
        await runtime._run_feed(KEY, {"A/USDT"}, {"1s"})


async def test_an_end_that_comes_upon_a_feeds_start_waits_for_no_trade_of_it(runtime: LocalRuntime) -> None:
    group: Any = Turns()
    evidence = Evidence("1", 1, 1.0, [], [])
    await ending._end_aggregator(group, evidence, Draining(lambda *_: None, "reads on", "records", 1.0))
    assert group.steps == ["stop_aggregator begins", "stop_aggregator ends"]
    assert (evidence.feeds, evidence.problems) == ([], [])


async def test_a_worker_that_comes_again_starts_when_the_one_before_has_ended(runtime: LocalRuntime) -> None:
    before: Any = Turns()
    again: Any = Turns()
    again.steps = before.steps
    await asyncio.gather(runtime._end_worker(before), runtime._start_worker(again))
    assert before.steps.index("close ends") < before.steps.index("start begins"), before.steps


async def test_planning_goes_on_after_a_full_disk(runtime: LocalRuntime, monkeypatch: pytest.MonkeyPatch) -> None:
    planned = asyncio.Event()
    failures = [OSError(28, "No space left on device")]
    applied: list[object] = []

    async def next_plan() -> Any:
        if failures:
            raise failures.pop()
        return "a plan"

    async def apply(made: object, **_: object) -> None:
        applied.append(made)
        planned.set()

    monkeypatch.setattr(local, "_PLAN_AGAIN_S", 0.01)
    monkeypatch.setattr(runtime, "_next_plan", next_plan)
    monkeypatch.setattr(runtime, "_apply", apply)
    runtime._replan.set()
    planning = asyncio.create_task(runtime._keep_planning())
    await asyncio.wait({asyncio.create_task(planned.wait()), planning}, timeout=20, return_when="FIRST_COMPLETED")
    assert applied == ["a plan"], planning
    planning.cancel()


def test_pauses_between_starts_of_a_feed_grow_to_their_cap_and_an_edit_is_tried_at_once() -> None:
    now_s = 0.0
    starts = FeedStarts(lambda: now_s, lambda: 1.0)
    pauses = []
    for _ in range(8):
        assert starts.is_due(KEY, market())
        starts.begin(KEY)
        assert starts.next_s() is None, "one that is under way is not due"
        starts.fail(KEY, market(), "no such file")
        next_s = starts.next_s()
        assert next_s is not None
        assert not starts.is_due(KEY, market())
        pauses.append(next_s)
        now_s += next_s
    assert pauses == [1, 2, 4, 8, 16, 30, 30, 30]
    assert pause_s(1, 0.0) == 0.5
    starts.fail(KEY, market(), "no such file")
    assert starts.is_due(KEY, market(seed=2))
    starts.fail(KEY, market(seed=2), "no such file")
    assert "attempt 1, next in 1 s" in starts.why(KEY)
    starts.keep({})
    assert (starts.failed, starts.why(KEY), starts.next_s()) == ({}, "", None)


class Process:
    """Stands in for one process of a feed. ``fails``: its start does."""

    def __init__(self, name: str, steps: list[str]) -> None:
        self.name, self.steps, self.fails = name, steps, False
        self.pid, self.last_exit, self.log_path = 1, None, Path("log")

    async def stop(self, timeout_s: float) -> bool:
        self.steps.append(f"{self.name} stops")
        self.pid = 0
        return True

    async def resume(self) -> None:
        self.steps.append(f"{self.name} starts")
        self.pid = 2
        if self.fails:
            raise MachineError("no pids")

    async def restart(self, timeout_s: float) -> None:
        await self.stop(timeout_s)
        await self.resume()


def group_of(runtime: LocalRuntime) -> tuple[Any, list[str]]:
    """A feed's group with stand-ins for its processes, and what they did."""
    group: Any = runtime._new_feed(market())
    group._state.root.mkdir(parents=True, exist_ok=True)
    steps: list[str] = []
    group.ingest, group.aggregator = Process("ingest", steps), Process("aggregator", steps)

    async def refresh() -> dict[str, Any]:
        return {"ready": True}

    group.ingest_watch.refresh = group.aggregator_watch.refresh = refresh
    return group, steps


@pytest.mark.parametrize("fails", [False, True])
async def test_ingest_comes_back_after_a_growth_also_where_the_aggregator_does_not(
    runtime: LocalRuntime, monkeypatch: pytest.MonkeyPatch, *, fails: bool
) -> None:
    """The aggregator is started again and again by itself; ingest, which was ended for it, would never be."""
    group, steps = group_of(runtime)
    monkeypatch.setattr(group, "_write", lambda settings: None)
    group.aggregator.fails = fails
    with pytest.raises(MachineError, match="no pids") if fails else contextlib.nullcontext():
        await group.follow(symbols=True, intervals=True)
    assert steps == ["ingest stops", "aggregator stops", "aggregator starts", "ingest starts"]


async def test_what_an_ingest_that_ended_has_counted_counts_once(runtime: LocalRuntime) -> None:
    """Also while the next one runs already and has not said anything yet."""
    group, _ = group_of(runtime)
    group.ingest_watch.status = {"frames": 7, "trades": {"received": 5, "appended": 5}}
    assert group.ingest_counts()["appended"] == 5
    await group.stop_ingest()
    assert group.ingest_counts()["appended"] == 5
    await group.ingest.resume()
    assert group.ingest_counts()["appended"] == 5
    group.ingest_watch.status = {"frames": 1, "trades": {"received": 1, "appended": 1}}
    assert group.ingest_counts()["appended"] == 6


async def test_what_a_feed_lost_is_in_its_row_and_in_the_summarys_drops(
    runtime: LocalRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    group, _ = group_of(runtime)
    runtime.feeds[KEY] = group
    monkeypatch.setattr(runtime, "children", list)  # its processes are stand-ins
    (row,) = Viewer(runtime, recent.RecentSignals()).view().feeds
    assert row.missing_ids == row.dropped == row.dead_letters == row.reconnects == 0
    group.ingest_watch.status = {
        "reconnects": 1, "symbols": {"BTC/USDT": {"gap_ids": 7}, "ETH/USDT": {"gap_ids": 0}},
        "malformed": {"json": 2}, "trades": {"received": 9, "appended": 6, "dropped": {"buffer": 3}},
    }  # fmt: skip
    await group.stop_ingest()
    await group.ingest.resume()
    group.ingest_watch.status = {"reconnects": 2, "symbols": {"BTC/USDT": {"gap_ids": 4}}}
    group.aggregator_watch.status = {"dead_letters": 5}
    (row,) = Viewer(runtime, recent.RecentSignals()).view().feeds
    assert (row.missing_ids, row.dropped, row.dead_letters, row.reconnects) == (11, 5, 5, 3)
    feed = FeedEvidence(group.ingest_counts(), True, {}, {})
    summary = summarise(Evidence("1", 1, 1.0, [], [], feeds=[feed]))
    assert summary.drops == {"ingest_buffer": 3, "malformed_json": 2, "missing_ids": 11}


async def test_ingests_that_end_before_they_say_anything_add_nothing_to_the_counts(runtime: LocalRuntime) -> None:
    """As where one is ended by a growth and then can't be started, or dies at each start."""
    group, _ = group_of(runtime)
    group.ingest.restarts = 0
    group.ingest_watch.status = {"frames": 7, "trades": {"received": 5, "appended": 5}}
    await group.stop_ingest()
    for restarts in (1, 2):
        group.ingest.restarts = restarts
        group.note_ingest_end()
        assert (group.ingest_counts()["appended"], group.ingest_counts()["frames"]) == (5, 7)
    assert not group.ingest_exact


async def test_what_a_worker_tells_while_all_starts_is_planned_with_once_all_runs(runtime: LocalRuntime) -> None:
    runtime._status_came(has_news=True)
    assert runtime._replan.is_set(), "not at the next look, seconds later"


async def test_a_part_beside_the_run_that_fails_is_told(runtime: LocalRuntime) -> None:
    async def fails() -> None:
        raise BrokenPipeError("nobody reads")

    runtime.phase = "running"
    task = asyncio.create_task(fails(), name="display")
    task.add_done_callback(runtime.note_end)
    await asyncio.wait([task])
    assert runtime.notices == ["display: nobody reads"]


async def test_signals_are_counted_when_nobody_makes_any_more(
    runtime: LocalRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of the last moment would stand on the topic and in nobody's count, and the counts not add up."""

    class Worker(Turns):
        def evidence(self) -> WorkerEvidence:
            self.steps.append("counted")
            return super().evidence()

    worker: Any = Worker()
    made: Any = runtime
    made.workers = {(KEY, "demo-0"): worker}

    async def nothing(*_: object) -> None:
        return

    async def collect(*_: object) -> None:
        worker.steps.append("topic read")

    for name, stand_in in (("_let_decide", nothing), ("_collect", collect)):
        monkeypatch.setattr(ending, name, stand_in)
    monkeypatch.setattr(ending, "_begin", lambda *_: Evidence("1", 1, 1.0, [], []))
    monkeypatch.setattr(ending, "_exits", lambda _: {})
    monkeypatch.setattr(runtime, "close", nothing)
    viewer: Any = None
    found = await ending.end_in_order(runtime, viewer, 1.0, lambda *_: None)
    assert worker.steps == [
        "stop_supervisor begins", "stop_supervisor ends", "stop_feed begins", "stop_feed ends", "counted", "topic read"
    ]  # fmt: skip
    assert len(found.workers) == 1


@pytest.mark.parametrize(
    ("lag", "counts", "left"),
    [
        (0, {"lag": 5}, 5),
        (3, {"lag": 5, "catching_up": ["BTC/USDT 1s"]}, 9),
        (0, {"lag": 0, "catching_up": ["BTC/USDT 1s"]}, 1),
        (0, {"lag": 0}, 0),
        (None, {"lag": 0}, None),
    ],
)
async def test_how_much_history_is_left_is_asked_of_workers_and_not_remembered(
    lag: int | None, counts: dict[str, Any], left: int | None
) -> None:
    """What a worker told last is up to a second old: of before the aggregator's last candles."""

    async def feed_lag() -> int | None:
        return lag

    async def refresh() -> Any:
        return SimpleNamespace(feed=counts)

    feed: Any = SimpleNamespace(history_left=feed_lag)
    before = SimpleNamespace(refresh=refresh, status=SimpleNamespace(feed={"lag": 0, "catching_up": []}))
    worker: Any = SimpleNamespace(watch=before, feed_counts=lambda: before.status.feed)
    assert await history_left([feed], [worker]) == left


async def test_how_much_history_is_left_is_not_known_while_somebody_does_not_answer() -> None:
    async def refresh() -> Any:
        raise UnavailableError("feed-demo-0 doesn't answer")

    worker: Any = SimpleNamespace(watch=SimpleNamespace(refresh=refresh))
    assert await history_left([], [worker]) is None


async def test_a_start_says_what_it_waits_for_and_how_much_of_that_is_done(
    runtime: LocalRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[tuple[str, float | None]] = []
    monkeypatch.setattr(runtime, "_say", lambda line, fraction=None: said.append((line, fraction)))
    ready = iter([0, 1, 2, 2, 2, 2, 2])
    left = iter([None, 40, 100, 25, 0])
    now_ready: set[str] = set()

    def note() -> None:
        now_ready.update(["default/one", "default/two"][: next(ready)])

    async def still(*_: object) -> int | None:
        return next(left)

    monkeypatch.setattr(runtime, "note_ready", note)
    monkeypatch.setattr(runtime, "_placed", lambda: ["default/one", "default/two"])
    monkeypatch.setattr(runtime, "readiness", SimpleNamespace(was_ready=now_ready.__contains__))
    monkeypatch.setattr(local, "history_left", still)
    await runtime._wait_ready()
    assert said == [
        ("waiting for the traders", 0.0),
        ("waiting for the traders", 0.5),
        ("reading history", None),
        ("reading history", 0.0),
        ("reading history", 0.0),
        ("reading history", 0.75),
    ]


async def test_that_planning_has_ended_is_told_also_after_an_edit(runtime: LocalRuntime) -> None:
    async def fails() -> None:
        raise KeyError("a defect")

    runtime.phase = "running"
    for name in ("plan", "start"):
        await asyncio.wait([runtime._spawn(fails(), name)])
    await asyncio.sleep(0)
    assert len(runtime.notices) == 2
    runtime._want(runtime.wanted)
    assert runtime.notices == ["plan: 'a defect'"]


async def test_signals_of_a_feed_that_was_started_anew_are_asked_for_also_where_it_has_published_as_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []
    looked = asyncio.Event()

    class Worker:
        label, feed = "demo-0", SimpleNamespace(restarts=0)
        endpoint: Any

        def feed_counts(self) -> dict[str, Any]:
            return {"signals": {"published": 5}}

        async def get(self, path: str) -> bytes:
            asked.append(path)
            looked.set()
            return b"[]"

    worker: Any = Worker()
    worker.endpoint = worker
    monkeypatch.setattr(recent, "_EVERY_S", 0.0)
    following = asyncio.create_task(recent.RecentSignals().follow(lambda: [worker]))
    for restarts in (0, 1):
        worker.feed.restarts = restarts
        await asyncio.wait_for(looked.wait(), 20)
        looked.clear()
    following.cancel()
    await asyncio.wait([following])
    assert asked == ["/v1/signals?limit=15"] * 2
