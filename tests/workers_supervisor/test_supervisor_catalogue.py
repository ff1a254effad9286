"""The catalogue where a strategy of the image or of the folder ends the process that imports it, or never returns."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from pathlib import Path
from typing import Any, Final

import pytest
from tests.strategies.deadly import DEADLY, HANG_S
from tests.strategies.installed import install
from tests.strategies.test_strategies_api import FOLDER_STRATEGY
from tests.workers_supervisor.fake_feed import PATIENCE_S, gone

from chandlery.workers import catalogue_process
from chandlery.workers.discovery import SHIPPED
from chandlery.workers.supervisor import catalogue_reader
from chandlery.workers.supervisor.catalogue_reader import Reading, follow_catalogue, read_catalogue


async def test_installed_strategies_that_end_their_process_or_hang_at_import_are_left_out_by_name_and_the_others_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sound = FOLDER_STRATEGY.replace('"twice"', '"zebra"')
    path = install(tmp_path, zebra=sound, **{name: text for name, (text, _) in DEADLY.items()})
    monkeypatch.setenv("PYTHONPATH", path)
    monkeypatch.setattr(catalogue_process, "TIMEOUT_S", HANG_S)
    catalogue, left_out = await read_catalogue("")
    assert catalogue is not None
    assert left_out == set(DEADLY)
    found = {entry["name"]: entry for entry in catalogue}
    for name, (_, says) in DEADLY.items():
        assert found[name]["errors"] == [f"{name}: the process that imported it {says}; mend or uninstall it"]
    assert not any(found[name].get("errors") for name in (*SHIPPED, "zebra"))


async def test_many_that_take_long_at_import_are_left_out_no_more_than_one_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = "import threading\nthreading.Event().wait(2.5)\n"
    path = install(tmp_path, **{name: slow + FOLDER_STRATEGY.replace('"twice"', f'"{name}"') for name in "xyz"})
    monkeypatch.setenv("PYTHONPATH", path)
    monkeypatch.setattr(catalogue_process, "TIMEOUT_S", 6.0)  # of each, not of the three together
    catalogue, left_out = await read_catalogue("")
    assert (catalogue is not None, left_out) == (True, frozenset())


async def test_files_of_the_folder_that_end_their_process_or_hang_at_import_are_left_out_by_name_and_the_others_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name, (text, _) in DEADLY.items():
        (tmp_path / f"{name}.py").write_text(text)
    for name in ("a_first", "z_last"):
        (tmp_path / f"{name}.py").write_text(FOLDER_STRATEGY.replace('"twice"', f'"{name}"'))
    (tmp_path / "half=sound.py").write_text(f"{FOLDER_STRATEGY}\nimport os\nos._exit(0)\n")
    monkeypatch.setattr(catalogue_process, "TIMEOUT_S", HANG_S)
    catalogue, left_out = await read_catalogue(str(tmp_path))
    assert catalogue is not None
    assert left_out == {*(f"{name}.py" for name in DEADLY), "half=sound.py"}
    found = {entry["name"]: entry for entry in catalogue}
    for name, (_, says) in DEADLY.items():
        assert found[name]["errors"] == [f"{name}.py: the process that imported it {says}; mend or remove it"]
        assert found[name]["source"] == "folder"
    assert found["twice"]["errors"] == [
        "half=sound.py: the process that imported it ended with exit code 0; mend or remove it"
    ], "by the name that Traders give it"
    assert not any(found[name].get("errors") for name in (*SHIPPED, "a_first", "z_last"))
    told = [record for record in caplog.records if record.name == "chandlery"]
    assert {record.message for record in told} == {"strategy left out of the catalogue"}


#: What a strategy starts and leaves behind: it has the outputs of the process that imported it, and a file with its pid.
LEAVES: Final = {
    "a session of its own": "subprocess.Popen(['sleep', '60'], start_new_session=True)",
    "its session": "subprocess.Popen(['sleep', '60'])",
}


@pytest.mark.parametrize("keeps_errors", [True, False])
@pytest.mark.parametrize("code", [None, 3])
@pytest.mark.parametrize("where", LEAVES)
async def test_what_a_strategy_starts_holds_nobody_up(
    tmp_path: Path, where: str, code: int | None, *, keeps_errors: bool
) -> None:
    folder, said = tmp_path / "folder", tmp_path / "pid"
    folder.mkdir()
    ends = "" if code is None else f"import os\nos._exit({code})\n"
    (folder / "starts.py").write_text(
        f"import pathlib, subprocess\nstarted = {LEAVES[where]}\n"
        f"pathlib.Path({str(said)!r}).write_text(str(started.pid))\n{ends}"
    )
    (folder / "twice.py").write_text(FOLDER_STRATEGY)
    try:
        async with (
            asyncio.timeout(PATIENCE_S / 2),
            catalogue_process.listed(str(folder), keeps_errors=keeps_errors) as listed,
        ):
            assert any(entry["name"] == "twice" and not entry.get("errors") for entry in listed.entries)
            assert listed.left_out == ({} if code is None else {"starts.py": f"ended with exit code {code}"})
        if where == "its session":
            await gone({int(said.read_text())})
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(said.read_text()), signal.SIGKILL)


async def test_a_folder_that_is_gone_is_said_and_read_as_no_catalogue(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert await read_catalogue(str(tmp_path / "nowhere")) == Reading(None)
    assert [record.message for record in caplog.records if record.name == "chandlery"] == ["catalogue can't be read"]


async def test_a_strategy_that_was_left_out_is_tried_again_and_only_what_is_new_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On a busy machine a sound one may have taken too long."""
    without: list[dict[str, Any]] = [{"name": "slow", "errors": ["slow: took more than 30 s"]}]
    whole: list[dict[str, Any]] = [{"name": "slow"}]
    readings = [Reading(without, frozenset({"slow"})), Reading(without, frozenset({"slow"})), Reading(whole)]
    read_s: list[float] = []
    now_s = 0.0

    async def answer(_folder: str) -> Reading:
        read_s.append(now_s)
        return readings.pop(0)

    def clock() -> float:
        nonlocal now_s
        now_s += 1.0
        return now_s

    monkeypatch.setattr(catalogue_reader, "read_catalogue", answer)
    monkeypatch.setattr(catalogue_reader, "LOOK_S", 0.0)
    told: list[list[dict[str, Any]]] = []
    await asyncio.wait_for(follow_catalogue("", told.append, clock), PATIENCE_S)
    assert told == [without, whole]
    assert read_s[1] - read_s[0] >= catalogue_reader.FIRST_RETRY_S
    assert read_s[2] - read_s[1] >= 2 * catalogue_reader.FIRST_RETRY_S
