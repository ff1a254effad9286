"""From a strategy's decisions to signals in the ring: ids, stamps, size, order, and what happens when it is full."""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Callable, Collection, Container
from typing import Final, Protocol

import msgspec
import numpy as np

from chandlery.core.assignment import TraderAssignment
from chandlery.core.errors import InvariantError, StrategyError
from chandlery.core.signals import (
    MAX_REASON_CHARS,
    MAX_SIGNAL_BYTES,
    Decided,
    Signal,
    SignalStamps,
    encode,
    signal_id,
)
from chandlery.workers.strategy import MAX_RULE_CHARS, Decision


class Ring(Protocol):
    """The trader's side of the segment's SignalRing."""

    @property
    def depth(self) -> int: ...
    def push(self, payload: bytes) -> bool: ...
    def set_position(self, series: str, session: int, open_time_ms: int) -> None: ...
    def position(self, series: str) -> tuple[int, int] | None: ...
    def keep_positions(self, series: Collection[str]) -> None: ...
    def set(self, name: str, value: int) -> None: ...
    def setter(self, name: str) -> Callable[[int], None]: ...
    def adder(self, name: str) -> Callable[[int], object]: ...
    def get(self, name: str) -> int: ...
    def add(self, name: str, amount: int = 1) -> None: ...


class Clock(Protocol):
    """Monotonic nanoseconds, and the wall clock's offset from them."""

    def now_ns(self) -> int: ...
    def wall_offset_ns(self) -> int: ...


class Occasion(msgspec.Struct):
    """The call that decisions were made in.

    Attributes:
        price: close of the candle decided on.
        stamps: the candle's stage stamps (segment.STAMPS); woken_ns, decided_ns, strategy_ns: this process's.
    """

    symbol: str
    interval: str
    open_time_ms: int
    session: int
    revision: int
    forming: bool
    price: float
    stamps: tuple[int, ...]
    woken_ns: int
    decided_ns: int
    strategy_ns: int


def decimal_text(value: float) -> str:
    """Shortest decimal text of a price that reads back as the same float, without exponent."""
    return np.format_float_positional(value, trim="-")


def build_signals(
    decisions: list[Decision], occasion: Occasion, spec: TraderAssignment, strategy: str, code: str, wall_offset_ns: int
) -> list[Signal]:
    """The signals of one call, in the order in which the strategy asked for them."""
    ordinals: dict[str, int] = {}
    made: list[Signal] = []
    for decision in decisions:
        ordinal = ordinals.get(decision.rule, 0)
        ordinals[decision.rule] = ordinal + 1
        made.append(
            Signal(
                id=signal_id(
                    trader=spec.trader,
                    uid=spec.uid,
                    code=code,
                    symbol=occasion.symbol,
                    interval=occasion.interval,
                    open_time_ms=occasion.open_time_ms,
                    rule=decision.rule,
                    ordinal=ordinal,
                ),
                trader=spec.trader,
                strategy=strategy,
                code=code,
                rule=decision.rule,
                ordinal=ordinal,
                action=decision.action,
                symbol=occasion.symbol,
                interval=occasion.interval,
                open_time_ms=occasion.open_time_ms,
                session=occasion.session,
                price=decimal_text(occasion.price),
                strength=decision.strength,
                reason=_one_line(decision.reason),
                forming=occasion.forming,
                incarnation=spec.incarnation,
                revision=occasion.revision,
                strategy_ns=occasion.strategy_ns,
                ttl_ms=spec.signal_ttl_ms,
                stamps=_stamps(occasion, wall_offset_ns),
            )
        )
    return made


def decided_on(occasion: Occasion, spec: TraderAssignment, code: str) -> Decided:
    """What stands in the ring behind all signals of a closed candle."""
    return Decided(
        trader=spec.trader,
        code=code,
        symbol=occasion.symbol,
        interval=occasion.interval,
        open_time_ms=occasion.open_time_ms,
        session=occasion.session,
        incarnation=spec.incarnation,
    )


def _stamps(occasion: Occasion, wall_offset_ns: int) -> SignalStamps:
    exchange, received, appended, aggregated, emitted, fed, published, skew = occasion.stamps
    return SignalStamps(
        exchange_ns=exchange,
        received_ns=received,
        appended_ns=appended,
        aggregated_ns=aggregated,
        emitted_ns=emitted,
        fed_ns=fed,
        published_ns=published,
        # Several candles may be decided after one wake-up; one published since then is its own wake-up.
        woken_ns=max(occasion.woken_ns, published),
        decided_ns=occasion.decided_ns,
        recorded_skew_ns=skew,
        wall_offset_ns=wall_offset_ns,
    )


def _one_line(reason: str) -> str:
    printable = "".join(character if character.isprintable() else " " for character in reason)
    return printable[:MAX_REASON_CHARS]


