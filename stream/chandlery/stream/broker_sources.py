"""Where Kafka's jars may come from: what Maven has already, a configured repository, Maven itself, or jgo.

Maven and jgo know the public repository, and the mirrors, proxies and credentials set up for them; that is
why no address stands here. ``CHANDLERY_MAVEN_REPOSITORY`` names one for machines that have neither, or that
must not ask the public one. Nothing is trusted: whoever receives a file checks it.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
import threading
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.client import HTTPException
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Final, NamedTuple, Protocol
from xml.sax.saxutils import escape

from chandlery.core.errors import UnavailableError

_THREADS: Final = 8
# A repository that sends nothing for this long is given up; a slow one keeps sending.
_SILENCE_TIMEOUT_S: Final = 30.0
_POLL_S: Final = 0.1
_DOWNLOADED: Final = re.compile(r"Downloaded .*/([^/\s]+\.jar)\b")
_MAVEN_GOAL: Final = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"


class Jar(NamedTuple):
    """One jar of the lock: its path in any Maven repository, and what it must be."""

    path: str
    sha256: str
    size_bytes: int

    @property
    def name(self) -> str:
        """File name, unique among the jars."""
        return self.path.rpartition("/")[2]

    @property
    def coordinates(self) -> tuple[str, str, str]:
        """Maven's (group, artifact, version)."""
        *group, artifact, version, _ = self.path.split("/")
        return ".".join(group), artifact, version


class Receiver(Protocol):
    """Takes candidate files in; may be called from several threads."""

    cancelled: threading.Event

    def accept(self, jar: Jar, candidate: Path, *, source: str) -> bool:
        """Take ``candidate`` over if it is exactly ``jar``; an absent file is no candidate."""

    def announce(self, jar: Jar, *, source: str) -> None:
        """Tell that ``jar`` was fetched, by a source that hands all over at its end."""


class Source(Protocol):
    """One place to get jars from."""

    @property
    def name(self) -> str:
        """What to call it in a message."""

    def fetch(self, jars: Sequence[Jar], receiver: Receiver) -> None:
        """Offer the receiver what there is of ``jars``.

        Raises:
            UnavailableError: the source gave nothing, or not all, and why.
        """


@dataclass
class LocalRepository:
    """Maven's own cache on this machine: costs nothing to ask."""

    folder: Path
    name: str = "the local Maven repository"

    def fetch(self, jars: Sequence[Jar], receiver: Receiver) -> None:
        for jar in jars:
            receiver.accept(jar, self.folder / jar.path, source="local Maven repository")


@dataclass
class RemoteRepository:
    """A Maven repository by its address (``https:``, ``http:`` or ``file:``), eight files at a time."""

    address: str

    @property
    def name(self) -> str:
        return self.address

    def fetch(self, jars: Sequence[Jar], receiver: Receiver) -> None:
        with tempfile.TemporaryDirectory(prefix="chandlery-jars-") as folder:

            def download(jar: Jar) -> None:
                if receiver.cancelled.is_set():
                    return
                candidate = Path(folder, jar.name)
                self._download(jar, candidate, receiver.cancelled)
                receiver.accept(jar, candidate, source=self.address)

            _each(download, jars)

    def _download(self, jar: Jar, into: Path, cancelled: threading.Event) -> None:
        request = urllib.request.Request(f"{self.address.rstrip('/')}/{jar.path}", headers={"User-Agent": "chandlery"})
        try:
            with urllib.request.urlopen(request, timeout=_SILENCE_TIMEOUT_S) as answer, into.open("wb") as file:
                # One byte more than expected is enough to know that it is another file.
                left = jar.size_bytes + 1
                while left > 0 and not cancelled.is_set() and (chunk := answer.read(min(left, 1 << 18))):
                    file.write(chunk)
                    left -= len(chunk)
        except (OSError, HTTPException, ValueError) as error:
            # urllib's URLError is an OSError; ValueError: no address at all.
            raise UnavailableError(f"{jar.name}: {error}") from error


