"""Reconciling a feed: what its pods answer is told on it, and has the pools looked at that it concerns."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.operator_parts.feeds_bench import FEED, HASTY, PACED, Market
from tests.operator_parts.operator_bodies import feed_body

from chandlery.core.behind import BEHIND_MS
from chandlery.operator import unknown_symbols
from chandlery.operator.events import Events


async def test_what_keeps_ingest_out_of_kafka_is_told_at_the_next_question_and_when_it_is_over(market: Market) -> None:
    assert (await market.look())["reason"] == "Running"
    for problem in ("is refused", "is refused by another"):
        market.answers["ingest"] = {"kafka_problem": {"reason": "KafkaUnauthorized", "message": problem}}
        ready = await market.look()
        assert (ready["status"], ready["reason"], ready["message"]) == ("False", "KafkaUnauthorized", problem)
        assert ("feed", *FEED) in market.marked, "and asked again"
        await market.look()
    market.answers["ingest"] = {}
    assert (await market.look())["reason"] == "Running"
    assert market.server.events == ["KafkaUnauthorized"] * 2, "once each"


async def test_what_is_wrong_with_a_feed_is_told_before_its_status_is_written_after_which_nobody_would(
    market: Market,
) -> None:
    await market.look()
    market.server.takes_events = False
    market.answers["ingest"] = {"kafka_problem": {"reason": "KafkaUnauthorized", "message": "is refused"}}
    writes = len(market.server.statuses)
    await market.look()
    assert len(market.server.statuses) == writes
    assert ("feed", *FEED) in market.marked, "and looked at again"
    market.server.takes_events = True
    market.feeds._tools = replace(market.feeds._tools, events=Events(market.server, "another operator"))
    assert (await market.look())["reason"] == "KafkaUnauthorized"
    assert market.server.events == ["KafkaUnauthorized"]


async def test_symbols_that_the_exchange_lacks_have_its_pools_looked_at_each_time_they_are_others(
    market: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unknown_symbols, "FORGET_S", 0.0)
    pool = ("pool", "default", "quants")
    await market.look()
    assert pool not in market.marked
    for unknown in (["DOGE/USDT"], ["DOGE/USDT", "PEPE/USDT"], []):
        market.answers["ingest"] = {"unknown_symbols": unknown, "connected": True}
        if not unknown:
            await market.look()
            assert pool not in market.marked, "a process that has just started knows of none"
        await market.look()
        assert pool in market.marked
        assert list(market.feeds.unknown_symbols(FEED)) == unknown
        assert market.server.statuses[-1].get("unknownSymbols", []) == unknown
        market.marked.clear()
        await market.look()
        assert pool not in market.marked


@pytest.mark.parametrize("market", [{**PACED, "symbols": ["BTC/USDT", "DGOE/USDT"]}], indirect=True)
async def test_a_feed_that_lists_a_symbol_its_source_lacks_says_so_once_and_stays_ready(market: Market) -> None:
    assert (await market.look())["reason"] == "Running"
    assert market.server.statuses[-1]["symbolCount"] == 2
    market.answers["ingest"] = {"unknown_symbols": ["DGOE/USDT"]}
    ready = await market.look()
    assert (ready["status"], ready["reason"]) == ("True", "UnknownSymbol")
    assert ready["message"] == "its source has no DGOE/USDT: mend spec.symbols; the others are ingested"
    assert market.server.statuses[-1]["symbolCount"] == 1
    writes = len(market.server.statuses)
    await market.look()
    assert (len(market.server.statuses), market.server.events) == (writes, ["UnknownSymbol"])
    market.cache.put("MarketFeed", feed_body(version=2, generation=2, **PACED, symbols=["BTC/USDT"]))
    assert (await market.look())["reason"] == "Running", "what it lists no more is no fault of its own"


async def test_a_feed_whose_source_has_none_of_its_symbols_is_stalled(market: Market) -> None:
    market.cache.put("MarketFeed", feed_body(version=2, generation=2, **PACED, symbols=["DGOE/USDT"], intervals=["1s"]))
    market.plan()
    market.answers["ingest"] = {"unknown_symbols": ["DGOE/USDT"]}
    await market.look()
    ready = await market.look()
    assert (ready["status"], ready["reason"]) == ("False", "UnknownSymbol")
    assert ready["message"] == "its source has no DGOE/USDT: mend spec.symbols; nothing is ingested"


async def test_a_feed_that_lists_none_leaves_it_to_its_traders_to_say_what_its_source_lacks(market: Market) -> None:
    market.answers["ingest"] = {"unknown_symbols": ["BTC/USDT"]}
    assert (await market.look())["reason"] == "Running"
    assert (await market.look())["reason"] == "Running"
    assert market.server.events == []


async def test_a_feed_whose_aggregator_falls_behind_says_so_until_it_has_caught_up_and_stays_ready(
    market: Market,
) -> None:
    assert (await market.look())["reason"] == "Running"
    market.answers["aggregator"] = {"behind_ms": BEHIND_MS + 1}
    assert (await market.look())["reason"] == "Running", "one look may be of a moment"
    ready = await market.look()
    assert (ready["status"], ready["reason"]) == ("True", "Lagging")
    assert "more than 10s behind its market" in ready["message"]
    writes = len(market.server.statuses)
    market.answers["aggregator"] = {"behind_ms": 19_000}
    await market.look()
    assert len(market.server.statuses) == writes, "a figure that moves by itself is no news"
    market.answers["aggregator"] = {"behind_ms": 45_000}
    assert "more than 40s behind its market" in (await market.look())["message"]
    market.answers["aggregator"] = {"behind_ms": 0}
    await market.look()
    assert (await market.look())["reason"] == "Running"
    assert market.server.events == ["Lagging"] * 2, "once each step"


async def test_an_aggregator_that_is_not_ready_does_not_lag(market: Market) -> None:
    market.answers["aggregator"] = {"behind_ms": 60_000}
    await market.look()
    assert (await market.look())["reason"] == "Lagging"
    market.server.ready("aggregator", ready=False)
    assert (await market.look())["reason"] == "Starting"
    market.server.ready("aggregator")
    market.answers["aggregator"] = {"behind_ms": 0}
    assert (await market.look())["reason"] == "Running"


@pytest.mark.parametrize("market", [HASTY], indirect=True)
async def test_a_replay_as_fast_as_possible_has_no_pace_to_be_behind_of(market: Market) -> None:
    market.answers["aggregator"] = {"behind_ms": 60_000}
    for _ in range(3):
        assert (await market.look())["reason"] == "Running"


async def test_what_a_source_lacked_before_the_operator_began_it_lacks_until_ingest_has_been_without_it_for_a_while(
    market: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    status = {"unknownSymbols": ["DGOE/USDT"]}
    market.cache.put("MarketFeed", {**feed_body(version=2, **PACED), "status": status})
    assert list(market.feeds.unknown_symbols(FEED)) == ["DGOE/USDT"], "pools are planned before ingest is asked"
    for answer in ({}, {"unknown_symbols": ["DGOE/USDT"], "connected": True}, {"connected": True}):
        market.answers["ingest"] = answer
        await market.look()
        assert list(market.feeds.unknown_symbols(FEED)) == ["DGOE/USDT"]
        assert market.server.statuses[-1]["unknownSymbols"] == ["DGOE/USDT"]
    market.marked.clear()
    monkeypatch.setattr(unknown_symbols, "FORGET_S", 0.0)
    await market.look()
    assert list(market.feeds.unknown_symbols(FEED)) == []
    assert ("pool", "default", "quants") in market.marked, "its version begins without any edit"


@pytest.mark.parametrize("told", ["DGOE/USDT", [1], None])
async def test_a_feeds_status_that_somebody_else_wrote_names_no_symbol(market: Market, told: object) -> None:
    market.cache.put("MarketFeed", {**feed_body(version=2, **PACED), "status": {"unknownSymbols": told}})
    assert list(market.feeds.unknown_symbols(FEED)) == []
    assert list(market.feeds.unknown_symbols(("default", "other"))) == []
