"""Traces of signals, and their lines in the log: told after the broker's acknowledgement, beside all that matters.

A signal that was acknowledged waits here with its stamps, at most :data:`MOST_WAITING` of them; nothing else is done
in its way. A task makes spans of them, a signal at a time with a turn for others in between, and sends them packed. A
receiver that is away, slow or wrong costs traces, which are counted, and never a signal:
``built = exported + waiting + dropped``.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
from collections import Counter, OrderedDict, deque
from collections.abc import Mapping
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from chandlery.core.clocks import HostClocks, Stamps, now_ns, wall_offset_ns
from chandlery.core.errors import InputError
from chandlery.core.kafka_login import addresses_of
from chandlery.core.latency import Account, account
from chandlery.core.settings import FeedSettings
from chandlery.core.signals import Completion, Signal, SignalStamps
from chandlery.core.telemetry import (
    Attributes,
    Broker,
    Link,
    Span,
    TraceExport,
    shown_endpoint,
    signal_spans,
    tick_spans,
    trace_export,
    trace_id_of,
    traceparent_of,
)
from chandlery.core.telemetry.spans import TICK_ROOT, span_id_of
from chandlery.core.topics import aggregator_group, partition_of, topics_of
from chandlery.core.wire import CandleUpdate
from chandlery.workers.feed.board import Receipt
from chandlery.workers.feed.router import SHARE_MASK
from chandlery.workers.feed.signal_lines import SignalLines
from chandlery.workers.feed.trace_answer import Answer
from chandlery.workers.feed.trace_resources import our_version, resources

if TYPE_CHECKING:
    from chandlery.workers.feed.otlp import Exporter
    from chandlery.workers.feed.span_encoder import Encoder

log = logging.getLogger("chandlery.feed.signals")

#: Signals and ticks that wait for the receiver; beyond it the oldest is dropped. About 2 kB each: 8 MB at most.
MOST_WAITING: Final = 4_096
#: Traces of one request: about 2.5 kB each encoded, 160 kB together.
MOST_PACKED: Final = 64
#: Of encoding in a row: a signal takes about half of it, a turn of the loop for nothing a tenth.
TURN_NS: Final = 200_000
#: Company is waited for this long, so that nothing is encoded while a burst of signals is still under way.
LINGER_S: Final = 0.5
#: After a refusal to take it now: this long, doubled each time, with up to as much again at random.
_FIRST_PAUSE_S: Final = 0.5
_LONGEST_PAUSE_S: Final = 30.0
#: However much longer a receiver asks for.
_MOST_PATIENCE_S: Final = 300.0
#: Signals whose record is remembered, so that later ones of the same record are linked to them.
_MOST_RECORDS: Final = 512
_MOST_LINKS: Final = 16


class _Tick(NamedTuple):
    """A candle record that is traced for itself."""

    trace_id: bytes
    symbol: str
    interval: str
    forming: bool
    stamps: SignalStamps
    hosts: tuple[str, str]


class _Told(NamedTuple):
    """A signal that is to be traced."""

    signal: Signal
    completion: Completion
    stamps: SignalStamps
    account: Account


def _threshold(share: float) -> int:
    """What the low 64 bits of a trace's id must be below to be among ``share`` of all, as in OpenTelemetry's sampler."""
    return round(share * (1 << 64))


class Tracing:
    """The feed's traces.

    Args:
        receipt: when the records now being taken in were received. clocks: other hosts' and the exchange's.
        environment: where OpenTelemetry's variables are looked for.

    Attributes:
        lines: what the log is told of single signals.
        on: whether anything is sent. problem: why not, where somebody wanted it; newest trouble with the receiver.
        built, exported: traces. dropped: by reason. spans_rejected: left out by a receiver that took the rest.
    """

    def __init__(
        self,
        settings: FeedSettings,
        receipt: Receipt,
        clocks: HostClocks,
        environment: Mapping[str, str] | None = None,
        lines: SignalLines | None = None,
    ) -> None:
        self._settings = settings
        self._clocks = clocks
        self._receipt = receipt
        self._topics = topics_of(settings.kafka)
        self._waiting: deque[_Told | _Tick] = deque()
        self.lines = lines or SignalLines()
        self._some = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._hurry = asyncio.Event()
        self._records: OrderedDict[tuple[str, int, int], list[Link]] = OrderedDict()
        self._under_way = 0
        self.built = self.exported = self.requests = self.spans_rejected = 0
        self.dropped: Counter[str] = Counter()
        self.problem = ""
        self._export: TraceExport | None = None
        self._broker = Broker()
        self._encoder: Encoder | None = None
        self._exporter: Exporter | None = None
        try:
            self._export = trace_export(settings.telemetry, os.environ if environment is None else environment)
            if self._export is not None:
                self._prepare(self._export)
        except (InputError, ImportError) as error:
            # Signals don't stand back behind what is told of them.
            self._export = None
            self.problem = str(error)
            log.error("no traces", extra={"reason": str(error)})
        self.on = self._export is not None
        self._signals_below = _threshold(self._export.signal_share) if self._export else 0
        #: What the low bits of a tick's time must be below to be traced; 0: none is.
        self.ticks_below = round(self._export.tick_share * (SHARE_MASK + 1)) if self._export else 0

    def _prepare(self, export: TraceExport) -> None:
        from chandlery.workers.feed.otlp import exporter_to
        from chandlery.workers.feed.span_encoder import Encoder

        # Which of several brokers took a record isn't known here: the first named stands for all.
        address, port = addresses_of(self._settings.kafka.bootstrap)[0]
        self._broker = Broker(address, port, aggregator_group(self._settings.kafka))
        self._encoder = Encoder(resources(self._settings, export), our_version())
        self._exporter = exporter_to(export)

    # ---- in the signals' way: as little as can be ----

    def traceparent(self, signal: Signal) -> bytes:
        """The header of a signal's record."""
        return traceparent_of(signal.id, sampled=self._wants(signal))

    def shown_as(self, signal: Signal) -> str:
        """Trace id (hex) by which a signal can be found, empty where it isn't traced."""
        return trace_id_of(signal.id).hex() if self._wants(signal) else ""

    def complete(self, completion: Completion) -> Completion:
        """Note in a completion what is known of other clocks by now."""
        newest = self._clocks.newest
        completion.origin, completion.host = newest.origin.hex(), newest.host.hex()
        completion.origin_uncertainty_ns = newest.origin_uncertainty_ns
        completion.host_uncertainty_ns = newest.host_uncertainty_ns
        completion.exchange_offset_ns = newest.exchange_offset_ns
        completion.exchange_uncertainty_ns = newest.exchange_uncertainty_ns
        return completion

    def completed(self, signal: Signal, completion: Completion, stamps: SignalStamps, told: Account) -> None:
        """The broker has acknowledged a signal: its trace is to be sent."""
        self.lines.published(signal, told)
        if self.on and self._wants(signal):
            self._add(_Told(signal, completion, stamps, told))

    def tick(self, symbol: str, update: CandleUpdate, stamps: Stamps) -> None:
        """A candle was written into the segment, and is among those that are traced for themselves."""
        if not stamps.emitted_ns:
            return
        whole = SignalStamps(
            exchange_ns=stamps.exchange_ns,
            received_ns=stamps.received_ns,
            appended_ns=stamps.appended_ns,
            aggregated_ns=stamps.aggregated_ns,
            emitted_ns=stamps.emitted_ns,
            fed_ns=self._receipt.fed_ns,
            published_ns=now_ns(),
            recorded_skew_ns=stamps.recorded_skew_ns,
            wall_offset_ns=wall_offset_ns(),
            origin_uncertainty_ns=stamps.origin_uncertainty_ns,
            host_uncertainty_ns=stamps.host_uncertainty_ns,
            exchange_offset_ns=stamps.exchange_offset_ns,
            exchange_uncertainty_ns=stamps.exchange_uncertainty_ns,
        )
        forming, hosts = update.state == "forming", (stamps.origin.hex(), stamps.host.hex())
        self._add(_Tick(self._record_trace(symbol, whole), symbol, update.interval, forming, whole, hosts))

    def _wants(self, signal: Signal) -> bool:
        return self.on and int.from_bytes(trace_id_of(signal.id)[8:]) < self._signals_below

    def _add(self, what: _Told | _Tick) -> None:
        self.built += 1
        self._waiting.append(what)
        if len(self._waiting) > MOST_WAITING:
            self._waiting.popleft()
            self.dropped["queue_full"] += 1
        self._idle.clear()
        self._some.set()

    # ---- beside it ----

    async def run(self) -> None:
        """Log and send what waits until cancelled. Never raises anything else: signals don't end for their traces."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.lines.run())
            if self._exporter is not None:
                tasks.create_task(self._send_all(self._exporter))

    async def _send_all(self, exporter: Exporter) -> None:
        try:
            while True:
                await self._some.wait()
                await self._pause(LINGER_S)
                await self._send_some(exporter)
                if not self._waiting:
                    self._some.clear()
                    self._idle.set()
        finally:
            try:
                await exporter.close()
            except Exception as error:  # noqa: BLE001 - it is the end, and the feed's alone to fail
                log.warning("the way to the receiver didn't close", extra={"reason": type(error).__name__})

    async def _send_some(self, exporter: Exporter) -> None:
        try:
            if packed := await self._pack():
                await self._deliver(exporter, b"".join(packed), len(packed))
        except Exception as error:  # noqa: BLE001 - signals don't end for their traces
            # Nothing that is known of; it costs these traces. No words of it: they may hold a token.
            log.error("traces given up", extra={"traces": self._under_way, "reason": type(error).__name__})
            self.problem = f"given up: {type(error).__name__}"
            self.dropped["failed"] += self._under_way
            self._under_way = 0

    async def drain(self, timeout_s: float) -> None:
        """At the end: send what waits without lingering, at most ``timeout_s``; what is left then is dropped."""
        self._hurry.set()
        try:
            async with asyncio.timeout(timeout_s):
                await self._idle.wait()
        except TimeoutError:
            left = len(self._waiting) + self._under_way
            log.warning("traces not sent at the end", extra={"waiting": left, "reason": self.problem})

    def end(self) -> None:
        """Nothing more is sent: what still waits is counted as dropped, and logged."""
        self.lines.end()
        left = len(self._waiting) + self._under_way
        if left:
            self.dropped["ended"] += left
        self._waiting.clear()
        self._under_way = 0

    def report(self) -> dict[str, Any]:
        """As in the status (docs/status.md)."""
        return {
            "endpoint": shown_endpoint(self._export.endpoint) if self._export else "",
            "built": self.built,
            "exported": self.exported,
            "waiting": len(self._waiting) + self._under_way,
            "dropped": dict(self.dropped),
            "spans_rejected": self.spans_rejected,
            "last_error": self.problem,
        }

    async def _pause(self, seconds: float) -> None:
        """Wait, unless the end has come."""
        try:
            async with asyncio.timeout(seconds):
                await self._hurry.wait()
        except TimeoutError:
            return

    async def _pack(self) -> list[bytes]:
        """Encode some of what waits, with a turn for everything else each :data:`TURN_NS`."""
        packed: list[bytes] = []
        turn_ns = now_ns()
        while self._waiting and len(packed) < MOST_PACKED:
            what = self._waiting.popleft()
            self._under_way += 1
            encoded, why = self._encoded(what)
            if encoded:
                packed.append(encoded)
            else:
                self._under_way -= 1
                self.dropped[why] += 1
            if now_ns() - turn_ns >= TURN_NS:
                await asyncio.sleep(0)
                turn_ns = now_ns()
        return packed

    def _encoded(self, what: _Told | _Tick) -> tuple[bytes, str]:
        """A trace as a request, or nothing and why: a trader may say what it likes, also what no span can."""
        assert self._encoder is not None
        try:
            spans = self._spans_of(what)
            if not spans:  # a record that carried no stamps has no time to tell of
                return b"", "no_stamps"
            return self._encoder.encode(spans, what.signal.trader if isinstance(what, _Told) else ""), ""
        except (ValueError, TypeError, OverflowError) as error:  # a number beyond 64 bits, or before 1970
            self._trouble(Answer("refused", f"can't be told as a trace: {error}"))
            return b"", "unencodable"

    def _spans_of(self, what: _Told | _Tick) -> list[Span]:
        partitions = self._settings.kafka.partitions
        if isinstance(what, _Tick):
            return tick_spans(
                what.trace_id, what.symbol, what.interval, what.forming, what.stamps, account(what.stamps),
                self._topics, partition=partition_of(what.symbol, partitions), hosts=what.hosts, broker=self._broker,
            )  # fmt: skip
        signal = what.signal
        return signal_spans(
            signal,
            what.stamps,
            what.account,
            self._topics,
            partition=partition_of(signal.symbol, partitions),
            hosts=(what.completion.origin, what.completion.host),
            links=self._links(signal, what.stamps),
            broker=self._broker,
        )

    def _links(self, signal: Signal, stamps: SignalStamps) -> list[Link]:
        """The traces that came of the same candle record: earlier signals', and the record's own if it has one."""
        key = (signal.symbol, stamps.received_ns, stamps.emitted_ns)
        if not stamps.emitted_ns:
            return []
        known = self._records.get(key)
        if known is None:
            known = self._records[key] = []
            if stamps.emitted_ns & SHARE_MASK < self.ticks_below:
                trace_id = self._record_trace(signal.symbol, stamps)
                known.append(Link(trace_id, span_id_of(trace_id, TICK_ROOT), {"chandlery.link": "candle record"}))
            if len(self._records) > _MOST_RECORDS:
                self._records.popitem(last=False)
        links = list(known)
        if len(known) < _MOST_LINKS:
            trace_id = trace_id_of(signal.id)
            about: Attributes = {"chandlery.link": "same candle record", "chandlery.trader": signal.trader}
            known.append(Link(trace_id, span_id_of(trace_id, "decided"), about))
        return links

    def _record_trace(self, symbol: str, stamps: SignalStamps) -> bytes:
        what = f"{self._settings.worker}\0{symbol}\0{stamps.received_ns}\0{stamps.emitted_ns}"
        return blake2b(what.encode(), digest_size=16).digest()

    async def _deliver(self, exporter: Exporter, body: bytes, traces: int) -> None:
        """Send one request until it is taken or refused."""
        pause_s = _FIRST_PAUSE_S
        while True:
            try:
                answer = await exporter.send(body)
            except Exception as error:  # noqa: BLE001 - whatever a library raises; its words may hold a token
                answer = Answer("refused", f"can't be sent: {type(error).__name__}")
            self.requests += 1
            if answer.verdict != "later":
                break
            self._trouble(answer)
            await asyncio.sleep(max(min(answer.after_s, _MOST_PATIENCE_S), pause_s * (1 + random.random())))
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
        self._under_way = 0
        if answer.verdict == "refused":
            self.dropped["refused"] += traces
            self._trouble(answer)
            return
        self.exported += traces
        self.spans_rejected += answer.rejected
        if self.problem:
            log.info("traces are taken again", extra={"exported": self.exported})
        self.problem = answer.words
        if answer.rejected:
            log.warning("spans rejected", extra={"spans": answer.rejected, "reason": answer.words})

    def _trouble(self, answer: Answer) -> None:
        if answer.words != self.problem:  # once a trouble, not once an attempt
            log.warning("traces not taken", extra={"reason": answer.words, "verdict": answer.verdict})
        self.problem = answer.words
