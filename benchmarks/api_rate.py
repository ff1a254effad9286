"""Requests a second of the REST API, and their p99, while 20 traders run; and what they cost the traders.

The market and the traders of ``frame_to_signal``, with the console beside them. Each endpoint is asked over four
connections that are kept open, one request after the other on each, for some seconds. Floor: ``/healthz`` of the same
process, which answers a constant. Peer: 20 requests a second, what ten people with an open console and a few programs
ask; their p99 is what such people see. ``to_signal`` is how long after a signal was emitted it comes out of the stream,
wall clock of one machine in steps of 1 ms. ``frame_to_signal`` is the traders' own account with the API idle and loaded.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import msgspec
from aiohttp import ClientSession, ClientTimeout, TCPConnector

from benchmarks._census import census
from benchmarks._up import calls_of, start, state_folder, stop, until, write_manifests
from benchmarks.frame_to_signal import TRADERS, manifests
from benchmarks.harness import Row, percentile, run, say

CONNECTIONS: Final = 4
PACED_PER_S: Final = 20
_SYMBOL: Final = "C000/USDT"
ENDPOINTS: Final = {
    "overview": "/overview",
    "traders": "/traders?limit=100",
    "trader": "/traders/default/trader-00",
    "signals": "/signals?limit=100",
    "latency": "/latency?window_s=60",
    "candles": f"/candles?feed=default/market&symbol={_SYMBOL}&interval=1s&limit=100",
    "memory": "/memory",
}
FLOOR: Final = "/healthz"
#: Neither the broker's compiler nor the traders' first candles are in the figures.
_WARM_S: Final = 10.0


class _Signal(msgspec.Struct):
    """What is used of a signal."""

    emitted_ms: int
    frame_to_signal_us: float | None = None


class _Page(msgspec.Struct):
    """What is used of a page of signals."""

    items: list[_Signal]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def _ask(session: ClientSession, path: str) -> int:
    """Ask once; ns."""
    begin_ns = time.perf_counter_ns()
    async with session.get("/api/v1" + path) as answer:
        body = await answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{path}: {answer.status} {body[:200]!r}")
    return time.perf_counter_ns() - begin_ns


async def _as_fast_as_it_goes(session: ClientSession, path: str, seconds: float) -> tuple[list[int], float]:
    """Times of all requests of :data:`CONNECTIONS` askers, ns, and the seconds that they took."""
    taken: list[int] = []
    begin = time.monotonic()

    async def asker() -> None:
        while time.monotonic() - begin < seconds:
            taken.append(await _ask(session, path))

    await asyncio.gather(*(asker() for _ in range(CONNECTIONS)))
    return taken, time.monotonic() - begin


async def _paced(session: ClientSession, path: str, seconds: float) -> list[int]:
    """Times of requests that begin :data:`PACED_PER_S` times a second, ns."""
    begin = time.monotonic()
    waiting = []
    for number in range(int(seconds * PACED_PER_S)):
        await asyncio.sleep(max(0.0, begin + number / PACED_PER_S - time.monotonic()))
        waiting.append(asyncio.create_task(_ask(session, path)))
    return list(await asyncio.gather(*waiting))


@asynccontextmanager
async def _stream_delays(session: ClientSession) -> AsyncIterator[list[float]]:
    """Ms from a signal's emission to the first event of it, while the block runs."""
    delays: list[float] = []

    async def follow() -> None:
        seen: set[str] = set()
        async with session.get("/api/v1/signals/stream", timeout=ClientTimeout(total=None)) as stream:
            async for line in stream.content:
                if line.startswith(b"data:"):
                    signal = msgspec.json.decode(line[5:])
                    if signal.get("id") and signal["id"] not in seen:
                        seen.add(signal["id"])
                        delays.append(time.time() * 1_000 - signal["emitted_ms"])

    following = asyncio.create_task(follow())
    try:
        yield delays
    finally:
        following.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await following


