"""The aggregator's parts without Kafka: positions, checkpoints and their healing, watchdog, data folder."""

from __future__ import annotations

import asyncio
import base64
from pathlib import Path
from typing import Any

import pytest

from chandlery.core.errors import InputError, InvariantError, MachineError, UnavailableError
from chandlery.core.settings import AggregatorSettings, KafkaSettings
from chandlery.core.topics import topics_of
from chandlery.core.wire import Opening, TradesRecord, decode_candles, decode_dead_letter, encode
from chandlery.stream.aggregation import AggregationPlan
from chandlery.stream.aggregator.checkpoints import Checkpoints
from chandlery.stream.aggregator.instance import Instance
from chandlery.stream.aggregator.outputs import Outputs
from chandlery.stream.aggregator.partition import (
    UNKNOWN_SYMBOL,
    Manifest,
    Outgoing,
    PartitionState,
    interpret,
    manifest_key,
)
from chandlery.stream.aggregator.position import SeekPatience, Verdict, judge
from chandlery.stream.aggregator.service import Aggregator
from chandlery.stream.aggregator.status import RateMeter, all_symbols, partition_status, totals_of
from chandlery.stream.aggregator.watchdog import STALLED_S, UNREADY_S, Watchdog

TOPICS = topics_of(KafkaSettings("nowhere:1", "unit"))
PLAN = AggregationPlan(["1s", "1m"], lateness_ms=1_000)
T0 = 1_723_075_200_000


def trades(symbol: str, number: int, *, count: int = 2) -> tuple[bytes, bytes]:
    """Key and value of a symbol's record number ``number``: one second a record."""
    ids = [number * 10 + at for at in range(count)]
    times = [T0 + number * 1_000 + at for at in range(count)]
    record = TradesRecord(symbol, 1, times[-1], 2, 2, ids, times, [100 + number] * count, [1] * count)
    return symbol.encode(), encode(record)


def fed(records: list[tuple[bytes | None, bytes | None]]) -> tuple[PartitionState, list[list[Outgoing]]]:
    state = PartitionState(3, PLAN, TOPICS)
    return state, [state.take(offset, *record) for offset, record in enumerate(records)]


def save(state: PartitionState, saved: dict[bytes, bytes]) -> None:
    snapshot = state.snapshot()
    saved.update(snapshot.states)
    saved[snapshot.manifest_key] = snapshot.manifest


def test_a_restored_partition_goes_on_with_the_same_outputs() -> None:
    records: list[tuple[bytes | None, bytes | None]] = [
        trades(symbol, number) for number in range(8) for symbol in ("A/USDT", "B/USDT")
    ]
    whole, outputs = fed(records)
    saved: dict[bytes, bytes] = {}
    part = PartitionState(3, PLAN, TOPICS)
    for offset in range(9):
        part.take(offset, *records[offset])
        if offset == 5:
            save(part, saved)
    restored = PartitionState.restore(3, PLAN, TOPICS, saved)
    assert restored.next_offset == 6
    assert [restored.take(offset, *records[offset]) for offset in range(6, 16)] == outputs[6:]
    assert all_symbols({3: restored}) == all_symbols({3: whole})


def test_a_symbol_saved_further_than_the_manifest_skips_what_it_has() -> None:
    records: list[tuple[bytes | None, bytes | None]] = [
        trades(symbol, number) for number in range(4) for symbol in ("A/USDT", "B/USDT")
    ]
    whole, outputs = fed(records)
    saved: dict[bytes, bytes] = {}
    part = PartitionState(3, PLAN, TOPICS)
    for offset in range(8):
        part.take(offset, *records[offset])
        if offset == 3:
            save(part, saved)
    # The crash came after this state's acknowledgement, before the manifest's.
    saved.update(pair for pair in part.snapshot().states if pair[0] == b"A/USDT")
    restored = PartitionState.restore(3, PLAN, TOPICS, saved)
    assert (restored.next_offset, restored.healed) == (4, "")
    again = [restored.take(offset, *records[offset]) for offset in range(4, 8)]
    assert again == [[], outputs[5], [], outputs[7]]
    assert all_symbols({3: restored}) == all_symbols({3: whole})


