"""Each line of the log about one signal names its trace: published, dropped for any reason, sent again, told of a ring."""

from __future__ import annotations

import asyncio
import json
import logging
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
from tests.workers_feed.feed_setup import feed_settings, signal, trader, until
from tests.workers_feed.test_feed_drain import KAFKA, Broker, a_drain, drained

from chandlery.core import signals as signal_format
from chandlery.core.clocks import HostClocks
from chandlery.core.logs import JsonFormatter
from chandlery.core.signals import Completion
from chandlery.core.telemetry import ids_of
from chandlery.workers.feed import drain as drain_module
from chandlery.workers.feed import notes as notes_module
from chandlery.workers.feed.admission import RecentIds
from chandlery.workers.feed.assignments import Fence
from chandlery.workers.feed.board import Receipt
from chandlery.workers.feed.forming_signals import FormingSignals
from chandlery.workers.feed.notes import Notes
from chandlery.workers.feed.ring_drain import RingDrain, Tally
from chandlery.workers.feed.signal_lines import MOST_DROPS, SignalLines
from chandlery.workers.feed.tracing import Tracing
from chandlery.workers.segment import SignalRing


def lines(caplog: pytest.LogCaptureFixture, message: str) -> list[dict[str, Any]]:
    """What was logged under one message, as a pod's log has it."""
    told = [json.loads(JsonFormatter("feed").format(record)) for record in caplog.records]
    return [line for line in told if line["message"] == message]


def ids(line: dict[str, Any]) -> dict[str, str]:
    return {name: line[name] for name in ("trace_id", "span_id") if name in line}


class Ring:
    """A Trader's ring, and the feed's end of it."""

    def __init__(self, folder: Path, slots: int = 64) -> None:
        self.path = folder / "desk__a@1.ring"
        self.ring = SignalRing.create(str(self.path), trader="desk/a", slots=slots)
        self.lines = SignalLines()
        self.tally = Tally()
        identity = self.path.stat().st_ino
        self.drain = RingDrain("desk/a@1", self.path, identity, self.tally, Counter(), self.lines)
        self._recent, self._forming = RecentIds(), FormingSignals()

    def take(self, *payloads: bytes, fence: Fence | None = None) -> None:
        for payload in payloads:
            assert self.ring.push(payload)
        self.drain.take(fence or Fence.of(trader("a", ["BTC/USDT"])), self._recent, self._forming)

    def close(self) -> None:
        self.drain.close()
        self.ring.close()


@pytest.fixture
def info(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, "chandlery")
    return caplog


def test_a_dropped_signal_is_a_line_with_its_reason_and_its_ids(tmp_path: Path, info: pytest.LogCaptureFixture) -> None:
    ring = Ring(tmp_path)
    good = signal("a", 1)
    stranger = msgspec.structs.replace(signal("a", 2), trader="desk/b")
    nameless = msgspec.structs.replace(signal("a", 3), id="no id")
    ring.take(*[signal_format.encode(one) for one in (good, good, stranger, nameless)], b"rubbish")
    fence = msgspec.structs.replace(Fence.of(trader("a", ["BTC/USDT"])), mode="suspended")
    late = signal("a", 4)
    ring.take(signal_format.encode(late), fence=fence)
    ring.lines.end()
    ring.close()
    said = lines(info, "signal dropped")
    assert [(line["reason"], line["level"], ids(line)) for line in said] == [
        ("duplicate_signal", "info", ids_of(good.id)),
        ("bad_signal", "warning", ids_of(stranger.id)),
        ("bad_signal", "warning", ids_of("no id")),
        ("bad_signal", "warning", {}),
        ("fenced", "info", ids_of(late.id)),
    ]
    assert {line["trader"] for line in said} == {"desk/a"}
    assert all(line["error"] for line in said)
    assert len(said) == sum(ring.tally.dropped.values()), "one line a drop"


def test_a_corrupt_ring_names_the_newest_signal_that_was_taken_from_it(
    tmp_path: Path, info: pytest.LogCaptureFixture
) -> None:
    ring = Ring(tmp_path)
    one = signal("a", 1)
    ring.take(signal_format.encode(one))
    ring.drain.in_flight[0].done = True
    whole = ring.path.read_bytes()
    with ring.path.open("r+b") as file:  # under both mappings: what a trader could do
        file.write(b"\xff" * len(whole))
    ring.take()
    ring.close()
    assert ring.drain.corrupt
    (said,) = lines(info, "signal ring corrupt")
    assert ids(said) == ids_of(one.id)
    assert said["trader"] == "desk/a@1"


