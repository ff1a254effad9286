"""Traces of signals to a receiver that is well, away, slow, wrong or full: the signals never notice."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from tests.support.otlp_receiver import Identity, Receiver, grpc_receiver, http_receiver, make_identity
from tests.workers_feed.feed_setup import (
    MINUTE,
    api,
    assignment,
    candle,
    feed_settings,
    make_ring,
    published,
    put,
    running_feed,
    signal,
    trader,
    until,
)
from tests.workers_feed.trace_setup import exported, stamped, tell, traced

from chandlery.core import signals as signal_format
from chandlery.core import wire
from chandlery.core.clocks import HostClocks, Stamps, now_ns, wall_offset_ns
from chandlery.core.latency import account
from chandlery.core.logs import JsonFormatter, TerminalFormatter
from chandlery.core.settings import FeedSettings, KafkaSettings, TelemetrySettings
from chandlery.core.signals import Completion, Signal, SignalStamps
from chandlery.core.telemetry import trace_export
from chandlery.core.topics import partition_of, topics_of
from chandlery.stream.topics import ensure_topics
from chandlery.workers.feed import otlp, tracing
from chandlery.workers.feed.board import Receipt
from chandlery.workers.feed.service import Feed
from chandlery.workers.feed.signal_lines import MOST_LINES
from chandlery.workers.feed.span_encoder import Encoder
from chandlery.workers.feed.tracing import Tracing

BTC = "BTC/USDT"
RECEIVERS = [(http_receiver, "http/protobuf"), (grpc_receiver, "grpc")]
receiving = pytest.mark.parametrize(("receiving", "protocol"), RECEIVERS, ids=["http", "grpc"])
Receiving = Callable[[], AbstractContextManager[Receiver]]


async def signals_through(feed: Feed, settings: FeedSettings, count: int) -> list[Signal]:
    """Have the feed publish ``count`` signals, and wait for their acknowledgement."""
    made = [stamped(number) for number in range(count)]
    async with api(settings) as client:
        await put(client, assignment(1, trader("a", [BTC])))
        ring = make_ring(settings, "a", slots=256)
        for one in made:
            assert ring.push(signal_format.encode(one))
        await until("all published", lambda: feed.status().feed["signals"]["published"] == count)
    return made


def adds_up(feed: Feed) -> dict[str, Any]:
    told: dict[str, Any] = feed.status().feed["traces"]
    assert told["built"] == told["exported"] + told["waiting"] + sum(told["dropped"].values()), told
    return told


@pytest.mark.broker
@receiving
async def test_each_signal_is_a_trace_and_its_record_names_it(
    tmp_path: Path, kafka_settings: KafkaSettings, receiving: Receiving, protocol: str
) -> None:
    await ensure_topics(kafka_settings)
    with receiving() as receiver:
        pods = {name: {"k8s.pod.name": f"{name}-0"} for name in ("resource", "ingest", "aggregator")}
        settings = traced(tmp_path, kafka_settings, receiver.endpoint, protocol, **pods)
        async with running_feed(settings) as feed:
            made = await signals_through(feed, settings, 100)
        traces = receiver.traces()
        assert adds_up(feed)["exported"] == 100
        assert len(receiver.requests) < 50, "packed"
    assert traces.keys() == {one.id for one in made}
    for spans in traces.values():
        assert len(spans) == 10
        by_service = {span.service: span.resource for span in spans}
        assert by_service["chandlery-trader"]["service.instance.id"] == "desk/a"
        assert by_service["chandlery-feed"]["k8s.pod.name"] == "resource-0"
        assert by_service["chandlery-trader"]["k8s.pod.name"] == "resource-0", "both run in one pod"
        assert by_service["chandlery-ingest"]["k8s.pod.name"] == "ingest-0"
        assert by_service["chandlery-aggregator"]["k8s.pod.name"] == "aggregator-0"
        assert by_service["chandlery-feed"]["process.pid"] > 0


@pytest.mark.broker
async def test_the_record_carries_w3c_context(tmp_path: Path, kafka_settings: KafkaSettings) -> None:
    await ensure_topics(kafka_settings)
    settings = feed_settings(tmp_path, kafka_settings)
    async with running_feed(settings) as feed:
        (one,) = await signals_through(feed, settings, 1)
    consumer = AIOKafkaConsumer(
        topics_of(kafka_settings).signals, bootstrap_servers=kafka_settings.bootstrap, auto_offset_reset="earliest"
    )
    await consumer.start()
    try:
        record = await consumer.getone()
    finally:
        await consumer.stop()
    version, trace_id, parent, flags = dict(record.headers)["traceparent"].decode().split("-")
    assert (version, trace_id, flags) == ("00", one.id, "00"), "nothing is exported here: not sampled"
    assert int(parent, 16) > 0


@contextlib.contextmanager
def nobody() -> Iterator[str]:
    """An address at which nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


