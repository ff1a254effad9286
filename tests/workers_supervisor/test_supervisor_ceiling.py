"""A container that is nearly full: the trader that has most ends, before the kernel ends them all."""

from __future__ import annotations

import asyncio
import mmap
import os
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.workers_supervisor.fake_feed import processes_of, trader, worker

from chandlery.core.settings import SupervisorSettings
from chandlery.workers.supervisor.ceiling import SPARE_BYTES, Ceiling, Looks, own_ceiling
from chandlery.workers.supervisor.exits import Verdict
from chandlery.workers.supervisor.keeper import Keeper
from chandlery.workers.supervisor.supervise import Supervisor
from chandlery.workers.supervisor.watch import own_bytes, rss_bytes

MB = 1 << 20
LIMIT = 1_024 * MB


def version_2(root: Path, limit: str, used: int, inactive: int = 0, active: int = 0) -> Path:
    """A container's cgroup as version 2 shows it within the container."""
    root.mkdir(exist_ok=True)
    (root / "memory.max").write_text(f"{limit}\n")
    (root / "memory.current").write_text(f"{used}\n")
    (root / "memory.stat").write_text(f"anon {used}\nshmem 4\ninactive_file {inactive}\nactive_file {active}\n")
    return root


def version_1(root: Path, limit: str, used: int, inactive: int = 0, active: int = 0) -> Path:
    """The same by version 1."""
    (root / "memory").mkdir(parents=True, exist_ok=True)
    (root / "memory" / "memory.limit_in_bytes").write_text(f"{limit}\n")
    (root / "memory" / "memory.usage_in_bytes").write_text(f"{used}\n")
    stat = f"cache 1\ninactive_file 1\ntotal_inactive_file {inactive}\ntotal_active_file {active}\n"
    (root / "memory" / "memory.stat").write_text(stat)
    return root


@pytest.mark.parametrize("lay_out", [version_1, version_2])
def test_what_is_left_counts_no_cache_of_files(tmp_path: Path, lay_out: Callable[..., Path]) -> None:
    found = own_ceiling(lay_out(tmp_path / "cgroup", str(LIMIT), 1_000 * MB, 200 * MB, 100 * MB), pid=1)
    assert found is not None
    assert (found.limit_bytes, found.left_bytes()) == (LIMIT, 324 * MB)


def test_what_is_left_counts_no_names_and_inodes_that_the_kernel_keeps_while_there_is_room(tmp_path: Path) -> None:
    root = version_2(tmp_path / "cgroup", str(LIMIT), LIMIT)
    with (root / "memory.stat").open("a") as stat:
        stat.write(f"slab_reclaimable {100 * MB}\nslab_unreclaimable {50 * MB}\n")
    found = own_ceiling(root, pid=1)
    assert found is not None
    assert found.left_bytes() == 100 * MB


def test_the_pages_of_a_segment_are_nobodys_own(tmp_path: Path) -> None:
    """Its feed has them: the end of who reads most of it frees nothing."""
    size = 64 * MB
    with (tmp_path / "segment").open("w+b") as file:
        file.truncate(size)
        with mmap.mmap(file.fileno(), size, prot=mmap.PROT_READ) as shared:
            resident, own = rss_bytes(os.getpid()), own_bytes(os.getpid())
            assert sum(shared[:: mmap.PAGESIZE]) == 0  # every page is looked at
            assert rss_bytes(os.getpid()) - resident > size * 3 // 4
            assert own_bytes(os.getpid()) - own < size // 4
    assert own_bytes(2**22 + 1) == 0


def test_where_there_is_no_limit_or_no_container_of_its_own_nobody_ends(tmp_path: Path) -> None:
    assert own_ceiling(version_2(tmp_path / "two", "max", 5), pid=1) is None
    assert own_ceiling(version_1(tmp_path / "one", "9223372036854771712", 5), pid=1) is None
    assert own_ceiling(tmp_path / "nothing", pid=1) is None
    assert own_ceiling(version_2(tmp_path / "shared", str(LIMIT), LIMIT), pid=2) is None
    assert own_ceiling(version_2(tmp_path / "shared", str(LIMIT), LIMIT)) is None, "as one of many processes"


def test_what_cannot_be_read_ends_nobody(tmp_path: Path) -> None:
    root = version_2(tmp_path / "cgroup", str(LIMIT), LIMIT)
    found = own_ceiling(root, pid=1)
    assert found is not None
    looks = Looks()
    (root / "memory.stat").unlink()
    assert [looks.who_goes(found, lambda: {"a": 1}) for _ in range(2)] == [None, None]
    (root / "memory.stat").write_text("inactive_file many\n")
    assert [looks.who_goes(found, lambda: {"a": 1}) for _ in range(2)] == [None, None]


sizes = st.dictionaries(st.sampled_from("abcdef"), st.integers(1, LIMIT), max_size=6)


class Fixed(Ceiling):
    """Has what is said; unknown: None."""

    left: ClassVar[int | None] = None

    def left_bytes(self) -> int | None:
        return Fixed.left


FIXED = Fixed(LIMIT, Path(), Path(), ())


