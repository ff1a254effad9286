"""Ports on this machine: which are free, and who holds the others."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

#: First port tried for the embedded broker: Kafka's usual 9092, moved out of the way of a real one.
FIRST_PORT: Final = 19_092
_TRIED_PORTS: Final = 500
_LISTENING: Final = "0A"


class RememberedPort(msgspec.Struct):
    """Content of ``broker.json`` in a broker's folder: the port that its clients know."""

    port: int


def remembered_port(data_dir: Path) -> int | None:
    """The port of a broker's last start; None when there was none, or it can't be read."""
    try:
        return msgspec.json.decode((data_dir / "broker.json").read_bytes(), type=RememberedPort).port
    except (OSError, msgspec.DecodeError):
        return None


def remember_port(data_dir: Path, port: int) -> None:
    """Have the next start take the same port."""
    (data_dir / "broker.json").write_bytes(msgspec.json.encode(RememberedPort(port)))


def port_is_free(port: int) -> bool:
    """Whether a server could listen on 127.0.0.1:``port`` now."""
    with socket.socket() as probe:
        # As the JVM does: a port whose old connections linger in TIME_WAIT is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
            probe.listen(1)
        except OSError:
            return False
    return True


class PortClaim:
    """A port that this process has chosen for its Kafka, for as long as that is wanted.

    A JVM takes seconds until it listens, after a crash too: others that look for a free port meanwhile pass over one that
    is claimed. The claim is a socket's name that lives in the kernel, beside the ports themselves, and goes with its
    process; it is no promise of strangers, and whoever doesn't ask for it may still be quicker.
    """

    def __init__(self, port: int, held: socket.socket) -> None:
        self.port = port
        self._held = held

    def release(self) -> None:
        """Let go of it: nobody will listen there, or not again."""
        self._held.close()


def claim_port(port: int) -> PortClaim | None:
    """Claim a port if it is free and nobody else has claimed it."""
    if not port_is_free(port):
        return None
    held = socket.socket(socket.AF_UNIX)
    try:
        held.bind(f"\0chandlery-port-{port}")
    except OSError:
        held.close()
        return None
    # Looked at again: whoever had claimed it before may listen by now.
    if port_is_free(port):
        return PortClaim(port, held)
    held.close()
    return None


def next_free_port(first: int = FIRST_PORT, *, but: frozenset[int] = frozenset()) -> PortClaim | None:
    """The first free port from ``first`` on that isn't in ``but``, claimed; None when 500 in a row are taken."""
    tried = (port for port in range(first, min(first + _TRIED_PORTS, 65_536)) if port not in but)
    return next((claim for port in tried if (claim := claim_port(port)) is not None), None)


def ephemeral_port() -> int:
    """A port that was free a moment ago, of the kernel's choice."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def holder_of(port: int) -> str:
    """Who listens on ``port``: ``pid 12 (java …)``, or what can be said without the right to look."""
    inodes = {inode for table in ("tcp", "tcp6") for inode in _listening_inodes(Path("/proc/net", table), port)}
    if not inodes:
        return "an unknown process (not visible from here)"
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and _holds(process, inodes):
            return f"pid {process.name} ({_command_of(process)})"
    return "a process of another user"


def _listening_inodes(table: Path, port: int) -> Iterator[str]:
    try:
        lines = table.read_text(encoding="ascii").splitlines()
    except OSError:
        return
    for line in lines[1:]:
        columns = line.split()
        if columns[3] == _LISTENING and int(columns[1].rpartition(":")[2], 16) == port:
            yield columns[9]


def _holds(process: Path, inodes: set[str]) -> bool:
    try:
        descriptors = os.listdir(process / "fd")
    except OSError:
        return False
    return any(_socket_inode(process / "fd" / descriptor) in inodes for descriptor in descriptors)


def _socket_inode(link: Path) -> str:
    try:
        target = os.readlink(link)
    except OSError:
        # Closed since it was listed, as the listing's own descriptor always is.
        return ""
    return target[8:-1] if target.startswith("socket:[") else ""


def _command_of(process: Path) -> str:
    try:
        words = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return "?"
    text = " ".join(word for word in words if word)
    return text if len(text) <= 60 else text[:59] + "…"