@pytest.mark.broker
@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
async def test_a_receiver_that_is_away_costs_traces_and_no_signal(
    tmp_path: Path, kafka_settings: KafkaSettings, protocol: str
) -> None:
    await ensure_topics(kafka_settings)
    with nobody() as endpoint:
        settings = traced(tmp_path, kafka_settings, endpoint, protocol)
        async with running_feed(settings) as feed:
            made = await signals_through(feed, settings, 50)
            await until("the trouble is told", lambda: adds_up(feed)["last_error"])
    told = adds_up(feed)
    assert told["dropped"] == {"ended": 50}, told
    assert told["waiting"] == 0
    out, completions = await published(kafka_settings)
    assert [one.id for one in out] == [one.id for one in made]
    assert len(completions) == 50


@pytest.mark.broker
@receiving
async def test_what_is_answered_later_is_sent_again_and_what_is_refused_is_dropped(
    tmp_path: Path, kafka_settings: KafkaSettings, receiving: Receiving, protocol: str
) -> None:
    await ensure_topics(kafka_settings)
    later, no = (503, 500) if protocol == "http/protobuf" else ("UNAVAILABLE", "INVALID_ARGUMENT")
    with receiving() as receiver:
        receiver.answers = [later, later]
        settings = traced(tmp_path, kafka_settings, receiver.endpoint, protocol)
        async with running_feed(settings) as feed:
            made = await signals_through(feed, settings, 5)
            await until("exported at last", lambda: adds_up(feed)["exported"] == 5)
            assert receiver.traces().keys() == {one.id for one in made}
            assert adds_up(feed)["last_error"] == ""
            receiver.always = no
            ring = make_ring(settings, "a", slots=256)
            assert ring.push(signal_format.encode(stamped(1_000)))
            await until("refused", lambda: adds_up(feed)["dropped"] == {"refused": 1})
            assert adds_up(feed)["last_error"]


@pytest.mark.broker
@receiving
async def test_a_receiver_that_never_answers_does_not_hold_up_the_end(
    tmp_path: Path, kafka_settings: KafkaSettings, receiving: Receiving, protocol: str
) -> None:
    await ensure_topics(kafka_settings)
    with receiving() as receiver:
        receiver.stall.clear()
        settings = traced(tmp_path, kafka_settings, receiver.endpoint, protocol)
        async with running_feed(settings) as feed:
            made = await signals_through(feed, settings, 20)
            await until("it was asked", lambda: receiver.requests)
        assert adds_up(feed)["dropped"] == {"ended": 20}
    out, completions = await published(kafka_settings)
    assert [one.id for one in out] == [one.id for one in made], "no signal waited for it"
    assert len(completions) == 20


@pytest.mark.parametrize(
    ("receiving", "protocol", "says"),
    [(http_receiver, "http/protobuf", "no answer within 0.2 s"), (grpc_receiver, "grpc", "DEADLINE_EXCEEDED")],
    ids=["http", "grpc"],
)
async def test_a_receiver_that_answers_after_the_deadline_is_asked_again_and_what_finds_no_room_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, receiving: Receiving, protocol: str, says: str
) -> None:
    monkeypatch.setattr(tracing, "MOST_WAITING", 10)
    monkeypatch.setattr(tracing, "LINGER_S", 0.0)
    monkeypatch.setattr(tracing, "_FIRST_PAUSE_S", 0.0)
    environment = {"OTEL_EXPORTER_OTLP_TIMEOUT": "200"}
    with receiving() as receiver:
        receiver.stall.clear()
        settings = traced(tmp_path, KafkaSettings("b:9092", "f"), receiver.endpoint, protocol)
        made = Tracing(settings, Receipt(), HostClocks(), environment)
        running = asyncio.create_task(made.run())
        signals = [stamped(number) for number in range(31)]
        tell(made, signals[:1])
        await until("the deadline is over", lambda: says in made.problem)
        tell(made, signals[1:])  # as the drain does: it neither waits nor fails
        assert made.dropped == {"queue_full": 20}
        assert made.report()["waiting"] == 11, "ten, and the one under way"
        receiver.stall.set()  # late answers go out, to nobody
        await made.drain(30.0)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        made.end()
        assert (made.built, made.exported, made.dropped) == (31, 11, {"queue_full": 20})
        assert receiver.traces().keys() == {one.id for one in (signals[0], *signals[21:])}


