"""The process: where it listens, who is cut, how it ends."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import stat
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest
from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily
from tests.console_api.conftest import Serve
from tests.console_api.doubles import InMemoryMarket, InMemorySignals
from tests.console_api.stage import SOON_S, Stage, signal, stream, until

from chandlery.console import serving
from chandlery.console.client import ApiClient
from chandlery.console.serving import ApiServer, backend_of
from chandlery.console.settings import ConsoleSettings
from chandlery.core.errors import InputError, MachineError

ROOT = Path(__file__).resolve().parents[2]
#: One signal of a stream with this reason has about 100 kB.
LONG_REASON = "x" * 100_000


async def _silent_client(address: str, path: str) -> socket.socket:
    """A client that asks for a stream and never reads; its own buffer is small."""
    host, _, port = address.removeprefix("http://").partition(":")
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    client.setblocking(False)
    await asyncio.get_running_loop().sock_connect(client, (host, int(port)))
    request = f"GET /api/v1/{path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    await asyncio.get_running_loop().sock_sendall(client, request.encode())
    return client


async def test_a_client_that_never_reads_is_cut_off_and_counted(stage: Stage, serve: Serve) -> None:
    server = await serve()
    metrics, streams = stage.services.metrics, stage.services.streams
    streams.cut_after_s = 0.3
    silent = await _silent_client(server.address, "signals/stream")
    try:
        async with stream(server.address, "signals/stream") as reader:
            await until(lambda: stage.signals.following == 2)
            number = 0
            while not metrics.cut:
                number += 1
                stage.signals.tell(signal(number, reason=LONG_REASON))
                assert (await reader.next_data("signal"))["id"] == f"{number:032x}"
                # What was made for it and isn't taken: one event, and what the kernel holds.
                assert number < 200, "20 MB were taken by a client that never reads"
            assert metrics.cut == 1
            # The connection is dropped, not left to wait until its client reads.
            await until(lambda: streams.open == 1 and server.connections == 1)
            stage.signals.tell(signal(number + 1))
            assert (await reader.next_data("signal"))["id"] == f"{number + 1:032x}"
    finally:
        silent.close()


async def test_a_client_that_never_reads_doesn_t_hold_the_end_up(stage: Stage, serve: Serve) -> None:
    server = await serve()
    silent = await _silent_client(server.address, "signals/stream")
    try:
        await until(lambda: stage.signals.following == 1)
        for number in range(50):
            stage.signals.tell(signal(number, reason=LONG_REASON))
        async with asyncio.timeout(SOON_S):
            await server.stop()
        assert server.connections == 0
        assert stage.services.streams.open == 0
    finally:
        silent.close()


async def test_a_unix_socket_is_its_owner_s_alone_and_replaces_one_left_behind(stage: Stage, tmp_path: Path) -> None:
    path = tmp_path / "api.sock"
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(path))
    left.close()
    stage.settings.listen = f"unix:{path}"
    server = ApiServer(stage.app, stage.settings.listen, stage.services.streams)
    await server.start()
    try:
        assert server.address == f"unix:{path}"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        async with (
            aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(path))) as session,
            session.get("http://anything/api/v1/overview") as answer,
        ):
            assert answer.status == 200
    finally:
        await server.stop()
    assert not path.exists()


async def test_a_socket_that_somebody_serves_is_left_to_him(stage: Stage, tmp_path: Path) -> None:
    path = tmp_path / "api.sock"
    first = ApiServer(stage.app, f"unix:{path}", stage.services.streams)
    await first.start()
    try:
        with pytest.raises(MachineError, match="in use"):
            await ApiServer(stage.app, f"unix:{path}", stage.services.streams).start()
        assert path.exists()
    finally:
        await first.stop()
    assert not path.exists()


async def test_what_isn_t_a_socket_is_left_alone(stage: Stage, tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("mine")
    with pytest.raises(MachineError, match=r"notes\.txt"):
        await ApiServer(stage.app, f"unix:{path}", stage.services.streams).start()
    assert path.read_text() == "mine"


async def test_a_port_that_is_taken_is_said(stage: Stage, serve: Serve) -> None:
    server = await serve()
    taken = server.address.removeprefix("http://")
    with pytest.raises(MachineError, match=taken):
        await ApiServer(stage.app, taken, stage.services.streams).start()


def _sixth_version() -> bool:
    """Whether this machine's loopback speaks IPv6."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


