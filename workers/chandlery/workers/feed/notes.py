"""What the feed writes beside signals: completions and dead letters, batched, never in a signal's way."""

from __future__ import annotations

import asyncio
import base64
import logging
from collections import Counter, deque
from typing import Final

from aiokafka.errors import KafkaError

from chandlery.core import signals as signal_format
from chandlery.core import wire
from chandlery.core.settings import KafkaSettings
from chandlery.core.telemetry import ids_in
from chandlery.core.topics import partition_of, topics_of
from chandlery.workers.feed.clients import note_producer, stop_quickly
from chandlery.workers.feed.router import RawRecord
from chandlery.workers.feed.signal_lines import SignalLines

log = logging.getLogger("chandlery.feed.notes")

#: Completions wait this long for company: they tell about signals, nobody decides on them.
LINGER_S: Final = 0.05
#: Notes kept while the broker is away; beyond it the oldest is dropped, counted.
MOST_WAITING: Final = 10_000
_RETRY_S: Final = 0.5
#: A dead letter must fit a record: base64 makes 4 bytes of 3.
_MOST_LETTER_BYTES: Final = 500_000


class _Note:
    __slots__ = ("key", "partition", "signal_id", "topic", "value", "what")

    def __init__(self, what: str, topic: str, partition: int, key: bytes, value: bytes, signal_id: str = "") -> None:
        self.what = what
        self.topic = topic
        self.partition = partition
        self.key = key
        self.value = value
        self.signal_id = signal_id


class Notes:
    """Writes completions and dead letters.

    Args:
        lines: told of each completion that could not be written.

    Attributes:
        dead_letters: records refused since the start.
        counts: gets ``completion_lost`` and ``dead_letter_lost`` for what could not be written.
    """

    def __init__(
        self, kafka: KafkaSettings, component: str, counts: Counter[str], lines: SignalLines | None = None
    ) -> None:
        self._kafka = kafka
        self._topics = topics_of(kafka)
        self._component = component
        self.counts = counts
        self._lines = lines or SignalLines()
        self._waiting: deque[_Note] = deque()
        self._flying: set[asyncio.Future[object]] = set()
        self._reported: set[tuple[str, int, int]] = set()
        self._landed_one = asyncio.Event()
        self.dead_letters = 0

    def complete(self, symbol: str, completion: signal_format.Completion) -> None:
        """Tell when the broker had acknowledged a signal."""
        partition = partition_of(symbol, self._kafka.partitions)
        value = signal_format.encode(completion)
        self._add(_Note("completion", self._topics.signals, partition, symbol.encode(), value, completion.id))

    def refuse(self, record: RawRecord, reason: str) -> None:
        """Report a record that could not be used, once; the stream goes on."""
        where = (record.topic, record.partition, record.offset)
        if where in self._reported:
            return
        if len(self._reported) >= MOST_WAITING:
            self._reported.clear()
        self._reported.add(where)
        self.dead_letters += 1
        value = (record.value or b"")[:_MOST_LETTER_BYTES]
        letter = wire.DeadLetter(*where, reason[:500], base64.b64encode(value).decode(), self._component)
        # Whoever wrote it may have told in whose trace it did.
        context = next((ids_in(value) for name, value in record.headers if name == signal_format.TRACE_HEADER), {})
        facts = {"topic": where[0], "partition": where[1], "offset": where[2], "reason": reason[:500], **context}
        log.warning("record refused", extra=facts)
        partition = partition_of(record.topic, self._kafka.partitions)
        note = _Note("dead_letter", self._topics.dead_letters, partition, record.topic.encode(), wire.encode(letter))
        self._add(note)

    def _add(self, note: _Note) -> None:
        self._waiting.append(note)
        if len(self._waiting) > MOST_WAITING:
            self._lost(self._waiting.popleft(), "too many wait")

    def _lost(self, note: _Note, reason: str) -> None:
        self.counts[f"{note.what}_lost"] += 1
        if note.signal_id:
            self._lines.completion_lost(note.signal_id, reason)

    async def run(self) -> None:
        """Write what waits, every 50 ms, until cancelled."""
        while True:
            producer = note_producer(self._kafka)
            try:
                await producer.start()
                while True:
                    await asyncio.sleep(LINGER_S)
                    while self._waiting:
                        note = self._waiting[0]
                        future = await producer.send(note.topic, note.value, key=note.key, partition=note.partition)
                        self._waiting.popleft()
                        self._flying.add(future)
                        future.add_done_callback(lambda done, note=note: self._landed(done, note))
            except KafkaError as error:
                log.debug("notes wait", extra={"reason": repr(error), "waiting": len(self._waiting)})
                await asyncio.sleep(_RETRY_S)
            finally:
                await stop_quickly(producer)

    def _landed(self, future: asyncio.Future[object], note: _Note) -> None:
        self._landed_one.set()
        self._landed_one = asyncio.Event()
        self._flying.discard(future)
        if future.cancelled() or future.exception() is not None:
            self._lost(note, "not acknowledged")

    async def drain(self, timeout_s: float) -> None:
        """Wait until everything is written, at most ``timeout_s``."""
        try:
            async with asyncio.timeout(timeout_s):
                while self._waiting or self._flying:
                    await self._landed_one.wait()
        except TimeoutError:
            log.warning("notes not written at the end", extra={"waiting": len(self._waiting)})
