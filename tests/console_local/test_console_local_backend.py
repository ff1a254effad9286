"""`chandlery up` behind the API: what its view says, what is told while it is away, and memory over time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from tests.console_local.test_console_local_folder import TWO, manifest

from chandlery.cli.runtime.api import InstanceApi, Written
from chandlery.cli.runtime.folder import Folder
from chandlery.cli.runtime.folder import Snapshot as FilesOnDisk
from chandlery.console.backend import Backend, BadFieldError, ConflictError, NotFoundError, RefusedError
from chandlery.console.backends import local
from chandlery.console.backends.local import LocalBackend
from chandlery.console.backends.local_models import Losses, MarketTime, feed_of, kind_of, trader_of
from chandlery.console.backends.local_shares import LocalShares
from chandlery.console.backends.losses import FeedLosses
from chandlery.console.backends.memory_history import LEAST_MS, SETTLING_MS, WINDOW_MS, Measured, MemoryHistory
from chandlery.console.model import FeedRow, PoolRow, ProcessRow, SegmentRow, TraderRow, View
from chandlery.console.settings import LocalSettings
from chandlery.core.settings import KafkaSecurity
from chandlery.core.topics import topics_of

DEADLINE_S = 20.0


def view(**more: object) -> View:
    made = View(
        "r", "1", "/s", 1, 1_000, "running",
        feeds=[
            FeedRow("desk/market", "synthetic", "127.0.0.1:9092", "x.desk.market.signals", True, topic="desk.market",
                    prefix="x.", partitions=3, watermark_ms=5, security=KafkaSecurity(properties="/p")),
            FeedRow("default/failed", "replay", message="no file"),
        ],
        pools=[PoolRow("default/demo", 1, 20, 1, 0, "Pipe", "", "desk/market", 1)],
        traders=[TraderRow("default/one", "Active", ready=True, pid=7, rss_bytes=30, suspended=False, latency_count=2,
                           frame_to_signal_p50_us=1.5, frame_to_signal_p99_us=2.5, told_ms=time.time_ns() // 1_000_000)],
        processes=[ProcessRow("feed-demo-0", "running", 8, rss_bytes=50), ProcessRow("console", "backoff")],
        segments=[SegmentRow("demo-0", 4096, 3, 512, 1, 2, 9)],
        notices=["mind the gap"],
    )  # fmt: skip
    for name, value in more.items():
        setattr(made, name, value)
    return made


class Instance:
    """The real socket of an instance, with a view of this test's."""

    def __init__(self, socket: Path) -> None:
        self.socket = socket
        self.view = view()
        self.asked = 0
        self.written: Written = lambda _: None
        self.wrong: list[tuple[str, str]] = []
        self.checked: list[dict[str, object]] = []
        self._api = self._made()

    def _made(self) -> InstanceApi:
        def told() -> View:
            self.asked += 1
            return self.view

        return InstanceApi(self.socket, told, lambda name: self.written(name), self._check)

    async def _check(self, manifest: dict[str, object]) -> list[tuple[str, str]]:
        self.checked.append(manifest)
        return self.wrong

    async def start(self) -> None:
        self._api = self._made()
        await self._api.start()

    async def stop(self) -> None:
        await self._api.stop()


@pytest.fixture
async def instance(tmp_path: Path) -> AsyncIterator[Instance]:
    running = Instance(tmp_path / "up.sock")
    await running.start()
    yield running
    await running.stop()


@pytest.fixture
async def backend(instance: Instance, tmp_path: Path) -> AsyncIterator[LocalBackend]:
    home = tmp_path / "m"
    home.mkdir()
    (home / "two.yaml").write_text(TWO)
    made = LocalBackend(LocalSettings(str(instance.socket), [str(home)]))
    await made.start()
    yield made
    await made.stop()


async def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"not within {DEADLINE_S:.0f} s: {what}"
        await asyncio.sleep(0.02)


