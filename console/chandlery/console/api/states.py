"""States that streams tell as a whole, made once for all streams."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from pydantic import BaseModel, TypeAdapter

from chandlery.console.api.events import TraderLive
from chandlery.console.api.models import Feed, Pool, Trader
from chandlery.console.api.services import LIVE_WINDOW_S, Services

#: A state is told once a second; half of that, so that a stream never waits for two periods.
_FRESH_S: Final = 0.5
#: Sparkline: 30 buckets of 10 s.
SPARK_BUCKETS: Final = 30
SPARK_BUCKET_S: Final = 10
#: Figures older than this are told again as they grow old, in steps of this, ms: younger ones change every time.
_OLD_MS: Final = 5_000
_POOLS: Final = TypeAdapter(list[Pool])
_FEEDS: Final = TypeAdapter(list[Feed])


@dataclass(frozen=True)
class Told:
    """Something as JSON; ``key`` differs where a client should be told anew."""

    json: str
    key: str


class States:
    """Makes each topic's state at most twice a second, however many streams ask."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._made: dict[str, tuple[float, Told]] = {}
        self._rows: tuple[float, dict[str, Told]] = (-1.0, {})
        self._makers: Mapping[str, Callable[[], Told]] = {
            "overview": self._overview,
            "pools": lambda: _same(_POOLS.dump_json(list(services.snapshot().pools)).decode()),
            "feeds": lambda: _same(_FEEDS.dump_json(list(services.snapshot().feeds)).decode()),
            "latency": lambda: _model(services.latency(LIVE_WINDOW_S)),
            "memory": lambda: _model(services.snapshot().memory),
        }

    def told(self, topic: str) -> Told:
        """A state; raises what its maker does."""
        now = asyncio.get_running_loop().time()
        made = self._made.get(topic)
        if made is not None and now - made[0] < _FRESH_S:
            return made[1]
        told = self._makers[topic]()
        self._made[topic] = now, told
        return told

    def rows(self) -> dict[str, Told]:
        """Traders by name."""
        now = asyncio.get_running_loop().time()
        if self._rows[0] >= 0 and now - self._rows[0] < _FRESH_S:
            return self._rows[1]
        rows = {one.trader: self._row(one) for one in self._services.snapshot().traders}
        self._rows = now, rows
        return rows

    def _overview(self) -> Told:
        made = self._services.overview()
        return Told(made.model_dump_json(), made.model_copy(update={"at_ms": 0}).model_dump_json())

    def _row(self, trader: Trader) -> Told:
        counts = self._services.signals.recent_counts(trader.trader, SPARK_BUCKETS, SPARK_BUCKET_S)
        row = TraderLive.model_validate({**trader.model_dump(), "sparkline": counts})
        old_ms = row.age_ms // _OLD_MS * _OLD_MS
        return Told(row.model_dump_json(), row.model_copy(update={"age_ms": old_ms}).model_dump_json())


def rows_event(rows: Mapping[str, Told], sent: Mapping[str, str], *, whole: bool) -> str:
    """Data of one ``traders`` event: what changed against ``sent`` (keys by name); empty: nothing did."""
    changed = [told.json for name, told in sorted(rows.items()) if whole or sent.get(name) != told.key]
    removed: Sequence[str] = [] if whole else sorted(sent.keys() - rows.keys())
    if not (changed or removed or whole):
        return ""
    names = ",".join(f'"{name}"' for name in removed)
    return f'{{"rows":[{",".join(changed)}],"removed":[{names}],"whole":{"true" if whole else "false"}}}'


def _model(made: BaseModel) -> Told:
    return _same(made.model_dump_json())


def _same(text: str) -> Told:
    return Told(text, text)
