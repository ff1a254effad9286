"""Apache Kafka as the one process of a pod, for trying out: one node, nothing replicated, no encryption.

    python -m chandlery.stream.broker_pod --data DIR --advertise HOST:PORT

Formats the data folder when it is empty, and then becomes Kafka (exec): signals and exit code are Kafka's own, and the
kubelet restarts it. It listens on all addresses at the advertised port, and tells clients to come to the advertised
host: a Service's name. Jars and Java are the image's; nothing is downloaded.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Final

from chandlery.core.errors import ChandleryError, InputError, MachineError
from chandlery.stream.broker_config import LOG_FLAGS, format_storage, server_properties
from chandlery.stream.broker_jars import kafka_cache, locked_jars
from chandlery.stream.broker_java import class_path, find_java, java_flags

#: The KRaft quorum of one talks to itself on loopback.
_CONTROLLER_PORT: Final = 9093
_HEAP_MB: Final = 256


def command_line(data: Path, advertise: str, heap_mb: int) -> list[str]:
    """Prepare the data folder and give the command that is Kafka.

    Args:
        data: where Kafka's data and settings live; outlives the container where it is a volume.
        advertise: ``HOST:PORT`` at which clients reach this broker.
        heap_mb: most memory of the JVM's heap, MB.

    Raises:
        InputError: ``advertise`` isn't ``HOST:PORT``.
        MachineError: jars or Java are missing, or the folder can't be written.
    """
    host, _, port = advertise.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65_536 or int(port) == _CONTROLLER_PORT:
        raise InputError(f"--advertise {advertise}: give HOST:PORT, the port not {_CONTROLLER_PORT}")
    jars = [kafka_cache() / jar.name for jar in locked_jars()]
    if missing := [jar.name for jar in jars if not jar.exists()]:
        raise MachineError(f"{kafka_cache()} lacks {missing[0]} and {len(missing) - 1} more of Kafka's jars")
    format_storage(data / "kafka")
    settings = data / "server.properties"
    text = server_properties(data / "kafka", int(port), _CONTROLLER_PORT, listen="", advertise=host)
    try:
        settings.write_text(text, encoding="utf-8")
    except OSError as error:
        raise MachineError(f"{settings}: can't be written: {error.strerror}") from error
    java = find_java()
    return [
        str(java.command),
        *java_flags(java, heap_mb),
        *LOG_FLAGS,
        "-cp",
        class_path(jars),
        "kafka.Kafka",
        str(settings),
    ]


def main() -> int:
    """Become Kafka, or return an exit code."""
    parser = argparse.ArgumentParser(prog="python -m chandlery.stream.broker_pod", description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of Kafka's data")
    parser.add_argument("--advertise", required=True, metavar="HOST:PORT", help="where clients reach it")
    parser.add_argument("--heap-mb", type=int, default=_HEAP_MB, help="the JVM's heap (default: %(default)s)")
    arguments = parser.parse_args()
    try:
        words = command_line(arguments.data, arguments.advertise, arguments.heap_mb)
    except ChandleryError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    try:
        os.execv(words[0], words)
    except OSError as error:
        print(f"error: {words[0]}: {error.strerror}", file=sys.stderr)
        return MachineError.exit_code


if __name__ == "__main__":
    sys.exit(main())
