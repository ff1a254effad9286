"""Lines in the log about single signals: each with the ids by which the signal's trace is found.

They are written beside all that matters, some time later, and of a flood only the newest are: the others are told by
number. A trader that fills its ring with rubbish costs its drops' counters, and :data:`MOST_DROPS` lines each half second.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Callable
from functools import partial
from typing import Final, NamedTuple

from chandlery.core.latency import Account
from chandlery.core.signals import Life, Signal
from chandlery.core.telemetry import ids_of

log = logging.getLogger("chandlery.feed.signals")

#: Of half a second, for each kind of line.
MOST_LINES: Final = 200
#: Of those that a broken trader can make without end: few enough that a pod's log of 10 MB still holds ten minutes.
MOST_DROPS: Final = 20
#: Company is waited for this long, so that nothing is written while a burst of signals is still under way.
LINGER_S: Final = 0.5
#: What happens to every Trader that starts again, or hands over: nobody has to look into it.
_ORDINARY: Final = frozenset({"duplicate_signal", "fenced"})
#: By kind of line: what is said where there were more.
_MORE: Final = {
    "signal published": "more signals published than are named here",
    "signal dropped": "more signals dropped than are named here",
    "signal sent again": "more signals sent again than are named here",
    "completion lost": "more completions lost than are named here",
}

Facts = dict[str, object]


class _Line(NamedTuple):
    level: int
    words: str
    facts: Callable[[], Facts]


class SignalLines:
    """Lines that wait to be written."""

    def __init__(self) -> None:
        self._waiting: dict[str, deque[_Line]] = {words: deque() for words in _MORE}
        self._more: Counter[str] = Counter()
        self._any = asyncio.Event()

    def published(self, signal: Signal, told: Account) -> None:
        """The broker has acknowledged a signal."""
        self._add(logging.INFO, "signal published", partial(_of_published, signal, told))

    def dropped(self, trader: str, signal: Signal | None, reason: str, error: str) -> None:
        """Something that ought to be a signal was left out; ``signal``: what it says it is, None: it says nothing."""
        level = logging.INFO if reason in _ORDINARY else logging.WARNING
        facts: Facts = {"trader": trader, "reason": reason, "error": error}
        self._add(level, "signal dropped", partial(_with_ids, facts, signal.id if signal is not None else ""))

    def sent_again(self, record: Signal | Life, reason: str) -> None:
        """What the broker hasn't acknowledged of a signal is sent once more, or waits for room."""
        facts: Facts = {"trader": record.trader, "reason": reason}
        self._add(logging.WARNING, "signal sent again", partial(_with_ids, facts, record.id))

    def completion_lost(self, signal_id: str, reason: str) -> None:
        """Nobody but this feed will know when the broker had acknowledged a signal."""
        self._add(logging.WARNING, "completion lost", partial(_with_ids, {"reason": reason}, signal_id))

    def _add(self, level: int, words: str, facts: Callable[[], Facts]) -> None:
        if not log.isEnabledFor(level):
            return
        waiting = self._waiting[words]
        waiting.append(_Line(level, words, facts))
        if len(waiting) > (MOST_DROPS if words == "signal dropped" else MOST_LINES):
            waiting.popleft()
            self._more[words] += 1
        self._any.set()

    async def run(self) -> None:
        """Write them until cancelled, with a turn for everything else after each."""
        while True:
            await self._any.wait()
            self._any.clear()
            await asyncio.sleep(LINGER_S)
            for waiting in self._waiting.values():
                while waiting:
                    _write(waiting.popleft())
                    await asyncio.sleep(0)
            self._write_more()

    def end(self) -> None:
        """Write what is left."""
        for waiting in self._waiting.values():
            while waiting:
                _write(waiting.popleft())
        self._write_more()

    def _write_more(self) -> None:
        for words, number in self._more.items():
            log.info(_MORE[words], extra={"signals": number})
        self._more.clear()


def _write(line: _Line) -> None:
    try:
        log.log(line.level, line.words, extra=line.facts())
    except Exception as error:  # noqa: BLE001 - one line is what it costs
        log.error("a signal without a line", extra={"reason": type(error).__name__})


def _of_published(signal: Signal, told: Account) -> Facts:
    return {
        "trader": signal.trader,
        "action": signal.action,
        "symbol": signal.symbol,
        "interval": signal.interval,
        "price": signal.price,
        "frame_to_signal_us": told.frame_to_signal_us,
        **ids_of(signal.id),
    }


def _with_ids(facts: Facts, signal_id: str) -> Facts:
    return {**facts, **ids_of(signal_id)} if signal_id else facts
