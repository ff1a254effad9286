"""What shall run, by manifests that change; readiness; what a run before left."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.runtime.up_process import trader, write_manifests

from chandlery.cli.runtime.desired import read_again, read_catalogue, read_first
from chandlery.cli.runtime.readiness import Readiness
from chandlery.cli.runtime.statedir import StateDir
from chandlery.cli.runtime.workergroup import left_workers
from chandlery.core.assignment import Assignment, TraderAssignment, TraderStatus, WorkerStatus, content_hash, encode
from chandlery.core.errors import InputError, ManifestError
from chandlery.operator.planner import Verdict


@pytest.fixture(scope="module")
def catalogue() -> list[dict[str, Any]]:
    """The real one."""
    import asyncio

    return [dict(entry) for entry in asyncio.run(read_catalogue(None))]


def test_the_catalogue_has_the_shipped_strategies(catalogue: list[dict[str, Any]]) -> None:
    assert {"sma-cross", "macd"} <= {entry["name"] for entry in catalogue}


async def test_a_missing_strategies_folder_is_wrong_input(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere"):
        await read_catalogue(tmp_path / "nowhere")


def test_every_problem_is_told_before_anything_starts(tmp_path: Path, catalogue: list[dict[str, Any]]) -> None:
    manifests = write_manifests(
        tmp_path, one=trader("one", strategy="nothing"), two=trader("two", symbol="?"), three="kind: [", four=""
    )
    with pytest.raises(ManifestError) as refused:
        read_first([str(manifests)], catalogue)
    told = str(refused.value)
    assert all(words in told for words in ("Trader/default/one", "Trader/default/two", "three.yaml"))
    assert len(told.splitlines()) == 3


@pytest.mark.parametrize("where", ["missing", "empty"])
def test_nothing_to_run_is_wrong_input(tmp_path: Path, where: str) -> None:
    folder = tmp_path / where
    if where == "empty":
        folder.mkdir()
    with pytest.raises(ManifestError):
        read_first([str(folder)], [])


def test_a_file_kept_by_the_watcher_keeps_its_traders(tmp_path: Path, catalogue: list[dict[str, Any]]) -> None:
    manifests = write_manifests(tmp_path, one=trader("one"), two=trader("two"))
    before = read_first([str(manifests)], catalogue).manifests
    gone = tmp_path / "one.yaml"
    gone.unlink()
    kept = read_again([str(manifests)], {str(gone)}, before, catalogue)
    assert set(kept.manifests.traders) == {("default", "one"), ("default", "two")}
    assert kept.refused == [], "the watcher tells of it, not the problems"
    deleted = read_again([str(manifests)], set(), before, catalogue)
    assert set(deleted.manifests.traders) == {("default", "two")}


def test_a_missing_folder_keeps_everything(tmp_path: Path, catalogue: list[dict[str, Any]]) -> None:
    manifests = write_manifests(tmp_path / "m", one=trader("one"))
    before = read_first([str(manifests)], catalogue).manifests
    manifests.rename(tmp_path / "away")
    again = read_again([str(manifests)], set(), before, catalogue)
    assert set(again.manifests.traders) == {("default", "one")}
    assert again.refused == []


def test_a_half_written_file_keeps_its_trader_and_tells_which(tmp_path: Path, catalogue: list[dict[str, Any]]) -> None:
    manifests = write_manifests(tmp_path, one=trader("one"), two=trader("two"))
    before = read_first([str(manifests)], catalogue).manifests
    (tmp_path / "one.yaml").write_text(trader("one")[:120])
    again = read_again([str(manifests)], set(), before, catalogue)
    assert set(again.manifests.traders) == {("default", "one"), ("default", "two")}
    assert set(again.refused_traders()) == {("default", "one")}
    assert again.other_problems() == []


@pytest.mark.parametrize("left", ["", "\n \n", "# a pool\n", "---\n# to be\n---\n"])
def test_a_file_that_lost_every_document_is_half_written_and_keeps_what_it_declared(
    tmp_path: Path, catalogue: list[dict[str, Any]], left: str
) -> None:
    manifests = write_manifests(tmp_path / "m", one=trader("one"))
    platform = tmp_path / "m" / "platform.yaml"
    text = platform.read_text()
    for roots in ([str(manifests)], [str(platform), str(tmp_path / "m" / "one.yaml")]):
        before = read_first(roots, catalogue).manifests
        platform.write_text(left)
        again = read_again(roots, set(), before, catalogue)
        for _ in range(2):
            assert (again.manifests.pools, again.manifests.feeds) == (before.pools, before.feeds)
            assert again.found == [], "its Trader has its pool"
            (told,) = map(str, again.other_problems())
            assert told.startswith(
                f"{platform}: has no document any more: what it declared (MarketFeed/default/market, TraderPool/"
            )
            assert told.endswith("keeps running until it has one (delete it to end that)")
            again = read_again(roots, set(), again.manifests, catalogue)
        platform.unlink()
        if roots == [str(manifests)]:
            assert read_again(roots, set(), again.manifests, catalogue).manifests.pools == {}, "deleting is deleting"
        platform.write_text(text)
        assert read_again(roots, set(), again.manifests, catalogue).other_problems() == []


def test_one_traders_file_of_which_comments_are_left_is_that_trader_taken_out(
    tmp_path: Path, catalogue: list[dict[str, Any]]
) -> None:
    manifests = write_manifests(tmp_path, one=trader("one"), two=trader("two"))
    before = read_first([str(manifests)], catalogue).manifests
    (tmp_path / "one.yaml").write_text("# was here\n")
    again = read_again([str(manifests)], set(), before, catalogue)
    assert (set(again.manifests.traders), again.other_problems()) == ({("default", "two")}, [])
    (tmp_path / "one.yaml").write_text("")
    cut = read_again([str(manifests)], set(), before, catalogue)
    assert set(cut.manifests.traders) == {("default", "one"), ("default", "two")}, "cut off, and not written yet"


def test_documents_that_went_to_another_file_are_not_kept_in_the_one_that_they_left(
    tmp_path: Path, catalogue: list[dict[str, Any]]
) -> None:
    manifests = write_manifests(tmp_path, one=trader("one"))
    before = read_first([str(manifests)], catalogue).manifests
    platform = tmp_path / "platform.yaml"
    (tmp_path / "elsewhere.yaml").write_text(platform.read_text())
    platform.write_text("# see elsewhere.yaml\n")
    assert read_again([str(manifests)], set(), before, catalogue).other_problems() == []


def test_standard_input_is_read_once(
    tmp_path: Path, catalogue: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    manifests = write_manifests(tmp_path)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(trader("piped").encode())))
    before = read_first([str(manifests), "-"], catalogue).manifests
    again = read_again([str(manifests), "-"], set(), before, catalogue)
    assert set(again.manifests.traders) == {("default", "piped")}


def status(state: str, generation: int, incarnation: int) -> WorkerStatus:
    row = TraderStatus(state, generation=generation, incarnation=incarnation)  # type: ignore[arg-type]
    return WorkerStatus("w", 1, 1, "h", 1, True, {"default/a": row}, [], {})


def test_ready_is_what_the_traders_own_process_says_for_this_generation() -> None:
    readiness = Readiness()
    wanted = {"default/a": Verdict("default/a", "w", ("default", "p"), generation=2, incarnation=3)}
    for state, generation, incarnation in (("Init", 2, 3), ("Ready", 1, 3), ("Active", 2, 2)):
        readiness.note(wanted, [None, status(state, generation, incarnation)])
        assert not readiness.was_ready("default/a")
    readiness.note(wanted, [status("Ready", 2, 3)])
    readiness.note(wanted, [status("Backoff", 2, 3)])
    assert readiness.was_ready("default/a"), "it has been, though it crashed since"
    readiness.note({"default/a": msgspec_replace(wanted["default/a"], generation=3)}, [])
    assert not readiness.was_ready("default/a"), "not in the version wanted now"


def msgspec_replace(verdict: Verdict, *, generation: int) -> Verdict:
    return Verdict(verdict.trader, verdict.worker, verdict.pool, generation=generation, incarnation=3)


def test_workers_of_the_run_before_are_known_by_their_assignments(
    tmp_path: Path, catalogue: list[dict[str, Any]]
) -> None:
    manifests = read_first([str(write_manifests(tmp_path / "m", one=trader("one")))], catalogue).manifests
    state = StateDir(tmp_path / "state")
    state.acquire()
    assert left_workers(state, manifests) == {}
    traders = [TraderAssignment("default/one", "u", "sma-cross", ["BTC/USDT"], "1s", incarnation=4)]
    state.assignment("demo-0").write_bytes(encode(Assignment("demo-0", 9, content_hash(traders), traders)))
    found = left_workers(state, manifests)
    assert found["default", "demo"]["demo-0"].assignment.traders == traders
    state.assignment("demo-0").write_bytes(msgspec.json.encode({"half": 1}))
    assert left_workers(state, manifests) == {}
    state.release()