async def test_the_view_is_told_in_the_words_of_the_api(backend: LocalBackend) -> None:
    _: Backend = backend
    assert backend.snapshot().away, "nothing has been told yet"
    await until(lambda: not backend.snapshot().away, "the instance has answered")
    told = backend.snapshot()
    (trader,) = told.traders
    assert (trader.trader, trader.state, trader.ready, trader.latency.count) == ("default/one", "Active", True, 2)
    assert (trader.latency.p50_us, trader.latency.p99_us) == (1.5, 2.5)
    assert trader.age_ms < DEADLINE_S * 1000
    (pool,) = told.pools
    assert (pool.feed, pool.ready_workers, pool.transport) == ("desk/market", 1, "Pipe")
    assert [(feed.feed, feed.alive) for feed in told.feeds] == [("desk/market", True), ("default/failed", False)]
    (segment,) = told.memory.segments
    assert (segment.worker, segment.series_used, segment.series_capacity, segment.ring_depth, segment.laps) == (
        "demo-0", 3, 512, 2, 9,
    )  # fmt: skip
    assert {one.name: (one.kind, one.rss_bytes) for one in told.memory.processes} == {
        "feed-demo-0": ("feed", 50),
        "default/one": ("trader", 30),
    }
    assert (told.memory.total_rss_bytes, told.notices, told.started_ms) == (80, ["mind the gap"], 1_000)


async def test_who_is_cancelled_while_it_ends_is_cancelled_and_leaves_no_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, ending, closed = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def poll(_: LocalBackend) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ending.set()
            await closed.wait()

    monkeypatch.setattr(LocalBackend, "_poll", poll)
    made = LocalBackend(LocalSettings(str(tmp_path / "up.sock"), []))
    await made.start()
    await begun.wait()
    session = made._session
    stopping = asyncio.create_task(made.stop())
    await ending.wait()
    stopping.cancel()
    closed.set()
    await asyncio.wait([stopping])
    assert stopping.cancelled()
    assert session is not None
    assert session.closed


async def test_what_the_instance_would_not_run_is_refused_by_its_first_field_and_not_written(
    instance: Instance, backend: LocalBackend, tmp_path: Path
) -> None:
    instance.wrong = [("spec.pool.name", "there is none"), ("spec.strategy.name", "there is none either")]
    for change in (backend.create(manifest("new")), backend.replace(manifest("one"), "")):
        with pytest.raises(BadFieldError, match=r"spec\.pool\.name: there is none; spec\.strategy") as caught:
            await change
        assert caught.value.field == "spec.pool.name"
    assert [one["metadata"] for one in instance.checked] == [manifest(name)["metadata"] for name in ("new", "one")]
    assert [(path.name, path.read_text()) for path in (tmp_path / "m").iterdir()] == [("two.yaml", TWO)]
    await instance.stop()
    await backend.create(manifest("new"))
    assert len(list((tmp_path / "m").iterdir())) == 2, "files can be changed while no instance runs"


async def test_the_topics_of_a_feed_are_found_by_what_it_says(backend: LocalBackend) -> None:
    assert backend.kafkas() == []
    await until(lambda: bool(backend.kafkas()), "the instance has answered")
    (found,) = backend.kafkas()
    assert found.feed == "desk/market"
    assert topics_of(found.kafka).signals == "x.desk.market.signals"
    assert (found.kafka.partitions, found.kafka.security.properties) == (3, "/p")


async def test_an_instance_that_goes_away_and_comes_back_is_told(backend: LocalBackend, instance: Instance) -> None:
    await until(lambda: not backend.snapshot().away, "it has answered")
    await instance.stop()
    await until(lambda: bool(backend.snapshot().away), "it is away")
    told = backend.snapshot()
    assert "does not answer" in told.away[0]
    assert [one.trader for one in told.traders] == ["default/one"], "what was known is known"
    assert not any(feed.alive for feed in told.feeds), "nobody knows whether it is"
    instance.view = view(traders=[])
    await instance.start()
    await until(lambda: not backend.snapshot().away, "it is back")
    assert backend.snapshot().traders == []


