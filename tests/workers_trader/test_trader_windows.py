"""Windows as messages, and a market received through them."""

from __future__ import annotations

import socket
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.strategies.strategy_bench import part, walk
from tests.workers_trader.trader_stage import BTC, ETH, TRADER, Stage, opens

from chandlery.core.assignment import SeriesRef
from chandlery.core.errors import UnavailableError
from chandlery.workers.candles import COLUMNS
from chandlery.workers.segment import SegmentReader, SegmentWriter, SeriesReader
from chandlery.workers.trader.pipe_market import MAX_ROWS, PipeMarket, PipeSeries
from chandlery.workers.windows import MAX_MESSAGE_BYTES, FrameSplitter, decode_window, encode_window

ROW = (1, 2, 3, 4, 5, 6, 7, 8)


def message(begin: int, end: int, *, session: int = 1, revision: int = 0, symbol: str = BTC) -> bytes:
    """Rows [begin, end) of a fixed walk as the newest ones."""
    return encode_window(
        part(WALK, begin, end),
        symbol=symbol,
        interval="1m",
        session=session,
        count=end,
        live_from_ms=0,
        traded_from_ms=0,
        revision=revision,
        stamps=[ROW],
        forming=(9, 1.0, 2.0, 0.5, 1.5, 3.0, 2, ROW, 4),
    )


WALK = walk(3_000, 3)


def body(framed: bytes) -> bytes:
    assert int.from_bytes(framed[:4], "little") == len(framed) - 4
    return framed[4:]


def test_a_message_comes_back_as_it_was() -> None:
    decoded = decode_window(body(message(10, 20)))
    assert decoded.header.count == 20
    assert decoded.header.stamps == [ROW]
    assert decoded.header.forming == (9, 1.0, 2.0, 0.5, 1.5, 3.0, 2, ROW, 4)
    for name in COLUMNS:
        column = getattr(decoded, name)
        assert column.tolist() == getattr(WALK, name)[10:20].tolist()
        assert not column.flags.writeable


def test_a_message_without_rows_carries_the_forming_candle_alone() -> None:
    framed = encode_window(
        None,
        symbol=BTC,
        interval="1m",
        session=1,
        count=7,
        live_from_ms=-1,
        traded_from_ms=-1,
        revision=2,
        forming=None,
    )
    decoded = decode_window(body(framed))
    assert (decoded.header.rows, len(decoded.close), decoded.header.forming) == (0, 0, None)


@given(st.lists(st.integers(1, 5_000), min_size=1, max_size=40))
def test_messages_are_cut_out_wherever_chunks_end(cuts: list[int]) -> None:
    stream = message(0, 5) + message(0, 60) + message(60, 61)
    splitter = FrameSplitter()
    bodies: list[bytes] = []
    at = 0
    for length in [*cuts, len(stream)]:
        bodies += splitter.feed(stream[at : at + length])
        at += length
    assert [decode_window(each).header.count for each in bodies] == [5, 60, 61]


@given(st.binary(max_size=300))
def test_garbage_is_an_error_that_says_reconnect(garbage: bytes) -> None:
    with pytest.raises(UnavailableError):
        decode_window(garbage)


def test_a_header_nested_without_end_is_an_error_that_says_reconnect() -> None:
    header = b"\x9b\xa1A\xa21s" + b"\0" * 6 + b"\x90\xc0" + b"\x91" * 60_000 + b"\xc0"
    with pytest.raises(UnavailableError, match="can't be decoded"):
        decode_window(len(header).to_bytes(4, "little") + header)


@given(st.integers(0, 200), st.binary(min_size=1, max_size=8))
def test_a_damaged_message_never_gives_wrong_shapes(at: int, noise: bytes) -> None:
    whole = bytearray(body(message(0, 5)))
    whole[at : at + len(noise)] = noise
    try:
        decoded = decode_window(bytes(whole))
    except UnavailableError:
        return
    assert all(len(getattr(decoded, name)) == decoded.header.rows for name in COLUMNS)


def test_an_absurd_length_ends_the_stream() -> None:
    with pytest.raises(UnavailableError, match="claims"):
        FrameSplitter().feed((MAX_MESSAGE_BYTES + 1).to_bytes(4, "little"))


def received(*messages: bytes) -> PipeSeries:
    series = PipeSeries(decode_window(body(messages[0])))
    for each in messages[1:]:
        series.take(decode_window(body(each)))
    return series


@pytest.mark.parametrize("second", [(8, 12), (0, 12), (10, 12), (3, 12)])
def test_rows_continue_what_is_held_overlapping_or_not(second: tuple[int, int]) -> None:
    series = received(message(0, 10), message(*second))
    assert (series.first(), series.count) == (0, 12)
    window = series.window(12, 12)
    assert window.close.tolist() == WALK.close[:12].tolist()
    assert series.last_open_time_ms == WALK.open_time[11]


def test_a_gap_a_revision_and_a_session_replace_what_is_held() -> None:
    assert received(message(0, 10), message(15, 18)).first() == 15
    revised = received(message(0, 10), message(5, 11, revision=1))
    assert (revised.first(), revised.count) == (5, 11)
    assert received(message(0, 10), message(2, 4, session=2)).count == 4


def test_no_more_rows_are_kept_than_any_strategy_needs() -> None:
    series = received(message(0, MAX_ROWS), *(message(at, at + 100) for at in range(MAX_ROWS, 2_900, 100)))
    assert series.count - series.first() == MAX_ROWS
    assert series.window(series.count, MAX_ROWS).close.tolist() == WALK.close[: series.count][-MAX_ROWS:].tolist()


