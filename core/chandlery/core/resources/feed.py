"""MarketFeed: one market (an exchange, a replay or a synthetic one), its Kafka, symbols and intervals."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Final, Literal

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    PlainSerializer,
    Tag,
    WithJsonSchema,
    model_validator,
)

from chandlery.core.resources.base import (
    Access,
    Count,
    DnsLabel,
    DurationMs,
    Flag,
    IntervalText,
    Metadata,
    Number,
    Resource,
    Spec,
    Symbol,
    sentence,
)
from chandlery.core.resources.kafka import Kafka
from chandlery.core.resources.rules import (
    ANY_VALUE,
    NO_FLAG,
    NO_LIST,
    NO_NUMBER,
    NO_OBJECT,
    SYMBOL,
    at_least_ms,
    rule,
    rules,
)

SourceKind = Literal["synthetic", "replay", "binance"]
# {feed}-aggregator names a StatefulSet, whose pods get a label of its name + "-" + 10 characters: 63 at most.
MAX_FEED_NAME: Final = 41
_HOUR: Final = 3_600_000
_DAY: Final = 24 * _HOUR
# Kafka deletes by whole log segments, so less than a minute can't be kept to anyway.
_LEAST_RETENTION_MS: Final = 60_000


class SyntheticSource(Spec):
    """A seeded, lifelike market that needs no network."""

    seed: Annotated[Count, Field(ge=0, le=2**63 - 1)] = Field(
        default=1,
        description="Seed of the random walk: the same seed and options give a symbol the same trades, in order, from the "
        "start of each session. When they happen follows the clock, and so do candles and history.",
    )
    trades_per_second: Annotated[Number, Field(gt=0, le=1_000_000)] = Field(
        default=20.0, description="Mean trades per second and symbol."
    )
    volatility: Annotated[Number, Field(gt=0, le=0.1)] = Field(
        default=1e-4, description="Standard deviation of the log price over one second, on average."
    )
    jumps_per_hour: Annotated[Number, Field(ge=0, le=3600)] = Field(
        default=6.0, description="Mean number of price jumps an hour and symbol; 0: none."
    )
    quiet_share: Annotated[Number, Field(ge=0, le=0.9)] = Field(
        default=0.1, description="Part of the time in which a symbol trades at a tenth of its rate; 0: never."
    )
    start_price: Annotated[Number, Field(gt=0, le=1e9)] | None = Field(
        default=None, description="First price of every symbol; absent: a usual one for each symbol."
    )


def _read_speed(value: object) -> object:
    if value == "max":
        return math.inf
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= 1e6:
        return float(value)
    raise sentence(f'needs a number above 0 (1 is real time, 10 ten times as fast) or "max", got {value!r}')


Speed = Annotated[
    float,
    BeforeValidator(_read_speed),
    PlainSerializer(lambda speed: "max" if math.isinf(speed) else speed, return_type=float | str),
    WithJsonSchema(
        {
            **ANY_VALUE,
            "pattern": "^max$",
            "minimum": 0,
            "exclusiveMinimum": True,
            "maximum": 1_000_000,
            **NO_LIST,
            **NO_OBJECT,
            **NO_FLAG,
        }
    ),
]
"""Times real speed; ``max`` (kept as infinity): as fast as possible."""


class ReplayFile(Spec):
    """One file to play back; in a manifest its path alone will do."""

    path: Annotated[str, Field(min_length=1)] = Field(
        description="Captured frames (.frames, .frames.gz) or trades (.csv, .csv.gz, .parquet, .feather), "
        "relative to the manifest's folder."
    )
    symbol: Symbol | None = Field(default=None, description="Symbol of trades in a table without a symbol column.")

    @model_validator(mode="before")
    @classmethod
    def _path_alone(cls, value: object) -> object:
        return {"path": value} if isinstance(value, str) else value

    def __fspath__(self) -> str:
        return self.path


class ReplaySource(Spec):
    """Captured frames, or files of trades, played back, merged by receive time."""

    files: Annotated[
        list[
            Annotated[
                ReplayFile,
                WithJsonSchema(
                    {
                        **ANY_VALUE,
                        "minLength": 1,
                        "required": ["path"],
                        "maxProperties": 2,
                        **NO_LIST,
                        **NO_NUMBER,
                        **NO_FLAG,
                    }
                ),
            ]
        ],
        Field(min_length=1, max_length=256),
    ] = Field(description="Files to play back: each a path, or an object with path and symbol.")
    speed: Speed = Field(default=1.0, description='Times real speed: 1, 10, 0.5, or "max" for as fast as possible.')
    loop: Flag = Field(default=False, description="Begin again when the files end, with times and ids moved on.")


class BinanceSource(Spec):
    """Binance's public combined streams."""

    market: Literal["spot"] = Field(default="spot", description="Which of Binance's markets.")
    base_url: Annotated[str, Field(pattern=r"^wss?://[^\s/]+")] = Field(
        default="wss://stream.binance.com:9443", description="WebSocket address, ws:// or wss://, without a path."
    )