def encode_signal(signal: Signal) -> bytes:
    """Encode within a ring's slot; the reason gives way where the whole would be too long.

    Raises:
        InvariantError: even without a reason it doesn't fit.
    """
    payload = encode(signal)
    while len(payload) > MAX_SIGNAL_BYTES:
        if not signal.reason:
            raise InvariantError(f"signal {signal.id} of {signal.trader} takes {len(payload)} bytes without a reason")
        # A character takes at most 4 bytes in UTF-8, so cutting a quarter of the excess can't cut too much.
        excess = len(payload) - MAX_SIGNAL_BYTES
        signal.reason = signal.reason[: -max(1, excess // 4)]
        payload = encode(signal)
    return payload


def check_room(spec: TraderAssignment, strategy: str) -> None:
    """Make sure before the first signal that every signal of a Trader will fit its slot.

    Raises:
        StrategyError: ``BadParameter``: its names are too long.
    """
    # No clock shows more: 2030 as wall clock, ten years of uptime.
    wall_ns, monotonic_ns = 1_900_000_000_000_000_000, 300_000_000_000_000_000
    largest = Signal(
        id="f" * 32,
        trader=spec.trader,
        strategy=strategy,
        code="f" * 16,
        rule="r" * MAX_RULE_CHARS,
        ordinal=9,
        action="custom",
        symbol=max(spec.symbols, key=len, default=""),
        interval=spec.interval,
        open_time_ms=wall_ns // 1_000_000,
        session=wall_ns // 1_000_000,
        price="0.00000000123456789",
        strength=0.123456,
        reason="",
        forming=True,
        incarnation=9_999,
        revision=9_999_999,
        emitted_wall_ms=wall_ns // 1_000_000,
        strategy_ns=9_999_999_999,
        ttl_ms=max(spec.signal_ttl_ms, 0),
        stamps=SignalStamps(*[wall_ns, monotonic_ns, wall_ns], *[monotonic_ns] * 7, *[0, -monotonic_ns, wall_ns]),
    )
    excess = len(encode(largest)) - MAX_SIGNAL_BYTES
    if excess > 0:
        raise StrategyError(
            f"the names of trader {spec.trader!r}, strategy {strategy!r} and its symbols are {excess} characters "
            "too long together for a signal's slot: shorten them",
            reason="BadParameter",
        )


class SignalWriter:
    """Signals on their way into the ring, in order; what finds no room waits here.

    Attributes:
        blocked: whether signals, or what is told of their life, wait for room in the ring.
    """

    def __init__(self, ring: Ring, bell_socket: str, clock: Clock) -> None:
        self._ring = ring
        self._clock = clock
        self._bell_socket: Final = bell_socket
        self._bell: socket.socket | None = None
        #: Each with what it counts as: one signal, or none.
        self._waiting: deque[tuple[Signal | Decided, int]] = deque()
        self.blocked = False

    def offer(self, signals: list[Signal], *, known: Container[str] = (), then: Decided | None = None) -> bool:
        """Take signals in and push as many as there is room for; True when none is left waiting.

        Args:
            known: ids of signals that only repeat what was told of the forming candle: they are no new ones.
            then: what stands behind them in the ring.
        """
        for signal in signals:
            self._waiting.append((signal, signal.id not in known))
        if then is not None:
            self._waiting.append((then, 0))
        return self.flush()

    def flush(self) -> bool:
        """Push what waits; True when nothing is left."""
        pushed = signals = 0
        while self._waiting:
            item, counts = self._waiting[0]
            if not self._ring.push(self._encoded(item)):
                break
            self._waiting.popleft()
            pushed += 1
            signals += counts
        if signals:
            self._ring.add("signals", signals)
        if pushed:
            self._announce()
        self.blocked = bool(self._waiting)
        return not self.blocked

    def _encoded(self, item: Signal | Decided) -> bytes:
        now_ns = self._clock.now_ns()
        if isinstance(item, Decided):
            item.at_wall_ms = (now_ns + self._clock.wall_offset_ns()) // 1_000_000
            return encode(item)
        item.stamps.signalled_ns = now_ns
        item.emitted_wall_ms = (now_ns + item.stamps.wall_offset_ns) // 1_000_000
        return encode_signal(item)

    def _announce(self) -> None:
        # The feed looks at the rings now and then as well: an announcement may be lost.
        try:
            if self._bell is None:
                self._bell = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
                self._bell.setblocking(False)
                self._bell.connect(self._bell_socket)
            self._bell.send(b"\1")
        except BlockingIOError:
            return  # its queue is full (the kernel's default is 10): the feed has more than one reason to look
        except OSError:
            if self._bell is not None:
                self._bell.close()
                self._bell = None
