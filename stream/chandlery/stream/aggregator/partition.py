"""One partition of the input: its symbols, its position, its checkpoints. Pure."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Final, NamedTuple

import msgspec

from chandlery.core.errors import InvariantError
from chandlery.core.topics import Topics
from chandlery.core.wire import UNDECODABLE, DeadLetter, InputRecord, Opening, decode_input, encode
from chandlery.stream.aggregation import AggregationPlan, Emission, SymbolState

#: Symbol under which trades are counted whose record doesn't tell one.
UNKNOWN_SYMBOL: Final = ""
COMPONENT: Final = "aggregator"
#: A dead letter quotes at most this much of its record, so that it fits the topic's max.message.bytes.
MAX_QUOTED_BYTES: Final = 524_288


class Outgoing(NamedTuple):
    """A record to append. ``key_partition``: same partition as the input, or that of the key."""

    topic: str
    key: bytes
    value: bytes
    is_candles: bool


class Manifest(msgspec.Struct):
    """Last word of a checkpoint: what the states saved under the symbols' keys amount to.

    Attributes:
        next_offset: first input offset not in them.
        symbols: each symbol's ``applied_offset``: a saved state must be at least there.
    """

    partition: int
    next_offset: int
    symbols: dict[str, int]


class Snapshot(NamedTuple):
    """Bytes of a checkpoint: states by symbol key, then the manifest."""

    states: list[tuple[bytes, bytes]]
    manifest_key: bytes
    manifest: bytes
    next_offset: int


_decode_manifest: Final = msgspec.json.Decoder(Manifest).decode


def manifest_key(partition: int) -> bytes:
    """Key of a partition's manifest among the saved states; no symbol begins with ``#``."""
    return f"#{partition}".encode()


def _state_key(symbol: str, partition: int) -> bytes:
    # Symbols live in one partition each; what has no symbol may occur in any.
    return symbol.encode() if symbol else f"#unknown-{partition}".encode()


