"""Delivery of assignments: nothing lost, doubled or reordered matters, and the file comes first."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chandlery.cli.runtime.delivery import FileDelivery
from chandlery.core.assignment import Assignment, TraderAssignment, content_hash, decode_assignment
from chandlery.core.errors import UnavailableError
from chandlery.operator.delivery import Delivery, Reply


class Worker:
    """A worker's API: refuses lower sequences; loses requests and answers as told."""

    def __init__(self, faults: list[str] | None = None) -> None:
        self.taken: Assignment | None = None
        self.history: list[int] = []
        self.faults = faults or []
        self.seen_files: list[int] = []
        self.path: Path | None = None

    async def call(self, method: str, path: str, body: bytes | None = None, *, timeout_s: float | None = None) -> Reply:
        assert (method, path) == ("PUT", "/v1/assignment")
        await asyncio.sleep(0)
        fault = self.faults.pop(0) if self.faults else ""
        if fault == "lost":
            raise UnavailableError("no answer")
        if fault == "busy":
            return Reply(503, b"later")
        assignment = decode_assignment(body or b"")
        if self.path is not None:
            self.seen_files.append(decode_assignment(self.path.read_bytes()).sequence)
        current = self.taken.sequence if self.taken else 0
        if assignment.sequence < current:
            return Reply(409, msgspec.json.encode({"sequence": current}))
        self.taken = assignment
        self.history.append(assignment.sequence)
        if fault == "answer lost":
            raise UnavailableError("cut")
        return Reply(200, b"{}")


def traders(*names: str) -> list[TraderAssignment]:
    return [TraderAssignment(name, "u", "sma-cross", ["BTC/USDT"], "1s") for name in names]


def wanting(*names: str) -> Assignment:
    """What a planner that knows no earlier sequence would ask for."""
    return Assignment("w", 1, content_hash(traders(*names)), traders(*names))


@asynccontextmanager
async def running(delivery: Delivery) -> AsyncIterator[None]:
    task = asyncio.create_task(delivery.run())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, f"not within 30 s: {what}"
        await asyncio.sleep(0.005)


async def test_what_is_wanted_is_on_disk_before_it_is_pushed(tmp_path: Path) -> None:
    worker = Worker()
    worker.path = tmp_path / "w.json"
    delivery = FileDelivery("w", worker.path, worker)
    async with running(delivery):
        for count in range(1, 4):
            delivery.want(wanting(*(f"default/t{n}" for n in range(count))))
            assert decode_assignment(worker.path.read_bytes()).sequence == count
            await until(lambda count=count: delivery.delivered_sequence == count, "delivered")  # type: ignore[misc]
    assert worker.seen_files == worker.history == [1, 2, 3]


async def test_the_same_wanted_again_keeps_the_sequence(tmp_path: Path) -> None:
    worker = Worker()
    delivery = FileDelivery("w", tmp_path / "w.json", worker)
    async with running(delivery):
        assert delivery.want(wanting("default/a", "default/b"))
        await until(lambda: worker.history == [1], "delivered")
        assert not delivery.want(wanting("default/b", "default/a")), "order is no difference"
        assert delivery.assignment.sequence == 1
        delivery.nudge()
        await until(lambda: worker.history == [1, 1], "pushed again when asked to")
    later = FileDelivery("w", tmp_path / "w.json", worker)
    async with running(later):
        assert not later.want(wanting("default/a", "default/b"))
        await until(lambda: worker.history == [1, 1, 1], "a new run pushes what it finds")


async def test_the_sequence_survives_a_restart_of_whoever_writes_it(tmp_path: Path) -> None:
    worker = Worker()
    first = FileDelivery("w", tmp_path / "w.json", worker)
    first.want(wanting("default/a"))
    second = FileDelivery("w", tmp_path / "w.json", worker)
    assert second.assignment.traders == traders("default/a")
    async with running(second):
        second.want(wanting("default/b"))
        await until(lambda: worker.history == [2], "delivered above the first")


async def test_after_its_file_is_lost_it_goes_above_what_the_worker_knows(tmp_path: Path) -> None:
    worker = Worker()
    worker.taken = Assignment("w", 40, content_hash([]), [])
    delivery = FileDelivery("w", tmp_path / "w.json", worker)
    async with running(delivery):
        delivery.want(wanting("default/a"))
        await until(lambda: delivery.delivered_sequence == 41, "went above 40")
    assert worker.taken.traders == traders("default/a")
    assert decode_assignment((tmp_path / "w.json").read_bytes()).sequence == 41


async def test_a_garbled_file_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "w.json"
    path.write_text("{half")
    delivery = FileDelivery("w", path, Worker())
    delivery.want(wanting())
    assert decode_assignment(path.read_bytes()).sequence == 1


async def test_what_was_wanted_in_between_is_skipped(tmp_path: Path) -> None:
    worker = Worker(["lost"])
    delivery = FileDelivery("w", tmp_path / "w.json", worker)
    async with running(delivery):
        delivery.want(wanting("default/a"))
        # Not "== 1": a machine that is busy may come by only after the second.
        await until(lambda: delivery.attempts >= 1, "first attempt")
        for name in "bcdef":
            delivery.want(wanting(f"default/{name}"))
        await until(lambda: delivery.delivered_sequence == 6, "newest delivered")
    assert worker.history[-1] == 6
    assert len(worker.history) <= 2


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    faults=st.lists(st.sampled_from(["", "lost", "busy", "answer lost"]), max_size=6),
    wants=st.lists(st.sets(st.sampled_from("abc"), max_size=3), min_size=1, max_size=5),
)
def test_whatever_is_lost_the_worker_ends_with_the_newest(
    tmp_path_factory: object, faults: list[str], wants: list[set[str]]
) -> None:
    async def play(path: Path) -> None:
        worker = Worker(list(faults))
        delivery = FileDelivery("w", path, worker, chance=lambda: 0.0)
        async with running(delivery):
            for names in wants:
                delivery.want(wanting(*(f"default/{name}" for name in sorted(names))))
                await asyncio.sleep(0)
            newest = delivery.assignment
            await until(lambda: worker.taken is not None and worker.taken.hash == newest.hash, "newest taken")
            await until(lambda: delivery.delivered_sequence == newest.sequence, "and known to be")
        assert worker.history == sorted(worker.history)

    folder = tmp_path_factory.mktemp("delivery")  # type: ignore[attr-defined]
    asyncio.run(play(folder / "w.json"))
