"""Chandlery as it ships, on real pods: installed by its chart, killed part by part, and removed."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.conftest import entered_beside
from tests.e2e.cluster.commands import ClusterError
from tests.e2e.conftest import Images
from tests.e2e.desk import (
    API,
    CHART,
    FEED,
    OPERATOR,
    POOL,
    RELEASE,
    ROLES,
    START_S,
    WORKER,
    Desk,
    eventually,
    install,
    reason_of,
    resource,
)
from tests.e2e.homemade import from_config_map, strategies
from tests.e2e.kubectl import Cluster, Namespace, Resource
from tests.e2e.several_traders import apply_several, assert_all_go_on, kill_process_of
from tests.e2e.traded_exchange import ingested, traded_exchange
from tests.e2e.worker_ending import ends_of, signals_left_in_ring, wait_for_another_worker
from tests.support.exchange_server import ExchangeServer
from tests.support.otlp_receiver import Receiver, Seen, http_receiver

from chandlery.core.latency import account
from chandlery.core.signals import Signal

pytestmark = [pytest.mark.node, pytest.mark.slow]

_QUICKSTART = Path(__file__).parents[2] / "examples" / "quickstart"


@pytest.fixture(scope="module")
def desk(node: Cluster, images: Images) -> Iterator[Desk]:
    """One desk for all tests here, with a Trader ``steady`` that none of them takes away."""
    namespace = node.namespace(f"desk-{uuid.uuid4().hex[:6]}")
    try:
        desk = install(namespace, {role: images[role] for role in ROLES}, symbol_grace="3s")
        namespace.apply(desk.trader("steady"))
        desk.wait_ready("steady")
    except ClusterError as error:
        raise ClusterError(f"{error}\n{namespace.diagnosis()}") from error
    yield desk
    namespace.remove()


@pytest.fixture
def killable(node: Cluster) -> None:
    """Skip where nothing can be killed: on nodes of somebody else's cluster."""
    if node.signal is None:
        pytest.skip("containers of a cluster that isn't this run's own can't be killed")


def test_an_applied_trader_becomes_ready_and_signals_with_an_account_of_its_latency(desk: Desk) -> None:
    fresh = desk.more_signals("steady", {})
    signals, completions = desk.all_signals("steady")
    for each in fresh:
        completion = completions[each]
        stamps = msgspec.structs.replace(
            signals[each].stamps,
            acknowledged_ns=completion.acknowledged_ns,
            wall_offset_ns=completion.wall_offset_ns,
        )
        stages = account(stamps).stages
        assert [stage.name for stage in stages][-3:] == ["decided", "signalled", "acknowledged"]
        assert all(stage.duration_us >= 0 for stage in stages)


def test_the_chart_passes_its_own_test(desk: Desk) -> None:
    printed = desk.namespace.cluster.run("helm", "test", RELEASE, "--namespace", desk.namespace.name, timeout_s=START_S)
    assert "Phase:          Succeeded" in printed


def test_traders_map_the_segment_read_only_hold_no_credential_and_take_nobodys_core(desk: Desk) -> None:
    program = """
import json, os
def tried(call, *words):
    try:
        return call(*words)
    except OSError as error:
        return error.strerror
print(json.dumps({
    "segment": str(tried(open, "/run/chandlery/segment/segment", "r+b")),
    "rings": sorted(name for name in os.listdir("/run/chandlery/rings") if name.endswith(".ring")),
    "uid": os.getuid(),
    "secrets": [path for path in ("/var/run/secrets", "/etc/chandlery/token", "/etc/chandlery/assignment") if os.path.exists(path)],
    "kafka": [name for name in os.environ if "KAFKA" in name],
    "batch": [tried(os.sched_getscheduler, int(pid)) for pid in os.listdir("/proc") if pid.isdigit()].count(os.SCHED_BATCH),
}))
"""
    found = json.loads(desk.namespace.execute(WORKER, "python", "-c", program, container="traders"))
    assert found["segment"] == "Read-only file system"
    assert f"{desk.namespace.name}__steady@1.ring" in found["rings"]
    assert found["uid"] == 10001
    assert found["batch"] >= 1, "a pod's filter of system calls lets a trader take its policy"
    assert found["secrets"] == []
    assert found["kafka"] == []


