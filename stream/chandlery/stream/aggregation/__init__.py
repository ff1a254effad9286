"""Trades → candles, pure: no clock, no I/O, no randomness.

:class:`SymbolState` is the whole state of one symbol. Applying the same records in the same order gives the
same emissions, bytes included, from any saved state on; the aggregator's guarantee over crashes rests on it.
"""

from chandlery.stream.aggregation.candle import Candle
from chandlery.stream.aggregation.emission import Emission
from chandlery.stream.aggregation.plan import AggregationPlan
from chandlery.stream.aggregation.seen_ids import SeenIds
from chandlery.stream.aggregation.snapshot import CandleCounts, Counts, Dropped
from chandlery.stream.aggregation.symbol_state import SymbolState

__all__ = ["AggregationPlan", "Candle", "CandleCounts", "Counts", "Dropped", "Emission", "SeenIds", "SymbolState"]
