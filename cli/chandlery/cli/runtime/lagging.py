"""Which parts are too slow for their market: told in words, once they have been for a while, until they have caught up."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Final, NamedTuple

from chandlery.cli.runtime import feedgroup, workergroup
from chandlery.cli.runtime.polling import OLD_S, OLD_WORKER_S
from chandlery.core.behind import Lag
from chandlery.core.durations import format_duration

if TYPE_CHECKING:
    from chandlery.cli.runtime.local import LocalRuntime

_LOOK_S: Final = 1.0
#: What it means that a part lags, and what to do.
_MEANS: Final = {
    "aggregator": "its market, and its Traders decide that late",
    "feed": "the candles, and its worker's Traders decide that late",
}
WHAT_TO_DO: Final = {
    "aggregator": "give it more of a core, or fewer trades, symbols or intervals (a second MarketFeed has an aggregator of "
    "its own)",
    "feed": "give it more of a core, or fewer symbols and intervals (a lower spec.tradersPerWorker spreads them)",
}


class Part(NamedTuple):
    """A process that reads from Kafka. role: ``aggregator`` or ``feed``."""

    name: str
    role: str


class _State(Lag):
    """One part's. most_ms: the furthest while it lagged."""

    def __init__(self) -> None:
        super().__init__()
        self.most_ms = 0

    def note(self, behind_ms: int, now_s: float) -> bool:
        news = super().note(behind_ms, now_s)
        if self.told_ms:
            self.most_ms = max(self.most_ms, behind_ms)
        return news


class Lagging:
    """What lags, by looks. Pure but for :meth:`follow`."""

    def __init__(self) -> None:
        self._states: dict[Part, _State] = {}
        self._silent: frozenset[Part] = frozenset()

    def note_silence(self, silent: Iterable[Part]) -> None:
        """Take in which parts run and say nothing any more: how far they are behind isn't known."""
        self._silent = frozenset(silent)

    def note(self, behind_ms: Mapping[Part, int], now_s: float) -> None:
        """Take in how far each part is behind, ms; parts not among them are gone. now_s: monotonic."""
        for part, state in self._states.items():
            if part not in behind_ms:
                state.forget()
        for part, behind in behind_ms.items():
            self._states.setdefault(part, _State()).note(behind, now_s)

    def lags(self, name: str) -> bool:
        """Whether a process lags."""
        return any(part.name == name and state.told_ms for part, state in self._states.items())

    def words(self, name: str) -> str:
        """That a process lags, by how much, and what to do, or that it says nothing any more; empty: neither. Changes only when
        it is twice as much."""
        if any(part.name == name for part in self._silent):
            return f"{name} runs and doesn't answer: what is shown of it is of before; see its log"
        for part, state in self._states.items():
            if part.name == name and state.told_ms:
                how_far = format_duration(state.told_ms)
                return f"{name} fell more than {how_far} behind {_MEANS[part.role]}: {WHAT_TO_DO[part.role]}"
        return ""

    @property
    def notices(self) -> list[str]:
        """A sentence for each part that lags."""
        return [words for part in sorted(self._states.keys() | self._silent) if (words := self.words(part.name))]

    def most_ms(self) -> dict[str, int]:
        """The furthest each part was behind, ms, of those that lagged at any time."""
        return {part.name: state.most_ms for part, state in sorted(self._states.items()) if state.most_ms}

    async def follow(self, runtime: LocalRuntime) -> None:
        """Look once a second, until cancelled."""
        while True:
            silent = silent_of(runtime)
            self.note_silence(silent)
            self.note({part: ms for part, ms in parts_of(runtime).items() if part not in silent}, time.monotonic())
            await asyncio.sleep(_LOOK_S)


def parts_of(runtime: LocalRuntime) -> dict[Part, int]:
    """How far each part is behind, ms. A replay as fast as possible has no pace that anything could be behind of."""
    paced = {key: group for key, group in runtime.feeds.items() if group.started and not group.is_hasty}
    behind = {
        Part(group.aggregator.name, "aggregator"): int(group.aggregator_watch.status.get("behind_ms", 0))
        for group in paced.values()
    }
    behind |= {
        Part(group.feed.name, "feed"): int(group.feed_counts().get("behind_ms", 0))
        for group in runtime.workers.values()
        if group.market in paced
    }
    return behind


def silent_of(runtime: LocalRuntime) -> set[Part]:
    """Parts whose process runs and has not answered for too long, or, begun anew, not within the time that a start may take:
    their last word is no news of now."""
    silent = {
        Part(group.aggregator.name, "aggregator")
        for group in runtime.feeds.values()
        if group.aggregator.is_silent(group.aggregator_watch.told_s, OLD_S, feedgroup.START_TIMEOUT_S)
    }
    return silent | {
        Part(group.feed.name, "feed")
        for group in runtime.workers.values()
        if group.feed.is_silent(group.watch.told_s, OLD_WORKER_S, workergroup.START_TIMEOUT_S)
    }
