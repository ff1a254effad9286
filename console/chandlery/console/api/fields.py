"""Fields of requests: names by Kubernetes' rules, bounded pages, opaque cursors. Nothing else reaches a backend."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Final, TypeVar

from fastapi import Header, Path
from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

from chandlery.console.api.models import STATES_TOLD, Page
from chandlery.console.api.problems import ProblemError, problem
from chandlery.core.errors import InputError
from chandlery.core.intervals import PATTERN as INTERVAL_PATTERN
from chandlery.core.intervals import parse_interval
from chandlery.core.resources.rules import DNS_LABEL_PATTERN
from chandlery.core.signal_life import Standing
from chandlery.core.signals import Action
from chandlery.core.symbols import parse_symbol

Item = TypeVar("Item")

_LABEL: Final = DNS_LABEL_PATTERN.strip("^$")
#: ``namespace/name``, both as Kubernetes takes them.
FULL_NAME_PATTERN: Final = f"^{_LABEL}/{_LABEL}$"
#: A position in the signals, and what a browser may send as Last-Event-ID (console/market.py).
POSITION_PATTERN: Final = "^[A-Za-z0-9_.:,-]{0,1024}$"
LAST_EVENT_ID: Final = "Last-Event-ID"
#: The last ms that a JSON number of a browser is exact for.
_LAST_MS: Final = 2**53 - 1
#: Longest cursor: a full name is at most 127 characters, and base64 makes four of three.
_MOST_CURSOR_CHARS: Final = 256

Label = Annotated[
    str,
    Path(
        pattern=DNS_LABEL_PATTERN,
        min_length=1,
        max_length=63,
        description="Lower-case letters, digits and '-', with a letter or digit at both ends, at most 63.",
    ),
]
FullName = Annotated[str, Field(pattern=FULL_NAME_PATTERN, max_length=127, examples=["default/btc-cross"])]


def _parsed(parse: Callable[[str], str]) -> AfterValidator:
    def read(text: str) -> str:
        try:
            return parse(text)
        except InputError as error:
            raise PydanticCustomError("sentence", "{text}", {"text": str(error)}) from error

    return AfterValidator(read)


SymbolText = Annotated[
    str,
    Field(min_length=2, max_length=64, examples=["BTC/USDT"]),
    _parsed(parse_symbol),
]
IntervalText = Annotated[
    str,
    Field(pattern=INTERVAL_PATTERN, max_length=5, examples=["1m"]),
    _parsed(lambda text: parse_interval(text).text),
]
Milliseconds = Annotated[int, Field(ge=0, le=_LAST_MS)]


def _position_like(text: str) -> str:
    if re.fullmatch(POSITION_PATTERN, text) is None:
        right = (
            "must be the `id` of an event of this stream (at most 1,024 letters, digits and _ . : , -), or be left out"
        )
        raise PydanticCustomError("sentence", "{text}", {"text": right})
    return text


#: Where a stream of signals goes on.
LastEventId = Annotated[
    str,
    Header(
        alias=LAST_EVENT_ID,
        description="`id` of the last event: what came since is told.",
        json_schema_extra={"pattern": POSITION_PATTERN},
    ),
    AfterValidator(_position_like),
]


class Asked(BaseModel):
    """Base of all query strings: a parameter that isn't known is refused, for it would change nothing silently."""

    model_config = ConfigDict(extra="forbid")


class PageAsked(Asked):
    """A page of a list by name."""

    limit: Annotated[int, Field(ge=1, le=500, description="Most items of the page.")] = 100
    cursor: Annotated[str, Field(max_length=_MOST_CURSOR_CHARS, description="`next` of the page before.")] = ""


class TradersAsked(PageAsked):
    """Which Traders."""

    namespace: Annotated[str, Field(pattern=DNS_LABEL_PATTERN, max_length=63)] | None = None
    pool: FullName | None = None
    state: Annotated[str, Field(min_length=1, max_length=64, description="Exactly this state, such as Active.")] | None = None  # fmt: skip
    q: Annotated[str, Field(max_length=200, description="Text in the name, strategy or a symbol; any case.")] = ""


class SeriesAsked(Asked):
    """One series of candles."""

    feed: FullName
    symbol: SymbolText
    interval: IntervalText


class CandlesAsked(SeriesAsked):
    """The newest candles of a series, or those before a moment."""

    limit: Annotated[int, Field(ge=1, le=5_000, description="Most candles.")] = 500
    before_ms: Annotated[int, Field(ge=0, le=_LAST_MS, description="Only candles that open before.")] | None = None


class SignalsFollowed(Asked):
    """Which signals are followed."""

    trader: FullName | None = None
    symbol: SymbolText | None = None
    action: Action | None = None
    feed: FullName | None = None


class SignalsAsked(SignalsFollowed):
    """Which signals, newest first."""

    state: Annotated[Standing, Field(description=f"Whose life is in this state now. {STATES_TOLD}")] | None = None
    since_ms: Milliseconds | None = None
    until_ms: Milliseconds | None = None
    limit: Annotated[int, Field(ge=1, le=1_000, description="Most signals of the page.")] = 100
    cursor: Annotated[str, Field(pattern=POSITION_PATTERN, description="`next` of the page before.")] = ""


class LatencyAsked(Asked):
    """Latency of which time and whom."""

    window_s: Annotated[int, Field(ge=1, le=86_400)] = 300
    trader: FullName | None = None


def page_of(items: Sequence[Item], name: Callable[[Item], str], asked: PageAsked) -> Page[Any]:
    """One page of ``items`` in order of their names.

    Raises:
        ProblemError: the cursor is none.
    """
    after = _read_cursor(asked.cursor)
    rest = sorted((item for item in items if name(item) > after), key=name)
    told = rest[: asked.limit]
    return Page(items=told, next=_cursor(name(told[-1])) if len(rest) > len(told) else "")


def _cursor(name: str) -> str:
    return base64.urlsafe_b64encode(name.encode()).decode().rstrip("=")


def _read_cursor(cursor: str) -> str:
    try:
        name = base64.urlsafe_b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4)).decode()
    except (binascii.Error, UnicodeError):
        name = ""
    # Decoding forgives what encoding never writes.
    if _cursor(name) != cursor:
        told = "cursor: is none of this API's; take it from a page's `next`"
        raise ProblemError(problem(422, "BadField", told, field="cursor", value=cursor))
    return name
