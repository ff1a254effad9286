"""Shares in memory (PSS): of every process of the container, seldom, one after the other, and beside the loop."""

from __future__ import annotations

import asyncio
import itertools
import threading

import pytest
from tests.workers_feed.feed_setup import until
from tests.workers_supervisor.fake_feed import trader, worker

from chandlery.workers.supervisor import memory_shares
from chandlery.workers.supervisor.memory_shares import FORK_SERVER, PERIOD_S, SETTLED_S, SUPERVISOR, MemoryShares


def test_each_process_is_looked_at_once_a_period_and_who_waits_longest_first() -> None:
    pids = {f"desk/t{at}@1": at + 1 for at in range(3)}
    shares = MemoryShares(lambda: pids)
    assert shares.due(0.0) is None, "a process that was just forked has nothing of its own yet"
    looked: list[tuple[float, int]] = []
    for step in range(1, 400):
        now_s = step * 0.25
        look = shares.due(now_s)
        if look is not None:
            look.due_s = now_s + PERIOD_S
            looked.append((now_s, look.pid))
    assert [pid for _, pid in looked[:3]] == [1, 2, 3]
    assert looked[0][0] == SETTLED_S
    for pid in pids.values():
        times = [at for at, whose in looked if whose == pid]
        assert len(times) == 4, "100 s"
        assert all(later - earlier >= PERIOD_S for earlier, later in itertools.pairwise(times))


def test_another_process_of_the_same_name_has_no_share_before_it_is_looked_at() -> None:
    pids = {"desk/a@1": 7}
    shares = MemoryShares(lambda: pids)
    shares.due(0.0)
    look = shares.due(SETTLED_S)
    assert look is not None
    look.share_bytes, look.due_s = 1_000, 100.0
    assert shares.of("desk/a@1", 7) == 1_000
    assert shares.of("desk/a@1", 8) == shares.of("desk/b@1", 7) == 0
    pids["desk/a@1"] = 8
    assert shares.due(50.0) is None
    assert shares.of("desk/a@1", 8) == 0
    assert shares.of("desk/a@1", 7) == 0, "it is gone"


async def test_the_loop_goes_on_while_a_process_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_shares, "SETTLED_S", 0.0)
    monkeypatch.setattr(memory_shares, "GAP_S", 0.0)
    under_way, goes_on, here = threading.Event(), threading.Event(), threading.get_ident()
    where: list[int] = []

    def slowly(pid: int) -> int:
        where.append(threading.get_ident())
        under_way.set()
        assert goes_on.wait(30)
        return pid * 10

    shares = MemoryShares(lambda: {SUPERVISOR: 4, FORK_SERVER: 5}, slowly)
    running = asyncio.create_task(shares.run())
    assert await asyncio.to_thread(under_way.wait, 30)
    assert shares.own() == {}
    goes_on.set()
    await until("both are known", lambda: shares.own() == {SUPERVISOR: 40, FORK_SERVER: 50})
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert here not in where


async def test_a_look_for_which_no_thread_can_be_started_ends_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(memory_shares, "SETTLED_S", 0.0)
    monkeypatch.setattr(memory_shares, "GAP_S", 0.0)
    caplog.set_level("WARNING", logger="chandlery")

    def read(pid: int) -> int:
        if pid == 4:
            raise RuntimeError("can't start new thread")
        return pid * 10

    shares = MemoryShares(lambda: {SUPERVISOR: 4, FORK_SERVER: 5}, read)
    running = asyncio.create_task(shares.run())
    await until("the other is known", lambda: shares.own() == {FORK_SERVER: 50})
    await until("it is told", lambda: "memory of a process not looked at" in caplog.text)
    assert not running.done()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_status_tells_the_shares_of_traders_supervisor_and_fork_server() -> None:
    async with worker() as made:
        made.close(1.0)
        made.assign(trader("a"), trader("b"))
        told = await made.until(
            lambda status: (
                status.pss_bytes.keys() == {SUPERVISOR, FORK_SERVER}
                and len(status.traders) == 2
                and all(one.pss_bytes for one in status.traders.values())
            )
        )
    for one in told.traders.values():
        assert 0 < one.pss_bytes < one.rss_bytes, "most of a trader is the fork server's too"
    assert all(share > 1_000_000 for share in told.pss_bytes.values())
