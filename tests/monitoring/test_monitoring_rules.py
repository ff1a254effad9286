"""Alert rules fire on what they say and on nothing else (promtool), and each has its page; dashboards are as generated."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from monitoring.__main__ import CHART, files
from monitoring.alerts import ALERTS, Alert, groups
from monitoring.dashboards import BOARDS
from tests.support.needed import need

ROOT = Path(__file__).parents[2]


class Case(NamedTuple):
    """Series that make a rule fire (each of ``also`` too), those that don't, and when all are looked at.

    Attributes:
        begins: series of a start, at no minute of whose first hours it fires.
    """

    fires: dict[str, str]
    quiet: dict[str, str]
    at: str = "20m"
    also: tuple[dict[str, str], ...] = ()
    begins: dict[str, str] | None = None


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


def _undelivered(pending: int, workers: int = 4) -> dict[str, str]:
    """An operator that can't deliver to some of its workers, which know of nothing and have applied what they have."""
    return {
        **_delivery("7x600"),
        "chandlery_operator_assignments_pending": f"{pending}x600",
        "chandlery_operator_workers": f"{workers}x600",
    }


#: The first worker of an installation takes two minutes until its image is there and its assignment applied.
_FIRST_START = {
    "chandlery_operator_assignments_pending": "0x2 1x2 0x600",
    "chandlery_operator_workers": "0x2 1x602",
}


def _up(**answers: str) -> dict[str, str]:
    """What Prometheus says of the processes of a feed in a cluster, by component."""
    labels = 'namespace="desk",chandlery_dev_feed="market",app_kubernetes_io_part_of="chandlery"'
    return {
        f'up{{{labels},app_kubernetes_io_component="{component}",instance="{component}"}}': values
        for component, values in answers.items()
    }


_WORKERS = {"chandlery_operator_workers": "1x60"}
_SERIES = {f"chandlery_feed_series{_FEED}": "2x60"}
#: A pool that no Trader is in: its worker is there, and its feed (``Idle``) has no process.
_IDLE = {**_up(worker="1x60", operator="1x60"), **_WORKERS, f"chandlery_feed_series{_FEED}": "0x60"}
_ALL_UP = {**_up(ingest="1x60", aggregator="1x60", worker="1x60", operator="1x60", console="1x60"), **_WORKERS}
_LOCAL_UP = _up(ingest="1x60", aggregator="1x60", worker="1x60")


CASES: dict[str, Case] = {
    "ChandleryIngestAway": Case(
        _up(ingest="0x60", aggregator="1x60"),
        _ALL_UP,
        # Gone beside its aggregator; gone with it, while there are workers; one of two feeds'.
        also=(
            _up(ingest="1x5 stale", aggregator="1x60"),
            {**_up(ingest="1x5 stale", aggregator="1x5 stale"), **_WORKERS, **_SERIES},
            {
                **_ALL_UP,
                'up{namespace="desk",chandlery_dev_feed="other",app_kubernetes_io_part_of="chandlery",'
                'app_kubernetes_io_component="aggregator"}': "1x60",
            },
        ),
        begins=_IDLE,
    ),
    "ChandleryAggregatorAway": Case(
        _up(ingest="1x60", aggregator="0x60"),
        _LOCAL_UP,
        also=(_up(ingest="1x60"), {**_up(worker="1x60"), **_WORKERS, **_SERIES}),
        begins=_IDLE,
    ),
    "ChandleryFeedAway": Case(
        _up(worker="0x60"),
        _ALL_UP,
        also=(_WORKERS, {**_up(worker="1x60"), "chandlery_operator_workers": "2x60"}),
    ),
    "ChandleryOperatorAway": Case({}, _ALL_UP, also=(_up(operator="0x60"), _up(operator="1x5 stale"))),
    "ChandleryConsoleAway": Case({}, _ALL_UP, also=(_up(console="0x60"), _up(console="1x5 stale"))),
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
        {
            f"chandlery_trader_resident_memory_bytes{_TRADER}": "30000000+10000x240",
            # A Trader of 30 MB more every ten minutes: they share the label, none grows.
            'chandlery_trader_resident_memory_bytes{trader="_other",instance="i"}': "30000000+3000000x240",
        },
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
    "ChandleryAssignmentDeliveryBurnsFast": Case(
        _delivery("6x600"),
        _undelivered(0),
        "1h",
        also=(_undelivered(1), {**_undelivered(0), **_delivery("6x600")}),
        begins=_FIRST_START,
    ),
    "ChandleryAssignmentDeliveryBurnsSlowly": Case(
        _delivery("6x600"), _undelivered(0, workers=0), "2h", also=(_undelivered(1, workers=100),), begins=_FIRST_START
    ),
}


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert.name)
def test_each_alert_fires_on_what_it_says_and_not_else(tmp_path: Path, alert: Alert) -> None:
    promtool = need("promtool", "prometheus")
    case = CASES[alert.name]
    # The one rule alone: all of them over eight hours take a while.
    (tmp_path / "rules.yaml").write_text(
        yaml.safe_dump({"groups": [{"name": "one", "rules": [_rule(alert)]}]}, sort_keys=False)
    )
    firing = f'count(count by (alertname) (ALERTS{{alertname="{alert.name}",alertstate="firing"}}))'
    fired = f'count(count_over_time(ALERTS{{alertname="{alert.name}",alertstate="firing"}}[3h]))'
    looks = [
        ("quiet", case.quiet, firing, case.at, []),
        ("begins", case.begins, fired, "3h", []),
        *((f"fires {given}", given, firing, case.at, [1]) for given in (case.fires, *case.also)),
    ]
    test = {
        "rule_files": ["rules.yaml"],
        "evaluation_interval": "1m",
        "tests": [
            {
                "name": name,
                "interval": "1m",
                "input_series": [{"series": series, "values": values} for series, values in given.items()],
                "promql_expr_test": [
                    {"expr": expr, "eval_time": at, "exp_samples": [{"labels": "{}", "value": one} for one in expected]}
                ],
            }
            for name, given, expr, at, expected in looks
            if given is not None
        ],
    }
    (tmp_path / "test.yaml").write_text(yaml.safe_dump(test))
    found = subprocess.run(
        [promtool, "test", "rules", str(tmp_path / "test.yaml")],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert found.returncode == 0, f"{found.stdout}{found.stderr}"


def _rule(alert: Alert) -> dict[str, Any]:
    (rule,) = (rule for group in groups()["groups"] for rule in group["rules"] if rule["alert"] == alert.name)
    return dict(rule)


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
