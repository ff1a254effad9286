"""What ``chandlery perf compare`` may be asked for, and what it makes of it."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from chandlery.cli.comparing.asked import Asked, read_asked
from chandlery.cli.comparing.market import MOST_BESIDE, manifests, steps_of
from chandlery.cli.comparing.running import STRATEGIES, compare
from chandlery.cli.runtime.importer import read_catalogue
from chandlery.core.errors import InputError, MachineError
from chandlery.core.manifests import check_against_catalogue, read_manifests

GOOD: dict[str, Any] = {"traders": "5,10", "seconds": "8", "rate": "20", "symbols": "10", "trigger": "CandleClose"}


def asked(**changes: Any) -> Asked:
    return read_asked(**{**GOOD, **changes})


def test_good_options_are_taken_as_they_are() -> None:
    assert asked(trigger="everyupdate") == Asked((5, 10), 8, 20.0, 10, "EveryUpdate")
    assert asked(traders=" 3 ").traders == (3,)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"traders": ""}, "--traders '': there is no number; write numbers from 1 to 100, such as 5,10,20,50"),
        ({"traders": "5,"}, "--traders '5,': a comma has no number beside it; write numbers from 1 to 100, such as"),
        ({"traders": "9" * 5000}, "999…' won't do; write numbers from 1 to 100"),
        ({"traders": "²"}, "--traders '²': '²' won't do"),
        ({"traders": "5,x"}, "--traders '5,x': 'x' won't do"),
        ({"traders": "0"}, "--traders '0': '0' won't do"),
        ({"traders": "101"}, "numbers from 1 to 100"),
        ({"traders": "-1"}, "--traders '-1'"),
        ({"traders": "5,5"}, "twice"),
        ({"traders": "1,2,3,4,5,6,7,8,9"}, "9 numbers; write 8 at most"),
        ({"seconds": "1"}, "--seconds '1': write a whole number from 2 to 120 (seconds of each measurement)"),
        ({"seconds": "121"}, "--seconds '121'"),
        ({"rate": "0"}, "--rate '0': write a number above 0, at most 500"),
        ({"rate": "nan"}, "--rate 'nan'"),
        ({"rate": "501"}, "--rate '501'"),
        ({"symbols": "0"}, "--symbols '0': write a whole number from 1 to 64"),
        ({"symbols": "65"}, "--symbols '65'"),
        ({"seconds": "abc"}, "--seconds 'abc': write a whole number from 2 to 120"),
        ({"seconds": "9" * 5000}, "999…': write a whole number from 2 to 120"),
        ({"seconds": "2.5"}, "--seconds '2.5': write a whole number"),
        ({"symbols": ""}, "--symbols '': write a whole number from 1 to 64"),
        ({"rate": "many"}, "--rate 'many': write a number above 0, at most 500"),
        ({"rate": "9" * 5000}, "999…': write a number above 0"),
        ({"trigger": "Always"}, "--trigger 'Always': write CandleClose or EveryUpdate"),
    ],
)
def test_a_bad_option_is_named_with_its_value_and_the_way_out(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError) as caught:
        asked(**changes)
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("name", "told"),
    [("plot.png", "ends in .svg"), ("nowhere/plot.svg", "no folder"), ("folder.svg", "can't be written")],
)
def test_a_plot_that_could_not_be_written_is_refused_before_anything_runs(tmp_path: Path, name: str, told: str) -> None:
    (tmp_path / "folder.svg").mkdir()
    with pytest.raises(InputError, match=told) as caught:
        asked(plot=tmp_path / name)
    assert "--plot" in str(caught.value)
    assert asked(plot=tmp_path / "plot.svg").plot == tmp_path / "plot.svg"


@pytest.mark.parametrize(
    ("option", "value", "told"),
    [
        ("--traders", "many", "--traders 'many': 'many' won't do; write numbers from 1 to 100, such as 5,10,20,50"),
        ("--seconds", "abc", "--seconds 'abc': write a whole number from 2 to 120 (seconds of each measurement)"),
    ],
)
def test_the_command_refuses_with_exit_code_2_and_one_line(option: str, value: str, told: str) -> None:
    words = [sys.executable, "-m", "chandlery.cli", "perf", "compare", option, value]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"chandlery: {told}\n")


def test_without_a_temporary_folder_it_says_so_with_exit_code_3(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    with pytest.raises(MachineError, match="set TMPDIR"):
        asyncio.run(compare(asked(), lambda line, fraction=None: None, asyncio.Event()))


def test_each_number_is_measured_on_both_in_turns_that_alternate_and_a_few_side_by_side() -> None:
    steps = steps_of(asked(traders="20,50,30"))
    assert [(one.size, [each.transport for each in one.groups]) for one in steps] == [
        (20, ["SharedMemory"]),
        (20, ["Pipe"]),
        (50, ["Pipe"]),
        (50, ["SharedMemory"]),
        (30, ["SharedMemory"]),
        (30, ["Pipe"]),
        (MOST_BESIDE, ["SharedMemory", "Pipe"]),
    ]
    assert {each.pool for each in steps[-1].groups} == {"SharedMemory"}, "side by side is in one worker"
    assert all(len(each.names) == one.size for one in steps for each in one.groups)
    assert [one.words for one in (steps[0], steps[2], steps[-1])] == [
        "20 traders on shared memory",
        "50 traders on pipes",
        "10 + 10 traders side by side",
    ]


def test_what_each_step_runs_are_manifests_without_a_mistake(tmp_path: Path) -> None:
    of = asked(traders="100,1", symbols="64", trigger="EveryUpdate")
    catalogue = asyncio.run(read_catalogue(STRATEGIES))
    for step in steps_of(of):
        (tmp_path / "all.yaml").write_text(manifests(of, step))
        found = read_manifests([str(tmp_path)])
        assert [*found.problems, *check_against_catalogue(found, catalogue.entries)] == []
        assert len(found.traders) == sum(len(each.names) for each in step.groups)
        trigger = "CandleClose" if step.is_side_by_side else "EveryUpdate"
        assert {trader.spec.trigger for trader in found.traders.values()} == {trigger}
        pools = {name: pool.spec for (_, name), pool in found.pools.items()}
        asked_for = {
            (trader.spec.transport or pools[trader.spec.pool.name].transport) for trader in found.traders.values()
        }
        assert asked_for == {each.transport for each in step.groups}
        assert all(spec.traders_per_worker >= len(found.traders) for spec in pools.values())
