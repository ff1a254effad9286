"""Ports that are claimed: brokers that start at once choose different ones."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from chandlery.core.errors import MachineError
from chandlery.stream.broker import EmbeddedBroker
from chandlery.stream.broker_ports import claim_port, ephemeral_port, holder_of, next_free_port, port_is_free

CLAIMANT = """
import sys
from chandlery.stream.broker_ports import next_free_port
claim = next_free_port(int(sys.argv[1]))
print(claim.port, flush=True)
sys.stdin.read()
"""


def test_a_port_that_another_process_claimed_is_passed_over_until_that_process_is_gone() -> None:
    first = ephemeral_port()
    arguments = [sys.executable, "-c", CLAIMANT, str(first)]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        claimed = int(other.stdout.readline())
        assert claimed >= first
        assert claim_port(claimed) is None, "nobody listens there, but somebody will"
        mine = next_free_port(claimed)
        assert mine is not None
        assert mine.port > claimed
        mine.release()
        other.kill()
    again = claim_port(claimed)
    assert again is not None
    again.release()


def test_an_ephemeral_port_is_one_that_a_server_can_listen_on_at_once() -> None:
    with socket.create_server(("127.0.0.1", ephemeral_port())) as server:
        port = server.getsockname()[1]
        assert not port_is_free(port)
        assert f"pid {os.getpid()} " in holder_of(port)
    assert port_is_free(port), "nothing of the look for it is left"


def test_an_ephemeral_port_is_none_that_somebody_listens_on() -> None:
    with contextlib.ExitStack() as servers:
        ports: set[int] = set()
        for _ in range(200):
            port = ephemeral_port()
            assert port not in ports
            ports.add(port)
            servers.enter_context(socket.create_server(("127.0.0.1", port)))


def test_an_ephemeral_port_is_of_the_range_that_the_kernel_gives_of_its_own_choice() -> None:
    lowest, highest = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii").split())
    ports = [ephemeral_port() for _ in range(50)]
    assert all(lowest <= port <= highest for port in ports)


def test_brokers_that_choose_before_either_listens_choose_different_ports(tmp_path: Path) -> None:
    brokers = [EmbeddedBroker(tmp_path / str(number)) for number in range(3)]
    try:
        assert len({broker._choose_port(set()) for broker in brokers}) == 3
    finally:
        for broker in brokers:
            broker._release_port()


def test_a_port_that_is_asked_for_is_claimed_as_a_chosen_one_is(tmp_path: Path) -> None:
    port = ephemeral_port()
    one, two = (EmbeddedBroker(tmp_path / str(number), port=port) for number in range(2))
    try:
        assert one._choose_port(set()) == port
        with pytest.raises(MachineError, match=f"port {port} is claimed by another Kafka that is just starting"):
            two._choose_port(set())
        assert claim_port(port) is None, "those who look for a free one pass over it"
        one._release_port()
        assert two._choose_port({port}) == port, "lost once, it is free again"
    finally:
        one._release_port()
        two._release_port()


def test_a_broker_keeps_its_claim_so_that_it_finds_its_port_again(tmp_path: Path) -> None:
    """Between a crash and the next start nobody else who looks for a port may take the one that clients know."""
    broker = EmbeddedBroker(tmp_path / "one")
    try:
        port = broker._port = broker._choose_port(set())
        assert claim_port(port) is None
        assert broker._choose_port(set()) == port, "its own claim is in nobody's way"
        assert claim_port(port) is None
        assert broker._choose_port({port}) != port, "but where it was refused it looks for another"
        again = claim_port(port)
        assert again is not None, "and lets go of that one"
        again.release()
    finally:
        broker._release_port()
