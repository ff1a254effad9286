"""Overview, lists, latency, memory, and what the service says of itself."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query

from chandlery.console.api.declared import problems
from chandlery.console.api.events import ConsoleConfig, Health
from chandlery.console.api.fields import LatencyAsked, PageAsked, TradersAsked, page_of
from chandlery.console.api.models import Feed, Latency, Memory, Overview, Page, Pool, Trader
from chandlery.console.api.services import Services, services_of

router = APIRouter()
Served = Annotated[Services, Depends(services_of)]


@router.get("/overview", operation_id="getOverview", tags=["state"], responses=problems())
async def overview(services: Served) -> Overview:
    """The first look: feeds, Traders, signals a minute, latency over the last minute, memory, and what needs attention."""
    return services.overview()


@router.get("/traders", operation_id="listTraders", tags=["traders"], responses=problems())
async def traders(services: Served, asked: Annotated[TradersAsked, Query()]) -> Page[Trader]:
    """Traders by name."""
    return page_of([one for one in services.snapshot().traders if _chosen(one, asked)], _trader_name, asked)


@router.get("/pools", operation_id="listPools", tags=["state"], responses=problems())
async def pools(services: Served, asked: Annotated[PageAsked, Query()]) -> Page[Pool]:
    """TraderPools by name."""
    return page_of(services.snapshot().pools, lambda one: one.pool, asked)


@router.get("/feeds", operation_id="listFeeds", tags=["state"], responses=problems())
async def feeds(services: Served, asked: Annotated[PageAsked, Query()]) -> Page[Feed]:
    """MarketFeeds by name."""
    return page_of(services.snapshot().feeds, lambda one: one.feed, asked)


@router.get("/latency", operation_id="getLatency", tags=["signals"], responses=problems())
async def latency(services: Served, asked: Annotated[LatencyAsked, Query()]) -> Latency:
    """Latency over the signals of the last seconds: whole, by stage, and by transport."""
    return services.latency(asked.window_s, asked.trader or "")


@router.get("/memory", operation_id="getMemory", tags=["state"], responses=problems())
async def memory(services: Served) -> Memory:
    """Where the memory is: processes, segments, and their sum over ten minutes."""
    return services.snapshot().memory


@router.get("/healthz", operation_id="getHealth", tags=["service"], responses=problems())
async def health() -> Health:
    """The process answers. Needs no token."""
    return Health()


@router.get("/config", operation_id="getConfig", tags=["service"], responses=problems())
async def config(services: Served) -> ConsoleConfig:
    """What a console must know before it may ask for anything else. Needs no token."""
    return ConsoleConfig(
        version=services.version,
        mode=services.backend.mode,
        token_required=services.token_required,
        trace_url=services.settings.trace_url,
        writable=services.writable,
    )


def _trader_name(trader: Trader) -> str:
    return trader.trader


def _chosen(trader: Trader, asked: TradersAsked) -> bool:
    if asked.namespace is not None and trader.trader.partition("/")[0] != asked.namespace:
        return False
    if asked.pool is not None and trader.pool != asked.pool:
        return False
    if asked.state is not None and trader.state != asked.state:
        return False
    if not asked.q:
        return True
    text = asked.q.lower()
    return any(text in words.lower() for words in (trader.trader, trader.strategy, *trader.symbols))
