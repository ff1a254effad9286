"""Alert rules fire on what they say and on nothing else (promtool), and each has its page; dashboards are as generated."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from monitoring.__main__ import CHART, files
from monitoring.alerts import ALERTS, Alert, groups
from monitoring.dashboards import BOARDS

ROOT = Path(__file__).parents[2]


class Case(NamedTuple):
    """Series that make a rule fire, those that don't, and when both are looked at."""

    fires: dict[str, str]
    quiet: dict[str, str]
    at: str = "20m"


_TRADER = '{trader="a/b",instance="i"}'
_FEED = '{instance="i"}'
_LATENCY = "chandlery_frame_to_signal_seconds"


def _latency(slow_a_minute: int, whole_a_minute: int = 100) -> dict[str, str]:
    within = whole_a_minute - slow_a_minute
    return {
        f'{_LATENCY}_bucket{{le="0.065536",instance="i"}}': f"0+{within}x600",
        f"{_LATENCY}_count{_FEED}": f"0+{whole_a_minute}x600",
    }


def _delivery(applied: str) -> dict[str, str]:
    return {
        f"chandlery_feed_assignment_received{_FEED}": "7x600",
        f"chandlery_feed_assignment_applied{_FEED}": applied,
    }


CASES: dict[str, Case] = {
    "ChandleryMarketAway": Case(
        {f"chandlery_ingest_connected{_FEED}": "0x60"}, {f"chandlery_ingest_connected{_FEED}": "1x60"}
    ),
    "ChandleryKafkaAway": Case(
        {f"chandlery_feed_broker_connected{_FEED}": "0x60"}, {f"chandlery_feed_broker_connected{_FEED}": "1x60"}
    ),
    "ChandlerySupervisorAway": Case(
        {f"chandlery_feed_supervisor_connected{_FEED}": "0x60"}, {f"chandlery_feed_supervisor_connected{_FEED}": "1x60"}
    ),
    "ChandleryTraderNotRunning": Case(
        {'chandlery_trader_state{trader="a/b",state="Backoff"}': "1x60"},
        {'chandlery_trader_state{trader="a/b",state="Active"}': "1x60"},
    ),
    "ChandleryTraderMemoryGrows": Case(
        {f"chandlery_trader_resident_memory_bytes{_TRADER}": "30000000+200000x240"},
        {f"chandlery_trader_resident_memory_bytes{_TRADER}": "30000000+10000x240"},
        "3h",
    ),
    "ChandleryTraderBlocked": Case(
        {f"chandlery_trader_ring_depth{_TRADER}": "250x60", f"chandlery_trader_ring_capacity{_TRADER}": "256x60"},
        {f"chandlery_trader_ring_depth{_TRADER}": "3x60", f"chandlery_trader_ring_capacity{_TRADER}": "256x60"},
    ),
    "ChandleryCandlesLapped": Case(
        {f"chandlery_trader_lapped_total{_TRADER}": "0+1x60"}, {f"chandlery_trader_lapped_total{_TRADER}": "5x60"}
    ),
    "ChandleryTradesDropped": Case(
        {'chandlery_ingest_trades_dropped_total{instance="i",reason="buffer"}': "0+5x60"},
        {'chandlery_ingest_trades_dropped_total{instance="i",reason="buffer"}': "5x60"},
    ),
    "ChandleryAggregatorBehind": Case(
        {f"chandlery_aggregator_behind_seconds{_FEED}": "11x60"},
        {f"chandlery_aggregator_behind_seconds{_FEED}": "9x60"},
    ),
    "ChandleryFeedBehind": Case(
        {f"chandlery_feed_behind_seconds{_FEED}": "11x60"}, {f"chandlery_feed_behind_seconds{_FEED}": "9x60"}
    ),
    "ChandleryDeadLetters": Case(
        {f"chandlery_aggregator_dead_letters_total{_FEED}": "0+1x60"},
        {
            f"chandlery_aggregator_dead_letters_total{_FEED}": "4x60",
            f"chandlery_feed_dead_letters_total{_FEED}": "1x60",
        },
    ),
    "ChandleryTracesDropped": Case(
        {'chandlery_feed_traces_dropped_total{instance="i",reason="queue_full"}': "0+3x60"},
        {'chandlery_feed_traces_dropped_total{instance="i",reason="queue_full"}': "3x60"},
        "50m",
    ),
    "ChandlerySegmentNearlyFull": Case(
        {f"chandlery_feed_series{_FEED}": "500x60", f"chandlery_feed_series_capacity{_FEED}": "512x60"},
        {f"chandlery_feed_series{_FEED}": "100x60", f"chandlery_feed_series_capacity{_FEED}": "512x60"},
    ),
    "ChandlerySignalLatencyBurnsFast": Case(_latency(20), _latency(10), "2h"),
    "ChandlerySignalLatencyBurnsSlowly": Case(_latency(8), _latency(2), "8h"),
    "ChandleryAssignmentDeliveryBurnsFast": Case(_delivery("6x600"), _delivery("7x600"), "2h"),
    "ChandleryAssignmentDeliveryBurnsSlowly": Case(_delivery("6x600"), _delivery("7x600"), "8h"),
}


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert.name)
def test_each_alert_fires_on_what_it_says_and_not_else(tmp_path: Path, alert: Alert) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed (Debian: prometheus)")
    case = CASES[alert.name]
    for fires, series in ((True, case.fires), (False, case.quiet)):
        folder = tmp_path / str(fires)
        folder.mkdir()
        (folder / "rules.yaml").write_text(yaml.safe_dump(groups()))
        look = {"expr": f'count(ALERTS{{alertname="{alert.name}",alertstate="firing"}})', "eval_time": case.at}
        test = {
            "rule_files": ["rules.yaml"],
            "evaluation_interval": "1m",
            "tests": [
                {
                    "interval": "1m",
                    "input_series": [{"series": name, "values": values} for name, values in series.items()],
                    "promql_expr_test": [look | {"exp_samples": [{"labels": "{}", "value": 1}] if fires else []}],
                }
            ],
        }
        (folder / "test.yaml").write_text(yaml.safe_dump(test))
        found = subprocess.run(
            [promtool, "test", "rules", str(folder / "test.yaml")],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert found.returncode == 0, f"{'fires' if fires else 'quiet'}: {found.stdout}{found.stderr}"


def test_every_alert_has_a_page_that_says_what_to_do() -> None:
    page = (ROOT / "docs" / "alerts.md").read_text(encoding="utf-8")
    assert [line[3:] for line in page.splitlines() if line.startswith("## ")] == [alert.name for alert in ALERTS]
    assert len(ALERTS) >= 10
    assert CASES.keys() == {alert.name for alert in ALERTS}


def test_dashboards_and_rules_in_the_chart_are_as_generated() -> None:
    made = files()
    for path, text in made.items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name} is not what python -m monitoring writes"
    assert {path.name for path in (CHART / "dashboards").iterdir()} == {f"{board.uid}.json" for board in BOARDS}


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.uid)
def test_a_dashboard_is_whole(board: Any) -> None:
    plain = json.loads((CHART / "dashboards" / f"{board.uid}.json").read_text())
    assert plain["uid"] == board.uid
    assert len({panel["id"] for panel in plain["panels"]}) == len(plain["panels"]) == len(board.panels)
    for panel in plain["panels"]:
        assert panel["title"]
        assert panel["datasource"]["uid"] == "${datasource}"
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        refs = [target["refId"] for target in panel["targets"]]
        assert refs
        assert len(set(refs)) == len(refs)
