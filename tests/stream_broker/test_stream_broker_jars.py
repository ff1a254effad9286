"""Kafka's jars: only what the lock says is taken in, from wherever it comes."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from xml.etree import ElementTree

import pytest

from chandlery.core.errors import MachineError, UnavailableError
from chandlery.stream.broker_config import KAFKA_VERSION, PACKAGE_DATA
from chandlery.stream.broker_jars import cache_root, fault_of, install_jars, locked_jars, missing_jars
from chandlery.stream.broker_sources import (
    Jar,
    Jgo,
    LocalRepository,
    Maven,
    Receiver,
    RemoteRepository,
    Source,
    project_of,
    sources_of_machine,
)


def jar_of(name: str, content: bytes) -> Jar:
    return Jar(f"org/example/{name}/1.0/{name}-1.0.jar", hashlib.sha256(content).hexdigest(), len(content))


CONTENT = {f"part-{number}": bytes([number]) * 5_000 for number in range(12)}
JARS = tuple(jar_of(name, content) for name, content in CONTENT.items())


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A Maven repository with all of JARS."""
    folder = tmp_path / "repository"
    for jar, content in zip(JARS, CONTENT.values(), strict=True):
        (folder / jar.path).parent.mkdir(parents=True)
        (folder / jar.path).write_bytes(content)
    return folder


