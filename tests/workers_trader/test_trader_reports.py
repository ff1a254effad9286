"""What a trader reports reaches its supervisor, however slowly that reads."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from tests.workers_trader.trader_stage import Stage, Tell

from chandlery.core.assignment import TraderAssignment
from chandlery.workers.segment import SignalRing
from chandlery.workers.trader.loop import TraderLoop
from chandlery.workers.trader.market import SegmentMarket
from chandlery.workers.trader.messages import Launch, Live, StateReport, decode_report, encode
from chandlery.workers.trader.process import Channel
from chandlery.workers.trader.signal_writer import SignalWriter


def told(number: int) -> StateReport:
    return StateReport("Active", 1, 1, "c0de", 1, 1, "x" * 3_000, number)


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    """The trader's end, and the supervisor's, of a line that holds little."""
    trader, supervisor = socket.socketpair()
    trader.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4_608)
    with trader, supervisor:
        yield trader, supervisor


def read(end: socket.socket, most: int = 1 << 20) -> bytes:
    """What has come, without waiting."""
    data = b""
    while len(data) < most:
        try:
            data += end.recv(most - len(data), socket.MSG_DONTWAIT)
        except BlockingIOError:
            break
    return data


def test_a_report_for_which_there_was_no_room_is_said_not_to_have_left(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    channel = Channel(ends[0])
    numbers = iter(range(1_000))
    assert any(not channel.report(told(number)) for number in numbers)
    last = next(numbers) - 1
    data = read(ends[1])
    assert channel.report(told(last))
    lines = (data + read(ends[1])).splitlines()
    assert [decode_report(line).orders for line in lines][-1] == last


@pytest.mark.parametrize("taken", [0, 1, 500, 5_000])
def test_a_line_that_was_cut_is_completed_before_the_next(taken: int) -> None:
    class Cutting:
        """A connection that takes so many bytes of the first line, none after it, and all from then on."""

        def __init__(self) -> None:
            self.room = [taken, 0, 1]
            self.data = b""

        def send(self, data: bytes, flags: int) -> int:
            room = self.room.pop(0) if self.room else len(data)
            if not room:
                raise BlockingIOError
            self.data += data[:room]
            return min(room, len(data))

    connection = Cutting()
    channel = Channel(connection)  # type: ignore[arg-type]
    left = [channel.report(told(number)) for number in range(6)]
    assert left[1:3] == [False, False]
    orders = [decode_report(line).orders for line in connection.data.splitlines()]
    assert set(orders) >= {number for number, sent in enumerate(left) if sent}
    assert orders[-1] == 5


def test_a_state_that_could_not_be_told_is_told_again(stage: Stage) -> None:
    index = stage.series()
    stage.close(index, 0)
    reports: list[StateReport] = []
    ring = SignalRing.create(stage.ring_path, trader="desk/alpha")

    def full_at_first(report: StateReport) -> bool:
        reports.append(report)
        return len(reports) > 2

    writer = SignalWriter(ring, str(stage.folder / "bell.sock"), stage.clock)
    market = SegmentMarket(stage.path, 0)
    loop = TraderLoop(stage.spec(), Tell, "c0de", market, ring, writer, stage.clock, full_at_first)
    for _ in range(6):
        loop.turn(stage.clock.now_ns())
    assert [each.state for each in reports] == ["Active"] * 3


def test_an_order_that_came_together_with_the_first_line_is_heard(ends: tuple[socket.socket, socket.socket]) -> None:
    spec = TraderAssignment("desk/a", "uid-1", "tell", ["BTC/USDT"], "1s")
    launch = Launch(spec, "SharedMemory", "segment", 0, "ring", "bell.sock")
    told = [Live(generation, "active", "segment", 0, orders=generation) for generation in (2, 3)]
    ends[1].sendall(b"".join(encode(line) + b"\n" for line in (launch, *told)))
    channel = Channel(ends[0])
    assert channel.launch() == launch
    assert channel.orders() == told, "no later order need come for these to be heard"
    assert channel.orders() == []
