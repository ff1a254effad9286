"""A replay from its first frame to its last, on a Kafka that somebody else runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.runtime.up_process import FEED, Up, trader, until

from chandlery.stream.broker import EmbeddedBroker

pytestmark = [pytest.mark.broker, pytest.mark.slow, pytest.mark.timeout(400)]

EXAMPLE = Path(__file__).parents[2] / "examples" / "replay"


def test_a_replay_of_a_file_that_cannot_be_used_ends_with_a_problem_that_names_it(
    tmp_path: Path, broker: EmbeddedBroker
) -> None:
    manifests = tmp_path / "m"
    manifests.mkdir()
    (manifests / "trades.csv").write_text("when,how much\n1,2\n")
    name = f"market-{tmp_path.name.replace('_', '-')[-20:]}".rstrip("-")
    (manifests / "platform.yaml").write_text(
        FEED.replace("name: market", f"name: {name}").replace(
            "synthetic: {seed: 7, tradesPerSecond: 20, volatility: 0.0003}",
            "replay: {files: [{path: trades.csv, symbol: BTC/USDT}]}",
        )
    )
    (manifests / "one.yaml").write_text(trader("one"))
    with Up(tmp_path, manifests, "--until-end", "--for", "200s", "--json", "--kafka", broker.bootstrap) as up:
        summary = up.summary()
        assert up.wait() == 1, up.said
        assert up.left() == []
    assert summary["seconds"] < 60, "it ended with the file, not by its time"
    (problem,) = [problem for problem in summary["problems"] if "trades.csv" in problem]
    assert f"ingest-{name}" in problem
    assert "no column time" in problem
    assert "trades.csv: no column time" in up.said


def test_a_replay_ends_by_itself_with_every_trade_accounted_for(tmp_path: Path, broker: EmbeddedBroker) -> None:
    files = sorted(EXAMPLE.glob("*.frames.gz"))
    manifests = tmp_path / "m"
    manifests.mkdir()
    feed = {
        "apiVersion": "chandlery.dev/v1alpha1",
        "kind": "MarketFeed",
        "metadata": {"name": f"market-{tmp_path.name.replace('_', '-')[-20:]}".rstrip("-")},
        "spec": {"source": {"replay": {"files": [str(file) for file in files], "speed": 100}}},
    }
    pool = {
        "apiVersion": "chandlery.dev/v1alpha1",
        "kind": "TraderPool",
        "metadata": {"name": "demo"},
        "spec": {"feed": {"name": feed["metadata"]["name"]}},  # type: ignore[index]
    }
    (manifests / "platform.yaml").write_text(json.dumps(feed) + "\n---\n" + json.dumps(pool))
    (manifests / "one.yaml").write_text(trader("one"))
    (manifests / "two.yaml").write_text(trader("two", "ETH/USDT"))
    options = ("--until-end", "--for", "200s", "--json", "--speed", "50", "--kafka", broker.bootstrap)
    with Up(tmp_path, manifests, *options) as up:
        shares = [0.0]

        def is_under_way() -> bool:
            view = up.view()
            shares.extend(row.replayed for row in view.feeds if row.replayed) if view is not None else None
            return 0.0 < shares[-1] < 1.0

        until(is_under_way, lambda: f"it says how far it is: {shares}; {up.said}")
        summary = up.summary()
        assert up.wait() == 0, up.said
        assert up.left() == []
    assert "% replayed, " in up.said
    assert summary["seconds"] < 200, "it ended with the replay, not by its time"
    assert summary["trades"]["received"] == 9_757 + 6_106
    assert summary["frames"] >= summary["trades"]["received"]
    assert summary["reconciles"] is True
    assert summary["signals"]["unique"] > 0
    assert "kafka" not in summary["memory_bytes"], "that one isn't ours"
    stages = summary["latency_us"]["stages"]
    assert all(figure["p50"] >= 0 for figure in stages.values() if figure["count"])
