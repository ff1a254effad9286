"""``chandlery up`` and ``doctor`` where shared memory is too small or can't be written: they say what to change."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from tests.runtime.up_process import trader, write_manifests
from tests.segment.segment_mounts import lacks_mounts, mounted, read_only

from chandlery.cli import doctor
from chandlery.stream.broker import EmbeddedBroker


def with_shm(mount: str, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a mount namespace of its own, /dev/shm mounted by ``mount``.

    Where that is forbidden the test is skipped, and fails in CI.
    """
    allowed = subprocess.run(["unshare", "-m", "sh", "-c", mount], capture_output=True, text=True)
    if allowed.returncode:
        lacks_mounts(allowed.stderr)
    return subprocess.run(
        ["unshare", "-m", "sh", "-c", f"{mount} && exec {shlex.join(command)}"], capture_output=True, text=True
    )


@pytest.mark.parametrize(
    ("ci", "outcome"), [("", pytest.skip.Exception), ("true", pytest.fail.Exception)], ids=["here", "in CI"]
)
def test_where_mounting_is_forbidden_tests_of_it_are_skipped_and_fail_in_ci(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ci: str, outcome: type[BaseException]
) -> None:
    monkeypatch.setenv("CI", ci)
    for name in ("unshare", "mount"):
        forbidding = tmp_path / name
        forbidding.write_text("#!/bin/sh\necho 'Operation not permitted' >&2\nexit 1\n")
        forbidding.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(
        outcome,
        match=r"^needs the right to mount .* CAP_SYS_ADMIN.*: Operation not permitted(; in CI it must be there)?$",
    ):
        with_shm(SMALL, "true")
    with pytest.raises(outcome, match="Operation not permitted"), mounted(tmp_path / "place", "size=1m"):
        raise AssertionError("it was mounted")


SMALL = "mount -t tmpfs -o size=2m tmpfs /dev/shm"
READ_ONLY = "mount -t tmpfs -o ro tmpfs /dev/shm"


@pytest.mark.broker
@pytest.mark.parametrize(
    ("mount", "words"),
    [
        (
            SMALL,
            [
                "exit code 3",
                "may need 59.9 MB for 512 series of 1000 rows",
                "has 2.1 MB in all",
                "lower the pool's segment.candles",
            ],
        ),
        (READ_ONLY, ["can't make the segment's folder: Read-only file system", "/dev/shm must be a tmpfs", "doctor"]),
    ],
    ids=["small", "read-only"],
)
def test_up_ends_with_what_to_change(tmp_path: Path, broker: EmbeddedBroker, mount: str, words: list[str]) -> None:
    manifests = write_manifests(tmp_path / "manifests", one=trader("one"))
    command = [sys.executable, "-m", "chandlery.cli", "up", "-f", str(manifests), "--state", str(tmp_path / "state")]
    done = with_shm(mount, *command, "--console", "off", "--kafka", broker.bootstrap, "--for", "30s")
    assert done.returncode == 3, done.stdout + done.stderr
    (error,) = [line for line in done.stderr.splitlines() if line.startswith("chandlery: ")]
    assert all(word in error for word in words), error
    assert "Traceback" not in done.stderr


def looked_at(shm: Path) -> str:
    """What doctor says of shared memory, as one line."""
    checks = [
        doctor.check_shared_memory(shm, doctor.default_segment_bytes()),
        doctor.check_mapping(shm),
        doctor.check_futex(shm),
    ]
    return " ".join(doctor.render(checks, json=False).split())


def test_doctor_says_that_shared_memory_is_read_only_and_blames_nothing_else(tmp_path: Path) -> None:
    with mounted(tmp_path / "mount", "size=1m") as folder, read_only(folder, tmp_path / "view") as view:
        found = looked_at(view)
    assert f"FAIL shared memory {view} is mounted read-only → mount -o remount,rw {view}" in found
    assert f"FAIL mapping {view}: Read-only file system → mend the shared memory first" in found
    assert "FAIL futex the C extension: Read-only file system → mend the shared memory first" in found


def test_doctor_says_that_shared_memory_is_full_and_blames_nothing_else(tmp_path: Path) -> None:
    with mounted(tmp_path / "mount", "size=64k") as folder:
        (folder / "full").write_bytes(bytes(64 * 1024))
        found = looked_at(folder)
    assert f"FAIL shared memory {folder}: 0 MiB free of 0 MiB; a default segment takes 57 MiB → make room" in found
    assert f"FAIL mapping {folder}: No space left on device → mend the shared memory first" in found
    assert "FAIL futex" in found
    assert "seccomp" not in found


def test_doctor_tells_a_folder_that_this_user_may_not_write_as_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    check = doctor.check_shared_memory(tmp_path, 1)
    assert (check.ok, check.found, check.advice) == (
        False,
        f"{tmp_path} can't be written by this user",
        f"chmod 1777 {tmp_path}",
    )