@pytest.mark.parametrize("lost", ["older", "missing"])
def test_a_state_older_than_its_manifest_is_healed_by_going_back(lost: str) -> None:
    records: list[tuple[bytes | None, bytes | None]] = [
        trades(symbol, number) for number in range(4) for symbol in ("A/USDT", "B/USDT")
    ]
    whole, _ = fed(records)
    saved: dict[bytes, bytes] = {}
    part = PartitionState(3, PLAN, TOPICS)
    old = b""
    for offset in range(8):
        part.take(offset, *records[offset])
        if offset in (3, 7):
            save(part, saved)
            old = old or saved[b"A/USDT"]
    if lost == "older":
        saved[b"A/USDT"] = old
    else:
        del saved[b"A/USDT"]
    restored = PartitionState.restore(3, PLAN, TOPICS, saved)
    assert restored.next_offset == (3 if lost == "older" else 0)
    assert "A/USDT" in restored.healed
    for offset in range(restored.next_offset, 8):
        restored.take(offset, *records[offset])
    assert all_symbols({3: restored}) == all_symbols({3: whole})


def test_a_partition_takes_no_offset_but_the_next() -> None:
    state, _ = fed([trades("A/USDT", 0)])
    with pytest.raises(InvariantError, match="offset 2 taken where 1 is next"):
        state.take(2, *trades("A/USDT", 1))


def test_nothing_changed_is_nothing_to_save() -> None:
    state, _ = fed([trades("A/USDT", 0)])
    assert state.is_dirty
    assert [key for key, _ in state.snapshot().states] == [b"A/USDT"]
    assert not state.is_dirty


def test_an_unreadable_saved_position_is_said_and_not_begun_afresh() -> None:
    with pytest.raises(InvariantError, match="saved position of partition 3"):
        PartitionState.restore(3, PLAN, TOPICS, {manifest_key(3): b"{"})


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        (b"A/USDT", b"{", "DecodeError"),
        (b"A/USDT", b'{"kind": "other"}', "ValidationError"),
        (b"A/USDT", b"\xff\xfe", "DecodeError"),
        (b"A/USDT", None, "no value"),
        (b"B/USDT", encode(Opening("A/USDT", 2)), "isn't the symbol"),
        (None, encode(Opening("A/USDT", 2)), "none, isn't the symbol"),
        (b"", encode(Opening("", 2)), "is no symbol"),
        (b"#1", encode(Opening("#1", 2)), "is no symbol"),
    ],
)
def test_what_cannot_be_used_becomes_a_dead_letter_and_is_counted(
    key: bytes | None, value: bytes | None, reason: str
) -> None:
    state, outputs = fed([trades("A/USDT", 0), (key, value), trades("A/USDT", 1)])
    (out,) = outputs[1]
    letter = decode_dead_letter(out.value)
    assert out.topic == TOPICS.dead_letters
    assert (letter.topic, letter.partition, letter.offset) == (TOPICS.trades, 3, 1)
    assert reason in letter.reason
    assert base64.b64decode(letter.value_base64) == (value or b"")
    assert outputs[2], "the stream goes on"
    owner = "A/USDT" if key == b"A/USDT" else UNKNOWN_SYMBOL
    assert state.symbols[owner].counts.dead == 1
    totals = totals_of(all_symbols({3: state})).counts
    assert (totals.received, totals.dead, totals.unreadable) == (5, 1, 1)
    assert state.dead_letters == 1


def test_the_totals_are_those_of_the_newest_session() -> None:
    opening = encode(Opening("B/USDT", 9))
    state, _ = fed([trades("A/USDT", 0), trades("B/USDT", 0), (b"?", b"?"), (b"B/USDT", opening), (b"?", b"?")])
    assert totals_of(all_symbols({3: state})).counts.received == 1, "one unreadable record since the session began"
    assert all_symbols({3: state})["A/USDT"].counts.received == 2
    restored = PartitionState(3, PLAN, TOPICS)
    saved: dict[bytes, bytes] = {}
    save(state, saved)
    assert all_symbols({3: restored.restore(3, PLAN, TOPICS, saved)}) == all_symbols({3: state})


def test_the_status_tells_candles_closed_made_up_and_revised_apart() -> None:
    state, _ = fed([trades("A/USDT", 0), trades("A/USDT", 2), trades("A/USDT", 1)])
    for told in (all_symbols({3: state})["A/USDT"], totals_of(all_symbols({3: state}))):
        assert (told.candles.closed, told.candles.filled, told.candles.revised) == (1, 1, 1)