async def _traders_own(session: ClientSession, since_ms: float) -> list[float]:
    """Frame to signal of the signals since, ms."""
    async with session.get(f"/api/v1/signals?limit=1000&since_ms={int(since_ms)}") as answer:
        page = msgspec.json.decode(await answer.read(), type=_Page)
    return [each.frame_to_signal_us / 1_000 for each in page.items if each.frame_to_signal_us is not None]


async def _measure(address: str, pid: int, seconds: float) -> list[Row]:
    rows: list[Row] = []
    connector = TCPConnector(limit=0)
    async with ClientSession(address, connector=connector, timeout=ClientTimeout(total=30)) as session:
        idle_ms = time.time() * 1_000
        async with _stream_delays(session) as delays:
            await asyncio.sleep(max(6.0, seconds * 2))
        idle = await _traders_own(session, idle_ms)
        floor, floor_s = await _as_fast_as_it_goes(session, FLOOR, seconds)
        loaded_ms = time.time() * 1_000
        before, begin = census(pid), time.monotonic()
        for name, path in ENDPOINTS.items():
            say(f"asking {path}")
            await _ask(session, path)  # a series is read when it is first asked for
            paced = await _paced(session, path, seconds)
            taken, took_s = await _as_fast_as_it_goes(session, path, seconds)
            note = f"{len(taken):,} requests over {CONNECTIONS} connections; floor: {FLOOR}"
            rows.append(
                Row(f"api_rate/{name}/rate", len(taken) / took_s, "requests/s", floor=len(floor) / floor_s, note=note)
            )
            rows.append(
                Row(
                    f"api_rate/{name}/p99",
                    percentile(taken, 0.99) / 1e6,
                    "ms",
                    peer=percentile(paced, 0.99) / 1e6,
                    floor=percentile(floor, 0.99) / 1e6,
                    note=f"peer: {PACED_PER_S} requests a second",
                )
            )
        after, took_s = census(pid), time.monotonic() - begin
        loaded = await _traders_own(session, loaded_ms)
    rows += _shares("to_signal", delays, "from emission to the open stream, nothing else asked")
    rows += _shares("frame_to_signal/idle", idle, f"{len(idle)} signals, one open stream")
    rows += _shares("frame_to_signal/loaded", loaded, f"{len(loaded)} signals while all of the above was asked")
    used_s = [sum(each.cpu_s for each in one.get("console", [])) for one in (before, after)]
    rows.append(Row("api_rate/console/cpu", (used_s[1] - used_s[0]) / took_s * 100, "% of a core", note="while asked"))
    pss = sum(each.memory.pss for each in after.get("console", []))
    rows.append(Row("api_rate/console/pss", pss / 1e6, "MB"))
    return rows


def _shares(name: str, samples: list[float], note: str) -> list[Row]:
    return [
        Row(f"api_rate/{name}/{share}", percentile(samples, part) if samples else float("nan"), "ms", note=note)
        for share, part in (("p50", 0.5), ("p99", 0.99))
    ]


def _has_started(state: Path, address: str) -> bool:
    host, _, port = address.removeprefix("http://").partition(":")
    with contextlib.suppress(OSError), socket.create_connection((host, int(port)), 1.0):
        return sum(calls > 0 for calls in calls_of(state).values()) >= TRADERS
    return False


def measure(quick: bool) -> list[Row]:
    """One run of everything."""
    seconds = 1.0 if quick else 5.0
    listen = f"127.0.0.1:{_free_port()}"
    say("chandlery up")
    with state_folder() as folder:
        state = folder / "s"
        process = start(write_manifests(folder / "m", manifests()), state, "--for", "600s", "--json", console=listen)
        try:
            until(lambda: _has_started(state, f"http://{listen}"), 90, "calls and an API", process, 0.1)
            time.sleep(_WARM_S)
            return asyncio.run(_measure(f"http://{listen}", process.pid, seconds))
        finally:
            stop(process)


if __name__ == "__main__":
    run(measure, __doc__)
