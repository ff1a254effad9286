"""The adaptive linger, order, backpressure and limits of the dispatcher."""

import asyncio
from collections.abc import Sequence

import pytest

from chandlery.core.errors import UnavailableError
from chandlery.core.wire import BackfillRecord, TradesRecord, decode_input
from chandlery.stream.ingest import dispatch
from chandlery.stream.ingest.clock import SystemClock
from chandlery.stream.ingest.counts import new_counts
from chandlery.stream.ingest.dispatch import ROOM_TRADES, Dispatcher
from chandlery.stream.ingest.intake import Intake
from chandlery.stream.ingest.packer import Lane
from chandlery.stream.ingest.sink import MAX_BATCH_BYTES, Batch
from chandlery.stream.ingest.source import Position, Trades

SYMBOLS = ("A/USDT", "B/USDT", "C/USDT")


class HeldSink:
    """Holds each request until the test acknowledges it. Partition 9 goes another way than the others."""

    problem: UnavailableError | None = None
    reconnects = 0

    def __init__(self) -> None:
        self.requests: list[list[Batch]] = []
        self._answers: list[asyncio.Future[None]] = []
        self._begun = asyncio.Event()

    async def start(self) -> None:
        return

    async def watch(self) -> None:
        return

    def channel(self, partition: int) -> int:
        return 1 if partition == 9 else 0

    async def send(self, batches: Sequence[Batch]) -> None:
        self.requests.append(list(batches))
        answer = asyncio.get_running_loop().create_future()
        self._answers.append(answer)
        self._begun.set()
        await answer

    async def until_request(self, request: int) -> None:
        """Return when this one has begun: requests of a channel keep a distance in time."""
        async with asyncio.timeout(20):
            while len(self.requests) <= request:
                self._begun.clear()
                await self._begun.wait()

    async def close(self) -> None:
        return

    def acknowledge(self, request: int) -> None:
        self._answers[request].set_result(None)

    def fail(self, request: int, error: Exception) -> None:
        self._answers[request].set_exception(error)

    def ids(self, request: int) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for batch in self.requests[request]:
            for record in batch.records:
                decoded = decode_input(record.value)
                assert isinstance(decoded, TradesRecord)
                found.setdefault(decoded.symbol, []).extend(decoded.id)
        return found


class Bench:
    """A dispatcher on a held sink; lane C has a channel of its own."""

    def __init__(self, cap_trades: int = 1_000_000) -> None:
        partitions = dict(zip(SYMBOLS, (0, 1, 9), strict=True))
        self.lanes = {
            symbol: Lane(symbol, partition, 7, 0, Position(), ["1s"]) for symbol, partition in partitions.items()
        }
        self.counts = new_counts(dict.fromkeys(SYMBOLS, -1))
        self.sink = HeldSink()
        self.failures: list[BaseException] = []
        clock = SystemClock()
        self.dispatcher = Dispatcher(self.lanes, self.sink, self.counts, clock, self.failures.append)
        self.intake = Intake(self.lanes, self.dispatcher, self.counts, clock, cap_trades)
        self.dispatcher.start()

    def trade(self, symbol: str, *ids: int, time_ms: int = 1_000) -> None:
        n = len(ids)
        self.intake.trades(Trades(symbol, list(ids), [time_ms] * n, [1] * n, [1] * n, [], 8, 8, 1))


async def _settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_a_trade_goes_at_once_when_nothing_is_in_flight() -> None:
    bench = Bench()
    bench.trade("A/USDT", 1)
    await _settle()
    assert bench.sink.ids(0) == {"A/USDT": [1]}


async def test_what_comes_during_a_request_goes_with_the_next_one_packed() -> None:
    bench = Bench()
    bench.trade("A/USDT", 1)
    await _settle()
    for trade_id in (2, 3):
        bench.trade("A/USDT", trade_id)
        bench.trade("B/USDT", trade_id)
        await _settle()
    assert len(bench.sink.requests) == 1
    bench.sink.acknowledge(0)
    await bench.sink.until_request(1)
    assert bench.sink.ids(1) == {"A/USDT": [2, 3], "B/USDT": [2, 3]}
    assert [len(batch.records) for batch in bench.sink.requests[1]] == [1, 1]


@pytest.mark.parametrize(("spacing_s", "begun"), [(3_600.0, 1), (0.0, 2)])
async def test_requests_of_a_channel_keep_their_distance_however_quickly_the_broker_answers(
    spacing_s: float, begun: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "SPACING_S", spacing_s)
    bench = Bench()
    bench.trade("A/USDT", 1)
    await _settle()
    bench.trade("A/USDT", 2)
    bench.sink.acknowledge(0)
    await _settle()
    assert len(bench.sink.requests) == begun
    assert bench.counts.appended == 1, "what is acknowledged counts at once"
    await bench.dispatcher.close()


