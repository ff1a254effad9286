"""Resuming where a position lacks a partition, and topics that are made again: nothing is lost, nothing told as new."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.console_reading.reading_setup import completion_of, signal_number
from tests.console_reading.simulated_topics import (
    PLACES,
    Reader,
    Told,
    Topics,
    at_the_beginning,
    check_once_and_in_order,
)

from chandlery.console.market import SignalEvent, SignalQuery
from chandlery.console.reading.following import Follower, Unplaced
from chandlery.console.reading.positions import OVERLAP_MS, Position, decode, feed_key
from chandlery.console.reading.signal_log import SignalLog
from chandlery.core.signals import encode

#: No example is timed: other work of the machine is no fault.
quick = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
PLACE = PLACES[0]
HERE = st.sampled_from(PLACES)


# ---- resuming without a place ----


def an_hour_without(place: tuple[bytes, int]) -> tuple[Topics, str]:
    """A signal a minute in ``place`` and in another partition, and a position of before that names only the other."""
    topics = Topics()
    position = Position()
    position.set(PLACES[0], 0, topics.now_ms)
    for number in range(120):
        topics.now_ms += 30_000
        topics.write((PLACES[0], place)[number % 2], signal_number(number))
    return topics, position.encode()


def told_of(told: Told, parity: int) -> list[int]:
    return sorted({int(event.signal.price) for event in told if int(event.signal.price) % 2 == parity})


@pytest.mark.parametrize("place", PLACES[1:])
@pytest.mark.parametrize("cut", [1, 30, 60, 61, 110])
def test_who_is_cut_while_resuming_loses_nothing_of_a_partition_that_its_position_lacks(
    place: tuple[bytes, int], cut: int
) -> None:
    topics, position = an_hour_without(place)
    reader = Reader(topics, 5, 5)
    reader.read_all()
    told = reader.drain(reader.follow(position), cut)
    assert len(told) == cut
    assert decode(told[0].position).get(place) is not None  # it has its place before anything is told
    told += reader.drain(reader.follow(told[-1].position))
    assert (told_of(told, 0), told_of(told, 1)) == (list(range(0, 120, 2)), list(range(1, 120, 2)))
    check_once_and_in_order(topics, told)


def test_a_partition_that_cannot_be_placed_is_looked_for_from_the_first_time_however_often_one_resumes() -> None:
    topics, position = an_hour_without(PLACES[2])
    reader = Reader(topics, 5, 5)
    reader.read_all()
    told: Told = []
    for _ in range(3):
        told += reader.drain(reader.follow(position), away=PLACES[2])
        position = told[-1].position
        topics.now_ms += 60_000
        topics.write(PLACES[0], signal_number(2 * topics.end(PLACES[0])))
        reader.read_all()
    assert told_of(told, 1) == []
    follower = reader.follow(position)
    told += reader.drain(follower, away=PLACES[2])
    follower.try_again()
    told += reader.drain(follower, 3)
    told += reader.drain(reader.follow(told[-1].position))
    assert told_of(told, 1) == list(range(1, 120, 2))
    check_once_and_in_order(topics, told)


def test_a_partition_that_comes_late_and_cannot_be_placed_is_looked_for_from_the_first_time() -> None:
    topics, position = an_hour_without(PLACES[2])
    reader = Reader(topics, 5, 5)
    reader.log.leave(PLACES[2][0])
    reader.read(PLACES[0])
    follower = reader.follow(position)
    told = reader.drain(follower)
    reader.log.begin("desk/b", PLACES[2], 55, 60)
    topics.write(PLACES[0], signal_number(200))
    reader.read_all()
    told += reader.drain(follower, away=PLACES[2])
    told += reader.drain(reader.follow(told[-1].position))
    assert told_of(told, 1) == list(range(1, 120, 2))
    check_once_and_in_order(topics, told)


def test_who_is_cut_while_catching_up_loses_nothing_of_what_does_not_fit_into_a_position() -> None:
    others = [(feed_key(f"desk/{number}", "t"), 0) for number in range(200)]
    position = Position()
    for place in others:
        position.set(place, 0, 1_000_000)
    log = SignalLog(1_000)
    for number, place in enumerate(others):
        log.begin(f"desk/{number}", place, 0, 0)
    for number in range(400):  # one partition after the other is told, each over an hour
        log.add(others[number // 2], number % 2, 2_000_000 + number % 2 * 3_600_000, encode(signal_number(number)))
    told: Counter[str] = Counter()
    text = position.encode()
    for cut in (1, 100, 300, 1_000):
        follower = Follower(log, decode(text), SignalQuery())
        for _ in range(cut):
            step = follower.next()
            while isinstance(step, Unplaced):
                since = [at for at in range(2) if 2_000_000 + at * 3_600_000 >= step.since_ms]
                follower.place_at(step.partition, since[0] if since else 2)
                step = follower.next()
            if step is None:
                break
            assert isinstance(step, SignalEvent)
            told[step.signal.id] += 1
            text = step.position
    assert len(told) == 400


@settings(max_examples=60, deadline=None)
@given(st.data(), st.integers(1, 12), st.integers(0, 30), st.sets(HERE, max_size=2))
def test_a_position_that_lacks_partitions_gives_every_signal_whatever_is_away_or_cut(
    data: st.DataObject, kept: int, back: int, named: set[tuple[bytes, int]]
) -> None:
    topics, told, number = Topics(), list[SignalEvent](), 0
    first = Position()
    first.time_ms = topics.now_ms
    for place in named:
        first.set(place, 0, topics.now_ms)
    reader, position = Reader(topics, kept, back), first.encode()
    follower = reader.follow(position)
    for _ in range(data.draw(st.integers(1, 25))):
        what = data.draw(st.sampled_from(["write", "write", "read", "tell", "again", "restart", "reconnect"]))
        if what == "write":
            place = data.draw(HERE)
            for _ in range(data.draw(st.integers(1, 8))):
                topics.now_ms += data.draw(st.sampled_from([0, 2 * OVERLAP_MS]))
                topics.write(place, signal_number(number))
                number += 1
        elif what == "read":
            reader.read(data.draw(HERE), data.draw(st.integers(1, kept)))
        elif what == "again":
            follower.try_again()
        elif what != "tell":
            if what == "restart":
                reader = Reader(topics, kept, back)
            follower = reader.follow(position)
        told += reader.drain(follower, data.draw(st.integers(0, 9)), away=data.draw(st.none() | HERE))
        follower._catching_up = True  # it is quick: what overtakes it here is the test's doing
        position = told[-1].position if told else position
    follower = reader.follow(position)
    for place in PLACES:
        while reader.at[place] < topics.end(place):
            reader.read(place, 1)
            told += reader.drain(follower)
    told += reader.drain(follower)
    assert {int(event.signal.price) for event in told} == set(range(number))
    assert sum(event.lost for event in told) == 0


def test_once_everything_is_told_a_position_that_leaves_some_out_has_the_newest_time() -> None:
    topics, position = an_hour_without(PLACES[2])
    reader = Reader(topics, 5, 5)
    reader.read_all()
    follower = reader.follow(position)
    reader.drain(follower)
    topics.write(PLACES[0], signal_number(200))
    reader.read_all()
    (event,) = reader.drain(follower)
    assert decode(event.position).time_ms == topics.now_ms


# ---- topics made again ----


@pytest.mark.parametrize("again", [1, 2])
def test_who_stays_hears_the_signals_of_a_feed_that_was_deleted_and_made_again(again: int) -> None:
    topics = Topics()
    reader = Reader(topics, 50, 50)
    resumed, live = reader.follow(at_the_beginning()), reader.follow()
    number = 0
    for life in range(1 + again):
        if life:
            reader.log.leave(PLACE[0])
            topics.records[PLACE] = []
            reader.log.begin("desk/a", PLACE, 0, 0)
            reader.at[PLACE] = 0
        first = number
        for number in range(first, first + 9 - 2 * life):
            topics.write(PLACE, signal_number(number))
        number += 1
        reader.read_all()
        for follower in (resumed, live):
            assert [int(event.signal.price) for event in reader.drain(follower)] == list(range(first, number))
    assert reader.log.counts["restarted"] == again


def test_a_topic_that_is_made_again_while_one_goes_on_without_it_is_told_whole() -> None:
    topics = Topics()
    reader = Reader(topics, 3, 3)
    follower = reader.follow()
    for number in range(9):
        topics.write(PLACE, signal_number(number))
        reader.read_all()
        assert len(reader.drain(follower)) == 1
    partition = reader.log.partition(PLACE)
    assert partition is not None
    follower.postpone(partition)
    reader.log.leave(PLACE[0])
    topics.records[PLACE] = []
    reader.log.begin("desk/a", PLACE, 0, 0)
    reader.at[PLACE] = 0
    for number in range(10, 22):
        topics.write(PLACE, signal_number(number))
    reader.read_all()
    assert reader.drain(follower) == []
    follower.try_again()
    assert [int(event.signal.price) for event in reader.drain(follower)] == list(range(10, 22))


def test_a_signal_too_old_to_be_kept_is_told_all_the_same_and_so_is_its_completion() -> None:
    log = Reader(Topics(), 2, 0).log
    follower = Follower(log, None, SignalQuery())
    for number in range(2):
        log.add(PLACE, number, 5_000, encode(signal_number(number)))
    late = signal_number(9)
    log.add(PLACES[2], 0, 1_000, encode(late))  # its broker was away, or its clock is behind
    told = [follower.next() for _ in range(3)]
    log.add(PLACES[2], 1, 1_001, encode(completion_of(late)))
    told.append(follower.next())
    assert [(event.signal.price, bool(event.signal.stages)) for event in told if isinstance(event, SignalEvent)] == [
        ("0", False),
        ("1", False),
        ("9", False),
        ("9", True),
    ]
    assert [entry.signal.price for entry in log.newest_first("", None)] == ["1", "0"]
    assert log.counts["old"] == 1
