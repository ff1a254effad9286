"""What feed and supervisor say to each other over ``control.sock``: one JSON object a line, each way."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from chandlery.core.assignment import MOST_INCARNATIONS, Assignment, TraderStatus

#: Longest line either way: 256 traders a worker and 64 successors, each with 64 KiB of source, every character of it
#: escaped (512 KiB).
MAX_LINE_BYTES: Final = MOST_INCARNATIONS * 512 * 1024


class AssignmentMessage(msgspec.Struct, tag_field="type", tag="assignment"):
    """feed → supervisor: what to run, each incarnation's doorbell (by key), and the path of the segment."""

    assignment: Assignment
    bells: dict[str, int]
    segment: str


class ReplaceRing(msgspec.Struct, tag_field="type", tag="replace-ring"):
    """feed → supervisor: this incarnation's ring can't be trusted any more; restart it with a fresh one."""

    key: str


class StatusMessage(msgspec.Struct, tag_field="type", tag="status"):
    """supervisor → feed: its traders, and the assignment that all of them have acknowledged.

    Attributes:
        traders, successors: as in WorkerStatus.
        pss_bytes: share in memory of supervisor and fork server, by these names; read at most every 30 s.
    """

    sequence: int
    hash: str
    traders: dict[str, TraderStatus]
    catalogue: list[dict[str, Any]] = []
    successors: dict[str, TraderStatus] = {}
    pss_bytes: dict[str, int] = {}


FromFeed = AssignmentMessage | ReplaceRing

_encode: Final = msgspec.json.Encoder().encode
decode_from_feed: Final = msgspec.json.Decoder(FromFeed).decode
decode_status: Final = msgspec.json.Decoder(StatusMessage).decode


def line_of(message: FromFeed | StatusMessage) -> bytes:
    """A message as its line."""
    return _encode(message) + b"\n"
