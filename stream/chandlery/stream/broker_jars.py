"""Kafka's jars: 46 files, each known by sha256 and size, kept in the cache by version.

What comes from outside is only taken over when it is exactly what the lock says. A file is put in place by
rename, so that the cache never holds half a jar, and several processes may install at once.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from chandlery.core.errors import MachineError, UnavailableError
from chandlery.stream.broker_config import KAFKA_VERSION, PACKAGE_DATA
from chandlery.stream.broker_sources import Jar, Source, sources_of_machine

Progress = Callable[[str, float | None], None]

# Another process may be installing: 45 MB at 100 kB/s take 450 s.
_LOCK_DEADLINE_S: Final = 600.0
_LOCK_POLL_S: Final = 0.2
_READ_BYTES: Final = 1 << 20


def locked_jars(version: str = KAFKA_VERSION) -> tuple[Jar, ...]:
    """The jars of a Kafka version, in class path order."""
    text = (PACKAGE_DATA / f"jars-{version}.lock").read_text(encoding="ascii")
    rows = (line.split() for line in text.splitlines() if line.strip())
    return tuple(Jar(path, sha256, int(size)) for path, sha256, size in rows)


def cache_root(cache_dir: Path | None = None) -> Path:
    """Chandlery's cache folder: as given, else ``CHANDLERY_CACHE``, else ``chandlery`` in the user's cache."""
    if cache_dir is not None:
        return cache_dir
    if own := os.environ.get("CHANDLERY_CACHE"):
        return Path(own)
    user = os.environ.get("XDG_CACHE_HOME")
    return (Path(user) if user else Path.home() / ".cache") / "chandlery"


def kafka_cache(cache_dir: Path | None = None) -> Path:
    """Folder of this Kafka version in the cache."""
    return cache_root(cache_dir) / f"kafka-{KAFKA_VERSION}"


def fault_of(jar: Jar, file: Path) -> str:
    """What is wrong with a file that should be ``jar``; empty when nothing is."""
    try:
        size = file.stat().st_size
        if size != jar.size_bytes:
            return f"{jar.name} has {size} bytes, {jar.size_bytes} expected"
        digest = hashlib.sha256()
        with file.open("rb") as stream:
            while chunk := stream.read(_READ_BYTES):
                digest.update(chunk)
    except FileNotFoundError:
        return f"{jar.name} is missing"
    except OSError as error:
        return f"{jar.name} can't be read: {error.strerror}"
    if digest.hexdigest() != jar.sha256:
        return f"{jar.name} has sha256 {digest.hexdigest()}, {jar.sha256} expected"
    return ""


def missing_jars(folder: Path, jars: tuple[Jar, ...]) -> list[Jar]:
    """Those of ``jars`` that aren't in ``folder`` whole and intact."""
    return [jar for jar in jars if fault_of(jar, folder / jar.name)]


@contextmanager
def _install_lock(folder: Path, cancelled: threading.Event) -> Iterator[None]:
    """Hold the folder's install lock, so that of several processes one downloads and the others wait."""
    with (folder / "install.lock").open("w") as lock:
        deadline = time.monotonic() + _LOCK_DEADLINE_S
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise UnavailableError(
                        f"{folder}: another process has been installing Kafka for {_LOCK_DEADLINE_S:.0f} s"
                    ) from None
                if cancelled.wait(_LOCK_POLL_S):
                    raise UnavailableError("the installation of Kafka was cancelled") from None
            else:
                break
        yield


