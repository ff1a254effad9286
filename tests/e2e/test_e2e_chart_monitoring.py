"""What the chart ships for Prometheus and Grafana: who may scrape, monitors, rules and dashboards."""

from __future__ import annotations

from typing import Any

import pytest
from monitoring.alerts import groups
from tests.e2e.chart_rendering import only, rendered


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ((), []),
        (("monitoring.enabled=true",), ["--metrics-from=*"]),
        (("monitoring.enabled=true", "monitoring.namespace=prometheus"), ["--metrics-from=prometheus"]),
        (("monitoring.namespace=prometheus",), ["--metrics-from=prometheus"]),
        (("monitoring.enabled=true", "monitoring.namespace=null"), ["--metrics-from=*"]),
    ],
)
def test_figures_are_let_out_to_whom_monitoring_names(helm: str, values: tuple[str, ...], told: list[str]) -> None:
    (container,) = only(rendered(helm, *values), "Deployment")["spec"]["template"]["spec"]["containers"]
    assert [one for one in container["args"] if one.startswith("--metrics-from")] == told


def test_values_of_a_chart_before_rules_and_dashboards_are_enough(helm: str) -> None:
    values = (
        "monitoring.enabled=true",
        "monitoring.rules=null",
        "monitoring.runbookUrl=null",
        "monitoring.dashboards=null",
        "monitoring.namespace=null",
    )
    kinds = [one["kind"] for one in rendered(helm, *values)]
    assert (kinds.count("PodMonitor"), kinds.count("PrometheusRule")) == (2, 1)
    (dashboard, *_) = [
        one for one in rendered(helm, "monitoring.dashboards.enabled=true", "monitoring.dashboards.labels=null")
        if one["metadata"]["name"].endswith("-dashboard")
    ]  # fmt: skip
    assert dashboard["metadata"]["labels"]["grafana_dashboard"] == "1"


def alerts_of(objects: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    groups = only(objects, "PrometheusRule")["spec"]["groups"]
    return {rule["alert"]: rule for group in groups for rule in group["rules"]}


def test_an_alert_leads_to_its_page_where_the_values_say_it_is(helm: str) -> None:
    page = "https://git.example.com/desk/chandlery/blob/main/docs/alerts.md"
    alerts = alerts_of(rendered(helm, "monitoring.enabled=true", f"monitoring.runbookUrl={page}"))
    assert {name: rule["annotations"]["runbook_url"] for name, rule in alerts.items()} == {
        name: f"{page}#{name.lower()}" for name in alerts
    }
    for rule in alerts_of(rendered(helm, "monitoring.enabled=true")).values():
        assert "runbook_url" not in rule["annotations"]


def test_every_rule_is_shipped_as_generated_and_the_consoles_only_where_there_is_one(helm: str) -> None:
    with_console = alerts_of(rendered(helm, "monitoring.enabled=true", "console.enabled=true"))
    assert with_console == {rule["alert"]: rule for group in groups()["groups"] for rule in group["rules"]}
    without = alerts_of(rendered(helm, "monitoring.enabled=true"))
    assert with_console.keys() - without.keys() == {"ChandleryConsoleAway"}


@pytest.mark.parametrize("kind", ["ServiceMonitor", "PodMonitor"])
def test_monitors_give_the_labels_that_rules_and_dashboards_ask_for(helm: str, kind: str) -> None:
    objects = rendered(helm, "monitoring.enabled=true", f"monitoring.kind={kind}", "console.enabled=true")
    monitors = {one["metadata"]["name"]: one for one in objects if one["kind"] in {"ServiceMonitor", "PodMonitor"}}
    assert monitors.keys() == {"mine-operator", "mine-workers", "mine-feeds", "mine-console"}
    for name, monitor in monitors.items():
        given = set(monitor["spec"]["podTargetLabels"])
        assert {"app.kubernetes.io/part-of", "app.kubernetes.io/component"} <= given
        assert ("chandlery.dev/feed" in given) == (name in {"mine-workers", "mine-feeds"})
    for name in ("operator", "console"):
        labels = only(objects, "Deployment", f"mine-{name}")["spec"]["template"]["metadata"]["labels"]
        assert (labels["app.kubernetes.io/part-of"], labels["app.kubernetes.io/component"]) == ("chandlery", name)
