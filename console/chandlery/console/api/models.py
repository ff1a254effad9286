"""What the REST API says, as types: OpenAPI's schemas, the client's and the console's contract are made from these.

Times are Unix ms, durations µs, sizes bytes unless a name says otherwise. Prices and volumes are decimal strings as
the exchange wrote them. Names of Traders, pools and feeds are ``namespace/name``.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from chandlery.core.signal_life import STANDINGS, Standing

Item = TypeVar("Item")
#: What a signal's state says, for whoever reads the description.
STATES_TOLD: Final = (
    ", ".join(f"`{state}` ({meaning})" for state, meaning in STANDINGS.items())
    + ". No signal is found in `confirmed`: it is a step of its `lifecycle`, and the signal `active` from then on."
)
SignalState = Annotated[Standing, Field(description=f"Of its life, now. {STATES_TOLD}")]
Clock = Literal["monotonic", "wall"]
#: Proportional or resident memory, or of some processes the one and of others the other.
MemoryMeasure = Literal["PSS", "RSS", "mixed"]


class Answer(BaseModel):
    """Base of all answers: fields only ever come to them."""

    model_config = ConfigDict(extra="forbid")


class Problem(Answer):
    """An error as RFC 9457 has it (``application/problem+json``), with what is needed to mend it.

    Attributes:
        type: ``about:blank`` or a page of the docs. title: of the kind. detail: one sentence that says what to do.
        reason: a stable word. field, value: what of the request is wrong, where one field is.
    """

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    reason: str
    field: str = ""
    value: str = ""


class Page(Answer, Generic[Item]):
    """Some of a list. next: the ``cursor`` of the next page, empty on the last."""

    items: list[Item]
    next: str = ""


class Quantiles(Answer):
    """Durations over ``count`` signals, µs; null where there was none."""

    p50_us: float | None = None
    p99_us: float | None = None
    count: int = 0


class Trader(Answer):
    """One Trader, live.

    Attributes:
        state: of its process (``Init``, ``Ready``, ``Warm``, ``Active`` …) or of its resource where none runs.
        ready: whether its own process said READY for the newest generation.
        suspended: as somebody wanted it; not ready, and no fault.
        age_ms: of these figures; a worker that doesn't answer leaves them to grow old.
    """

    trader: str
    state: str
    reason: str = ""
    message: str = ""
    ready: bool = False
    suspended: bool = False
    strategy: str = ""
    symbols: list[str] = []
    interval: str = ""
    pool: str = ""
    worker: str = ""
    generation: int = 0
    warm_have: int = 0
    warm_need: int = 0
    calls: int = 0
    signals: int = 0
    restarts: int = 0
    errors: int = 0
    rss_bytes: int = 0
    last_open_time_ms: int = 0
    last_error: str = ""
    latency: Quantiles = Field(default_factory=Quantiles)
    age_ms: int = 0


class TraderDetail(Trader):
    """One Trader with its manifest as it was written (``apiVersion``, ``kind``, ``metadata``, ``spec``).

    Attributes:
        kept_by: what writes this Trader elsewhere (a GitOps tool, a file); empty: nothing known.
        resource_version: to be sent back with an edit, which is refused if somebody else's came between.
    """

    manifest: dict[str, Any] = {}
    kept_by: str = ""
    resource_version: str = ""


class Pool(Answer):
    """One TraderPool."""

    pool: str
    feed: str = ""
    workers: int = 0
    ready_workers: int = 0
    capacity: int = 0
    used: int = 0
    pending: int = 0
    transport: str = ""
    message: str = ""


class Feed(Answer):
    """One MarketFeed.

    Attributes:
        alive: connected to its exchange (or its replay ended in order), and candles keep coming.
        watermark_age_ms: how old the newest candle update seen here is; null: none yet.
        lag: records that the aggregator is behind. behind_ms: for how long the oldest of them has waited.
        missing_ids: trades that the exchange's ids tell of and that haven't come. dropped: frames that couldn't be read, and
            trades that ingest gave up. dead_letters: records that the aggregator couldn't read. reconnects: of ingest.
        lost_ages_ms: how long ago missing_ids, dropped and dead_letters were last seen to grow, by name; not there: never.
    """

    feed: str
    alive: bool = False
    connected: bool = False
    finished: bool = False
    source: str = ""
    symbols: list[str] = []
    intervals: list[str] = []
    frames: int = 0
    trades: int = 0
    trades_per_s: float = 0.0
    candles_closed: int = 0
    lag: int = 0
    behind_ms: int = 0
    late: int = 0
    duplicate: int = 0
    missing_ids: int = 0
    dropped: int = 0
    dead_letters: int = 0
    reconnects: int = 0
    lost_ages_ms: dict[str, int] = {}
    watermark_age_ms: int | None = None
    message: str = ""


class Candle(Answer):
    """One candle. state: ``forming``, ``closed``, ``revised``, ``final``; filled: it had no trades."""

    open_time_ms: int
    open: str
    high: str
    low: str
    close: str
    volume: str
    trades: int = 0
    state: str = "closed"
    revision: int = 0
    filled: bool = False


class Candles(Answer):
    """Candles of one series, oldest first. complete: false while the newest are still being read from Kafka."""

    feed: str
    symbol: str
    interval: str
    candles: list[Candle]
    complete: bool = True


class StageTime(Answer):
    """One stage of a signal.

    Attributes:
        start_us: from the account's begin. share: of the whole, 0 … 1.
        uncertainty_us: the duration is right within ± this. clock: by which its ends were read.
        host: whose clock read its end (short boot id), or ``broker``; empty: the worker's host. clock_name: the same for a person,
            as `chandlery trace` has it.
        meaning: what happened, for a person.
    """

    name: str
    start_us: float
    duration_us: float
    share: float
    uncertainty_us: float = 0.0
    clock: Clock = "monotonic"
    host: str = ""
    clock_name: str = ""
    meaning: str = ""


class Signal(Answer):
    """One signal in short.

    Attributes:
        expires_ms: when its time is up; null: its life has ended.
        active_ms: when it became active; null: it hasn't. signalled_ns: which of two of that ms was first (monotonic of
            the Trader's host).
        stages: (name, µs) in order, empty until the broker's acknowledgement is known.
    """

    id: str
    trader: str
    strategy: str = ""
    rule: str = ""
    action: str
    symbol: str
    interval: str
    open_time_ms: int
    emitted_ms: int
    price: str
    strength: float = 0.0
    reason: str = ""
    forming: bool = False
    state: SignalState = "detected"
    expires_ms: int | None = None
    active_ms: int | None = None
    signalled_ns: int = 0
    feed: str = ""
    frame_to_signal_us: float | None = None
    visible_to_decided_us: float | None = None
    stages: list[tuple[str, float]] = []


class SignalDetail(Signal):
    """One signal whole.

    Attributes:
        waterfall: its stages; their durations sum to ``whole_us``.
        received_host: whose clock (short boot id) stamped the frame received, with which the first of them begins; empty: the
            worker's host.
        skew_us, transit_us, recorded_skew_us: of the exchange's clock, shown beside the stages (docs/telemetry.md).
        lifecycle: (state, at_ms), oldest first; begins with ``detected``, ends with ``state``. A ``confirmed`` in it is
            followed by the ``active`` of the same moment.
        ended_by: id of the opposite signal that closed it.
        trace_id: of its OpenTelemetry trace. trace_url: where a person sees it; empty: no address is set.
    """

    code: str = ""
    ordinal: int = 0
    incarnation: int = 0
    revision: int = 0
    session: int = 0
    strategy_us: float = 0.0
    whole_us: float = 0.0
    waterfall: list[StageTime] = []
    received_host: str = ""
    corrected: int = 0
    skew_us: float | None = None
    transit_us: float | None = None
    transit_uncertainty_us: float = 0.0
    recorded_skew_us: float | None = None
    lifecycle: list[tuple[str, int]] = []
    ended_by: str = ""
    trace_id: str = ""
    trace_url: str = ""


class StageQuantiles(Quantiles):
    """One stage over many signals."""

    name: str
    meaning: str = ""


class TransportLatency(Answer):
    """What handing candles over costs with one transport: shared memory, or windows serialised into pipes."""

    transport: str
    visible_to_decided: Quantiles = Field(default_factory=Quantiles)
    frame_to_signal: Quantiles = Field(default_factory=Quantiles)


class Latency(Answer):
    """Latency over the signals of the last ``window_s`` seconds."""

    window_s: int
    trader: str = ""
    frame_to_signal: Quantiles = Field(default_factory=Quantiles)
    visible_to_decided: Quantiles = Field(default_factory=Quantiles)
    stages: list[StageQuantiles] = []
    transports: list[TransportLatency] = []


class ProcessMemory(Answer):
    """Memory of one process. kind: ``kafka``, ``ingest``, ``aggregator``, ``feed``, ``supervisor``, ``fork_server``, ``trader``, …"""

    name: str
    kind: str
    #: Resident: what it shares with others counts in each of them; 0: only its share is told.
    rss_bytes: int
    #: Proportional: what it shares is divided among those who share it; null: nobody tells.
    pss_bytes: int | None = None
    #: It fills what it may have (a heap of fixed size, stores of a fixed number of records), and then grows no more.
    bounded: bool = False
    #: Growth of its resident memory over the time that is known, bytes an hour; null: not long enough known.
    growth_bytes_per_h: float | None = None


class SegmentUse(Answer):
    """One worker's shared memory."""

    worker: str
    size_bytes: int
    series_used: int = 0
    series_capacity: int = 0
    rings: int = 0
    ring_depth: int = 0
    laps: int = 0


