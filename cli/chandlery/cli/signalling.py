"""``chandlery signals`` and ``chandlery trace``."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Iterable
from typing import Annotated, Any, Final, NamedTuple

import msgspec
import typer

from chandlery.cli.collecting import by_prefix, row_of
from chandlery.cli.endings import ends_well
from chandlery.cli.instance import current_view
from chandlery.cli.options import DEFAULT_STATE, Json, State
from chandlery.cli.runtime.procfs import is_alive
from chandlery.cli.screen import output, remarks
from chandlery.cli.signal_topic import SignalTopic
from chandlery.console.lines import signal_line
from chandlery.console.model import FeedRow, View
from chandlery.console.tables import signals_table
from chandlery.console.waterfall import signal_waterfall
from chandlery.core.errors import ChandleryError, UnavailableError
from chandlery.core.signal_life import SignalLife
from chandlery.core.signals import Signal

_LOOK_S: Final = 0.5


class Found(NamedTuple):
    """A signal, and its life as it is now; None: it isn't known."""

    signal: Signal
    life: SignalLife | None = None


def register(app: typer.Typer) -> None:
    """Add this module's verbs."""
    app.command("signals")(ends_well(signals))
    app.command("trace")(ends_well(trace))


def signals(
    follow: Annotated[bool, typer.Option("-F", "--follow", help="Go on with new ones as they come.")] = False,
    trader: Annotated[str, typer.Option("--trader", help="Only of this Trader (name or namespace/name).")] = "",
    last: Annotated[int, typer.Option("-n", "--last", min=0, help="How many of the newest to begin with.")] = 20,
    json: Json = False,
    state: State = DEFAULT_STATE,
) -> None:
    """Signals from the signals topic, oldest first."""
    asyncio.run(_signals(current_view(state), follow=follow, trader=trader, last=last, json=json))


def trace(
    signal: Annotated[str, typer.Argument(help="The signal's id, or enough of its beginning.")],
    json: Json = False,
    state: State = DEFAULT_STATE,
) -> None:
    """One signal's life, and its stages as a waterfall: where its time went, and by whose clock."""
    found = {one.signal.id: one for one in asyncio.run(_all(current_view(state).feeds))}
    one = found[by_prefix((each.signal for each in found.values()), signal).id]
    if json:
        print(as_json(one))
    else:
        output().print(signal_waterfall(*one))


def as_json(found: Found) -> str:
    """A signal as its record is, and with it the ``state`` and ``life`` (a list of (state, at_ms)), where they are known."""
    told: dict[str, Any] = msgspec.to_builtins(found.signal)
    if found.life is not None:
        told |= {"state": found.life.state, "life": found.life.steps, "ended_by": found.life.ended_by}
        told["expires_ms"] = found.life.expires_ms
    return msgspec.json.encode(told).decode()


def is_of(signal: Signal, trader: str) -> bool:
    """Whether a signal is a Trader's, named in full or without its namespace; an empty name takes all."""
    return not trader or trader in (signal.trader, signal.trader.rpartition("/")[2])


def with_signals(feeds: Iterable[FeedRow]) -> list[FeedRow]:
    """Feeds that have a signals topic: one that never started has none."""
    return [feed for feed in feeds if feed.signals_topic]


async def _all(feeds: Iterable[FeedRow]) -> list[Found]:
    found: list[Found] = []
    for feed in with_signals(feeds):
        async with SignalTopic(feed.kafka(), feed.signals_topic) as topic:
            collected = await topic.collect()
        now_ms = time.time_ns() // 1_000_000
        found.extend(Found(one, collected.lives.of(one.id, now_ms)) for one in collected.signals.values())
    return sorted(found, key=lambda one: one.signal.emitted_wall_ms)


async def _signals(view: View, *, follow: bool, trader: str, last: int, json: bool) -> None:
    feeds = with_signals(view.feeds)
    ends = [await _ends(feed) for feed in feeds] if follow else []
    past = [one for one in await _all(feeds) if is_of(one.signal, trader)] if last else []
    _print_past(past[-last:] if last else [], json=json, alone=not follow)
    if not follow:
        return
    shown = {one.signal.id for one in past}
    async for signal in _merged(list(zip(feeds, ends, strict=True)), view.pid):
        if is_of(signal, trader) and signal.id not in shown:
            _print_new(Found(signal), json=json)


async def _ends(feed: FeedRow) -> dict[int, int]:
    async with SignalTopic(feed.kafka(), feed.signals_topic) as topic:
        return await topic.ends()


async def _merged(feeds: list[tuple[FeedRow, dict[int, int]]], instance: int) -> AsyncIterator[Signal]:
    """Signals of all feeds as they come, as long as the instance runs; what goes wrong is raised."""
    queue: asyncio.Queue[Signal | BaseException] = asyncio.Queue()
    pumps = [asyncio.create_task(_pump(feed, since, queue)) for feed, since in feeds]
    pumps.append(asyncio.create_task(_notice_end(instance, queue)))
    try:
        while True:
            came = await queue.get()
            if isinstance(came, BaseException):
                raise came
            yield came
    finally:
        for pump in pumps:
            pump.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)


async def _notice_end(instance: int, queue: asyncio.Queue[Signal | BaseException]) -> None:
    # Kafka's client would wait for its broker for ever.
    while True:
        await asyncio.sleep(_LOOK_S)
        if not is_alive(instance):
            queue.put_nowait(UnavailableError(f"the instance (pid {instance}) has ended"))
            return


async def _pump(feed: FeedRow, since: dict[int, int], queue: asyncio.Queue[Signal | BaseException]) -> None:
    try:
        async with SignalTopic(feed.kafka(), feed.signals_topic) as topic:
            async for signal in topic.follow(since):
                queue.put_nowait(signal)
    except ChandleryError as error:
        queue.put_nowait(error)


def _print_past(past: list[Found], *, json: bool, alone: bool) -> None:
    if json:
        for one in past:
            _print_new(one, json=True)
    elif past:
        output().print(signals_table(row_of(*one) for one in past))
    elif alone:
        remarks().print("no signals yet")
    sys.stdout.flush()


def _print_new(one: Found, *, json: bool) -> None:
    if json:
        print(as_json(one), flush=True)
    else:
        output().print(signal_line(row_of(*one)))
        sys.stdout.flush()