def test_a_flood_of_drops_costs_few_lines_and_hides_no_published_signal(info: pytest.LogCaptureFixture) -> None:
    told = SignalLines()
    for number in range(MOST_DROPS + 300):
        told.dropped("desk/a", signal("a", number), "bad_signal", "why")
    told.completion_lost("ab" * 16, "too many wait")
    told.end()
    assert len(lines(info, "signal dropped")) == MOST_DROPS
    (more,) = lines(info, "more signals dropped than are named here")
    assert more["signals"] == 300
    assert [ids(line) for line in lines(info, "completion lost")] == [ids_of("ab" * 16)]


async def test_lines_are_written_while_the_feed_runs(
    monkeypatch: pytest.MonkeyPatch, info: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("chandlery.workers.feed.signal_lines.LINGER_S", 0.0)
    told = SignalLines()
    writing = asyncio.create_task(told.run())
    told.dropped("desk/a", signal("a", 1), "bad_signal", "why")
    await until("written", lambda: lines(info, "signal dropped"))
    writing.cancel()
    await asyncio.gather(writing, return_exceptions=True)


@pytest.mark.parametrize(
    ("fate", "reason"), [("fail", "OutOfOrderSequenceNumber"), ("full", "the producer has no room")]
)
async def test_a_signal_that_is_sent_again_is_a_line_with_its_ids(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, info: pytest.LogCaptureFixture, fate: str, reason: str
) -> None:
    broker = Broker(iter(["ok", fate]))  # the first is the producer's start
    monkeypatch.setattr(drain_module, "signal_producer", broker.producer)
    monkeypatch.setattr(drain_module, "_RETRY_S", 0.0)
    drain, ring = a_drain(tmp_path)
    one = signal("a", 1)
    assert ring.push(signal_format.encode(one))
    await drained(drain, ring, lambda: drain.tally.published == 1)
    drain._tracing.end()
    (said,) = lines(info, "signal sent again")
    assert (said["reason"], said["trader"], ids(said)) == (reason, "desk/a", ids_of(one.id))
    (published,) = lines(info, "signal published")
    assert ids(published) == ids_of(one.id)


class Refused(NamedTuple):
    """A record that the feed can't use."""

    headers: list[tuple[str, Any]]
    topic: str = "market.candles"
    partition: int = 1
    offset: int = 7
    key: bytes | None = None
    value: bytes | None = b"x"


def test_a_dead_letter_names_the_trace_that_its_record_carries(info: pytest.LogCaptureFixture) -> None:
    notes = Notes(KAFKA, "feed/w", Counter())
    context = b"00-" + b"ab" * 16 + b"-" + b"cd" * 8 + b"-01"
    notes.refuse(Refused([("stamps", b""), (signal_format.TRACE_HEADER, context)]), "no candles record")
    notes.refuse(Refused([], offset=8), "no candles record")
    notes.refuse(Refused([(signal_format.TRACE_HEADER, None)], offset=9), "no candles record")  # as Kafka allows
    first, second, third = lines(info, "record refused")
    assert ids(first) == {"trace_id": "ab" * 16, "span_id": "cd" * 8}
    assert (first["reason"], first["offset"]) == ("no candles record", 7)
    assert not ids(second)
    assert not ids(third)


def test_a_completion_that_is_lost_is_a_line_with_its_signals_ids(
    monkeypatch: pytest.MonkeyPatch, info: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(notes_module, "MOST_WAITING", 1)
    told, counts = SignalLines(), Counter[str]()
    notes = Notes(KAFKA, "feed/w", counts, told)
    first, second = signal("a", 1), signal("a", 2)
    for one in (first, second):
        notes.complete(one.symbol, Completion(one.id, one.trader, 1, 1))
    told.end()
    assert counts == {"completion_lost": 1}
    (said,) = lines(info, "completion lost")
    assert ids(said) == ids_of(first.id)


def test_a_feed_that_logs_nothing_of_signals_keeps_no_lines(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR, "chandlery")
    made = Tracing(feed_settings(tmp_path, KAFKA), Receipt(), HostClocks(), {})
    made.lines.dropped("desk/a", signal("a", 1), "bad_signal", "why")
    caplog.set_level(logging.INFO, "chandlery")
    made.end()
    assert not lines(caplog, "signal dropped")
