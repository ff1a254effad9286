"""The control socket between its two real ends: what one says is what the other takes."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import cast

import pytest
from tests.workers_supervisor.fake_feed import PATIENCE_S, trader

from chandlery.core.assignment import Assignment, TraderAssignment, TraderStatus, content_hash
from chandlery.core.settings import SupervisorSettings
from chandlery.workers.control_messages import AssignmentMessage, StatusMessage
from chandlery.workers.feed.control import ControlServer
from chandlery.workers.supervisor import catalogue_reader, supervise
from chandlery.workers.supervisor.catalogue_reader import Reading
from chandlery.workers.supervisor.feed_link import FeedLink
from chandlery.workers.supervisor.nursery_client import NurseryClient
from chandlery.workers.supervisor.supervise import Supervisor


class Ends:
    """A feed's and a supervisor's end, and what each has taken."""

    def __init__(self, path: Path) -> None:
        self.assignments: list[AssignmentMessage] = []
        self.rings: list[str] = []
        self.statuses: list[StatusMessage] = []
        self.counts: Counter[str] = Counter()
        self.feed = ControlServer(path, self.counts, self.statuses.append, lambda: None)
        self.supervisor = FeedLink(str(path), self.assignments.append, self.rings.append, lambda: None)


@contextlib.asynccontextmanager
async def connected() -> AsyncIterator[Ends]:
    # Not pytest's tmp_path: a Unix socket's path may have 107 bytes only.
    with tempfile.TemporaryDirectory(prefix="chandlery-") as folder:
        ends = Ends(Path(folder) / "control.sock")
        await ends.feed.start()
        task = asyncio.create_task(ends.supervisor.run())
        try:
            yield ends
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await ends.feed.stop()


async def until(holds: Callable[[], bool]) -> None:
    deadline = asyncio.get_running_loop().time() + PATIENCE_S
    while not holds():
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.01)


def assigned(*traders: TraderAssignment) -> AssignmentMessage:
    specs = list(traders)
    bells = {spec.trader: at for at, spec in enumerate(specs)}
    return AssignmentMessage(Assignment("worker-0", 7, content_hash(specs), specs), bells, "/dev/shm/segment")


async def test_every_message_arrives_as_it_was_sent() -> None:
    async with connected() as ends:
        message = assigned(trader("a"), trader("b", parameters={"size": 2}))
        ends.feed.assign(message)
        ends.feed.replace_ring("desk/a")
        await until(lambda: bool(ends.assignments and ends.rings))
        assert (ends.assignments, ends.rings) == ([message], ["desk/a"])
        status = StatusMessage(7, "hash", {"desk/a": TraderStatus("Active", calls=3)}, [{"name": "buys"}])
        assert ends.supervisor.send(status)
        await until(lambda: bool(ends.statuses))
        assert ends.statuses == [status]
        assert not ends.counts


async def test_the_longest_assignment_there_can_be_fits_a_line_at_both_ends() -> None:
    """As many traders as a worker may have, with as much source as one may have, each character of it escaped."""
    async with connected() as ends:
        message = assigned(*(trader(f"t{at}", source='"' * 65_536) for at in range(256)))
        ends.feed.assign(message)
        await until(lambda: bool(ends.assignments))
        assert ends.assignments == [message]
        assert not ends.counts


async def test_what_a_request_of_the_feed_wakes_is_the_newest_connection_alone() -> None:
    """One that is just ending would take the request with it."""
    async with connected() as ends:
        ends.feed.assign(assigned())
        await until(lambda: bool(ends.assignments))
        before = ends.feed._wake
        renewed = FeedLink(str(ends.feed._path), ends.assignments.append, ends.rings.append, lambda: None)
        task = asyncio.create_task(renewed.run())
        await until(lambda: ends.feed._wake is not before)
        ends.feed.replace_ring("desk/a@1")
        assert not before.is_set()
        await until(lambda: bool(ends.rings))
        task.cancel()
        await asyncio.wait([task])


async def test_a_connection_that_is_ending_takes_no_request_from_the_newest() -> None:
    """Also where it had been woken before that came."""

    class Line:
        def __init__(self) -> None:
            self.written: list[bytes] = []
            self.drained = asyncio.Event()

        def write(self, line: bytes) -> None:
            self.written.append(line)

        async def drain(self) -> None:
            self.drained.set()

    feed = ControlServer(Path("/nowhere"), Counter(), lambda _: None, lambda: None)
    ending, newest = Line(), Line()
    feed._writer = cast(asyncio.StreamWriter, newest)
    feed.replace_ring("desk/a@1")
    for line in (ending, newest):
        sending = asyncio.create_task(feed._send(cast(asyncio.StreamWriter, line), asyncio.Event()))
        await asyncio.wait_for(line.drained.wait(), PATIENCE_S)
        sending.cancel()
        await asyncio.wait([sending])
    assert (ending.written, len(newest.written)) == ([], 1)


async def test_a_status_that_a_feed_could_not_take_is_told_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Though nothing has changed since."""
    monkeypatch.setattr(supervise, "MOST_GAP_S", 0.01)
    monkeypatch.setattr(supervise, "LEAST_GAP_S", 0.0)
    made = Supervisor(SupervisorSettings("worker-0", "/nowhere", "/nowhere"))
    answers, told = [False, False, True], asyncio.Event()

    def send(message: StatusMessage) -> bool:
        taken = answers.pop(0)
        if not answers:
            told.set()
        return taken

    monkeypatch.setattr(made._link, "send", send)
    made._change.set()
    publishing = asyncio.create_task(made._publish())
    await asyncio.wait_for(told.wait(), PATIENCE_S)
    publishing.cancel()
    await asyncio.wait([publishing])
    assert answers == []


