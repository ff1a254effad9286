"""Rollouts and moves on real pods: of two symbols' closed candles every one is decided, and by one version alone."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from tests.e2e.cluster.commands import ClusterError
from tests.e2e.conftest import Images
from tests.e2e.desk import CHART, FEED, POOL, RELEASE, ROLES, START_S, Desk, install, resource
from tests.e2e.feed_books import books_of
from tests.e2e.kubectl import Cluster, Resource, versions_in

from chandlery.core.signals import Signal

pytestmark = [pytest.mark.node, pytest.mark.slow]

_SYMBOLS = ["BTC/USDT", "ETH/USDT"]
# Deciding on a closed candle takes milliseconds; a busy machine may make seconds of them.
_SETTLED_MS = 5_000
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


def _both_updated(pool: Resource) -> bool:
    status = pool.get("status", {})
    current = status.get("observedGeneration") == pool["metadata"]["generation"]
    return bool(current and _conditions(pool)["Ready"]["status"] == "True" and status["updatedWorkers"] == 2)


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
    desk.namespace.until("both workers rolled", ("traderpool", POOL), _both_updated, 2 * START_S)
    status = desk.namespace.until("settled", ("trader", "each"), _rolled_out, START_S)["status"]
    assert status["worker"] != before["worker"]
    for pod in ("quants-0-0", "quants-1-0"):
        assert desk.namespace.get("pod", pod)["metadata"]["annotations"]["changed"] == "yes"
    _each_candle_once(_signals(desk, 3))


def test_other_images_replace_the_feeds_pods_and_one_worker_at_a_time_and_no_candle_is_miscounted_or_decided_twice(
    desk: Desk, images: Images
) -> None:
    namespace = desk.namespace
    namespace.until("both workers of the images before", ("traderpool", POOL), _both_updated, START_S)
    again = {role: images.again(role) for role in ("workers", "stream")}
    tags = [f"--set-string=images.{role}.tag={name.rpartition(':')[2]}" for role, name in again.items()]
    decided_before = desk.more_signals("each", {}).values()
    (old,) = {one.session for one in decided_before}
    since_ms = max(one.open_time_ms for one in decided_before)
    pods = ("pods", "-l", "app.kubernetes.io/component in (ingest, aggregator, worker)")
    with namespace.following("get", *pods, "--watch", "--output=json") as told:
        where = ("--namespace", namespace.name, "--reset-then-reuse-values", "--wait", "--timeout", f"{START_S:.0f}s")
        namespace.cluster.run("helm", "upgrade", RELEASE, str(CHART), *tags, *where, timeout_s=2 * START_S)

        def all_replaced(found: Resource) -> bool:
            return len(found["items"]) == 4 and all(
                _is_ready(pod) and set(_images_of(pod)) <= set(again.values()) for pod in found["items"]
            )

        namespace.until("every pod of the other images", pods, all_replaced, 2 * START_S)
        namespace.until("both workers rolled", ("traderpool", POOL), _both_updated, START_S)
        namespace.until("settled", ("trader", "each"), _rolled_out, START_S)
        seen = versions_in(told())
    workers: dict[str, bool] = {}
    for pod in seen:
        if pod["metadata"]["labels"]["app.kubernetes.io/component"] == "worker":
            workers[pod["metadata"]["name"]] = _is_ready(pod)
            assert any(workers.values()), "one worker at a time"
    signals = _signals_of_another_session(desk, old)
    books = [one for one in books_of(desk) if one["symbol"] in _SYMBOLS]
    for symbol in _SYMBOLS:
        mine = [one for one in signals if one.symbol == symbol]
        assert set(Counter(one.open_time_ms for one in mine).values()) == {1}, f"{symbol}: decided in both sessions"
        before, after = (one for one in books if one["symbol"] == symbol)
        assert before["session"] == old
        for book in (before, after):
            assert (book["first"], book["trades"], book["unique"]) == (1, book["last"], book["last"]), "each trade once"
            assert book["wrong"] == {}
            decided = [one.open_time_ms for one in mine if one.session == book["session"]]
            assert set(decided) <= {open_ms for open_ms, _ in book["candles"]}
        last = max(one.open_time_ms for one in mine if one.session == old)
        # What an older session still held when a newer one replaced it is called no more.
        settled_ms = after["began_ms"] - _SETTLED_MS
        assert [open_ms for open_ms, at_ms in before["candles"] if open_ms > last and at_ms < settled_ms] == []
    for session in {one.session for one in signals}:
        _each_candle_once([one for one in signals if one.session == session and one.open_time_ms >= since_ms])


def _images_of(pod: Resource) -> list[str]:
    return [each["image"] for each in (*pod["spec"].get("initContainers", ()), *pod["spec"]["containers"])]


def _is_ready(pod: Resource) -> bool:
    """Whether it serves, and hasn't been told to end."""
    conditions = pod["status"].get("conditions", ())
    return "deletionTimestamp" not in pod["metadata"] and any(
        (one["type"], one["status"]) == ("Ready", "True") for one in conditions
    )


def _signals_of_another_session(desk: Desk, than: int) -> list[Signal]:
    """Signals of ``each`` once there are ten of another session."""
    found: list[Signal] = []

    def enough(_: Resource) -> bool:
        try:
            found[:] = desk.signals("each")[0].values()
        except ClusterError:
            return False
        return sum(one.session != than for one in found) >= 10

    desk.namespace.until("signals of another session", ("trader", "each"), enough, START_S)
    return found
