"""What the broker is told in its ``server.properties``."""

from __future__ import annotations

from pathlib import Path

from chandlery.stream.broker_config import server_properties


def test_a_broker_has_no_more_threads_for_requests_than_cores_to_run_them_on(tmp_path: Path) -> None:
    told = {}
    for cores in (1, 2, 4, 64):
        lines = server_properties(tmp_path, 9092, 9093, cores=cores).splitlines()
        words = dict(line.split("=", 1) for line in lines)
        told[cores] = words["num.network.threads"], words["num.io.threads"]
    assert told == {1: ("1", "1"), 2: ("1", "1"), 4: ("2", "2"), 64: ("2", "4")}