def test_an_upgrade_that_changes_no_image_touches_no_pod_of_a_feed_or_a_pool(desk: Desk) -> None:
    namespace = desk.namespace
    pods, trader, operator = desk.pods(), namespace.get("trader", "steady")["status"], _operator_pod(desk)
    changed = ("--reuse-values", "--set", "operator.podAnnotations.upgraded=yes")
    where = ("--namespace", namespace.name, "--wait", "--timeout", f"{START_S:.0f}s")
    namespace.cluster.run("helm", "upgrade", RELEASE, str(CHART), *changed, *where, timeout_s=2 * START_S)
    assert _operator_pod(desk) != operator, "nothing was upgraded"
    namespace.apply(desk.trader("upgraded"))
    desk.wait_ready("upgraded")
    namespace.kubectl("delete", "trader", "upgraded")
    assert desk.pods() == pods
    desk.wait_ready("steady")
    now = namespace.get("trader", "steady")["status"]
    for what in ("worker", "incarnation", "runningGeneration"):
        assert now[what] == trader[what], what
    known, _ = desk.all_signals("steady")
    desk.more_signals("steady", known)


def test_a_deleted_worker_pod_comes_back_with_its_traders_while_the_operator_is_down(desk: Desk) -> None:
    each_second = {"name": "every-nth", "parameters": {"count": 1}} | from_config_map("every-nth", "modest.py")
    desk.namespace.apply(strategies())
    desk.namespace.apply(desk.trader("tireless", strategy=each_second, signals={"ttl": "10m"}))
    desk.wait_ready("tireless")
    desk.more_signals("tireless", {})
    desk.more_signals("steady", {})
    desk.scale_operator(0)
    before = desk.namespace.get("pod", WORKER)["metadata"]["uid"]
    desk.namespace.kubectl("delete", "pod", WORKER, "--grace-period=0", "--force", "--wait=false")
    wait_for_another_worker(desk, before)
    known, _ = desk.all_signals("steady")
    fresh = desk.more_signals("steady", known)
    assert desk.namespace.get(*OPERATOR.split("/"))["status"].get("replicas", 0) == 0
    assert {signal.trader for signal in fresh.values()} == {f"{desk.namespace.name}/steady"}
    known, _ = desk.all_signals("tireless")
    desk.more_signals("tireless", known)
    _assert_each_second_once(desk, "tireless")
    desk.scale_operator(1)
    desk.wait_ready("steady")
    desk.namespace.kubectl("delete", "trader", "tireless")


def _assert_each_second_once(desk: Desk, name: str) -> None:
    opens = sorted(record.open_time_ms for record in desk.all_records(name) if isinstance(record, Signal))
    assert opens == list(range(opens[0], opens[-1] + 1, 1_000)), "each second has its signal, once"


@pytest.mark.usefixtures("killable")
def test_a_worker_pod_that_is_told_to_end_publishes_what_is_in_its_rings_before_it_does(desk: Desk) -> None:
    namespace, slow = desk.namespace, from_config_map("deliberate", "deliberate.py")
    namespace.apply([strategies(), desk.trader("deliberate", strategy=slow, signals={"ttl": "10m"})])
    desk.wait_ready("deliberate")
    desk.more_signals("deliberate", {})
    before = namespace.get("pod", WORKER)["metadata"]["uid"]
    with (
        namespace.following("get", "pod", WORKER, "--watch", "--output=json") as told,
        namespace.following("logs", WORKER, "--container=traders", "--follow", "--tail=1") as said,
    ):
        with signals_left_in_ring(desk, "deliberate") as left:
            namespace.kubectl("delete", "pod", WORKER, "--wait=false")
            eventually("the traders' end", lambda: "supervisor stopped" in said())
        eventually("the feed's end", lambda: "feed" in ends_of(before, told()))
        ends = ends_of(before, told())
    assert {name: end["exitCode"] for name, end in ends.items()} == {"traders": 0, "feed": 0}
    assert ends["traders"]["finishedAt"] <= ends["feed"]["finishedAt"]
    signals, completions = desk.all_signals("deliberate")
    assert left
    for each in left:
        # Decided once more it would have the same id, but not the same time.
        assert signals[each.id].emitted_wall_ms == each.emitted_wall_ms, "that one, and none that was decided again"
        assert each.id in completions
    wait_for_another_worker(desk, before)
    desk.more_signals("deliberate", signals)
    _assert_each_second_once(desk, "deliberate")
    namespace.kubectl("delete", "trader", "deliberate")
    desk.wait_ready("steady")


