"""The process that has imported the strategies, kept for the next question."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import pytest
from tests.runtime.unstarted import unstarted, wanted
from tests.runtime.up_process import STRATEGIES, kill_hard, trader, until, write_manifests
from tests.workers_supervisor.fake_feed import gone

from chandlery.cli.runtime import importer as importing
from chandlery.cli.runtime.ending import memory_figures
from chandlery.cli.runtime.importer import Importer
from chandlery.cli.runtime.procfs import pids_with_variable
from chandlery.cli.runtime.recent import RecentSignals
from chandlery.cli.runtime.viewing import Viewer
from chandlery.core.configurations import Configuration, Configured
from chandlery.core.errors import InputError
from chandlery.core.manifests import parse_manifests

#: How long an answer is waited for in tests that let one hang, seconds: all others take some milliseconds.
HANG_S: Final = 3.0


def strategy(validate: str, first: str = "") -> str:
    """A file with the strategy ``each-candle``. validate: its lines, separated by semicolons. first: the file's first lines."""
    return f"import os, pathlib, subprocess, sys, time\n{first}\n" + STRATEGIES.replace(
        "    def on_candle", f"    def validate(self):\n        {validate}\n\n    def on_candle", 1
    )


def asked(*every: int) -> dict[str, Configuration]:
    """What becomes of ``each-candle`` with these parameters."""
    return {one.key: one for one in (Configuration("each-candle", {"every": number}) for number in every)}


async def warmups(importer: Importer, *every: int) -> list[int | None]:
    """What the kept process says of these."""
    told = await importer.answers(asked(*every), {})
    return [answer.warmup if answer is not None else None for answer in told.answers.values()]


@pytest.fixture
async def importer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Importer]:
    """Of the folder ``s``."""
    monkeypatch.setattr(importing, "_ANSWER_TIMEOUT_S", HANG_S)
    (tmp_path / "s").mkdir()
    made = Importer(tmp_path / "s")
    yield made
    await made.close()


async def test_strategies_are_imported_once_for_all_questions_and_again_when_a_file_has_changed(
    tmp_path: Path, importer: Importer
) -> None:
    imported = tmp_path / "imported"
    first = f"with open({str(imported)!r}, 'a') as file: file.write('.')"
    file = tmp_path / "s" / "own.py"
    file.write_text(strategy("pass", first))
    await importer.keep({})
    pid = importer.pid
    assert pid
    assert await warmups(importer, 1, 2) == [1, 1]
    assert await warmups(importer, 3) == [1]
    assert (importer.pid, imported.read_text()) == (pid, ".")
    file.write_text(strategy("pass", first).replace("return 1", "return 12"))
    assert await warmups(importer, 4) == [12], "by the code of now"
    assert imported.read_text() == ".."
    await gone({pid})
    assert importer.pid not in (0, pid)
    assert await warmups(importer, 5) == [12]
    assert (await importer.catalogue(asked(6))).answers == dict.fromkeys(asked(6), Configured(12))
    assert imported.read_text() == "...", "who asks for the catalogue has all imported anew"
    last = importer.pid
    await importer.close()
    await gone({last})
    assert importer.pid == 0


async def test_who_asks_while_the_process_is_being_made_waits_for_that_one(tmp_path: Path, importer: Importer) -> None:
    imported = tmp_path / "imported"
    first = f"with open({str(imported)!r}, 'a') as file: file.write('.')"
    (tmp_path / "s" / "own.py").write_text(strategy("pass", first))
    told = await asyncio.gather(importer.keep({}), warmups(importer, 1))
    assert (told[1], imported.read_text()) == ([1], ".")


async def test_nothing_that_an_answer_keeps_or_starts_reaches_the_next(tmp_path: Path, importer: Importer) -> None:
    started = tmp_path / "started"
    (tmp_path / "s" / "own.py").write_text(
        strategy(
            "kept.append(1); assert len(kept) == self.every and sys.stdin.read() == ''; "
            f"pathlib.Path({str(started)!r}).write_text(str(subprocess.Popen(['sleep', '600']).pid))",
            "kept = []\nassert sys.stdin.read() == ''",
        )
    )
    for _ in range(3):
        # The import has made one already, with what it is without parameters.
        assert await warmups(importer, 2, 3) == [1, 1]
        await gone({int(started.read_text())})


async def test_what_ends_the_process_that_answers_leaves_the_one_that_imported(
    tmp_path: Path, importer: Importer
) -> None:
    (tmp_path / "s" / "own.py").write_text(strategy("if self.every == 8: os._exit(0)"))
    await importer.keep({})
    pid = importer.pid
    assert await warmups(importer, 7, 8, 9) == [1, None, 1]
    assert importer.pid == pid


