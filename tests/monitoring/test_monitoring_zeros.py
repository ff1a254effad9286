"""No panel shows a number where nothing is measured: zeros stand for what was counted and hasn't happened (promtool)."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import yaml
from monitoring.dashboards import BOARDS, RATE
from tests.support.needed import need
from tests.support.promql import names_in

QUERIES = [
    (board.uid, panel.title, query.expr) for board in BOARDS for panel in board.panels for query in panel.queries
]
_FEED = {
    "chandlery_feed_signals_emitted_total": "0+1x20",
    "chandlery_feed_records_total": "0+1x20",
    "chandlery_feed_traces_built_total": "0+1x20",
    "chandlery_ingest_trades_received_total": "0+1x20",
}


def told(folder: Path, series: dict[str, str], expected: dict[str, list[dict[str, Any]]]) -> None:
    """Each query gives these samples after ten minutes of the series, a value a minute."""
    promtool = need("promtool", "prometheus")
    asked = [
        {
            "expr": expr.replace(RATE, "5m").replace("$trader", ".*").replace("$feed", ".*"),
            "eval_time": "10m",
            "exp_samples": samples,
        }
        for expr, samples in expected.items()
    ]
    given = [{"series": name, "values": values} for name, values in series.items()]
    test = {"tests": [{"interval": "1m", "input_series": given, "promql_expr_test": asked}]}
    file = folder / "test.yaml"
    file.write_text(yaml.safe_dump(test))
    found = subprocess.run(
        [promtool, "test", "rules", str(file)], capture_output=True, text=True, timeout=60, check=False
    )
    assert found.returncode == 0, f"{found.stdout}{found.stderr}"


def dropping() -> dict[str, str]:
    """Queries of what is dropped, by the counter's name."""
    return {
        name: expr
        for _, _, expr in QUERIES
        if " or on () " in expr
        for name in names_in(expr)
        if name.endswith(("_dropped_total", "_drops_total"))
    }


def test_where_nothing_is_scraped_every_panel_is_empty(tmp_path: Path) -> None:
    told(tmp_path, {}, {expr: [] for _, _, expr in QUERIES})


def test_before_the_first_drop_there_is_a_zero_where_somebody_counts(tmp_path: Path) -> None:
    queries = dropping()
    assert len(queries) == 4
    told(tmp_path, _FEED, {expr: [{"labels": '{reason="none"}', "value": 0}] for expr in queries.values()})


def test_what_is_dropped_is_told_by_reason_alone(tmp_path: Path) -> None:
    queries = dropping()
    dropped = {f'{name}{{reason="full"}}': "0+60x20" for name in queries}
    told(tmp_path, _FEED | dropped, {expr: [{"labels": '{reason="full"}', "value": 1}] for expr in queries.values()})


def test_no_active_trader_is_told_as_zero_and_memory_is_the_sum_of_what_is_known(tmp_path: Path) -> None:
    by_title = {title: expr for board, title, expr in QUERIES if board == "chandlery-overview"}
    series = {
        'chandlery_feed_traders{instance="w"}': "2x20",
        'chandlery_trader_state{instance="w",trader="a/b",state="Pending"}': "1x20",
        'process_proportional_memory_bytes{instance="w"}': "100x20",
        'process_proportional_memory_bytes{instance="i"}': "10x20",
    }
    shares = {
        'chandlery_trader_pss_bytes{instance="w",trader="a/b"}': "1000x20",
        'chandlery_worker_pss_bytes{instance="w",process="supervisor"}': "10000x20",
    }
    told(tmp_path, series, {by_title["Traders Active"]: [{"labels": "{}", "value": 0}]})
    told(tmp_path, series, {by_title["Memory"]: [{"labels": "{}", "value": 110}]})
    told(tmp_path, series | shares, {by_title["Memory"]: [{"labels": "{}", "value": 11110}]})
