"""A market of 10,000 symbols makes no more time series than one of 200: the others share a label."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import Metric

from chandlery.core.histogram import Histogram
from chandlery.core.telemetry.exposition import Labelled
from chandlery.stream.aggregator import metrics as of_aggregator
from chandlery.stream.aggregator import status as aggregator
from chandlery.stream.ingest import metrics as of_ingest
from chandlery.stream.ingest import status as ingest

SYMBOLS = [f"S{number:05}/USDT" for number in range(10_000)]


def by_symbol(families: Iterable[Metric]) -> dict[str, dict[str, float]]:
    """Values by symbol of each family that has them."""
    return {
        family.name: {one.labels["symbol"]: one.value for one in family.samples}
        for family in families
        if any("symbol" in one.labels for one in family.samples)
    }


def ingest_status() -> ingest.Status:
    each = {symbol: ingest.SymbolStatus(3, 7, 2, 1, 1_000, "1") for symbol in SYMBOLS}
    totals = ingest.TradeTotals(30_000, 30_000, 0, {})
    return ingest.Status(
        source="synthetic", connected=True, finished=False, waiting_for_go=False, session=1, frames=1,
        skipped_frames={}, malformed={}, trades=totals, symbols=each, reconnects=0, heartbeats=0, records=1,
        clock_offset_ms=None, unknown_symbols=[], appended_us={},
    )  # fmt: skip


def aggregator_status() -> aggregator.Status:
    counts, candles, drops = aggregator.TradeCounts(), aggregator.CandleNumbers(), aggregator.Drops()
    each = {symbol: aggregator.SymbolStatus(1, counts, 1_000, 1, 1, candles, drops) for symbol in SYMBOLS}
    return aggregator.Status(
        ready=True, instance="a", intervals=["1s"], symbols=each, totals=aggregator.Totals(counts, candles, drops),
        partitions={0: aggregator.PartitionStatus(1, 1, 1)}, lag=0, records=1, records_per_s=0.0, outputs=0,
        checkpoints=0, dead_letters=0, offset_gaps=0, healed=0,
    )  # fmt: skip


def test_of_ten_thousand_symbols_ingest_labels_two_hundred_and_leaves_none_out() -> None:
    told = by_symbol(of_ingest.families(ingest_status(), Histogram(), Labelled(of_ingest.MOST_SYMBOLS), 2.0))
    for name, each in (("symbol_trades", 3), ("missing_ids", 2), ("duplicates", 1)):
        values = told.pop(f"chandlery_ingest_{name}")
        assert len(values) == 201
        assert values["_other"] == 9_800 * each
        assert sum(values.values()) == 10_000 * each
    # What can't be added up is told of those with a label alone.
    lateness = told.pop("chandlery_ingest_watermark_lateness_seconds")
    assert lateness == dict.fromkeys(SYMBOLS[:200], 1.0)
    assert not told


def test_of_ten_thousand_symbols_the_aggregator_labels_two_hundred() -> None:
    labelled = Labelled(of_aggregator.MOST_SYMBOLS)
    told = by_symbol(of_aggregator.families(aggregator_status(), Histogram(), labelled, 2.0))
    assert told == {"chandlery_aggregator_watermark_lateness_seconds": dict.fromkeys(SYMBOLS[:200], 1.0)}
    assert labelled.others == 9_800
    assert of_aggregator.MOST_SYMBOLS == of_ingest.MOST_SYMBOLS == 200, "as docs/telemetry.md promises"
