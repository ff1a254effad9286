"""What shall run, by manifests that change; readiness; what a run before left."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import msgspec
import pytest
from tests.runtime.up_process import STRATEGIES, trader, write_manifests

from chandlery.cli.runtime.catalogue import Catalogue
from chandlery.cli.runtime.desired import Wanted, read_again, read_first, wanted_first
from chandlery.cli.runtime.importer import read_catalogue
from chandlery.cli.runtime.readiness import Readiness
from chandlery.cli.runtime.statedir import StateDir
from chandlery.cli.runtime.workergroup import left_workers
from chandlery.cli.starting import validate
from chandlery.core.assignment import Assignment, TraderAssignment, TraderStatus, WorkerStatus, content_hash, encode
from chandlery.core.configurations import Configuration, Configured, configurations_of
from chandlery.core.errors import InputError, ManifestError
from chandlery.core.manifests import parse_manifests, read_manifests
from chandlery.operator.planner import Verdict


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    """The real one."""
    import asyncio

    return asyncio.run(read_catalogue(None))


def first(roots: list[str], catalogue: Catalogue) -> Wanted:
    """As before anything starts."""
    return wanted_first(roots, read_manifests(roots), catalogue)


def test_the_catalogue_has_the_shipped_strategies(catalogue: Catalogue) -> None:
    assert {"sma-cross", "macd"} <= {entry["name"] for entry in catalogue.entries}


async def test_a_missing_strategies_folder_is_wrong_input(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere"):
        await read_catalogue(tmp_path / "nowhere")


def test_every_problem_is_told_before_anything_starts(tmp_path: Path, catalogue: Catalogue) -> None:
    manifests = write_manifests(
        tmp_path, one=trader("one", strategy="nothing"), two=trader("two", symbol="?"), three="kind: [", four=""
    )
    with pytest.raises(ManifestError) as refused:
        first([str(manifests)], catalogue)
    told = str(refused.value)
    assert all(words in told for words in ("Trader/default/one", "Trader/default/two", "three.yaml"))
    assert len(told.splitlines()) == 3


@pytest.mark.parametrize("where", ["missing", "empty"])
def test_nothing_to_run_is_wrong_input(tmp_path: Path, where: str) -> None:
    folder = tmp_path / where
    if where == "empty":
        folder.mkdir()
    with pytest.raises(ManifestError):
        first([str(folder)], Catalogue())


def test_a_file_kept_by_the_watcher_keeps_its_traders(tmp_path: Path, catalogue: Catalogue) -> None:
    manifests = write_manifests(tmp_path, one=trader("one"), two=trader("two"))
    before = first([str(manifests)], catalogue).manifests
    gone = tmp_path / "one.yaml"
    gone.unlink()
    kept = read_again([str(manifests)], {str(gone)}, before, catalogue)
    assert set(kept.manifests.traders) == {("default", "one"), ("default", "two")}
    assert kept.refused == [], "the watcher tells of it, not the problems"
    deleted = read_again([str(manifests)], set(), before, catalogue)
    assert set(deleted.manifests.traders) == {("default", "two")}


def test_a_missing_folder_keeps_everything(tmp_path: Path, catalogue: Catalogue) -> None:
    manifests = write_manifests(tmp_path / "m", one=trader("one"))
    before = first([str(manifests)], catalogue).manifests
    manifests.rename(tmp_path / "away")
    again = read_again([str(manifests)], set(), before, catalogue)
    assert set(again.manifests.traders) == {("default", "one")}
    assert again.refused == []


def test_a_half_written_file_keeps_its_trader_and_tells_which(tmp_path: Path, catalogue: Catalogue) -> None:
    manifests = write_manifests(tmp_path, one=trader("one"), two=trader("two"))
    before = first([str(manifests)], catalogue).manifests
    (tmp_path / "one.yaml").write_text(trader("one")[:120])
    again = read_again([str(manifests)], set(), before, catalogue)
    assert set(again.manifests.traders) == {("default", "one"), ("default", "two")}
    assert set(again.refused_traders()) == {("default", "one")}
    assert again.other_problems() == []


@pytest.mark.parametrize("left", ["", "\n \n", "# a pool\n", "---\n# to be\n---\n"])
def test_a_file_that_lost_every_document_is_half_written_and_keeps_what_it_declared(
    tmp_path: Path, catalogue: Catalogue, left: str
) -> None:
    manifests = write_manifests(tmp_path / "m", one=trader("one"))
    platform = tmp_path / "m" / "platform.yaml"
    text = platform.read_text()
    for roots in ([str(manifests)], [str(platform), str(tmp_path / "m" / "one.yaml")]):
        before = first(roots, catalogue).manifests
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
    tmp_path: Path, catalogue: Catalogue
) -> None:
    manifests = write_manifests(tmp_path, one=trader("one"), two=trader("two"))
    before = first([str(manifests)], catalogue).manifests
    (tmp_path / "one.yaml").write_text("# was here\n")
    again = read_again([str(manifests)], set(), before, catalogue)
    assert (set(again.manifests.traders), again.other_problems()) == ({("default", "two")}, [])
    (tmp_path / "one.yaml").write_text("")
    cut = read_again([str(manifests)], set(), before, catalogue)
    assert set(cut.manifests.traders) == {("default", "one"), ("default", "two")}, "cut off, and not written yet"


def test_documents_that_went_to_another_file_are_not_kept_in_the_one_that_they_left(
    tmp_path: Path, catalogue: Catalogue
) -> None:
    manifests = write_manifests(tmp_path, one=trader("one"))
    before = first([str(manifests)], catalogue).manifests
    platform = tmp_path / "platform.yaml"
    (tmp_path / "elsewhere.yaml").write_text(platform.read_text())
    platform.write_text("# see elsewhere.yaml\n")
    assert read_again([str(manifests)], set(), before, catalogue).other_problems() == []


def test_standard_input_is_read_once(tmp_path: Path, catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch) -> None:
    manifests = write_manifests(tmp_path)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(trader("piped").encode())))
    before = first([str(manifests), "-"], catalogue).manifests
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


def test_workers_of_the_run_before_are_known_by_their_assignments(tmp_path: Path, catalogue: Catalogue) -> None:
    manifests = first([str(write_manifests(tmp_path / "m", one=trader("one")))], catalogue).manifests
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


CONTRADICTING = "spec.strategy.parameters: sma-cross: fast (30) must be below slow (10)"
TOO_LONG = (
    "spec.strategy.parameters: sma-cross needs 801 closed candles with these parameters, and TraderPool default/demo keeps "
    "136 for a call; change them, or raise the pool's spec.segment.candles to at least 865"
)


def small_pool(folder: Path, **traders: str) -> Path:
    """A pool whose windows hold 136 candles."""
    manifests = write_manifests(folder, **traders)
    platform = manifests / "platform.yaml"
    text = platform.read_text().replace("{feed: {name: market}}", "{feed: {name: market}, segment: {candles: 200}}")
    assert "candles: 200" in text
    platform.write_text(text)
    return manifests


@pytest.mark.parametrize(
    ("bad", "says"), [(trader("bad", fast=30, slow=10), CONTRADICTING), (trader("bad", slow=800), TOO_LONG)]
)
async def test_parameters_that_no_trader_can_run_with_are_told_before_anything_starts(
    tmp_path: Path, bad: str, says: str
) -> None:
    manifests = small_pool(tmp_path, bad=bad, good=trader("good", fast=2, slow=135))
    with pytest.raises(ManifestError) as refused:
        await read_first([str(manifests)], None, print)
    (told,) = str(refused.value).splitlines()
    assert told == f"{tmp_path}/bad.yaml (document 1, line 7) Trader/default/bad: {says}"


async def test_a_strategy_that_hangs_or_ends_its_process_leaves_the_others_their_answers_and_refuses_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from chandlery.cli.runtime import importer as reading

    monkeypatch.setattr(reading, "_ANSWER_TIMEOUT_S", 1.5)
    strategies = tmp_path / "s"
    strategies.mkdir()
    (strategies / "each_candle.py").write_text(
        "import os\n"
        + STRATEGIES.replace(
            "    def on_candle",
            "    def validate(self):\n"
            "        while self.every == 9: pass\n"
            "        if self.every == 8: os._exit(0)\n\n"
            "    def on_candle",
            1,
        )
    )
    asked = {
        one.key: one
        for one in (
            Configuration("sma-cross", {"fast": 30, "slow": 10}),
            Configuration("none-such", {}),
            Configuration("each-candle", {"every": 99}),
            Configuration("each-candle", {"every": 9}),
            Configuration("each-candle", {"every": 8}),
            Configuration("each-candle", {"every": 7}),
            Configuration("sma-cross", {"slow": 40}),
        )
    }
    told = await read_catalogue(strategies, asked)
    assert [told.answers[key] for key in asked] == [
        Configured(problem="sma-cross: fast (30) must be below slow (10)"),
        None,
        None,
        None,
        None,
        Configured(1),
        Configured(41),
    ]
    assert [one.parameters["every"] for one in told.unchecked(asked).values()] == [99, 9, 8], "whose strategy there is"


async def test_what_there_was_no_time_for_has_no_answer_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from chandlery.cli.runtime import importer as reading

    monkeypatch.setattr(reading, "_ANSWERS_TIMEOUT_S", 1.5)
    hangs = "    def validate(self):\n        while self.every > 1: pass\n\n    def on_candle"
    (tmp_path / "each_candle.py").write_text(STRATEGIES.replace("    def on_candle", hangs, 1))
    asked = {one.key: one for one in (Configuration("each-candle", {"every": every}) for every in (1, 2, 3))}
    told = await read_catalogue(tmp_path, asked)
    assert list(told.answers.values()) == [Configured(1)]
    assert len(told.unchecked(asked)) == 2


@pytest.mark.parametrize("is_json", [False, True])
def test_validate_tells_whose_parameters_could_not_be_checked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], is_json: bool
) -> None:
    strategies = tmp_path / "s"
    strategies.mkdir()
    (strategies / "each_candle.py").write_text(STRATEGIES)
    manifests = small_pool(tmp_path, good=trader("good"), odd=trader("odd", strategy="each-candle", every=99))
    validate([str(manifests)], strategies, json=is_json)
    told = capsys.readouterr()
    (line,) = told.err.splitlines()
    assert line.startswith("chandlery: Trader default/odd: whether its parameters fit each other was not checked")
    if is_json:
        assert json.loads(told.out) == {"feeds": 1, "pools": 1, "traders": 2, "unchecked": ["default/odd"]}
    else:
        assert told.out == "1 feeds, 1 pools, 2 traders: no problem found, 1 not wholly checked\n"


def test_a_broken_file_named_as_a_shipped_strategy_refuses_no_trader_of_that_and_validate_tells_of_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    strategies = tmp_path / "s"
    strategies.mkdir()
    (strategies / "sma_cross.py").write_text("class Half(\n")
    manifests = small_pool(tmp_path, good=trader("good"))
    validate([str(manifests)], strategies)
    told = capsys.readouterr()
    assert told.out == "1 feeds, 1 pools, 1 traders: all is well\n"
    (line,) = told.err.splitlines()
    assert line.startswith(f"chandlery: {strategies}: not all of its strategies can be used: sma-cross: sma_cross.py: ")


async def test_what_a_strategy_writes_to_standard_output_is_no_answer_to_another_ones_parameters(
    tmp_path: Path,
) -> None:
    """As a C library or a program that it starts would: past Python's own output."""
    line = b'{"warmup": 1}\n{"index": 1, "configured": {"warmup": 1}}\n'
    writes = f"    def validate(self):\n        os.write(1, {line!r})\n        os.system('echo null')\n\n"
    text = f"import os\nos.write(1, {line!r})\nos.system('echo []')\n{STRATEGIES}"
    (tmp_path / "writes.py").write_text(text.replace("    def on_candle", writes + "    def on_candle", 1))
    asked = [Configuration("each-candle", {}), Configuration("sma-cross", {"fast": 30, "slow": 10})]
    told = await read_catalogue(tmp_path, {one.key: one for one in asked})
    assert {"each-candle", "sma-cross"} <= {entry["name"] for entry in told.entries}
    assert list(told.answers.values()) == [
        Configured(1),
        Configured(problem="sma-cross: fast (30) must be below slow (10)"),
    ]


@pytest.mark.parametrize("value", [float("nan"), 10**40, "\ud800"])
def test_a_value_that_no_parameter_may_have_is_asked_of_nobody(value: float | str) -> None:
    manifests = parse_manifests(trader("one"))
    one = manifests.traders["default", "one"]
    one.spec.strategy.parameters["fast"] = value
    assert configurations_of([one]) == {}