class _Quiet(SimpleHTTPRequestHandler):
    asked: list[str] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        super().do_GET()

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def served(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """The folder by HTTP: its address, and the paths asked for so far."""
    asked: list[str] = []
    handler = type("_Handler", (_Quiet,), {"asked": asked})
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/", asked
        finally:
            server.shutdown()
            thread.join()


def test_a_download_fills_the_cache_and_tells_its_progress(tmp_path: Path, repository: Path) -> None:
    told: list[tuple[str, float | None]] = []
    with served(repository) as (address, _):
        paths = install_jars(
            tmp_path / "cache",
            jars=JARS,
            sources=[RemoteRepository(address)],
            progress=lambda line, fraction: told.append((line, fraction)),
        )
    assert [path.read_bytes() for path in paths] == list(CONTENT.values())
    fractions = sorted(fraction for _, fraction in told if fraction is not None)
    assert fractions == pytest.approx([(number + 1) / 12 for number in range(12)])
    assert {file.name for file in (tmp_path / "cache").iterdir()} == {jar.name for jar in JARS} | {"install.lock"}


def test_a_second_installation_asks_nobody(tmp_path: Path, repository: Path) -> None:
    install_jars(tmp_path / "cache", jars=JARS, sources=[LocalRepository(repository)])
    install_jars(tmp_path / "cache", jars=JARS, sources=[])


def test_an_interrupted_download_goes_on_with_what_is_missing(tmp_path: Path, repository: Path) -> None:
    gone = repository / JARS[4].path
    hidden = gone.rename(gone.with_suffix(".hidden"))
    with served(repository) as (address, asked):
        with pytest.raises(UnavailableError, match=r"1 of Kafka's jars can't be had \(part-4-1.0.jar"):
            install_jars(tmp_path / "cache", jars=JARS, sources=[RemoteRepository(address)])
        hidden.rename(gone)
        asked.clear()
        install_jars(tmp_path / "cache", jars=JARS, sources=[RemoteRepository(address)])
    assert asked == [f"/{JARS[4].path}"]


@pytest.mark.parametrize(
    "damage",
    [b"", b"short", bytes(4_999) + b"x", bytes(5_001)],
    ids=["empty", "truncated", "altered", "too long"],
)
def test_a_damaged_jar_in_the_cache_is_fetched_again(tmp_path: Path, repository: Path, damage: bytes) -> None:
    cache = tmp_path / "cache"
    install_jars(cache, jars=JARS, sources=[LocalRepository(repository)])
    (cache / JARS[3].name).write_bytes(damage)
    assert missing_jars(cache, JARS) == [JARS[3]]
    install_jars(cache, jars=JARS, sources=[LocalRepository(repository)])
    assert missing_jars(cache, JARS) == []


def test_a_repository_that_serves_another_file_is_refused_by_its_digest(tmp_path: Path, repository: Path) -> None:
    evil = bytes(5_000)
    (repository / JARS[7].path).write_bytes(evil)
    with served(repository) as (address, _), pytest.raises(UnavailableError) as caught:
        install_jars(tmp_path / "cache", jars=JARS, sources=[RemoteRepository(address)])
    assert f"part-7-1.0.jar has sha256 {hashlib.sha256(evil).hexdigest()}, {JARS[7].sha256} expected" in str(
        caught.value
    )
    assert not (tmp_path / "cache" / JARS[7].name).exists()
    assert not list((tmp_path / "cache").glob(".*")), "a refused draft was left behind"


def test_the_next_source_fills_what_the_first_one_lacks(tmp_path: Path, repository: Path) -> None:
    half = tmp_path / "half"
    for jar in JARS[::2]:
        (half / jar.path).parent.mkdir(parents=True)
        (half / jar.path).write_bytes((repository / jar.path).read_bytes())
    with served(repository) as (address, asked):
        install_jars(tmp_path / "cache", jars=JARS, sources=[LocalRepository(half), RemoteRepository(address)])
    assert sorted(asked) == sorted(f"/{jar.path}" for jar in JARS[1::2])


def test_a_refusing_repository_is_named_with_its_answer(tmp_path: Path, repository: Path) -> None:
    (tmp_path / "empty").mkdir()
    with served(tmp_path / "empty") as (address, _), pytest.raises(UnavailableError) as caught:
        install_jars(tmp_path / "cache", jars=JARS, sources=[RemoteRepository(address)])
    assert address in str(caught.value)
    assert "404" in str(caught.value)


def test_two_installations_at_once_fetch_each_jar_once(tmp_path: Path, repository: Path) -> None:
    with served(repository) as (address, asked):
        threads = [
            threading.Thread(
                target=install_jars,
                args=(tmp_path / "cache",),
                kwargs={"jars": JARS, "sources": [RemoteRepository(address)]},
            )
            for _ in range(3)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(asked) == sorted(f"/{jar.path}" for jar in JARS)
    assert missing_jars(tmp_path / "cache", JARS) == []


def test_a_cancelled_installation_stops_asking(tmp_path: Path) -> None:
    cancelled = threading.Event()

    class Cancelling:
        name = "one that is cancelled meanwhile"

        def fetch(self, jars: Sequence[Jar], receiver: Receiver) -> None:
            cancelled.set()

    class Never:
        name = "one that must not be asked"

        def fetch(self, jars: Sequence[Jar], receiver: Receiver) -> None:
            pytest.fail("asked after the cancellation")

    sources: list[Source] = [Cancelling(), Never()]
    with pytest.raises(UnavailableError, match="cancelled"):
        install_jars(tmp_path / "cache", jars=JARS, sources=sources, cancelled=cancelled)


def test_a_cache_that_cannot_be_made_is_a_machine_error(tmp_path: Path, repository: Path) -> None:
    (tmp_path / "cache").write_text("in the way")
    with pytest.raises(MachineError, match="CHANDLERY_CACHE"):
        install_jars(tmp_path / "cache", jars=JARS, sources=[LocalRepository(repository)])


def test_maven_is_run_with_exactly_the_missing_jars_and_its_complaint_is_told(tmp_path: Path, repository: Path) -> None:
    """A stand-in for mvn that copies from the repository what the project asks for, then fails."""
    told: list[tuple[str, float | None]] = []
    command = tmp_path / "mvn"
    command.write_text(
        "#!/bin/sh\n"
        'for word; do case "$word" in -DoutputDirectory=*) into="${word#*=}";; */pom.xml) pom="$word";; esac; done\n'
        'mkdir -p "$into"\n'
        f'for name in $(sed -n "s:.*<artifactId>\\(part-[0-9]*\\)<.*:\\1:p" "$pom" | grep -v part-2); do\n'
        '  echo "[INFO] Downloaded from central: https://maven.example/$name-1.0.jar (5 kB at 1 MB/s)"\n'
        f'  cp "{repository}/org/example/$name/1.0/$name-1.0.jar" "$into/"\n'
        "done\n"
        "echo '[ERROR] no part-2 anywhere'; exit 1\n"
    )
    command.chmod(0o755)
    install_jars(tmp_path / "cache", jars=JARS[:1], sources=[LocalRepository(repository)])
    with pytest.raises(UnavailableError, match=r"1 of Kafka's jars.*Maven: \[ERROR\] no part-2 anywhere"):
        install_jars(
            tmp_path / "cache",
            jars=JARS,
            sources=[Maven(str(command))],
            progress=lambda line, fraction: told.append((line, fraction)),
        )
    fractions = [fraction for _, fraction in told if fraction is not None]
    assert fractions == pytest.approx([(number + 1) / 11 for number in range(10)]), "not once a jar, as Maven has it"
    assert missing_jars(tmp_path / "cache", JARS) == [JARS[2]]


def test_a_project_for_maven_excludes_what_stands_behind_each_jar() -> None:
    root = ElementTree.fromstring(project_of(JARS[:2]))
    dependencies = root.findall("dependencies/dependency")
    assert [
        (entry.findtext("groupId"), entry.findtext("artifactId"), entry.findtext("version")) for entry in dependencies
    ] == [
        ("org.example", "part-0", "1.0"),
        ("org.example", "part-1", "1.0"),
    ]
    assert all(entry.findtext("exclusions/exclusion/artifactId") == "*" for entry in dependencies)


def test_a_named_repository_is_the_only_one_asked_beside_the_local_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("M2_REPO", str(tmp_path))
    monkeypatch.setenv("CHANDLERY_MAVEN_REPOSITORY", "https://mirror.example/maven")
    assert sources_of_machine() == [LocalRepository(tmp_path), RemoteRepository("https://mirror.example/maven")]


def test_without_one_maven_comes_before_jgo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mvn").write_text("#!/bin/sh\n")
    (tmp_path / "mvn").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("M2_REPO", str(tmp_path / "absent"))
    monkeypatch.delenv("CHANDLERY_MAVEN_REPOSITORY", raising=False)
    monkeypatch.setattr("chandlery.stream.broker_sources.find_spec", lambda name: name)
    assert sources_of_machine() == [Maven(str(tmp_path / "mvn")), Jgo()]
    monkeypatch.setattr("chandlery.stream.broker_sources.find_spec", lambda name: None)
    monkeypatch.setenv("PATH", "")
    assert sources_of_machine() == []


def test_nobody_to_ask_is_said_with_the_ways_out(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match=r"nobody to ask.*install Maven \(mvn\) or `pip install jgo`"):
        install_jars(tmp_path / "cache", jars=JARS, sources=[])


def test_the_cache_folder_follows_its_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("CHANDLERY_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_root() == tmp_path / ".cache" / "chandlery"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_root() == tmp_path / "xdg" / "chandlery"
    monkeypatch.setenv("CHANDLERY_CACHE", str(tmp_path / "own"))
    assert cache_root() == tmp_path / "own"
    assert cache_root(tmp_path / "given") == tmp_path / "given"


def test_the_lock_is_whole() -> None:
    jars = locked_jars()
    assert len(jars) == 46
    assert len({jar.name for jar in jars}) == 46, "two jars would take one file's place"
    assert all(len(bytes.fromhex(jar.sha256)) == 32 and jar.size_bytes > 0 for jar in jars)
    assert ("org.apache.kafka", "kafka_2.13", KAFKA_VERSION) in [jar.coordinates for jar in jars]
    assert (PACKAGE_DATA / f"bootstrap-{KAFKA_VERSION}.checkpoint").stat().st_size == 411


def test_a_fault_names_what_is_wrong(tmp_path: Path) -> None:
    jar = JARS[1]
    assert fault_of(jar, tmp_path / "absent") == "part-1-1.0.jar is missing"
    (tmp_path / "jar").write_bytes(b"x")
    assert fault_of(jar, tmp_path / "jar") == "part-1-1.0.jar has 1 bytes, 5000 expected"
    (tmp_path / "jar").write_bytes(CONTENT["part-1"])
    assert fault_of(jar, tmp_path / "jar") == ""


def test_a_cancelled_maven_is_ended(tmp_path: Path) -> None:
    command = tmp_path / "mvn"
    command.write_text('#!/bin/sh\necho $$ > "$0.pid"\nexec sleep 600\n')
    command.chmod(0o755)
    cancelled = threading.Event()
    failure: list[Exception] = []

    def install() -> None:
        try:
            install_jars(tmp_path / "cache", jars=JARS, sources=[Maven(str(command))], cancelled=cancelled)
        except UnavailableError as error:
            failure.append(error)

    thread = threading.Thread(target=install)
    thread.start()
    pid_file = tmp_path / "mvn.pid"
    deadline = time.monotonic() + 30
    while not (pid_file.exists() and pid_file.read_text().strip()):
        assert time.monotonic() < deadline, "Maven was never started"
        time.sleep(0.01)
    cancelled.set()
    thread.join(30)
    assert "cancelled" in str(failure)
    assert not Path("/proc", pid_file.read_text().strip()).exists()