async def test_a_view_that_is_the_same_is_not_sent_again(backend: LocalBackend, instance: Instance) -> None:
    await backend.refresh()
    sizes: list[int] = []
    real = backend._get

    async def weighed(*arguments: object) -> tuple[int, bytes, str]:
        answer = await real(*arguments)  # type: ignore[arg-type]
        sizes.append(len(answer[1]))
        return answer

    backend._get = weighed  # type: ignore[method-assign, assignment]
    await backend.refresh()
    assert sizes[-1] == 0
    instance.view = view(traders=[])
    await backend.refresh()
    assert sizes[-1] > 0
    assert backend.snapshot().traders == []


async def test_another_version_of_the_view_is_told_and_no_end(backend: LocalBackend, instance: Instance) -> None:
    await until(lambda: not backend.snapshot().away, "it has answered")
    instance.view = view(traders="none")
    await until(lambda: "another version" in "".join(backend.snapshot().away), "it says so")
    instance.view = view()
    await until(lambda: not backend.snapshot().away, "it goes on")


async def test_a_trader_that_came_through_standard_input_is_read_and_refused(
    backend: LocalBackend, instance: Instance
) -> None:
    piped = manifest("piped", "default")
    instance.written = lambda name: (piped, "<stdin>") if name == "default/piped" else None
    assert (await backend.manifest("default", "piped")).manifest == piped
    with pytest.raises(ConflictError, match="standard input"):
        await backend.create(piped)
    with pytest.raises(RefusedError, match="standard input"):
        await backend.suspend("default", "piped", suspend=True)
    with pytest.raises(NotFoundError):
        await backend.manifest("default", "nobody")


async def test_traders_are_changed_also_while_the_instance_is_away(backend: LocalBackend, instance: Instance) -> None:
    await instance.stop()
    assert (await backend.suspend("default", "one", suspend=True)).manifest["spec"]["suspend"] is True
    await backend.create(manifest("new"))
    await backend.delete("desk", "new")
    with pytest.raises(NotFoundError):
        await backend.replace(manifest("new"), "")


async def test_changes_at_the_same_time_are_made_one_after_the_other(backend: LocalBackend) -> None:
    await asyncio.gather(*(backend.suspend("default", name, suspend=True) for name in ("one", "two")))
    for name in ("one", "two"):
        assert (await backend.manifest("default", name)).manifest["spec"]["suspend"] is True


async def test_a_trader_is_deleted_when_the_instance_has_taken_in_the_one_before(
    backend: LocalBackend, instance: Instance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "_TAKEN_IN_S", DEADLINE_S)
    file = tmp_path / "m" / "two.yaml"

    def text() -> str:
        return file.read_text() if file.exists() else ""

    instance.view = view(traders=[TraderRow("default/one", "Active"), TraderRow("default/two", "Active")])
    deleting = asyncio.gather(*(backend.delete("default", name) for name in ("one", "two")))
    await until(lambda: "name: one" not in text(), "the first is out of the file")
    asked = instance.asked
    await until(lambda: instance.asked > asked + 2, "the instance is looked at again and again")
    assert "name: two" in text()
    instance.view = view(traders=[])
    await deleting
    assert "name: two" not in text()


async def test_a_trader_that_the_instance_keeps_is_no_deleted_trader(
    backend: LocalBackend, instance: Instance, tmp_path: Path
) -> None:
    home = str(tmp_path / "m")
    folder = Folder((home,))
    folder.advance(FilesOnDisk({f"{home}/a.yaml": b"", f"{home}/b.yaml": b""}), 0.0)
    folder.advance(FilesOnDisk({}), 1.0)
    instance.view = view(notices=["mind the gap", *folder.notices])
    with pytest.raises(ConflictError, match=r"default/one is out of its file.*emptied at once"):
        await backend.delete("default", "one")
    instance.view = view(traders=[TraderRow("default/two", "Active")])
    await backend.delete("default", "two")  # slow, and nothing says that it is kept


