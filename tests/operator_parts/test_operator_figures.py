"""The operator's figures are as Prometheus' linter wants them, and name what they mean."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families
from tests.support.operator_figures import COUNTERS, GAUGES, served_figures
from tests.support.promtool import promtool_finds_nothing


async def test_the_figures_are_clean_and_complete() -> None:
    text = await served_figures()
    promtool_finds_nothing(text)
    names = {sample.name for family in text_string_to_metric_families(text) for sample in family.samples}
    assert names == {
        *(f"chandlery_operator_{name}" for name in GAUGES),
        *(f"chandlery_operator_{name}_total" for name in COUNTERS),
        "chandlery_operator_api_requests_total",
    }
