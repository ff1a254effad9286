"""A run's counts out of what its parts say."""

from __future__ import annotations

import io
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from chandlery.cli.collecting import Collected
from chandlery.cli.runtime.counting import TRADER_DROPS, Evidence, FeedEvidence, WorkerEvidence, since, summarise
from chandlery.cli.runtime.ring_counts import signals_waiting
from chandlery.console.live import summary_view
from chandlery.console.summary import SETTLING_S
from chandlery.core.signals import Completion, Decided, Life, Signal, SignalStamps, encode
from chandlery.stream.aggregator.status import Drops
from chandlery.workers.feed.report import DROP_REASONS
from chandlery.workers.segment import SignalRing


def symbol(session: int, /, **counts: int) -> dict[str, Any]:
    """One symbol in an aggregator's status; ``received`` is the sum of the counts."""
    names = ("counted", "open", "late", "duplicate", "dead")
    trades = {name: counts.get(name, 0) for name in names}
    received, trades["unreadable"] = sum(trades.values()), counts.get("unreadable", 0)
    candles = {name: counts.get(name, 0) for name in ("closed", "revised", "filled")}
    dropped = {name: counts.get(name, 0) for name in ("session", "session_trades", "history", "covered", "records")}
    return {
        "session": session,
        "counts": {"received": received, **trades},
        "candles": candles,
        "dropped": dropped,
    }


def evidence(**changes: Any) -> Evidence:
    return Evidence(
        **{"version": "1", "session": 5, "seconds": 1.0, "desired": ["default/a"], "not_ready": [], **changes}
    )


def feed(appended: int, now: dict[str, Any], before: dict[str, Any] | None = None, exact: bool = True) -> FeedEvidence:
    ingest = Counter({"appended": appended, "received": appended, "frames": appended + 1})
    return FeedEvidence(ingest, exact, aggregator(now), aggregator(before or {}))


def aggregator(symbols: dict[str, Any]) -> dict[str, Any]:
    """An aggregator's status; ``"#3"``: what no symbol can be told of in partition 3."""
    unknown = {name.removeprefix("#"): one for name, one in symbols.items() if name.startswith("#")}
    partitions = {str(number): {"applied": 1, "unknown": unknown.get(str(number))} for number in range(4)}
    told = {name: one for name, one in symbols.items() if not name.startswith("#")}
    return {"symbols": {"": symbol(9, dead=99), **told}, "partitions": partitions}


def topic(*ids: str) -> Collected:
    collected = Collected()
    for one in ids:
        stamps = SignalStamps(received_ns=1_000_000, published_ns=3_000_000, decided_ns=3_100_000)
        signal = Signal(one, "default/a", "s", "c", "r", 0, "buy", "BTC/USDT", "1s", 0, 1, "1", 1.0, "", stamps=stamps)
        collected.add(encode(signal))
        collected.add(encode(Completion(one, "default/a", acknowledged_ns=5_000_000, wall_offset_ns=1)))
    return collected


def worker(emitted: int, published: int, whole: bool = True, **ring: int) -> WorkerEvidence:
    dropped = {"fenced": ring.pop("fenced", 0)}
    signals = {"emitted": emitted, "published": published, "dropped": dropped}
    drops = {name: number for name, number in dropped.items() if number}
    return WorkerEvidence({"signals": signals, "drops": drops}, whole, {"default/a": 2}, {"default/a": Counter(ring)})


def test_a_continuous_sources_counts_are_those_since_the_run_began() -> None:
    before = {"BTC/USDT": symbol(0, counted=90, open=10, closed=9, revised=5, filled=40)}
    now = {"BTC/USDT": symbol(0, counted=104, open=2, late=1, duplicate=3, closed=11, revised=8, filled=44)}
    summary = summarise(evidence(feeds=[feed(10, now, before)]))
    assert summary.trades.received == summary.trades.ingested == 10
    assert (summary.trades.counted, summary.trades.open) == (14, -8)
    assert (summary.candles.closed, summary.candles.revised, summary.candles.filled) == (2, 3, 4)
    assert summary.drops == {"late": 1, "duplicate": 3}
    assert summary.reconciles


def test_a_new_sessions_counts_are_taken_whole() -> None:
    before = {"BTC/USDT": symbol(1, counted=90, open=10, closed=50, revised=20, filled=30)}
    now = {
        "BTC/USDT": symbol(2, counted=4, open=1, closed=6, revised=1),
        "ETH/USDT": symbol(2, counted=5, closed=7, revised=2, filled=8),
    }
    summary = summarise(evidence(feeds=[feed(10, now, before)]))
    assert summary.trades.received == 10
    assert (summary.candles.closed, summary.candles.revised, summary.candles.filled) == (13, 3, 8)
    assert since(now["BTC/USDT"], before["BTC/USDT"])["counts.counted"] == 4


