"""Children's manifests: what a worker's pod may see and do, and what makes it be rolled."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.operator_parts.operator_bodies import feed_body, pool_body

from chandlery.core.assignment import Assignment, TraderAssignment, content_hash, decode_assignment
from chandlery.core.resources import MarketFeed, TraderPool
from chandlery.core.settings import AggregatorSettings, FeedSettings, IngestSettings, KafkaSettings, SupervisorSettings
from chandlery.operator.children import feeds, pools, workers
from chandlery.operator.children.naming import CONTENT, SETTINGS, Defaults
from chandlery.operator.children.pods import lay_over
from chandlery.operator.options import read_options
from chandlery.workers.segment.layout import Geometry

KAFKA = KafkaSettings("kafka.example:9093", "market")
DEFAULTS = Defaults("workers:1", "stream:1", callers="chandlery-system", priority_classes={"fast": "urgent"})


def a_pool(**spec: Any) -> TraderPool:
    return TraderPool.model_validate(pool_body(**spec))


def pod_of(pool: TraderPool) -> dict[str, Any]:
    made: dict[str, Any] = workers.worker_set(pool, "quants-0", KAFKA, DEFAULTS)["spec"]["template"]["spec"]
    return made


def test_the_feed_is_a_native_sidecar_that_starts_before_the_traders() -> None:
    pod = pod_of(a_pool())
    (feed,), (traders,) = pod["initContainers"], pod["containers"]
    assert (feed["name"], feed["restartPolicy"], traders["name"]) == ("feed", "Always", "traders")
    assert feed["startupProbe"]["httpGet"]["path"] == "/healthz"


def test_the_traders_see_the_segment_read_only_and_neither_token_nor_kafka() -> None:
    pod = pod_of(a_pool())
    mounts = {one["name"]: one for one in pod["containers"][0]["volumeMounts"]}
    assert mounts["segment"]["readOnly"] is True
    assert "readOnly" not in mounts["rings"]
    assert {"token", "assignment"}.isdisjoint(mounts)
    settings = json.loads(workers.worker_settings(a_pool(), "quants-0", KAFKA, DEFAULTS)["supervisor.json"])
    assert "kafka" not in settings


def test_every_container_is_confined() -> None:
    pools_pod = pod_of(a_pool())
    feeds_pod = feeds.feed_set(MarketFeed.model_validate(feed_body()), "ingest", KAFKA, DEFAULTS)["spec"]["template"][
        "spec"
    ]
    for pod in (pools_pod, feeds_pod):
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in [*pod.get("initContainers", []), *pod["containers"]]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }


def test_settings_can_be_read_by_the_processes_they_are_for() -> None:
    files = workers.worker_settings(a_pool(), "quants-0", KAFKA, DEFAULTS)
    feed = msgspec.json.decode(files["feed.json"], type=FeedSettings)
    supervisor = msgspec.json.decode(files["supervisor.json"], type=SupervisorSettings)
    assert (feed.worker, feed.listen, feed.token) == ("quants-0", "0.0.0.0:8080", "")
    assert feed.token_file
    assert (feed.shm_dir, feed.rings_dir) == (supervisor.shm_dir, supervisor.rings_dir)
    market = MarketFeed.model_validate(feed_body())
    ingest = feeds.ingest_of(market, KAFKA, ["BTC/USDT"], ["1s"], DEFAULTS)
    aggregator = feeds.aggregator_of(market, KAFKA, ["1s"], DEFAULTS)
    for component, settings, kind in (
        ("ingest", ingest, IngestSettings),
        ("aggregator", aggregator, AggregatorSettings),
    ):
        data = feeds.settings_map(market, component, settings)["data"]  # type: ignore[arg-type]
        assert msgspec.json.decode(data[f"{component}.json"], type=kind) == settings


def test_changed_settings_roll_the_pod_and_an_assignment_does_not() -> None:
    template = workers.worker_set(a_pool(), "quants-0", KAFKA, DEFAULTS)
    again = workers.worker_set(a_pool(), "quants-0", KAFKA, DEFAULTS)
    other = workers.worker_set(a_pool(segment={"candles": 2000}), "quants-0", KAFKA, DEFAULTS)
    assert template == again
    assert template["metadata"]["annotations"][CONTENT] != other["metadata"]["annotations"][CONTENT]
    notes = [one["spec"]["template"]["metadata"]["annotations"][SETTINGS] for one in (template, other)]
    assert notes[0] != notes[1]


def test_an_assignment_comes_out_of_its_configmap_as_it_went_in() -> None:
    traders = [TraderAssignment("default/one", "u", "sma-cross", ["BTC/USDT"], "1s", source="x = 'ä'\n")]
    assignment = Assignment("quants-0", 7, content_hash(traders), traders)
    data = workers.assignment_map(a_pool(), assignment)["data"]
    assert decode_assignment(data["assignment.json"]) == assignment


def test_tokens_differ_by_worker_pool_and_key_and_are_the_same_again() -> None:
    key, pool, other = b"k" * 32, a_pool(), a_pool(uid="another")
    tokens = {
        workers.token_of(key, pool, "quants-0"), workers.token_of(key, pool, "quants-1"),
        workers.token_of(key, other, "quants-0"), workers.token_of(b"x" * 32, pool, "quants-0"),
    }  # fmt: skip
    assert len(tokens) == 4
    assert workers.token_of(key, a_pool(), "quants-0") == workers.token_of(key, pool, "quants-0")


def test_no_token_stands_in_anything_but_its_secret() -> None:
    token = workers.token_of(b"k" * 32, a_pool(), "quants-0")
    secret = workers.token_secret(a_pool(), "quants-0", token)
    assert token not in json.dumps(secret["metadata"])
    assert token not in json.dumps(workers.worker_set(a_pool(), "quants-0", KAFKA, DEFAULTS))


@pytest.mark.parametrize(("candles", "series"), [(128, 1), (1000, 512), (100_000, 3), (500, 8192)])
def test_a_segment_fits_into_its_volume_twice(candles: int, series: int) -> None:
    needed = Geometry.derive(rows=candles, guard_rows=64, series=series, bells=256, stamp_rows=64).file_bytes
    pool = a_pool(segment={"candles": candles, "series": series})
    assert needed <= workers.segment_bytes(pool) <= needed * 1.3 + 2 * 1024 * 1024
    limit = next(one for one in pod_of(pool)["volumes"] if one["name"] == "segment")["emptyDir"]["sizeLimit"]
    assert int(limit.removesuffix("Mi")) * 1024 * 1024 >= 2 * needed


def test_the_first_tier_decides_the_priority_and_a_pools_image_is_the_traders_alone() -> None:
    pod = pod_of(a_pool(tiers=[{"name": "fast"}, {"name": "standard"}], image="desk:7"))
    assert pod["priorityClassName"] == "urgent"
    assert (pod["initContainers"][0]["image"], pod["containers"][0]["image"]) == ("workers:1", "desk:7")
    assert "priorityClassName" not in pod_of(a_pool())


def test_a_pod_template_is_laid_over_by_name_but_labels_that_find_pods_stay() -> None:
    template = {
        "metadata": {"labels": {"team": "a", "chandlery.dev/pool": "another"}, "annotations": {"note": "b"}},
        "spec": {
            "nodeSelector": {"disk": "fast"},
            "containers": [{"name": "traders", "env": [{"name": "X", "value": "1"}]}],
            "terminationGracePeriodSeconds": 90,
        },
    }
    made = workers.worker_set(a_pool(podTemplate=template), "quants-0", KAFKA, DEFAULTS)["spec"]["template"]
    traders = made["spec"]["containers"][0]
    assert made["metadata"]["labels"]["chandlery.dev/pool"] == "quants"
    assert made["metadata"]["labels"]["team"] == "a"
    assert {one["name"] for one in traders["env"]} >= {"X", "PYTHONUNBUFFERED"}
    assert traders["securityContext"]["readOnlyRootFilesystem"] is True
    assert (made["spec"]["nodeSelector"], made["spec"]["terminationGracePeriodSeconds"]) == ({"disk": "fast"}, 90)


def test_figures_of_a_workers_pod_name_its_feed_and_nothing_is_chosen_by_that() -> None:
    template = {"metadata": {"labels": {"chandlery.dev/feed": "another"}}}
    made = workers.worker_set(a_pool(podTemplate=template), "quants-0", KAFKA, DEFAULTS)
    assert made["spec"]["template"]["metadata"]["labels"]["chandlery.dev/feed"] == a_pool().spec.feed.name
    assert "chandlery.dev/feed" not in made["spec"]["selector"]["matchLabels"]
    assert "chandlery.dev/feed" not in made["metadata"]["labels"]


def test_workers_may_speak_to_dns_kafka_and_otlp_alone() -> None:
    pool = a_pool(telemetry={"otlpEndpoint": "http://collector:4318"})
    spec = pools.network_policy(pool, "a.example:9093, b.example:19092,c.example", DEFAULTS)["spec"]
    ports = [port["port"] for rule in spec["egress"] for port in rule["ports"]]
    assert sorted(ports) == [53, 53, 4318, 9092, 9093, 19092]
    (rule,) = spec["ingress"]
    assert [port["port"] for port in rule["ports"]] == [DEFAULTS.worker_port], "nobody reads the figures unasked"
    assert rule["from"][0]["namespaceSelector"] == {"matchLabels": {"kubernetes.io/metadata.name": "chandlery-system"}}


def test_the_token_is_no_secret_that_an_operator_before_made_of_another_type() -> None:
    secret = workers.token_secret(a_pool(), "quants-0", "t")
    assert secret["type"] == "chandlery.dev/worker-token"
    assert secret["metadata"]["name"] != "quants-0-token", "that one was Opaque, and a type is immutable"
    pod = workers.worker_set(a_pool(), "quants-0", KAFKA, DEFAULTS)["spec"]["template"]["spec"]
    (volume,) = [one for one in pod["volumes"] if one["name"] == "token"]
    assert volume["secret"]["secretName"] == secret["metadata"]["name"]


@pytest.mark.parametrize(
    ("scrapers", "sources"),
    [
        (
            "prometheus",
            {"from": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "prometheus"}}}]},
        ),
        ("*", {}),
    ],
)
def test_figures_are_read_from_where_the_operator_is_told(scrapers: str, sources: dict[str, Any]) -> None:
    options = ["--worker-image=w", f"--metrics-from={scrapers}"]
    spec = pools.network_policy(a_pool(), "a:1", read_options(options).defaults)["spec"]
    assert spec["ingress"][1] == {**sources, "ports": [{"protocol": "TCP", "port": 9464}]}


def test_the_consoles_pods_alone_read_figures_where_nobody_scrapes() -> None:
    options = ["--worker-image=w", "--console-namespace=tools"]
    spec = pools.network_policy(a_pool(), "a:1", read_options(options).defaults)["spec"]
    (source,) = spec["ingress"][1]["from"]
    assert source == {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "tools"}},
        "podSelector": {
            "matchLabels": {"app.kubernetes.io/part-of": "chandlery", "app.kubernetes.io/component": "console"}
        },
    }
    assert spec["ingress"][1]["ports"] == [{"protocol": "TCP", "port": 9464}]


def test_each_of_a_feeds_pods_is_found_by_the_name_that_its_statefulset_gives_it() -> None:
    market = MarketFeed.model_validate(feed_body())
    for component, port in (("ingest", 8081), ("aggregator", 8082)):
        service = feeds.feed_service(market, component)  # type: ignore[arg-type]
        made = feeds.feed_set(market, component, KAFKA, DEFAULTS)["spec"]  # type: ignore[arg-type]
        assert service["metadata"]["name"] == made["serviceName"]
        assert service["spec"]["selector"].items() <= made["template"]["metadata"]["labels"].items()
        assert service["spec"]["ports"][0]["port"] == port
        (container,) = made["template"]["spec"]["containers"]
        assert {"name": "status", "containerPort": port} in container["ports"]
        assert service["spec"]["clusterIP"] == "None"


@pytest.mark.parametrize(
    ("telemetry", "port"),
    [
        ({"otlpEndpoint": "http://c:1234"}, 1234),
        ({"otlpEndpoint": "https://c"}, 443),
        ({"otlpEndpoint": "http://c", "otlpProtocol": "grpc"}, 4317),
    ],
)
def test_the_receiver_of_traces_is_reached_at_the_port_that_its_address_means(
    telemetry: dict[str, str], port: int
) -> None:
    spec = pools.network_policy(a_pool(telemetry=telemetry), "", DEFAULTS)["spec"]
    assert {"protocol": "TCP", "port": port} in [one for rule in spec["egress"] for one in rule["ports"]]


def test_a_feed_knows_its_pod_and_where_traces_go() -> None:
    pool = a_pool(telemetry={"otlpEndpoint": "http://c:4318", "tickShare": 0.01})
    settings = msgspec.json.decode(workers.worker_settings(pool, "quants-0", KAFKA, DEFAULTS)["feed.json"])
    telemetry = settings["telemetry"]
    assert telemetry["otlp_endpoint"] == "http://c:4318"
    assert telemetry["otlp_protocol"] == "http/protobuf"
    assert telemetry["tick_share"] == 0.01
    assert settings["metrics_listen"] == "0.0.0.0:9464"
    (feed,) = workers.worker_set(pool, "quants-0", KAFKA, DEFAULTS)["spec"]["template"]["spec"]["initContainers"]
    variables = {one["name"]: one for one in feed["env"]}
    assert variables["POD_NAME"]["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.name"
    assert "k8s.pod.name=$(POD_NAME)" in variables["OTEL_RESOURCE_ATTRIBUTES"]["value"]
    assert list(variables).index("POD_NAME") < list(variables).index("OTEL_RESOURCE_ATTRIBUTES"), "or it isn't expanded"


def test_spans_name_the_pods_that_ingest_and_aggregator_run_in() -> None:
    market = MarketFeed.model_validate(feed_body(namespace="platform"))
    pool = a_pool(feed={"name": market.name, "namespace": market.namespace})
    settings = msgspec.json.decode(workers.worker_settings(pool, "quants-0", KAFKA, DEFAULTS)["feed.json"])
    for component in ("ingest", "aggregator"):
        made = feeds.feed_set(market, component, KAFKA, DEFAULTS)
        assert made["spec"]["replicas"] == 1, "or which pod it was isn't known"
        assert settings["telemetry"][component] == {
            "k8s.namespace.name": made["metadata"]["namespace"],
            "k8s.statefulset.name": made["metadata"]["name"],
            "k8s.pod.name": f"{made['metadata']['name']}-0",
        }


def test_workers_of_a_pool_spread_over_nodes_and_are_evicted_one_at_a_time() -> None:
    pool = a_pool()
    made = workers.worker_set(pool, "quants-0", KAFKA, DEFAULTS)["spec"]["template"]
    (spread,) = made["spec"]["topologySpreadConstraints"]
    assert (spread["maxSkew"], spread["topologyKey"]) == (1, "kubernetes.io/hostname")
    assert spread["whenUnsatisfiable"] == "ScheduleAnyway", "a cluster of one node gets them all"
    budget = pools.disruption_budget(pool)["spec"]
    assert budget["maxUnavailable"] == 1
    assert "minAvailable" not in budget
    other = workers.worker_set(a_pool(name="other"), "other-0", KAFKA, DEFAULTS)["spec"]["template"]
    for chosen in (spread["labelSelector"]["matchLabels"], budget["selector"]["matchLabels"]):
        assert chosen.items() <= made["metadata"]["labels"].items(), "of all workers of the pool together"
        assert not chosen.items() <= other["metadata"]["labels"].items(), "and of no other's"


def test_children_go_with_their_owner_and_need_no_finalizer() -> None:
    for made in (
        workers.worker_set(a_pool(), "quants-0", KAFKA, DEFAULTS),
        workers.settings_map(a_pool(), "quants-0", KAFKA, DEFAULTS),
        workers.token_secret(a_pool(), "quants-0", "t"),
        pools.disruption_budget(a_pool()),
        pools.workers_service(a_pool(), DEFAULTS),
    ):
        (owner,) = made["metadata"]["ownerReferences"]
        assert (owner["kind"], owner["uid"]) == ("TraderPool", a_pool().identity)
        assert "finalizers" not in made["metadata"]


_plain = st.recursive(
    st.none() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abcd"), inner, max_size=3),
    max_leaves=10,
)


@given(_plain)
def test_laying_a_thing_over_itself_or_nothing_over_it_changes_nothing_but_removals(thing: Any) -> None:
    assert lay_over(thing, thing) == _without_none(thing, top=True)
    if isinstance(thing, dict):
        assert lay_over(thing, {}) == thing


def _without_none(thing: Any, *, top: bool = False) -> Any:
    del top
    if isinstance(thing, dict):
        return {key: _without_none(value) for key, value in thing.items() if value is not None}
    return thing
