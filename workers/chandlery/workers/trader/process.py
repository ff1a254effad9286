"""A trader process from its first line of orders to its end."""

from __future__ import annotations

import logging
import os
import signal
import socket
import time
from typing import Final

from chandlery.core import clocks
from chandlery.core.errors import StrategyError
from chandlery.core.logs import configure_logs
from chandlery.workers.discovery import error_line, find_strategy
from chandlery.workers.segment import SignalRing
from chandlery.workers.strategy import Strategy
from chandlery.workers.trader.loop import TraderLoop
from chandlery.workers.trader.market import MarketView, SegmentMarket
from chandlery.workers.trader.messages import (
    MAX_LINE_BYTES,
    STATE_CODES,
    FailureReport,
    Launch,
    Live,
    Report,
    decode_launch,
    decode_live,
    encode,
)
from chandlery.workers.trader.pipe_market import PipeMarket
from chandlery.workers.trader.printing import printing_to
from chandlery.workers.trader.signal_writer import SignalWriter, check_room

#: The wall clock's offset is measured again after this long: NTP slews by at most 0.5 ms a second.
_OFFSET_AGE_NS: Final = 10_000_000_000
#: In a burst of candles orders are listened for this often: asking in vain costs as much as half a decision.
_LISTEN_NS: Final = 50_000_000
_LISTEN_S: Final = _LISTEN_NS / 1e9
EXIT_FAILED: Final = 1
EXIT_STALLED: Final = StrategyError.exit_code


class HostClock:
    """The host's monotonic clock, and how far the wall clock is from it."""

    def __init__(self) -> None:
        self._offset_ns = clocks.wall_offset_ns()
        self._measured_ns = clocks.now_ns()

    #: As clocks.now_ns, without its frame: asked five times a decision.
    now_ns = staticmethod(time.monotonic_ns)

    def wall_offset_ns(self) -> int:
        now_ns = clocks.now_ns()
        if now_ns - self._measured_ns > _OFFSET_AGE_NS:
            self._offset_ns = clocks.wall_offset_ns()
            self._measured_ns = now_ns
        return self._offset_ns


class Channel:
    """The trader's end of its line to the supervisor."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._buffer = b""
        self._unsent = b""

    def launch(self) -> Launch:
        """Wait for the first line.

        Raises:
            EOFError: the supervisor is gone.
        """
        while b"\n" not in self._buffer:
            chunk = self._connection.recv(65_536)
            if not chunk or len(self._buffer) > MAX_LINE_BYTES:
                raise EOFError("no orders came")
            self._buffer += chunk
        line, _, self._buffer = self._buffer.partition(b"\n")
        return decode_launch(line)

    def orders(self) -> list[Live]:
        """The lines that have come since; empty when none.

        Raises:
            EOFError: the supervisor is gone.
        """
        try:
            chunk = self._connection.recv(65_536, socket.MSG_DONTWAIT)
        except BlockingIOError:
            chunk = b""  # but what came together with the first line is here already
        else:
            if not chunk:
                raise EOFError("the supervisor closed the line")
        *lines, self._buffer = (self._buffer + chunk).split(b"\n")
        return [decode_live(line) for line in lines]

    def report(self, report: Report) -> bool:
        """Tell the supervisor; never waits for it.

        Returns:
            Whether all has left. Else report again: of a line that was cut the rest goes first.
        """
        line = encode(report) + b"\n"
        data = self._unsent + line
        try:
            sent = self._connection.send(data, socket.MSG_DONTWAIT)
        except (BlockingIOError, BrokenPipeError, ConnectionResetError):
            return False
        begun = sent > len(self._unsent)
        self._unsent = data[sent:] if begun else self._unsent[sent:]
        return not self._unsent and begun


def _market(launch: Launch) -> MarketView:
    if launch.transport == "Pipe":
        return PipeMarket(launch.segment, launch.assignment.key)
    return SegmentMarket(launch.segment, launch.bell)


def _run(launch: Launch, channel: Channel, ring: SignalRing) -> None:
    spec = launch.assignment
    clock = HostClock()
    # Loading counts as a call: a strategy that hangs at import is noticed by the same watchdog.
    ring.set("busy_since_ns", clock.now_ns())
    found = find_strategy(spec.strategy, strategies_dir=launch.strategies_dir, source=spec.source)

    def make() -> Strategy:
        return found.strategy(spec.parameters)

    first = make()
    check_room(spec, first.name)
    code = found.code(first)
    market = _market(launch)
    writer = SignalWriter(ring, launch.bell_socket, clock)
    loop = TraderLoop(spec, make, code, market, ring, writer, clock, channel.report, launch.orders)
    ring.set("busy_since_ns", 0)
    listened_ns = 0
    while True:
        token = market.token()
        woken_ns = clocks.now_ns()
        timeout_s = loop.turn(woken_ns)
        if woken_ns - listened_ns >= _LISTEN_NS:
            listened_ns = woken_ns
            for orders in channel.orders():
                loop.apply(orders)
                timeout_s = 0.0
        else:
            timeout_s = min(timeout_s, _LISTEN_S)
        if timeout_s > 0:
            market.wait(token, timeout_s)


def run_trader(connection: socket.socket) -> int:
    """Be a trader until the end.

    Args:
        connection: the line to the supervisor; its first line is a Launch.

    Returns:
        The process's exit code.
    """
    # The supervisor ends its traders itself; a Ctrl-C at the terminal is for it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    channel = Channel(connection)
    ring: SignalRing | None = None
    logger = logging.getLogger("chandlery")
    try:
        launch = channel.launch()
        logger = configure_logs(f"trader {launch.assignment.key}", launch.log_level)
        ring = SignalRing.attach(launch.ring)
        ring.set("state", STATE_CODES["Init"])
        ring.set("heartbeat_ns", clocks.now_ns())
        with printing_to(logger):
            _run(launch, channel, ring)
    except EOFError:
        return 0
    except StrategyError as error:
        channel.report(FailureReport(error.reason, str(error), stalled=True))
        return EXIT_STALLED
    except Exception as error:
        if ring is not None:
            ring.add("errors")
        channel.report(FailureReport("Crashed", error_line(error), stalled=False))
        logger.exception("trader crashed", extra={"pid": os.getpid()})
        return EXIT_FAILED
    return 0
