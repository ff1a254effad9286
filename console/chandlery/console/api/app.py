"""The app: every endpoint behind one guard, the console's files beside them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from fastapi import FastAPI

from chandlery.console.api import routes_market, routes_state, routes_traders
from chandlery.console.api.guard import PREFIX, Guard, check_listen
from chandlery.console.api.metrics import ApiMetrics
from chandlery.console.api.openapi import openapi_of
from chandlery.console.api.pages import Pages
from chandlery.console.api.problems import answer_with_problems
from chandlery.console.api.services import Services
from chandlery.console.api.sse import Streams
from chandlery.console.api.states import States
from chandlery.console.backend import Backend
from chandlery.console.market import Market, Signals
from chandlery.console.settings import ConsoleSettings
from chandlery.workers.feed.token import Token


def create_app(
    settings: ConsoleSettings,
    backend: Backend,
    signals: Signals,
    market: Market,
    *,
    metrics: ApiMetrics | None = None,
    streams: Streams | None = None,
    away: Callable[[], Sequence[str]] = tuple,
) -> FastAPI:
    """The API and the console as an ASGI app. Starts nothing: backend and readers are the caller's.

    Args:
        metrics, streams: the figures and the streams of this process; absent: new ones (``app.state.services``).
        away: what the readers can't ask now, one sentence each.

    Raises:
        InputError: ``listen`` would be open to others without a token.
    """
    check_listen(settings)
    token = Token(file=settings.token_file)
    metrics = metrics or ApiMetrics()
    services = Services(
        settings=settings,
        backend=backend,
        signals=signals,
        market=market,
        metrics=metrics,
        streams=streams or Streams(settings.streams, metrics),
        token_required=token.required,
        readers_away=away,
    )
    app = described_app(services.version)
    app.state.services = services
    app.state.states = States(services)
    # Not a mount: one would take a wrong method of a route (405) for a file that isn't there.
    app.router.default = Pages()
    answer_with_problems(app)
    app.add_middleware(Guard, settings=settings, token=token, metrics=metrics)
    return app


def described_app(version: str = "0") -> FastAPI:
    """The routes alone, with nothing behind them: enough to describe them."""
    # No pages of documentation: they load scripts from elsewhere.
    app = FastAPI(
        title="Chandlery",
        version=version,
        summary="One market feed, many traders, every microsecond explained.",
        openapi_url=f"{PREFIX}/openapi.json",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    for routes in (routes_state, routes_traders, routes_market):
        app.include_router(routes.router, prefix=PREFIX)

    def described() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = openapi_of(app)
        return app.openapi_schema

    app.openapi = described  # type: ignore[method-assign]
    return app
