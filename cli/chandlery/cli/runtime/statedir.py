"""The state folder of a local instance: who holds it, where everything in it lies, what a killed run left.

::

    .chandlery/
      lock                 held (flock) by the running ``chandlery up``; contains its pid
      run.json             the running instance, see :class:`RunRecord`; absent when none runs
      broker/              the embedded broker's data
      logs/NAME.log        one log a process
      settings/NAME.json   the settings a process was started with
      assignments/W.json   the last assignment of each worker
      positions/FEED.json  where a source stood
      aggregator/FEED/     the aggregator's own files
      final/NAME.json      the last status of a process that ended in order
      rings/W/             signal rings and sockets of a worker
      s/NAME.sock          status sockets
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Final

import msgspec

from chandlery.cli.runtime import procfs
from chandlery.core.errors import InputError, MachineError, UnavailableError

#: A Unix socket's path must fit sockaddr_un: 108 bytes with the closing zero.
_SOCKET_PATH_BYTES: Final = 107
#: Room for the longest name below the state folder: ``rings/`` + a worker's name (63) + ``/windows.sock``.
_LONGEST_TAIL_BYTES: Final = len("/rings/") + 63 + len("/windows.sock")
SHM_ROOT: Final = Path("/dev/shm")
#: Set for every process of a run, so that what a killed run left can be found without any file.
RUN_VARIABLE: Final = "CHANDLERY_RUN"
# A killed process is gone within milliseconds, one of 1 GB within 0.1 s; fifty times that on a busy machine.
_END_RUN_S: Final = 5.0


class RunRecord(msgspec.Struct):
    """``run.json``: how other commands find the running instance.

    Attributes:
        pid: of ``chandlery up``. run: id of the run. started_ms: wall clock.
        api: path of the instance's own socket (``GET /v1/view``).
    """

    pid: int
    run: str
    version: str
    started_ms: int
    api: str


class StateDir:
    """Paths of a state folder; nothing is created before :meth:`acquire`."""

    def __init__(self, path: Path) -> None:
        self.root = path.absolute()
        self.key = hashlib.sha256(str(self.root.resolve()).encode()).hexdigest()[:8]
        self._lock_fd = -1
        self._short = self.root

    # Paths ------------------------------------------------------------------------------------------------

    @property
    def broker(self) -> Path:
        return self.root / "broker"

    @property
    def run_file(self) -> Path:
        return self.root / "run.json"

    def log(self, name: str) -> Path:
        return self.root / "logs" / f"{name}.log"

    def settings(self, name: str) -> Path:
        return self.root / "settings" / f"{name}.json"

    def assignment(self, worker: str) -> Path:
        return self.root / "assignments" / f"{worker}.json"

    def position(self, feed: str) -> Path:
        return self.root / "positions" / f"{feed}.json"

    def aggregator(self, feed: str) -> Path:
        return self.root / "aggregator" / feed

    def final(self, name: str) -> Path:
        return self.root / "final" / f"{name}.json"

    def rings(self, worker: str) -> Path:
        """Folder of a worker's rings and sockets, by a path short enough for sockets."""
        return self._short / "rings" / worker

    def socket(self, name: str) -> Path:
        """Path of a status socket, short enough."""
        return self._short / "s" / f"{name}.sock"

    def shm(self, run: str) -> Path:
        """Folder of a run's segments."""
        return SHM_ROOT / f"chandlery-{run}"

    # Holding it -------------------------------------------------------------------------------------------

    def new_run(self) -> str:
        """Id of a new run: the state's key and the start, base 36 of ms."""
        return f"{self.key}-{_base36(time.time_ns() // 1_000_000)}"

    def acquire(self) -> None:
        """Create the folder, take its lock, choose the short path for sockets.

        Raises:
            MachineError: another ``chandlery up`` holds it (names its pid), or it can't be written.
        """
        try:
            for name in ("logs", "settings", "assignments", "positions", "final", "rings", "s", "aggregator"):
                (self.root / name).mkdir(parents=True, exist_ok=True)
            self._lock_fd = os.open(self.root / "lock", os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise MachineError(f"{self.root}: can't use this state folder: {error.strerror}") from error
        try:
            fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            owner = os.pread(self._lock_fd, 32, 0).decode(errors="replace").strip() or "unknown"
            os.close(self._lock_fd)
            self._lock_fd = -1
            raise MachineError(
                f"{self.root} is in use by another `chandlery up` (pid {owner}): stop that one (kill {owner}), "
                "or choose another folder with --state"
            ) from error
        os.ftruncate(self._lock_fd, 0)
        os.pwrite(self._lock_fd, f"{os.getpid()}\n".encode(), 0)
        self._short = short_path(self.root, self.key)

    def release(self) -> None:
        """Let go of the lock; run.json goes with it."""
        if self._lock_fd >= 0:
            self.run_file.unlink(missing_ok=True)
            os.close(self._lock_fd)
            self._lock_fd = -1

    def leftovers(self) -> list[int]:
        """Processes of an earlier run over this state that still live (call with the lock held)."""
        return procfs.pids_with_variable(RUN_VARIABLE, f"{self.key}-")

    def end_run(self, run: str) -> None:
        """Kill what still belongs to a run (grandchildren of killed processes) and remove its shared memory."""
        deadline = time.monotonic() + _END_RUN_S
        while (left := procfs.pids_with_variable(RUN_VARIABLE, run)) and time.monotonic() < deadline:
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.02)
        shutil.rmtree(self.shm(run), ignore_errors=True)

    def sweep(self) -> list[str]:
        """Remove what a killed run left: segments, sockets, run.json. Call with the lock held and no leftovers.

        Returns:
            What was removed, one line each.
        """
        removed: list[str] = []
        for folder in SHM_ROOT.glob(f"chandlery-{self.key}-*"):
            shutil.rmtree(folder, ignore_errors=True)
            removed.append(f"{folder} (shared memory of a run that was killed)")
        for socket in [*(self.root / "s").glob("*.sock"), *(self.root / "rings").glob("*/*.sock")]:
            socket.unlink(missing_ok=True)
        self.run_file.unlink(missing_ok=True)
        for status in (self.root / "final").glob("*.json"):
            status.unlink(missing_ok=True)
        return removed

    def write_run(self, record: RunRecord) -> None:
        """Announce the running instance."""
        write_atomically(self.run_file, msgspec.json.encode(record))

    def read_run(self) -> RunRecord:
        """The running instance.

        Raises:
            UnavailableError: none runs over this state.
        """
        hint = f"nothing runs over {self.root}: start it with `chandlery up -f DIR --state {self.root}`"
        try:
            record = msgspec.json.decode(self.run_file.read_bytes(), type=RunRecord)
        except FileNotFoundError as error:
            raise UnavailableError(hint) from error
        except (OSError, msgspec.DecodeError) as error:
            raise InputError(f"{self.run_file}: can't be read: {error}") from error
        if not procfs.is_alive(record.pid):
            raise UnavailableError(f"{hint} (the last one, pid {record.pid}, was killed)")
        return record


