"""A service from its start to its end: by a signal, by an error, and again where its settings change."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

SERVICE = """
import asyncio, os, pathlib, sys
import msgspec
from chandlery.core.errors import MachineError
from chandlery.core.services import run_service

class Settings(msgspec.Struct):
    said: str
    log_level: str = "info"

async def serve(settings, stop):
    heard = pathlib.Path(sys.argv[0]).with_name("heard")
    with heard.open("a") as file:
        file.write(f"{os.getpid()} {settings.said}\\n")
    if settings.said == "fail":
        raise MachineError("no room")
    await stop.wait()

sys.exit(run_service("tests.service", Settings, serve))
"""


class Service:
    """The process, its settings file, and what it wrote at each beginning."""

    def __init__(self, folder: Path) -> None:
        self.program = folder / "service.py"
        self.program.write_text(SERVICE)
        self.settings = folder / "settings.json"
        self.heard = folder / "heard"

    def say(self, said: str) -> None:
        draft = self.settings.with_suffix(".new")
        draft.write_text(json.dumps({"said": said}))
        os.replace(draft, self.settings)

    def start(self, *options: str) -> subprocess.Popen[str]:
        words = [sys.executable, str(self.program), "--config", str(self.settings), *options]
        return subprocess.Popen(words, stderr=subprocess.PIPE, text=True)

    def beginnings(self) -> list[list[str]]:
        return [line.split() for line in self.heard.read_text().splitlines()] if self.heard.exists() else []


@pytest.fixture
def service(tmp_path: Path) -> Service:
    return Service(tmp_path)


@pytest.fixture
def run(service: Service) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    running: list[subprocess.Popen[str]] = []

    def start(*options: str) -> subprocess.Popen[str]:
        running.append(service.start(*options))
        return running[-1]

    yield start
    for process in running:
        if process.poll() is None:
            process.kill()
        process.communicate()


def until(holds: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline, f"not within 60 s: {what}"
        time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_in_order(
    service: Service, run: Callable[..., subprocess.Popen[str]], number: signal.Signals
) -> None:
    service.say("one")
    process = run()
    until(lambda: len(service.beginnings()) == 1, "begun")
    process.send_signal(number)
    assert process.wait(60) == 0


def test_an_error_is_one_line_and_its_own_exit_code(
    service: Service, run: Callable[..., subprocess.Popen[str]]
) -> None:
    service.say("fail")
    process = run()
    _, said = process.communicate(timeout=60)
    assert (process.returncode, json.loads(said)["message"]) == (3, "no room")


def test_changed_settings_have_it_begin_again_as_the_same_process_which_a_signal_still_ends(
    service: Service, run: Callable[..., subprocess.Popen[str]]
) -> None:
    service.say("one")
    process = run("--follow")
    until(lambda: len(service.beginnings()) == 1, "begun")
    service.say("two")
    until(lambda: len(service.beginnings()) == 2, "begun again")
    assert service.beginnings() == [[str(process.pid), "one"], [str(process.pid), "two"]]
    process.terminate()
    assert process.wait(60) == 0


def test_without_follow_changed_settings_wait_for_the_next_start(
    service: Service, run: Callable[..., subprocess.Popen[str]]
) -> None:
    service.say("one")
    process = run()
    until(lambda: len(service.beginnings()) == 1, "begun")
    service.say("two")
    process.terminate()
    assert process.wait(60) == 0
    assert service.beginnings() == [[str(process.pid), "one"]]


def test_a_signal_that_comes_while_it_begins_again_is_not_lost(
    service: Service, run: Callable[..., subprocess.Popen[str]]
) -> None:
    service.say("one")
    process = run("--follow")
    until(lambda: len(service.beginnings()) == 1, "begun")
    service.say("two")
    # Blocked signals (SigBlk) show the moment between the one beginning and the next.
    status = Path(f"/proc/{process.pid}/status")
    term = 1 << (signal.SIGTERM - 1)

    def between() -> bool:
        blocked = next(line for line in status.read_text().splitlines() if line.startswith("SigBlk"))
        return bool(int(blocked.split()[1], 16) & term) or len(service.beginnings()) == 2

    deadline = time.monotonic() + 60
    while not between():
        assert time.monotonic() < deadline, "it never began again"
    process.terminate()
    assert process.wait(60) == 0
