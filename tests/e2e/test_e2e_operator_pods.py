"""The operator with real pods: Kafka, ingest, aggregator and workers run their own processes on a real kubelet."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from tests.e2e.cluster.commands import ClusterError
from tests.e2e.conftest import Images
from tests.e2e.kubectl import Namespace, Resource
from tests.e2e.operator_beside import operator_beside
from tests.support.operator_stage import Object, OperatorProcess, conditions_of, kafka_pod

pytestmark = [pytest.mark.node, pytest.mark.slow]

# Everything starts on 2 busy cores: JVM 5 s, Faust 4 s, images unpacked; ten times that.
_START_S = 180.0
_CODE = '''
from chandlery.workers.strategy import Strategy, parameter


class EveryThird(Strategy):
    """Buys at every third candle: a strategy that is in no image."""

    name = "every-third"
    count: int = parameter(3, ge=1, doc="candles")

    @property
    def warmup(self) -> int:
        return 5

    def on_candle(self, ctx, candles):
        if int(candles.open_time[-1]) // 1000 % self.count == 0:
            ctx.buy(reason="third", rule="every")
'''


def _resource(kind: str, name: str, spec: Object) -> Object:
    return {"apiVersion": "chandlery.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}


def _trader(name: str, symbol: str = "BTC/USDT", **spec: object) -> Object:
    whole = {
        "pool": {"name": "quants"}, "strategy": {"name": "sma-cross", "parameters": {"fast": 3, "slow": 8}},
        "market": {"symbols": [symbol], "interval": "1s"}, **spec,
    }  # fmt: skip
    return _resource("Trader", name, whole)


@pytest_asyncio.fixture
async def operator(on_node: Namespace, images: Images, tmp_path: Path) -> AsyncIterator[OperatorProcess]:
    """An operator beside the cluster, looking after the test's namespace."""
    async with operator_beside(on_node, images, tmp_path / "operator.log", "--unready-after", "10s") as made:
        yield made


def _running(namespace: Namespace, trader: str, condition: str = "Ready", timeout_s: float = _START_S) -> Resource:
    def holds(item: Resource) -> bool:
        found = conditions_of(item).get(condition, {})
        current = item.get("status", {}).get("observedGeneration") == item["metadata"]["generation"]
        return bool(current and found.get("status") == "True")

    return namespace.until(f"{trader} {condition}", ("trader", trader), holds, timeout_s)


def _worker(namespace: Namespace, pod: str, path: str) -> Any:
    """What a worker's API answers, asked from within the pod: only there the token and the address are known."""
    secret = namespace.get("secret", f"{pod.removesuffix('-0')}-worker-token")
    token = base64.b64decode(secret["data"]["token"]).decode()
    ask = (
        "import urllib.request as r;"
        f"q=r.Request('http://127.0.0.1:8080{path}',headers={{'Authorization':'Bearer {token}'}});"
        "print(r.urlopen(q,timeout=5).read().decode())"
    )
    return json.loads(namespace.execute(pod, "python", "-c", ask, container="feed"))


async def test_traders_run_in_real_pods_and_come_back_after_everything_was_killed_in_turn(
    on_node: Namespace, images: Images, operator: OperatorProcess, tmp_path: Path
) -> None:
    on_node.apply(kafka_pod(images["kafka"], on_node.name))
    kafka = {"bootstrapServers": f"kafka.{on_node.name}.svc:9092"}
    on_node.apply(
        [
            _resource("MarketFeed", "market", {"source": {"synthetic": {}}, "kafka": kafka}),
            _resource("TraderPool", "quants", {
                "feed": {"name": "market"}, "workers": {"min": 1, "max": 1}, "allowConfigMapStrategies": True,
            }),
            _trader("one"),
        ]
    )  # fmt: skip
    _running(on_node, "one", "Warm")
    on_node.wait("marketfeed/market", "condition=Ready", _START_S)

    # A new symbol is asked for by a Trader alone, and a strategy comes in no image: no pod rolls for either.
    code = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "mine"}, "data": {"strategy.py": _CODE}}
    mine = {"name": "EveryThird", "source": {"configMapRef": {"name": "mine"}}}
    on_node.apply([code, _trader("mine", strategy=mine), _trader("other", "ETH/USDT")])
    _running(on_node, "mine", "Warm")
    _running(on_node, "other", "Warm")
    pod = on_node.get("pod", "quants-0-0")
    assert all(one["restartCount"] == 0 for one in pod["status"]["containerStatuses"])

    # Signals come from the pod, and the traders' container can't write the segment, nor see any credential.
    def signals(_: Resource) -> bool:
        return any(
            one["signal"]["trader"] == f"{on_node.name}/mine"
            for one in _worker(on_node, "quants-0-0", "/v1/signals?limit=50")
        )

    on_node.until("a signal of mine", ("pod", "quants-0-0"), signals)
    with pytest.raises(ClusterError, match="Read-only file system"):
        on_node.execute(
            "quants-0-0", "python", "-c", "open('/run/chandlery/segment/segment', 'r+b')", container="traders"
        )
    seen = on_node.execute(
        "quants-0-0", "python", "-c",
        "import os; print(os.path.exists('/var/run/secrets'), sorted(os.listdir('/etc/chandlery')))", container="traders",
    )  # fmt: skip
    assert seen.strip() == "False ['settings']"

    # The operator is away: a container that is killed, and a pod that is deleted, come back with their traders.
    operator.kill()
    on_node.execute("quants-0-0", "python", "-c", "import os; os.kill(1, 15)", container="traders")

    def traders_back(_: Resource) -> bool:
        try:
            traders = _worker(on_node, "quants-0-0", "/v1/status")["traders"]
        except ClusterError:
            return False
        return {name.partition("/")[2]: one["state"] for name, one in traders.items()} == dict.fromkeys(
            ("mine", "one", "other"), "Active"
        )

    on_node.until("traders Active after their container ended", ("pod", "quants-0-0"), traders_back, _START_S)
    on_node.kubectl("delete", "pod", "quants-0-0", "--wait=true", timeout_s=_START_S)
    on_node.until("traders Active in a new pod", ("pod", "quants-0-0"), traders_back, _START_S)

    # What is asked for meanwhile is done when the operator is back.
    on_node.apply(_trader("late"))
    again = OperatorProcess(on_node.cluster.kubeconfig, tmp_path / "again.log", 8080, operator.arguments)
    await again.start()
    try:
        _running(on_node, "late", "Warm")
        on_node.kubectl("delete", "trader", "one")

        def gone(_: Resource) -> bool:
            return f"{on_node.name}/one" not in _worker(on_node, "quants-0-0", "/v1/status")["traders"]

        on_node.until("the deleted Trader's process gone", ("pod", "quants-0-0"), gone)
    finally:
        assert await again.stop() == 0