def short_path(root: Path, key: str) -> Path:
    """A path to ``root`` under which sockets have legal names: itself, or a link to it in a folder of this user.

    Raises:
        MachineError: no such link can be made.
    """
    if len(os.fsencode(root)) + _LONGEST_TAIL_BYTES <= _SOCKET_PATH_BYTES:
        return root
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    # A runtime folder of great length would not help.
    base = Path(runtime) if runtime and len(runtime) < 24 and os.access(runtime, os.W_OK) else Path("/tmp")
    link = base / f"ch-{key}"
    try:
        if link.is_symlink() and link.lstat().st_uid == os.getuid() and link.readlink() == root:
            return link
        link.unlink(missing_ok=True)
        link.symlink_to(root)
    except OSError as error:
        raise MachineError(
            f"{root}: this path is too long for sockets, and {link} can't be made ({error.strerror}): "
            f"choose a state folder of at most {_SOCKET_PATH_BYTES - _LONGEST_TAIL_BYTES} bytes with --state"
        ) from error
    return link


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that readers see the old or the new one, whole, also after a crash."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _base36(number: int) -> str:
    digits = ""
    while number:
        number, digit = divmod(number, 36)
        digits = "0123456789abcdefghijklmnopqrstuvwxyz"[digit] + digits
    return digits or "0"