@pytest.fixture(scope="module")
def several(desk: Desk) -> Desk:
    """The desk with Traders of several kinds, ``steady`` among them."""
    apply_several(desk)
    return desk


@pytest.mark.usefixtures("killable")
@pytest.mark.parametrize(
    ("pod", "container"),
    [
        (f"{RELEASE}-kafka-0", "kafka"),
        ("market-ingest-0", "ingest"),
        ("market-aggregator-0", "aggregator"),
        (WORKER, "feed"),
        (WORKER, "traders"),
    ],
)
def test_kill_9_of_any_part_loses_no_trader(several: Desk, pod: str, container: str) -> None:
    several.namespace.kill(pod, container)
    several.namespace.wait(f"pod/{RELEASE}-kafka-0", "condition=Ready", START_S)
    assert_all_go_on(several)


def test_kill_9_of_one_traders_process_has_it_start_again_and_touches_no_other(several: Desk) -> None:
    before = several.pods()
    kill_process_of(several, "own-code")
    assert_all_go_on(several)
    assert several.pods() == before


@pytest.mark.usefixtures("killable")
def test_kill_9_of_the_operator_loses_no_change(several: Desk) -> None:
    labels = ("-l", "app.kubernetes.io/component=operator")
    (pod,) = several.namespace.get("pods", *labels)["items"]
    name = pod["metadata"]["name"]
    several.namespace.kill(name, "operator")
    several.namespace.apply(several.trader("late", "ETH/USDT"))
    several.wait_ready("late")
    several.more_signals("late", {})
    assert_all_go_on(several)
    several.namespace.kubectl("delete", "trader", "late", "edited", "resting", "own-code")


def test_a_strategy_that_is_in_no_image_runs_and_no_pod_rolls(desk: Desk) -> None:
    before = desk.namespace.get("pod", WORKER)["metadata"]["uid"]
    desk.namespace.apply(strategies())
    desk.namespace.apply(desk.trader("homemade", strategy=from_config_map("every-nth", "modest.py")))
    desk.wait_ready("homemade")
    desk.more_signals("homemade", {})
    assert desk.namespace.get("pod", WORKER)["metadata"]["uid"] == before


def test_a_trader_over_its_memory_limit_ends_alone(desk: Desk) -> None:
    before = desk.restarts()
    because = "killed by SIGKILL (memory limit 256 MB)"
    desk.namespace.apply(strategies())
    greedy = desk.trader("glutton", strategy=from_config_map("greedy", "greedy.py"), resources={"memory": "256Mi"})
    desk.namespace.apply(greedy)

    def is_told(events: Resource) -> bool:
        return _said_of(events, "glutton", "MemoryLimit") != []

    # A condition comes and goes with each of its starts, and from the fifth end on it is CrashLoop; an event stays.
    desk.namespace.until("the glutton's end", ("events",), is_told, START_S)

    def is_ended(trader: Resource) -> bool:
        conditions = trader.get("status", {}).get("conditions", ())
        return [because] == [one["message"] for one in conditions if (one["type"], one["status"]) == ("Ready", "False")]

    desk.namespace.until("its condition", ("trader", "glutton"), is_ended, START_S)
    known, _ = desk.all_signals("steady")
    desk.more_signals("steady", known)
    assert desk.restarts() == before
    assert _said_of(desk.namespace.get("events"), "glutton", "MemoryLimit") == [because], "told once of all its ends"
    desk.namespace.kubectl("delete", "trader", "glutton")


