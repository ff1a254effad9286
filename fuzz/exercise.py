"""What readers do with an input, and what may come of it: values that the file holds, or the error promised."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple, TypeVar

import numpy as np

from chandlery.core.errors import UnavailableError
from chandlery.workers.segment import (
    Geometry,
    SegmentError,
    SegmentInfo,
    SegmentReader,
    SegmentWriter,
    SeriesReader,
    SignalRing,
    Window,
    _native,
)
from chandlery.workers.trader.pipe_market import PipeMarket
from chandlery.workers.windows import FrameSplitter, decode_message
from fuzz import inputs, words
from fuzz.inputs import Input

_T = TypeVar("_T")
_NAMES: Final = ("A", "B", "C", "D", "E")
_MOST_SIGNED: Final = (1 << 63) - 1
#: Of what a hostile header makes possible, as much is read as one input shall cost.
_MOST_SERIES: Final = 16


class Broken(Exception):
    """A property doesn't hold: a value that isn't the file's, or one out of its bounds."""


class Kind(NamedTuple):
    """One of the things that are fuzzed: how a real one is made, how it is spoiled, what is done with it."""

    make: Callable[[random.Random], bytes]
    spoil: Callable[[random.Random, Input], Input]
    exercise: Callable[[Input, Path], None]


class _Meanwhile:
    """Stores of another process into the file between operations; the one error that an operation may raise."""

    def __init__(self, given: Input, path: Path) -> None:
        self._pokes = given.pokes
        self._path = path
        self._size = len(given.content)
        self._done = 0
        self.touched = False

    def __call__(self, operation: Callable[[], _T]) -> _T | None:
        for poke in self._pokes:
            if poke.when == self._done:
                self._store(poke)
        self._done += 1
        try:
            return operation()
        except SegmentError as error:
            if not str(error):
                raise Broken("a SegmentError that says nothing") from error
            return None

    def _store(self, poke: inputs.Poke) -> None:
        self.touched = True
        if not self._path.is_file():
            return
        if poke.offset == inputs.TRUNCATE:
            os.truncate(self._path, min(poke.value, self._size))
        elif poke.offset + 8 <= self._size:
            with self._path.open("r+b") as file:
                file.seek(poke.offset)
                file.write(poke.value.to_bytes(8, "little"))


def segment(given: Input, path: Path) -> None:
    """Read all that a reader reads, then take the path over as a new writer does."""
    path.write_bytes(given.content)
    meanwhile = _Meanwhile(given, path)
    reader = meanwhile(lambda: SegmentReader.open(str(path)))
    if reader is not None:
        info = meanwhile(reader.info)
        meanwhile(lambda: reader.superseded)
        meanwhile(reader.writer_heartbeat_ns)
        names = [(symbol, "1s") for symbol in _NAMES] + _told_names(info)
        kept = [_read_series(given, meanwhile, reader, *name) for name in names]
        meanwhile(lambda: reader.wait(0, reader.bell(0), 0.0))
        meanwhile(lambda: reader.bell(reader.info()["header"]["bells"] - 1))
        reader.close()
        for window in kept:
            if window is not None:
                window.close.sum()  # still mapped
    writer = meanwhile(lambda: SegmentWriter.create(str(path), rows=4, series=1, guard_rows=1, bells=1))
    if writer is None:
        raise Broken("a new writer can't take the path over")
    writer.close()
    if reader is not None and (reader.generation + 1) % (1 << 64) != writer.generation and not meanwhile.touched:
        raise Broken(f"generation {writer.generation} follows {reader.generation}")


def _told_names(info: SegmentInfo | None) -> list[tuple[str, str]]:
    return [(one["symbol"], one["interval"]) for one in info["series"][:_MOST_SERIES]] if info is not None else []


