"""The console as a process of `chandlery up`: where it listens, and what becomes of one that doesn't start."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.support.free_ports import free_ports

from chandlery.cli.runtime import console_process
from chandlery.cli.runtime.console_process import ConsoleOptions, ConsoleProcess, console_options, listening_at
from chandlery.cli.runtime.metrics_ports import MetricsPorts
from chandlery.cli.runtime.options import UpOptions
from chandlery.cli.runtime.statedir import StateDir
from chandlery.console.settings import ConsoleSettings
from chandlery.core.errors import InputError, MachineError
from chandlery.core.settings import read_settings


@pytest.fixture
def state(tmp_path: Path) -> Iterator[StateDir]:
    folder = StateDir(tmp_path / "s")
    folder.acquire()
    yield folder
    folder.release()


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        yield holder.getsockname()[1]


def console(state: StateDir, asked: ConsoleOptions, **options: object) -> ConsoleProcess:
    made = UpOptions(manifests=("m", "-"), state=state.root, console=asked)
    return ConsoleProcess(made if not options else UpOptions(**{**vars(made), **options}), asked, state)


async def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, f"not within 20 s: {what}"
        await asyncio.sleep(0.02)


def test_what_is_no_address_is_told_before_anything_starts(tmp_path: Path) -> None:
    for text in ("8420", "localhost", "unix:/x", ":8420", "on", "host:port", "127.0.0.1:99999"):
        with pytest.raises(InputError, match="--console"):
            console_options(text, None, "")
    with pytest.raises(InputError, match="--trace-url"):
        console_options(None, None, "jaeger/trace")
    assert console_options("off", None, "") is None
    assert console_options(None, None, "http://j/{trace_id}") == ConsoleOptions(trace_url="http://j/{trace_id}")
    assert console_options("[::1]:0", None, "") == ConsoleOptions("[::1]", 0)


def test_what_others_can_reach_needs_a_token(tmp_path: Path) -> None:
    for text in ("0.0.0.0:8420", "[::]:8420", "192.0.2.1:80", "desk.example.com:8420"):
        with pytest.raises(InputError, match="--console-token-file"):
            console_options(text, None, "")
    token = tmp_path / "token"
    for content in (None, "", "  \n"):
        if content is not None:
            token.write_text(content)
        with pytest.raises(InputError, match="token"):
            console_options("0.0.0.0:8420", token, "")
    token.write_text("secret\n")
    assert console_options("0.0.0.0:8420", token, "") == ConsoleOptions("0.0.0.0", 8420, token)


def test_a_named_port_that_is_taken_or_no_address_of_this_machine_is_refused(taken: int, state: StateDir) -> None:
    with pytest.raises(MachineError, match=f"port {taken}.*held by pid {os.getpid()}"):
        console(state, ConsoleOptions(port=taken)).choose()
    with pytest.raises(InputError, match="no address of this machine"):
        listening_at("192.0.2.1", 8420)
    with pytest.raises(InputError, match="no address of this machine"):
        listening_at("no-such-host.invalid", 8420)


def test_where_no_port_was_named_the_next_free_one_is_taken_and_told(
    state: StateDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = free_ports(3)
    monkeypatch.setattr(console_process, "PORTS", range(first, first + 2))
    one = console(state, ConsoleOptions())
    one.choose()
    assert (one.address, one.row().message, one.notices) == (f"http://127.0.0.1:{first}", "", [])
    one.let_go()
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", first))
        holder.listen()
        two = console(state, ConsoleOptions())
        two.choose()
        assert two.address == f"http://127.0.0.1:{first + 1}"
        assert f"port {first} is held by pid {os.getpid()}" in two.row().message
        assert two.notices == []
        two.let_go()
        with socket.socket() as other:
            other.bind(("127.0.0.1", first + 1))
            other.listen()
            three = console(state, ConsoleOptions())
            three.choose()
            assert three.address == ""
            assert "all taken" in three.notices[0]


async def test_without_its_packages_it_is_not_there_and_says_so(
    state: StateDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console_process, "_PACKAGES", ("fastapi", "no_such_package"))
    one = console(state, ConsoleOptions(port=0))
    one.choose()
    await one.start()
    assert not one.started
    assert one.notices == ["console: it needs no_such_package: pip install 'chandlery[console]'"]
    await one.stop()


async def test_its_settings_say_all_it_needs(state: StateDir, tmp_path: Path) -> None:
    asked = ConsoleOptions("0.0.0.0", 0, tmp_path / "token", "http://j/{trace_id}")
    one = console(state, asked, metrics=MetricsPorts(9464, tmp_path / "targets.json"), log_level="debug")
    one.child.argv = [sys.executable, "-c", "import time; time.sleep(600)"]
    one.choose()
    await one.start()
    try:
        settings = read_settings(str(state.settings("console")), ConsoleSettings)
        assert settings.local is not None
        assert settings.local.instance == str(state.socket("up"))
        assert settings.local.manifests == [os.path.abspath("m"), "-"]
        assert settings.listen == one.address.replace("http://127.0.0.1", "0.0.0.0")
        assert (settings.token_file, settings.trace_url) == (str(tmp_path / "token"), "http://j/{trace_id}")
        assert "other machines" in one.row().message
        assert (settings.metrics_listen, settings.log_level) == ("127.0.0.1:9464", "debug")
        assert os.getpriority(os.PRIO_PROCESS, one.child.pid) > min(os.getpriority(os.PRIO_PROCESS, 0), 18), (
            "it gives way"
        )
    finally:
        one.child.kill()
        await one.stop()


async def test_one_that_ends_is_a_notice_with_its_last_words_and_is_started_again(state: StateDir) -> None:
    one = console(state, ConsoleOptions(port=0))
    one.child.argv = [sys.executable, "-c", "import sys; print('no way'); sys.exit(1)"]
    one.choose()
    await one.start()
    try:
        await until(lambda: one.child.restarts > 1, "it is tried again")
        assert "exit code 1" in one.notices[0]
        assert "no way" in one.notices[0]
        assert one.row().message in one.notices[0]
    finally:
        await one.stop()
    assert one.child.state == "ended"


def test_two_instances_in_the_same_instant_have_ports_of_their_own_from_the_first_word_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = free_ports(2)
    monkeypatch.setattr(console_process, "PORTS", range(first, first + 2))
    both = [console(StateDir(tmp_path / name), ConsoleOptions()) for name in ("a", "b")]
    for one in both:
        one.choose()
    assert [one.address for one in both] == [f"http://127.0.0.1:{first + number}" for number in (0, 1)]
    assert f"port {first} is held by pid {os.getpid()}" in both[1].row().message
    for one in both:
        one.let_go()
    listening_at("127.0.0.1", first).close()


async def test_its_port_is_its_own_also_while_its_process_is_started_again(
    state: StateDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It answers on the socket that it inherits, as the console does, and ends after each answer."""
    one = console(state, ConsoleOptions(port=0))
    program = (
        "import json, socket\n"
        f"settings = json.load(open({str(state.settings('console'))!r}))\n"
        "server = socket.socket(fileno=settings['listening'])\n"
        "assert server.getsockname()[1] == int(settings['listen'].split(':')[1])\n"
        "client, _ = server.accept(); client.sendall(b'here'); client.close()\n"
    )
    one.child.argv = [sys.executable, "-c", program]
    one.choose()
    port = int(one.address.rpartition(":")[2])
    monkeypatch.setattr("chandlery.cli.runtime.children.LAST_BACKOFF_S", 0.1)
    await one.start()
    try:
        for _ in range(3):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            assert await asyncio.wait_for(reader.read(), 20) == b"here"
            writer.close()
            with pytest.raises(MachineError, match=f"port {port}"):
                listening_at("127.0.0.1", port)
    finally:
        one.child.kill()
        await one.stop()
    listening_at("127.0.0.1", port).close()
