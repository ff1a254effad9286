"""The state folder: one owner, leftovers found and swept, sockets with legal names; and the reaper."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from chandlery.cli.runtime import reaper
from chandlery.cli.runtime.procfs import is_alive, memory_of, parse_smaps_rollup
from chandlery.cli.runtime.statedir import RUN_VARIABLE, RunRecord, StateDir, write_atomically
from chandlery.core.errors import InputError, MachineError, UnavailableError

DEADLINE_S = 30.0


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"not within {DEADLINE_S} s: {what}"
        time.sleep(0.02)


def test_a_second_owner_is_refused_by_the_pid_of_the_first(tmp_path: Path) -> None:
    first = StateDir(tmp_path)
    first.acquire()
    with pytest.raises(MachineError, match=rf"pid {os.getpid()}\b.*--state"):
        StateDir(tmp_path).acquire()
    first.release()
    second = StateDir(tmp_path)
    second.acquire()
    second.release()


def test_a_folder_that_can_not_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(MachineError, match="file"):
        StateDir(tmp_path / "file" / "state").acquire()


def test_sockets_can_be_bound_below_a_very_long_state_path(tmp_path: Path) -> None:
    state = StateDir(tmp_path / ("long-" * 20) / ("path-" * 20))
    state.acquire()
    worker = "w" * 63
    state.rings(worker).mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(state.rings(worker) / "windows.sock"))
    assert (state.root / "rings" / worker / "windows.sock").exists(), "it lies in the state folder"
    state.release()


def test_a_short_state_path_is_used_as_it_is(tmp_path_factory: pytest.TempPathFactory) -> None:
    state = StateDir(Path("/tmp") / f"chs{os.getpid()}")
    state.acquire()
    try:
        assert state.rings("demo-0").is_relative_to(state.root)
    finally:
        state.release()
        subprocess.run(["rm", "-r", str(state.root)], check=True)


def test_leftover_processes_are_found_by_their_state_and_not_another(tmp_path: Path) -> None:
    one, other = StateDir(tmp_path / "one"), StateDir(tmp_path / "other")
    process = subprocess.Popen(["sleep", "600"], env={**os.environ, RUN_VARIABLE: one.new_run()})
    try:
        until(lambda: one.leftovers() == [process.pid], "found")
        assert other.leftovers() == []
    finally:
        process.kill()
        process.wait()
    assert one.leftovers() == []


def test_a_sweep_removes_segments_sockets_and_the_run_of_this_state_only(tmp_path: Path) -> None:
    one, other = StateDir(tmp_path / "one"), StateDir(tmp_path / "other")
    one.acquire()
    mine, foreign = one.shm(one.new_run()), other.shm(other.new_run())
    try:
        for folder in (mine, foreign):
            (folder / "demo-0").mkdir(parents=True)
            (folder / "demo-0" / "segment").write_bytes(b"x")
        (one.root / "s" / "old.sock").write_text("")
        one.write_run(RunRecord(1, "r", "1", 0, "x"))
        (line,) = one.sweep()
        assert str(mine) in line
        assert not mine.exists()
        assert foreign.exists()
        assert list((one.root / "s").iterdir()) == []
        assert not one.run_file.exists()
    finally:
        subprocess.run(["rm", "-rf", str(mine), str(foreign)], check=True)
        one.release()


def test_without_a_run_there_is_nobody_to_ask(tmp_path: Path) -> None:
    state = StateDir(tmp_path)
    with pytest.raises(UnavailableError, match="chandlery up"):
        state.read_run()
    gone = subprocess.Popen(["true"])
    gone.wait()
    state.write_run(RunRecord(gone.pid, "r", "1", 0, "x"))
    with pytest.raises(UnavailableError, match="was killed"):
        state.read_run()
    state.write_run(RunRecord(os.getpid(), "r", "1", 0, "x"))
    assert state.read_run().pid == os.getpid()
    state.run_file.write_text("{")
    with pytest.raises(InputError):
        state.read_run()


def test_an_atomic_write_leaves_no_temporary_file(tmp_path: Path) -> None:
    for content in (b"one", b"two"):
        write_atomically(tmp_path / "file", content)
        assert (tmp_path / "file").read_bytes() == content
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_memory_is_read_from_smaps_rollup() -> None:
    own = memory_of(os.getpid())
    assert own is not None
    assert own.rss >= own.pss > 0
    assert memory_of(2**22 + 1) is None
    text = "00-ff ---p 00000000 00:00 0 [rollup]\nRss:   20 kB\nPss:   10 kB\nPss_Dirty:  4 kB\n"
    assert parse_smaps_rollup(text).rss == 20_480
    assert parse_smaps_rollup(text).pss == 10_240


def start_reaper(run: str, shm: Path, run_file: Path) -> tuple[subprocess.Popen[bytes], int]:
    read_end, write_end = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", reaper.__file__, run, str(shm), str(run_file)], stdin=read_end
    )
    os.close(read_end)
    return process, write_end


@pytest.mark.parametrize("grace_s", [0.3, 0.0], ids=["within the grace", "one look takes longer than the grace"])
def test_the_reaper_ends_what_does_not_end_by_itself_and_removes_its_memory(tmp_path: Path, grace_s: float) -> None:
    shm, run_file, run = tmp_path / "shm", tmp_path / "run.json", f"test-{os.getpid()}-{time.time_ns()}"
    (shm / "demo-0").mkdir(parents=True)
    (shm / "demo-0" / "segment").write_text("x")
    run_file.write_text("{}")
    stubborn = subprocess.Popen(
        [sys.executable, "-c", "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(600)"],
        env={**os.environ, RUN_VARIABLE: run},
    )
    script = (
        "import runpy, sys; sys.argv = ['reaper', *sys.argv[1:]];"
        f"import importlib.util as u; s = u.spec_from_file_location('r', {reaper.__file__!r});"
        f"r = u.module_from_spec(s); s.loader.exec_module(r); r._GRACE_S = {grace_s}; r.main()"
    )
    read_end, write_end = os.pipe()
    process = subprocess.Popen([sys.executable, "-c", script, run, str(shm), str(run_file)], stdin=read_end)
    os.close(read_end)
    try:
        os.close(write_end)  # what the kernel does when the parent is killed
        assert stubborn.wait(DEADLINE_S) == -signal.SIGKILL
        assert process.wait(DEADLINE_S) == 0
        assert not shm.exists()
        assert not run_file.exists()
    finally:
        stubborn.kill()
        stubborn.wait()


def test_the_reaper_touches_nothing_after_an_orderly_end(tmp_path: Path) -> None:
    shm = tmp_path / "shm"
    shm.mkdir()
    process, write_end = start_reaper("some-run", shm, tmp_path / "run.json")
    os.write(write_end, b"x")
    os.close(write_end)
    assert process.wait(DEADLINE_S) == 0
    assert shm.exists()


def test_the_reaper_ignores_the_signals_of_a_terminal(tmp_path: Path) -> None:
    process, write_end = start_reaper("some-run", tmp_path / "shm", tmp_path / "run.json")
    until(
        lambda: "SigIgn" in _ignored(process.pid) and int(_ignored(process.pid).split()[1], 16) & (1 << 14) > 0, "ready"
    )
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        process.send_signal(number)
    assert is_alive(process.pid)
    os.close(write_end)
    assert process.wait(DEADLINE_S) == 0


def _ignored(pid: int) -> str:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next((line for line in lines if line.startswith("SigIgn")), "")
