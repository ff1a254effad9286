"""Typed face of the C extension; see native.h and protocol.h."""

from collections.abc import Sequence
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

_Ints: TypeAlias = NDArray[np.int64]
_Floats: TypeAlias = NDArray[np.float64]

WORD_BYTES: Final[int]
HEADER_BYTES: Final[int]
LAYOUT_VERSION: Final[int]
COLUMN_COUNT: Final[int]
STAMP_COUNT: Final[int]
SEGMENT_MAGIC: Final[int]
RING_MAGIC: Final[int]
READY_WORD: Final[int]
HEADER_MAGIC: Final[int]
HEADER_VERSION: Final[int]
HEADER_FILE_BYTES: Final[int]
HEADER_GENERATION: Final[int]
HEADER_ROWS: Final[int]
HEADER_GUARD_ROWS: Final[int]
HEADER_SERIES: Final[int]
HEADER_BELLS: Final[int]
HEADER_STAMP_ROWS: Final[int]
HEADER_HASH_SLOTS: Final[int]
HEADER_BELLS_OFFSET: Final[int]
HEADER_HASH_OFFSET: Final[int]
HEADER_RECORDS_OFFSET: Final[int]
HEADER_DATA_OFFSET: Final[int]
HEADER_COLUMN_BYTES: Final[int]
HEADER_BLOCK_BYTES: Final[int]
HEADER_WRITER_PID: Final[int]
HEADER_CREATED_NS: Final[int]
HEADER_CHECKSUM: Final[int]
HEADER_READY: Final[int]
HEADER_SUPERSEDED: Final[int]
HEADER_TABLE_VERSION: Final[int]
HEADER_HEARTBEAT_NS: Final[int]
BELL_BYTES: Final[int]
RECORD_BYTES: Final[int]
RECORD_EPOCH: Final[int]
RECORD_INTERVAL: Final[int]
INTERVAL_BYTES: Final[int]
RECORD_SYMBOL: Final[int]
SYMBOL_BYTES: Final[int]
RECORD_REVISION: Final[int]
RECORD_RESERVED: Final[int]
RECORD_COUNT: Final[int]
RECORD_SESSION: Final[int]
RECORD_LIVE_FROM_MS: Final[int]
RECORD_LAST_OPEN_TIME_MS: Final[int]
RECORD_TRADED_FROM_MS: Final[int]
RECORD_FORMING_SEQUENCE: Final[int]
RECORD_FORMING: Final[int]
RECORD_FORMING_STAMPS: Final[int]
RING_VERSION: Final[int]
RING_OLDEST_VERSION: Final[int]
RING_HEADER_BYTES: Final[int]
RING_MAGIC_AT: Final[int]
RING_VERSION_AT: Final[int]
RING_FILE_BYTES: Final[int]
RING_SLOTS: Final[int]
RING_SLOT_BYTES: Final[int]
RING_POSITIONS_OFFSET: Final[int]
RING_SLOTS_OFFSET: Final[int]
RING_READY: Final[int]
RING_TRADER: Final[int]
RING_TRADER_BYTES: Final[int]
RING_HEAD: Final[int]
RING_TAIL: Final[int]
RING_COUNTERS: Final[int]
RING_COUNTER_COUNT: Final[int]
RING_POSITION_CLOCK: Final[int]
RING_UID: Final[int]
RING_UID_BYTES: Final[int]
POSITION_COUNT: Final[int]
POSITION_BYTES: Final[int]
POSITION_VERSION: Final[int]
POSITION_USED_AT: Final[int]
POSITION_PAIRS: Final[int]
POSITION_SERIES: Final[int]
SLOT_BYTES: Final[int]
SLOT_HEADER_BYTES: Final[int]
SLOT_PAYLOAD_BYTES: Final[int]
MAX_RING_SLOTS: Final[int]

Numbers = tuple[int, int, int, int, int]

def geometry(rows: int, guard_rows: int, series: int, bells: int, stamp_rows: int, /) -> tuple[int, ...]: ...
def fence_acquire() -> None: ...
def fence_release() -> None: ...

