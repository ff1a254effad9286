"""Signals put together from the records of their topic: each once, with its completion and its life joined."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec

from chandlery.console.model import SignalRow, signal_row
from chandlery.core.errors import InputError
from chandlery.core.latency import account, short_host, timeline
from chandlery.core.signal_life import Lives, SignalLife
from chandlery.core.signals import Completion, Life, Signal, SignalsRecord, completed, decode_record
from chandlery.core.wire import UNDECODABLE


class Found(NamedTuple):
    """A signal.

    Attributes:
        life: as it is now; None: it isn't known.
        host: boot id of the host that stamped ``aggregated`` and ``emitted``; empty: the Trader's, or it isn't known.
        origin: of the one that stamped ``received``, with which the account begins; empty likewise.
    """

    signal: Signal
    life: SignalLife | None = None
    host: str = ""
    origin: str = ""


@dataclass
class Collected:
    """What was read.

    Attributes:
        signals: the first record of each id, with the completion's stamp where there was one.
        published: signal records, repetitions included. undecodable: records that are none of the topic's.
        hosts, origins: of the completions of ``signals``, by id: see :class:`Found`.
        confirmed: ids of signals on forming candles that a close has confirmed.
        lives: of the signals. These, ``hosts`` and ``origins`` are those of a topic, not what was merged.
    """

    signals: dict[str, Signal] = field(default_factory=dict)
    published: int = 0
    undecodable: int = 0
    hosts: dict[str, str] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    confirmed: set[str] = field(default_factory=set)
    lives: Lives = field(default_factory=Lives)
    _early: dict[str, Completion] = field(default_factory=dict)

    def add(self, value: bytes | None) -> Signal | None:
        """Take a record's value; returns the signal when it is a new one."""
        record = self.decode(value)
        return None if record is None else self.put(record)

    def decode(self, value: bytes | None) -> SignalsRecord | None:
        """The record of a value; None: it is none of the topic's, and is counted."""
        try:
            record: SignalsRecord = decode_record(value or b"")
        except UNDECODABLE:
            self.undecodable += 1
            return None
        return record

    def put(self, record: SignalsRecord) -> Signal | None:
        """Take a record; returns the signal when it is a new one."""
        if isinstance(record, Completion):
            self._complete(record)
            return None
        self.lives.add(record)
        if isinstance(record, Life):
            if record.state == "confirmed":
                self.confirmed.add(record.id)
            return None
        self.published += 1
        if record.id in self.signals:
            return None
        self.signals[record.id] = record
        if (early := self._early.pop(record.id, None)) is not None:
            self._complete(early)
        return record

    def forget(self, identity: str) -> None:
        """A signal is told, and what comes of it later is of no interest here."""
        del self.signals[identity]
        self.hosts.pop(identity, None)
        self.origins.pop(identity, None)
        self.lives.forget(identity)

    def merge(self, other: Collected) -> None:
        """Add what was read of another topic."""
        self.signals.update(other.signals)
        self.published += other.published
        self.undecodable += other.undecodable
        self.confirmed |= other.confirmed

    def _complete(self, completion: Completion) -> None:
        signal = self.signals.get(completion.id)
        if signal is None:
            self._early[completion.id] = completion
        elif not signal.stamps.acknowledged_ns:
            signal.stamps = completed(signal.stamps, completion)
            if completion.host:
                self.hosts[completion.id] = sys.intern(completion.host)
            if completion.origin:
                self.origins[completion.id] = sys.intern(completion.origin)


def row_of(signal: Signal, life: SignalLife | None = None) -> SignalRow:
    """A signal in short, with the latency that its stamps account for, and the state of its life where it is known."""
    return signal_row(signal, account(signal.stamps).frame_to_signal_us, life.state if life is not None else "")


def as_json(found: Found) -> str:
    """A signal as its record is, and with it the ``state`` and ``life`` (a list of (state, at_ms)), where they are known."""
    told: dict[str, Any] = msgspec.to_builtins(found.signal)
    if found.life is not None:
        told |= {"state": found.life.state, "life": found.life.steps, "ended_by": found.life.ended_by}
        told["expires_ms"] = found.life.expires_ms
    return msgspec.json.encode(told).decode()


def traced_as_json(found: Found) -> str:
    """As :func:`as_json`, and with it its account in the words of the API's signals (docs/openapi.json): ``stages``, whose
    durations sum to ``whole_us``, and what else the waterfall says."""
    told = account(found.signal.stamps)
    rest = told._asdict()
    del rest["stages"], rest["start_ns"]
    stages = [stage._asdict() for stage in timeline(told, found.host)]
    more = {"stages": stages, **rest, "received_host": short_host(found.origin)}
    return msgspec.json.encode({**msgspec.json.decode(as_json(found)), **more}).decode()


def by_prefix(signals: Iterable[Signal], prefix: str, listed_by: str = "`chandlery signals` lists them") -> Signal:
    """The signal whose id begins so.

    Args:
        listed_by: where a person finds the ids there are.

    Raises:
        InputError: none, or several.
    """
    found = [signal for signal in signals if signal.id.startswith(prefix.lower())]
    if len(found) == 1:
        return found[0]
    if not found:
        raise InputError(f"no signal's id begins with {prefix!r}: {listed_by}")
    ids = ", ".join(signal.id for signal in found[:5])
    raise InputError(f"{len(found)} signals' ids begin with {prefix!r}: give more of it ({ids} …)")
