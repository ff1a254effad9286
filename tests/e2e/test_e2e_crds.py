"""The CRDs on a real API server: what it takes and what it refuses, what it fills in, and how they read there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.core.wrong_resources import ACCEPTED, FEED, POOL, REFUSED, TRADER, with_spec
from tests.e2e.cluster.commands import ClusterError
from tests.e2e.kubectl import Cluster, Namespace

from chandlery.core.resources import API_VERSION, KINDS, Resource
from chandlery.core.resources.status import Condition, FeedStatus, Latency, PoolStatus, TraderStatus, status_manifest

ROOT = Path(__file__).parents[2]
CRDS = ROOT / "charts" / "chandlery" / "crds"
EXAMPLES = sorted(path for path in (ROOT / "examples").glob("*/*.yaml"))


@pytest.fixture(scope="module")
def with_crds(control_plane: Cluster) -> Cluster:
    """The cluster with the CRDs, each ready to be used."""
    control_plane.apply(CRDS)
    for kind in KINDS:
        name = f"crd/{kind.lower()}s.chandlery.dev"
        control_plane.kubectl("wait", "--for=condition=Established", name, "--timeout=30s", timeout_s=60)
        conditions = control_plane.get(name)["status"]["conditions"]
        assert [one["message"] for one in conditions if one["type"] == "NonStructuralSchema"] == []
    return control_plane


@pytest.fixture
def namespace(with_crds: Cluster, on_control_plane: Namespace) -> Namespace:
    return on_control_plane


def manifest(kind: type[Resource], value: dict[str, Any]) -> str:
    return json.dumps({"apiVersion": API_VERSION, "kind": kind.KIND, **value}, allow_nan=False)


def tried(cluster: Cluster, text: str) -> str:
    """What the API server would store; ClusterError with its words if it would refuse."""
    return cluster.kubectl("create", "--dry-run=server", "--validate=strict", "-o", "json", "-f", "-", stdin=text)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_every_example_is_accepted(with_crds: Cluster, path: Path) -> None:
    with_crds.apply(path, "--dry-run=server", "--validate=strict")


@pytest.mark.parametrize(("kind", "value"), ACCEPTED)
def test_what_is_unusual_and_right_is_accepted_and_means_the_same(
    with_crds: Cluster, kind: type[Resource], value: dict[str, Any]
) -> None:
    stored = json.loads(tried(with_crds, manifest(kind, value)))
    # The operator reads what the API server stored, with the defaults that it filled in.
    assert kind.model_validate(stored).spec == kind.model_validate(value).spec  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("kind", "value", "says"), [(kind, value, says) for kind, value, _, says in REFUSED if says is not None]
)
def test_what_can_not_be_is_refused_by_a_sentence_that_names_the_field(
    with_crds: Cluster, kind: type[Resource], value: dict[str, Any], says: str
) -> None:
    with pytest.raises(ClusterError) as caught:
        tried(with_crds, manifest(kind, value))
    assert says in str(caught.value)


@pytest.mark.parametrize("where", ["spec", "spec.market", "spec.strategy.source.configMapRef", "metadata"])
def test_an_unknown_field_is_refused_wherever_it_stands(with_crds: Cluster, where: str) -> None:
    trader = json.loads(manifest(KINDS["Trader"], TRADER))
    trader["spec"]["strategy"]["source"] = {"configMapRef": {"name": "code"}}
    inner = trader
    for part in where.split("."):
        inner = inner[part]
    inner["intervall"] = "1m"
    with pytest.raises(ClusterError, match=f'unknown field "{where}.intervall"'):
        tried(with_crds, json.dumps(trader))


def test_partitions_can_not_be_changed_but_with_other_topics(namespace: Namespace) -> None:
    feed = (
        "apiVersion: chandlery.dev/v1alpha1\nkind: MarketFeed\nmetadata: {name: f}\nspec:\n  source: {synthetic: {}}\n"
    )
    namespace.apply(feed)
    namespace.apply(feed + "  kafka: {partitions: 1}\n")  # what it is where it isn't given, with no Kafka named
    for count in (2, 8):
        with pytest.raises(ClusterError, match=r"spec.kafka.partitions: .*partitions can't be changed"):
            namespace.apply(feed + f"  kafka: {{partitions: {count}}}\n")
    namespace.apply(feed + "  kafka: {partitions: 8, topicPrefix: new.}\n")
    namespace.apply(feed + "  kafka: {bootstrapServers: 'a:9092', topicPrefix: new.}\n")
    namespace.apply(feed + "  kafka: {bootstrapServers: 'a:9092', topicPrefix: new., partitions: 4}\n")


def test_raising_min_alone_raises_max_with_it_also_later(namespace: Namespace) -> None:
    namespace.apply(manifest(KINDS["TraderPool"], POOL))
    namespace.apply(manifest(KINDS["TraderPool"], with_spec(POOL, workers={"min": 3})))
    assert namespace.get("traderpool", "a")["spec"]["workers"] == {"min": 3, "spare": 0}


def test_applying_the_same_again_changes_nothing(namespace: Namespace) -> None:
    for file in sorted((ROOT / "examples" / "quickstart").glob("*.yaml")):
        namespace.apply(file)
        before = namespace.get("-f", str(file))
        namespace.apply(file)
        namespace.apply(file, "--server-side", "--force-conflicts")
        after = namespace.get("-f", str(file))
        for one, other in zip(_items(before), _items(after), strict=True):
            assert one["metadata"]["generation"] == other["metadata"]["generation"] == 1
            assert one["spec"] == other["spec"]


def _items(found: dict[str, Any]) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = found.get("items", [found])
    return items


def test_what_the_operator_has_not_seen_says_so(namespace: Namespace) -> None:
    for way in ("--server-side", "--server-side=false"):
        namespace.apply(manifest(KINDS["Trader"], TRADER), way)
        assert namespace.get("trader", "a")["status"] == {"observedGeneration": -1}
        namespace.kubectl("delete", "trader", "a")


def test_the_operators_status_is_taken_by_server_side_apply_and_shown_in_columns(namespace: Namespace) -> None:
    namespace.apply(manifest(KINDS["Trader"], TRADER))
    moment = "2026-01-01T00:00:00Z"
    ready = Condition(type="Ready", status="True", reason="Running", last_transition_time=moment, message="decides")
    status = TraderStatus(
        observed_generation=1, conditions=[ready], pod="p-0-0", signals=7, latency=Latency("3ms", "9.5ms", 7)
    )
    body = json.loads(manifest(KINDS["Trader"], TRADER)) | {"status": status_manifest(status)}
    del body["spec"]
    arguments = ("apply", "--server-side", "--subresource=status", "--field-manager=operator", "-f", "-")
    namespace.kubectl(*arguments, stdin=json.dumps(body))
    trader = namespace.get("trader", "a")
    assert trader["status"] == status_manifest(status)
    assert trader["metadata"]["generation"] == 1
    header, row = namespace.kubectl("get", "td").splitlines()
    assert header.split() == [
        "NAME",
        "READY",
        "REASON",
        "STRATEGY",
        "SYMBOLS",
        "INTERVAL",
        "POD",
        "SIGNALS",
        "P99",
        "AGE",
    ]
    assert row.split()[:9] == ["a", "True", "Running", "sma-cross", '["BTC/USDT"]', "1m", "p-0-0", "7", "9.5ms"]
    namespace.kubectl("wait", "--for=condition=Ready", "trader/a", "--timeout=5s")
    body["status"]["unknown"] = 1
    with pytest.raises(ClusterError, match="unknown"):
        namespace.kubectl(*arguments, stdin=json.dumps(body))


READY = Condition(type="Ready", status="True", reason="Running", last_transition_time="2026-01-01T00:00:00Z")


@pytest.mark.parametrize(
    ("kind", "spec", "status", "shown"),
    [
        (
            "MarketFeed",
            FEED,
            FeedStatus(
                observed_generation=1, conditions=[READY], source="synthetic", symbol_count=2,
                symbols=["BTC/USDT", "ETH/USDT"], intervals=["1s", "1m"], pools=3,
            ),
            {"SOURCE": "synthetic", "SYMBOLS": "2", "INTERVALS": '["1s","1m"]', "POOLS": "3"},
        ),
        (
            "TraderPool",
            POOL,
            PoolStatus(
                observed_generation=1, conditions=[READY], workers=4, ready_workers=3, used=5, capacity=80, pending=0
            ),
            {"FEED": "f", "WORKERS": "4", "UP": "3", "USED": "5", "CAPACITY": "80", "PENDING": "0"},
        ),
    ],
    ids=("MarketFeed", "TraderPool"),
)  # fmt: skip
def test_a_feeds_and_a_pools_columns_show_what_the_operator_says(
    namespace: Namespace, kind: str, spec: dict[str, Any], status: FeedStatus | PoolStatus, shown: dict[str, str]
) -> None:
    namespace.apply(manifest(KINDS[kind], spec))
    made = json.loads(manifest(KINDS[kind], spec))
    body = {name: made[name] for name in ("apiVersion", "kind", "metadata")} | {"status": status_manifest(status)}
    arguments = ("apply", "--server-side", "--subresource=status", "--field-manager=operator", "-f", "-")
    namespace.kubectl(*arguments, stdin=json.dumps(body))
    header, row = namespace.kubectl("get", kind.lower()).splitlines()
    found = dict(zip(header.split(), row.split(), strict=True))
    assert found.pop("AGE")
    assert found == {"NAME": "a", "READY": "True", "REASON": "Running"} | shown


def test_all_three_are_in_the_category_and_have_short_names(namespace: Namespace) -> None:
    for kind, value in ACCEPTED[:3]:
        namespace.apply(manifest(kind, value))
    found = namespace.kubectl("get", "chandlery", "-o", "name").split()
    assert found == ["marketfeed.chandlery.dev/a", "traderpool.chandlery.dev/a", "trader.chandlery.dev/a"]
    for short in ("mf", "tp", "td"):
        assert namespace.kubectl("get", short, "-o", "name").strip() in found


def test_explain_describes_every_field(with_crds: Cluster) -> None:
    for kind in KINDS:
        text = with_crds.kubectl("explain", f"{kind.lower()}.spec", "--recursive=false")
        assert "<no description>" not in text
    text = " ".join(with_crds.kubectl("explain", "trader.spec").split())
    assert "market <Object> -required- What is decided on." in text
    assert "trigger <string> enum: CandleClose, EveryUpdate When it decides" in text
    memory = with_crds.kubectl("explain", "trader.spec.resources.memory")
    assert "at least 32Mi" in " ".join(memory.split())


def test_the_crds_can_be_applied_over_themselves_by_client_and_by_server(with_crds: Cluster) -> None:
    with_crds.apply(CRDS)
    with_crds.apply(CRDS, "--server-side", "--force-conflicts")
    for file in CRDS.iterdir():
        name = yaml.safe_load(file.read_text())["metadata"]["name"]
        assert with_crds.get("crd", name)["metadata"]["generation"] == 1
