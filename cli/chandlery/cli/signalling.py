"""``chandlery signals`` and ``chandlery trace``."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Iterable
from typing import Annotated, Final, NamedTuple

import typer

from chandlery.cli.collecting import Collected, Found, as_json, by_prefix, row_of, traced_as_json
from chandlery.cli.endings import ends_well
from chandlery.cli.instance import current_view
from chandlery.cli.options import DEFAULT_STATE, Json, State
from chandlery.cli.runtime.procfs import is_alive
from chandlery.cli.screen import output, remarks
from chandlery.cli.signal_topic import SignalTopic
from chandlery.cli.signal_watch import Change, News, SignalWatch, change_json
from chandlery.console.lines import life_line, signal_line
from chandlery.console.model import FeedRow, View
from chandlery.console.tables import signals_table
from chandlery.console.waterfall import signal_waterfall
from chandlery.core.errors import InputError, UnavailableError
from chandlery.core.signals import Signal
from chandlery.core.wording import did_you_mean
from chandlery.workers.feed.clients import quieten_client

_LOOK_S: Final = 0.5
#: Of Traders, where one isn't found: more fill the screen.
_MOST_NAMED: Final = 20
_Queue = asyncio.Queue[tuple[int, list[bytes | None]] | BaseException]


def register(app: typer.Typer) -> None:
    """Add this module's verbs."""
    app.command("signals")(ends_well(signals))
    app.command("trace")(ends_well(trace))


def signals(
    follow: Annotated[
        bool,
        typer.Option("-F", "--follow", help="Go on with new ones as they come, and with what becomes of those shown."),
    ] = False,
    trader: Annotated[str, typer.Option("--trader", help="Only of this Trader (name or namespace/name).")] = "",
    last: Annotated[int, typer.Option("-n", "--last", min=0, help="How many of the newest to begin with.")] = 20,
    json: Json = False,
    state: State = DEFAULT_STATE,
) -> None:
    """Signals from the signals topic, oldest first."""
    if not follow:  # else the client's own words are all that tells of a Kafka that is away meanwhile
        quieten_client()  # that Kafka is away is told once, at the end
    asyncio.run(_signals(current_view(state), follow=follow, trader=trader, last=last, json=json))


def trace(
    signal: Annotated[str, typer.Argument(help="The signal's id, or enough of its beginning.")],
    json: Json = False,
    state: State = DEFAULT_STATE,
) -> None:
    """One signal's life, and its stages as a waterfall: where its time went, and by whose clock."""
    quieten_client()
    found = {one.signal.id: one for one in asyncio.run(_all(current_view(state).feeds))}
    one = found[by_prefix((each.signal for each in found.values()), signal).id]
    if json:
        print(traced_as_json(one))
    else:
        output().print(signal_waterfall(*one))


def is_of(signal: Signal, trader: str) -> bool:
    """Whether a signal is a Trader's, named in full or without its namespace; an empty name takes all."""
    return not trader or trader in (signal.trader, signal.trader.rpartition("/")[2])


def with_signals(feeds: Iterable[FeedRow]) -> list[FeedRow]:
    """Feeds that have a signals topic: one that never started has none."""
    return [feed for feed in feeds if feed.signals_topic]


def is_known(trader: str, traders: Iterable[str]) -> bool:
    """Whether there is a Trader of that name, in full or without its namespace; an empty name is everybody's."""
    return not trader or any(trader in (name, name.rpartition("/")[2]) for name in traders)


def must_be_known(trader: str, traders: Iterable[str], signals: Iterable[Signal]) -> None:
    """A Trader that there is, or of which there are signals still.

    Args:
        traders: full names of those there are.

    Raises:
        InputError: it is neither.
    """
    known = sorted(traders)
    if is_known(trader, known) or any(is_of(signal, trader) for signal in signals):
        return
    names = {*known, *(name.rpartition("/")[2] for name in known)}
    shown = ", ".join(known[:_MOST_NAMED]) + (" …" if len(known) > _MOST_NAMED else "")
    alike = did_you_mean(trader, known if "/" in trader else names)
    raise InputError(f'no Trader "{trader}"; there are: {shown or "none"}{alike}')


def signals_of(collected: Collected) -> list[Found]:
    """The signals of a topic with their lives as they are now, in the order in which they were read."""
    now_ms = _now_ms()
    return [
        Found(
            one,
            collected.lives.of(one.id, now_ms),
            collected.hosts.get(one.id, ""),
            collected.origins.get(one.id, ""),
        )
        for one in collected.signals.values()
    ]


