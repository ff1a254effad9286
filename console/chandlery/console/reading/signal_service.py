"""What the API asks of signals (:class:`chandlery.console.market.Signals`), answered from the log."""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Final

from chandlery.console.api import models
from chandlery.console.market import SignalEvent, SignalQuery
from chandlery.console.reading.entries import Entry, Key, detail, short
from chandlery.console.reading.figures import Figures
from chandlery.console.reading.following import Follower, Missing, Turn, Unplaced, matches
from chandlery.console.reading.kafka_reading import Backoff
from chandlery.console.reading.positions import decode
from chandlery.console.reading.replaying import Replaying
from chandlery.console.reading.signal_log import SignalLog
from chandlery.console.reading.signal_reader import SignalReader
from chandlery.core.errors import InputError, UnavailableError
from chandlery.core.wording import shown

_CURSOR: Final = re.compile(r"([0-9]{1,18})\.([0-9a-f]{10})\.([0-9]{1,9})\.([0-9]{1,18})")


class KeptSignals:
    """The newest signals of all feeds.

    Args:
        trace_url: where a person sees a trace; ``{trace_id}`` is put in. Empty: nowhere.
        now_ms: wall clock, ms: what of a signal's life has ended by now. clock_s: monotonic, s: windows of figures.

    Attributes:
        followers: now. counts: ``overtaken`` (events that slow followers lost), ``replayed`` (records read again),
            ``replays_failed``.
    """

    def __init__(
        self,
        signals: SignalLog,
        reader: SignalReader,
        transport_of: Callable[[str], str],
        trace_url: str,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._log = signals
        self._reader = reader
        self._figures = Figures(signals.timeline, transport_of, clock_s)
        self._replaying = Replaying(reader.source_of)
        self._trace_url = trace_url
        self._now_ms = now_ms
        self.followers = 0
        self.counts: Counter[str] = Counter()

    def page(self, query: SignalQuery) -> tuple[Sequence[models.Signal], str]:
        """Newest first, by the broker's time; the cursor names a place that stays what it is as new ones come."""
        before = _read_cursor(query.before) if query.before else None
        found: list[Entry] = []
        told: list[models.Signal] = []
        now_ms = self._now_ms()
        for entry in self._log.newest_first(query.trader, before):
            if not matches(entry, query):
                continue
            life = self._log.life_of(entry, now_ms)
            if query.state not in ("", life.state):
                continue
            if len(found) >= query.limit:
                return told, _cursor(found[-1].key) if found else ""
            found.append(entry)
            told.append(short(entry, life))
        return told, ""

    def get(self, signal_id: str) -> models.SignalDetail | None:
        """The signal of an id, if it is among the newest."""
        entry = self._log.get(signal_id)
        return None if entry is None else detail(entry, self._log.life_of(entry, self._now_ms()), self._trace_url)

    def position(self) -> str:
        """See :class:`chandlery.console.market.Signals`."""
        return Follower(self._log, None, SignalQuery(), self.counts, self._now_ms).begin()

    def follow(self, after: str, query: SignalQuery) -> AsyncIterator[SignalEvent]:
        """See :class:`chandlery.console.market.Signals`. Events count from this call on, not from the first asked for."""
        position = decode(after) if after else None
        return self._followed(Follower(self._log, position, query, self.counts, self._now_ms))

    def latency(self, window_s: int, trader: str = "") -> models.Latency:
        """Over the signals of the last ``window_s`` seconds."""
        return self._figures.latency(window_s, trader)

    def per_minute(self) -> float:
        """Signals of the last minute."""
        return self._figures.per_minute()

    def recent_counts(self, trader: str, buckets: int, bucket_s: int) -> list[int]:
        """Signals of a Trader by time, oldest first."""
        return self._figures.recent_counts(trader, buckets, bucket_s)

    async def _followed(self, follower: Follower) -> AsyncIterator[SignalEvent]:
        self.followers += 1
        backoff = Backoff()
        again_s = 0.0
        try:
            while True:
                news = self._reader.news()
                step = follower.next()
                if isinstance(step, SignalEvent):
                    yield step
                elif isinstance(step, Turn):
                    await asyncio.sleep(0)
                elif step is not None:
                    if await self._read_again(follower, step):
                        backoff.reset()
                    else:
                        again_s = time.monotonic() + backoff.next_s()
                elif not follower.postponed:
                    await news.wait()
                elif time.monotonic() >= again_s:
                    follower.try_again()
                else:
                    await _wait(news, again_s - time.monotonic())
        finally:
            self.followers -= 1

    async def _read_again(self, follower: Follower, step: Missing | Unplaced) -> bool:
        """Have what is missing read; False: not now, the partition is left for later."""
        try:
            if isinstance(step, Missing):
                await self._replaying.read(follower, step)
            else:
                await self._replaying.place(follower, step)
        except UnavailableError:
            self.counts["replays_failed"] += 1
            follower.postpone(step.partition)
            return False
        return True


async def _wait(news: asyncio.Event, timeout_s: float) -> None:
    try:
        async with asyncio.timeout(timeout_s):
            await news.wait()
    except TimeoutError:
        return


def _cursor(key: Key) -> str:
    return ".".join(map(str, key))


def _read_cursor(text: str) -> Key:
    found = _CURSOR.fullmatch(text)
    if found is None:
        raise InputError(f"{shown(text[:80])} is no cursor of signals: send the `next` of the page before, or nothing")
    append_ms, feed, partition, offset = found.groups()
    return Key(int(append_ms), feed, int(partition), int(offset))