@given(sizes, st.integers(0, LIMIT))
def test_the_one_that_has_most_ends_and_only_where_too_little_is_left_and_always_by_the_same_words(
    sizes: dict[str, int], left: int
) -> None:
    Fixed.left, looks = left, Looks()
    assert looks.who_goes(FIXED, lambda: sizes) is None, "one look may be of a moment"
    found = looks.who_goes(FIXED, lambda: sizes)
    if left >= SPARE_BYTES or not sizes:
        assert found is None
        return
    assert found is not None
    assert sizes[found.name] == max(sizes.values()) == found.own_bytes
    assert found.left_bytes == left
    # The same each time, whatever was left and taken: it becomes part of a status and of an event's name.
    because = "the traders' container has less than 32 MB left of 1024 MB, and of all traders this one has most"
    assert found.verdict == Verdict("MemoryLimit", because)


def _gone(looks: Looks, *left: int | None) -> list[bool]:
    """Whether somebody ends, look by look."""
    found = []
    for each in left:
        Fixed.left = each
        found.append(looks.who_goes(FIXED, lambda: {"a": 1, "b": 2}) is not None)
    return found


@given(st.integers(MB, 16 * MB), st.floats(0, 1, exclude_max=True))
def test_who_takes_up_to_64_mb_a_second_ends_before_the_container_does(taken: int, phase: float) -> None:
    """taken: in 0.25 s. phase: when in between the looks fall."""
    looks, left = Looks(), SPARE_BYTES + int(taken * phase)
    while left >= 0:
        if _gone(looks, left) == [True]:
            return
        left -= taken
    raise AssertionError("the kernel came first")


def test_nobody_ends_where_only_every_other_look_finds_too_little() -> None:
    low, room = SPARE_BYTES - 1, SPARE_BYTES
    assert not any(_gone(Looks(), *[low, room] * 5))
    assert not any(_gone(Looks(), *[low, None] * 5)), "nothing is known of the look between"
    assert _gone(Looks(), room, low, low) == [False, False, True]


def test_after_one_has_ended_two_more_looks_say_whether_that_was_enough() -> None:
    low = SPARE_BYTES - 1
    assert _gone(Looks(), *[low] * 6) == [False, True, False, True, False, True]
    looks = Looks()
    assert _gone(looks, low) == [False]
    looks.begin_anew()
    assert _gone(looks, low, low) == [False, True]


def test_a_container_that_was_made_small_is_used_up_further() -> None:
    assert Ceiling(160 * MB, Path(), Path(), ()).spare_bytes == 10 * MB


class Kept:
    """A keeper whose process is this one."""

    def __init__(self, name: str) -> None:
        self.spec = trader(name)
        self.pid = os.getpid()
        self.is_ending = False

    def end(self, verdict: Verdict) -> None:
        assert verdict.reason == "MemoryLimit"
        self.is_ending = True


async def test_in_a_full_container_one_that_stops_anyway_goes_before_any_that_stays(tmp_path: Path) -> None:
    supervisor = Supervisor(SupervisorSettings("worker-0", str(tmp_path), str(tmp_path)))
    stays, leaves = Kept("stays"), Kept("leaves")
    supervisor._keepers = {stays.spec.key: cast(Keeper, stays)}
    stopping = asyncio.create_task(asyncio.Event().wait())
    supervisor._parting = {cast("asyncio.Task[None]", stopping): cast(Keeper, leaves)}
    full = own_ceiling(version_2(tmp_path / "cgroup", str(LIMIT), LIMIT), pid=1)
    assert full is not None
    for ending in (False, True, True, True):
        supervisor._keep_below(full)
        assert (leaves.is_ending, stays.is_ending) == (ending, False), "what it has isn't free yet"
    leaves.pid, leaves.is_ending = 0, False
    for ending in (False, True):
        supervisor._keep_below(full)
        assert stays.is_ending == ending
    stopping.cancel()


async def test_in_a_full_container_the_the_greediest_trader_ends_alone_and_says_why(tmp_path: Path) -> None:
    """A limit that is set, or another one, while the container lives counts from the next look on."""
    allowed = tmp_path / "allowed"
    allowed.write_text("max")
    good = ("one", "two")
    async with worker(allowed=allowed) as made:
        made.close(1.0)
        greedy = trader("greedy", "hoards", parameters={"at": 7.0}, memory_bytes=LIMIT)
        made.assign(greedy, *(trader(name, memory_bytes=LIMIT) for name in good))
        before = await made.states(greedy="Active", one="Active", two="Active")
        made.close(7.0)
        most = max(before[f"desk/{name}"].rss_bytes for name in good)
        await made.until(lambda status: status.traders["desk/greedy"].rss_bytes > most + 50 * MB)
        assert made.process is not None
        draft = tmp_path / "draft"
        draft.write_text(str(sum(rss_bytes(pid) for pid in processes_of(made.process.pid)) + SPARE_BYTES // 2))
        draft.replace(allowed)
        ended = (await made.until(lambda status: status.traders["desk/greedy"].state == "Backoff")).traders[
            "desk/greedy"
        ]
        assert ended.reason == "MemoryLimit"
        assert "the traders' container has" in ended.message
        assert "of all traders this one has most" in ended.message
        made.revise(50.0)  # else the next process would hoard by the same candle
        after = await made.states(greedy="Active", one="Active", two="Active")
        assert after["desk/greedy"].restarts >= 1
        for name in good:
            assert (after[f"desk/{name}"].pid, after[f"desk/{name}"].restarts) == (before[f"desk/{name}"].pid, 0)
