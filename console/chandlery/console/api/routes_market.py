"""Candles, signals, and the streams of both; the console's one stream for everything."""

from __future__ import annotations

import dataclasses
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Request
from starlette.responses import Response

from chandlery.console.api.declared import problems, stream
from chandlery.console.api.fields import (
    Asked,
    CandlesAsked,
    LastEventId,
    SeriesAsked,
    SignalsAsked,
    SignalsFollowed,
)
from chandlery.console.api.live import LiveEvents
from chandlery.console.api.models import Candles, Page, Signal, SignalDetail
from chandlery.console.api.problems import ProblemError, problem
from chandlery.console.api.services import Services, services_of
from chandlery.console.api.sse import EventStream
from chandlery.console.api.states import States
from chandlery.console.api.topics import MOST_CHARS, Series, Topics, parse_topics
from chandlery.console.market import SignalQuery
from chandlery.core.errors import InputError

router = APIRouter()
Served = Annotated[Services, Depends(services_of)]


class LiveAsked(Asked):
    """What the console's stream tells."""

    topics: Annotated[str, Query(min_length=1, max_length=MOST_CHARS, examples=["overview,traders,signals"])]


def _states(request: Request) -> States:
    states = request.app.state.states
    assert isinstance(states, States)
    return states


Shared = Annotated[States, Depends(_states)]


@router.get("/candles", operation_id="listCandles", tags=["candles"], responses=problems(404, 503))
async def candles(services: Served, asked: Annotated[CandlesAsked, Query()]) -> Candles:
    """The newest candles of a series, oldest first; or the last ones before a moment."""
    services.must_know_feed(asked.feed)
    return await services.market.candles(asked.feed, asked.symbol, asked.interval, asked.limit, asked.before_ms)


@router.get(
    "/candles/stream",
    operation_id="streamCandles",
    tags=["candles"],
    response_class=Response,
    responses=stream(404, events="`candle` (CandleChange); `failed` (Failed) while they can't be told."),
)
async def candle_stream(services: Served, states: Shared, asked: Annotated[SeriesAsked, Query()]) -> Response:
    """Candles of a series as they come, change and close, from now on."""
    services.must_know_feed(asked.feed)
    topics = Topics(series=(Series(asked.feed, asked.symbol, asked.interval),))
    live = LiveEvents(services, states, topics, candle_period_s=0.0)
    return EventStream(services.streams, "candles", live.events)


@router.get("/signals", operation_id="listSignals", tags=["signals"], responses=problems())
async def signals(services: Served, asked: Annotated[SignalsAsked, Query()]) -> Page[Signal]:
    """Signals, newest first."""
    query = dataclasses.replace(
        _query(asked),
        state=asked.state or "",
        since_ms=asked.since_ms,
        until_ms=asked.until_ms,
        before=asked.cursor,
        limit=asked.limit,
    )
    try:
        found, older = services.signals.page(query)
    except InputError as error:  # the one thing that the types of its fields let pass
        raise ProblemError(problem(422, "BadField", f"cursor: {error}", field="cursor", value=asked.cursor)) from None
    return Page(items=list(found), next=older)


@router.get(
    "/signals/stream",
    operation_id="streamSignals",
    tags=["signals"],
    response_class=Response,
    responses=stream(
        events="`signal` (Signal; its `id` resumes the stream): first without stages, again with them, and again when "
        "the close of its candle says what it is; none is told again for a later one closed it, unless it was told as `expired` "
        "while older records were read once more. "
        "`gap` (Gap): so many were lost. `failed` (Failed) while they can't be told."
    ),
)
async def signal_stream(
    services: Served, states: Shared, asked: Annotated[SignalsFollowed, Query()], last_event_id: LastEventId = ""
) -> Response:
    """Signals as they come, from now on or after the event that `Last-Event-ID` names."""
    query = _query(asked)
    live = LiveEvents(services, states, Topics(signals=True), query=query, after=last_event_id)
    return EventStream(services.streams, "signals", live.events)


@router.get("/signals/{signal_id}", operation_id="getSignal", tags=["signals"], responses=problems(404))
async def signal(
    services: Served,
    signal_id: Annotated[str, Path(pattern="^[0-9a-f]{32}$", description="32 hex digits.")],
) -> SignalDetail:
    """One signal whole: its stages, its clocks, its life."""
    found = services.signals.get(signal_id)
    if found is None:
        told = f"no signal {signal_id} is kept here; the newest {services.settings.signals_kept} are"
        raise ProblemError(problem(404, "NotFound", told, field="signal_id", value=signal_id))
    if found.trace_id and not found.trace_url and services.settings.trace_url:
        url = services.settings.trace_url.replace("{trace_id}", found.trace_id)
        return found.model_copy(update={"trace_url": url})
    return found


@router.get(
    "/live",
    operation_id="streamLive",
    tags=["live"],
    response_class=Response,
    responses=stream(
        events="`overview` (Overview), `traders` (TraderRows), `pools` (list of Pool), `feeds` (list of Feed), "
        "`latency` (Latency), `memory` (Memory), `signal` (Signal, with `id`), `gap` (Gap), `candle` (CandleChange), "
        "`failed` (Failed: one topic can't be told now, the others go on)."
    ),
)
async def live(
    services: Served, states: Shared, asked: Annotated[LiveAsked, Query()], last_event_id: LastEventId = ""
) -> Response:
    """One stream for all that a console shows.

    `topics` is a comma list of `overview`, `traders`, `pools`, `feeds`, `latency`, `memory`, `signals` and
    `candles:FEED:SYMBOL:INTERVAL`. A topic is told at most once a second, and only when it changed.
    """
    told = LiveEvents(services, states, parse_topics(asked.topics), after=last_event_id)
    return EventStream(services.streams, "live", told.events)


def _query(asked: SignalsFollowed) -> SignalQuery:
    return SignalQuery(
        trader=asked.trader or "", symbol=asked.symbol or "", action=asked.action or "", feed=asked.feed or ""
    )
