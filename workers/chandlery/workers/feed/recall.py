"""Which signals of the worker's Traders are on the topic already: what a pod before this one published.

A Trader whose pod has taken its positions with it decides again on candles that it may have decided on. Before the
first signal of it passes, the ids that it has on the topic are remembered, so that none is there twice; and its signals on
forming candles of which nothing more is told there, so that the close of their candle can say what they are.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Final

import msgspec
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError, KafkaTimeoutError, TopicAuthorizationFailedError

from chandlery.core import clocks
from chandlery.core.assignment import TraderAssignment
from chandlery.core.intervals import parse_interval
from chandlery.core.kafka_ending import end_client
from chandlery.core.settings import KafkaSettings
from chandlery.core.signals import Action
from chandlery.core.topics import partition_of, topics_of
from chandlery.core.wire import UNDECODABLE
from chandlery.workers.feed.admission import RECALLED_IDS, RecentIds
from chandlery.workers.feed.clients import candle_consumer
from chandlery.workers.feed.forming_signals import FormingSignals

log = logging.getLogger("chandlery.feed.recall")

#: Most records looked at, the newest of each partition: a signal and its completion are about 1 KB and take 10 µs
#: here. 100 MB and a second then, where a desk's own are some thousand (256 Traders, 10 candles each within their ttl).
#: No look can make the ids forgotten that it has found itself.
MOST_RECORDS: Final = RECALLED_IDS
#: Longest look, s: ten times what the most records take, on a machine as busy as one is where pods have moved. Signals
#: wait in their rings meanwhile, and what has not been seen by then may be published twice.
MOST_S: Final = 10.0
#: A look that ends without a record for this long, s, was not too long: the broker was away. It answers a fetch within
#: 0.1 s, also with nothing; a busy one, or one whose disk is slow, is given twenty times that.
_QUIET_S: Final = 2.0
#: How long looks are tried again that reach a broker and get nothing from it, s: a broker that restarts takes about 4 s,
#: a partition that gets another leader less than 30 s. A topic that isn't there is one of them: nothing leaves to it.
PATIENCE_S: Final = 60.0
#: How far the clocks of broker and worker may be apart, ms: NTP keeps them closer by far.
_SKEW_MS: Final = 10_000
_RETRY_S: Final = 0.5


class _Signal(msgspec.Struct, tag="signal", tag_field="kind"):
    id: str
    trader: str
    open_time_ms: int
    code: str = ""
    symbol: str = ""
    session: int = 0
    action: Action = "custom"
    forming: bool = False


class _Completion(msgspec.Struct, tag="completion", tag_field="kind"):
    pass


class _Life(msgspec.Struct, tag="life", tag_field="kind"):
    id: str


_decode: Final = msgspec.json.Decoder(_Signal | _Completion | _Life).decode


def decides_again_from_ms(trader: TraderAssignment, wall_ms: int) -> int | None:
    """From which candle on (open time, ms) a Trader without a position may decide again; None: from none.

    The rule of the trader itself (trader/recall.py), two candles earlier: its clock may be read a moment later than this
    one, but never earlier.
    """
    if trader.mode != "active":
        return None
    if trader.from_ms:
        return trader.from_ms
    if not trader.since_ms or not trader.signal_ttl_ms:
        return None
    interval = parse_interval(trader.interval)
    oldest_ms = interval.floor_ms(wall_ms) - 2 * interval.length_ms - trader.signal_ttl_ms
    return max(0, oldest_ms, interval.floor_ms(trader.since_ms))


class Recall:
    """Remembers published ids, for each Trader before its first signal passes.

    Args:
        ids: where they are remembered. counts: gets ``recalled_ids``, ``recall_forgotten`` for those that had to make
            room, ``recall_retries`` for looks begun anew, ``recall_cut`` and ``recall_refused`` for those that ended
            early.
        done: called when more Traders may pass.
        forming: where signals on forming candles are remembered.
    """

    def __init__(
        self,
        kafka: KafkaSettings,
        ids: RecentIds,
        counts: Counter[str],
        done: Callable[[], None] = lambda: None,
        forming: FormingSignals | None = None,
    ) -> None:
        self._kafka = kafka
        self._topic = topics_of(kafka).signals
        self._ids = ids
        self._forming = FormingSignals() if forming is None else forming
        self._counts = counts
        self._done = done
        self._known: set[str] = set()
        #: Traders that have to wait, and from which candle on their ids count.
        self._awaited: dict[str, int] = {}
        self._symbols: dict[str, list[str]] = {}
        self._asked = asyncio.Event()
        #: Of the look under way: whether a broker has let us in, and when the last record came (loop time, s).
        self._reached = False
        self._moved_s = 0.0
        self._silent_since_s: float | None = None

    def follow(self, traders: Iterable[TraderAssignment]) -> None:
        """Take in a new assignment: of Traders that come, their ids are looked for."""
        assigned = list(traders)
        self._known &= {trader.trader for trader in assigned}
        self._awaited, self._symbols = {}, {}
        wall_ms = (clocks.now_ns() + clocks.wall_offset_ns()) // 1_000_000
        for trader in assigned:
            from_ms = decides_again_from_ms(trader, wall_ms)
            if from_ms is None or trader.trader in self._known:
                continue
            self._awaited[trader.trader] = min(from_ms, self._awaited.get(trader.trader, from_ms))
            self._symbols.setdefault(trader.trader, []).extend(trader.symbols)
        # One that runs here as another incarnation is known: what that signalled has passed here.
        self._known |= {trader.trader for trader in assigned if trader.mode == "active"} - self._awaited.keys()
        if self._awaited:
            self._asked.set()

    def covers(self, trader: str) -> bool:
        """Whether signals of a Trader (``namespace/name``) may pass."""
        return trader not in self._awaited

    async def run(self) -> None:
        """Look until cancelled; while Kafka isn't there, again and again: no signal can leave meanwhile anyway.

        A broker that is there and gives nothing is asked for a minute: others may lead what signals leave to.
        """
        while True:
            await self._asked.wait()
            self._asked.clear()
            wanted = dict(self._awaited)
            if not wanted:
                continue
            try:
                await self._look(wanted)
            except TopicAuthorizationFailedError:
                self._counts["recall_refused"] += 1
                log.warning("may not read the topic: signals may be on it twice", extra={"topic": self._topic})
            except KafkaError as error:
                if self._is_worth_another():
                    self._counts["recall_retries"] += 1
                    log.debug("no look at what is published", extra={"reason": repr(error)})
                    await asyncio.sleep(_RETRY_S)
                    self._asked.set()
                    continue
                self._cut("what is published can't be looked at", PATIENCE_S)
            self._silent_since_s = None
            self._know(wanted)

    def _is_worth_another(self) -> bool:
        """Whether a look that got nothing is begun anew."""
        if not self._reached:
            self._silent_since_s = None
            return True
        now_s = asyncio.get_running_loop().time()
        if self._silent_since_s is None:
            self._silent_since_s = now_s
        return now_s - self._silent_since_s < PATIENCE_S

    def _cut(self, message: str, after_s: float) -> None:
        self._counts["recall_cut"] += 1
        log.warning(message, extra={"topic": self._topic, "after_s": after_s})

    def _know(self, looked_for: Mapping[str, int]) -> None:
        for trader, from_ms in looked_for.items():
            # An assignment that came meanwhile may ask for more of it, or have it no more.
            if self._awaited.get(trader, -1) >= from_ms:
                del self._awaited[trader]
                self._known.add(trader)
        if self._awaited:
            self._asked.set()
        self._done()

    async def _look(self, wanted: Mapping[str, int]) -> None:
        symbols = {symbol for trader in wanted for symbol in self._symbols.get(trader, ())}
        partitions = sorted({partition_of(symbol, self._kafka.partitions) for symbol in symbols})
        consumer = candle_consumer(self._kafka)
        loop = asyncio.get_running_loop()
        self._reached, self._moved_s = False, -_QUIET_S  # no record yet
        try:
            await consumer.start()
            self._reached = True
            async with asyncio.timeout(MOST_S):
                await self._read(consumer, [TopicPartition(self._topic, number) for number in partitions], wanted)
        except TimeoutError:
            if loop.time() - self._moved_s >= _QUIET_S:
                raise KafkaTimeoutError("nothing came") from None
            self._cut("not all that is published could be looked at", MOST_S)
        finally:
            await end_client(consumer)

    async def _read(
        self, consumer: AIOKafkaConsumer, partitions: list[TopicPartition], wanted: Mapping[str, int]
    ) -> None:
        begin_ms = max(0, min(wanted.values()) - _SKEW_MS)
        ends = await consumer.end_offsets(partitions)
        begins = await consumer.offsets_for_times(dict.fromkeys(partitions, begin_ms))
        # Where nothing is that new there is no offset.
        starts = {tp: begin.offset for tp, begin in begins.items() if begin is not None and begin.offset < ends[tp]}
        if not starts:
            return
        # Once alone, and last: the client's fetcher that is given others loses the order to end that comes right after.
        consumer.assign(list(starts))
        for tp, offset in starts.items():
            newest = ends[tp] - MOST_RECORDS // len(partitions)
            if offset < newest:
                self._counts["recall_cut"] += 1
                log.warning("more is published than is looked at", extra={"topic": tp.topic, "partition": tp.partition})
            consumer.seek(tp, max(offset, newest))
        left = set(starts)
        while left:
            for records in (await consumer.getmany(*left, timeout_ms=100)).values():
                self._moved_s = asyncio.get_running_loop().time()
                for record in records:
                    self._take(record, wanted)
                await asyncio.sleep(0)
            left = {tp for tp in left if await consumer.position(tp) < ends[tp]}

    def _take(self, record: ConsumerRecord, wanted: Mapping[str, int]) -> None:
        try:
            found = _decode(record.value or b"")
        except UNDECODABLE:
            return  # whoever reads the topic says so
        if isinstance(found, _Life):
            self._forming.settle(found.id)
        elif isinstance(found, _Signal) and found.trader in wanted:
            self._remember(found, wanted[found.trader])

    def _remember(self, found: _Signal, from_ms: int) -> None:
        # Whatever the candle's time is: a replay's are years before those that a trader without a position goes by.
        if found.forming:
            self._forming.note(
                found.id,
                found.action,
                trader=found.trader,
                code=found.code,
                symbol=found.symbol,
                session=found.session,
                open_time_ms=found.open_time_ms,
            )
        else:
            self._forming.settle(found.id)
        if found.open_time_ms < from_ms:
            return
        before = self._ids.forgotten
        self._counts["recalled_ids"] += self._ids.recall(found.id)
        if self._ids.forgotten > before:
            self._counts["recall_forgotten"] += 1