def test_a_feed_is_alive_while_its_market_time_moves_on() -> None:
    market_time = MarketTime()
    row = FeedRow("default/market", "binance", connected=True, watermark_ms=1)

    def alive(now_s: float, *, answers: bool = True) -> bool:
        return feed_of(row, market_time, now_s, answers=answers).alive

    assert not alive(0.0), "it has not told a time yet"
    market_time.note([row], 0.0)
    assert alive(1.0)
    market_time.note([row], 14.0)
    assert not alive(20.0)
    row.watermark_ms = 2
    market_time.note([row], 20.0)
    assert alive(21.0)
    assert not alive(21.0, answers=False)
    row.connected = False
    assert not alive(21.0)
    row.finished = True
    assert alive(90.0), "a replay that ended in order is no fault"
    market_time.note([], 91.0)
    assert feed_of(row, market_time, 91.0, answers=True).watermark_age_ms is None


def test_a_feed_tells_what_it_lost_and_when_each_kind_was_last_seen_to_grow() -> None:
    losses = Losses()
    row = FeedRow("default/market", "binance", reconnects=1)

    def seen(now_s: float) -> dict[str, int]:
        losses.note([row], now_s)
        return losses.ages_ms(row.feed, now_s)

    assert seen(0.0) == {}
    row.missing_ids, row.dropped = 3, 3
    assert seen(10.0) == {"dropped": 0}, "trades that are missing at one look alone came a little late"
    row.dropped, row.dead_letters = 0, 3
    assert seen(20.0) == {"missing_ids": 0, "dropped": 10_000, "dead_letters": 0}
    row.missing_ids = 1
    assert seen(30.0) == {"missing_ids": 10_000, "dropped": 20_000, "dead_letters": 10_000}, "nothing was lost"
    told = feed_of(row, MarketTime(), 30.0, answers=True, lost_ages_ms=losses.ages_ms(row.feed, 30.0))
    assert (told.missing_ids, told.dropped, told.dead_letters, told.reconnects) == (1, 0, 3, 1)
    assert told.lost_ages_ms["dropped"] == 20_000
    losses.note([], 40.0)
    assert losses.ages_ms(row.feed, 40.0) == {}
    assert seen(50.0) == {"dead_letters": 0}, "what is found at the first look may be of now"


def test_the_age_of_a_row_is_that_of_what_its_worker_told() -> None:
    assert trader_of(TraderRow("a/b", "Active", told_ms=1_000), 5_000, 1).age_ms == 4_000
    assert trader_of(TraderRow("a/b", "Active", told_ms=9_000), 5_000, 1).age_ms == 0, "a clock that was set back"
    assert trader_of(TraderRow("a/b", "Stalled"), 5_000, 70).age_ms == 70
    assert trader_of(TraderRow("a/b", "Suspended", ready=True, suspended=True), 0, 0).ready is False


@pytest.mark.parametrize(
    ("name", "kind"),
    [("ingest-market", "ingest"), ("feed-ns.demo-0", "feed"), ("kafka", "kafka"), ("console", "console"), ("up", "up")],
)
def test_processes_have_a_kind(name: str, kind: str) -> None:
    assert kind_of(name) == kind


