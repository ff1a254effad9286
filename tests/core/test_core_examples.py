"""The examples are sound manifests and ask for what their comments say."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from chandlery.core.manifests import ManifestSet, check_against_catalogue, read_manifests
from chandlery.operator.planner import Current, desired_of, plan

EXAMPLES = Path(__file__).parents[2] / "examples"
#: Those with manifests; others hold programs.
FOLDERS = sorted(folder.name for folder in EXAMPLES.iterdir() if list(folder.rglob("*.yaml")))


@pytest.fixture(scope="module")
def catalogue() -> list[dict[str, Any]]:
    output = subprocess.run(
        [sys.executable, "-m", "chandlery.workers.catalogue"], capture_output=True, check=True, timeout=60
    )
    entries: list[dict[str, Any]] = json.loads(output.stdout)
    return entries


def read(folder: str) -> ManifestSet:
    manifests = read_manifests(EXAMPLES / folder)
    assert [str(problem) for problem in manifests.problems] == []
    return manifests


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_example_is_sound_and_every_trader_gets_a_worker(folder: str, catalogue: list[dict[str, Any]]) -> None:
    manifests = read(folder)
    problems = check_against_catalogue(manifests, catalogue)
    assert [str(problem) for problem in problems] == []
    result = plan(desired_of(manifests, problems), Current(), now_ms=0)
    assert {name: verdict.reason for name, verdict in result.verdicts.items() if not verdict.runs_as_asked} == {}
    assert result.verdicts


def test_the_quickstart_shows_all_shipped_strategies_on_ten_symbols(catalogue: list[dict[str, Any]]) -> None:
    manifests = read("quickstart")
    assert {one.spec.strategy.name for one in manifests.traders.values()} == {entry["name"] for entry in catalogue}
    result = plan(desired_of(manifests), Current(), now_ms=0)
    assert len(result.feeds["default", "synthetic"].symbols) == 10


def test_twenty_traders_fit_in_one_worker() -> None:
    manifests = read("twenty-traders")
    assert len(manifests.traders) == 20
    result = plan(desired_of(manifests), Current(), now_ms=0)
    (pool,) = result.pools.values()
    assert [len(assignment.traders) for assignment in pool.workers.values()] == [20]


def test_the_replay_finds_its_captures_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    manifests = read("replay")
    (feed,) = manifests.feeds.values()
    assert feed.spec.source.replay is not None
    for file in feed.spec.source.replay.files:
        assert (manifests.folder_of(feed) / file.path).is_file()