def test_in_a_container_that_is_full_one_trader_ends_and_not_the_container(desk: Desk) -> None:
    desk.namespace.apply(strategies())
    # Each below what there is for traders (448 MiB less 256 and the rings), all of them together far above it.
    tight = {"containers": [{"name": "traders", "resources": {"limits": {"memory": "448Mi"}}}]}
    pool = {"feed": {"name": FEED}, "tradersPerWorker": 4, "allowConfigMapStrategies": True, "podTemplate": {"spec": tight}}  # fmt: skip
    hoarding = from_config_map("hoarding", "hoarding.py")
    names = [f"hoarder-{number}" for number in range(3)]
    own: dict[str, Any] = {"pool": {"name": "tight"}, "resources": {"memory": "180Mi"}}
    hoarders = [desk.trader(name, strategy=hoarding, **own) for name in names]
    desk.namespace.apply([resource("TraderPool", "tight", pool), desk.trader("calm", **own)])
    desk.wait_ready("calm")
    desk.namespace.apply(hoarders)

    def is_full(traders: Resource) -> bool:
        said = [json.dumps(each.get("status", {})) for each in traders["items"]]
        return any("the traders' container has" in each for each in said)

    desk.namespace.until("one that ended for the others", ("traders",), is_full, START_S)
    assert desk.reason("calm") == "Running"
    (traders,) = desk.namespace.get("pod", "tight-0-0")["status"]["containerStatuses"]
    assert (traders["name"], traders["restartCount"]) == ("traders", 0)
    desk.namespace.kubectl("delete", "trader", "calm", *names)
    desk.namespace.kubectl("delete", "traderpool", "tight")


def test_a_trader_of_another_namespace_runs_only_where_the_pool_lets_it(desk: Desk) -> None:
    neighbour = desk.namespace.cluster.namespace(f"{desk.namespace.name}-neighbour")

    def is_refused(trader: Resource) -> bool:
        return reason_of(trader) == "NotAllowed"

    try:
        neighbour.apply(desk.trader("guest", pool={"name": POOL, "namespace": desk.namespace.name}))
        neighbour.until("the refusal", ("trader", "guest"), is_refused)
        _allow_traders_from(desk, "All")
        neighbour.wait("trader/guest", "condition=Ready", START_S)
        _allow_traders_from(desk, "Same")
        neighbour.until("the refusal", ("trader", "guest"), is_refused)
    finally:
        neighbour.remove()


def test_the_quickstart_applied_to_another_namespace_has_every_trader_warm(desk: Desk) -> None:
    neighbour = desk.namespace.cluster.namespace(f"{desk.namespace.name}-quickstart")
    try:
        neighbour.apply(_QUICKSTART)
        neighbour.wait("marketfeed/synthetic", "condition=Ready", START_S)
        neighbour.wait("traderpool/quants", "condition=Ready", START_S)

        def all_run(traders: Resource) -> bool:
            found = [
                {each["type"]: each["status"] for each in one.get("status", {}).get("conditions", ())}
                for one in traders["items"]
            ]
            return len(found) == 5 and all((one.get("Ready"), one.get("Warm")) == ("True", "True") for one in found)

        neighbour.until("all Traders Ready and Warm", ("traders",), all_run, START_S)
    except ClusterError as error:
        raise ClusterError(f"{error}\n{neighbour.diagnosis()}") from error
    finally:
        neighbour.remove()


@pytest.fixture(scope="module")
def exchange(node: Cluster) -> Iterator[ExchangeServer]:
    """An exchange on this machine that has two symbols, both traded ten times a second, and that pods reach."""
    if not node.tests_address:
        pytest.skip("pods of a cluster that isn't this run's own may not reach the test's exchange")
    with entered_beside(traded_exchange(node.tests_address)) as server:
        yield server


@pytest.fixture(scope="module")
def exchanged(desk: Desk, exchange: ExchangeServer) -> Desk:
    """The desk with a feed of that exchange, of the symbols that Traders ask for, and a pool; both are ``exchange``."""
    source = {"binance": {"baseUrl": exchange.base_url}}
    feed = resource("MarketFeed", "exchange", {"source": source, "symbols": "auto"})
    pool = resource("TraderPool", "exchange", {"feed": {"name": "exchange"}, "tradersPerWorker": 4})
    desk.namespace.apply([feed, pool, desk.trader("keep", pool={"name": "exchange"})])
    return desk


