"""What every route works with: settings, the readers, and the states that many streams share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from fastapi import Request
from pydantic import ValidationError

from chandlery.console.api.metrics import ApiMetrics
from chandlery.console.api.models import Feed, Latency, Overview, Trader, TraderDetail
from chandlery.console.api.overview import overview_of
from chandlery.console.api.problems import ProblemError, problem
from chandlery.console.api.sse import Streams
from chandlery.console.backend import Backend, RefusedError, Snapshot, TraderManifest
from chandlery.console.market import Market, Signals
from chandlery.console.settings import ConsoleSettings
from chandlery.core import resources
from chandlery.core.errors import UnavailableError

#: Of the overview's and of the live latency, s.
LIVE_WINDOW_S = 60


@dataclass
class Services:
    """One process's."""

    settings: ConsoleSettings
    backend: Backend
    signals: Signals
    market: Market
    metrics: ApiMetrics
    streams: Streams
    token_required: bool = False
    readers_away: Callable[[], Sequence[str]] = tuple
    version: str = field(default_factory=lambda: _own_version())

    @property
    def writable(self) -> bool:
        """Whether Traders may be changed through this API."""
        return self.backend.writable and not self.settings.read_only

    def snapshot(self) -> Snapshot:
        """What the backend knows, and what the readers do: how old a feed's newest candle is, and who is away."""
        known = self.backend.snapshot()
        feeds = [self._aged(feed) for feed in known.feeds]
        return replace(known, feeds=feeds, away=[*known.away, *self.readers_away()])

    def _aged(self, feed: Feed) -> Feed:
        age_ms = self.market.newest_age_ms(feed.feed)
        if age_ms is None or feed.watermark_age_ms is not None:
            return feed
        return feed.model_copy(update={"watermark_age_ms": age_ms})

    def overview(self) -> Overview:
        """The first look."""
        return overview_of(
            self.snapshot(),
            mode=self.backend.mode,
            version=self.version,
            writable=self.writable,
            signals_per_min=self.signals.per_minute(),
            latency=self.latency(LIVE_WINDOW_S),
        )

    def latency(self, window_s: int, trader: str = "") -> Latency:
        """Over the signals of the last ``window_s`` seconds."""
        return self.signals.latency(window_s, trader)

    def must_be_writable(self) -> None:
        """Raises: RefusedError: nothing may be changed here."""
        if not self.writable:
            why = (
                "its settings say read_only" if self.settings.read_only else "what it shows can't be changed through it"
            )
            raise RefusedError(f"this API changes nothing: {why}")

    def must_know_feed(self, feed: str) -> None:
        """Whether there is such a feed.

        Raises:
            ProblemError: no. UnavailableError: who would know it can't be asked now.
        """
        snapshot = self.snapshot()
        known = {one.feed for one in snapshot.feeds} | {one.feed for one in self.backend.kafkas()}
        if feed in known:
            return
        if snapshot.away:
            raise UnavailableError(f"whether there is a feed {feed} can't be known now: {snapshot.away[0]}")
        raise ProblemError(problem(404, "NotFound", f"there is no feed {feed}", field="feed", value=feed))

    def detail(self, namespace: str, name: str, written: TraderManifest) -> TraderDetail:
        """A Trader's live figures beside its manifest; one that is only written yet has a state of its own."""
        full_name = f"{namespace}/{name}"
        live = next((one for one in self.snapshot().traders if one.trader == full_name), None)
        known = live or Trader(trader=full_name, state="Pending")
        return TraderDetail.model_validate(
            {
                **known.model_dump(),
                **_written(namespace, written.manifest, new=live is None),
                "manifest": written.manifest,
                "kept_by": written.kept_by,
                "resource_version": written.resource_version,
            }
        )

    async def trader(self, namespace: str, name: str) -> TraderDetail:
        """One Trader whole. Raises: NotFoundError; UnavailableError."""
        return self.detail(namespace, name, await self.backend.manifest(namespace, name))


def services_of(request: Request) -> Services:
    """Those of the app that serves a request."""
    services = request.app.state.services
    assert isinstance(services, Services)
    return services


def _written(namespace: str, manifest: dict[str, Any], *, new: bool) -> dict[str, Any]:
    """What a manifest says already though the live figures don't yet: all of a ``new`` one, else its suspension."""
    try:
        spec = resources.Trader.model_validate(manifest).spec
    except ValidationError:
        # Somebody wrote it past us; what is wrong with it, its state says.
        return {}
    told: dict[str, Any] = {"suspended": spec.suspend}
    if new:
        told["strategy"] = spec.strategy.name
        told["symbols"] = spec.market.symbols
        told["interval"] = spec.market.interval
        told["pool"] = "/".join(spec.pool.key(namespace))
    return told


def _own_version() -> str:
    try:
        return version("chandlery")
    except PackageNotFoundError:
        return "0+source"
