"""Kafka's Secrets: mounted only where they are read, and what pods say of them told on the resources."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from tests.operator_parts.operator_bodies import feed_body, pool_body, trader_body

from chandlery.core.assignment import WorkerStatus
from chandlery.core.checks import Finding, World, check_pool
from chandlery.core.feed_kafka import kafka_settings
from chandlery.core.kafka_login import KafkaProblem
from chandlery.core.resources import MarketFeed, TraderPool
from chandlery.core.settings import FeedSettings, KafkaSecurity, KafkaSettings
from chandlery.operator.cache import hold
from chandlery.operator.children import feeds, workers
from chandlery.operator.children.naming import Defaults
from chandlery.operator.conditions import WorkerView, feed_state, pool_state, trader_state
from chandlery.operator.planner import PoolPlan, Verdict

DEFAULTS = Defaults("workers:1", "stream:1")
ADDRESS = {"bootstrapServers": "my-cluster-kafka-bootstrap.kafka.svc:9093"}
STRIMZI = {**ADDRESS, "strimzi": {"cluster": "my-cluster", "user": "desk"}}
SCRAM = {
    **ADDRESS,
    "tls": {"trustedCertificates": [{"secretName": "ca"}]},
    "authentication": {"type": "scram-sha-512", "username": "desk", "passwordSecret": {"secretName": "desk", "password": "pw"}},
}  # fmt: skip
CERTIFICATE = {
    **ADDRESS,
    "tls": {"trustedCertificates": [{"secretName": "both"}]},
    "authentication": {"type": "tls", "certificateAndKey": {"secretName": "both", "certificate": "tls.crt", "key": "tls.key"}},
}  # fmt: skip
MISSING = KafkaProblem("SecretMissing", "key password of Secret desk/user (spec.kafka.…): it isn't there")


def _kafka(spec: dict[str, Any], namespace: str = "desk") -> KafkaSettings:
    return kafka_settings(MarketFeed.model_validate(feed_body(kafka=spec)), "default:9092", namespace=namespace)


def _pods(spec: dict[str, Any]) -> list[dict[str, Any]]:
    kafka = _kafka(spec)
    feed = MarketFeed.model_validate(feed_body(kafka=spec))
    pool = TraderPool.model_validate(pool_body())
    made = [feeds.feed_set(feed, component, kafka, DEFAULTS) for component in ("ingest", "aggregator")]
    made.append(workers.worker_set(pool, "quants-0", kafka, DEFAULTS))
    return [one["spec"]["template"]["spec"] for one in made]


@pytest.mark.parametrize(
    ("spec", "wanted"),
    [
        (STRIMZI, {"my-cluster-cluster-ca-cert": ["ca.crt"], "desk": ["password", "sasl.jaas.config", "user.crt", "user.key"]}),
        (SCRAM, {"ca": ["ca.crt"], "desk": ["pw"]}),
        (CERTIFICATE, {"both": ["ca.crt", "tls.crt", "tls.key"]}),
        ({**ADDRESS, "tls": {}}, {}),
        (ADDRESS, {}),
    ],
)  # fmt: skip
def test_pods_mount_the_keys_that_are_read_and_the_traders_none(
    spec: dict[str, Any], wanted: dict[str, list[str]]
) -> None:
    for pod in _pods(spec):
        volumes = [one for one in pod["volumes"] if one["name"] == "kafka"]
        mounting = [
            container["name"]
            for container in [*pod.get("initContainers", []), *pod["containers"]]
            if any(mount["name"] == "kafka" for mount in container["volumeMounts"])
        ]
        if not wanted:
            assert (volumes, mounting) == ([], [])
            continue
        assert mounting in (["ingest"], ["aggregator"], ["feed"])
        projected = volumes[0]["projected"]
        assert projected["defaultMode"] == 0o440
        found = {}
        for source in projected["sources"]:
            secret = source["secret"]
            assert secret["optional"] is True, "a pod that waited for it couldn't say so"
            found[secret["name"]] = [item["key"] for item in secret["items"]]
            assert all(item["path"] == f"{secret['name']}/{item['key']}" for item in secret["items"])
        assert found == wanted


def test_what_is_mounted_is_where_the_settings_look_for_it() -> None:
    for spec in (STRIMZI, SCRAM, CERTIFICATE):
        kafka = _kafka(spec)
        data = workers.worker_settings(TraderPool.model_validate(pool_body()), "quants-0", kafka, DEFAULTS)
        security = msgspec.json.decode(data["feed.json"], type=FeedSettings).kafka.security
        assert security == kafka.security
        assert "kafka" not in json.loads(data["supervisor.json"])
        pod = _pods(spec)[-1]
        (volume,) = (one for one in pod["volumes"] if one["name"] == "kafka")
        (mount,) = (one for one in pod["initContainers"][0]["volumeMounts"] if one["name"] == "kafka")
        there = {
            f"{mount['mountPath']}/{item['path']}"
            for source in volume["projected"]["sources"]
            for item in source["secret"]["items"]
        }
        read = {*security.trusted, security.certificate, security.key, security.password} - {""}
        if security.strimzi_user:
            read |= {f"{security.strimzi_user}/password", f"{security.strimzi_user}/user.key"}
        assert read <= there


def test_a_changed_login_rolls_workers_and_the_namespace_is_the_pods() -> None:
    pool = TraderPool.model_validate(pool_body())
    before, after = (workers.worker_set(pool, "quants-0", _kafka(spec), DEFAULTS) for spec in (SCRAM, CERTIFICATE))
    assert before["spec"]["template"] != after["spec"]["template"]
    assert _kafka(SCRAM, "another").security.namespace == "another"


def test_no_login_goes_to_a_kafka_that_the_feed_does_not_name() -> None:
    kafka = _kafka({})
    assert (kafka.bootstrap, kafka.security) == ("default:9092", KafkaSecurity())


def test_a_feed_says_what_keeps_its_ingest_out() -> None:
    held = hold("MarketFeed", feed_body())
    state = feed_state(held, symbols=1, kafka="k:9093", unready={}, problem="", kafka_problem=MISSING)
    assert (state.reason, state.message, state.ready, state.stalled) == ("SecretMissing", MISSING.message, False, False)
    wrong = feed_state(
        held, symbols=1, kafka="k", unready={}, problem="", kafka_problem=KafkaProblem("KafkaUnauthorized", "x")
    )
    assert (wrong.ready, wrong.stalled) == (False, True), "nobody mends it but a person"
    odd = feed_state(held, symbols=1, kafka="k", unready={}, problem="", kafka_problem=KafkaProblem("no word", "x"))
    assert odd.reason == "KafkaUnreachable"


def _worker(problem: Any) -> WorkerView:
    status = WorkerStatus("quants-0", 1, 1, "", 1, True, {}, [], {"broker_problem": problem})
    return WorkerView("quants-0", "quants-0-0", ready=True, was_ready=True, status=status)


def test_a_pool_and_its_traders_say_what_keeps_a_worker_out() -> None:
    held = hold("TraderPool", pool_body())
    plan = PoolPlan(held.resource, ("default", "market"), {}, 20, 0, 0)  # type: ignore[arg-type]
    told = {"reason": MISSING.reason, "message": MISSING.message}
    state = pool_state(held, plan, [_worker(None), _worker(told)], 0, "")
    assert (state.reason, state.message, state.ready) == ("SecretMissing", MISSING.message, False)
    assert pool_state(held, plan, [_worker(None)], 0, "").reason == "Running"
    assert pool_state(held, plan, [_worker("of another version")], 0, "").reason == "Running"
    trader = hold("Trader", trader_body())
    verdict = Verdict("default/one", generation=1, incarnation=1, worker="quants-0")
    assert trader_state(trader, verdict, _worker(told)).reason == "SecretMissing"


def _elsewhere(spec: dict[str, Any], lent: list[str]) -> list[Finding]:
    feed = MarketFeed.model_validate(
        feed_body(namespace="markets", kafka=spec, allowedPools={"namespaces": {"from": "All"}})
    )
    pool = TraderPool.model_validate(
        pool_body(namespace="desk", feed={"name": "market", "namespace": "markets", "secrets": lent})
    )
    return list(check_pool(pool, World({feed.key: feed}, {pool.key: pool}, {}, {})))


@pytest.mark.parametrize("spec", [STRIMZI, SCRAM, CERTIFICATE])
def test_a_feed_of_another_namespace_gets_only_secrets_that_the_pool_lends(spec: dict[str, Any]) -> None:
    mounted = [
        source["secret"]["name"]
        for volume in _pods(spec)[-1]["volumes"]
        if volume["name"] == "kafka"
        for source in volume["projected"]["sources"]
    ]
    assert _elsewhere(spec, mounted) == []
    for name in mounted:
        (finding,) = _elsewhere(spec, [one for one in mounted if one != name])
        assert (finding.reason, finding.path) == ("NotAllowed", ("spec", "feed", "secrets"))
        assert f"doesn't lend it: {name}; name them in the pool's spec.feed.secrets" in finding.message


def test_a_feed_without_secrets_and_one_of_the_pools_own_namespace_need_no_lending() -> None:
    assert _elsewhere({**ADDRESS, "tls": {}}, []) == []
    feed, pool = MarketFeed.model_validate(feed_body(kafka=SCRAM)), TraderPool.model_validate(pool_body())
    assert list(check_pool(pool, World({feed.key: feed}, {pool.key: pool}, {}, {}))) == []
