"""The chart's own example on a real node: from one `helm install` to a Trader that runs, and `helm test` agrees."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest
from tests.e2e.conftest import Images
from tests.e2e.kubectl import Namespace

CHART: Final = Path(__file__).parents[2] / "charts" / "chandlery"
# From nothing to Ready takes 12 s on two quiet cores: a JVM, three Pythons, a topic's first records. Ten times that
# and more for a machine that does other things.
_START_S: Final = 180.0


@pytest.mark.node
def test_one_install_brings_a_trader_that_runs(on_node: Namespace, images: Images) -> None:
    on_node.cluster.kubectl("label", "namespace", on_node.name, "pod-security.kubernetes.io/enforce=restricted")
    settings = ["kafka.embedded.enabled=true", "example.enabled=true"]
    for role in ("operator", "workers", "stream", "kafka"):
        repository, _, tag = images[role].rpartition(":")
        settings += [f"images.{role}.repository={repository}", f"images.{role}.tag={tag}"]
    words = [word for setting in settings for word in ("--set-string" if ".tag=" in setting else "--set", setting)]
    helm = ("--namespace", on_node.name)
    on_node.cluster.run("helm", "install", "mine", str(CHART), *helm, *words, timeout_s=60)
    on_node.wait("trader/sma-btc", "condition=Ready", _START_S)
    trader = on_node.get("trader", "sma-btc")
    assert trader["status"]["pod"] == "quants-0-0"
    assert trader["status"]["observedGeneration"] == trader["metadata"]["generation"] == 1
    told = on_node.cluster.run("helm", "test", "mine", *helm, timeout_s=_START_S)
    assert "Phase:          Succeeded" in told
