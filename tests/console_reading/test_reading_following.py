"""Those who follow the log of signals: whatever is slow, restarted or missing."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from tests.console_reading.reading_setup import signal_number
from tests.console_reading.simulated_topics import (
    HERE,
    PLACE,
    PLACES,
    Reader,
    Told,
    Topics,
    at_the_beginning,
    check_once_and_in_order,
    quick,
)

from chandlery.console.market import SignalEvent, SignalQuery
from chandlery.console.reading.following import Unplaced
from chandlery.console.reading.positions import OVERLAP_MS, Place, Position, decode

# ---- following ----


@quick
@given(st.data(), st.integers(1, 12), st.integers(0, 30))
def test_a_position_gives_every_signal_once_in_order_however_often_the_reader_restarts(
    data: st.DataObject, kept: int, back: int
) -> None:
    topics, told, number = Topics(), list[SignalEvent](), 0
    reader = Reader(topics, kept, back)
    position = at_the_beginning()
    follower = reader.follow(position)
    for _ in range(data.draw(st.integers(1, 25))):
        what = data.draw(st.sampled_from(["write", "write", "read", "tell", "tell", "restart", "reconnect"]))
        if what == "write":
            place = data.draw(HERE)
            for _ in range(data.draw(st.integers(1, 8))):
                topics.write(place, signal_number(number))
                number += 1
        elif what == "read":
            reader.read(data.draw(HERE), data.draw(st.integers(1, kept)))
        elif what == "tell":
            told += reader.drain(follower, then=reader)
        else:
            if what == "restart":
                reader = Reader(topics, kept, back)
            position = told[-1].position if told else position
            follower = reader.follow(position)
        if what != "tell":
            told += reader.drain(follower, data.draw(st.integers(0, 2)))
            follower._catching_up = True  # it is quick: what overtakes it here is the test's doing
    for place in PLACES:
        while reader.at[place] < topics.end(place):
            reader.read(place, 1)
            told += reader.drain(follower)
    told += reader.drain(follower)
    check_once_and_in_order(topics, told)
    assert sum(event.lost for event in told) == 0


@quick
@given(st.lists(HERE, max_size=20), st.lists(HERE, max_size=20), st.integers(0, 5), st.booleans())
def test_where_one_begins_who_follows_from_now_on_is_a_position_that_misses_nothing(
    before: list[Place], after: list[Place], unread: int, restarts: bool
) -> None:
    topics = Topics()
    for number, place in enumerate(before):
        topics.write(place, signal_number(number))
    reader = Reader(topics, 50, 10)
    for place in PLACES:
        reader.read(place, unread)  # history may still be being read
    follower = reader.follow()
    begin = follower.begin()
    for number, place in enumerate(after):
        topics.write(place, signal_number(100 + number))
    if restarts:
        reader = Reader(topics, 50, 3)
    reader.read_all()
    told = reader.drain(reader.follow(begin))
    assert sorted(event.signal.price for event in told) == sorted(str(100 + number) for number in range(len(after)))


def test_where_one_begins_has_the_time_for_a_feed_that_comes_later() -> None:
    topics = Topics()
    reader = Reader(topics, 5, 5)
    assert decode(reader.follow().begin()).time_ms == topics.now_ms


@quick
@given(st.integers(1, 10), st.lists(st.integers(0, 30), max_size=12))
def test_a_slow_follower_is_told_or_told_that_it_lost_each_signal(kept: int, steps: list[int]) -> None:
    topics, number = Topics(), 0
    reader = Reader(topics, kept, 0)
    follower = reader.follow()
    told: Told = []
    for step in [*steps, 1]:
        for _ in range(step):
            topics.write(PLACES[number % 3], signal_number(number))
            number += 1
        reader.read_all()
        told += reader.drain(follower)
    assert len(told) + sum(event.lost for event in told) == number
    assert len({event.signal.id for event in told}) == len(told)
    assert reader.counts["overtaken"] == sum(event.lost for event in told)


def test_what_kafka_no_longer_has_is_told_as_lost() -> None:
    topics = Topics()
    for number in range(20):
        topics.write(PLACE, signal_number(number))
    topics.begins[PLACE] = 7
    reader = Reader(topics, 5, 5)
    reader.read_all()
    told = reader.drain(reader.follow(at_the_beginning()))
    assert [(event.signal.price, event.lost) for event in told] == [("7", 7), *((str(at), 0) for at in range(8, 20))]


def test_who_comes_without_a_position_is_told_what_comes_from_then_on() -> None:
    topics = Topics()
    topics.write(PLACE, signal_number(0))
    reader = Reader(topics, 5, 5)
    follower = reader.follow()
    reader.read_all()  # what was there before it came, though read after
    assert reader.drain(follower) == []
    topics.write(PLACE, signal_number(1))
    reader.read_all()
    assert [event.signal.price for event in reader.drain(follower)] == ["1"]


def test_a_feed_that_was_left_out_of_a_position_is_found_again_by_the_time() -> None:
    topics = Topics()
    other = PLACES[2]
    for number in range(4):
        topics.write(other, signal_number(number))
    topics.now_ms += 10 * OVERLAP_MS
    reader = Reader(topics, 3, 3)
    position = Position()
    for place in PLACES[:2]:
        position.set(place, 0, topics.now_ms)
    for number in range(10, 16):
        topics.write(other, signal_number(number))
    reader = Reader(topics, 3, 3)
    reader.read_all()
    told = reader.drain(reader.follow(position.encode()))
    assert [event.signal.price for event in told] == ["10", "11", "12", "13", "14", "15"]


def test_a_partition_whose_kafka_is_away_holds_no_other_up() -> None:
    topics = Topics()
    for number in range(20):
        topics.write(PLACES[number % 2], signal_number(number))
    reader = Reader(topics, 3, 3)
    reader.read_all()
    follower = reader.follow(at_the_beginning())
    told: Told = []
    step = follower.next()
    while step is not None:
        if isinstance(step, SignalEvent):
            told.append(step)
        elif not isinstance(step, Unplaced) and step.partition.place == PLACES[0]:  # type: ignore[union-attr]
            follower.postpone(step.partition)  # type: ignore[union-attr]
        else:
            reader._replay(follower, step)  # type: ignore[arg-type]
        step = follower.next()
    assert [int(event.signal.price) for event in told] == list(range(1, 20, 2))
    follower.try_again()
    told += reader.drain(follower)
    check_once_and_in_order(topics, told)


def test_only_what_is_asked_for_is_told_and_its_position_covers_the_rest() -> None:
    topics = Topics()
    for number in range(10):
        topics.write(PLACE, signal_number(number, trader=f"desk/{number % 2}"))
    reader = Reader(topics, 50, 50)
    reader.read_all()
    told = reader.drain(reader.follow(at_the_beginning(), SignalQuery(trader="desk/1")))
    assert [event.signal.price for event in told] == ["1", "3", "5", "7", "9"]
    again = reader.drain(reader.follow(told[2].position))
    assert [event.signal.price for event in again] == ["6", "7", "8", "9"]


def test_a_topic_that_lost_its_newest_records_tells_nobody_what_is_old_again() -> None:
    topics = Topics()
    for number in range(30):
        topics.write(PLACE, signal_number(number))
        topics.now_ms += OVERLAP_MS
    reader = Reader(topics, 5, 100)
    reader.read_all()
    position = reader.drain(reader.follow(at_the_beginning()))[-1].position
    del topics.records[PLACE][-2:]
    topics.write(PLACE, signal_number(100))
    reader = Reader(topics, 5, 5)
    reader.read_all()
    assert [event.signal.price for event in reader.drain(reader.follow(position))] == ["100"]


def test_a_feed_that_goes_and_comes_back_goes_on_for_who_follows() -> None:
    topics = Topics()
    reader = Reader(topics, 10, 0)
    follower = reader.follow()
    for number in range(5):
        topics.write(PLACE, signal_number(number))
    reader.read_all()
    told = reader.drain(follower)
    reader.log.leave(PLACE[0])
    assert {partition.feed for partition in reader.log.partitions} == {"desk/b"}
    came_meanwhile = reader.follow()
    for number in range(5, 20):
        topics.write(PLACE, signal_number(number))
    reader.log.begin("desk/a", PLACE, 12, 20)
    reader.at[PLACE] = 12
    topics.write(PLACE, signal_number(20))
    reader.read(PLACE)
    told += reader.drain(follower)
    assert [event.signal.price for event in told] == [str(number) for number in range(21)]
    assert [event.signal.price for event in reader.drain(came_meanwhile)] == ["20"]
    assert reader.drain(reader.follow(told[8].position))[0].signal.price == "9"
