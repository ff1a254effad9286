"""What a writer does, told twice: to a segment and to plain lists, which say what readers may find in it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple, Protocol

from tests.segment.segment_rows import Row, row, stamps

from chandlery.workers.segment import SegmentWriter

Forming = tuple[Row, tuple[int, ...]]


class Layout(NamedTuple):
    """Numbers of a segment."""

    rows: int
    guard_rows: int
    series: int
    bells: int
    stamp_rows: int

    def create(self, path: str) -> SegmentWriter:
        return SegmentWriter.create(path, **self._asdict())


SMALL: Final = Layout(rows=8, guard_rows=2, series=4, bells=4, stamp_rows=4)
#: All of it is another: a successor with these numbers has no offset in common with the one before.
OTHER: Final = Layout(rows=12, guard_rows=3, series=9, bells=7, stamp_rows=5)
INTERVAL: Final = "1s"


def _home(symbol: str, slots: int) -> int:
    """Where a series' probes begin (docs/segment.md)."""
    digest = 0xCBF29CE484222325
    for byte in f"{symbol}\0{INTERVAL}".encode():
        digest = (digest ^ byte) * 0x100000001B3 & (1 << 64) - 1
    return (digest ^ digest >> 32) & 0xFFFFFFFF & slots - 1


def _neighbours(count: int) -> list[str]:
    """Symbols whose probes begin at one slot in both layouts: taking out the first moves the others."""
    found: list[str] = []
    number = 0
    while len(found) < count:
        symbol = f"S{number}/USDT"
        number += 1
        if _home(symbol, 32) == _home("S0/USDT", 32):
            found.append(symbol)
    return found


#: In the order in which they are added. LAST is added by an operation.
FIRST, LONG, SHORT, LAST = _neighbours(4)
HISTORY: Final = 11
#: A reset's session, apart from those of all writers.
RESET_BY: Final = 5_000


class Acts(Protocol):
    """What a writer can do to its series."""

    def add(self, symbol: str) -> None: ...
    def remove(self, symbol: str) -> None: ...
    def reset(self, symbol: str, session: int) -> None: ...
    def append(self, symbol: str) -> None: ...
    def revise(self, symbol: str, ordinal: int, version: int) -> None: ...
    def form(self, symbol: str, version: int) -> None: ...
    def unform(self, symbol: str) -> None: ...
    def ring(self, *bells: int) -> None: ...
    def beat(self) -> None: ...


class SeriesTruth:
    """One series: every closed row since its reset, and the forming one."""

    def __init__(self, session: int) -> None:
        self.session = session
        self.rows: list[Row] = []
        self.forming: Forming | None = None


class Truth:
    """Acts on plain lists."""

    def __init__(self) -> None:
        self.series: dict[str, SeriesTruth] = {}

    def add(self, symbol: str) -> None:
        self.series.setdefault(symbol, SeriesTruth(0))

    def remove(self, symbol: str) -> None:
        self.series.pop(symbol, None)

    def reset(self, symbol: str, session: int) -> None:
        self.series[symbol] = SeriesTruth(session)

    def append(self, symbol: str) -> None:
        told = self.series[symbol]
        told.rows.append(row(told.session, len(told.rows)))
        told.forming = None

    def revise(self, symbol: str, ordinal: int, version: int) -> None:
        told = self.series[symbol]
        told.rows[ordinal] = row(told.session, ordinal, version)

    def form(self, symbol: str, version: int) -> None:
        told = self.series[symbol]
        told.forming = row(told.session, len(told.rows), version), stamps(told.session, len(told.rows))

    def unform(self, symbol: str) -> None:
        self.series[symbol].forming = None

    def ring(self, *bells: int) -> None:
        pass

    def beat(self) -> None:
        pass


