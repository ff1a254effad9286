"""Rollouts and moves on real pods: of two symbols' closed candles every one is decided, and by one version alone."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from tests.e2e.cluster.commands import ClusterError
from tests.e2e.conftest import Images
from tests.e2e.desk import FEED, POOL, ROLES, START_S, Desk, install, resource
from tests.e2e.kubectl import Cluster, Resource

from chandlery.core.signals import Signal

pytestmark = [pytest.mark.node, pytest.mark.slow]

_SYMBOLS = ["BTC/USDT", "ETH/USDT"]
_CODE = '''
from chandlery.workers.strategy import Strategy, parameter


class EachCandle(Strategy):
    """Buys on every candle; its 99th version can't be loaded."""

    name = "each-candle"
    version: int = parameter(1, ge=1, doc="which one")

    @property
    def warmup(self) -> int:
        if self.version == 99:
            raise RuntimeError("ninety-nine is too many")
        return 2

    def on_candle(self, ctx, candles):
        ctx.buy(reason="another candle", rule="each")
'''


def _pool(**template: str) -> Resource:
    return resource(
        "TraderPool",
        POOL,
        {
            "feed": {"name": FEED},
            "workers": {"min": 1, "max": 2, "spare": 1},
            "tradersPerWorker": 4,
            "allowConfigMapStrategies": True,
            "podTemplate": {"metadata": {"annotations": template}},
        },
    )


def _each(desk: Desk, name: str, version: int) -> Resource:
    strategy = {
        "name": "EachCandle",
        "source": {"configMapRef": {"name": "each-candle"}},
        "parameters": {"version": version},
    }
    return desk.trader(name, strategy=strategy, market={"symbols": _SYMBOLS, "interval": "1s"})


@pytest.fixture(scope="module")
def desk(node: Cluster, images: Images) -> Iterator[Desk]:
    """A desk whose pool has a spare worker, with a Trader ``each`` that signals on every candle."""
    namespace = node.namespace(f"rollouts-{uuid.uuid4().hex[:6]}")
    try:
        desk = install(namespace, {role: images[role] for role in ROLES})
        code = {
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "each-candle"}, "data": {"strategy.py": _CODE},
        }  # fmt: skip
        namespace.apply([_pool(), code, _each(desk, "each", 1)])
        desk.wait_ready("each")
    except ClusterError as error:
        raise ClusterError(f"{error}\n{namespace.diagnosis()}") from error
    yield desk
    namespace.remove()


def _conditions(trader: Resource) -> dict[str, Resource]:
    return {one["type"]: one for one in trader.get("status", {}).get("conditions", ())}


def _rolled_out(trader: Resource) -> bool:
    status, found = trader.get("status", {}), _conditions(trader)
    newest = trader["metadata"]["generation"]
    return (
        (status.get("observedGeneration"), status.get("runningGeneration")) == (newest, newest)
        and found["Ready"]["status"] == "True"
        and found["Reconciling"]["status"] == "False"
    )


def _signals(desk: Desk, codes: int) -> list[Signal]:
    """Signals of ``each`` once so many versions have signalled, the newest on five candles of both symbols."""
    found: list[Signal] = []

    def enough(_: Resource) -> bool:
        try:
            found[:] = desk.signals("each")[0].values()
        except ClusterError:
            return False
        if not found:
            return False
        newest = max(found, key=lambda one: one.open_time_ms).code
        return len({one.code for one in found}) == codes and sum(one.code == newest for one in found) >= 10

    desk.namespace.until(f"signals of {codes} versions", ("trader", "each"), enough, START_S)
    return found


def _each_candle_once(signals: list[Signal]) -> None:
    for symbol in _SYMBOLS:
        mine = [one.open_time_ms for one in signals if one.symbol == symbol]
        assert [open_ms for open_ms, count in Counter(mine).items() if count > 1] == [], f"{symbol}: decided twice"
        assert sorted(mine) == list(range(min(mine), max(mine) + 1, 1_000)), f"{symbol}: not decided"


def _events(desk: Desk, name: str) -> Counter[str]:
    items: list[Any] = desk.namespace.get("events")["items"]
    return Counter(item["reason"] for item in items if item["involvedObject"]["name"] == name)


def test_an_edited_trader_misses_no_candle_and_decides_none_twice(desk: Desk) -> None:
    _signals(desk, 1)
    for version in (2, 3):
        desk.namespace.apply(_each(desk, "each", version))
        desk.namespace.until(f"version {version} runs", ("trader", "each"), _rolled_out, START_S)
        signals = _signals(desk, version)
    _each_candle_once(signals)
    told = _events(desk, "each")
    assert (told["RolloutStarted"], told["RolloutFinished"]) == (2, 2)


def test_a_version_that_fails_leaves_the_one_before_running_and_says_so(desk: Desk) -> None:
    before = desk.namespace.get("trader", "each")["status"]
    desk.namespace.apply(_each(desk, "each", 99))

    def failed(trader: Resource) -> bool:
        return _conditions(trader).get("Stalled", {}).get("status") == "True"

    status = desk.namespace.until("says that it failed", ("trader", "each"), failed, START_S)["status"]
    conditions = _conditions({"status": status})
    assert conditions["Ready"]["status"] == "True"
    assert "ninety-nine is too many" in conditions["Stalled"]["message"]
    assert status["runningGeneration"] == before["runningGeneration"]
    desk.namespace.apply(_each(desk, "each", 3))
    status = desk.namespace.until("all is well again", ("trader", "each"), _rolled_out, START_S)["status"]
    assert status["incarnation"] == before["incarnation"], "nothing was started again"
    _each_candle_once(_signals(desk, 3))
    assert _events(desk, "each")["RolloutFailed"] == 1


def test_a_changed_pool_rolls_while_its_traders_move_to_the_spare_worker_without_a_gap(desk: Desk) -> None:
    before = desk.namespace.get("trader", "each")["status"]
    desk.namespace.apply(_pool(changed="yes"))

    def rolled(pool: Resource) -> bool:
        status = pool.get("status", {})
        current = status.get("observedGeneration") == pool["metadata"]["generation"]
        return bool(current and _conditions(pool)["Ready"]["status"] == "True" and status["updatedWorkers"] == 2)

    desk.namespace.until("both workers rolled", ("traderpool", POOL), rolled, 2 * START_S)
    status = desk.namespace.until("settled", ("trader", "each"), _rolled_out, START_S)["status"]
    assert status["worker"] != before["worker"]
    for pod in ("quants-0-0", "quants-1-0"):
        assert desk.namespace.get("pod", pod)["metadata"]["annotations"]["changed"] == "yes"
    _each_candle_once(_signals(desk, 3))
