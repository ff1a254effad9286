"""Reading topics without a group: consumers that open or say why not, and who is away."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Final, NamedTuple

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError

from chandlery.core.errors import InvariantError, UnavailableError
from chandlery.core.kafka_ending import end_client
from chandlery.core.kafka_login import kafka_client
from chandlery.core.settings import KafkaSettings
from chandlery.stream.topics import check_login

log = logging.getLogger("chandlery.console.reading")

#: An answer of a broker on this machine takes milliseconds; one that is busy, or far, may take seconds.
ANSWER_S: Final = 5.0
#: How long the broker may sit on an empty fetch: four small requests a second and topic, and none later for it, as
#: the first record ends the wait.
FETCH_WAIT_MS: Final = 250
#: A consumer asks its brokers so often whether each partition is led: it itself would wait for one for ever.
LEADER_CHECK_S: Final = 2.0
#: Records taken in before others have their turn (20 µs each: 10 ms).
TURN_RECORDS: Final = 500
_FIRST_PAUSE_S: Final = 0.5
_LONGEST_PAUSE_S: Final = 10.0


def quieten_client() -> None:
    """Keep the client library's own log out: it writes several lines for every attempt while a broker is away.

    What is away is said once, by :class:`Away`.
    """
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)


class Backoff:
    """Pauses between attempts: doubled up to 10 s, each shortened by up to a half so that many don't come at once."""

    def __init__(self) -> None:
        self._pause_s = _FIRST_PAUSE_S

    def next_s(self) -> float:
        """The next pause, s."""
        pause_s, self._pause_s = self._pause_s, min(2 * self._pause_s, _LONGEST_PAUSE_S)
        return pause_s * (0.5 + random.random() / 2)

    def reset(self) -> None:
        """It went well: the next pause is short again."""
        self._pause_s = _FIRST_PAUSE_S


class Away:
    """Which topics can't be read now, and why. Told once in the log when one goes, and once when it is back.

    Attributes:
        counts: by topic's kind, how often it went away.
    """

    def __init__(self) -> None:
        #: By name: where it is, and why it can't be read.
        self._why: dict[str, tuple[str, str]] = {}
        self.counts: Counter[str] = Counter()

    def gone(self, name: str, kind: str, error: BaseException, where: str = "") -> None:
        """A topic of a ``kind`` (``signals``, ``candles``) can't be read; ``where``: its Kafka."""
        if name not in self._why:
            self.counts[kind] += 1
            log.warning("can't read a topic", extra={"topic": name, "reason": str(error)})
        else:
            del self._why[name]
        self._why[name] = where or name, str(error)

    def back(self, name: str) -> None:
        """It is read, or nobody wants it any more."""
        if self._why.pop(name, None) is not None:
            log.info("a topic is read again", extra={"topic": name})

    def __len__(self) -> int:
        return len(self._why)

    def sentences(self) -> list[str]:
        """One for each Kafka, what was said of it last."""
        return sorted(dict(self._why.values()).values())


@asynccontextmanager
async def open_consumer(kafka: KafkaSettings, *, exact: bool = False) -> AsyncIterator[AIOKafkaConsumer]:
    """A consumer without a group, connected; nothing is assigned to it.

    Args:
        exact: an offset that Kafka doesn't have (any more) is an error of the read; otherwise it goes on with the oldest.

    Raises:
        UnavailableError: Kafka doesn't answer, or (LoginError) doesn't let us in.
    """
    await check_login(kafka)  # the client itself only logs why it can't connect
    consumer = kafka_client(
        AIOKafkaConsumer,
        kafka,
        enable_auto_commit=False,
        auto_offset_reset="none" if exact else "earliest",
        fetch_max_wait_ms=FETCH_WAIT_MS,
        request_timeout_ms=int(2_000 * ANSWER_S),
        retry_backoff_ms=100,
    )
    try:
        with translated(kafka):
            async with asyncio.timeout(ANSWER_S):
                await consumer.start()
        yield consumer
    finally:
        with translated(kafka):
            await end_client(consumer)