def _read_series(
    given: Input, meanwhile: _Meanwhile, reader: SegmentReader, symbol: str, interval: str
) -> Window | None:
    series = meanwhile(lambda: reader.series(symbol, interval))
    if series is None:
        return None
    most = reader.rows - reader.guard_rows
    kept = None
    for end in (series.count, series.count // 2, 3, 0, _MOST_SIGNED):
        for length in (most, 1):
            meanwhile(lambda end=end, length=length: series.prepare(end, length))  # type: ignore[misc]
            kept = meanwhile(lambda end=end, length=length: series.window(end, length))  # type: ignore[misc]
            if kept is not None:
                _check_window(given, meanwhile, series, kept, length)
    meanwhile(series.first)
    meanwhile(lambda: series.stamps(max(series.count - 1, 0)))
    meanwhile(lambda: series.stamps(0))
    meanwhile(lambda: series.lapped(0))
    for time_ms in (-1, 5, series.last_open_time_ms, series.live_from_ms, series.traded_from_ms):
        meanwhile(lambda time_ms=time_ms: series.find_after(time_ms))  # type: ignore[misc]
    forming = meanwhile(series.forming)
    if forming is not None and (forming.open_time_ms < 0 or forming.sequence & 1):
        raise Broken(f"a forming row that is none: {forming}")
    meanwhile(lambda: series.alive)
    return kept


def _check_window(given: Input, meanwhile: _Meanwhile, series: SeriesReader, window: Window, length: int) -> None:
    """What a window shows stands in the file, at the place that the layout says."""
    if not 0 <= len(window) <= length or len(window.open_time) != len(window):
        raise Broken(f"a window of {len(window)} rows and {len(window.open_time)} values, asked for {length}")
    shown = np.concatenate([getattr(window, name).view("<u8") for name in ("open_time", "close", "trades")])
    meanwhile(lambda: series.valid(window))
    if meanwhile.touched:
        return
    g = Geometry.derive(**inputs.numbers_in(given.content))
    words = np.frombuffer(given.content, "<u8", g.file_bytes // 8)
    if not any(
        _record_name(given.content, g, index) == (series.symbol.encode(), series.interval.encode())
        and np.array_equal(shown, _expected(words, g, index, window))
        for index in range(g.series)
    ):
        raise Broken(f"rows {window.begin} … {window.end} of {series.symbol} are not those of the file")


def _record_name(content: bytes, g: Geometry, index: int) -> tuple[bytes, bytes]:
    at = g.records_offset + index * _native.RECORD_BYTES
    symbol = content[at + _native.RECORD_SYMBOL :][: _native.SYMBOL_BYTES]
    interval = content[at + _native.RECORD_INTERVAL :][: _native.INTERVAL_BYTES]
    return symbol.rstrip(b"\0"), interval.rstrip(b"\0")


def _expected(words: np.ndarray, g: Geometry, index: int, window: Window) -> np.ndarray:
    low = window.begin % g.rows
    first = [(g.data_offset + index * g.block_bytes + column * g.column_bytes) // 8 + low for column in (0, 4, 6)]
    return np.concatenate([words[at : at + len(window)] for at in first])


def ring(given: Input, path: Path) -> None:
    """Drain it as a feed, look into it as a supervisor, then make it ready and use it as the trader."""
    path.write_bytes(given.content)
    meanwhile = _Meanwhile(given, path)
    feed = meanwhile(lambda: SignalRing.attach(str(path)))
    if feed is not None:
        _drain(meanwhile, feed)
        feed.close()
    if any(poke.offset == inputs.TRUNCATE for poke in given.pokes):
        return  # the trader maps its ring: one that is cut while its own process uses it ends that process alone
    trader = meanwhile(lambda: SignalRing.create(str(path), trader="ns/liar", uid="u", slots=2))
    if trader is None:
        raise Broken("no ring can be made ready in place of this one")
    _push(meanwhile, trader)
    trader.close()
    again = meanwhile(lambda: SignalRing.attach(str(path)))
    if again is not None:
        _drain(meanwhile, again)
        again.close()


def _drain(meanwhile: _Meanwhile, feed: SignalRing) -> None:
    for _ in range(2):
        meanwhile(feed.info)
        meanwhile(lambda: feed.position("S0/USDT 1m"))
        meanwhile(lambda: feed.get("calls"))
        meanwhile(lambda: feed.head)
        if not 0 <= feed.depth <= feed.capacity:
            raise Broken(f"depth {feed.depth} of {feed.capacity}")
        items = meanwhile(lambda: feed.pending(3)) or []
        for item in items:
            if (item.payload is None) is not bool(item.error) or len(item.payload or b"") > SignalRing.SLOT_PAYLOAD:
                raise Broken(f"an item that is neither good nor bad: {item}")
        if items:
            meanwhile(lambda items=items: feed.acknowledge(items[-1].position + 1))  # type: ignore[misc]
        meanwhile(feed.rewind)
    meanwhile(lambda: feed.replaced)


def _push(meanwhile: _Meanwhile, trader: SignalRing) -> None:
    for number in range(4):
        meanwhile(lambda: trader.push(b"x" * SignalRing.SLOT_PAYLOAD))
        meanwhile(lambda number=number: trader.set_position(f"T{number}/USDT 1m", 1, 2))  # type: ignore[misc]
        meanwhile(lambda: trader.add("calls"))
        meanwhile(lambda: trader.set("signals", 3))
    meanwhile(lambda: trader.keep_positions(["T1/USDT 1m"]))
    meanwhile(lambda: trader.position("T1/USDT 1m"))


def messages(given: Input, path: Path) -> None:
    """Cut the stream into messages wherever its chunks end, and take them in as a trader does."""
    path.write_bytes(given.content)  # the input stands there when this process dies
    draw = random.Random(zlib.crc32(given.content))
    splitter = FrameSplitter()
    market = PipeMarket("/nowhere", "ns/liar@1")
    rest = given.content
    with contextlib.suppress(UnavailableError):
        while rest:
            cut = draw.randint(1, max(1, len(rest)))
            bodies, rest = splitter.feed(rest[:cut]), rest[cut:]
            for body in bodies:
                market._take(decode_message(body))
    _use_market(market)
    _receive(given.content)


def _use_market(market: PipeMarket) -> None:
    for symbol in ("A", "B"):
        series = market.series(symbol, "1s")
        absence = market.absence(symbol, "1s")
        if absence is not None:
            absence.told()
        if series is None:
            continue
        window = series.window(series.count, 500)
        if len(window.close) > 500 or window.close.flags.writeable:
            raise Broken("a window longer than asked for, or one that can be written")
        series.valid(window)
        series.forming()
        series.find_after(5)
        series.stamps(series.count - 1)


def _receive(content: bytes) -> None:
    """The same by a socket: whatever comes, the trader lives and says what is wrong."""
    ours, theirs = socket.socketpair()
    with theirs:
        market = PipeMarket("/nowhere", "ns/liar@1")
        market._socket = ours
        theirs.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            theirs.send(content)
        theirs.shutdown(socket.SHUT_WR)
        market._receive(ours)
        if not market.trouble:
            raise Broken("a stream that ended is no trouble")


KINDS: Final = {
    "segment": Kind(inputs.real_segment, inputs.spoil_segment, segment),
    "ring": Kind(inputs.real_ring, inputs.spoil_ring, ring),
    "messages": Kind(inputs.real_messages, inputs.spoil_messages, messages),
    "words": Kind(words.real_words, words.spoil_words, words.words),
}
