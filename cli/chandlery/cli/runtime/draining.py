"""Waiting at the end for readers of Kafka to come to the end of it: with progress, and no longer than it is of use."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple

from chandlery.cli.runtime.say import Say
from chandlery.core.errors import UnavailableError

_POLL_S: Final = 0.05
#: Before that nothing is judged: a broker's restart, in which nothing moves, takes 4 s.
MEASURED_S: Final = 5.0
#: One that would need more than this many times the time left is given up: its pace doubles at most, now that what it
#: shared the processor with has ended.
_HOPELESS: Final = 2.0
#: Fewer than these taken in tell no pace: what stands still waits for something else, or is one series' whole history.
_FEWEST: Final = 20
#: What is through sooner isn't worth a word.
_QUIET_S: Final = 1.0


class Outcome(NamedTuple):
    """How a wait ended. words: what there is to say where it isn't through. answers: whether it said what is left, at last."""

    is_through: bool
    words: str = ""
    answers: bool = True


class Pace:
    """Whether it is of use to wait on. Pure.

    Args:
        limit_s: how long is waited at most.
    """

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._first: tuple[int, float] | None = None

    def is_hopeless(self, left: int, waited_s: float) -> bool:
        """Take in how much is left after a while, s: whether it would take far longer than the time there is."""
        if self._first is None:
            self._first = (left, waited_s)
        first, since_s = self._first
        measured_s = waited_s - since_s
        if measured_s < MEASURED_S or first - left < _FEWEST:
            return False
        return left * measured_s > _HOPELESS * (first - left) * (self._limit_s - waited_s)


class Draining:
    """The wait for several at the same time, told as one.

    Args:
        title: what is done. things: what is read. limit_s: how long each is waited for. clock: monotonic, s.
    """

    def __init__(
        self, say: Say, title: str, things: str, limit_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._clock = clock
        self._say = say
        self._title = title
        self._things = things
        self._limit_s = limit_s
        self._first: dict[str, int] = {}
        self._left: dict[str, int] = {}
        self._words = ""

    async def wait(self, name: str, left: Callable[[], Awaitable[int | None]]) -> Outcome:
        """Wait until nothing is left, the limit is reached, or nothing more is to be hoped for.

        Args:
            left: how much is left; None: that isn't known yet. It may raise UnavailableError: it is asked again.
        """
        began_s = self._clock()
        pace = Pace(self._limit_s)
        number: int | None = None
        while (waited_s := self._clock() - began_s) < self._limit_s:
            try:
                number = await left()
            except UnavailableError:
                number = None
            if number == 0:
                self._left[name] = 0
                return Outcome(True)
            if number is not None:
                self._left[name] = number
                self._first.setdefault(name, number)
                if pace.is_hopeless(number, waited_s):
                    return Outcome(False, f"would not have caught up in time ({number:,} {self._things} left)")
            if waited_s > _QUIET_S:
                self._tell()
            await asyncio.sleep(_POLL_S)
        rest = f" ({number:,} {self._things} left)" if number is not None else " (it didn't answer)"
        return Outcome(False, f"did not catch up within {self._limit_s:.0f} s{rest}", number is not None)

    def _tell(self) -> None:
        first, left = sum(self._first.values()), sum(self._left.values())
        if not left:  # who is waited for hasn't said yet how much that is
            return
        # The words stay, so that off terminals they are a line now and then, with the share that is done.
        self._words = self._words or (
            f"{self._title} have {left:,} {self._things} to go, {self._limit_s:.0f} s at most; a second Ctrl-C ends at once"
        )
        self._say(self._words, 1 - left / first)
