"""The folder of strategies while an instance runs, apart from the instance."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.runtime.up_process import STRATEGIES, kill_hard, teller, trader, until, write_manifests
from tests.strategies.deadly import DEADLY, HANG_S
from tests.strategies.installed import install

from chandlery.cli.runtime import strategies
from chandlery.cli.runtime.catalogue import Catalogue
from chandlery.cli.runtime.desired import Wanted, check_again
from chandlery.cli.runtime.importer import look, read_catalogue
from chandlery.cli.runtime.local import LocalRuntime
from chandlery.cli.runtime.options import UpOptions
from chandlery.cli.runtime.procfs import pids_with_variable
from chandlery.cli.runtime.strategies import Strategies
from chandlery.core.configurations import Configuration, Configured, configurations_of
from chandlery.core.errors import InputError, MachineError
from chandlery.core.manifests import parse_manifests
from chandlery.core.resources import Trader
from chandlery.workers import catalogue_process
from chandlery.workers.discovery import folder_files
from chandlery.workers.supervisor.catalogue_reader import FIRST_RETRY_S

KNOWN = Catalogue([{"name": "known"}])
NEWER = Catalogue([{"name": "known"}, {"name": "newer", "errors": ["line 3"]}])


class Reading:
    """Stands in for the process that reads: what it answers by turns, and how often it was asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *answers: Catalogue | Exception) -> None:
        self.asked = 0
        self.without: list[Mapping[str, str] | None] = []
        self._answers: Iterator[Catalogue | Exception] = iter(answers)
        monkeypatch.setattr(strategies, "Importer", lambda *_: self)
        monkeypatch.setattr(strategies, "LOOK_S", 0.0)

    async def keep(self, _: object) -> None:
        """Nothing is imported."""

    async def answers(self, asked: Mapping[str, Configuration], without: Mapping[str, str]) -> Catalogue:
        return await self.catalogue(asked, without)

    async def catalogue(self, _: object, without: Mapping[str, str] | None = None) -> Catalogue:
        self.asked += 1
        self.without.append(without)
        answer = next(self._answers)
        if isinstance(answer, Exception):
            raise answer
        return answer


async def looks(count: int = 5) -> None:
    """Let who follows look a few times."""
    for _ in range(4 * count):
        await asyncio.sleep(0)


async def test_strategies_are_read_anew_when_their_folder_changes_and_only_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading = Reading(monkeypatch, NEWER, NEWER)
    told: list[Catalogue] = []
    seen = look(tmp_path)
    (tmp_path / "newer.py").write_text("written while the first reading was under way")
    followed = Strategies(tmp_path, KNOWN, seen)
    following = asyncio.create_task(followed.follow(lambda: told.append(followed.catalogue)))
    await looks()
    assert (told, reading.asked) == ([NEWER], 1)
    (tmp_path / "newer.py").write_text("another comment, the same strategies")
    await looks()
    assert (told, reading.asked) == ([NEWER], 2), "nothing to plan anew for"
    following.cancel()


async def test_strategies_that_can_not_be_read_leave_those_known_and_are_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading = Reading(monkeypatch, MachineError("it hangs"), MachineError("it hangs"), NEWER)
    now_s, changes = 0.0, 0

    def changed() -> None:
        nonlocal changes
        changes += 1

    followed = Strategies(tmp_path, KNOWN, look(tmp_path))
    following = asyncio.create_task(followed.follow(changed, lambda: now_s))
    (tmp_path / "hangs.py").write_text("while True: pass")
    await looks()
    for pause_s, asked in ((FIRST_RETRY_S - 0.1, 1), (0.1, 2), (2 * FIRST_RETRY_S - 0.1, 2)):
        now_s += pause_s
        await looks()
        assert (reading.asked, changes, followed.catalogue) == (asked, 0, KNOWN), now_s
        assert followed.notices == [f"{tmp_path}: its strategies can't be read, those known before count: it hangs"]
    now_s += 0.1
    await looks()
    assert (reading.asked, changes, followed.catalogue, followed.notices) == (3, 1, NEWER, [])
    following.cancel()


