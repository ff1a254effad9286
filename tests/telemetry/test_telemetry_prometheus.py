"""A real Prometheus (Debian's) beside ``chandlery up``: every panel of every dashboard has something to show, nothing asks
for a series that no process has, and each dot leads to a trace."""

from __future__ import annotations

import json
import signal
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from monitoring.alerts import ALERTS, process
from monitoring.dashboards import BOARDS, FEED, RATE
from tests.runtime.up_process import Up, teller, until, write_manifests
from tests.support.free_ports import free_ports
from tests.support.needed import need
from tests.support.operator_figures import served_figures
from tests.support.otlp_receiver import Receiver, http_receiver
from tests.support.promql import names_exported, names_in
from tests.support.promtool import promtool_finds_nothing

pytestmark = [pytest.mark.broker, pytest.mark.slow, pytest.mark.timeout(400)]


@contextmanager
def prometheus(program: str, folder: Path, targets: Path) -> Iterator[str]:
    """A Prometheus that asks these targets every half second; its address."""
    port = free_ports(1)
    scrape = {"job_name": "chandlery", "file_sd_configs": [{"files": [str(targets)], "refresh_interval": "1s"}]}
    config = folder / "prometheus.yml"
    config.write_text(
        yaml.safe_dump({"global": {"scrape_interval": "500ms", "scrape_timeout": "500ms"}, "scrape_configs": [scrape]})
    )
    words = [program, f"--config.file={config}", f"--storage.tsdb.path={folder / 'tsdb'}"]
    words += [f"--web.listen-address=127.0.0.1:{port}", "--enable-feature=exemplar-storage", "--log.level=warn"]
    with (folder / "prometheus.log").open("wb") as log:
        server = subprocess.Popen(words, stdout=log, stderr=log)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(60)


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


class Watched(NamedTuple):
    """A running ``chandlery up``, the Prometheus that watches it, and where its traces go."""

    up: Up
    address: str
    receiver: Receiver


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    program = need("prometheus", "prometheus")
    folder = tmp_path_factory.mktemp("watched")
    manifests = write_manifests(folder / "m", one=teller("one"), two=teller("two", "ETH/USDT"))
    with pytest.MonkeyPatch.context() as patch, http_receiver() as receiver:
        patch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.endpoint)
        with Up(folder, manifests, "--metrics-port", str(free_ports(4)), "--console", "127.0.0.1:0") as up:
            up.running()
            with prometheus(program, folder, up.state / "prometheus-targets.json") as address:
                yield Watched(up, address, receiver)
            assert up.end() == 0, up.said


def asked_by_grafana(expr: str) -> str:
    """A panel's query with Grafana's variables put in; that of the feed names the one there is."""
    return expr.replace(RATE, "5s").replace("$trader", ".*").replace("$feed", "market")


def test_no_panel_of_any_dashboard_is_empty(watched: Watched) -> None:
    questions = {
        (board.uid, panel.title, query.expr): asked_by_grafana(query.expr)
        for board in BOARDS
        for panel in board.panels
        for query in panel.queries
    }
    empty = dict(questions)

    def all_answered() -> bool:
        for key, expr in list(empty.items()):
            if told := asked(watched.address, "query", query=expr):
                del empty[key]
                if key[0] == FEED.uid:
                    assert {one["metric"].get("chandlery_dev_feed") for one in told} == {"market"}, key
        return not empty

    until(all_answered, lambda: f"all panels show something; empty are {list(empty)}")
    assert len(questions) > 50
    (lives,) = (expr for (_, title, _), expr in questions.items() if title.startswith("Lives of signals"))
    told = {series["metric"]["state"] for series in asked(watched.address, "query", query=lives)}
    assert told == {"confirmed", "invalidated", "fenced", "incomplete", "forgotten"}


async def test_every_series_that_a_panel_or_a_rule_asks_for_is_one_that_a_process_has(watched: Watched) -> None:
    groups = json.loads((watched.up.state / "prometheus-targets.json").read_text())
    targets = {group["labels"]["app_kubernetes_io_component"]: group["targets"][0] for group in groups}
    assert targets.keys() == {"ingest", "aggregator", "worker", "console"}
    # Of Prometheus itself.
    known = {"up"} | names_exported(await served_figures())
    for component, target in targets.items():
        until(lambda at=target: bool(figures(at)), f"the {component} shows its figures")  # type: ignore[misc]
        text = figures(target)
        promtool_finds_nothing(text)
        known |= names_exported(text)
    asked_for = {alert.name: names_in(alert.expr) for alert in ALERTS} | {
        f"{board.uid}, {panel.title}, {number}": names_in(query.expr)
        for board in BOARDS
        for panel in board.panels
        for number, query in enumerate(panel.queries)
    }
    assert all(asked_for.values())
    assert {where: names - known for where, names in asked_for.items() if names - known} == {}


def test_every_exemplar_is_of_a_trace_that_the_receiver_has(watched: Watched) -> None:
    queries = {
        asked_by_grafana(query.expr)
        for board in BOARDS
        for panel in board.panels
        if panel.exemplars
        for query in panel.queries
    }
    ids: set[str] = set()
    without = set(queries)

    def all_have_dots() -> bool:
        for query in list(without):
            span = {"start": f"{time.time() - 3600:.0f}", "end": f"{time.time() + 60:.0f}"}
            found = asked(watched.address, "query_exemplars", query=query, **span)
            if dots := [dot["labels"]["trace_id"] for series in found for dot in series["exemplars"]]:
                ids.update(dots)
                without.discard(query)
        return not without

    until(all_have_dots, lambda: f"every panel with exemplars has some; without are {without}")
    assert len(queries) >= 4
    until(
        lambda: ids <= watched.receiver.traces().keys(),
        lambda: f"all are traces; none are {ids - watched.receiver.traces().keys()}",
    )


def test_what_runs_is_seen_to_run_by_the_rules_on_processes(watched: Watched) -> None:
    seen: dict[str, str] = {}

    def all_up() -> bool:
        seen.update(
            (one["metric"]["app_kubernetes_io_component"], one["value"][1])
            for one in asked(watched.address, "query", query=process("ingest|aggregator|worker|console"))
        )
        return seen == dict.fromkeys(("ingest", "aggregator", "worker", "console"), "1")

    until(all_up, lambda: f"all four answer: {seen}")
    for alert in ALERTS:
        if alert.name in {"ChandleryIngestAway", "ChandleryAggregatorAway", "ChandleryFeedAway"}:
            # A scrape that a busy machine is late for is none: rules wait for minutes.
            until(lambda expr=alert.expr: asked(watched.address, "query", query=expr) == [], alert.name)  # type: ignore[misc]


def figures(target: str) -> str:
    """A target's figures in the classic text form; empty while it starts."""
    try:
        with urllib.request.urlopen(f"http://{target}/metrics", timeout=30) as answer:
            text: str = answer.read().decode()
            return text
    except OSError:
        return ""
