"""Histograms, how far back to read, and which ids were seen."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from chandlery.core.assignment import TraderStatus
from chandlery.core.histogram import Histogram, bucket_of, upper_us
from chandlery.core.latency import account
from chandlery.core.signals import SignalStamps
from chandlery.workers.feed.admission import RecentIds
from chandlery.workers.feed.catchup import Depth
from chandlery.workers.feed.histogram import LatencyBook
from chandlery.workers.feed.recall import MOST_RECORDS
from chandlery.workers.feed.status import is_news


@given(st.floats(0, 1e12))
def test_a_bucket_holds_its_values_within_a_thirtieth(value_us: float) -> None:
    upper = upper_us(bucket_of(value_us))
    if value_us < 2**31:
        assert int(value_us) <= upper <= max(int(value_us), int(value_us) * (1 + 1 / 31))


@given(st.integers(0, 2**31 - 1))
def test_buckets_are_in_order(value_us: int) -> None:
    assert bucket_of(value_us + 1) - bucket_of(value_us) in (0, 1)


@given(st.lists(st.integers(0, 10**7), min_size=1, max_size=200), st.sampled_from([0.01, 0.5, 0.99, 1.0]))
def test_a_quantile_is_the_ranked_value_rounded_up_to_its_bucket(values: list[int], share: float) -> None:
    histogram = Histogram()
    for value in values:
        histogram.record(value)
    rank = max(1, -(-int(share * 1_000) * len(values) // 1_000))
    exact = sorted(values)[rank - 1]
    assert histogram.quantile(share) == upper_us(bucket_of(exact))


def test_an_empty_histogram_says_zero() -> None:
    assert Histogram().summary() == {"p50": 0.0, "p99": 0.0, "count": 0}


def test_the_book_counts_each_stage_once() -> None:
    book = LatencyBook()
    book.record(account(SignalStamps(received_ns=1_000, fed_ns=501_000, acknowledged_ns=2_001_000)))
    stages = book.summary()["stages"]
    assert isinstance(stages, dict)
    assert stages["fed"] == {"p50": 503.0, "p99": 503.0, "count": 1}
    assert stages["woken"]["count"] == 0
    assert book.frame_to_signal.count == 1


def test_depth_is_found_by_the_stretch_that_has_enough() -> None:
    depth = Depth(need=3)
    depth.begin_stretch()
    for at in (40, 50, 50, 40):  # the writer repeated itself
        depth.see(at)
    depth.end_stretch(1_000, beginning=False)
    assert depth.start == -1
    depth.begin_stretch()
    depth.see(30)
    depth.end_stretch(500, beginning=False)
    assert depth.start == 500
    depth.end_stretch(0, beginning=True)
    assert depth.start == 500


def test_depth_ends_at_the_beginning_whatever_was_found() -> None:
    depth = Depth(need=3)
    depth.end_stretch(7, beginning=True)
    assert depth.start == 7


def test_recent_ids_forget_the_oldest() -> None:
    recent = RecentIds(limit=2)
    assert [recent.add(each) for each in ("a", "b", "a", "c", "a")] == [True, True, False, True, True]


def test_recalled_ids_have_room_of_their_own_and_what_is_forgotten_of_them_is_counted() -> None:
    recent = RecentIds(limit=2, recalled_limit=3)
    ids = [f"{number:032x}" for number in range(4)]
    assert [recent.recall(each) for each in (*ids[:3], ids[0], "no id", "Z" * 32)] == [True] * 3 + [False] * 3
    assert [recent.add(each) for each in ("a", "b", "c", "d")] == [True] * 4
    assert [recent.add(each) for each in ids[:3]] == [False] * 3, "what passes doesn't evict them"
    assert not recent.add("d"), "nor do they evict what passes"
    assert recent.forgotten == 0
    assert recent.recall(ids[3])
    assert (recent.forgotten, recent.add(ids[0])) == (1, True)


def test_an_id_that_passed_and_is_recalled_outlives_what_passes_later() -> None:
    recent = RecentIds(limit=1)
    identity = "0" * 32
    assert recent.add(identity)
    assert not recent.recall(identity)
    assert recent.add("other")
    assert not recent.add(identity)


def test_as_many_ids_are_kept_as_the_longest_look_finds() -> None:
    recent = RecentIds()
    ids = [f"{number:032x}" for number in range(MOST_RECORDS)]
    assert all(map(recent.recall, ids))
    assert recent.forgotten == 0
    assert not any(map(recent.add, ids))


def test_counters_are_no_news_and_states_are() -> None:
    before = {"a": TraderStatus("Active", calls=1)}
    assert not is_news(before, {"a": TraderStatus("Active", calls=2, rss_bytes=5)})
    assert is_news(before, {"a": TraderStatus("Backoff", calls=1)})
    assert is_news(before, {})