@pytest.mark.broker
async def test_a_receivers_partial_success_is_counted(tmp_path: Path, kafka_settings: KafkaSettings) -> None:
    await ensure_topics(kafka_settings)
    with http_receiver() as receiver:
        receiver.rejected = 3
        settings = traced(tmp_path, kafka_settings, receiver.endpoint)
        async with running_feed(settings) as feed:
            await signals_through(feed, settings, 1)
            await until("told", lambda: adds_up(feed)["spans_rejected"] == 3)
            assert adds_up(feed)["last_error"] == "too many attributes"


@pytest.mark.broker
async def test_a_share_of_ordinary_ticks_is_traced_and_signals_of_one_are_linked_to_it(
    tmp_path: Path, kafka_settings: KafkaSettings
) -> None:
    await ensure_topics(kafka_settings)
    with http_receiver() as receiver:
        settings = traced(tmp_path, kafka_settings, receiver.endpoint, tick_share=1.0)
        async with (
            running_feed(settings) as feed,
            api(settings) as client,
            AIOKafkaProducer(bootstrap_servers=kafka_settings.bootstrap) as producer,
        ):
            await put(client, assignment(1, trader("a", [BTC])))
            await until("joined", lambda: not feed.status().feed["catching_up"])
            at, topics = now_ns(), topics_of(kafka_settings)
            given = Stamps(received_ns=at - 4_000_000, aggregated_ns=at - 2_000_000, emitted_ns=at - 1_000_000)
            value = wire.encode(wire.CandlesRecord(BTC, 0, 1, [candle(MINUTE)]))
            header = ("stamps", given.pack(wall_offset_ns()))
            partition = partition_of(BTC, kafka_settings.partitions)
            await producer.send_and_wait(topics.candles, value, key=BTC.encode(), partition=partition, headers=[header])
            await until("the tick's trace", lambda: len(receiver.traces()) == 1)
            (spans,) = receiver.traces().values()
            assert {span.attributes.get("chandlery.stage", "whole") for span in spans} == {
                "whole", "aggregated", "emitted", "fed", "published",
            }  # fmt: skip
            (root,) = [span for span in spans if not span.parent_id]
            assert (root.name, root.attributes["chandlery.symbol"]) == ("frame to segment", BTC)
            stamps = SignalStamps(
                received_ns=given.received_ns, aggregated_ns=given.aggregated_ns, emitted_ns=given.emitted_ns,
                fed_ns=at, published_ns=at, woken_ns=at, decided_ns=at, signalled_ns=at,
            )  # fmt: skip
            ring = make_ring(settings, "a")
            assert ring.push(signal_format.encode(signal("a", 1, stamps=stamps)))
            await until("the signal's trace", lambda: len(receiver.traces()) == 2)
    (linked,) = [span for span in receiver.spans if span.links]
    assert [(trace_id, span_id) for trace_id, span_id, _ in linked.links] == [(root.trace_id, root.span_id)]


async def test_headers_and_compression_reach_the_receiver(tmp_path: Path) -> None:
    with http_receiver() as receiver:
        made = Tracing(
            traced(tmp_path, KafkaSettings("b:9092", "f"), receiver.endpoint),
            Receipt(),
            HostClocks(),
            {"OTEL_EXPORTER_OTLP_HEADERS": "Authorization=Bearer%20x", "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip"},
        )
        assert await exported(made, [stamped(1)]) == 1
        assert receiver.requests[0]["authorization"] == "Bearer x"
        assert receiver.requests[0]["content-encoding"] == "gzip"
        assert len(receiver.traces()) == 1


