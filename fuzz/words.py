"""What a trader's process says in JSON: signals in its ring, reports to its supervisor; made, spoiled, taken in."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any, Final

import msgspec

from chandlery.core.signals import Decided, Signal, SignalStamps, decode_record, encode
from chandlery.core.wire import UNDECODABLE
from chandlery.workers.feed.admission import RecentIds, admit
from chandlery.workers.feed.assignments import Fence
from chandlery.workers.feed.forming_signals import FormingSignals, MissedCloses
from chandlery.workers.trader.messages import FailureReport, StateReport, decode_report
from fuzz.inputs import Input

_TRADER: Final = "ns/liar"
_FENCE: Final = Fence(1, "active", frozenset({"BTC/USDT"}), "1m")
_MOST: Final = (1 << 63) - 1
#: In place of any value: other types, numbers at their bounds and beyond, what some readers take for the end.
_VALUES: Final = (
    b"null", b"true", b"-1", b"1e400", b"1.5", b"9223372036854775808", b"-9223372036854775809", b"1" * 400, b'""',
    b'"\\ud800"', b'"\\u0000"', b'"\\u001b[2J"', b"[]", b"{}", b"[" * 1_500, b'{"a":' * 400, b'"\xff"', b'"' + b"x" * 900 + b'"',
)  # fmt: skip


def real_words(draw: random.Random) -> bytes:
    """A signal or a report as a trader writes it."""
    if draw.random() < 0.3:
        report = draw.choice((
            FailureReport("Crashed", "why", True),
            StateReport("Init", 1, 1, "c", 0, 20, "waits for series BTC/USDT 1m", 1),
        ))  # fmt: skip
        return msgspec.json.encode(report)
    if draw.random() < 0.2:
        return encode(Decided(_TRADER, "c", "BTC/USDT", "1m", draw.randrange(1 << 41), 0, 1, 1))
    return encode(
        Signal(
            id=f"{draw.getrandbits(128):032x}", trader=_TRADER, strategy="s", code="c", rule="r", ordinal=0, action="buy",
            symbol="BTC/USDT", interval="1m", open_time_ms=draw.randrange(1 << 41), session=0, price="100.5",
            strength=0.5, reason="because", incarnation=1, stamps=SignalStamps(received_ns=1, emitted_ns=2),
        )
    )  # fmt: skip


def spoil_words(draw: random.Random, given: Input) -> Input:
    """Another one near it: a value replaced as a rule, else bytes."""
    data = given.content
    colons = [at for at, byte in enumerate(data) if byte == ord(":")]
    if colons and draw.random() < 0.75:
        begin = draw.choice(colons) + 1
        ends = [at for at in (data.find(b",", begin), data.find(b"}", begin)) if at >= 0] or [len(data)]
        return Input(data[:begin] + draw.choice(_VALUES) + data[min(ends) :])
    at = draw.randrange(len(data) + 1)
    return Input(data[:at] + draw.randbytes(draw.randrange(4)) + data[at + draw.randrange(4) :])


def words(given: Input, path: Path) -> None:
    """Take it in as the feed and the supervisor do: what passes can be written again, by others too."""
    path.write_bytes(given.content)  # the input stands there when this process dies
    found = admit(given.content, _TRADER, _FENCE, RecentIds(), FormingSignals(), MissedCloses())
    if bool(found.reason) is not bool(found.message) or (found.records and found.reason):
        raise ValueError(f"neither taken nor refused with a reason: {found}")
    for record in found.records:
        if decode_record(encode(record)) != record:
            raise ValueError("a record that changes by being written again")
        _check_numbers(msgspec.to_builtins(record))
    try:
        decode_report(given.content)
    except (ValueError, *UNDECODABLE):
        return


def _check_numbers(value: Any) -> None:
    for one in value.values():
        if isinstance(one, dict):
            _check_numbers(one)
        elif isinstance(one, int) and abs(one) > _MOST:
            raise ValueError(f"{one} was let pass")
