"""Replays for tests: recordings as they are written, and one played on a virtual clock."""

import gzip
from pathlib import Path
from typing import Any

from tests.stream_ingest.ingest_doubles import NotedOutlet, VirtualClock
from tests.support.exchange_server import trade_frame

from chandlery.stream.ingest.counts import Counts, new_counts
from chandlery.stream.ingest.options import ReplayOptions, read_options
from chandlery.stream.ingest.replay import ReplaySource
from chandlery.stream.ingest.source import Position

START = 1_723_161_254_000
SKEW_MS = -1_270


def capture(path: Path, frames: list[tuple[int, str]]) -> str:
    """Write frames given as (exchange ms, text), received 1.27 s "earlier" as in the real captures."""
    lines = "".join(f"{(time_ms + SKEW_MS) * 1_000_000 + 17} {text}\n" for time_ms, text in frames)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(lines.encode()))
    else:
        path.write_text(lines, encoding="utf-8")
    return str(path)


def trades(symbol: str, count: int, step_ms: int = 100, start_ms: int = START, first: int = 1) -> list[tuple[int, str]]:
    return [
        (
            start_ms + index * step_ms,
            trade_frame(symbol, first + index, f"{100 + index}.25", "0.5", start_ms + index * step_ms),
        )
        for index in range(count)
    ]


class Replay:
    """One replay on a virtual clock into a noting outlet."""

    def __init__(self, files: list[Any], symbols: tuple[str, ...] = ("BTC/USDT", "ETH/USDT"), **options: Any) -> None:
        self.clock = VirtualClock()
        self.outlet = NotedOutlet(self.clock)
        self.counts: Counts = new_counts(dict.fromkeys(symbols, -1))
        parsed = read_options("replay", {"files": files, "speed": "max"} | options, ReplayOptions)
        self.source = ReplaySource(parsed, symbols, 250, self.counts, self.clock)

    async def run(self, **counts: int) -> "Replay":
        resume = {symbol.replace("_", "/"): Position(count=count) for symbol, count in counts.items()}
        await self.source.run(self.outlet, resume)
        return self
