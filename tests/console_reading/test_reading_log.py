"""The log of signals: what is joined, repeated or missing, and its pages and figures."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.console_reading.reading_setup import completion_of, signal_number
from tests.console_reading.simulated_topics import (
    HERE,
    PLACE,
    PLACES,
    Reader,
    Topics,
    at_the_beginning,
    quick,
)

from chandlery.console.market import SignalQuery
from chandlery.console.reading.entries import Entry, detail, short
from chandlery.console.reading.figures import Figures
from chandlery.console.reading.kafka_reading import Away, shares
from chandlery.console.reading.signal_log import SignalLog
from chandlery.console.reading.signal_reader import SignalReader
from chandlery.console.reading.signal_service import KeptSignals
from chandlery.core.errors import InputError
from chandlery.core.signals import Completion, Life, Signal, Word, encode

# ---- joining ----


@st.composite
def writings(draw: st.DrawFn) -> Topics:
    """Signals and completions: after their signal, before it, or never."""
    topics = Topics()
    for number in range(draw(st.integers(0, 25))):
        place = draw(HERE)
        signal = signal_number(number)
        completion = completion_of(signal)
        ways: list[list[Signal | Completion]] = [[signal], [signal, completion], [completion, signal]]
        for record in draw(st.sampled_from(ways)):
            topics.write(place, record)
        if draw(st.booleans()):
            topics.write(place, b"{no record")
    return topics


@quick
@given(writings(), st.data())
def test_a_completion_is_joined_whenever_it_comes(topics: Topics, data: st.DataObject) -> None:
    reader = Reader(topics, 1_000, 1_000_000)
    while any(reader.at[place] < topics.end(place) for place in PLACES):
        reader.read(data.draw(HERE), data.draw(st.integers(1, 12)))
    written = [value for place in PLACES for _, value in topics.records[place]]
    completed = {f"{number + 1:032x}" for number in range(25) if any(b"completion" in value and f"{number + 1:032x}".encode() in value for value in written)}  # fmt: skip
    log = reader.log
    assert {entry.signal.id for entry in log.newest_first("", None) if entry.whole} == completed
    assert log.counts["undecodable"] == written.count(b"{no record")
    assert log.counts["signals"] == len(log)
    for entry in log.newest_first("", None):
        life = log.life_of(entry, 2_000_000)
        told = short(entry, life)
        assert bool(told.stages) == entry.whole
        assert sum(us for _, us in told.stages) == pytest.approx(detail(entry, life, "").whole_us if entry.whole else 0)


def test_a_repeated_id_is_taken_once_and_counted() -> None:
    topics = Topics()
    for _ in range(3):
        topics.write(PLACE, signal_number(1))
    topics.write(PLACE, completion_of(signal_number(1)))
    topics.write(PLACE, completion_of(signal_number(1), acknowledged_ns=9_000_000))
    reader = Reader(topics, 10, 10)
    told = reader.drain(reader.follow(at_the_beginning()))
    reader.read_all()
    follower = reader.follow(at_the_beginning())
    told += reader.drain(follower)
    assert [event.signal.frame_to_signal_us for event in told] == [1_000.0]
    assert reader.log.counts["duplicate"] == 2


def word_on(number: int, state: Word, at_ms: int) -> Life:
    signal = signal_number(number)
    return Life(signal.id, signal.trader, signal.symbol, state, signal.open_time_ms, at_ms)


def test_a_signal_s_life_is_what_the_topic_tells() -> None:
    topics = Topics()
    for number in range(4):
        topics.write(PLACE, signal_number(number, forming=True))
    topics.write(PLACE, word_on(0, "confirmed", 1_000_100))
    topics.write(PLACE, word_on(1, "invalidated", 1_000_100))
    topics.write(PLACE, word_on(1, "invalidated", 1_000_100))
    topics.write(PLACE, signal_number(2, emitted_wall_ms=1_000_200))  # a feed that began anew
    topics.write(PLACE, signal_number(9, action="sell", emitted_wall_ms=1_000_300))
    reader = Reader(topics, 10, 20)
    reader.read_all()
    log = reader.log
    lives = {int(entry.signal.price): log.life_of(entry, 1_000_400) for entry in log.newest_first("", None)}
    assert {number: [step.state for step in life.steps] for number, life in lives.items()} == {
        0: ["detected", "confirmed", "active", "closed"],
        1: ["detected", "invalidated"],
        2: ["detected", "confirmed", "active", "closed"],
        3: ["detected"],
        9: ["detected", "active"],
    }
    entry = log.get(signal_number(0).id)
    assert entry is not None
    told = detail(entry, lives[0], "")
    assert (told.state, told.ended_by, told.expires_ms) == ("closed", signal_number(9).id, None)
    assert told.lifecycle[-1] == ("closed", 1_000_300)
    assert (told.active_ms, told.signalled_ns) == (1_000_100, 1_260_000)
    assert detail(entry_of_number(log, 3), lives[3], "").active_ms is None
    assert (log.counts["lives"], log.counts["duplicate"], len(log)) == (3, 1, 5)
    assert service(log, 1_000_400).per_minute() == 5.0, "what is told of lives is no signal"
    expired = log.life_of(entry_of_number(log, 9), 1_000_300 + 600_000)
    assert expired.state == "expired"


def entry_of_number(log: SignalLog, number: int) -> Entry:
    entry = log.get(signal_number(number).id)
    assert entry is not None
    return entry


def test_pages_can_be_asked_for_one_state() -> None:
    topics = Topics()
    for number in range(6):
        topics.write(PLACE, signal_number(number, forming=number % 2 == 0))
    topics.write(PLACE, word_on(0, "invalidated", 1_000_100))
    reader = Reader(topics, 10, 20)
    reader.read_all()

    def numbers(state: str, limit: int = 10, before: str = "") -> tuple[list[int], str]:
        found, older = service(reader.log, 1_000_400).page(SignalQuery(state=state, limit=limit, before=before))
        assert {signal.state for signal in found} <= {state}
        return [int(signal.price) for signal in found], older

    assert numbers("invalidated") == ([0], "")
    assert numbers("detected") == ([4, 2], "")
    first, older = numbers("active", 2)
    assert (first, numbers("active", 2, older)) == ([5, 3], ([1], ""))


def test_who_follows_is_told_a_signal_again_when_its_close_says_what_it_is() -> None:
    topics = Topics()
    reader = Reader(topics, 10, 20)
    follower = reader.follow(at_the_beginning())
    topics.write(PLACE, signal_number(1, forming=True))
    topics.write(PLACE, completion_of(signal_number(1)))
    reader.read_all()
    told = reader.drain(follower)
    topics.write(PLACE, word_on(1, "confirmed", 1_000_100))
    topics.write(PLACE, word_on(1, "confirmed", 1_000_100))
    reader.read_all()
    told += reader.drain(follower)
    assert [(event.signal.state, bool(event.signal.stages)) for event in told] == [("detected", True), ("active", True)]
    late = reader.drain(reader.follow(at_the_beginning()))
    assert [event.signal.state for event in late] == ["active"], "who comes later is told all of it at once"


@pytest.mark.parametrize("kept", [1, 10])
def test_a_word_since_the_position_is_told_also_where_it_has_to_be_read_again(kept: int) -> None:
    topics = Topics()
    reader = Reader(topics, kept, 20)
    follower = reader.follow(at_the_beginning())
    topics.write(PLACE, signal_number(1, forming=True))
    reader.read_all()
    (first,) = reader.drain(follower, then=reader)
    topics.write(PLACE, word_on(1, "invalidated", 1_000_100))
    for number in range(2, 8):
        topics.write(PLACE, signal_number(number))
    reader.read_all()
    again = reader.drain(reader.follow(first.position), then=reader)
    told = [(event.signal.price, event.signal.state) for event in again]
    if kept == 10:
        assert told[0] == ("1", "invalidated")
    assert [price for price, _ in told if price != "1"] == [str(number) for number in range(2, 8)]


@pytest.mark.parametrize("between", [0, 5])
@pytest.mark.parametrize("forming", [False, True])
def test_an_old_signal_that_is_read_again_is_told_as_closed_by_what_stands_behind_it(
    between: int, forming: bool
) -> None:
    """Its time is over, but a later one had ended it before: in the same piece, or where the log still has that one."""
    topics = Topics()
    topics.write(PLACE, signal_number(1, forming=forming))
    if forming:
        topics.write(PLACE, signal_number(1, emitted_wall_ms=1_000_100))  # the close says so by a record of its own
    for number in range(2, 2 + between):
        topics.write(PLACE, signal_number(number, trader="desk/b"))
    topics.write(PLACE, signal_number(9, action="sell", emitted_wall_ms=1_000_300))
    if not between:
        topics.write(PLACE, signal_number(10, trader="desk/b"))
    topics.now_ms = 1_000_300 + 24 * 3_600_000
    reader = Reader(topics, 1, 1)
    reader.read_all()
    told = [(event.signal.price, event.signal.state) for event in reader.drain(reader.follow(at_the_beginning()))]
    assert told[0] == ("1", "closed")
    assert [state for price, state in told if price == "9"] == ["expired"]
    assert len(dict(told)) == len(told), "each was told once: what the piece says of it is told with it"


@pytest.mark.parametrize("says", ["sell", "buy", "too late"])
def test_one_told_as_expired_is_told_again_once_a_later_piece_has_what_closed_it(says: str) -> None:
    topics = Topics()
    topics.write(PLACE, signal_number(1))
    for number in range(2, 7):
        topics.write(PLACE, signal_number(number, trader="desk/b"))
    ends_ms = 1_000_300 if says != "too late" else 1_000_000 + 10 * 60_000 + 2
    topics.write(PLACE, signal_number(9, action="buy" if says == "buy" else "sell", emitted_wall_ms=ends_ms))
    topics.write(PLACE, signal_number(10, action="sell", emitted_wall_ms=10**12))
    for number in range(11, 16):
        topics.write(PLACE, signal_number(number, trader="desk/b"))
    topics.now_ms = 2 * 10**12
    reader = Reader(topics, 1, 1)
    reader.read_all()
    follower = reader.follow(at_the_beginning())
    told = [(event.signal.price, event.signal.state) for event in reader.drain(follower)]
    first = [state for price, state in told if price == "1"]
    assert first == (["expired", "closed"] if says == "sell" else ["expired"])
    assert len(told) == 13 + (says == "sell"), "nothing else comes twice"
    assert not follower._corrections._expired.get(("desk/a", "BTC/USDT"), {}).keys() & {signal_number(1).id}


def test_a_second_record_on_the_closed_candle_that_is_read_again_later_says_what_became_of_the_first() -> None:
    topics = Topics()
    topics.write(PLACE, signal_number(1, forming=True))
    for number in range(2, 6):
        topics.write(PLACE, signal_number(number))
    topics.write(PLACE, signal_number(1, emitted_wall_ms=1_000_100))
    for number in range(6, 9):
        topics.write(PLACE, signal_number(number))
    reader = Reader(topics, 1, 1)
    reader.read_all()
    told = [event.signal for event in reader.drain(reader.follow(at_the_beginning()))]
    assert [signal.state for signal in told if signal.price == "1"] == ["detected", "active"]


# ---- pages and figures ----


def service(log: SignalLog, now_ms: int = 0) -> KeptSignals:
    reader = SignalReader(list, log, 10, Away())
    return KeptSignals(log, reader, lambda trader: "Pipe" if trader == "desk/1" else "SharedMemory", "http://x/{trace_id}", lambda: now_ms, lambda: now_ms / 1_000)  # fmt: skip


@quick
@given(st.lists(st.tuples(HERE, st.integers(0, 30)), max_size=60), st.integers(1, 7), st.integers(1, 40), st.data())
def test_pages_give_each_signal_once_while_new_ones_come(
    written: list[tuple[tuple[bytes, int], int]], limit: int, kept: int, data: st.DataObject
) -> None:
    log = Reader(Topics(), kept, 0).log
    offsets = Counter[tuple[bytes, int]]()
    there: list[tuple[int, str]] = []
    for number, (place, later) in enumerate(written):
        log.add(place, offsets[place], 1_000 + later, encode(signal_number(number)))
        offsets[place] += 1
    there = [(entry.key.append_ms, entry.signal.id) for entry in log.newest_first("", None)]
    assert [ms for ms, _ in there] == sorted((ms for ms, _ in there), reverse=True)
    assert len(there) == min(kept, len(written))
    assert [ms for ms, _ in there] == sorted((1_000 + later for _, later in written), reverse=True)[:kept]
    asked = service(log)
    seen: list[str] = []
    cursor, number = "", 1_000
    while True:
        page, cursor = asked.page(SignalQuery(before=cursor, limit=limit))
        seen += [signal.id for signal in page]
        assert len(page) <= limit
        if not cursor:
            break
        if data.draw(st.booleans()) and len(log) < kept:
            place = data.draw(HERE)
            log.add(place, offsets[place], 5_000, encode(signal_number(number)))
            offsets[place] += 1
            number += 1
    assert seen == [identity for _, identity in there]


@pytest.mark.parametrize("cursor", ["x", "1.2.3", "1.abc.3.4", "-1.0000000000.0.0", "1" * 40, "1.0000000000.0.0\n"])
def test_what_is_no_cursor_is_refused(cursor: str) -> None:
    with pytest.raises(InputError, match="is no cursor"):
        service(SignalLog(3)).page(SignalQuery(before=cursor))


def test_following_from_what_is_no_position_is_refused_at_once() -> None:
    with pytest.raises(InputError, match="is no position"):
        service(SignalLog(3)).follow("x", SignalQuery())


def test_filters_leave_only_what_is_asked_for() -> None:
    log = Reader(Topics(), 100, 0).log
    for number in range(12):
        changes = {"trader": f"desk/{number % 2}", "symbol": ["BTC/USDT", "ETH/USDT"][number % 3 == 0], "action": ["buy", "sell"][number % 4 == 0]}  # fmt: skip
        log.add(PLACES[2 * (number % 2)], number // 2, number, encode(signal_number(number, **changes)))
    asked = service(log)

    def numbers(**query: object) -> list[int]:
        return [int(signal.price) for signal in asked.page(SignalQuery(**query))[0]]  # type: ignore[arg-type]

    assert numbers(trader="desk/1") == [11, 9, 7, 5, 3, 1]
    assert numbers(trader="desk/1", symbol="ETH/USDT") == [9, 3]
    assert numbers(action="sell") == [8, 4, 0]
    assert numbers(feed="desk/b") == [11, 9, 7, 5, 3, 1]
    assert numbers(since_ms=1_000_003, until_ms=1_000_006) == [5, 4, 3]
    assert numbers(trader="desk/nobody") == []
    assert asked.get("0" * 32) is None
    found = asked.get(f"{4:032x}")
    assert found is not None
    assert found.trace_url == f"http://x/{4:032x}"


def test_figures_are_of_their_window_trader_and_transport() -> None:
    log = Reader(Topics(), 1_000, 0).log
    offset = 0
    for number in range(200):
        signal = signal_number(number, trader=f"desk/{number % 2}")
        at_ms = 1_000_000 + 1_000 * number
        for record in (signal, completion_of(signal, acknowledged_ns=1_260_000 + 1_000 * (number + 1))):
            log.add(PLACE, offset, at_ms, encode(record))
            offset += 1
    now_ms = 1_200_000
    asked = service(log, now_ms)
    latency = asked.latency(100)
    assert latency.frame_to_signal.count == 100
    assert latency.frame_to_signal.p50_us == pytest.approx(260 + 150)
    assert latency.frame_to_signal.p99_us == pytest.approx(260 + 199)
    assert [stage.name for stage in latency.stages][-1] == "acknowledged"
    assert {stage.count for stage in latency.stages} == {100}
    assert [(one.transport, one.frame_to_signal.count) for one in latency.transports] == [("Pipe", 50), ("SharedMemory", 50)]  # fmt: skip
    assert asked.latency(100, "desk/1").frame_to_signal.count == 50
    assert asked.latency(100, "desk/nobody").frame_to_signal.p50_us is None
    assert asked.per_minute() == 60
    assert asked.recent_counts("desk/1", 3, 10) == [5, 5, 0]
    assert asked.recent_counts("desk/nobody", 3, 10) == [0, 0, 0]


def test_a_summary_asked_for_often_is_made_once() -> None:
    now_s = 0.0
    log = SignalLog(10)
    figures = Figures(log.timeline, lambda trader: "", lambda: now_s)
    assert figures.latency(60, "") is figures.latency(60, "")
    assert figures.latency(60, "x") is not figures.latency(60, "")
    first = figures.latency(60, "")
    now_s = 1.0
    assert figures.latency(60, "") is not first


@quick
@given(st.lists(st.integers(0, 1_000), min_size=1, max_size=20), st.integers(0, 5_000))
def test_shares_leave_nothing_over_that_somebody_could_use(sizes: list[int], budget: int) -> None:
    given_ = shares(sizes, budget)
    assert all(0 <= share <= size for share, size in zip(given_, sizes, strict=True))
    assert sum(given_) == min(sum(sizes), budget)
    short_ones = [share for share, size in zip(given_, sizes, strict=True) if share < size]
    assert all(share >= max(given_) - 1 for share in short_ones)


@quick
@given(st.dictionaries(st.sampled_from(["strategy_ns", "emitted_wall_ms", "open_time_ms", "ordinal", "revision"]), st.integers()), st.integers(), st.text(max_size=20))  # fmt: skip
def test_whatever_a_record_claims_it_can_be_told(changes: dict[str, int], stamp: int, text: str) -> None:
    signal = signal_number(0, reason=text, trader=text, id=text, **changes)
    signal.stamps.received_ns = signal.stamps.decided_ns = stamp
    log = Reader(Topics(), 10, 0).log
    log.add(PLACE, 0, 1, encode(signal))
    log.add(PLACE, 1, 2, encode(completion_of(signal, acknowledged_ns=stamp)))
    for entry in log.newest_first("", None):
        assert detail(entry, log.life_of(entry, 0), "http://x/{trace_id}").model_dump_json()
    service(log, 3).latency(60)
    assert log.counts["signals"] + log.counts["undecodable"] >= 1