def test_what_no_symbol_can_be_told_of_is_summed_over_the_partitions() -> None:
    found = all_symbols({0: fed([(b"?", b"?")])[0], 1: fed([(b"?", b"?"), (b"?", b"?")])[0]})[UNKNOWN_SYMBOL]
    assert (found.counts.dead, found.dropped.records) == (3, 3)
    told = partition_status(fed([trades("A/USDT", 0), (b"?", b"?")])[0], 1, 2)
    assert told.unknown is not None
    assert (told.unknown.counts.dead, told.unknown.session) == (1, 1)
    assert partition_status(fed([trades("A/USDT", 0)])[0], 1, 2).unknown is None


def test_a_record_with_columns_of_unequal_length_is_dead_with_all_its_trades() -> None:
    bad = TradesRecord("A/USDT", 1, T0, 2, 2, [1, 2, 3], [T0, T0, T0], [1, 1], [1, 1, 1])
    state, outputs = fed([trades("A/USDT", 0), (b"A/USDT", encode(bad))])
    assert "unequal length" in decode_dead_letter(outputs[1][0].value).reason
    counts = state.symbols["A/USDT"].counts
    assert (counts.dead, counts.unreadable) == (3, 0)


def test_what_came_before_a_symbols_first_session_counts_in_it() -> None:
    state, _ = fed([(b"?", b"?"), (b"?", b"?"), trades("A/USDT", 0), (b"?", b"?")])
    counts = state.symbols[UNKNOWN_SYMBOL].counts
    assert (counts.received, counts.dead, counts.unreadable) == (3, 3, 3)


def test_candles_go_to_the_topic_of_their_interval_with_the_symbol_as_key() -> None:
    _, outputs = fed([trades("A/USDT", 0), trades("A/USDT", 1)])
    by_topic = {out.topic: out for out in outputs[1]}
    assert set(by_topic) == {TOPICS.candles_fast, TOPICS.candles_live}
    assert {out.key for out in outputs[1]} == {b"A/USDT"}
    (closed,) = decode_candles(by_topic[TOPICS.candles_fast].value).updates
    assert (closed.interval, closed.state, closed.open_time_ms) == ("1s", "closed", T0)


def test_a_manifest_names_every_symbol_of_the_partition_and_how_far_it_is() -> None:
    state, _ = fed([trades("A/USDT", 0), trades("B/USDT", 0), trades("A/USDT", 1)])
    saved: dict[bytes, bytes] = {}
    save(state, saved)
    assert encode(Manifest(3, 3, {"A/USDT": 2, "B/USDT": 1})) == saved[b"#3"]


def test_positions_are_judged_against_the_next_offset() -> None:
    assert [judge(offset, 5) for offset in (4, 5, 6)] == [Verdict.REPEATED, Verdict.NEXT, Verdict.AHEAD]


def test_leftovers_of_a_seek_are_waited_out_but_not_forever() -> None:
    patience = SeekPatience()
    assert not patience.waiting(1, 0.0)
    patience.sought(1, 10.0)
    assert patience.waiting(1, 11.0)
    assert not patience.waiting(2, 11.0)
    assert not patience.waiting(1, 13.0)
    patience.sought(1, 20.0)
    patience.arrived(1)
    assert not patience.waiting(1, 20.5)


def test_the_watchdog_ends_what_never_gets_ready_or_stands_before_waiting_records() -> None:
    dog = Watchdog(0.0)
    assert dog.look(UNREADY_S - 1, ready=False, records=0, lag=0) == ""
    assert "no partitions" in dog.look(UNREADY_S + 1, ready=False, records=0, lag=0)
    dog = Watchdog(0.0)
    assert dog.look(1.0, ready=True, records=5, lag=3) == ""
    assert dog.look(STALLED_S, ready=True, records=5, lag=0) == "", "nothing waits"
    assert dog.look(STALLED_S + 1, ready=True, records=5, lag=3) == ""
    assert "3 records wait" in dog.look(2 * STALLED_S + 2, ready=True, records=5, lag=3)


def test_the_rate_is_that_of_the_last_seconds() -> None:
    meter = RateMeter()
    assert meter.sample(0, 0.0) == 0.0
    assert meter.sample(100, 1.0) == 100.0
    assert meter.sample(100, 100.0) == 0.0


def test_a_data_folder_has_one_aggregator_and_keeps_its_name(tmp_path: Path) -> None:
    first = Instance(str(tmp_path / "data"))
    with pytest.raises(MachineError, match="in use by another aggregator"):
        Instance(str(tmp_path / "data"))
    name = first.name
    first.release()
    again = Instance(str(tmp_path / "data"))
    assert again.name == name
    again.release()


