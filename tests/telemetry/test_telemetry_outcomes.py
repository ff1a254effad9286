"""What became of trades adds up in the aggregator's figures."""

from __future__ import annotations

from tests.telemetry.test_telemetry_labels import aggregator_status

from chandlery.core.histogram import Histogram
from chandlery.core.telemetry.exposition import Labelled
from chandlery.stream.aggregator import metrics
from chandlery.stream.aggregator.status import TradeCounts


def test_outcomes_and_open_trades_are_those_received() -> None:
    status = aggregator_status()
    status.totals.counts = TradeCounts(received=15, counted=4, open=3, late=2, duplicate=1, dead=5, unreadable=2)
    told = metrics.families(status, Histogram(), Labelled(1), 2.0)
    values = {family.name: sum(one.value for one in family.samples) for family in told}
    assert values["chandlery_aggregator_trades"] + values["chandlery_aggregator_trades_open"] == 15
    assert values["chandlery_aggregator_trades_received"] == 15