class _Installation:
    """One run of :func:`install_jars`: takes candidate files in, from several threads, and counts."""

    def __init__(self, folder: Path, jars: list[Jar], progress: Progress | None, cancelled: threading.Event) -> None:
        self._folder = folder
        self._progress = progress
        self._total_bytes = sum(jar.size_bytes for jar in jars)
        self._done: set[str] = set()
        self._done_bytes = 0
        self._lock = threading.Lock()
        self.faults: list[str] = []
        self.cancelled = cancelled

    def accept(self, jar: Jar, candidate: Path, *, source: str) -> bool:
        """Take ``candidate`` (a file in ``folder`` or elsewhere) over as ``jar`` if it is exactly that."""
        draft = self._folder / f".{jar.name}.{os.getpid()}.{threading.get_ident()}"
        try:
            draft.write_bytes(candidate.read_bytes())
        except FileNotFoundError:
            return False
        except OSError as error:
            draft.unlink(missing_ok=True)
            raise MachineError(f"{self._folder}: can't store {jar.name}: {error.strerror}") from error
        # The copy is judged, not the original: what is checked is what will run.
        fault = fault_of(jar, draft)
        if fault:
            draft.unlink(missing_ok=True)
            with self._lock:
                self.faults.append(f"{source}: {fault}")
            return False
        draft.rename(self._folder / jar.name)
        self.announce(jar, source=source)
        return True

    def announce(self, jar: Jar, *, source: str) -> None:
        """Count a jar as fetched, once."""
        with self._lock:
            if jar.name in self._done:
                return
            self._done.add(jar.name)
            self._done_bytes += jar.size_bytes
            fraction = self._done_bytes / self._total_bytes
        if self._progress is not None:
            self._progress(f"Kafka {KAFKA_VERSION}: {jar.name} ({source})", fraction)


def install_jars(
    folder: Path,
    *,
    progress: Progress | None = None,
    cancelled: threading.Event | None = None,
    jars: tuple[Jar, ...] | None = None,
    sources: Sequence[Source] | None = None,
) -> list[Path]:
    """Make sure that every jar is in ``folder``, whole and intact; blocks, so call it in a thread.

    Args:
        folder: the version's folder in the cache; made when absent.
        progress: called with a line and the fraction of missing bytes there, from several threads.
        cancelled: set it to end early.
        jars: which jars; the version's lock by default.
        sources: where they may come from, in order of trial; what the machine offers by default.

    Returns:
        Paths of all jars, in class path order.

    Raises:
        UnavailableError: no source gave all of them; says what each source answered and what to do.
        MachineError: the folder can't be written.
    """
    wanted = locked_jars() if jars is None else jars
    cancelled = cancelled or threading.Event()
    missing = missing_jars(folder, wanted)
    if missing:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with _install_lock(folder, cancelled):
                missing = missing_jars(folder, wanted)
                if missing:
                    _install_missing(
                        folder, missing, progress, cancelled, sources_of_machine() if sources is None else sources
                    )
        except OSError as error:
            raise MachineError(
                f"{folder}: can't store Kafka's jars: {error.strerror}; set CHANDLERY_CACHE to a folder with room"
            ) from error
    return [folder / jar.name for jar in wanted]


def _install_missing(
    folder: Path, missing: list[Jar], progress: Progress | None, cancelled: threading.Event, sources: Sequence[Source]
) -> None:
    installation = _Installation(folder, missing, progress, cancelled)
    answers: list[str] = []
    for source in sources:
        if progress is not None:
            progress(f"Kafka {KAFKA_VERSION}: asking {source.name} for {len(missing)} jars", None)
        try:
            source.fetch(missing, installation)
        except UnavailableError as error:
            answers.append(f"{source.name}: {error}")
        missing = missing_jars(folder, tuple(missing))
        if not missing:
            return
        if cancelled.is_set():
            raise UnavailableError("the installation of Kafka was cancelled")
    said = "; ".join([*answers, *installation.faults[:3]]) or "nobody to ask"
    raise UnavailableError(
        f"{len(missing)} of Kafka's jars can't be had ({missing[0].name} …): {said}. Check the network, install "
        "Maven (mvn) or `pip install jgo`, or set CHANDLERY_MAVEN_REPOSITORY to the address of a Maven repository"
    )