@pytest.mark.skipif(not _sixth_version(), reason="no IPv6 here")
async def test_the_loopback_of_the_sixth_version_is_served(stage: Stage, serve: Serve) -> None:
    stage.settings.listen = "[::1]:0"
    server = await serve()
    assert server.address.startswith("http://[::1]:")
    async with aiohttp.ClientSession() as session, session.get(f"{server.address}/api/v1/healthz") as answer:
        assert answer.status == 200


async def test_no_answer_waits_for_the_acknowledgement_of_its_head(stage: Stage, serve: Serve) -> None:
    server = await serve()
    async with aiohttp.ClientSession() as session, session.get(f"{server.address}/api/v1/healthz"):
        accepted = [one.transport.get_extra_info("socket") for one in server._server.server_state.connections]
        assert [one.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) for one in accepted] == [1]


async def test_settings_that_would_open_it_to_all_end_the_process_before_it_listens() -> None:
    with pytest.raises(InputError, match="token_file"):
        await serving.serve(ConsoleSettings(listen="0.0.0.0:0"), asyncio.Event())


@dataclass
class MemoryReaders:
    """Readers whose start and stop are written down."""

    signals: InMemorySignals
    market: InMemoryMarket
    told: list[str] = field(default_factory=list)

    async def start(self) -> None:
        self.told.append("started")

    async def stop(self) -> None:
        self.told.append("stopped")

    def away(self) -> list[str]:
        return ["Kafka of default/binance doesn't answer"]

    def families(self) -> list[Metric]:
        return [GaugeMetricFamily("chandlery_console_signals_kept", "Of the readers.", value=3.0)]


async def test_the_process_answers_from_its_first_moment_and_ends_all_it_began(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    readers = MemoryReaders(stage.signals, stage.market)
    monkeypatch.setattr(serving, "backend_of", lambda _: stage.backend)
    monkeypatch.setattr(serving, "readers_of", lambda *_: readers)
    stop = asyncio.Event()
    settings = ConsoleSettings(listen=f"unix:{tmp_path}/api.sock", metrics_listen=f"unix:{tmp_path}/metrics.sock")
    process = asyncio.create_task(serving.serve(settings, stop))
    await until(lambda: readers.told)
    async with ApiClient(settings.listen) as api:
        assert (await api.overview()).away == ["Kafka of default/binance doesn't answer"]
        following = asyncio.create_task(anext(api.follow_signals()))
        await until(lambda: stage.signals.following)
        async with (
            aiohttp.ClientSession(connector=aiohttp.UnixConnector(f"{tmp_path}/metrics.sock")) as session,
            session.get("http://anything/metrics") as answer,
        ):
            figures = await answer.text()
        assert 'chandlery_api_streams_open{stream="signals"} 1.0' in figures
        assert "chandlery_console_signals_kept 3.0" in figures
        stop.set()
        async with asyncio.timeout(SOON_S):
            await process
        following.cancel()
    assert readers.told == ["started", "stopped"]
    assert not (tmp_path / "api.sock").exists()


def test_a_local_backend_needs_its_instance() -> None:
    with pytest.raises(InputError, match="local"):
        backend_of(ConsoleSettings(backend="local"))


def test_sigterm_ends_the_process_and_its_streams_at_once() -> None:
    command = [sys.executable, "-m", "tests.console_api.demo", "--port", "0"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env=os.environ) as process:
        try:
            assert process.stdout is not None
            address = process.stdout.readline().strip()

            async def read_to_the_end() -> bytes:
                async with stream(address, "live?topics=overview,signals") as live:
                    await live.next("overview")
                    process.terminate()
                    return await live.ended()

            asyncio.run(read_to_the_end())
            assert process.wait(SOON_S) == 0
        finally:
            process.kill()


def test_wrong_settings_end_the_process_with_their_name(tmp_path: Path) -> None:
    file = tmp_path / "console.json"
    file.write_text(json.dumps({"listen": "0.0.0.0:80"}))
    done = subprocess.run(
        [sys.executable, "-m", "chandlery.console", "--config", str(file)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == InputError.exit_code
    assert "token_file" in done.stderr
