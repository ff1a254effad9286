"""What supervisor and trader process say to each other: one JSON object a line, over a socket pair."""

from __future__ import annotations

from typing import Final, get_args

import msgspec

from chandlery.core.assignment import Mode, TraderAssignment, TraderState
from chandlery.core.transports import Transport

#: State as a number, for the ring's ``state`` counter.
STATE_CODES: Final[dict[str, int]] = {state: code for code, state in enumerate(get_args(TraderState))}


class Launch(msgspec.Struct):
    """First line to a new trader process: everything it needs to know.

    Attributes:
        segment: path of the segment, or of the windows' socket with ``transport: Pipe``.
        bell: the trader's doorbell. ring: path of its signal ring. bell_socket: where to announce signals.
        orders: counts what it has been told; each report repeats the newest.
    """

    assignment: TraderAssignment
    transport: Transport
    segment: str
    bell: int
    ring: str
    bell_socket: str
    strategies_dir: str = ""
    log_level: str = "info"
    orders: int = 0


class Live(msgspec.Struct):
    """Later lines: changes that don't need another process."""

    generation: int
    mode: Mode
    segment: str
    bell: int
    from_ms: int = 0
    until_ms: int | None = None
    orders: int = 0


class StateReport(msgspec.Struct, tag="state"):
    """The trader's state has changed, or it has new orders."""

    state: TraderState
    generation: int
    incarnation: int
    code: str
    warm_have: int
    warm_need: int
    message: str = ""
    orders: int = 0


class FailureReport(msgspec.Struct, tag="failure"):
    """The trader's process is about to end. ``stalled``: it would end so again without a change."""

    reason: str
    message: str
    stalled: bool


Report = StateReport | FailureReport

encode: Final = msgspec.json.Encoder().encode
decode_launch: Final = msgspec.json.Decoder(Launch).decode
decode_live: Final = msgspec.json.Decoder(Live).decode
decode_report: Final = msgspec.json.Decoder(Report).decode

#: Longest accepted line, bytes: an assignment with 64 KiB of source, every character of it escaped.
MAX_LINE_BYTES: Final = 1 << 19