async def test_more_than_can_wait_drops_the_oldest_and_counts_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracing, "MOST_WAITING", 10)
    with http_receiver() as receiver:
        made = Tracing(traced(tmp_path, KafkaSettings("b:9092", "f"), receiver.endpoint), Receipt(), HostClocks(), {})
        signals = [stamped(number) for number in range(25)]
        assert await exported(made, signals) == 10
        assert made.dropped == {"queue_full": 15}
        assert receiver.traces().keys() == {one.id for one in signals[15:]}


async def test_a_share_of_signals_is_the_same_share_everywhere(tmp_path: Path) -> None:
    environment = {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.5"}
    with http_receiver() as receiver:
        made = Tracing(
            traced(tmp_path, KafkaSettings("b:9092", "f"), receiver.endpoint), Receipt(), HostClocks(), environment
        )
        signals = [stamped(number) for number in range(200)]
        sampled = {one.id for one in signals if made.traceparent(one).endswith(b"-01")}
        assert 60 < len(sampled) < 140
        assert await exported(made, signals) == len(sampled)
        assert receiver.traces().keys() == sampled


@pytest.mark.broker
async def test_a_trader_that_lies_spoils_no_others_trace_and_no_signal(
    tmp_path: Path, kafka_settings: KafkaSettings
) -> None:
    await ensure_topics(kafka_settings)
    hostile: list[dict[str, Any]] = [
        {"session": 2**63},
        {"incarnation": 1, "revision": -(2**62), "open_time_ms": 2**64 - 1},
        {"strategy_ns": -5},
        {"strategy_ns": 2**62},
        {"stamps": SignalStamps(*[-(2**62)] * 13)},
        {"stamps": SignalStamps(*[2**62] * 13)},
        {"stamps": SignalStamps(*[1] * 10)},
        {"stamps": SignalStamps()},
        {"rule": "\x00\u202e" * 20, "strategy": "", "code": "ö" * 50},
    ]
    with http_receiver() as receiver:
        settings = traced(tmp_path, kafka_settings, receiver.endpoint)
        async with running_feed(settings) as feed, api(settings) as client:
            await put(client, assignment(1, trader("a", [BTC]), trader("b", [BTC])))
            bad, good = make_ring(settings, "a", slots=64), make_ring(settings, "b", slots=64)
            for number, lie in enumerate(hostile):
                assert bad.push(signal_format.encode(msgspec.structs.replace(stamped(number), **lie)))
                assert good.push(signal_format.encode(stamped(number, "b")))
            wanted = {stamped(number, "b").id for number in range(len(hostile))}
            await until("the honest ones' traces", lambda: wanted <= receiver.traces().keys())
            told = feed.status().feed
    ended = adds_up(feed)
    assert ended["waiting"] == 0
    assert told["signals"]["dropped"] == {"bad_signal": 2}, "a number beyond 64 bits is no signal's"
    assert set(ended["dropped"]) == {"no_stamps"}, "what passes can be told as a trace, if it says when"
    assert told["signals"]["emitted"] == told["signals"]["published"] + sum(told["signals"]["dropped"].values())
    for spans in receiver.traces().values():
        assert all(span.end_ns > span.start_ns for span in spans)


@pytest.mark.broker
async def test_each_signal_is_a_line_in_the_log_that_names_its_trace(
    tmp_path: Path, kafka_settings: KafkaSettings, caplog: pytest.LogCaptureFixture
) -> None:
    await ensure_topics(kafka_settings)
    caplog.set_level(logging.INFO, "chandlery")
    async with running_feed(feed_settings(tmp_path, kafka_settings)) as feed:
        made = await signals_through(feed, feed_settings(tmp_path, kafka_settings), 3)
    formatter = JsonFormatter("feed")
    lines = [json.loads(formatter.format(record)) for record in caplog.records]
    said = [line for line in lines if line["message"] == "signal published"]
    assert [line["trace_id"] for line in said] == [one.id for one in made]
    for line in said:
        assert (line["trader"], line["action"], line["component"]) == ("desk/a", "buy", "feed")
        assert len(line["span_id"]) == 16
        assert line["frame_to_signal_us"] > 0
    (text,) = TerminalFormatter("feed").format(caplog.records[-1]).splitlines()
    assert "feed" in text


async def test_a_flood_of_signals_is_told_by_number(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "chandlery")
    made = Tracing(feed_settings(tmp_path, KafkaSettings("b:9092", "f")), Receipt(), HostClocks(), {})
    assert await exported(made, [stamped(number) for number in range(MOST_LINES + 1_000)]) == 0
    named = [record for record in caplog.records if record.message == "signal published"]
    (counted,) = [record for record in caplog.records if record.message.startswith("more signals")]
    assert len(named) == MOST_LINES
    assert vars(counted)["signals"] == 1_000


@receiving
async def test_a_receiver_is_trusted_by_the_given_authority_and_by_no_other(
    tmp_path: Path, receiving: Callable[[Identity], AbstractContextManager[Receiver]], protocol: str
) -> None:
    identity = make_identity(tmp_path)
    with receiving(identity) as receiver:
        settings = traced(tmp_path, KafkaSettings("b:9092", "f"), receiver.endpoint, protocol)
        known = {"OTEL_EXPORTER_OTLP_CERTIFICATE": str(identity.certificate)}
        assert await exported(Tracing(settings, Receipt(), HostClocks(), known), [stamped(1)]) == 1
        stranger = Tracing(settings, Receipt(), HostClocks(), {})
        trying = asyncio.create_task(stranger.run())
        one = stamped(2)
        stranger.completed(one, Completion(one.id, one.trader, 1, 1), one.stamps, account(one.stamps))
        await until("it was not trusted", lambda: stranger.problem)
        trying.cancel()
        await asyncio.gather(trying, return_exceptions=True)
        assert len(receiver.traces()) == 1


@pytest.mark.parametrize("part", ["send", "close", "encode"])
async def test_a_part_of_tracing_that_breaks_costs_traces_and_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    closing = otlp.HttpExporter.close

    def breaks(*_: object) -> None:
        raise LookupError("s3cret")

    async def breaks_closed(exporter: otlp.HttpExporter) -> None:
        await closing(exporter)
        breaks()

    kind = Encoder if part == "encode" else otlp.HttpExporter
    monkeypatch.setattr(kind, part, breaks_closed if part == "close" else breaks)
    with http_receiver() as receiver:
        made = Tracing(traced(tmp_path, KafkaSettings("b:9092", "f"), receiver.endpoint), Receipt(), HostClocks(), {})
        for one in (stamped(1), stamped(2)):
            made.completed(one, Completion(one.id, one.trader, 1, 1), one.stamps, account(one.stamps))
        running = asyncio.create_task(made.run())
        await made.drain(30.0)
        assert not running.done()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
    made.end()
    assert made.exported == (2 if part == "close" else 0)
    assert made.exported + sum(made.dropped.values()) == made.built == 2
    assert part == "close" or "LookupError" in made.problem
    assert "s3cret" not in made.problem


def test_an_address_of_ipv6_keeps_its_brackets(tmp_path: Path) -> None:
    export = trace_export(TelemetrySettings("http://[::1]:4317", "grpc"), {})
    assert export is not None
    assert otlp.GrpcExporter(export)._target == "[::1]:4317"


async def test_a_ticks_trace_tells_whose_clocks_stamped_it(tmp_path: Path) -> None:
    with http_receiver() as receiver:
        settings = traced(tmp_path, KafkaSettings("b:9092", "f"), receiver.endpoint, tick_share=1.0)
        made, at = Tracing(settings, Receipt(), HostClocks(), {}), now_ns() - 10_000_000
        stamps = Stamps(0, at, at + wall_offset_ns(), at + 1_000, at + 2_000, origin=b"o" * 8, host=b"h" * 8)
        stamps.host_uncertainty_ns = 5_000
        made.tick(BTC, candle(MINUTE), stamps)
        assert await exported(made, []) == 1
        ((root, *_),) = [[span for span in spans if not span.parent_id] for spans in receiver.traces().values()]
        assert root.attributes["chandlery.received.clock.host"] == (b"o" * 8).hex()
        assert root.attributes["chandlery.aggregated.clock.host"] == (b"h" * 8).hex()
        assert root.attributes["chandlery.aggregated.clock.uncertainty_us"] == 5.0
