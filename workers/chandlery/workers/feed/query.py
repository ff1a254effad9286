"""``python -m chandlery.workers.feed.query``: ask the feed of this container, from within it, and change nothing.

So whoever may run a program in the pod (``pods/exec``) sees what the pod's API tells, and the token stays where it is:
it is read here and never printed. ``kubectl chandlery`` calls it; each answer is JSON, one object a line.

======================  ==========================================================================================
``get WHAT…``           one object with the answer of ``/v1/WHAT`` for each, and ``now_ns`` and ``now_ms``: this host's
                        monotonic and its wall clock
``watch``               the status again and again, with how long new signals took; ends when standard input does
``signal PREFIX``       the records of the signals topic whose id begins so: signals and completions, as they stand there
======================  ==========================================================================================
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import os
import re
import select
import socket
import sys
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from chandlery.core.errors import ChandleryError, InputError, UnavailableError
from chandlery.core.settings import FeedSettings, parse_listen, read_settings

#: Where the operator mounts the feed's settings.
SETTINGS: Final = "/etc/chandlery/settings/feed.json"
#: What ``get`` may ask for.
READABLE: Final = ("status", "segment", "rings", "latency", "signals")
#: The feed answers within milliseconds; a machine at full load takes its time.
_TIMEOUT_S: Final = 5.0
#: The feed builds each signal's account while it answers: a long list would hold its candles up.
_MOST_SIGNALS: Final = 100
#: The status that told the count is a moment older than the answer.
_OVERLAP: Final = 10
#: A watcher whose connection is cut without a word ends by itself; who still looks opens another.
_LONGEST_WATCH_S: Final = 600.0
#: Reading a topic of a million signals takes 20 s here; three times that.
_TOPIC_S: Final = 60.0
#: Fewer digits would be the beginning of many ids, and none that of every record.
_PREFIX: Final = re.compile(r"[0-9a-fA-F]{6,32}")

_encode: Final = msgspec.json.Encoder().encode


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("local", timeout=_TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(_TIMEOUT_S)
        self.sock.connect(self._path)


class OwnFeed:
    """The feed that runs in this container (or, on one machine, with these settings)."""

    def __init__(self, settings: FeedSettings) -> None:
        self._settings = settings

    def get(self, path: str) -> Any:
        """The decoded answer to a GET.

        Raises:
            UnavailableError: no answer, or another than 200. InputError: the token's file can't be read.
        """
        connection = self._connection()
        try:
            connection.request("GET", path, headers=self._headers())
            answer = connection.getresponse()
            body = answer.read()
            if answer.status != 200:
                raise UnavailableError(f"the feed answers {answer.status} to GET {path}")
            return msgspec.json.decode(body)
        except (OSError, http.client.HTTPException, msgspec.DecodeError) as error:
            raise UnavailableError(f"the feed doesn't answer GET {path}: {error or type(error).__name__}") from error
        finally:
            connection.close()

    def _connection(self) -> http.client.HTTPConnection:
        address = parse_listen(self._settings.listen)
        if isinstance(address, str):
            return _UnixConnection(address)
        host, port = address
        everywhere = {"0.0.0.0": "127.0.0.1", "[::]": "::1", "::": "::1"}
        return http.client.HTTPConnection(everywhere.get(host, host.strip("[]")), port, timeout=_TIMEOUT_S)

    def _headers(self) -> dict[str, str]:
        token = self._settings.token
        if self._settings.token_file:
            try:
                token = Path(self._settings.token_file).read_text(encoding="utf-8").strip()
            except (OSError, UnicodeDecodeError) as error:
                raise InputError(f"{self._settings.token_file}: can't read the token") from error
        return {"Authorization": f"Bearer {token}"} if token else {}


def get(feed: OwnFeed, wanted: Sequence[str]) -> dict[str, Any]:
    """``get``: see above."""
    found: dict[str, Any] = {name: feed.get(f"/v1/{name}") for name in wanted}
    return {"now_ns": time.monotonic_ns(), "now_ms": time.time_ns() // 1_000_000, **found}


class Watch:
    """What ``watch`` tells: each time the status without the catalogue, and the signals that are new since."""

    def __init__(self, feed: OwnFeed) -> None:
        self._feed = feed
        self._published = 0

    def look(self) -> dict[str, Any]:
        """``{at_ns, status, signals: [[id, trader, frame to acknowledgement in µs or null] …]}``, oldest first."""
        status = self._feed.get("/v1/status")
        status.pop("catalogue", None)
        published = int(status.get("feed", {}).get("signals", {}).get("published", 0))
        new, self._published = published - self._published, published
        told: list[dict[str, Any]] = []
        if new:
            # A feed that was restarted counts from 0: then the newest few are asked for.
            told = self._feed.get(f"/v1/signals?limit={min(max(new, 0) + _OVERLAP, _MOST_SIGNALS)}")
        signals = [
            [one["signal"]["id"], one["signal"]["trader"], one["account"].get("frame_to_signal_us")]
            for one in reversed(told)
        ]
        return {"at_ns": time.monotonic_ns(), "status": status, "signals": signals}


def watch(feed: OwnFeed, every_s: float, count: int) -> None:
    """``watch``: print until standard input ends, ``count`` times (0: without an end), or for ten minutes."""
    watching = Watch(feed)
    end_s = time.monotonic() + _LONGEST_WATCH_S
    looked = 0
    while True:
        _print(watching.look())
        looked += 1
        if looked == count or time.monotonic() > end_s:
            return
        readable, _, _ = select.select([sys.stdin], [], [], every_s)
        if readable and not os.read(sys.stdin.fileno(), 1024):
            return


async def signal_records(settings: FeedSettings, prefix: str) -> AsyncIterator[bytes]:
    """Records of the signals topic, as it is now, whose id begins with ``prefix``, 6 to 32 hex digits.

    Raises:
        InputError: the prefix is shorter, and would be that of many a record, or is none.
        UnavailableError: Kafka doesn't answer.
    """
    if not _PREFIX.fullmatch(prefix):
        raise InputError(f"{prefix[:40]!r} is no beginning of a signal's id: give 6 to 32 of its hex digits")
    # Only here is a client of Kafka needed: importing it takes longer than all the rest.
    from aiokafka import TopicPartition
    from aiokafka.errors import KafkaError

    from chandlery.core.kafka_ending import end_client
    from chandlery.core.topics import topics_of
    from chandlery.workers.feed.clients import candle_consumer, quieten_client

    quieten_client()
    wanted = re.compile(rb'"id":"' + re.escape(prefix.lower().encode()))
    topic = topics_of(settings.kafka).signals
    consumer = candle_consumer(settings.kafka)
    try:
        async with asyncio.timeout(_TOPIC_S):
            await consumer.start()
            partitions = [TopicPartition(topic, number) for number in range(settings.kafka.partitions)]
            consumer.assign(partitions)
            ends: dict[TopicPartition, int] = await consumer.end_offsets(partitions)
            begins: dict[TopicPartition, int] = await consumer.beginning_offsets(partitions)
            waiting = {partition for partition in partitions if begins[partition] < ends[partition]}
            for partition in waiting:
                consumer.seek(partition, begins[partition])
            while waiting:
                batches = await consumer.getmany(*waiting, timeout_ms=500)
                for records in batches.values():
                    for record in records:
                        if record.value is not None and wanted.search(record.value):
                            yield record.value
                # The position passes control records too, which no batch shows.
                waiting = {one for one in waiting if await consumer.position(one) < ends[one]}
    except (KafkaError, OSError, TimeoutError) as error:
        raise UnavailableError(f"Kafka at {settings.kafka.bootstrap} doesn't answer: {error!r}") from error
    finally:
        await end_client(consumer)


async def _print_records(settings: FeedSettings, prefix: str) -> None:
    async for value in signal_records(settings, prefix):
        sys.stdout.buffer.write(value.replace(b"\n", b" ") + b"\n")
    sys.stdout.buffer.flush()


def _print(value: object) -> None:
    sys.stdout.buffer.write(_encode(value) + b"\n")
    sys.stdout.buffer.flush()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m chandlery.workers.feed.query",
        description="Ask the feed of this container.",
        allow_abbrev=False,  # the chart's policy knows options by their whole names
    )
    parser.add_argument("--config", default=SETTINGS, metavar="FILE", help="settings of the feed")
    verbs = parser.add_subparsers(dest="verb", required=True)
    getting = verbs.add_parser("get", help="answers of the pod's API")
    getting.add_argument("wanted", nargs="+", choices=READABLE)
    watching = verbs.add_parser("watch", help="the status again and again")
    watching.add_argument("--every", type=float, default=2.0, metavar="SECONDS")
    watching.add_argument("--count", type=int, default=0, help="how often; 0: until standard input ends")
    tracing = verbs.add_parser("signal", help="records of a signal on its topic")
    tracing.add_argument("prefix", metavar="PREFIX", help="the signal's id, or its first 6 hex digits or more")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Answer one question; returns the exit code (errors.py). Errors are one line on standard error."""
    options = _parser().parse_args(arguments)
    try:
        settings = read_settings(options.config, FeedSettings)
        if options.verb == "get":
            _print(get(OwnFeed(settings), options.wanted))
        elif options.verb == "watch":
            watch(OwnFeed(settings), max(options.every, 0.2), options.count)
        else:
            asyncio.run(_print_records(settings, options.prefix))
    except ChandleryError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    except BrokenPipeError:
        return 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
