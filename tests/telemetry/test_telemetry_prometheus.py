"""A real Prometheus (Debian's) beside ``chandlery up``: every panel of every dashboard has something to show."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from monitoring.dashboards import BOARDS, RATE
from tests.runtime.up_process import Up, teller, until, write_manifests
from tests.support.free_ports import free_ports

pytestmark = [
    pytest.mark.broker,
    pytest.mark.slow,
    pytest.mark.timeout(400),
    pytest.mark.skipif(shutil.which("prometheus") is None, reason="prometheus is not installed (Debian: prometheus)"),
]


@contextmanager
def prometheus(folder: Path, targets: Path) -> Iterator[str]:
    """A Prometheus that asks these targets every half second; its address."""
    port = free_ports(1)
    scrape = {"job_name": "chandlery", "file_sd_configs": [{"files": [str(targets)], "refresh_interval": "1s"}]}
    config = folder / "prometheus.yml"
    config.write_text(
        yaml.safe_dump({"global": {"scrape_interval": "500ms", "scrape_timeout": "500ms"}, "scrape_configs": [scrape]})
    )
    words = ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={folder / 'tsdb'}"]
    words += [f"--web.listen-address=127.0.0.1:{port}", "--enable-feature=exemplar-storage", "--log.level=warn"]
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(words, stdout=log, stderr=log)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def asked(address: str, path: str, **parameters: str) -> list[Any]:
    """Results of one question; none while Prometheus starts."""
    url = f"{address}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:
            told = json.loads(answer.read())
    except urllib.error.HTTPError as error:
        if error.code == 503:
            return []
        raise AssertionError(f"{parameters}: {error.read().decode()}") from error
    except OSError:
        return []
    data = told["data"]
    return list(data["result"] if isinstance(data, dict) else data)


def test_no_panel_of_any_dashboard_is_empty(tmp_path: Path) -> None:
    manifests = write_manifests(tmp_path / "m", one=teller("one"), two=teller("two", "ETH/USDT"))
    with Up(tmp_path, manifests, "--metrics-port", str(free_ports(3))) as up:
        up.running()
        with prometheus(tmp_path, up.state / "prometheus-targets.json") as address:
            questions = {
                (board.uid, panel.title, query.expr): query.expr.replace(RATE, "5s").replace("$trader", ".*")
                for board in BOARDS
                for panel in board.panels
                for query in panel.queries
            }
            empty = dict(questions)

            def all_answered() -> bool:
                for key, expr in list(empty.items()):
                    if asked(address, "query", query=expr):
                        del empty[key]
                return not empty

            until(all_answered, lambda: f"all panels show something; empty are {list(empty)}")
            assert len(questions) > 50
            (lives,) = (expr for (_, title, _), expr in questions.items() if title.startswith("Lives of signals"))
            told = {series["metric"]["state"] for series in asked(address, "query", query=lives)}
            assert told == {"confirmed", "invalidated", "fenced", "incomplete", "forgotten"}
        assert up.end() == 0, up.said
