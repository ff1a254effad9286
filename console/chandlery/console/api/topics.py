"""Topics of the console's one stream, as its address names them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from chandlery.console.api.fields import FULL_NAME_PATTERN
from chandlery.console.api.problems import ProblemError, problem
from chandlery.core.errors import InputError
from chandlery.core.intervals import parse_interval
from chandlery.core.symbols import parse_symbol
from chandlery.core.wording import did_you_mean, shown

#: Topics that are told as a whole, once a second at most.
STATES: Final = ("overview", "traders", "pools", "feeds", "latency", "memory")
SIGNALS: Final = "signals"
#: Series of one stream: each is followed by a task of its own.
MOST_SERIES: Final = 16
#: Longest text of topics: 16 series of at most 127 + 64 + 5 characters, and the states.
MOST_CHARS: Final = 4_096
_FULL_NAME: Final = re.compile(FULL_NAME_PATTERN)


@dataclass(frozen=True)
class Series:
    """One series of candles; ``str()`` is its topic."""

    feed: str
    symbol: str
    interval: str

    def __str__(self) -> str:
        return f"candles:{self.feed}:{self.symbol}:{self.interval}"


@dataclass(frozen=True)
class Topics:
    """What one stream tells."""

    states: tuple[str, ...] = ()
    signals: bool = False
    series: tuple[Series, ...] = ()


def parse_topics(text: str) -> Topics:
    """Read a comma list of ``overview``, ``traders`` …, ``signals`` and ``candles:FEED:SYMBOL:INTERVAL``.

    Raises:
        ProblemError: names the topic that is none.
    """
    words = list(dict.fromkeys(word for word in text.split(",") if word))
    if not words:
        raise _wrong("names no topic", text)
    states = tuple(word for word in words if word in STATES)
    series = tuple(dict.fromkeys(_series(word) for word in words if word not in STATES and word != SIGNALS))
    if len(series) > MOST_SERIES:
        raise _wrong(f"has {len(series)} series of candles; one stream has at most {MOST_SERIES}", text)
    return Topics(states, SIGNALS in words, series)


def _series(word: str) -> Series:
    kind, _, rest = word.partition(":")
    if kind != "candles":
        near = did_you_mean(word, [*STATES, SIGNALS])
        raise _wrong(f"{shown(word)} is none of {', '.join(STATES)}, {SIGNALS} and candles:FEED:SYMBOL:INTERVAL{near}", word)  # fmt: skip
    # A symbol may have a colon (BTC/USDT:USDT), feed and interval have none.
    feed, _, rest = rest.partition(":")
    symbol, _, interval = rest.rpartition(":")
    if not _FULL_NAME.fullmatch(feed):
        raise _wrong(f"{shown(feed)} is no feed: write namespace/name", word)
    try:
        return Series(feed, parse_symbol(symbol), parse_interval(interval).text)
    except InputError as error:
        raise _wrong(str(error), word) from error


def _wrong(message: str, value: str) -> ProblemError:
    return ProblemError(problem(422, "BadField", f"topics: {message}", field="topics", value=value))