async def test_what_of_the_folder_can_not_be_used_is_a_notice_until_it_is_mended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*names: str) -> Catalogue:
        entries = [{"name": name, "source": "folder", "errors": [f"{name}.py: line 3"]} for name in names]
        return Catalogue([*KNOWN.entries, *entries])

    Reading(monkeypatch, broken("known", "b"), broken(*"abcdefg"), MachineError("it hangs"), KNOWN)
    followed = Strategies(tmp_path, broken("known"), look(tmp_path))
    unusable = f"{tmp_path}: not all of its strategies can be used: "
    assert followed.notices == [f"{unusable}known: known.py: line 3"]
    assert Strategies(tmp_path, KNOWN, None).notices == []
    elsewhere = Catalogue([{"name": "installed", "source": "entry-point", "errors": ["can't load"]}])
    assert Strategies(tmp_path, elsewhere, None).notices == [], "who wrote the folder can't mend that"
    costly = replace(elsewhere, left_out={"installed": "took more than 30 s"})
    assert Strategies(None, costly, None).notices == [
        "this installation: not all of its strategies can be used: installed: can't load"
    ], "each reading takes so much longer"
    assert await followed._read(tmp_path, lambda: None)
    assert followed.notices == [f"{unusable}known: known.py: line 3; b: b.py: line 3"]
    assert await followed._read(tmp_path, lambda: None)
    (notice,) = followed.notices
    assert notice.endswith("; e: e.py: line 3; and 2 more")
    assert not await followed._read(tmp_path, lambda: None)
    assert followed.notices[1:] == [notice], "those known before count"
    assert await followed._read(tmp_path, lambda: None)
    assert followed.notices == []


async def test_a_folder_of_strategies_that_is_gone_leaves_those_known_and_is_said(tmp_path: Path) -> None:
    """By the real reading: it ends with exit code 2 where there is no folder."""
    folder = tmp_path / "nowhere"
    followed = Strategies(folder, KNOWN, (("known.py", 1, 1),))
    assert not await followed._read(folder, lambda: None)
    assert "nowhere: no such folder" in followed.notices[0]
    assert followed.catalogue == KNOWN


async def test_of_what_a_process_that_fails_writes_to_standard_error_the_end_alone_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    most_bytes = 0

    def why_failed(stopped: Any, last_words: bytes) -> InputError | MachineError:
        nonlocal most_bytes
        most_bytes = len(last_words)
        return told_of(stopped, last_words)

    told_of = catalogue_process._why_failed
    monkeypatch.setattr(catalogue_process, "_why_failed", why_failed)
    # Before anything is imported, so that no strategy is to blame.
    (tmp_path / "sitecustomize.py").write_text(
        "import os\nos.write(2, b'noise ' * 500_000 + b'\\nthe end\\n')\nos._exit(3)\n"
    )
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    with pytest.raises(MachineError, match=r"ended with exit code 3: the end$"):
        await read_catalogue(tmp_path)
    assert most_bytes == 8 * 1024


async def test_what_ends_its_process_or_hangs_at_import_is_listed_as_broken_and_all_others_get_their_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = {f"installed-{name}": text for name, (text, _) in DEADLY.items() if name != "waits"}
    monkeypatch.setenv("PYTHONPATH", install(tmp_path, **installed))
    monkeypatch.setattr(catalogue_process, "TIMEOUT_S", HANG_S)
    folder = tmp_path / "s"
    folder.mkdir()
    for name, (text, _) in DEADLY.items():
        (folder / f"{name}.py").write_text(text)
    (folder / "each_candle.py").write_text(STRATEGIES)
    asked = [Configuration(name, {}) for name in ("quits", "each-candle", "sma-cross", "installed-quits")]
    told = await read_catalogue(folder, {one.key: one for one in asked})
    errors = {entry["name"]: entry["errors"][0] for entry in told.entries if entry.get("errors")}
    assert errors == {
        **{f"{name}": f"{name}.py: the process that imported it {says}; mend or remove it" for name, (_, says) in DEADLY.items()},
        **{name: f"{name}: the process that imported it {DEADLY[name.removeprefix('installed-')][1]}; mend or uninstall it" for name in installed},
    }  # fmt: skip
    assert list(told.answers.values()) == [None, Configured(1), Configured(31), None]
    assert {*told.left_out} == {*(f"{name}.py" for name in DEADLY), *installed}
    monkeypatch.setattr(catalogue_process, "TIMEOUT_S", 3 * HANG_S)
    began_s = time.monotonic()
    again = await read_catalogue(folder, {one.key: one for one in asked[1:3]}, told.left_out)
    assert time.monotonic() - began_s < 3 * HANG_S, "what never returned isn't waited for again"
    assert (again.entries, list(again.answers.values())) == (told.entries, [Configured(1), Configured(31)])