async def test_what_hangs_is_ended_with_what_it_started_and_the_next_question_has_its_answer(
    tmp_path: Path, importer: Importer
) -> None:
    pids = tmp_path / "pids"
    hangs = f"""
def hangs():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    started = subprocess.Popen(["sleep", "600"], process_group=0)
    with open({str(pids)!r}, "a") as file:
        print(os.getpid(), os.getppid(), started.pid, file=file)
    time.sleep(600)
"""
    (tmp_path / "s" / "own.py").write_text(strategy("if self.every == 9: hangs()", f"import signal\n{hangs}"))
    assert await warmups(importer, 9, 7) == [None, 1]
    (tried,) = pids.read_text().splitlines()  # once: an answer is waited for long enough
    left = {*map(int, tried.split())}
    await gone(left)
    assert importer.pid not in left
    assert await warmups(importer, 8) == [1]


async def test_while_one_question_hangs_another_is_answered(tmp_path: Path, importer: Importer) -> None:
    begun = tmp_path / "begun"
    (tmp_path / "s" / "own.py").write_text(
        strategy(f"if self.every == 9: pathlib.Path({str(begun)!r}).touch(); time.sleep(600)")
    )
    hanging = asyncio.create_task(warmups(importer, 9))
    await asyncio.to_thread(until, begun.exists, "the first is being asked")
    assert await warmups(importer, 7) == [1]
    hanging.cancel()
    await asyncio.gather(hanging, return_exceptions=True)
    assert await warmups(importer, 8) == [1]


async def test_a_process_that_was_killed_is_replaced_at_the_next_question_and_counted(
    tmp_path: Path, importer: Importer
) -> None:
    (tmp_path / "s" / "own.py").write_text(strategy("pass"))
    await importer.keep({})
    pid = importer.pid
    os.kill(pid, signal.SIGKILL)
    await gone({pid})
    assert await warmups(importer, 7) == [1]
    assert importer.pid not in (0, pid)
    assert importer.restarts == 1


async def test_what_ends_the_process_that_imported_is_asked_for_once_more_and_no_more(
    tmp_path: Path, importer: Importer
) -> None:
    tried = tmp_path / "tried"
    ends = (
        f"with open({str(tried)!r}, 'a') as file: file.write('.')\n            os.kill(os.getppid(), 9); time.sleep(60)"
    )
    (tmp_path / "s" / "own.py").write_text(strategy(f"if self.every == 9:\n            {ends}"))
    assert await warmups(importer, 9, 7) == [None, 1]
    assert tried.read_text() == ".."


async def test_what_ends_the_process_that_imported_by_chance_has_its_answer_at_the_second_time(
    tmp_path: Path, importer: Importer
) -> None:
    ends_once = f"""
def ends_once(every):
    tried = pathlib.Path({str(tmp_path)!r}, f"tried-{{every}}")
    if every in (2, 3) and not tried.exists():
        tried.touch()
        os.kill(os.getppid(), 9)
        time.sleep(60)
"""
    (tmp_path / "s" / "own.py").write_text(strategy("ends_once(self.every)", ends_once))
    assert await warmups(importer, 2, 3, 4) == [1, 1, 1]


