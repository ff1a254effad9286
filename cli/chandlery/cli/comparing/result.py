"""What a comparison found: one typed object, and its JSON (docs/local.md); fields only ever come to it."""

from __future__ import annotations

from typing import Final

import msgspec

from chandlery.core.transports import Transport

#: In the order in which they are shown.
TRANSPORTS: Final[tuple[Transport, Transport]] = ("SharedMemory", "Pipe")
#: With fewer samples the 99.9th percentile would be the greatest one under another name.
LEAST_FOR_P999: Final = 1_000


class Spread(msgspec.Struct):
    """Percentiles in µs over ``count`` signals; None where there are too few (p99.9: fewer than 1,000)."""

    p50: float | None = None
    p99: float | None = None
    p999: float | None = None
    count: int = 0


class Measured(msgspec.Struct):
    """Traders on one transport, over one measurement.

    Attributes:
        visible_to_decided_us: candle written into the segment → strategy decided.
        frame_to_signal_us: exchange frame received → the broker's acknowledgement of the signal.
        trader_cpu_percent: of one core, mean of the traders. feed_cpu_percent: of the worker's feed, which serves nobody
            else meanwhile. worker_cpu_percent: of the worker whole: feed, supervisor, fork server and traders.
        trader_pss_bytes: proportional share of memory, mean of the traders. feed_pss_bytes, worker_pss_bytes: likewise.
        candles: decided in the measurement, each symbol's own. missed: of those times traders, how many were not decided
            (of closed candles; with EveryUpdate 0).
    """

    visible_to_decided_us: Spread
    frame_to_signal_us: Spread
    trader_cpu_percent: float = 0.0
    feed_cpu_percent: float = 0.0
    worker_cpu_percent: float = 0.0
    trader_pss_bytes: int = 0
    feed_pss_bytes: int = 0
    worker_pss_bytes: int = 0
    candles: int = 0
    missed: int = 0


class Ratios(msgspec.Struct):
    """What pipes take of what shared memory takes (2.0: twice as much); None where one of them is unknown or zero."""

    visible_to_decided_p50: float | None = None
    visible_to_decided_p99: float | None = None
    frame_to_signal_p50: float | None = None
    frame_to_signal_p99: float | None = None
    trader_cpu: float | None = None
    feed_cpu: float | None = None
    worker_cpu: float | None = None
    trader_pss: float | None = None
    worker_pss: float | None = None


class Size(msgspec.Struct):
    """One number of traders, by transport, each measured alone; and pipe ÷ shared memory."""

    traders: int
    by_transport: dict[Transport, Measured]
    ratios: Ratios


class SideBySide(msgspec.Struct):
    """Both at once in one worker: ``traders`` on each, the same candles.

    Attributes:
        decisions: that both sides made. different: of those, that weren't the same on both.
        visible_to_decided_us: by transport; each side waits for the other's processes too.
    """

    traders: int
    decisions: int
    different: int
    visible_to_decided_us: dict[Transport, Spread]


class Machine(msgspec.Struct):
    """Where it ran."""

    cores: int
    memory_bytes: int
    kernel: str
    python: str


class Conditions(msgspec.Struct):
    """What was asked for; ``window``: candles that a decision reads."""

    traders: list[int]
    seconds: int
    rate: float
    symbols: int
    trigger: str
    window: int


class Comparison(msgspec.Struct):
    """What ``chandlery perf compare --json`` prints.

    Attributes:
        advice: what to choose, in a sentence or two. problems: what makes the figures doubtful; then the exit code is 1.
        notes: what else a reader must know of them.
    """

    version: str
    machine: Machine
    conditions: Conditions
    sizes: list[Size]
    side_by_side: SideBySide | None
    advice: str
    problems: list[str] = []
    notes: list[str] = []


encode_comparison: Final = msgspec.json.Encoder(order="deterministic").encode
decode_comparison: Final = msgspec.json.Decoder(Comparison).decode