class Memory(Answer):
    """Where the memory is.

    Attributes:
        total_bytes: of all these processes, each by its proportional share where that is known, else by what is resident. In
            a cluster those of feeds and workers; operator, console and Kafka aren't among them.
        measure: which of the two the total is; ``mixed``: it is not known of all.
        total_rss_bytes: all that is resident and told; what processes share is in it as often as they share it.
        history: (at_ms, total_bytes), oldest first, at most ten minutes.
    """

    processes: list[ProcessMemory]
    segments: list[SegmentUse] = []
    total_bytes: int = 0
    measure: MemoryMeasure = "RSS"
    total_rss_bytes: int = 0
    history: list[tuple[int, int]] = []


class Overview(Answer):
    """The first look: is the feed alive, are all Traders Ready, how many signals, which p99, how much memory.

    Attributes:
        mode: ``local`` (`chandlery up`) or ``cluster``. writable: whether Traders may be changed through this API.
        slow: p99 of ``frame_to_signal`` is over its objective, 66 ms, where there were signals enough to say (20).
        memory_bytes, memory_measure: the memory's ``total_bytes`` and ``measure``.
        attention: what is not as it should be, one sentence each, the worst first.
        away: what can't be asked now (the instance, Kafka, the API server), and why; empty: all answer.
    """

    mode: Literal["local", "cluster"]
    version: str
    at_ms: int
    started_ms: int = 0
    writable: bool = True
    feeds_alive: int = 0
    feeds: int = 0
    traders_ready: int = 0
    traders: int = 0
    traders_suspended: int = 0
    signals_per_min: float = 0.0
    frame_to_signal: Quantiles = Field(default_factory=Quantiles)
    slow: bool = False
    memory_bytes: int = 0
    memory_measure: MemoryMeasure = "RSS"
    attention: list[str] = []
    away: list[str] = []


class Suspension(BaseModel):
    """Body of ``PUT /api/v1/traders/{namespace}/{name}/suspend``."""

    model_config = ConfigDict(extra="forbid")
    suspend: bool = Field(strict=True)


class Manifest(BaseModel):
    """A Trader as ``kubectl apply`` takes it; its spec is checked as there (docs/resources.md)."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)
    api_version: Literal["chandlery.dev/v1alpha1"] = Field(alias="apiVersion")
    kind: Literal["Trader"]
    metadata: dict[str, Any]
    spec: dict[str, Any]
