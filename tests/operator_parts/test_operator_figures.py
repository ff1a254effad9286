"""The operator's figures are as Prometheus' linter wants them, and name what they mean."""

from __future__ import annotations

from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families
from tests.support.operator_figures import figure_names, served_figures
from tests.support.promtool import promtool_finds_nothing

from chandlery.operator.health import HELP


async def test_the_figures_are_clean_and_complete() -> None:
    counters, gauges = figure_names()
    assert sorted([*counters, *gauges]) == sorted(HELP)
    text = await served_figures()
    promtool_finds_nothing(text)
    names = {sample.name for family in text_string_to_metric_families(text) for sample in family.samples}
    assert {name for name in names if name.startswith("chandlery_")} == {
        *(f"chandlery_operator_{name}" for name in gauges),
        *(f"chandlery_operator_{name}_total" for name in counters),
        "chandlery_operator_api_requests_total",
    }
    assert {"process_proportional_memory_bytes", "process_resident_memory_bytes", "process_open_fds"} <= names


async def test_who_asks_for_openmetrics_gets_it() -> None:
    text = await served_figures("application/openmetrics-text; version=1.0.0")
    names = {family.name for family in parse_openmetrics(text)}  # type: ignore[no-untyped-call]
    assert {"chandlery_operator_reconciles", "process_proportional_memory_bytes"} <= names
