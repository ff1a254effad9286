"""The real protocol.h by threads under ThreadSanitizer: silent as it is, a race reported without any of its barriers."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.segment_memory.barriers import CAUGHT, DOUBLED
from tests.segment_memory.compiling import HERE, compile_c
from tests.segment_memory.weak_memory import Site, WeakMemory
from tests.support.needed import need

RACE_FOUND = 66  # ThreadSanitizer's exit code
RUN_LIMIT_S = 120  # three seconds as a rule, on a busy machine ten
FLAGS = ["-O1", "-g", "-fsanitize=thread", "-pthread"]


@dataclass(frozen=True)
class Run:
    """How a run ended, and what it said."""

    code: int
    output: str


def run(program: Path, *arguments: str) -> Run:
    """One run, ended at its first race."""
    command = [str(program), *arguments]
    environment = {**os.environ, "TSAN_OPTIONS": "halt_on_error=1"}
    for prefix in ([], ["setarch", "-R"]):
        done = subprocess.run([*prefix, *command], capture_output=True, text=True, env=environment, timeout=RUN_LIMIT_S)
        if "unexpected memory mapping" not in done.stderr:  # of a kernel that spreads addresses further than it knows
            break
    return Run(done.returncode, done.stdout + done.stderr)


@pytest.fixture(scope="module")
def threads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_c(HERE / "race_threads.c", tmp_path_factory.mktemp("races") / "race_threads", FLAGS)


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Site]:
    memory = WeakMemory.build(tmp_path_factory.mktemp("sites"))
    memory.wrong()
    return {site.name: site for site in memory.sites()}


@pytest.mark.parametrize("way", ["turns", "free"])
def test_threads_over_one_mapping_race_nowhere(threads: Path, way: str) -> None:
    done = run(threads, way)
    assert done.code == 0, done.output
    accepted, refused = (int(done.output.split()[place]) for place in (1, 3))
    assert accepted > 0
    assert refused > 0


def test_another_compiler_sees_no_race_either(tmp_path: Path) -> None:
    clang = need("clang", "clang, libclang-rt-14-dev")
    done = run(compile_c(HERE / "race_threads.c", tmp_path / "race_threads", FLAGS, clang), "turns")
    assert done.code == 0, done.output


@pytest.mark.parametrize("name", CAUGHT)
def test_without_the_order_asked_for_a_race_is_reported(threads: Path, sites: dict[str, Site], name: str) -> None:
    done = run(threads, "turns", str(sites[name].line), sites[name].word)
    assert done.code == RACE_FOUND, done.output
    assert "data race" in done.output


@pytest.mark.parametrize("name", DOUBLED)
def test_without_an_order_asked_for_twice_and_its_double_a_race_is_reported(
    threads: Path, sites: dict[str, Site], name: str
) -> None:
    other, _ = DOUBLED[name]
    arguments = [text for site in (sites[name], sites[other]) for text in (str(site.line), site.word)]
    assert run(threads, "turns", *arguments[:2]).code == 0
    assert run(threads, "turns", *arguments).code == RACE_FOUND
