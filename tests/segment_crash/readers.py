"""Readers in processes of their own: one that judges what a dead writer left, one that sleeps and follows."""

from __future__ import annotations

import contextlib
import os
import time
from multiprocessing.connection import Connection
from typing import Final, NamedTuple

from tests.segment.segment_rows import Row, flaw, stamps
from tests.segment_crash.truth import INTERVAL, LONG, SYMBOLS, Forming, Layout, SeriesTruth, Told

from chandlery.workers.segment import SegmentError, SegmentReader, SeriesReader, Window
from chandlery.workers.trader.market import SegmentMarket

#: Who sleeps so long is woken by a bell, or the test fails.
FOREVER_S: Final = 1e6
FOLLOWERS_BELL: Final = 1


class Finding(NamedTuple):
    """What a reader can say of one series.

    Attributes:
        rows: of the longest window, None where it isn't valid. begin: its first ordinal.
        next_after: ordinal found behind the open time of the last row but one.
    """

    alive: bool
    session: int
    begin: int
    rows: list[Row] | None
    forming: Forming | None
    stamps: tuple[int, ...] | None
    next_after: int | None


class Judge:
    """Opens a segment while its writer lives, and tells what it finds there afterwards."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._held: dict[str, tuple[SeriesReader, Window]] = {}
        self._most = 0

    def hold(self) -> None:
        """Take a window of every series, and prepare the next, as a trader that is at work when the writer dies."""
        self._held = {}
        with SegmentReader.open(self._path) as reader:
            self._most = reader.rows - reader.guard_rows
            for symbol in SYMBOLS:
                series = reader.series(symbol, INTERVAL)
                if series is not None:
                    self._held[symbol] = series, series.window(series.count, self._most)
                    series.prepare(series.count + 1, self._most)

    def held(self) -> dict[str, Finding]:
        """What those windows, and the series they are of, are worth now."""
        found = {}
        for symbol, (series, window) in self._held.items():
            found[f"window of {symbol}"] = _finding(series, window)
            found[symbol] = _finding(series, series.window(series.count, self._most))
        return found

    def fresh(self) -> dict[str, Finding]:
        """What one finds that comes now."""
        found = {}
        with SegmentReader.open(self._path) as reader:
            for symbol in SYMBOLS:
                series = reader.series(symbol, INTERVAL)
                if series is not None:
                    found[symbol] = _finding(series, series.window(series.count, reader.rows - reader.guard_rows))
        return found


class Trace(NamedTuple):
    """How a process has a segment: descriptors of it, by which it could hold a lock, and the rights of its mappings."""

    descriptors: list[str]
    rights: list[str]

    @classmethod
    def of(cls, path: str) -> Trace:
        """This process's own."""
        mine = []
        for fd in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError):  # the listing's own
                if (link := os.readlink(f"/proc/self/fd/{fd}")).startswith(path):
                    mine.append(link)
        with open("/proc/self/maps", encoding="ascii") as maps:
            rights = {line.split()[1] for line in maps if line.rstrip().endswith(path)}
        return cls(mine, sorted(rights))


def judge(line: Connection, path: str) -> None:
    """A judge that answers until it is killed."""
    judging = Judge(path)
    while True:
        (question,) = line.recv()
        if question == "hold":
            judging.hold()
            line.send("held")
        elif question == "trace":
            line.send(Trace.of(path))
        elif question == "held":
            line.send(judging.held())
        else:
            try:
                line.send(judging.fresh())
            except SegmentError as error:
                line.send(error)


def _finding(series: SeriesReader, window: Window) -> Finding:
    forming = series.forming()
    columns = (window.open_time, window.open, window.high, window.low, window.close, window.volume, window.trades)
    rows: list[Row] = list(zip(*(column.tolist() for column in columns), strict=True))
    stamped = series.stamps(window.end - 1) if rows else None
    next_after = series.find_after(rows[-2][0]) if len(rows) > 1 else None
    whole = series.valid(window)
    return Finding(
        alive=series.alive,
        session=window.session,
        begin=window.begin,
        rows=rows if whole else None,
        forming=None if forming is None else (forming[:7], forming.stamps),
        stamps=stamped if whole else None,
        next_after=next_after if whole else None,
    )


