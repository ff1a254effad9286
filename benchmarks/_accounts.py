"""Accounts of signals, from the feeds of a running ``chandlery up``: of a part of the run, and of two ways in turns."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from benchmarks.harness import Row, percentile
from chandlery.cli.endpoint import Endpoint
from chandlery.core.clocks import now_ns
from chandlery.core.settings import FeedSettings, read_settings

#: From the candle visible in the segment to the signal in its ring: the trader's part of the way.
WAKE_TO_SIGNAL: Final = ("woken", "decided", "signalled")
#: After a spell, until its last signals are acknowledged: a p99 on two busy cores is a tenth of it.
_ACKNOWLEDGED_S: Final = 0.5


class AccountOf(msgspec.Struct):
    """What is used of a signal's account: stages as (name, µs, uncertainty, clock), and sums of them, µs."""

    stages: list[tuple[str, float, float, str]]
    frame_to_signal_us: float | None
    visible_to_decided_us: float | None


class _StampsOf(msgspec.Struct):
    received_ns: int = 0


class _SignalOf(msgspec.Struct):
    stamps: _StampsOf


class Signalled(msgspec.Struct):
    """What is used of an entry of the feed's ``/v1/signals``."""

    signal: _SignalOf
    account: AccountOf


class Spell(NamedTuple):
    """A part of a run, monotonic ns."""

    begun_ns: int
    ended_ns: int


class Sides(NamedTuple):
    """Accounts of the signals without something and with it, of spells in turns."""

    without: list[AccountOf]
    beside: list[AccountOf]


def feeds_of(state: Path) -> list[FeedSettings]:
    """Settings of the feed of each worker of the run."""
    return [read_settings(str(path), FeedSettings) for path in sorted(state.glob("settings/feed-*.json"))]


async def newest_signals(feed: FeedSettings) -> list[Signalled]:
    """The newest 1,000 signals of a feed that the broker has acknowledged."""
    async with Endpoint(Path(feed.listen.removeprefix("unix:")), timeout_s=10.0) as endpoint:
        body = await endpoint.get("/v1/signals?limit=1000")
    return msgspec.json.decode(body, type=list[Signalled])


def accounts_within(signals: Iterable[Signalled], spell: Spell) -> list[AccountOf]:
    """Those of signals whose frame came in that time."""
    return [each.account for each in signals if spell.begun_ns <= each.signal.stamps.received_ns <= spell.ended_ns]


async def accounts_since(feed: FeedSettings, begun_ns: int) -> list[AccountOf]:
    """Those of the spell that began then and ends now; what is under way is waited for."""
    spell = Spell(begun_ns, now_ns())
    await asyncio.sleep(_ACKNOWLEDGED_S)
    return accounts_within(await newest_signals(feed), spell)


def in_turns(pairs: int) -> Iterator[bool]:
    """Without, with, with, without, …: a machine that gets slower or quicker meets both sides."""
    for number in range(pairs):
        yield from (True, False) if number % 2 else (False, True)


def frame_to_signal_us(account: AccountOf) -> float | None:
    """The whole way, µs; None where a stamp is missing."""
    return account.frame_to_signal_us


def wake_to_signal_us(account: AccountOf) -> float | None:
    """Visible in the segment until the signal is in its ring, µs; None where a stamp is missing."""
    parts = [part_us for name, part_us, _, _ in account.stages if name in WAKE_TO_SIGNAL]
    return sum(parts) if len(parts) == len(WAKE_TO_SIGNAL) else None


def acknowledged_us(account: AccountOf) -> float | None:
    """In its ring until the broker has acknowledged it, the feed's part of the way, µs; None where a stamp is missing."""
    return next((part_us for name, part_us, _, _ in account.stages if name == "acknowledged"), None)


def share_of(samples: Sequence[float], share: float) -> float:
    """A percentile; NaN where there was nothing to measure."""
    return percentile(samples, share) if samples else float("nan")


def rows_of_sides(name: str, sides: Sides, beside_what: str) -> list[Row]:
    """How long signals take beside something, with the same without it as peer, and the ratio of both."""
    rows: list[Row] = []
    figures = {
        "wake_to_signal": wake_to_signal_us,
        "acknowledged": acknowledged_us,
        "frame_to_signal": frame_to_signal_us,
    }
    for figure, of in figures.items():
        without, beside = (_known(accounts, of) for accounts in sides)
        note = f"{len(beside)} signals beside {beside_what}; peer: {len(without)} without, in turns of one run"
        for label, share in (("p50", 0.5), ("p99", 0.99)):
            with_us, without_us = share_of(beside, share), share_of(without, share)
            rows.append(Row(f"{name}/{figure}/{label}", with_us, "µs", peer=without_us, note=note))
            rows.append(Row(f"{name}/{figure}/{label}_ratio", with_us / without_us, "of without", note=note))
    return rows


def _known(accounts: Iterable[AccountOf], figure: Callable[[AccountOf], float | None]) -> list[float]:
    return [value for account in accounts if (value := figure(account)) is not None]
