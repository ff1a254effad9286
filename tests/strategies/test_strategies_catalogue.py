"""The catalogue: every strategy as data, broken files included, and checks without imports."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from tests.strategies.deadly import DEADLY
from tests.strategies.installed import install
from tests.strategies.test_strategies_api import FOLDER_STRATEGY

from chandlery.workers.discovery import SHIPPED


@cache
def catalogue(*arguments: str) -> list[dict[str, Any]]:
    command = [sys.executable, "-m", "chandlery.workers.catalogue", *arguments]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    entries: list[dict[str, Any]] = json.loads(run.stdout)
    return entries


def by_name(entries: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {entry["name"]: entry for entry in entries}


def test_the_shipped_strategies_are_described() -> None:
    entries = by_name(catalogue())
    assert set(SHIPPED) <= set(entries)
    sma = entries["sma-cross"]
    assert sma["parameters"]["fast"] == {
        "type": "int",
        "default": 10,
        "ge": 2,
        "le": 500,
        "choices": None,
        "doc": "candles in the fast average",
    }
    assert (sma["warmup"], sma["source"], len(sma["digest"])) == (31, "entry-point", 16)
    assert sma["summary"].startswith("Buys when the fast")
    for name in SHIPPED:
        assert not entries[name].get("errors"), entries[name]
        assert all(spec["doc"] for spec in entries[name]["parameters"].values()), f"{name}: undocumented parameter"


def test_a_broken_file_is_reported_beside_the_sound_ones(tmp_path: Path) -> None:
    (tmp_path / "twice.py").write_text(FOLDER_STRATEGY)
    (tmp_path / "breaks.py").write_text("print('noise on stdout')\nraise ValueError('on purpose')\n")
    (tmp_path / "half_written.py").write_text("class Half(")
    (tmp_path / "not_text.py").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "leaves.py").write_text("raise SystemExit(7)\n")
    (tmp_path / "taken.py").write_text(FOLDER_STRATEGY.replace('"twice"', '"macd"'))
    (tmp_path / "late.py").write_text(
        FOLDER_STRATEGY.replace('"twice"', '"late"').replace("return self.gap", "return 1 // 0")
    )
    entries = catalogue("--strategies", str(tmp_path))
    found = by_name(entries)
    assert found["twice"]["source"] == "folder"
    assert not found["twice"].get("errors")
    for name, says in (
        ("breaks", "ValueError: on purpose (line 2)"),
        ("half-written", "half_written.py"),
        ("not-text", "can't be read"),
        ("leaves", "SystemExit: 7"),
        ("late", "ZeroDivisionError"),
    ):
        assert says in found[name]["errors"][0], found[name]
    macd = [entry for entry in entries if entry["name"] == "macd"]
    assert [bool(entry.get("errors")) for entry in macd] == [False, True]
    assert "taken already" in macd[1]["errors"][0]


def test_an_installed_strategy_that_leaves_by_sys_exit_is_reported_beside_the_sound_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = install(
        tmp_path,
        leaves="import sys\nsys.exit('no GPU here')\n",
        late=FOLDER_STRATEGY.replace('"twice"', '"late"').replace("return self.gap", "raise SystemExit('no model')"),
    )
    monkeypatch.setenv("PYTHONPATH", path)
    run = subprocess.run([sys.executable, "-m", "chandlery.workers.catalogue"], capture_output=True, check=True)
    found = by_name(json.loads(run.stdout))
    assert "SystemExit: no GPU here (line 2)" in found["leaves"]["errors"][0]
    assert "SystemExit: no model" in found["late"]["errors"][0]
    assert not any(found[name].get("errors") for name in SHIPPED)


def test_a_strategy_that_ends_its_process_is_listed_beside_the_sound_ones_and_their_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", install(tmp_path, installed=DEADLY["quits"][0]))
    folder = tmp_path / "s"
    folder.mkdir()
    (folder / "aborts.py").write_text(DEADLY["aborts"][0])
    (folder / "twice.py").write_text(FOLDER_STRATEGY)
    command = [sys.executable, "-m", "chandlery.workers.catalogue", "--strategies", str(folder), "--configure"]
    asked: list[dict[str, Any]] = [{"strategy": name, "parameters": {}} for name in ("aborts", "twice")]
    run = subprocess.run(command, input=json.dumps(asked), capture_output=True, text=True, check=True)
    entries, *answers = map(json.loads, run.stdout.splitlines())
    found = by_name(entries)
    assert {name for name, entry in found.items() if entry.get("errors")} == {"installed", "aborts"}
    assert [answer["configured"] is not None for answer in answers] == [False, True]


def test_a_file_that_can_not_be_imported_is_listed_by_the_names_of_its_strategies(tmp_path: Path) -> None:
    text = FOLDER_STRATEGY + "\n\nclass Second(Strategy):\n    pass\n\n\nclass Rest:\n    pass\n\n\n1 // 0\n"
    (tmp_path / "several.py").write_text(text)
    (tmp_path / "none_at_all.py").write_text("1 // 0\n")
    found = by_name(catalogue("--strategies", str(tmp_path)))
    broken = {name: entry["errors"] for name, entry in found.items() if entry.get("errors")}
    assert set(broken) == {"twice", "second", "none-at-all"}
    assert broken["twice"] == broken["second"]


def test_bytes_and_characters_that_are_no_unicode_cost_no_other_strategy(tmp_path: Path) -> None:
    (tmp_path / "raises.py").write_text("raise ValueError('\\ud800')\n")
    Path(os.fsdecode(bytes(tmp_path) + b"/b\xffad.py")).write_text("1 // 0\n")
    (tmp_path / "twice.py").write_text(FOLDER_STRATEGY)
    named, told = '"tw\\ud800ice"', 'doc="\\ud800")'
    (tmp_path / "named.py").write_text(FOLDER_STRATEGY.replace('"twice"', named))
    (tmp_path / "told.py").write_text(FOLDER_STRATEGY.replace('"twice"', '"told"').replace("ge=1)", f"ge=1, {told}"))
    found = by_name(catalogue("--strategies", str(tmp_path)))
    assert "can't be described" in found["tw\\ud800ice"]["errors"][0]
    assert "can't be described" in found["told"]["errors"][0]
    assert "ValueError: \\ud800" in found["raises"]["errors"][0]
    assert found["b\\udcffad"]["errors"]
    assert not found["twice"].get("errors")


def test_the_catalogue_is_utf_8_whatever_the_locale(tmp_path: Path) -> None:
    (tmp_path / "twice.py").write_text(FOLDER_STRATEGY.replace("Buys twice.", "Käufe → €"), encoding="utf-8")
    command = [sys.executable, "-m", "chandlery.workers.catalogue", "--strategies", str(tmp_path)]
    run = subprocess.run(command, capture_output=True, check=True, env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert any("Käufe → €" in entry["doc"] for entry in json.loads(run.stdout))


def test_a_missing_folder_is_an_error_with_exit_code_2(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "chandlery.workers.catalogue", "--strategies", str(tmp_path / "none")]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 2
    assert "no such folder" in run.stderr


def test_standard_output_has_the_json_alone_and_each_answer_names_what_it_answers(tmp_path: Path) -> None:
    text = FOLDER_STRATEGY.replace("return self.gap", "os.write(1, b'noise'); print('noise'); return self.gap")
    (tmp_path / "twice.py").write_text("import os\nos.system('echo noise of a program')\n" + text)
    command = [sys.executable, "-m", "chandlery.workers.catalogue", "--strategies", str(tmp_path), "--configure"]
    asked: list[dict[str, Any]] = [{"strategy": name, "parameters": {}} for name in ("twice", "none-such", "sma-cross")]
    run = subprocess.run(command, input=json.dumps(asked), capture_output=True, text=True, check=True)
    entries, *answers = map(json.loads, run.stdout.splitlines())
    assert not by_name(entries)["twice"].get("errors")
    assert [answer["index"] for answer in answers] == [0, 1, 2]
    assert [answer["configured"] is not None for answer in answers] == [True, False, True]
    assert "noise of a program" in run.stderr
