"""The local instance's order of things: what belongs together is started and ended one after the other."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from chandlery.cli.runtime import local
from chandlery.cli.runtime.desired import Wanted
from chandlery.cli.runtime.local import LocalRuntime
from chandlery.cli.runtime.options import UpOptions
from chandlery.core.manifests import ManifestSet
from chandlery.core.settings import KafkaSettings
from chandlery.core.topics import topics_of

KEY = ("default", "market")


class Turns:
    """Stands in for a feed's or a worker's processes: each step takes until the loop has gone round a while."""

    def __init__(self) -> None:
        self.steps: list[str] = []
        self.kafka = KafkaSettings(bootstrap="none:1", feed="market")
        self.topics = topics_of(self.kafka)
        self.continuous = False
        self.endpoint = self
        self.socket = Path("feed-demo-0.sock")
        self._symbols: set[str] = set()

    def grow(self, symbols: set[str], intervals: set[str]) -> tuple[bool, bool]:
        more = bool(symbols - self._symbols)
        self._symbols |= symbols
        return more, False

    def __getattr__(self, name: str) -> Any:
        async def step(**_: Any) -> None:
            self.steps.append(f"{name} begins")
            for _turn in range(20):
                await asyncio.sleep(0)
            self.steps.append(f"{name} ends")

        return step


@pytest.fixture
def runtime(tmp_path: Path) -> LocalRuntime:
    wanted = Wanted(ManifestSet({}, {}, {}), [], [])
    return LocalRuntime(UpOptions((), tmp_path / "state"), wanted, [], lambda *_: None)


async def test_a_feed_that_is_starting_grows_only_when_it_has_started(
    runtime: LocalRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nothing(*_: object) -> dict[int, int]:
        return {}

    feed: Any = Turns()
    monkeypatch.setattr(local, "ensure_topics", nothing)
    monkeypatch.setattr(local, "end_offsets", nothing)
    monkeypatch.setattr(runtime, "_new_feed", lambda _: feed)
    await asyncio.gather(runtime._run_feed(KEY, {"A/USDT"}, {"1s"}), runtime._run_feed(KEY, {"B/USDT"}, {"1s"}))
    assert feed.steps.index("start_ingest ends") < feed.steps.index("follow begins"), feed.steps


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
