"""Clocks of other hosts and of the exchange: estimated by the least that was seen, and never a negative time."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chandlery.core import clocks
from chandlery.core.clocks import ExchangeClock, HostClocks, MinimumFilter, Stamps, unpack_stamps
from chandlery.core.latency import account
from chandlery.core.signals import Completion, SignalStamps, completed

THERE, HERE = b"t" * 16, b"h" * 16
MS = 1_000_000
MINUTE_NS = 60_000 * MS


class Host:
    """This host and another one, each with a monotonic and a wall clock of its own, on one true time."""

    def __init__(self, patch: pytest.MonkeyPatch, *, there_is_ahead_ns: int) -> None:
        self._patch = patch
        self.true_ns = 1_000_000 * MS
        self.ahead_ns = there_is_ahead_ns
        patch.setattr(clocks, "now_ns", lambda: self.true_ns)
        self.read_by(HERE)
        self.reader = HostClocks()
        self.reader.wall_offset = 0

    def read_by(self, boot: bytes) -> None:
        self._patch.setattr(clocks, "boot_id", lambda: boot)

    def sent(self, delay_ns: int) -> Stamps:
        """A record sent by the other host, read here ``delay_ns`` later."""
        self.read_by(THERE)
        monotonic = self.true_ns + 77 * MS  # its monotonic clock began at another time
        header = Stamps(received_ns=monotonic - 2 * MS, aggregated_ns=monotonic - MS, emitted_ns=monotonic).pack(
            -77 * MS + self.ahead_ns
        )
        self.read_by(HERE)
        self.true_ns += delay_ns
        return self.reader.unpack(header)


@pytest.mark.parametrize("ahead_ms", [-40, 0, 3, 5_000])
def test_no_record_comes_before_it_was_sent_whatever_the_other_hosts_wall_clock_says(
    monkeypatch: pytest.MonkeyPatch, ahead_ms: int
) -> None:
    host = Host(monkeypatch, there_is_ahead_ns=ahead_ms * MS)
    for delay_ms in (9, 2, 30, 4):
        stamps = host.sent(delay_ms * MS)
        assert stamps.emitted_ns <= host.true_ns
        assert stamps.emitted_ns - stamps.aggregated_ns == MS, "stamps of one host keep their distance"
        assert stamps.host == stamps.origin == THERE
    apparent = 2 - ahead_ms  # what the quickest record seemed to take
    assert stamps.host_uncertainty_ns == abs(apparent) * MS
    if apparent < 0:
        assert host.true_ns - stamps.emitted_ns == (4 - 2) * MS, "so the quickest is taken to have taken no time"


def test_a_wall_clock_stepped_forward_over_there_is_noticed_at_once_and_forgotten_in_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    host = Host(monkeypatch, there_is_ahead_ns=0)
    assert host.sent(3 * MS).host_uncertainty_ns == 3 * MS
    host.ahead_ns = 2_000 * MS
    stepped = host.sent(3 * MS)
    assert stepped.emitted_ns <= host.true_ns
    assert stepped.host_uncertainty_ns == 1_997 * MS
    host.ahead_ns = 0  # put right again
    for _ in range(3):
        host.true_ns += MINUTE_NS
        put_right = host.sent(3 * MS)
    assert put_right.host_uncertainty_ns == 3 * MS


def test_what_crossed_hosts_is_uncertain_where_it_crossed_and_nowhere_else() -> None:
    stamps = SignalStamps(
        received_ns=1 * MS, aggregated_ns=3 * MS, emitted_ns=4 * MS, fed_ns=9 * MS, published_ns=10 * MS,
        woken_ns=11 * MS, decided_ns=12 * MS, signalled_ns=13 * MS,
    )  # fmt: skip
    completion = Completion(
        "i", "t", 20 * MS, 5, "aa", "bb", origin_uncertainty_ns=700_000, host_uncertainty_ns=400_000
    )
    told = account(completed(stamps, completion))
    uncertain = {stage.name: stage.uncertainty_us for stage in told.stages if stage.uncertainty_us}
    assert uncertain == {"aggregated": 700, "fed": 400}
    assert sum(stage.duration_us for stage in told.stages) == pytest.approx(told.whole_us)


def test_a_host_that_hands_on_stamps_says_whose_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    host = Host(monkeypatch, there_is_ahead_ns=0)
    stamps = host.sent(3 * MS)
    handed_on = stamps.pack(0)
    monkeypatch.setattr(clocks, "boot_id", lambda: b"z" * 16)
    third = unpack_stamps(handed_on, 0)
    assert (third.origin, third.host) == (THERE, HERE)
    assert third.origin_uncertainty_ns == 3 * MS
    monkeypatch.setattr(clocks, "boot_id", lambda: THERE)
    back = unpack_stamps(handed_on, 0)
    assert (back.origin, back.host) == (b"", HERE), "received here, computed elsewhere"


def test_a_header_of_before_is_still_read() -> None:
    old = struct.pack("<I16s8q", 1, clocks.boot_id(), 5, *range(1, 8))
    assert unpack_stamps(old, 5) == Stamps(1, 2, 3, 4, 5, 6, 7)


def test_the_exchanges_clock_is_known_by_its_quickest_frame() -> None:
    exchange = ExchangeClock()
    transits = []
    for number, delay_ms in enumerate([12, 7, 30, 9]):
        at = (number + 1) * 1_000 * MS
        # The exchange's clock is 1.27 s ahead of ours, as in the captures.
        stamps = Stamps(exchange_ns=at + 50 * MS + 1_270 * MS - delay_ms * MS, received_ns=at)
        exchange.see(stamps, 50 * MS)
        told = account(
            SignalStamps(
                exchange_ns=stamps.exchange_ns, received_ns=at, decided_ns=at + MS, wall_offset_ns=50 * MS,
                exchange_offset_ns=stamps.exchange_offset_ns, exchange_uncertainty_ns=stamps.exchange_uncertainty_ns,
            )
        )  # fmt: skip
        assert told.skew_us == (delay_ms - 1_270) * 1_000
        assert told.transit_us is not None
        assert told.transit_us >= 0
        assert told.transit_uncertainty_us == 1_000, "an exchange stamps in whole milliseconds"
        transits.append(told.transit_us)
    assert transits == [0, 0, 23_000, 2_000]
    replayed = Stamps(received_ns=5, recorded_skew_ns=-1_270 * MS)
    exchange.see(replayed, 50)
    assert replayed.exchange_uncertainty_ns == 0, "a replay says nothing of the clocks of now"


@given(st.lists(st.tuples(st.integers(-(2**40), 2**40), st.integers(0, 5 * 60_000 * MS)), min_size=1, max_size=30))
def test_the_least_is_of_the_last_one_to_two_minutes(seen: list[tuple[int, int]]) -> None:
    one, at_ns, all_seen = MinimumFilter(), 1, []
    for value, later_ns in seen:
        at_ns += later_ns
        one.see(value, at_ns)
        all_seen.append((at_ns, value))
        newest = [value for at, value in all_seen if at_ns - at < MINUTE_NS]
        assert one.least <= min(newest)
        assert one.least in {value for _, value in all_seen}
    assert one.known
    assert MinimumFilter().least == 0