@pytest.mark.parametrize("intervals", [[], ["1x"]])
async def test_wrong_intervals_are_refused_before_anything_starts(tmp_path: Path, intervals: list[str]) -> None:
    with pytest.raises(InputError):
        Aggregator(AggregatorSettings(KafkaSettings("nowhere:1", "unit"), intervals, "127.0.0.1:0", str(tmp_path)))


class FakeProducer:
    """A producer whose acknowledgements the test gives."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, int, bytes, bytes, asyncio.Future[object]]] = []
        self.arrived = asyncio.Event()

    async def send(self, topic: str, *, value: bytes, key: bytes, partition: int, headers: Any) -> Any:
        future: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        self.sent.append((topic, partition, key, value, future))
        self.arrived.set()
        return future

    async def until_sent(self, count: int) -> None:
        async with asyncio.timeout(30):
            while len(self.sent) < count:
                self.arrived.clear()
                await self.arrived.wait()

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    def acknowledge(self, topic: str) -> None:
        for sent in self.sent:
            if sent[0] == topic and not sent[4].done():
                sent[4].set_result(None)


async def checkpointing(
    producer: FakeProducer, committed: list[dict[int, int]]
) -> tuple[Outputs, Checkpoints, PartitionState]:
    outputs = Outputs(producer)

    async def commit(offsets: dict[int, int]) -> None:
        committed.append(offsets)

    state = PartitionState(0, PLAN, TOPICS)
    for out in state.take(0, *trades("A/USDT", 0)):
        await outputs.append(out.topic, 0, out.key, out.value)
    return outputs, Checkpoints(outputs, "states", asyncio.Lock(), commit), state


async def test_a_checkpoint_writes_no_state_before_the_outputs_are_acknowledged_and_the_position_last() -> None:
    producer, committed = FakeProducer(), list[dict[int, int]]()
    _, checkpoints, state = await checkpointing(producer, committed)
    taking = asyncio.create_task(checkpoints.take({0: state}))
    for _ in range(5):
        await asyncio.sleep(0)
    assert [sent[0] for sent in producer.sent] == [TOPICS.candles_live], "the state waits for the output"
    producer.acknowledge(TOPICS.candles_live)
    await producer.until_sent(2)
    assert producer.sent[-1][2] == b"A/USDT"
    for _ in range(5):
        await asyncio.sleep(0)
    assert len(producer.sent) == 2, "the position waits for the state"
    producer.acknowledge("states")
    await producer.until_sent(3)
    assert producer.sent[-1][2] == b"#0"
    assert not committed
    producer.acknowledge("states")
    await taking
    assert committed == [{0: 1}] == [checkpoints.committed]
    await checkpoints.take({0: state})
    assert checkpoints.taken == 1, "nothing new, nothing written"


async def test_an_output_that_fails_ends_the_checkpoint_and_everything_after_it() -> None:
    producer, committed = FakeProducer(), list[dict[int, int]]()
    outputs, checkpoints, state = await checkpointing(producer, committed)
    taking = asyncio.create_task(checkpoints.take({0: state}))
    await asyncio.sleep(0)
    producer.sent[0][4].set_exception(OSError("gone"))
    with pytest.raises(UnavailableError, match="didn't take a record"):
        await taking
    assert outputs.failed.is_set()
    assert len(producer.sent) == 1
    assert not committed
    with pytest.raises(UnavailableError):
        await outputs.append("any", 0, b"k", b"v")


def test_interpreting_gives_the_record_when_all_is_well() -> None:
    assert interpret(b"A/USDT", encode(Opening("A/USDT", 2))) == (Opening("A/USDT", 2), "")


async def test_a_checkpoint_cut_short_takes_back_no_record_handed_over() -> None:
    producer, committed = FakeProducer(), list[dict[int, int]]()
    outputs, checkpoints, state = await checkpointing(producer, committed)
    taking = asyncio.create_task(checkpoints.take({0: state}))
    for _ in range(5):
        await asyncio.sleep(0)
    taking.cancel()
    await asyncio.gather(taking, return_exceptions=True)
    assert not producer.sent[0][4].cancelled(), "the producer would drop it"
    assert not outputs.failed.is_set(), "nothing failed"
    last = asyncio.create_task(checkpoints.take({0: state}))
    producer.acknowledge(TOPICS.candles_live)
    for count in (2, 3):
        await producer.until_sent(count)
        producer.acknowledge("states")
    await last
    assert [sent[2] for sent in producer.sent[1:]] == [b"A/USDT", b"#0"], "the state isn't left unsaved"