def test_a_new_sessions_drops_are_those_of_the_run_although_the_aggregator_counts_them_over_all() -> None:
    before = {
        "BTC/USDT": symbol(1, counted=90, session=4, session_trades=9, history=3, records=2),
        "#0": symbol(0, records=1),
    }
    now = {
        "BTC/USDT": symbol(2, counted=9, dead=1, session=5, session_trades=9, history=5, records=3),
        "#0": symbol(2, records=1),
        "ETH/USDT": symbol(2, covered=6),
    }
    drops = summarise(evidence(feeds=[feed(10, now, before)])).drops
    assert drops == {
        "dead": 1, "aggregator_session": 1, "aggregator_history": 2, "aggregator_records": 1, "aggregator_covered": 6
    }  # fmt: skip


def test_what_no_symbol_can_be_told_of_counts_by_the_sessions_of_its_partition() -> None:
    before = {
        name: symbol(session, dead=2, unreadable=2) for name, session in (("#0", 1), ("#1", 1), ("#2", -1), ("#3", -1))
    }
    now = {
        "#0": symbol(2, dead=1, unreadable=1),
        "#1": symbol(1, dead=5, unreadable=5),
        "#2": symbol(-1, dead=2, unreadable=2),
        "#3": symbol(2, dead=2, unreadable=2),  # what was there before a first session is carried into it
    }
    trades = summarise(evidence(feeds=[feed(0, now, before)])).trades
    assert (trades.received, trades.dead, trades.unreadable) == (4, 4, 4)


def test_several_feeds_add_up() -> None:
    one, other = feed(5, {"A/B": symbol(1, counted=5)}), feed(7, {"A/B": symbol(1, counted=7)})
    summary = summarise(evidence(feeds=[one, other]))
    assert (summary.trades.received, summary.frames) == (12, 14)


@pytest.mark.parametrize("exact", [True, False])
def test_trades_lost_on_the_way_are_a_problem_where_ingest_knows_what_it_sent(exact: bool) -> None:
    summary = summarise(evidence(feeds=[feed(11, {"A/B": symbol(1, counted=10)}, exact=exact)]))
    assert summary.reconciles is not exact
    assert bool(summary.problems) is exact


@pytest.mark.parametrize(("arrived", "problems"), [(7, 0), (6, 1)])
def test_an_ingest_that_was_killed_excuses_no_other_feed_from_saying_what_it_sent(arrived: int, problems: int) -> None:
    killed = feed(3, {"A/B": symbol(1, counted=5)}, exact=False)
    other = feed(7, {"A/B": symbol(1, counted=arrived)})
    for feeds in ([killed, other], [other, killed]):
        summary = summarise(evidence(feeds=feeds))
        assert (summary.trades.ingested, summary.trades.received) == (12, 5 + arrived)
        assert (summary.reconciles, len(summary.problems)) == (not problems, problems)


def test_records_that_cannot_be_read_are_counted_and_no_loss_of_ingests() -> None:
    before = {"#1": symbol(0, dead=3, unreadable=3)}
    now = {"#1": symbol(0, dead=5, unreadable=5), "A/B": symbol(0, counted=10, dead=1, unreadable=1)}
    for exact in (True, False):
        summary = summarise(evidence(feeds=[feed(10, now, before, exact)]))
        trades = summary.trades
        assert (trades.ingested, trades.received, trades.dead, trades.unreadable) == (10, 13, 3, 3)
        assert summary.reconciles


def test_drops_of_every_part_are_named_and_zeros_left_out() -> None:
    ingest = Counter({"drop:ingest_buffer": 3, "drop:malformed_json": 0})
    source = FeedEvidence(ingest, True, {"symbols": {"A/B": symbol(1, session=4)}}, {})
    told = worker(2, 1, fenced=1, stale=6, lapped=7, cooled_down=8, signals=2)
    summary = summarise(evidence(feeds=[source], workers=[told], signals=topic("a" * 32)))
    traders = {"trader_stale": 6, "trader_lapped": 7, "trader_cooled_down": 8}
    assert summary.drops == {"ingest_buffer": 3, "aggregator_session": 4, "fenced": 1, **traders}
    assert summary.signals.dropped == 1
    assert summary.reconciles


def test_every_reason_of_the_parts_is_in_the_summarys_documentation() -> None:
    docs = Path(__file__).parents[2] / "docs"
    table = documented(docs / "summary.md")
    assert {f"trader_{name}" for name in TRADER_DROPS} < table
    assert {f"aggregator_{name}" for name in Drops.__struct_fields__} < table
    assert {"late", "duplicate", "dead", "missing_ids", "ingest_buffer"} < table
    assert set(DROP_REASONS) < documented(docs / "status.md")