@pytest.mark.parametrize("is_installed", [False, True], ids=["folder", "installed"])
def test_a_strategy_that_ends_its_process_at_import_refuses_before_a_start_the_trader_that_names_it_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_installed: bool
) -> None:
    folder = tmp_path / "s"
    folder.mkdir()
    (folder / "each_candle.py").write_text(STRATEGIES)
    text = DEADLY["quits"][0]
    if is_installed:
        monkeypatch.setenv("PYTHONPATH", install(tmp_path, deadly=text))
    else:
        (folder / "some.py").write_text(text + STRATEGIES.replace("each-candle", "deadly"))
    good = {"good": trader("good"), "own": teller("own")}
    manifests = write_manifests(tmp_path / "m", **good, bad=trader("bad", strategy="deadly"))
    command = [sys.executable, "-m", "chandlery.cli", "up", "-f", str(manifests), "--strategies", str(folder)]
    command += ["--state", str(tmp_path / "state")]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == InputError.exit_code
    what, way_out = ("deadly", "mend or uninstall it") if is_installed else ("some.py", "mend or remove it")
    line = run.stderr.splitlines()[-1]
    assert line.endswith(
        f"Trader/default/bad: spec.strategy.name: deadly can't be used: {what}: the process that imported it ended with "
        f"exit code 3; {way_out}"
    ), line
    assert not (tmp_path / "state").exists()
    (manifests / "bad.yaml").unlink()
    command[3:4] = ["validate"]
    run = subprocess.run(command[:-2], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout) == (0, "1 feeds, 1 pools, 2 traders: all is well\n"), run.stderr
    told = f"chandlery: {folder}: not all of its strategies can be used: deadly: some.py: the process that imported it"
    assert run.stderr.startswith(told) != is_installed, run.stderr