def test_a_symbol_that_the_exchange_lacks_is_told_on_the_trader_that_asks_for_it_alone(exchanged: Desk) -> None:
    namespace = exchanged.namespace
    namespace.apply(exchanged.trader("lost", "NOPE/USDT", pool={"name": "exchange"}))

    def is_told(trader: Resource) -> bool:
        found = {each["type"]: each for each in trader.get("status", {}).get("conditions", ())}
        return "Ready" in found and found["Ready"]["reason"] == "UnknownSymbol" and found["Stalled"]["status"] == "True"

    trader = namespace.until("the unknown symbol", ("trader", "lost"), is_told, START_S)
    (ready,) = (each for each in trader["status"]["conditions"] if each["type"] == "Ready")
    message = "the feed's source has no NOPE/USDT: mend spec.market"
    assert (ready["status"], ready["message"]) == ("False", message)
    exchanged.wait_ready("keep")
    feed = namespace.until(
        "the feed", ("marketfeed", "exchange"), lambda one: "unknownSymbols" in one.get("status", {}), START_S
    )
    assert feed["status"]["unknownSymbols"] == ["NOPE/USDT"]
    namespace.apply(exchanged.trader("lost", pool={"name": "exchange"}))
    exchanged.wait_ready("lost")
    events = namespace.get("events")
    assert _said_of(events, "lost", "UnknownSymbol") == [message], "told once"
    assert _said_of(events, "keep", "UnknownSymbol") == []
    namespace.kubectl("delete", "trader", "lost")


def test_a_symbol_that_the_last_trader_left_is_unsubscribed_after_a_grace_time_and_the_others_go_on(
    exchanged: Desk, exchange: ExchangeServer
) -> None:
    namespace = exchanged.namespace

    def asked_for(*streams: str) -> bool:
        return sorted({stream for one in tuple(exchange.connections) for stream in one.streams}) == sorted(streams)

    namespace.apply(exchanged.trader("leaver", "ETH/USDT", pool={"name": "exchange"}))
    eventually("both streams", lambda: asked_for("btcusdt@trade", "ethusdt@trade"))
    exchanged.wait_ready("leaver")
    eventually("trades of both", lambda: sorted(ingested(namespace, "exchange")["symbols"]) == ["BTC/USDT", "ETH/USDT"])
    before = ingested(namespace, "exchange")
    namespace.kubectl("delete", "trader", "leaver")
    eventually("the other stream alone", lambda: asked_for("btcusdt@trade"))

    def goes_on() -> bool:
        told = ingested(namespace, "exchange")
        return list(told["symbols"]) == ["BTC/USDT"] and told["symbols"]["BTC/USDT"]["trades"] > 20

    eventually("its trades", goes_on)
    after = ingested(namespace, "exchange")
    assert after["session"] == before["session"]
    told = after["symbols"]["BTC/USDT"]
    assert told["duplicates"] == 0
    assert told["last_id"] > before["symbols"]["BTC/USDT"]["last_id"]
    assert told["gap_ids"] == 0, "not one was missed meanwhile, nor when the other came"
    assert exchanged.reason("keep") == "Running"
    namespace.kubectl("delete", "trader", "keep")
    namespace.kubectl("delete", "traderpool,marketfeed", "exchange")


