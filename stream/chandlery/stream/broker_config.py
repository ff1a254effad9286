"""What Kafka is told: ``server.properties``, and storage formatted without a second JVM.

The settings are for one node that is broker and controller at once. Formatting is two files:
``meta.properties`` names cluster and node; ``bootstrap.checkpoint`` (made once by Kafka's own StorageTool for
this version) carries the finalised feature levels.
"""

from __future__ import annotations

import base64
import os
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

from chandlery.core.errors import InputError, MachineError
from chandlery.core.wire import MAX_RECORD_BYTES

KAFKA_VERSION: Final = "4.3.1"
PACKAGE_DATA: Final = Path(__file__).parent / "kafka"
NODE_ID: Final = 1

# A record's value may have MAX_RECORD_BYTES; key, headers and batch framing come on top of it.
_MESSAGE_OVERHEAD_BYTES: Final = 65_536
MAX_MESSAGE_BYTES: Final = MAX_RECORD_BYTES + _MESSAGE_OVERHEAD_BYTES

_SETTINGS: Final[dict[str, str | int]] = {
    "process.roles": "broker,controller",
    "node.id": NODE_ID,
    "controller.listener.names": "CONTROLLER",
    "inter.broker.listener.name": "PLAINTEXT",
    # One node: nothing can be replicated.
    "offsets.topic.replication.factor": 1,
    "offsets.topic.num.partitions": 1,
    "transaction.state.log.replication.factor": 1,
    "transaction.state.log.min.isr": 1,
    "transaction.state.log.num.partitions": 1,
    "share.coordinator.state.topic.replication.factor": 1,
    "share.coordinator.state.topic.min.isr": 1,
    "share.coordinator.state.topic.num.partitions": 1,
    "default.replication.factor": 1,
    "min.insync.replicas": 1,
    "num.partitions": 1,
    # Topics are created explicitly: a mistyped name is an error, not a new topic.
    "auto.create.topics.enable": "false",
    "message.max.bytes": MAX_MESSAGE_BYTES,
    "replica.fetch.max.bytes": MAX_MESSAGE_BYTES,
    "log.message.timestamp.type": "LogAppendTime",
    "group.initial.rebalance.delay.ms": 0,
    # The aggregator's session is 3 s; Kafka's own least is 6 s, below which a worker hangs without exit.
    "group.min.session.timeout.ms": 1_000,
    # After SIGKILL the old registration must expire first: 4 s with these, 11–13 s with the defaults.
    "broker.session.timeout.ms": 3_000,
    "broker.heartbeat.interval.ms": 500,
    "background.threads": 2,
    "num.recovery.threads.per.data.dir": 2,
    "log.cleaner.threads": 1,
    "log.cleaner.dedupe.buffer.size": 8_388_608,
    "log.segment.bytes": 134_217_728,
    "log.retention.check.interval.ms": 60_000,
    # 10 MB a partition by default, mapped and then zero-filled at every roll: a laptop's disk notices.
    "log.index.size.max.bytes": 2_097_152,
}


def request_threads(cores: int) -> dict[str, int]:
    """Threads that read and answer requests, and that do them: no more than have cores to run on (one of each at least).

    A request goes from one of the first to one of the others and back. On two cores that a whole market shares, the four
    that did them before waited for each other's turns: with one each, frame to signal took 3 to 14 % less time.
    """
    return {"num.network.threads": 1 if cores <= 2 else 2, "num.io.threads": min(4, max(1, cores // 2))}


def server_properties(
    log_dir: Path,
    broker_port: int,
    controller_port: int,
    *,
    listen: str = "127.0.0.1",
    advertise: str = "127.0.0.1",
    listeners: Mapping[str, int] = MappingProxyType({}),
    settings: Mapping[str, str] = MappingProxyType({}),
    cores: int | None = None,
) -> str:
    """Text of ``server.properties``.

    Args:
        log_dir: folder of Kafka's data.
        broker_port, controller_port: ports for clients and, on 127.0.0.1, for the KRaft quorum of one.
        listen: address that clients connect to; empty for all that this machine has.
        advertise: host that clients are told to come to.
        listeners: ports of further listeners by their security protocol, such as SASL_SSL.
        settings: further lines; they go before those that stand here.
        cores: that the broker may run on; None: those that this process may.

    Raises:
        InputError: the folder's name has a comma or a backslash, which Kafka would split at or swallow.
    """
    if any(character in str(log_dir) for character in ",\\\n"):
        raise InputError(f"{log_dir}: Kafka splits folder names at commas and backslashes; use another state folder")
    lines = {
        **_SETTINGS,
        **request_threads(len(os.sched_getaffinity(0)) if cores is None else cores),
        "listeners": ",".join(
            f"{name}://{listen}:{port}" for name, port in {"PLAINTEXT": broker_port, **listeners}.items()
        )
        + f",CONTROLLER://127.0.0.1:{controller_port}",
        "advertised.listeners": ",".join(
            f"{name}://{advertise}:{port}" for name, port in {"PLAINTEXT": broker_port, **listeners}.items()
        ),
        "listener.security.protocol.map": ",".join(
            ["CONTROLLER:PLAINTEXT", *(f"{name}:{name}" for name in ("PLAINTEXT", *listeners))]
        ),
        "controller.quorum.voters": f"{NODE_ID}@127.0.0.1:{controller_port}",
        "log.dirs": str(log_dir),
        **settings,
    }
    return "".join(f"{name}={value}\n" for name, value in lines.items())


#: What slf4j-simple is told on the command line: warnings only, and each with its time.
LOG_FLAGS: Final = (
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSS",
)


def _new_cluster_id() -> str:
    """22 characters as Kafka writes its ids; a leading ``-`` would be taken for an option by Kafka's tools."""
    while True:
        text = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        if not text.startswith("-"):
            return text


def format_storage(log_dir: Path) -> bool:
    """Make ``log_dir`` a formatted, empty Kafka data folder; leave a formatted one as it is.

    Returns:
        Whether the folder was formatted now.

    Raises:
        MachineError: the folder can't be written.
    """
    meta = log_dir / "meta.properties"
    if meta.exists():
        return False
    try:
        log_dir.mkdir(parents=True, exist_ok=True)
        checkpoint = PACKAGE_DATA / f"bootstrap-{KAFKA_VERSION}.checkpoint"
        shutil.copyfile(checkpoint, log_dir / "bootstrap.checkpoint")
        # meta.properties is what says "formatted", so it comes last and whole.
        draft = log_dir / "meta.properties.draft"
        draft.write_text(
            f"version=1\ncluster.id={_new_cluster_id()}\nnode.id={NODE_ID}\n",
            encoding="ascii",
        )
        draft.rename(meta)
    except OSError as error:
        raise MachineError(f"{log_dir}: can't prepare Kafka's data folder: {error.strerror}") from error
    return True


def cluster_id_of(log_dir: Path) -> str:
    """The cluster id that a formatted data folder belongs to.

    Raises:
        MachineError: the folder isn't formatted, or its ``meta.properties`` is damaged.
    """
    meta = log_dir / "meta.properties"
    try:
        lines = meta.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise MachineError(f"{meta}: can't be read: {error.strerror}") from error
    for line in lines:
        name, _, value = line.partition("=")
        if name == "cluster.id" and value:
            return value.strip()
    raise MachineError(f"{meta}: has no cluster.id; the folder isn't Kafka's, or is damaged")