async def test_the_shares_of_a_worker_without_traders_are_told_when_they_are_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nothing else of it moves."""
    monkeypatch.setattr(supervise, "MOST_GAP_S", 0.01)
    monkeypatch.setattr(supervise, "LEAST_GAP_S", 0.0)
    made = Supervisor(SupervisorSettings("worker-0", "/nowhere", "/nowhere"))
    known: dict[str, int] = {}
    told: list[dict[str, int]] = []

    def send(message: StatusMessage) -> bool:
        told.append(message.pss_bytes)
        return True

    monkeypatch.setattr(made._link, "send", send)
    monkeypatch.setattr(made._shares, "own", lambda: dict(known))
    publishing = asyncio.create_task(made._publish())
    await until(lambda: told == [{}])
    known["supervisor"] = 5
    await until(lambda: told == [{}, {"supervisor": 5}])
    publishing.cancel()
    await asyncio.wait([publishing])


async def test_a_catalogue_that_could_not_be_read_is_read_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A busy machine takes too long over it once: without a change of any file."""
    now_s = 100.0
    read: list[str] = []
    answers: dict[str, list[list[dict[str, str]] | None]] = {
        str(tmp_path): [None, None, [{"name": "own"}]], "": [[{"name": "shipped"}]]
    }  # fmt: skip

    async def answer(folder: str) -> Reading:
        nonlocal now_s
        read.append(folder)
        now_s += 30.0
        return Reading(answers[folder].pop(0))

    monkeypatch.setattr(catalogue_reader, "read_catalogue", answer)
    monkeypatch.setattr(catalogue_reader, "LOOK_S", 0.0)
    told: list[str] = []
    following = asyncio.create_task(
        catalogue_reader.follow_catalogue(
            str(tmp_path), lambda one: told.extend(each["name"] for each in one), lambda: now_s
        )
    )
    await until(lambda: len(read) == 2)
    for _ in range(20):
        await asyncio.sleep(0)
    assert (read, told) == ([str(tmp_path), ""], ["shipped"]), "not before its pause is over"
    now_s += catalogue_reader.FIRST_RETRY_S
    await until(lambda: len(read) == 3)
    now_s += 2 * catalogue_reader.FIRST_RETRY_S
    await until(lambda: told == ["shipped", "own"])
    following.cancel()
    await asyncio.wait([following])
    assert read[2:] == [str(tmp_path)] * 2


async def test_the_shipped_strategies_are_told_though_they_too_could_not_be_read_at_first(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A folder's file that never returns, and a machine that was busy for a while."""
    answers: dict[str, list[list[dict[str, str]] | None]] = {
        str(tmp_path): [None, None, None], "": [None, [{"name": "shipped"}]]
    }  # fmt: skip
    read: list[str] = []
    now_s = 0.0

    async def answer(folder: str) -> Reading:
        read.append(folder)
        return Reading(answers[folder].pop(0))

    def clock() -> float:
        nonlocal now_s
        now_s += 10.0 if any(answers.values()) else 0.0
        return now_s

    monkeypatch.setattr(catalogue_reader, "read_catalogue", answer)
    monkeypatch.setattr(catalogue_reader, "LOOK_S", 0.0)
    told: list[str] = []
    following = asyncio.create_task(
        catalogue_reader.follow_catalogue(str(tmp_path), lambda one: told.extend(each["name"] for each in one), clock)
    )
    await until(lambda: len(read) == 5)
    following.cancel()
    await asyncio.wait([following])
    assert read == [str(tmp_path), "", str(tmp_path), "", str(tmp_path)], "told once, they are not read again"
    assert told == ["shipped"]


async def test_signals_that_the_fork_server_has_no_room_for_reach_it_later() -> None:
    client = NurseryClient()
    client._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    client._socket.setblocking(False)
    theirs.setblocking(False)
    number = 20_000
    for pid in range(1, number):
        client.kill(pid, signal.SIGTERM)
    assert client._kills, "more than the socket holds"
    heard: list[bytes] = []

    def hear() -> bool:
        with contextlib.suppress(BlockingIOError):
            while True:
                heard.append(theirs.recv(256))
        return len(heard) == number - 1

    await until(hear)
    assert heard == [f"kill {pid} {int(signal.SIGTERM)}".encode() for pid in range(1, number)]
    client._disconnect()
    theirs.close()