class Source(Spec):
    """Where trades come from: exactly one of the fields."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "[has(self.synthetic), has(self.replay), has(self.binance)].filter(given, given).size() == 1",
                "needs exactly one of synthetic, replay and binance",
            )
        )
    )

    synthetic: SyntheticSource | None = Field(default=None, description="A seeded synthetic market.")
    replay: ReplaySource | None = Field(default=None, description="Recorded files played back.")
    binance: BinanceSource | None = Field(default=None, description="Binance's live streams.")

    @model_validator(mode="after")
    def _exactly_one(self) -> Source:
        given = self._given()
        if len(given) != 1:
            found = "got " + " and ".join(given) if given else "got none"
            raise sentence(f"needs exactly one of synthetic, replay and binance, {found}")
        return self

    def _given(self) -> list[SourceKind]:
        kinds: tuple[SourceKind, ...] = ("synthetic", "replay", "binance")
        return [kind for kind in kinds if getattr(self, kind) is not None]

    @property
    def kind(self) -> SourceKind:
        """Which of the sources it is."""
        return self._given()[0]


class Retention(Spec):
    """How long each topic keeps its records."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            *(
                rule(at_least_ms(f"self.{name}", _LEAST_RETENTION_MS), f"{name} must be at least 1m", field=name)
                for name in ("live", "fast", "closed", "trades", "signals")
            )
        )
    )

    live: DurationMs = Field(default=600_000, description="Forming candles, by default 10m.")
    fast: DurationMs = Field(default=_DAY, description="Closed candles of intervals below 1m, by default 1d.")
    closed: DurationMs = Field(default=180 * _DAY, description="Closed candles of 1m and above, by default 180d.")
    trades: DurationMs = Field(default=3 * _DAY, description="Trades, by default 3d.")
    signals: DurationMs = Field(default=30 * _DAY, description="Signals, by default 30d.")

    @model_validator(mode="after")
    def _longer_than_a_segment(self) -> Retention:
        for name in ("live", "fast", "closed", "trades", "signals"):
            if getattr(self, name) < _LEAST_RETENTION_MS:
                raise sentence(f"{name} must be at least 1m")
        return self


class HistoryFile(Spec):
    """Closed candles of one series from a file."""

    symbol: Symbol = Field(description="Symbol, such as BTC/USDT.")
    interval: IntervalText = Field(description="Interval of the file's candles, such as 1m.")
    path: Annotated[str, Field(min_length=1)] = Field(
        description="CSV, Parquet or Feather with date, open, high, low, close, volume; relative to the manifest's folder."
    )
    shift: Flag = Field(
        default=False,
        description="Move the candles in time, by whole candles, so that the last one ends where live trades begin.",
    )


class History(Spec):
    """Closed candles from before the first live trade, so that traders are warm at once."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "self.files.all(file, file.shift == self.files[0].shift)",
                "shift must be the same in all of the files, or their candles would not fit together",
                field="files",
            )
        )
    )

    candles: Annotated[Count, Field(ge=0, le=100_000)] = Field(
        default=500, description="Candles a series that a synthetic market makes up before it starts."
    )
    files: Annotated[list[HistoryFile], Field(max_length=1024)] = Field(
        default=[], description="Files with closed candles."
    )

    @model_validator(mode="after")
    def _one_shift(self) -> History:
        if len({file.shift for file in self.files}) > 1:
            raise sentence("files: shift must be the same in all of them, or their candles would not fit together")
        return self


def _which_symbols(value: object) -> str | None:
    if isinstance(value, list):
        return "list"
    return "auto" if value == "auto" else None


Symbols = Annotated[
    Annotated[Literal["auto"], Tag("auto")]
    | Annotated[list[Symbol], Field(min_length=1, max_length=4096), Tag("list")],
    Discriminator(
        _which_symbols,
        custom_error_type="sentence",
        custom_error_message="needs auto or a list of symbols, such as [BTC/USDT, ETH/USDT]",
    ),
    WithJsonSchema(
        {
            **ANY_VALUE,
            "pattern": "^auto$",
            "minItems": 1,
            "maxItems": 4096,
            "items": {"type": "string", "minLength": 2, "maxLength": 64, **SYMBOL},
            **NO_OBJECT,
            **NO_NUMBER,
            **NO_FLAG,
        }
    ),
]


class MarketFeedSpec(Spec):
    """What a MarketFeed is to be."""

    source: Source = Field(description="Where trades come from: synthetic, replay or binance.")
    kafka: Kafka = Field(default=Kafka(), description="Kafka and the form of the topics.")
    symbols: Symbols = Field(
        default="auto", description="auto: whatever traders ask for; or a list, and traders are held to it."
    )
    intervals: Annotated[list[IntervalText], Field(max_length=64)] = Field(
        default=[], description="Intervals built in any case; those that traders ask for are added."
    )
    retention: Retention = Field(default=Retention(), description="How long each topic keeps its records.")
    history: History = Field(default=History(), description="Candles from before the first live trade.")
    allowed_lateness: DurationMs = Field(
        default=5_000, description="How long after its close a candle is still revised by late trades, by default 5s."
    )
    watermark_delay: DurationMs = Field(
        default=0, description="How long closing waits for trades out of order, by default 0s."
    )
    allowed_pools: Access = Field(default=Access(), description="Pools that may use this feed.")


class FeedMetadata(Metadata):
    """Metadata of a MarketFeed: its workloads are called {name}-ingest and {name}-aggregator."""

    name: Annotated[DnsLabel, Field(max_length=MAX_FEED_NAME)] = Field(
        description="Name, unique among the feeds of the namespace: lower-case letters, digits and '-', at most 41."
    )


class MarketFeed(Resource):
    """One market, its Kafka and its topics; owned by the platform team."""

    KIND: ClassVar[str] = "MarketFeed"

    kind: Literal["MarketFeed"] = Field(default="MarketFeed", description="MarketFeed.")
    metadata: FeedMetadata = Field(description="Name, namespace, labels and annotations.")
    spec: MarketFeedSpec = Field(description="What the feed is to be.")