class Mapping:
    # Unmapped when the last reference goes: Writer, Reader and Series hold one until they are closed or collected, and
    # so does each buffer taken from it (a memoryview, a numpy array on that, a slice of the array).
    def __new__(cls, fd: int, length: int, writable: bool) -> Mapping: ...
    def __len__(self) -> int: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...
    def load(self, offset: int, /) -> int: ...
    def store(self, offset: int, value: int, /) -> None: ...
    def add(self, offset: int, amount: int, /) -> int: ...
    def read(self, offset: int, length: int, /) -> bytes: ...
    def write(self, offset: int, data: bytes, /) -> None: ...
    def populate(self, offset: int, length: int, /) -> None: ...
    def depopulate(self, offset: int, length: int, /) -> None: ...

class Writer:
    def __init__(self, mapping: Mapping, numbers: Numbers, /) -> None: ...
    def append(
        self,
        series: int,
        open_time_ms: int,
        open: float,
        high: float,
        low: float,
        close: float,
        volume: float,
        trades: int,
        stamps: tuple[int, ...],
        backfill: bool = False,
        live: bool = True,
    ) -> None: ...
    def revise(
        self,
        series: int,
        open_time_ms: int,
        open: float,
        high: float,
        low: float,
        close: float,
        volume: float,
        trades: int,
    ) -> bool: ...
    def set_forming(
        self,
        series: int,
        open_time_ms: int,
        open: float,
        high: float,
        low: float,
        close: float,
        volume: float,
        trades: int,
        stamps: tuple[int, ...],
    ) -> None: ...
    def clear_forming(self, series: int, /) -> None: ...
    def reset(self, series: int, session: int) -> None: ...
    def take_changed(self) -> tuple[list[int], list[int]]: ...
    def end_series(self) -> None: ...
    def ring(self, bell: int, /) -> None: ...
    def ring_many(self, bells: Sequence[int], /) -> None: ...
    def heartbeat(self) -> None: ...
    def add_series(self, symbol: str, interval: str) -> int: ...
    def remove_series(self, symbol: str, interval: str) -> None: ...
    def _release(self) -> None: ...

class Reader:
    def __init__(self, mapping: Mapping, numbers: Numbers, /) -> None: ...
    @property
    def superseded(self) -> bool: ...
    def bell(self, index: int, /) -> int: ...
    def wait(self, index: int, seen: int, timeout_s: float) -> int: ...
    def _find(self, symbol: str, interval: str, /) -> tuple[int, int] | None: ...
    def _release(self) -> None: ...

class Window:
    @property
    def open_time(self) -> _Ints: ...
    @property
    def open(self) -> _Floats: ...
    @property
    def high(self) -> _Floats: ...
    @property
    def low(self) -> _Floats: ...
    @property
    def close(self) -> _Floats: ...
    @property
    def volume(self) -> _Floats: ...
    @property
    def trades(self) -> _Ints: ...
    @property
    def begin(self) -> int: ...
    @property
    def end(self) -> int: ...
    @property
    def session(self) -> int: ...
    @property
    def revision(self) -> int: ...
    def __len__(self) -> int: ...

class Series:
    def __init__(self, mapping: Mapping, numbers: Numbers, index: int, epoch: int, /) -> None: ...
    @property
    def alive(self) -> bool: ...
    @property
    def session(self) -> int: ...
    @property
    def count(self) -> int: ...
    @property
    def revision(self) -> int: ...
    @property
    def live_from_ms(self) -> int: ...
    @property
    def traded_from_ms(self) -> int: ...
    @property
    def last_open_time_ms(self) -> int: ...
    def first(self) -> int: ...
    def find_after(self, open_time_ms: int, /) -> int: ...
    def lapped(self, ordinal: int, /) -> bool: ...
    def stamps(self, ordinal: int, /) -> tuple[int, ...] | None: ...
    def window(self, end: int, length: int, /) -> Window: ...
    def prepare(self, end: int, length: int, /) -> None: ...
    def valid(self, window: Window, /) -> bool: ...
    def _attach(self, columns: tuple[_Ints, _Floats, _Floats, _Floats, _Floats, _Floats, _Ints], /) -> None: ...
    def _forming(
        self,
    ) -> tuple[int, float, float, float, float, float, int, tuple[int, ...], int] | None: ...