# ---- what a finding may be ----


def flaws(told: Told, layout: Layout, found: dict[str, Finding]) -> list[str]:
    """What is wrong with what a reader found after a writer's death, in words."""
    wrong = []
    for symbol in SYMBOLS:
        if symbol not in found:
            if None not in told.choices(symbol):
                wrong.append(f"{symbol} is lost")
            continue
        wrong += [f"{symbol}: {what}" for what in _flaws_of(told, layout, symbol, found[symbol])]
    for symbol in SYMBOLS:
        held = found.get(f"window of {symbol}")
        if held is None:
            continue
        if held.rows is None and not told.ends_windows(symbol):
            wrong.append(f"{symbol}: a window taken before is not valid any more")
        before = told.before.series[symbol]
        if held.rows is not None and (held.session, held.rows) != (before.session, _readable(before, layout)):
            wrong.append(f"{symbol}: a window taken before is valid and shows {held.rows}")
    return wrong


def _flaws_of(told: Told, layout: Layout, symbol: str, found: Finding) -> list[str]:
    choices = told.choices(symbol)
    wrong = []
    if not found.alive and None not in choices:
        wrong.append("not alive")
    if found.rows is None:
        if not told.ends_windows(symbol):
            wrong.append("no window is valid")
    elif not any(_shows(found, choice, layout) for choice in choices):
        wrong.append(f"session {found.session}, rows from {found.begin}: {found.rows}")
    elif found.rows:
        last = found.begin + len(found.rows) - 1
        if found.stamps != stamps(found.session, last):
            wrong.append(f"stamps {found.stamps} of row {last}")
        if found.next_after not in (None, last):
            wrong.append(f"the row after the last but one is {found.next_after}, not {last}")
    formings = [None if choice is None else choice.forming for choice in choices]
    if found.forming not in formings and not (found.forming is None and told.concerns(symbol)):
        wrong.append(f"forming row {found.forming}")
    if found.rows and found.forming is not None and found.forming[0][0] <= found.rows[-1][0]:
        wrong.append("a candle closed and forming")
    return wrong


def _shows(found: Finding, choice: SeriesTruth | None, layout: Layout) -> bool:
    if choice is None:
        return False
    rows = _readable(choice, layout)
    return (found.session, found.begin, found.rows) == (choice.session, len(choice.rows) - len(rows), rows)


def _readable(truth: SeriesTruth, layout: Layout) -> list[Row]:
    return truth.rows[-(layout.rows - layout.guard_rows) :]


# ---- following ----


class Followed(NamedTuple):
    """The first good window of a new segment.

    Attributes:
        at_ns: when it was found whole, monotonic. looked_in_vain: times that there was no segment, and a timer ran.
        troubles: what was said meanwhile.
    """

    session: int
    at_ns: int
    flaw: str
    looked_in_vain: int
    troubles: list[str]


def follow(line: Connection, path: str) -> None:
    """A trader's way of following: sleeps at its bell without an end, and tells of each new segment's first window."""
    market = SegmentMarket(path, FOLLOWERS_BELL)
    session = looked_in_vain = 0
    troubles: list[str] = []
    while True:
        token = market.token()
        market.refresh()
        series = market.series(LONG, INTERVAL)
        if isinstance(series, SeriesReader):
            window = series.window(series.count, 6)
            trouble = flaw(window)
            if window.session not in (0, session) and len(window) and series.valid(window):
                session, at_ns = window.session, time.monotonic_ns()
                line.send(Followed(session, at_ns, trouble, looked_in_vain, troubles))
                looked_in_vain, troubles = 0, []
        if market.trouble:
            looked_in_vain += 1
            if market.trouble not in troubles:
                troubles.append(market.trouble)
        market.wait(token, FOREVER_S)