async def _all(feeds: Iterable[FeedRow]) -> list[Found]:
    found: list[Found] = []
    for feed in with_signals(feeds):
        async with SignalTopic(feed.kafka(), feed.signals_topic) as topic:
            found.extend(signals_of(await topic.collect()))
    return sorted(found, key=lambda one: one.signal.emitted_wall_ms)


async def _signals(view: View, *, follow: bool, trader: str, last: int, json: bool) -> None:
    # A Trader that is deleted is known by its signals alone: they are read for its name, also where none is shown.
    reads = last > 0 or not is_known(trader, (row.trader for row in view.traders))
    read = [await _begin(feed, reads=reads) for feed in with_signals(view.feeds)]
    past = sorted(
        (one for each in read for one in signals_of(each.collected)), key=lambda one: one.signal.emitted_wall_ms
    )
    must_be_known(trader, (row.trader for row in view.traders), (one.signal for one in past))
    shown = [one for one in past if is_of(one.signal, trader)][-last:] if last else []
    _print_past(shown, json=json, alone=last > 0 and not follow)
    if follow:
        await _follow(read, {one.signal.id: one for one in shown}, view.pid, trader, json=json)


class _Begun(NamedTuple):
    """A feed's signals up to now, and where those begin that come."""

    feed: FeedRow
    ends: dict[int, int]
    collected: Collected


async def _begin(feed: FeedRow, *, reads: bool) -> _Begun:
    async with SignalTopic(feed.kafka(), feed.signals_topic) as topic:
        ends = await topic.ends()
        return _Begun(feed, ends, await topic.collect() if reads else Collected())


async def _follow(read: list[_Begun], shown: dict[str, Found], instance: int, trader: str, *, json: bool) -> None:
    watches: list[SignalWatch] = []
    for each in read:
        watch = SignalWatch(lambda signal: is_of(signal, trader), each.collected)
        for identity in shown.keys() & each.collected.signals.keys():
            watch.show(shown[identity])
        watches.append(watch)
    async for number, values in _merged(read, instance):
        now_ms = _now_ms()
        for at, watch in enumerate(watches):
            for news in watch.take(values, now_ms) if at == number else watch.due(now_ms):
                _print_new(news, json=json)


async def _merged(read: list[_Begun], instance: int) -> AsyncIterator[tuple[int, list[bytes | None]]]:
    """What comes of each feed, by its number, as long as the instance runs; -1: time has passed. What goes wrong is raised."""
    queue: _Queue = asyncio.Queue()
    pumps = [asyncio.create_task(_pump(number, one, queue)) for number, one in enumerate(read)]
    pumps.append(asyncio.create_task(_notice_end(instance, queue)))
    for pump in pumps:
        pump.add_done_callback(lambda ended: _tell_failure(ended, queue))
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


def _tell_failure(ended: asyncio.Task[None], queue: _Queue) -> None:
    """Whatever ended one: without it a feed's signals would be missing, and nobody would know."""
    if not ended.cancelled() and (error := ended.exception()) is not None:
        queue.put_nowait(error)


async def _notice_end(instance: int, queue: _Queue) -> None:
    # Kafka's client would wait for its broker for ever.
    while True:
        await asyncio.sleep(_LOOK_S)
        if not is_alive(instance):
            raise UnavailableError(f"the instance (pid {instance}) has ended")
        queue.put_nowait((-1, []))


async def _pump(number: int, begun: _Begun, queue: _Queue) -> None:
    async with SignalTopic(begun.feed.kafka(), begun.feed.signals_topic) as topic:
        async for values in topic.follow(begun.ends):
            queue.put_nowait((number, values))


def _print_past(past: list[Found], *, json: bool, alone: bool) -> None:
    if json:
        for one in past:
            _print_new(one, json=True)
    elif past:
        output().print(signals_table(row_of(one.signal, one.life) for one in past))
    elif alone:
        remarks().print("no signals yet")
    sys.stdout.flush()


def _print_new(news: News, *, json: bool) -> None:
    if isinstance(news, Change):
        if json:
            print(change_json(news), flush=True)
            return
        output().print(life_line(row_of(news.signal), news.state, news.at_ms, news.ended_by))
    elif json:
        print(as_json(news), flush=True)
        return
    else:
        output().print(signal_line(row_of(news.signal, news.life)))
    sys.stdout.flush()


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