class Writing:
    """Acts on a segment. It goes by a truth of its own to know sessions and ordinals."""

    def __init__(self, writer: SegmentWriter) -> None:
        self.writer = writer
        self._truth = Truth()
        self._indices: dict[str, int] = {}

    def add(self, symbol: str) -> None:
        self._indices[symbol] = self.writer.add_series(symbol, INTERVAL)
        self._truth.add(symbol)

    def remove(self, symbol: str) -> None:
        self.writer.remove_series(symbol, INTERVAL)

    def reset(self, symbol: str, session: int) -> None:
        self.writer.reset(self._indices[symbol], session)
        self._truth.reset(symbol, session)

    def append(self, symbol: str) -> None:
        session, ordinal = self._next(symbol)
        self.writer.append(self._indices[symbol], *row(session, ordinal), stamps(session, ordinal))
        self._truth.append(symbol)

    def revise(self, symbol: str, ordinal: int, version: int) -> None:
        session, _ = self._next(symbol)
        assert self.writer.revise(self._indices[symbol], *row(session, ordinal, version))

    def form(self, symbol: str, version: int) -> None:
        session, ordinal = self._next(symbol)
        self.writer.set_forming(self._indices[symbol], *row(session, ordinal, version), stamps(session, ordinal))

    def unform(self, symbol: str) -> None:
        self.writer.clear_forming(self._indices[symbol])

    def ring(self, *bells: int) -> None:
        if len(bells) == 1:
            self.writer.ring(*bells)
        else:
            self.writer.ring_many(bells)

    def beat(self) -> None:
        self.writer.heartbeat()

    def _next(self, symbol: str) -> tuple[int, int]:
        told = self._truth.series[symbol]
        return told.session, len(told.rows)


def tell_history(acts: Acts, session: int) -> None:
    """What every writer begins with: an empty series, one that has lapped and forms, a short one."""
    for symbol in (FIRST, LONG, SHORT):
        acts.add(symbol)
        acts.reset(symbol, session)
    for _ in range(HISTORY):
        acts.append(LONG)
    for _ in range(3):
        acts.append(SHORT)
    acts.form(LONG, 4)


class Operation(NamedTuple):
    """One publish.

    Attributes:
        symbol: the series that it is about, or empty. ends_windows: whether it makes windows of it invalid.
    """

    name: str
    symbol: str
    ends_windows: bool
    act: Callable[[Acts, int], None]


OPERATIONS: Final = (
    Operation("append, the first row", FIRST, False, lambda acts, _: acts.append(FIRST)),
    Operation("append, what was forming", LONG, False, lambda acts, _: acts.append(LONG)),
    Operation("append", SHORT, False, lambda acts, _: acts.append(SHORT)),
    Operation("revise, the newest", LONG, True, lambda acts, _: acts.revise(LONG, HISTORY - 1, 7)),
    Operation("revise, an older one", SHORT, True, lambda acts, _: acts.revise(SHORT, 1, 8)),
    Operation("reset", LONG, True, lambda acts, session: acts.reset(LONG, session + RESET_BY)),
    Operation("set_forming, again", LONG, False, lambda acts, _: acts.form(LONG, 9)),
    Operation("set_forming, none before", SHORT, False, lambda acts, _: acts.form(SHORT, 2)),
    Operation("clear_forming", LONG, False, lambda acts, _: acts.unform(LONG)),
    Operation("add_series", LAST, False, lambda acts, _: acts.add(LAST)),
    Operation("remove_series, others move", FIRST, True, lambda acts, _: acts.remove(FIRST)),
    Operation("remove_series, nobody moves", SHORT, True, lambda acts, _: acts.remove(SHORT)),
    Operation("ring", "", False, lambda acts, _: acts.ring(1)),
    Operation("ring_many", "", False, lambda acts, _: acts.ring(0, 1, 2, 3)),
    Operation("heartbeat", "", False, lambda acts, _: acts.beat()),
)
SYMBOLS: Final = (FIRST, LONG, SHORT, LAST)


class Told(NamedTuple):
    """What may be found after a writer was killed within an operation: what was before it, or after it."""

    operation: Operation | None
    before: Truth
    after: Truth

    @classmethod
    def of(cls, session: int, operation: Operation | None = None) -> Told:
        """Of a writer's history, and maybe an operation after it."""
        truths = [Truth(), Truth()]
        for truth in truths:
            tell_history(truth, session)
        if operation is not None:
            operation.act(truths[1], session)
        return cls(operation, *truths)

    def choices(self, symbol: str) -> list[SeriesTruth | None]:
        """What a series may be."""
        return [self.before.series.get(symbol), self.after.series.get(symbol)]

    def concerns(self, symbol: str) -> bool:
        """Whether the operation is about a series."""
        return self.operation is not None and self.operation.symbol == symbol

    def ends_windows(self, symbol: str) -> bool:
        """Whether windows of a series may be invalid."""
        return self.operation is not None and self.concerns(symbol) and self.operation.ends_windows
