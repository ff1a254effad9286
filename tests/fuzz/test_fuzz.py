"""The fuzzers find what they are for, tell it so that it can be seen again, and what they once found stays mended."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fuzz import compiled, inputs, planted, python_side, regressions, rounds
from fuzz.__main__ import Side, summed_up
from fuzz.exercise import KINDS
from fuzz.inputs import Input

from chandlery.core.errors import SegmentError
from chandlery.workers.segment.reader import map_segment

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def folder() -> Iterator[Path]:
    """In shared memory, as in service."""
    place = Path("/dev/shm", f"chandlery-fuzz-test-{os.getpid()}")
    place.mkdir()
    yield place
    shutil.rmtree(place)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled side; skips where clang lacks, but not in CI."""
    try:
        return compiled.build(tmp_path_factory.mktemp("target"))
    except compiled.Missing as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))


def test_what_was_found_once_is_not_found_again_in_python(folder: Path) -> None:
    for file in regressions.written(folder / "all"):
        kind = file.name.partition("-")[0]
        if kind in KINDS:
            assert rounds.run_one(kind, Input.unpack(file.read_bytes()), folder) == "", file.name


def test_what_was_found_once_is_not_found_again_in_the_protocol(program: Path, folder: Path) -> None:
    for file in regressions.written(folder / "all"):
        if file.name.startswith(("segment-", "protocol-")):
            assert compiled.show(program, file).error == "", file.name


def test_both_sides_accept_the_same_headers(program: Path, folder: Path) -> None:
    """So what the compiled side reads is what Python lets through."""
    draw = random.Random(7)
    verdicts = []
    (folder / "all").mkdir()
    for number in range(400):
        given = Input(inputs.real_segment(draw))
        for _ in range(draw.randrange(3)):
            given = inputs.spoil_segment(draw, given)
        (folder / "segment").write_bytes(given.content)
        (folder / "all" / f"{number:03}").write_bytes(given.pack())
        try:
            map_segment(str(folder / "segment"))
            verdicts.append("accepted")
        except SegmentError:
            verdicts.append("refused")
    said = subprocess.run(
        [program, *sorted((folder / "all").iterdir())],
        capture_output=True,
        text=True,
        env={**os.environ, "FUZZ_VERDICT": "1"},
    ).stderr
    told = [line.removeprefix("verdict: ") for line in said.splitlines() if line.startswith("verdict: ")]
    assert told[-len(verdicts) :] == verdicts
    assert set(verdicts) == {"accepted", "refused"}


def test_a_check_taken_out_of_the_protocol_is_found(program: Path) -> None:
    """One here; `make fuzz ARGS=--self-check` plants them all."""
    found = planted.find_in_protocol(planted.FAULTS[0], seed=1)
    assert "runtime error" in found or "AddressSanitizer" in found


@pytest.mark.parametrize("fault", planted.FAULTS, ids=lambda fault: fault.because.replace(" ", "-"))
def test_every_planted_fault_is_still_a_change_of_the_protocol(fault: planted.Fault, tmp_path: Path) -> None:
    assert (planted.headers_with(fault, tmp_path) / "protocol.h").exists()


@pytest.mark.parametrize("name", sorted(rounds.PLANTED))
def test_a_crash_an_error_and_an_operation_without_end_are_found_in_python(name: str) -> None:
    (found,) = planted.find_in_python(name, seed=1)
    assert {"crash": "signal 11", "decoding": "UnicodeDecodeError", "endless": "no end"}[name] in found.error


def test_an_input_that_kills_the_process_is_kept_and_shows_it_again(folder: Path) -> None:
    first = python_side.run("segment", folder, seconds=20, seed=2, plant="crash", first=True)
    (found,) = first.found
    shown = python_side.run("segment", folder, seconds=1, seed=0, plant="crash", file=found.file)
    assert "signal 11" in shown.found[0].error
    assert python_side.run("segment", folder, seconds=1, seed=0, file=found.file).found == ()


def test_a_find_is_told_with_its_file_and_the_command_that_shows_it() -> None:
    lines, found = summed_up([Side("ring, Python", 10, 1.0, (("KeyError at ring.py:1: x", "build/fuzz/ring-1"),))])
    assert found == 1
    assert "  show python -m fuzz --file build/fuzz/ring-1" in lines
    assert lines[-1] == "1 found in 10 inputs"


def test_the_runner_tells_what_it_tried_as_json_and_ends_well(program: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "fuzz", "--minutes", "0.01", "--seed", "3", "--json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    sides = json.loads(done.stdout)["sides"]
    assert {side["name"] for side in sides} == {
        "protocol.h, libFuzzer", "segment, Python", "ring, Python", "messages, Python", "words, Python",
    }  # fmt: skip
    assert all(side["executed"] >= 1 and side["found"] == [] for side in sides)


def test_an_input_survives_being_kept() -> None:
    given = Input(b"content", (inputs.Poke(1, 2, 3), inputs.Poke(4, inputs.TRUNCATE, 5)))
    assert Input.unpack(given.pack()) == given
    assert Input.unpack(b"") == Input(b"")
    assert Input.unpack(b"no pokes at its end \xff\xff\xff\xff").pokes == ()
