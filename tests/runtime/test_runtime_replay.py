"""A replay from its first frame to its last, on a Kafka that somebody else runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.runtime.up_process import Up, trader, until

from chandlery.stream.broker import EmbeddedBroker

pytestmark = [pytest.mark.broker, pytest.mark.slow, pytest.mark.timeout(400)]

EXAMPLE = Path(__file__).parents[2] / "examples" / "replay"


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