async def test_that_processes_can_not_be_listed_holds_nobody_up(
    tmp_path: Path, importer: Importer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where no descriptor is left."""
    (tmp_path / "s" / "own.py").write_text(strategy("pass"))
    await importer.keep({})
    pid = importer.pid

    def refuse(_: object) -> list[str]:
        raise OSError(errno.EMFILE, "too many open files")

    monkeypatch.setattr(os, "listdir", refuse)
    async with asyncio.timeout(30):
        await importer.close()
    monkeypatch.undo()
    await gone({pid})


@pytest.mark.parametrize(
    "first",
    [
        "sys.stdout.close()",
        "sys.stderr = sys.stdout = None",
        "import signal; signal.signal(signal.SIGCHLD, signal.SIG_IGN)",
    ],
)
async def test_what_one_import_does_to_its_process_keeps_nobody_from_answers(
    tmp_path: Path, importer: Importer, first: str
) -> None:
    (tmp_path / "s" / "own.py").write_text(strategy("pass"))
    (tmp_path / "s" / "rude.py").write_text(f"import sys\n{first}\n")
    await importer.keep({})
    pid = importer.pid
    for every in (1, 2):
        assert await warmups(importer, every) == [1]
        assert importer.pid == pid


async def test_a_process_that_had_to_leave_out_what_is_known_as_usable_is_not_asked(
    tmp_path: Path, importer: Importer
) -> None:
    """An import that took too long while everything else began, say."""
    ends_once = f"with open({str(tmp_path / 'imported')!r}, 'a') as file: file.write('.')\n"
    ends_once += f"if pathlib.Path({str(tmp_path / 'imported')!r}).stat().st_size == 1: os._exit(1)"
    (tmp_path / "s" / "own.py").write_text(strategy("pass", ends_once))
    await importer.keep({})
    left_out = importer.pid
    assert await warmups(importer, 1) == [1]
    assert importer.pid not in (0, left_out)


async def test_a_package_that_strategies_import_is_followed_too(tmp_path: Path, importer: Importer) -> None:
    package = tmp_path / "s" / "own_limits"
    package.mkdir()
    (package / "__init__.py").write_text("MOST = 5\n")
    (tmp_path / "s" / "own.py").write_text(
        strategy("if self.every > own_limits.MOST: raise ValueError('too many')", "import own_limits")
    )
    (refused,) = (await importer.answers(asked(9), {})).answers.values()
    assert (refused and refused.problem) == "each-candle: too many"
    (package / "__init__.py").write_text("MOST = 50\n")
    assert await warmups(importer, 9) == [1]


async def test_an_older_process_takes_no_newer_ones_place(tmp_path: Path, importer: Importer) -> None:
    begun, end = tmp_path / "begun", tmp_path / "end"
    waits = f"pathlib.Path({str(begun)!r}).touch(); [time.sleep(0.01) for _ in iter(pathlib.Path({str(end)!r}).exists, True)]"
    (tmp_path / "s" / "own.py").write_text(strategy(f"if self.every == 9: {waits}"))
    older = asyncio.create_task(warmups(importer, 9))
    await asyncio.to_thread(until, begun.exists, "the first is being asked")
    await importer.keep({})
    newer = importer.pid
    end.touch()
    assert await older == [1]
    assert importer.pid == newer


async def test_one_that_has_ended_while_it_waited_is_told_of_no_more(tmp_path: Path, importer: Importer) -> None:
    sleeps = f"pathlib.Path({str(tmp_path / 'pid')!r}).write_text(str(subprocess.Popen(['sleep', '600']).pid))"
    (tmp_path / "s" / "own.py").write_text(strategy("pass", sleeps))
    await importer.keep({})
    os.kill(importer.pid, signal.SIGKILL)
    await asyncio.to_thread(until, lambda: importer.pid == 0, "that it has ended is known")
    await gone({int((tmp_path / "pid").read_text())})


async def test_the_process_is_told_of_as_one_of_the_instances_and_ends_with_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    runtime = unstarted(tmp_path, wanted("{synthetic: {}}"))
    await runtime.strategies.follow(lambda: None)  # that returns, for there is no folder
    pid = runtime.strategies.pid
    assert {*memory_figures(runtime, [])} == {"strategies"}
    assert ("strategies", pid) in [(row.name, row.pid) for row in Viewer(runtime, RecentSignals()).view().processes]
    os.kill(pid, signal.SIGKILL)
    await gone({pid})
    await runtime.strategies.answering(parse_manifests(trader("one", fast=3, slow=7)).traders.values())
    (row,) = [row for row in Viewer(runtime, RecentSignals()).view().processes if row.name == "strategies"]
    assert row.restarts == 1
    (told,) = [record for record in caplog.records if "has ended" in record.message]
    assert (vars(told)["pid"], vars(told)["problem"]) == (pid, "was killed by SIGKILL")
    await runtime.close()
    await gone({row.pid})


async def test_a_line_that_was_cut_off_by_the_end_of_who_wrote_it_is_no_answer(
    tmp_path: Path, importer: Importer
) -> None:
    (tmp_path / "s" / "own.py").write_text(
        strategy(
            "if self.every == 9: cut_off()",
            """
def cut_off():
    for number in range(3, 64):
        try:
            os.write(number, b'{"index": 0, "conf')
        except OSError:
            pass
    os.kill(os.getpid(), 9)
""",
        )
    )
    await importer.keep({})
    pid = importer.pid
    assert await warmups(importer, 8, 9, 7) == [1, None, 1]
    assert importer.pid not in (0, pid), "what else it would say can't be told apart"


async def test_a_folder_that_is_gone_ends_nothing_that_was_known(tmp_path: Path, importer: Importer) -> None:
    (tmp_path / "s").rmdir()
    with pytest.raises(InputError, match="no such folder"):
        await importer.keep({})
    assert importer.pid == 0
    with pytest.raises(InputError, match="no such folder"):
        await importer.answers(asked(1), {})


def test_a_strategy_that_never_answers_does_not_outlive_a_command_that_was_killed(tmp_path: Path) -> None:
    folder, begun = tmp_path / "s", tmp_path / "begun"
    folder.mkdir()
    (folder / "own.py").write_text(
        strategy(
            f"signal.signal(signal.SIGTERM, signal.SIG_IGN); pathlib.Path({str(begun)!r}).touch(); time.sleep(600)",
            "import signal",
        )
    )
    manifests = write_manifests(tmp_path / "m", one=trader("one", strategy="each-candle", every=1))
    mark = f"importer-{os.getpid()}"
    command = [sys.executable, "-m", "chandlery.cli", "validate", "-f", str(manifests), "--strategies", str(folder)]
    with subprocess.Popen(
        command, env={**os.environ, "CHANDLERY_TEST_MARK": mark}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        until(begun.exists, "the strategy is being asked")
        kill_hard(process.pid)
        process.wait()
    until(lambda: not pids_with_variable("CHANDLERY_TEST_MARK", mark), "the process that answers has ended")