class PartitionState:
    """The states of one partition's symbols, and how far they go.

    Attributes:
        partition: its number.
        next_offset: the only input offset that :meth:`take` takes next.
        healed: why the saved state was taken from further back than its manifest says, or "".
    """

    def __init__(self, partition: int, plan: AggregationPlan, topics: Topics) -> None:
        self.partition = partition
        self.next_offset = 0
        self.healed = ""
        self._plan = plan
        self._topics = topics
        self._symbols: dict[str, SymbolState] = {}
        self._dirty: set[str] = set()
        self._saved_offset = 0

    @classmethod
    def restore(
        cls, partition: int, plan: AggregationPlan, topics: Topics, saved: Mapping[bytes, bytes]
    ) -> PartitionState:
        """Take up the last checkpoint.

        A state older than the manifest says (a process that was thought dead wrote once more), or missing,
        is healed: the position goes back to where that state ends, and what is in newer states is skipped.

        Args:
            saved: the newest value of each key of the changelog; may hold other partitions' too.

        Raises:
            InvariantError: a saved state can't be read.
        """
        state = cls(partition, plan, topics)
        data = saved.get(manifest_key(partition))
        if not data:
            return state
        try:
            manifest = _decode_manifest(data)
        except msgspec.DecodeError as error:
            raise InvariantError(f"the saved position of partition {partition} can't be read: {error}") from error
        state.next_offset = manifest.next_offset
        for symbol, applied_offset in manifest.symbols.items():
            value = saved.get(_state_key(symbol, partition))
            have = -1
            if value:
                state._symbols[symbol] = SymbolState.decode(value, plan)
                have = state._symbols[symbol].applied_offset
            if have < applied_offset and have + 1 < state.next_offset:
                state.next_offset = have + 1
                state.healed = f"{symbol or 'unknown symbol'} is saved up to {have}, not {applied_offset}"
        state._saved_offset = state.next_offset
        return state

    @property
    def symbols(self) -> Mapping[str, SymbolState]:
        """States by symbol."""
        return self._symbols

    @property
    def dead_letters(self) -> int:
        """Dead letters so far; kept with the symbols, whose states may be saved further than the manifest."""
        return sum(state.dropped.records for state in self._symbols.values())

    @property
    def is_dirty(self) -> bool:
        """Whether records were applied since the last snapshot."""
        return self.next_offset != self._saved_offset

    def skip_to(self, offset: int) -> None:
        """Go on at ``offset``: the broker has nothing between."""
        self.next_offset = offset

    def take(self, offset: int, key: bytes | None, value: bytes | None) -> list[Outgoing]:
        """Apply the record at ``next_offset``.

        Returns:
            What to append, in order; nothing for a record that a symbol's state has already.

        Raises:
            InvariantError: another offset than the next.
        """
        if offset != self.next_offset:
            raise InvariantError(f"partition {self.partition}: offset {offset} taken where {self.next_offset} is next")
        self.next_offset = offset + 1
        record, reason = interpret(key, value)
        if record is None:
            return self._bury(offset, key, value, reason)
        self._enter_unknown(record.session, offset)
        state = self._symbol(record.symbol)
        if offset <= state.applied_offset:
            return []
        emission = state.apply(record)
        state.applied_offset = offset
        self._dirty.add(record.symbol)
        return self._outgoing(offset, record.symbol.encode(), value or b"", emission)

    def snapshot(self) -> Snapshot:
        """The state as it is now, as bytes to save; counts as saved from here on."""
        states = [
            (_state_key(symbol, self.partition), self._symbols[symbol].encode()) for symbol in sorted(self._dirty)
        ]
        self._dirty.clear()
        self._saved_offset = self.next_offset
        manifest = Manifest(
            self.partition,
            self.next_offset,
            {symbol: state.applied_offset for symbol, state in self._symbols.items()},
        )
        return Snapshot(states, manifest_key(self.partition), encode(manifest), self.next_offset)

    def _symbol(self, symbol: str) -> SymbolState:
        state = self._symbols.get(symbol)
        if state is None:
            state = self._symbols[symbol] = SymbolState(symbol, self._plan)
        return state

    def _enter_unknown(self, session: int, offset: int) -> None:
        """What no symbol can be told of is counted by session too: a new one counts from 0."""
        unknown = self._symbols.get(UNKNOWN_SYMBOL)
        if unknown is not None and session > unknown.session and offset > unknown.applied_offset:
            unknown.apply(Opening(UNKNOWN_SYMBOL, session))
            unknown.applied_offset = offset
            self._dirty.add(UNKNOWN_SYMBOL)

    def _outgoing(self, offset: int, key: bytes, value: bytes, emission: Emission) -> list[Outgoing]:
        topics = {
            "live": self._topics.candles_live,
            "fast": self._topics.candles_fast,
            "closed": self._topics.candles,
        }
        outgoing = [Outgoing(topics[to], key, encode(record), True) for to, record in emission.candles]
        if emission.late is not None:
            outgoing.append(Outgoing(self._topics.trades_late, key, encode(emission.late), False))
        if emission.dead:
            outgoing.append(self._dead_letter(offset, value, emission.dead))
        return outgoing

    def _bury(self, offset: int, key: bytes | None, value: bytes | None, reason: str) -> list[Outgoing]:
        """Count a record that can't be used for the symbol that its key names, if that is known here."""
        name = (key or b"").decode(errors="replace")
        newest = max((state.session for state in self._symbols.values()), default=-1)
        state = self._symbol(name if name in self._symbols else UNKNOWN_SYMBOL)
        if state.symbol == UNKNOWN_SYMBOL and state.session < newest:
            state.apply(Opening(UNKNOWN_SYMBOL, newest))
        if offset <= state.applied_offset:
            return []
        state.count_unreadable()
        state.applied_offset = offset
        self._dirty.add(state.symbol)
        return [self._dead_letter(offset, value or b"", reason)]

    def _dead_letter(self, offset: int, value: bytes, reason: str) -> Outgoing:
        quoted = base64.b64encode(value[:MAX_QUOTED_BYTES]).decode()
        letter = DeadLetter(self._topics.trades, self.partition, offset, reason, quoted, COMPONENT)
        return Outgoing(self._topics.dead_letters, self._topics.trades.encode(), encode(letter), False)


def interpret(key: bytes | None, value: bytes | None) -> tuple[InputRecord | None, str]:
    """Decode a record of the trades topic.

    Returns:
        (record, ""), or (None, why it can't be used).
    """
    if value is None:
        return None, "no value"
    try:
        record = decode_input(value)
    except UNDECODABLE as error:
        return None, f"{type(error).__name__}: {error}"
    if key is None or key != record.symbol.encode():
        named = "none" if key is None else repr(key.decode(errors="replace"))
        return None, f"the key, {named}, isn't the symbol {record.symbol!r}"
    if not record.symbol or record.symbol.startswith("#"):
        return None, f"{record.symbol!r} is no symbol"
    return record, ""