def documented(page: Path) -> set[str]:
    """The reasons that a page's section on drops tells of."""
    _, section = re.split(r"^## (?:D|`d)rops`?$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    rows = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \|", section.split("\n## ", 1)[0], re.MULTILINE)
    return {reason for row in rows for reason in re.findall(r"\w+", row)}


def test_signals_of_a_whole_feed_are_what_it_took_and_what_still_waits() -> None:
    summary = summarise(evidence(workers=[worker(2, 2, signals=5, waiting=1)], signals=topic("a" * 32, "b" * 32)))
    assert (summary.signals.emitted, summary.signals.pending, summary.signals.published) == (3, 1, 2)
    assert summary.reconciles


def test_signals_of_a_feed_that_was_killed_are_counted_by_the_rings() -> None:
    told = worker(0, 0, whole=False, signals=3, carried=1)
    summary = summarise(evidence(workers=[told], signals=topic("a" * 32, "b" * 32, "c" * 32, "d" * 32)))
    assert (summary.signals.emitted, summary.signals.carried) == (3, 1)
    assert summary.reconciles


def test_restarts_of_traders_are_summed_over_the_workers() -> None:
    one, other = worker(0, 0), worker(0, 0)
    assert summarise(evidence(workers=[one])).traders.restarts == 2
    assert summarise(evidence(workers=[one, other])).traders.restarts == 4


def test_what_a_new_process_signals_again_on_a_close_is_a_confirmation_and_no_loss() -> None:
    """Its ring counts both, the topic has the signal once and says that the close confirms it."""
    collected = topic("a" * 32, "b" * 32)
    collected.add(encode(Life("a" * 32, "default/a", "BTC/USDT", "confirmed", 0, 1)))
    for signals, reconciles in ((2, True), (3, True), (4, False)):
        told = worker(0, 0, whole=False, signals=signals)
        assert summarise(evidence(workers=[told], signals=collected)).reconciles is reconciles
    assert not summarise(evidence(workers=[worker(3, 3, signals=3)], signals=collected)).reconciles, (
        "a feed knows better"
    )


def test_slots_that_tell_of_other_signals_lives_are_no_signals_that_wait(tmp_path: Path) -> None:
    ring = SignalRing.create(str(tmp_path / "a.ring"), trader="default/a", slots=8)
    signal = Signal("a" * 32, "default/a", "s", "c", "r", 0, "buy", "BTC/USDT", "1s", 0, 1, "1", 1.0, "")
    for payload in (encode(signal), encode(Decided("default/a", "c", "BTC/USDT", "1s", 0, 1)), b"garbage"):
        assert ring.push(payload)
    assert signals_waiting(SignalRing.attach(str(tmp_path / "a.ring"))) == 2, "garbage is dropped as a signal"


def test_a_signal_that_never_reached_the_topic_is_a_problem() -> None:
    summary = summarise(evidence(workers=[worker(2, 2, signals=2)], signals=topic("a" * 32)))
    assert not summary.reconciles


def test_latency_is_taken_from_each_signals_own_account() -> None:
    summary = summarise(evidence(workers=[worker(1, 1, signals=1)], signals=topic("a" * 32)))
    latency = summary.latency_us
    assert latency.frame_to_signal.p50 == 4000.0
    assert latency.visible_to_decided.p50 == 100.0
    assert latency.stages["acknowledged"].p50 == 1900.0


def test_what_comes_while_kafka_warms_up_is_told_apart() -> None:
    collected = topic("a" * 32, "b" * 32, "c" * 32)
    late = collected.signals["c" * 32].stamps
    for name in ("received_ns", "published_ns", "decided_ns", "acknowledged_ns"):
        setattr(late, name, getattr(late, name) + SETTLING_S * 1_000_000_000)
    summary = summarise(evidence(workers=[worker(3, 3, signals=3)], signals=collected))
    latency = summary.latency_us
    assert (latency.frame_to_signal.count, latency.settled.count, latency.settled.p50) == (3, 1, 4000.0)
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(summary_view(summary))
    assert "without the first 5 s" in console.export_text()
    latency.settled.count = 3
    console.print(summary_view(summary))
    assert "without the first" not in console.export_text(), "nothing to tell apart"


def test_a_trader_that_never_became_ready_is_a_problem_with_its_reason() -> None:
    summary = summarise(evidence(not_ready=[("default/a", "Backoff CrashLoop: boom")]))
    assert summary.traders.ready == 0
    assert "boom" in summary.problems[0]
    assert summary.reconciles, "the counts do"
