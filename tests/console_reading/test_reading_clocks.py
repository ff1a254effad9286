"""Wall clocks that are set back or forward, the broker's or ours: no window of figures is distorted by them."""

from __future__ import annotations

from dataclasses import dataclass, field

from aiokafka import ConsumerRecord, TopicPartition
from hypothesis import given
from hypothesis import strategies as st
from tests.console_reading.reading_setup import completion_of, signal_number
from tests.console_reading.simulated_topics import quick

from chandlery.console.market import SignalQuery
from chandlery.console.reading.kafka_reading import Away
from chandlery.console.reading.positions import Place
from chandlery.console.reading.recency import Now, came_ms
from chandlery.console.reading.signal_log import SignalLog
from chandlery.console.reading.signal_reader import SignalReader
from chandlery.console.reading.signal_service import KeptSignals
from chandlery.core.signals import Signal, encode

KEY = bytes.fromhex("00" * 5)
PLACE: Place = (KEY, 0)
HOUR_MS = 3_600_000
STEP = st.sampled_from([-24 * HOUR_MS, -HOUR_MS, -61_000, -1_000, 1_000, HOUR_MS])


@dataclass
class Reading:
    """A reader of one partition, and the three clocks: the steady one, the broker's wall clock, and ours."""

    kept: int = 1_000
    steady_ms: int = 50_000_000
    broker_ms: int = 1_700_000_000_000
    ours_ms: int = 1_700_000_000_000
    offset: int = 0
    #: (steady_ms, number) of what was appended.
    appended: list[tuple[int, int]] = field(default_factory=list)
    unread: list[ConsumerRecord] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.log = SignalLog(self.kept)
        self.reader = SignalReader(list, self.log, self.kept, Away(), lambda: Now(self.steady_ms, self.ours_ms))
        self.log.begin("desk/feed", PLACE, 0, 0)
        self.asked = KeptSignals(
            self.log, self.reader, lambda _: "", "", lambda: self.ours_ms, lambda: self.steady_ms / 1_000
        )

    def wait(self, ms: int) -> None:
        self.steady_ms += ms
        self.broker_ms += ms
        self.ours_ms += ms

    def append(self) -> Signal:
        """A signal and its completion."""
        number = len(self.appended)
        signal = signal_number(number)
        self.appended.append((self.steady_ms, number))
        for record in (signal, completion_of(signal)):
            self.unread.append(_record(self.offset, self.broker_ms, encode(record)))
            self.offset += 1
        return signal

    def read(self) -> None:
        """All that there is."""
        self.reader.take(KEY, {TopicPartition("signals", 0): self.unread})
        self.unread = []
        self.reader.caught_up(PLACE)

    def within(self, window_ms: int) -> int:
        """How many were appended in the last so many ms."""
        return sum(at_ms >= self.steady_ms - window_ms for at_ms, _ in self.appended)


def _record(offset: int, timestamp: int, value: bytes) -> ConsumerRecord:
    return ConsumerRecord("signals", 0, offset, timestamp, 0, None, value, None, 0, len(value), ())


def test_a_clock_set_back_by_an_hour_leaves_the_last_minute_the_last_minute() -> None:
    reading = Reading()
    for _ in range(100):
        reading.append()
        reading.read()
        reading.wait(3_000)
    reading.broker_ms -= HOUR_MS
    reading.ours_ms -= HOUR_MS
    for _ in range(40):
        newest = reading.append()
        reading.read()
        reading.wait(3_000)
        assert reading.asked.per_minute() == 20
        assert sum(reading.asked.recent_counts(newest.trader, 30, 10)) in range(96, 101)
    latency = reading.asked.latency(60)
    assert latency.frame_to_signal.count == 20
    assert latency.stages[0].count == 20


def test_a_clock_set_back_keeps_no_new_signal_from_those_that_are_kept() -> None:
    reading = Reading(kept=10)
    for _ in range(10):
        reading.append()
    reading.read()
    reading.broker_ms -= HOUR_MS
    reading.ours_ms -= HOUR_MS
    reading.wait(1_000)
    newest = reading.append()
    reading.read()
    assert reading.asked.get(newest.id) is not None
    assert reading.asked.get(signal_number(0).id) is None, "the one that came first made room"
    assert newest.id in {signal.id for signal in reading.asked.page(SignalQuery())[0]}
    assert reading.log.counts["old"] == 0


def test_what_waited_while_nobody_could_read_counts_when_it_was_appended() -> None:
    reading = Reading()
    reading.read()
    for _ in range(10):
        reading.append()
        reading.wait(60_000)
    reading.read()
    assert reading.asked.per_minute() == 1
    assert reading.asked.latency(300).frame_to_signal.count == 5


ACTS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.just(0)),
        st.tuples(st.just("wait"), st.integers(0, 90_000)),
        st.tuples(st.just("broker"), STEP),
        st.tuples(st.just("ours"), STEP),
        st.tuples(st.just("both"), STEP),
    ),
    max_size=60,
)


@quick
@given(ACTS)
def test_windows_are_right_to_the_time_between_two_looks_whatever_the_wall_clocks_do(
    acts: list[tuple[str, int]],
) -> None:
    """A reader looks at least each second; so no signal is more than that off, and none is lost or counted for hours."""
    reading = Reading()
    reading.read()
    for act, by_ms in acts:
        if act == "append":
            reading.append()
            reading.wait(7)
            reading.read()
        elif act == "wait":
            for _ in range(0, by_ms, 1_000):
                reading.wait(1_000)
                reading.read()
        else:
            reading.broker_ms += by_ms if act in ("broker", "both") else 0
            reading.ours_ms += by_ms if act in ("ours", "both") else 0
        assert reading.within(59_000) <= reading.asked.per_minute() <= reading.within(61_100)


@quick
@given(st.integers(0, 10**13), st.integers(0, 10**13), st.integers(0, 10**9), st.none() | st.integers(0, 2 * 10**9))
def test_no_signal_comes_from_the_future_or_from_before_everything_was_read(
    append_ms: int, wall_ms: int, steady_ms: int, caught_up_ms: int | None
) -> None:
    came = came_ms(append_ms, Now(steady_ms, wall_ms), caught_up_ms)
    assert came <= steady_ms
    if caught_up_ms is not None:
        assert came >= min(caught_up_ms, steady_ms)
    elif append_ms <= wall_ms:
        assert steady_ms - came == wall_ms - append_ms
