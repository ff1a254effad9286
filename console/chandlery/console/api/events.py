"""What the streams and the service itself tell beside :mod:`chandlery.console.api.models`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from chandlery.console.api.models import Answer, Candle, Problem, Trader


class ConsoleConfig(Answer):
    """What a console must know before it may ask for anything else.

    Attributes:
        token_required: whether ``Authorization: Bearer TOKEN`` is needed.
        trace_url: where a person sees a trace; ``{trace_id}`` is put in. Empty: nowhere.
        writable: whether Traders may be changed through this API.
    """

    version: str
    mode: Literal["local", "cluster"]
    token_required: bool
    trace_url: str = ""
    writable: bool = True


class Health(Answer):
    """The process answers; whether what it looks at does, :class:`~chandlery.console.api.models.Overview` says."""

    status: Literal["ok"] = "ok"


class TraderLive(Trader):
    """One Trader with its signals over the last five minutes: 30 buckets of 10 s, oldest first."""

    sparkline: list[int] = Field(default_factory=list)


class TraderRows(Answer):
    """Event ``traders``.

    Attributes:
        rows: all Traders where ``whole``, else those that changed. removed: names of those that are gone.
    """

    rows: list[TraderLive]
    removed: list[str] = []
    whole: bool = False


class CandleChange(Answer):
    """Event ``candle``. reset: forget what came before: a new session began, or all is told anew."""

    feed: str
    symbol: str
    interval: str
    candle: Candle
    reset: bool = False


class Gap(Answer):
    """Event ``gap``: so many records of signals that this stream can't tell any more."""

    lost: int


class Failed(Answer):
    """Event ``failed``: one topic can't be told now; it is tried again, the others go on."""

    topic: str
    problem: Problem