def test_growth_is_told_once_enough_is_known_and_begins_anew_with_the_process() -> None:
    history = MemoryHistory()

    def growth(at_ms: int, size: int, instance: int = 1) -> float | None:
        history.note([Measured("feed", "feed", instance, size)], at_ms)
        return history.told([]).processes[0].growth_bytes_per_h

    for at_ms in range(0, SETTLING_MS + LEAST_MS, 1_000):
        # The first minute's steep growth isn't its growth.
        assert growth(at_ms, 1_000_000 if at_ms < SETTLING_MS else 50_000_000 + at_ms) is None
    told = growth(SETTLING_MS + LEAST_MS, 50_000_000 + SETTLING_MS + LEAST_MS)
    assert told == pytest.approx(3_600_000, rel=1e-6), "a byte a ms"
    assert growth(SETTLING_MS + LEAST_MS + 1_000, 5, instance=2) is None
    assert growth(0, 5, instance=2) is None, "a clock that was set back"


def test_ten_minutes_of_memory_are_kept_and_no_more() -> None:
    history = MemoryHistory()
    for at_ms in range(0, 2 * WINDOW_MS + 1, 1_000):
        history.note([Measured("a", "feed", 1, 1), Measured("b", "feed", 2, at_ms)], at_ms)
    told = history.told([])
    assert told.history[-1] == (2 * WINDOW_MS, 2 * WINDOW_MS + 1)
    assert told.history[0][0] == WINDOW_MS
    assert len(told.history) <= 122
    assert [one.name for one in told.processes] == ["b", "a"]
    history.note([], 2 * WINDOW_MS + 1_000)
    assert history.told([]).processes == []
    assert history.told([]).total_rss_bytes == 0


@pytest.mark.parametrize(
    ("shares", "total", "measure"),
    [((None, None), 130, "RSS"), ((40, 10), 50, "PSS"), ((40, None), 70, "mixed"), ((), 0, "RSS")],
)
def test_the_sum_counts_what_is_shared_once_where_that_is_known(
    shares: tuple[int | None, ...], total: int, measure: str
) -> None:
    history = MemoryHistory()
    history.note([Measured(f"p{at}", "feed", 1, rss, pss) for at, (rss, pss) in enumerate(zip((100, 30), shares, strict=False))], 5_000)  # fmt: skip
    told = history.told([])
    assert (told.total_bytes, told.measure, told.total_rss_bytes) == (total, measure, 130 if shares else 0)
    assert told.history == [(5_000, total)]
    assert not any(one.bounded for one in told.processes)
    assert [one.pss_bytes for one in told.processes] == sorted(shares, key=lambda size: -(size or 30))


@pytest.mark.parametrize(("kind", "bounded"), [("kafka", True), ("console", True), ("feed", False), ("trader", False)])
def test_what_fills_a_store_of_fixed_size_is_told_as_bounded(kind: str, bounded: bool) -> None:
    history = MemoryHistory()
    history.note([Measured("x", kind, 1, 1)], 5_000)
    assert history.told([]).processes[0].bounded is bounded


def test_new_processes_are_looked_at_at_once_and_known_ones_in_turn() -> None:
    read: list[int] = []

    def size_of(pid: int) -> int:
        read.append(pid)
        return 0 if pid == 3 else pid * 100

    shares = LocalShares(size_of)
    assert shares.look(range(1, 11)) == {pid: pid * 100 for pid in range(1, 11) if pid != 3}
    for _ in range(5):
        read.clear()
        assert len(shares.look(range(1, 11))) == 9
        assert len(read) == 2
    read.clear()
    assert shares.look([5, 20]) == {5: 500, 20: 2_000}
    assert sorted(read) == [5, 20]
    assert shares.look([]) == {}


def test_ids_that_nobody_told_of_again_are_not_taken_for_missing_still() -> None:
    losses = FeedLosses()
    for now_s, ingest in ((0.0, (3, 0)), (3.0, None), (6.0, (0, 0)), (9.0, (2, 0)), (12.0, None)):
        losses.note(now_s, ingest=ingest, dead_letters=None)
        assert losses.ages_ms(now_s) == {}
    losses.note(15.0, ingest=(2, 1), dead_letters=1)
    assert losses.ages_ms(15.0) == {"missing_ids": 0, "dropped": 0, "dead_letters": 0}
