"""Prometheus is told of the processes that are to run, each at a port of its own for the whole run."""

from __future__ import annotations

import json
from pathlib import Path

from chandlery.cli.runtime.metrics_ports import MetricsPorts


def listed(file: Path) -> dict[str, str]:
    groups = json.loads(file.read_text())
    return {group["labels"]["process"]: group["targets"][0] for group in groups}


def test_a_process_that_has_ended_is_not_taken_for_one_that_is_away(tmp_path: Path) -> None:
    ports = MetricsPorts(9464, tmp_path / "targets.json")
    first = ports.listen("feed-demo-0", "worker", ("default", "market"))
    second = ports.listen("feed-demo-1", "worker", ("default", "market"))
    ports.forget("feed-demo-0", "never-there")
    assert listed(tmp_path / "targets.json") == {"feed-demo-1": second}
    third = ports.listen("feed-demo-2", "worker", ("default", "market"))
    assert len({first, second, third}) == 3, "the port of one that may come back is nobody else's"
    assert ports.listen("feed-demo-0", "worker", ("default", "market")) == first
    assert listed(tmp_path / "targets.json") == {"feed-demo-0": first, "feed-demo-1": second, "feed-demo-2": third}


def test_targets_have_the_labels_that_the_charts_monitors_give(tmp_path: Path) -> None:
    ports = MetricsPorts(9464, tmp_path / "targets.json")
    ports.listen("ingest-market", "ingest", ("desk", "market"))
    ports.listen("feed-demo-0", "worker", ("desk", "market"), "demo")
    ingest, worker = (group["labels"] for group in json.loads((tmp_path / "targets.json").read_text()))
    of_both = {
        "app_kubernetes_io_part_of": "chandlery", "namespace": "desk", "chandlery_dev_feed": "market",
    }  # fmt: skip
    assert ingest == of_both | {"process": "ingest-market", "app_kubernetes_io_component": "ingest"}
    assert worker == of_both | {
        "process": "feed-demo-0", "app_kubernetes_io_component": "worker", "chandlery_dev_pool": "demo",
    }  # fmt: skip


def test_a_file_that_can_not_be_written_ends_no_end(tmp_path: Path) -> None:
    ports = MetricsPorts(9464, tmp_path / "folder" / "targets.json")
    ports.listen("console", "console")
    (tmp_path / "folder" / "targets.json").unlink()
    (tmp_path / "folder").rmdir()
    (tmp_path / "folder").write_text("a file")
    ports.forget("console")
