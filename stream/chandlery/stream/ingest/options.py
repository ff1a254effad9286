"""The ``options`` of each source, typed: an unknown or misspelt one is refused by name."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

import msgspec

from chandlery.core.errors import InputError

Positive = Annotated[float, msgspec.Meta(gt=0)]


class CommonOptions(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Options that every source understands.

    Attributes:
        wait_for_go: after openings and history, wait for ``POST /v1/go`` before trades flow.
        history_shift: move each history file by whole intervals, so that its last candle closes where the
            market begins. The prices stay what they were; their place in time is then synthetic.
    """

    wait_for_go: bool = False
    history_shift: bool = False


class BinanceOptions(CommonOptions, kw_only=True):
    """Options of ``binance``.

    Attributes:
        base_url: WebSocket address without path.
        market: ``spot`` only.
        extra_streams: streams subscribed beside the trades, as the exchange names them
            (``btcusdt@kline_1s``): their frames are counted and skipped, and their event time moves the
            watermark of quiet symbols.
        max_connection_age_s: a successor connection is made at this age; the exchange cuts at 24 h.
    """

    base_url: str = "wss://stream.binance.com:9443"
    market: Literal["spot"] = "spot"
    extra_streams: list[str] = []
    max_connection_age_s: Positive = 85_800.0


class ReplayFile(msgspec.Struct, forbid_unknown_fields=True):
    """A file to replay; ``symbol`` for trade tables that have no symbol column."""

    path: str
    symbol: str = ""


class ReplayOptions(CommonOptions, kw_only=True):
    """Options of ``replay``.

    Attributes:
        files: captures (``.frames``, ``.frames.gz``) or tables of trades (``.csv``, ``.csv.gz``, ``.parquet``,
            ``.feather``), merged by receive time.
        speed: 1 for the recorded pace, N for N times that, ``max`` for as fast as it goes.
        loop: begin again at the end, with times and ids moved on.
        exit_at_end: end the process at the end of the market instead of serving its status.
    """

    files: list[str | ReplayFile] = []
    speed: Positive | Literal["max"] = 1.0
    loop: bool = False
    exit_at_end: bool = False


class SyntheticOptions(CommonOptions, kw_only=True):
    """Options of ``synthetic``.

    Attributes:
        seed: of everything random.
        trades_per_second: mean rate of each symbol.
        start_price: first live price, for all symbols or by symbol; absent ones have a plausible one.
        volatility: standard deviation of the log price over one second, on average.
        jumps_per_hour: mean number of price jumps; 0 for none.
        quiet_share: part of the time that a market is quiet (trading at a tenth of its rate), 0 … 0.9.
    """

    seed: Annotated[int, msgspec.Meta(ge=0)] = 1
    trades_per_second: Positive = 5.0
    start_price: Positive | dict[str, Positive] = {}
    volatility: Positive = 1e-4
    jumps_per_hour: Annotated[float, msgspec.Meta(ge=0)] = 6.0
    quiet_share: Annotated[float, msgspec.Meta(ge=0, le=0.9)] = 0.1


OptionsT = TypeVar("OptionsT", bound=CommonOptions)


def read_options(source: str, options: dict[str, Any], kind: type[OptionsT]) -> OptionsT:
    """Check a source's options.

    Raises:
        InputError: names the option and what would be right.
    """
    try:
        return msgspec.convert(options, type=kind)
    except msgspec.ValidationError as error:
        raise InputError(f"options of the source {source}: {error}") from error
