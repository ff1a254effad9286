"""``chandlery signals`` and ``chandlery trace``."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Iterable
from typing import Annotated, Final

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
from chandlery.core.signals import Signal, encode

_LOOK_S: Final = 0.5


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
    """One signal's stages as a waterfall: where its time went, and by whose clock."""
    found = asyncio.run(_all(current_view(state).feeds))
    one = by_prefix(found, signal)
    if json:
        print(encode(one).decode())
    else:
        output().print(signal_waterfall(one))


def is_of(signal: Signal, trader: str) -> bool:
    """Whether a signal is a Trader's, named in full or without its namespace; an empty name takes all."""
    return not trader or trader in (signal.trader, signal.trader.rpartition("/")[2])


def with_signals(feeds: Iterable[FeedRow]) -> list[FeedRow]:
    """Feeds that have a signals topic: one that never started has none."""
    return [feed for feed in feeds if feed.signals_topic]


async def _all(feeds: Iterable[FeedRow]) -> list[Signal]:
    found: list[Signal] = []
    for feed in with_signals(feeds):
        async with SignalTopic(feed.kafka(), feed.signals_topic) as topic:
            found.extend((await topic.collect()).signals.values())
    return sorted(found, key=lambda signal: signal.emitted_wall_ms)


async def _signals(view: View, *, follow: bool, trader: str, last: int, json: bool) -> None:
    feeds = with_signals(view.feeds)
    ends = [await _ends(feed) for feed in feeds] if follow else []
    past = [signal for signal in await _all(feeds) if is_of(signal, trader)] if last else []
    _print_past(past[-last:] if last else [], json=json, alone=not follow)
    if not follow:
        return
    shown = {signal.id for signal in past}
    async for signal in _merged(list(zip(feeds, ends, strict=True)), view.pid):
        if is_of(signal, trader) and signal.id not in shown:
            _print_new(signal, json=json)


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


def _print_past(signals: list[Signal], *, json: bool, alone: bool) -> None:
    if json:
        for signal in signals:
            _print_new(signal, json=True)
    elif signals:
        output().print(signals_table(row_of(signal) for signal in signals))
    elif alone:
        remarks().print("no signals yet")
    sys.stdout.flush()


def _print_new(signal: Signal, *, json: bool) -> None:
    if json:
        print(msgspec.json.encode(signal).decode(), flush=True)
    else:
        output().print(signal_line(row_of(signal)))
        sys.stdout.flush()