@contextmanager
def translated(kafka: KafkaSettings) -> Iterator[None]:
    """The client's errors as :class:`UnavailableError`.

    Among them is a cancellation that nobody asked for: the client cancels what waits for a connection that has ended.
    """
    try:
        yield
    except (KafkaError, OSError, TimeoutError) as error:
        raise no_answer(kafka, error) from error
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise no_answer(kafka, error) from error


def no_answer(kafka: KafkaSettings, error: BaseException) -> UnavailableError:
    """A client's error, in one sentence."""
    if isinstance(error, TimeoutError):
        return UnavailableError(f"Kafka at {kafka.bootstrap} doesn't answer in time")
    if isinstance(error, asyncio.CancelledError):
        return UnavailableError(f"Kafka at {kafka.bootstrap} has ended the connection")
    said = str(error) if isinstance(error, OSError) and str(error) else type(error).__name__
    return UnavailableError(f"Kafka at {kafka.bootstrap} doesn't answer: {said}")


class Span(NamedTuple):
    """Offsets of a partition that Kafka has: ``begin`` … ``end``, not included."""

    begin: int
    end: int


async def spans(
    consumer: AIOKafkaConsumer, kafka: KafkaSettings, partitions: Collection[TopicPartition]
) -> dict[TopicPartition, Span]:
    """What Kafka has of each partition.

    Raises:
        UnavailableError: no answer in time.
    """
    asked = list(partitions)
    with translated(kafka):
        async with asyncio.timeout(ANSWER_S):
            begins = await consumer.beginning_offsets(asked)
            ends = await consumer.end_offsets(asked)
    return {partition: Span(begins[partition], ends[partition]) for partition in asked}


async def offsets_at(
    consumer: AIOKafkaConsumer, kafka: KafkaSettings, partition: TopicPartition, time_ms: int
) -> int | None:
    """The first offset appended at a time or later; None: nothing was.

    Raises:
        UnavailableError: no answer in time.
    """
    with translated(kafka):
        async with asyncio.timeout(ANSWER_S):
            found = (await consumer.offsets_for_times({partition: time_ms})).get(partition)
    return None if found is None else int(found.offset)


async def next_batches(
    consumer: AIOKafkaConsumer, kafka: KafkaSettings, *partitions: TopicPartition, timeout_ms: int = 500
) -> dict[TopicPartition, list[ConsumerRecord]]:
    """What comes next, at most :data:`TURN_RECORDS`; empty where nothing does.

    Raises:
        UnavailableError: the client gives up.
    """
    with translated(kafka):
        batches: dict[TopicPartition, list[ConsumerRecord]] = await consumer.getmany(
            *partitions, timeout_ms=timeout_ms, max_records=TURN_RECORDS
        )
    return batches


async def position_of(consumer: AIOKafkaConsumer, kafka: KafkaSettings, partition: TopicPartition) -> int:
    """Where a consumer stands in an assigned partition: also beyond records that no reader is shown.

    Raises:
        UnavailableError: it doesn't know yet where to begin, and isn't told in time.
    """
    with translated(kafka):
        async with asyncio.timeout(ANSWER_S):
            return int(await consumer.position(partition))


def check_running(task: asyncio.Task[None]) -> None:
    """See that a task that runs until it is cancelled still does.

    Raises:
        InvariantError: it has ended; its error is the cause.
    """
    if task.done():
        defect = None if task.cancelled() else task.exception()
        raise InvariantError(f"{task.get_name()} ended by itself: {defect!r}") from defect


def shares(sizes: Sequence[int], budget: int) -> list[int]:
    """Divide a budget: nobody gets more than its size, and what one leaves is the others'.

    ``sum(shares) <= budget``, and whoever gets less than its size gets no less than anybody else, but for one.
    """
    given = [0] * len(sizes)
    left = budget
    ascending = sorted(range(len(sizes)), key=lambda at: sizes[at])
    for done, at in enumerate(ascending):
        given[at] = min(sizes[at], left // (len(sizes) - done))
        left -= given[at]
    return given
