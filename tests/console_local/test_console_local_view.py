"""What the instance's view says for its console, made of a runtime that hasn't started."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.console_local.test_console_local_folder import TWO
from tests.runtime.unstarted import quiet, unstarted, wanted_of
from tests.runtime.up_process import platform

from chandlery.cli.runtime.catalogue import Catalogue
from chandlery.cli.runtime.console_process import ConsoleOptions
from chandlery.cli.runtime.desired import Wanted
from chandlery.cli.runtime.importer import read_catalogue
from chandlery.cli.runtime.local import LocalRuntime
from chandlery.cli.runtime.options import UpOptions
from chandlery.cli.runtime.recent import RecentSignals
from chandlery.cli.runtime.viewing import Viewer, segment_row
from chandlery.console.model import FeedRow, SegmentRow, decode_view, encode_view
from chandlery.core.assignment import TraderStatus, WorkerStatus
from chandlery.core.manifests import parse_manifests
from chandlery.core.topics import topics_of


@pytest.fixture
def runtime(tmp_path: Path) -> LocalRuntime:
    options = UpOptions(manifests=("-",), state=tmp_path / "s", console=ConsoleOptions(port=0))
    return LocalRuntime(options, Wanted(parse_manifests(TWO), [], []), Catalogue(), quiet)


def test_a_trader_is_told_with_its_manifest_and_where_it_came_from(runtime: LocalRuntime) -> None:
    viewer = Viewer(runtime, RecentSignals())
    written = viewer.written("default/two")
    assert written is not None
    manifest, file = written
    assert file == "<stdin>"
    assert (manifest["kind"], manifest["metadata"]["name"]) == ("Trader", "two")
    assert manifest["spec"]["strategy"]["name"] == "macd"
    for name in ("default/three", "two", "", "a/b/c"):
        assert viewer.written(name) is None


async def test_the_console_is_in_the_view_from_the_moment_its_port_is_known(runtime: LocalRuntime) -> None:
    assert runtime.console is not None
    viewer = Viewer(runtime, RecentSignals())
    runtime.console.choose()
    row = decode_view(encode_view(viewer.view())).console
    assert row is not None
    assert row.address.startswith("http://127.0.0.1:")
    assert "console" not in {one.name for one in viewer.view().processes}, "its process isn't there yet"
    runtime.console = None
    assert viewer.view().console is None


async def test_traders_of_a_suspended_pool_are_suspended_in_the_view_and_in_what_they_are_told(
    tmp_path: Path,
) -> None:
    runtime = unstarted(tmp_path, wanted_of(TWO + "---" + platform("{synthetic: {}}", pool_spec="suspend: true")))
    made = await runtime._next_plan()
    (assignment,) = made.pools["default", "demo"].workers.values()
    assert [one.mode for one in assignment.traders] == ["suspended", "suspended"]
    rows = Viewer(runtime, RecentSignals()).view().traders
    assert [(row.trader, row.suspended, row.reason) for row in rows] == [
        ("default/one", True, "Suspended"), ("default/two", True, "Suspended"),
    ]  # fmt: skip
    assert "spec.suspend of its TraderPool default/demo is true" in rows[0].message
    # One whose newest version may not run says that, and is no less suspended.
    kept = replace(made.verdicts["default/one"], reason="BadParameter", keeps=True)
    runtime.plan = replace(made, verdicts={**made.verdicts, "default/one": kept})
    (row, _) = Viewer(runtime, RecentSignals()).view().traders
    assert (row.suspended, row.reason) == (True, "BadParameter")


async def test_a_check_tells_what_contradicts_each_other_and_what_the_pool_has_no_candles_for(tmp_path: Path) -> None:
    """By the real process that imports strategies; for the API, before a manifest is written."""
    wanted = wanted_of(platform("{synthetic: {}}", pool_spec="segment: {candles: 200}") + "---\n" + TWO)
    viewer = Viewer(unstarted(tmp_path, wanted, await read_catalogue(None)), RecentSignals())
    manifest = dict(wanted.manifests.traders["default", "two"].manifest())

    async def told(**parameters: int) -> list[tuple[str, str]]:
        strategy = {"name": "sma-cross", "parameters": parameters}
        return await viewer.wrong({**manifest, "spec": {**manifest["spec"], "strategy": strategy}})

    assert await told(fast=9, slow=30) == []
    assert await told(fast=9, slow=5) == [
        ("spec.strategy.parameters", "sma-cross: fast (9) must be below slow (5)"),
    ]
    ((field, sentence),) = await told(slow=136)
    assert field == "spec.strategy.parameters"
    assert "needs 137 closed candles with these parameters" in sentence
    assert "to at least 201" in sentence


def worker(status: WorkerStatus | None) -> Any:
    return SimpleNamespace(label="demo-0", watch=SimpleNamespace(status=status))


def test_a_workers_shared_memory_is_what_its_status_says() -> None:
    feed = {
        "series": 11,
        "segment": {"size_bytes": 4096, "series_capacity": 512},
        "rings": {"default/one": {"depth": 2}, "default/one@2": {"depth": 1}},
    }
    traders = {"default/one": TraderStatus("Active", lapped=3)}
    successors = {"default/one": TraderStatus("Warm", lapped=4)}
    status = WorkerStatus("demo-0", 1, 1, "", 1, True, traders, [], feed, successors)
    assert segment_row(worker(status)) == SegmentRow("demo-0", 4096, 11, 512, rings=2, ring_depth=3, laps=7)
    assert segment_row(worker(None)) == SegmentRow("demo-0"), "it has told nothing yet"


def test_the_topics_of_a_feed_follow_from_its_row() -> None:
    row = FeedRow("desk/market", "synthetic", "host:1", topic="desk.market", prefix="x.", partitions=7)
    assert topics_of(row.kafka()).candles == "x.desk.market.candles"
    assert row.kafka().partitions == 7
