"""The status of an ingest process: its JSON, and the small HTTP server that gives it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec
from aiohttp import web

from chandlery.core.errors import MachineError
from chandlery.core.kafka_login import KafkaProblem
from chandlery.core.settings import IngestSettings, parse_listen
from chandlery.core.wire import scaled_to_text
from chandlery.stream.ingest.counts import Counts
from chandlery.stream.ingest.packer import Lane
from chandlery.stream.metrics_server import Families, metrics_handler


class TradeTotals(msgspec.Struct):
    """``received = appended + waiting + the sum of dropped``, at every moment."""

    received: int
    appended: int
    waiting: int
    dropped: dict[str, int]


class SymbolStatus(msgspec.Struct):
    """One symbol. ``watermark_ms``: last one acknowledged, -1 for none; ``last_id`` -1 for none."""

    trades: int
    last_id: int
    gap_ids: int
    duplicates: int
    watermark_ms: int
    last_price: str


class Status(msgspec.Struct):
    """What ``GET /v1/status`` answers.

    Attributes:
        connected: whether the source delivers now. finished: a replay's end is appended.
        waiting_for_go: trades wait for ``POST /v1/go``.
        frames, skipped_frames, malformed: see :class:`chandlery.stream.ingest.counts.Counts`.
        records: records appended, of every kind; heartbeats: those of them without trades.
        clock_offset_ms: exchange's wall clock minus ours, None where it isn't known.
        unknown_symbols, replayed: see :class:`chandlery.stream.ingest.counts.Counts`.
        reconnects: to the source. kafka_reconnects: times that Kafka came back after having been away.
        kafka_problem: why nothing can be appended now; None: it can, or that isn't known.
        appended_us: time from a trade's receipt to its acknowledgement over the last 4,096 records: p50, p99.
    """

    source: str
    connected: bool
    finished: bool
    waiting_for_go: bool
    session: int
    frames: int
    skipped_frames: dict[str, int]
    malformed: dict[str, int]
    trades: TradeTotals
    symbols: dict[str, SymbolStatus]
    reconnects: int
    heartbeats: int
    records: int
    clock_offset_ms: float | None
    unknown_symbols: list[str]
    appended_us: dict[str, int]
    kafka_problem: KafkaProblem | None = None
    replayed: float | None = None
    kafka_reconnects: int = 0


def build_status(
    settings: IngestSettings,
    counts: Counts,
    lanes: Mapping[str, Lane],
    latencies_ns: Sequence[int],
    waiting_for_go: bool,
    kafka_problem: KafkaProblem | None = None,
    kafka_reconnects: int = 0,
) -> Status:
    """The status now."""
    dropped = dict(counts.dropped)
    waiting = counts.received - counts.appended - sum(dropped.values())
    ordered = sorted(latencies_ns)
    quantiles = {"p50": 0.5, "p99": 0.99} if ordered else {}
    return Status(
        source=settings.source,
        connected=counts.connected,
        finished=counts.finished,
        waiting_for_go=waiting_for_go,
        kafka_problem=kafka_problem,
        session=settings.session,
        frames=counts.frames,
        skipped_frames=dict(counts.skipped_frames),
        malformed=dict(counts.malformed),
        trades=TradeTotals(counts.received, counts.appended, waiting, dropped),
        symbols={
            symbol: SymbolStatus(
                trades=one.trades,
                last_id=one.ids.last_id,
                gap_ids=one.ids.gap_ids,
                duplicates=one.ids.duplicates,
                watermark_ms=lanes[symbol].position.watermark_ms,
                last_price=scaled_to_text(one.last_price, one.price_scale) if one.trades else "",
            )
            for symbol, one in counts.symbols.items()
        },
        reconnects=counts.reconnects,
        kafka_reconnects=kafka_reconnects,
        heartbeats=counts.heartbeats,
        records=counts.records,
        clock_offset_ms=None if counts.clock_offset_ms is None else round(counts.clock_offset_ms, 3),
        unknown_symbols=sorted(counts.unknown_symbols),
        replayed=None if counts.replayed is None else round(counts.replayed, 4),
        appended_us={name: ordered[int(part * (len(ordered) - 1))] // 1000 for name, part in quantiles.items()},
    )


class StatusServer:
    """Serves ``GET /v1/status``, ``GET /metrics``, ``GET /healthz`` and ``POST /v1/go``.

    Args:
        listen: ``unix:/path`` or ``host:port`` (port 0: any free one, see ``address``).
        status: gives the status now. families: gives the figures now. go: set by ``POST /v1/go``.
    """

    def __init__(self, listen: str, status: Callable[[], Status], families: Families, go: asyncio.Event) -> None:
        self._listen = listen
        self._status = status
        self._go = go
        app = web.Application()
        app.router.add_get("/v1/status", self._get_status)
        app.router.add_get("/metrics", metrics_handler(families))
        app.router.add_get("/healthz", self._get_health)
        app.router.add_post("/v1/go", self._post_go)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        self.address = listen
        self._socket: Path | None = None

    async def start(self) -> None:
        """Listen.

        Raises:
            MachineError: the address can't be had.
        """
        where = parse_listen(self._listen)
        await self._runner.setup()
        site: web.BaseSite
        if isinstance(where, str):
            site = web.UnixSite(self._runner, where)
        else:
            site = web.TCPSite(self._runner, where[0], where[1])
        try:
            await site.start()
        except OSError as error:
            await self._runner.cleanup()
            raise MachineError(
                f"can't listen on {self._listen}: {error.strerror or error}; choose another address"
            ) from error
        if isinstance(where, str):
            self._socket = Path(where)
        else:
            host, port = self._runner.addresses[0][:2]
            self.address = f"{host}:{port}"

    async def close(self) -> None:
        """Stop listening."""
        await self._runner.cleanup()
        if self._socket is not None:
            self._socket.unlink(missing_ok=True)

    async def _get_status(self, request: web.Request) -> web.Response:
        return web.Response(body=msgspec.json.encode(self._status()), content_type="application/json")

    async def _get_health(self, request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _post_go(self, request: web.Request) -> web.Response:
        self._go.set()
        return web.json_response({"go": True})