def test_a_window_taken_before_a_revision_is_no_longer_valid() -> None:
    series = received(message(0, 10))
    window = series.window(10, 3)
    series.take(decode_window(body(message(10, 11))))
    assert series.valid(window), "rows of the past don't change by new ones"
    assert window.close.tolist() == WALK.close[7:10].tolist()
    series.take(decode_window(body(message(5, 11, revision=1))))
    assert not series.valid(window)


class WindowServer:
    """The feed's side of windows.sock, over the stage's own segment."""

    def __init__(self, stage: Stage, refs: list[SeriesRef]) -> None:
        self._reader = SegmentReader.open(stage.path)
        self._refs = refs
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(stage.folder / "windows.sock"))
        self._listener.listen()
        self.name = b""
        self._connection: socket.socket | None = None
        self.accepted = threading.Event()
        self._sent: dict[SeriesRef, int] = {}
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        self._connection, _ = self._listener.accept()
        self.name = self._connection.makefile("rb").readline()
        self._sent.clear()
        self.accepted.set()

    def send(self) -> None:
        """Everything that is new of each series."""
        assert self.accepted.wait(10), "the trader never connected"
        assert self._connection is not None
        for ref in self._refs:
            series = self._reader.series(ref.symbol, ref.interval)
            if series is not None:
                self._connection.sendall(self._message(ref, series))

    def _message(self, ref: SeriesRef, series: SeriesReader) -> bytes:
        sent, self._sent[ref] = self._sent.get(ref, 0), series.count
        return encode_window(
            series.window(series.count, min(192, series.count - sent)),
            symbol=ref.symbol,
            interval=ref.interval,
            session=series.session,
            count=series.count,
            live_from_ms=series.live_from_ms,
            traded_from_ms=series.traded_from_ms,
            revision=series.revision,
            stamps=[ROW] if series.count else [],
            forming=series.forming(),
        )

    def drop(self, reader: SegmentReader | None = None) -> None:
        """Close the connection and accept another, perhaps over another segment."""
        assert self._connection is not None
        self._reader = reader or self._reader
        self._connection.close()
        self.accepted.clear()
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._listener.close()
        if self._connection is not None:
            self._connection.close()


def test_the_same_decisions_through_a_pipe_as_through_shared_memory(stage: Stage) -> None:
    index = stage.series()
    stage.close(index, 0, 1)
    server = WindowServer(stage, [SeriesRef(BTC, "1s")])
    market = PipeMarket(str(stage.folder / "windows.sock"), TRADER)
    player = stage.trader(stage.spec(warmup=2, trigger="EveryUpdate"), market=market)
    assert player.turn() < 0.5
    server.send()
    market.wait(market.token(), 10)
    player.settle()
    assert server.name == b"desk/alpha\n"
    stage.close(index, 2, 3)
    stage.form(index, 4, 9.0)
    token = market.token()
    server.send()
    market.wait(token, 10)
    player.settle()
    signals = stage.signals()
    assert opens(signals) == [2, 3, 4]
    assert [signal.forming for signal in signals] == [False, False, True]
    assert signals[1].stamps.exchange_ns == 1
    # The feed restarts: the trader connects again and goes on where it was.
    server.drop()
    stage.close(index, 4, 5)
    while not server.accepted.is_set():
        market.wait(market.token(), 0.05)
        player.turn()
    server.send()
    token = market.token()
    market.wait(token, 10)
    player.settle()
    assert opens(stage.signals()) == [4, 5]
    server.close()


def test_a_missing_socket_is_waited_for_and_named(stage: Stage) -> None:
    market = PipeMarket(str(stage.folder / "windows.sock"), TRADER)
    player = stage.trader(market=market)
    player.turn()
    assert player.state() == "Init"
    assert "serves no windows" in player.reports[-1].message


def test_bytes_out_of_step_end_the_connection_and_not_the_trader(stage: Stage) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(stage.folder / "windows.sock"))
        listener.listen()
        market = PipeMarket(str(stage.folder / "windows.sock"), TRADER)
        market.refresh()
        connection, _ = listener.accept()
        connection.sendall(b"\xff" * 64)
        market.wait(market.token(), 10)
        assert "claims" in market.trouble
        assert market.series(ETH, "1s") is None
        connection.close()


def test_columns_of_a_message_are_little_endian_whatever_the_host() -> None:
    decoded = decode_window(body(message(0, 2)))
    assert decoded.open_time.dtype == np.dtype("<i8")
    assert decoded.close.dtype == np.dtype("<f8")


def test_a_restarted_feed_that_counts_its_rows_anew_is_followed_by_their_times(stage: Stage) -> None:
    index = stage.series()
    server = WindowServer(stage, [SeriesRef(BTC, "1s")])
    market = PipeMarket(str(stage.folder / "windows.sock"), TRADER)
    player = stage.trader(market=market)
    player.turn()
    server.send()
    market.wait(market.token(), 10)
    player.settle()
    stage.close(index, 0, 1, 2, 3)
    token = market.token()
    server.send()
    market.wait(token, 10)
    player.settle()
    assert opens(stage.signals()) == [0, 1, 2, 3]
    stage.writer.close()
    stage.writer = SegmentWriter.create(stage.path, rows=stage.rows, series=8)
    again = stage.series()
    stage.close(again, 3, 4, 5, backfill=True)  # the topic's retention has taken the older ones
    server.drop(SegmentReader.open(stage.path))
    while not server.accepted.is_set():
        market.wait(market.token(), 0.05)
        player.turn()
    token = market.token()
    server.send()
    market.wait(token, 10)
    player.settle()
    assert opens(stage.signals()) == [4, 5]
    server.close()