def test_a_pool_that_names_a_receiver_sends_it_traces_that_say_whose_pods_spans_they_are(desk: Desk) -> None:
    if not desk.namespace.cluster.tests_address:
        pytest.skip("pods of a cluster that isn't this run's own may not reach the test's receiver")
    with http_receiver(host=desk.namespace.cluster.tests_address) as receiver:
        patch = json.dumps({"spec": {"telemetry": {"otlpEndpoint": receiver.endpoint}}})
        desk.namespace.kubectl("patch", "traderpool", POOL, "--type=merge", "--patch", patch)
        spans = _first_trace(receiver)
        whose = {
            span.service: {key: value for key, value in span.resource.items() if key[:4] == "k8s."} for span in spans
        }
        worker = desk.namespace.get("pod", whose["chandlery-feed"]["k8s.pod.name"])
    assert worker["metadata"]["labels"]["chandlery.dev/pool"] == POOL
    assert whose["chandlery-feed"] == whose["chandlery-trader"]
    assert whose["chandlery-feed"] == {
        "k8s.pod.name": worker["metadata"]["name"],
        "k8s.namespace.name": desk.namespace.name,
        "k8s.pod.uid": worker["metadata"]["uid"],
        "k8s.node.name": worker["spec"]["nodeName"],
    }
    for service in ("chandlery-ingest", "chandlery-aggregator"):
        pod = desk.namespace.get("pod", whose[service]["k8s.pod.name"])["metadata"]
        (owner,) = pod["ownerReferences"]
        assert (owner["kind"], owner["name"]) == ("StatefulSet", whose[service]["k8s.statefulset.name"])
        assert owner["name"] == f"{FEED}-{service.removeprefix('chandlery-')}"
        assert pod["namespace"] == whose[service]["k8s.namespace.name"]


def _first_trace(receiver: Receiver) -> list[Seen]:
    """The first whole trace that comes: of a signal on candles that the worker took from the topic."""
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        for spans in receiver.traces().values():
            if len({span.service for span in spans}) == 4:
                return spans
        time.sleep(0.2)
    raise ClusterError(f"no whole trace within {START_S:.0f} s; there are {len(receiver.spans)} spans")


def _said_of(events: Resource, name: str, reason: str) -> list[str]:
    """Messages of the events of one resource with that reason."""
    mine = (one for one in events["items"] if (one["involvedObject"]["name"], one["reason"]) == (name, reason))
    return [one["message"] for one in mine]


def _allow_traders_from(desk: Desk, whom: str) -> None:
    patch = json.dumps({"spec": {"allowedTraders": {"namespaces": {"from": whom}}}})
    desk.namespace.kubectl("patch", "traderpool", POOL, "--type=merge", "--patch", patch)


def _operator_pod(desk: Desk) -> str:
    """Which pod the operator is; an older one that is going doesn't count."""
    pods = desk.namespace.get("pods", "-l", "app.kubernetes.io/component=operator")["items"]
    (uid,) = (pod["metadata"]["uid"] for pod in pods if "deletionTimestamp" not in pod["metadata"])
    return str(uid)


# The last two of this file: they take away what the others use.
def test_uninstall_leaves_the_users_resources_and_pods_which_an_operator_installed_again_takes_over(
    desk: Desk, images: Images
) -> None:
    namespace = desk.namespace
    kept = {name: uid for name, (uid, _) in desk.pods().items() if name != f"{RELEASE}-kafka-0"}
    _uninstall(namespace)
    assert namespace.get("trader", "steady")["apiVersion"] == API
    left = namespace.get("clusterroles,clusterrolebindings", "-l", f"app.kubernetes.io/instance={RELEASE}")
    assert left["items"] == []
    pods = namespace.get("pods", *kept)["items"]
    assert {pod["metadata"]["name"]: pod["metadata"]["uid"] for pod in pods} == kept
    assert not any("deletionTimestamp" in pod["metadata"] for pod in pods)
    assert {pod["status"]["phase"] for pod in pods} == {"Running"}
    install(namespace, {role: images[role] for role in ROLES})
    # Not by its signals: this Kafka is empty, and whoever read of the one before starts again, after the kubelet's pause.
    namespace.kubectl("patch", "trader", "steady", "--type=merge", "--patch", '{"spec": {"suspend": true}}')

    def is_suspended(trader: Resource) -> bool:
        return reason_of(trader) == "Suspended"

    namespace.until("what is wanted", ("trader", "steady"), is_suspended, START_S)
    assert {name: uid for name, (uid, _) in desk.pods().items() if name in kept} == kept


def _uninstall(namespace: Namespace) -> None:
    namespace.cluster.run("helm", "uninstall", RELEASE, "--namespace", namespace.name, "--wait", timeout_s=START_S)


def test_a_namespace_ends_without_an_operator(desk: Desk) -> None:
    namespace = desk.namespace
    _uninstall(namespace)
    namespace.kubectl("delete", "namespace", namespace.name, f"--timeout={START_S:.0f}s", timeout_s=START_S + 10)