@dataclass
class Maven:
    """``mvn`` as it is set up on this machine, with its mirrors, proxies and credentials."""

    command: str
    name: str = "Maven"

    def fetch(self, jars: Sequence[Jar], receiver: Receiver) -> None:
        with tempfile.TemporaryDirectory(prefix="chandlery-maven-") as folder:
            pom = Path(folder, "pom.xml")
            pom.write_text(project_of(jars), encoding="utf-8")
            into = Path(folder, "jars")
            words = [self.command, "-B", "-f", str(pom), _MAVEN_GOAL, f"-DoutputDirectory={into}"]
            by_name = {jar.name: jar for jar in jars}

            def heard(line: str) -> None:
                # "[INFO] Downloaded from central: https://…/NAME.jar (1.0 MB at 2 MB/s)"
                match = _DOWNLOADED.search(line)
                if match and match.group(1) in by_name:
                    receiver.announce(by_name[match.group(1)], source="Maven")

            said = _run(words, receiver.cancelled, heard)
            for jar in jars:
                receiver.accept(jar, into / jar.name, source="Maven")
            if said:
                raise UnavailableError(said)


@dataclass
class Jgo:
    """jgo, a Maven client in Python: needs no Java and no Maven to resolve."""

    name: str = "jgo"

    def fetch(self, jars: Sequence[Jar], receiver: Receiver) -> None:
        # By name: it is optional, and typed only where it is installed.
        context = import_module("jgo.maven").MavenContext(timeout=int(_SILENCE_TIMEOUT_S))

        def resolve(jar: Jar) -> None:
            if receiver.cancelled.is_set():
                return
            group, artifact, version = jar.coordinates
            try:
                candidate = context.project(group, artifact).at_version(version).artifact().resolve()
            except (OSError, RuntimeError, ValueError) as error:
                # Its HTTP errors are requests' own, which are OSErrors.
                raise UnavailableError(f"{jar.name}: {error}") from error
            receiver.accept(jar, Path(candidate), source="jgo")

        _each(resolve, jars)


def sources_of_machine() -> list[Source]:
    """What this machine offers, in order of trial."""
    return list(_sources())


def _sources() -> Iterator[Source]:
    local = Path(os.environ.get("M2_REPO") or Path.home() / ".m2" / "repository")
    if local.is_dir():
        yield LocalRepository(local)
    address = os.environ.get("CHANDLERY_MAVEN_REPOSITORY")
    if address:
        # Whoever names a repository means that one, and no other.
        yield RemoteRepository(address)
        return
    if command := shutil.which("mvn"):
        yield Maven(command)
    if find_spec("jgo") is not None:
        yield Jgo()


def project_of(jars: Sequence[Jar]) -> str:
    """A Maven project that depends on exactly these jars and nothing behind them."""
    nothing_behind = "<exclusions><exclusion><groupId>*</groupId><artifactId>*</artifactId></exclusion></exclusions>"
    dependencies = "".join(
        "<dependency>"
        f"<groupId>{escape(group)}</groupId><artifactId>{escape(artifact)}</artifactId>"
        f"<version>{escape(version)}</version>{nothing_behind}"
        "</dependency>\n"
        for group, artifact, version in (jar.coordinates for jar in jars)
    )
    return (
        "<project><modelVersion>4.0.0</modelVersion><groupId>dev.chandlery</groupId>"
        "<artifactId>embedded-kafka</artifactId><version>1</version><packaging>pom</packaging>\n"
        f"<dependencies>\n{dependencies}</dependencies></project>\n"
    )


def _each(work: Callable[[Jar], None], jars: Sequence[Jar]) -> None:
    """Run ``work`` for each jar, eight at a time; all are tried, then the first failure is raised."""
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="jars") as pool:
        futures = [pool.submit(work, jar) for jar in jars]
    for future in futures:
        future.result()


def _run(words: list[str], cancelled: threading.Event, heard: Callable[[str], None]) -> str:
    """Run a command to its end, or until cancelled, and tell each line it says.

    Returns:
        Its complaint, empty when it succeeded.
    """
    try:
        process = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
        )
    except OSError as error:
        return f"{words[0]}: {error.strerror}"
    errors: list[str] = []

    def listen() -> None:
        for line in process.stdout or ():
            heard(line)
            if "ERROR" in line:
                errors.append(line.strip())

    listener = threading.Thread(target=listen, name="maven-output")
    listener.start()
    while process.poll() is None:
        if cancelled.wait(_POLL_S):
            process.terminate()
            process.wait()
    listener.join()
    if process.stdout is not None:
        process.stdout.close()
    if process.returncode == 0:
        return ""
    return errors[0] if errors else f"{Path(words[0]).name} ended with code {process.returncode}"