async def test_what_closes_a_candle_keeps_no_distance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "SPACING_S", 3_600.0)
    bench = Bench()
    for symbol in ("A/USDT", "B/USDT"):
        bench.trade(symbol, 1)
    await _settle()
    bench.sink.acknowledge(0)
    bench.trade("A/USDT", 2, time_ms=1_999)
    await _settle()
    assert len(bench.sink.requests) == 1, "within the candle: it waits"
    bench.trade("B/USDT", 2, time_ms=2_000)
    await bench.sink.until_request(1)
    assert bench.sink.ids(1) == {"A/USDT": [2], "B/USDT": [2]}, "and what waited goes with it"
    bench.trade("A/USDT", 3, time_ms=2_001)
    await _settle()
    assert len(bench.sink.requests) == 2
    bench.sink.acknowledge(1)
    await bench.sink.until_request(2)
    assert bench.sink.ids(2) == {"A/USDT": [3]}, "A's candle closed during the request: it follows at once"
    bench.sink.acknowledge(2)
    bench.intake.heartbeat("A/USDT", 3_000)
    await bench.sink.until_request(3)
    await bench.dispatcher.close()


async def test_another_broker_is_not_waited_for() -> None:
    bench = Bench()
    bench.trade("A/USDT", 1)
    await _settle()
    bench.trade("C/USDT", 1)
    await _settle()
    assert bench.sink.ids(1) == {"C/USDT": [1]}


async def test_positions_and_counts_move_only_with_the_acknowledgement() -> None:
    bench = Bench()
    bench.trade("A/USDT", 1, 2)
    await _settle()
    assert (bench.counts.received, bench.counts.appended, bench.lanes["A/USDT"].position.count) == (2, 0, 0)
    assert not bench.dispatcher.idle
    bench.sink.acknowledge(0)
    await bench.dispatcher.drained()
    assert (bench.counts.appended, bench.lanes["A/USDT"].position.count, bench.counts.records) == (2, 2, 1)


async def test_a_source_that_can_pause_waits_for_room_until_the_broker_takes_more() -> None:
    bench = Bench()
    for start in range(0, ROOM_TRADES + 500, 500):
        bench.trade("A/USDT", *range(start, start + 500))
    waiting = asyncio.create_task(bench.intake.room())
    await _settle()
    assert not waiting.done()
    bench.sink.acknowledge(0)
    await asyncio.wait_for(waiting, 30)


async def test_beyond_the_memory_cap_trades_are_dropped_and_counted_by_reason() -> None:
    bench = Bench(cap_trades=3)
    bench.trade("A/USDT", 1, 2)
    bench.trade("A/USDT", 3, 4)
    bench.trade("B/USDT", 5)
    await _settle()
    assert dict(bench.counts.dropped) == {"buffer": 2}
    assert (bench.counts.received, bench.dispatcher.waiting_trades) == (5, 3)
    assert bench.sink.ids(0) == {"A/USDT": [1, 2], "B/USDT": [5]}


async def test_no_batch_is_over_the_brokers_size_however_much_history_waits() -> None:
    bench = Bench()
    rows = 2_000
    wide = [10**16 + row for row in range(rows)]
    lane = bench.lanes["A/USDT"]
    for _ in range(8):
        lane.open(BackfillRecord("A/USDT", 7, "1s", 8, 8, wide, wide, wide, wide, wide, wide, wide))
    bench.dispatcher.wake(lane)
    sent = request = 0
    while sent < 8:
        await bench.sink.until_request(request)
        [batch] = bench.sink.requests[request]
        assert sum(len(record.value) + len(record.stamps) for record in batch.records) <= MAX_BATCH_BYTES
        sent += len(batch.records)
        bench.sink.acknowledge(request)
        request += 1
    await bench.dispatcher.drained()


async def test_lanes_of_a_partition_take_turns() -> None:
    bench = Bench()
    bench.lanes["B/USDT"].partition = 0
    bench.trade("A/USDT", *range(1_500))
    bench.trade("B/USDT", 1)
    await _settle()
    [batch] = bench.sink.requests[0]
    assert [record.key for record in batch.records] == [b"A/USDT", b"B/USDT", b"A/USDT", b"A/USDT"]


async def test_what_the_sink_cannot_send_ends_the_run_and_is_not_counted_as_appended() -> None:
    bench = Bench()
    bench.trade("A/USDT", 1)
    await _settle()
    bench.sink.fail(0, RuntimeError("refused"))
    await _settle()
    assert [str(error) for error in bench.failures] == ["refused"]
    assert bench.counts.appended == 0
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(bench.dispatcher.drained(), 0.01)
    await bench.dispatcher.close()


async def test_what_can_not_be_packed_ends_the_run_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else its way to the broker would stay in use for ever, and nobody would know."""
    bench = Bench()

    def pop() -> None:
        raise OverflowError("a price beyond 64 bits")

    monkeypatch.setattr(bench.lanes["A/USDT"], "pop", pop)
    bench.trade("A/USDT", 1)
    await _settle()
    assert [str(error) for error in bench.failures] == ["a price beyond 64 bits"]
    await bench.dispatcher.close()