async def test_a_strategy_that_was_left_out_is_tried_again_though_no_file_changes_and_not_for_each_question(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One of the image, on a busy machine: there is no folder that could change."""
    entries = [*KNOWN.entries, {"name": "slow", "errors": ["slow: took more than 30 s"]}]
    without = Catalogue(entries, left_out={"slow": "took more than 30 s"})
    whole = Catalogue([*KNOWN.entries, {"name": "slow"}])
    reading = Reading(monkeypatch, without, without, whole)
    now_s, changes = 0.0, 0

    def changed() -> None:
        nonlocal changes
        changes += 1

    followed = Strategies(None, without, look(None))
    await followed.configure([own(a=1)])
    assert reading.without == [without.left_out]
    following = asyncio.create_task(followed.follow(changed, lambda: now_s))
    await looks()
    for pause_s, asked in ((FIRST_RETRY_S - 0.1, 1), (0.1, 2), (2 * FIRST_RETRY_S - 0.1, 2)):
        now_s += pause_s
        await looks()
        assert (reading.asked, changes) == (asked, 0), now_s
    now_s += 0.1
    async with asyncio.timeout(30):
        await following
    assert (reading.without[1:], changes, followed.catalogue) == ([None, None], 1, whole)


async def test_manifests_that_were_being_read_when_strategies_changed_are_held_against_the_new_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from chandlery.cli.runtime import local

    manifests = parse_manifests(trader("one", strategy="newer").replace('{"fast": 2, "slow": 5}', "{}"))
    known = Catalogue([{"name": "newer", "parameters": {}}])
    runtime = LocalRuntime(UpOptions((), tmp_path), Wanted(manifests, [], []), Catalogue(), lambda *_: None)

    def read_meanwhile(_: object, __: object, ___: object, catalogue: Catalogue) -> Wanted:
        runtime.strategies.catalogue = known
        return check_again(Wanted(manifests, [], []), catalogue)

    monkeypatch.setattr(local, "read_again", read_meanwhile)
    await runtime._read_manifests()
    assert [problem.reason for problem in runtime.wanted.found if problem.reason == "UnknownStrategy"] == []


@pytest.mark.parametrize("first", ["", "signal.signal(signal.SIGTERM, signal.SIG_IGN)"])
def test_a_strategy_file_that_never_returns_does_not_outlive_a_command_that_was_killed(
    tmp_path: Path, first: str
) -> None:
    (tmp_path / "hangs.py").write_text(
        f"import os, signal, time\n{first}\nos.close(os.open({str(tmp_path / 'begun')!r}, os.O_CREAT))\ntime.sleep(600)\n"
        + STRATEGIES
    )
    mark = f"strategies-{os.getpid()}"
    command = [sys.executable, "-m", "chandlery.cli", "validate", "-f", str(tmp_path), "--strategies", str(tmp_path)]
    with subprocess.Popen(
        command, env={**os.environ, "CHANDLERY_TEST_MARK": mark}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        until(lambda: (tmp_path / "begun").exists(), "the file is being imported")
        kill_hard(process.pid)
        process.wait()
    until(lambda: not pids_with_variable("CHANDLERY_TEST_MARK", mark), "the reading process has ended")


def test_who_checks_is_told_that_a_file_is_waited_for_while_it_is(tmp_path: Path) -> None:
    (tmp_path / "waits.py").write_text(DEADLY["waits"][0])
    manifests, errors = write_manifests(tmp_path / "m", good=trader("good")), tmp_path / "errors"
    command = [sys.executable, "-m", "chandlery.cli", "validate", "-f", str(manifests), "--strategies", str(tmp_path)]
    with errors.open("wb") as output, subprocess.Popen(command, stderr=output) as process:
        told = "chandlery: importing the strategies; one that takes more than 30 s is left out\n"
        until(lambda: errors.read_text() == told, errors.read_text)
        process.send_signal(signal.SIGINT)
        assert process.wait(15) == 130


def test_a_start_that_waits_for_a_file_that_never_returns_says_so_and_is_ended_at_once(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    folder.mkdir()
    (folder / "waits.py").write_text(DEADLY["waits"][0])
    manifests, errors = write_manifests(tmp_path / "m", good=trader("good")), tmp_path / "errors"
    command = [sys.executable, "-m", "chandlery.cli", "up", "-f", str(manifests), "--strategies", str(folder)]
    mark = f"waits-{os.getpid()}"
    with (
        errors.open("wb") as output,
        subprocess.Popen(
            [*command, "--state", str(tmp_path / "state")],
            env={**os.environ, "CHANDLERY_TEST_MARK": mark},
            stderr=output,
        ) as process,
    ):
        told = "importing the strategies; one that takes more than 30 s is left out\n"
        until(lambda: errors.read_text() == told, errors.read_text)
        began_s = time.monotonic()
        process.terminate()
        assert process.wait(30) == 130
        assert time.monotonic() - began_s < 15, "not at the end of the file's half minute"
    until(lambda: not pids_with_variable("CHANDLERY_TEST_MARK", mark), "the reading process has ended")
    assert not (tmp_path / "state").exists()


def test_a_link_to_nothing_blinds_nobody_to_other_files(tmp_path: Path) -> None:
    """As an editor leaves one beside a file with unsaved changes."""
    (tmp_path / ".#a.py").symlink_to("somebody@somewhere.1")
    (tmp_path / "a.py").write_text("")
    assert [name for name, _, _ in look(tmp_path)] == ["a.py"]
    assert [path.name for path in folder_files(str(tmp_path))] == ["a.py"]


class Answering:
    """Stands in for the process that configures: what each strategy's answer is by its code of now, and what was asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[list[str]] = []
        self.entries: list[dict[str, Any]] = [{"name": "own", "digest": "1"}]
        self.problem = ""
        monkeypatch.setattr(strategies, "Importer", lambda *_: self)
        monkeypatch.setattr(strategies, "LOOK_S", 0.0)

    async def keep(self, _: object) -> None:
        """Nothing is imported."""

    async def answers(self, asked: Mapping[str, Configuration], _: object) -> Catalogue:
        return await self.catalogue(asked)

    async def catalogue(self, asked: Mapping[str, Configuration]) -> Catalogue:
        self.asked.append([one.strategy for one in asked.values()])
        return Catalogue(self.entries, {key: Configured(7, self.problem) for key in asked})


def own(a: int) -> Trader:
    return parse_manifests(trader("own", strategy="own", a=a)).traders["default", "own"]


async def test_parameters_are_checked_together_once_and_again_when_the_strategy_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = Answering(monkeypatch)
    followed = Strategies(tmp_path, Catalogue(process.entries), look(tmp_path))
    await followed.configure([own(a=1)])
    known = followed.catalogue
    await followed.configure([own(a=1)])
    assert (process.asked, followed.catalogue) == ([["own"]], known), "nothing new was asked for"
    assert followed.catalogue is known
    checked = await followed.answering([own(a=2)])
    assert len(checked.answers) == 2
    assert followed.catalogue is known, "a question alone is nobody's manifest"

    process.entries, process.problem = [{"name": "own", "digest": "2"}], "a must be 3"
    changes: list[str] = []
    following = asyncio.create_task(
        followed.follow(lambda: changes.extend(one.problem for one in followed.catalogue.answers.values() if one))
    )
    (tmp_path / "own.py").write_text("other code")
    await looks()
    assert changes == ["a must be 3"], "of what its manifest asks for, by the code of now"
    following.cancel()


async def test_who_can_not_ask_leaves_parameters_to_the_traders_own_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading = Reading(monkeypatch, MachineError("no process can be started"))
    followed = Strategies(tmp_path, KNOWN, look(tmp_path))
    await followed.configure([own(a=1)])
    await followed.configure([own(a=1)])
    assert reading.asked == 1, "not again before something changes"
    assert list(followed.catalogue.answers.values()) == [None]


async def test_parameters_there_was_no_time_for_are_asked_for_the_next_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading = Reading(
        monkeypatch, KNOWN, replace(KNOWN, answers={key: Configured(7) for key in configurations_of([own(a=1)])})
    )
    followed = Strategies(tmp_path, KNOWN, look(tmp_path))
    for answers in ([], [Configured(7)], [Configured(7)]):
        await followed.configure([own(a=1)])
        assert list(followed.catalogue.answers.values()) == answers
    assert reading.asked == 2
