"""Kafka with TLS and a login on a real kubelet: Secrets that are missing, wrong, mended and rotated while pods run."""

from __future__ import annotations

import base64
import json
import time
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TypeVar

import pytest
import pytest_asyncio
from tests.e2e.cluster.commands import ClusterError
from tests.e2e.conftest import Images
from tests.e2e.kubectl import Namespace, Resource
from tests.e2e.operator_beside import operator_beside
from tests.support.certificates import Authority
from tests.support.operator_stage import Object, OperatorProcess, conditions_of, kafka_pod

pytestmark = [pytest.mark.node, pytest.mark.slow]

# Everything starts on 2 busy cores: JVM 5 s, Faust 4 s, images unpacked; a Secret takes up to a minute to arrive.
_START_S = 240.0
_PORT, _CERTIFICATES_PORT = 9094, 9095
_FEED_PODS = ("market-ingest-0", "market-aggregator-0", "quants-0-0")
_OTHER_PODS = ("other-ingest-0", "other-aggregator-0", "others-0-0")
_OTHERS = (("marketfeed", "other"), ("traderpool", "others"), ("trader", "bystander"))
# Prints how many records each topic has.
_COUNT = """
import asyncio, json, sys
from aiokafka import AIOKafkaConsumer

async def main(bootstrap, *topics):
    async with AIOKafkaConsumer(*topics, bootstrap_servers=bootstrap) as consumer:
        ends = await consumer.end_offsets(consumer.assignment())
    print(json.dumps({name: sum(end for part, end in ends.items() if part.topic == name) for name in topics}))

asyncio.run(asyncio.wait_for(main(*sys.argv[1:]), 20))
"""
_PASSWORD = "/etc/chandlery/kafka/desk-kafka/password"
_Seen = TypeVar("_Seen")
_BECOME_KAFKA = """
import os
from pathlib import Path
from chandlery.stream.broker_pod import command_line
words = command_line(Path("/data"), "{host}:9092", 256)
with open(words[-1], "a") as settings:
    settings.write(Path("/secured/more.properties").read_text())
os.execv(words[0], words)
"""
# What Strimzi's user operator does for a KafkaUser of type scram-sha-512.
_KNOW_USER = """
import subprocess
from chandlery.stream.broker_jars import kafka_cache
from chandlery.stream.broker_java import find_java
command = [
    str(find_java().command), "-Xmx96m", "-cp", f"{{kafka_cache()}}/*", "kafka.admin.ConfigCommand",
    "--bootstrap-server", "{host}:9092", "--alter", "--entity-type", "users", "--entity-name", "{user}",
    "--add-config", "SCRAM-SHA-512=[password={password}]",
]
subprocess.run(command, check=True)
"""
# Names of what the kubelet put there; its own begin with two dots.
_MOUNTED = """
import json, os
from pathlib import Path
folders = [one for one in Path("/etc/chandlery/kafka").iterdir() if not one.name.startswith("..")]
print(json.dumps({one.name: sorted(name for name in os.listdir(one) if not name.startswith("..")) for one in folders}))
"""


def _secret(name: str, **content: bytes) -> Object:
    data = {key.replace("__", "."): base64.b64encode(value).decode() for key, value in content.items()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "type": "Opaque", "data": data}


def _strimzis(kind: str, secret: Object) -> Object:
    """A Secret as Strimzi's operators label it."""
    labels = {"strimzi.io/kind": kind, "strimzi.io/cluster": "my-cluster", "app.kubernetes.io/managed-by": "strimzi"}
    return secret | {"metadata": secret["metadata"] | {"labels": labels}}


def _resource(kind: str, name: str, spec: Object) -> Object:
    return {"apiVersion": "chandlery.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}


def _broker(namespace: str, store: bytes, clients: Authority, password: str) -> Object:
    """The Secret of a Kafka that takes logins over TLS at another port, and clients' certificates at a third.

    Args:
        store: its key and certificate, PEM.
        clients: who issues the clients' certificates.
        password: of user ``desk``, who logs in by ``plain``.
    """
    host = f"kafka.{namespace}.svc"
    login, certificates = "listener.name.sasl_ssl", "listener.name.ssl"
    modules = "org.apache.kafka.common.security"
    lines = {
        "listeners": f"PLAINTEXT://:9092,SASL_SSL://:{_PORT},SSL://:{_CERTIFICATES_PORT},CONTROLLER://127.0.0.1:9093",
        "advertised.listeners": f"PLAINTEXT://{host}:9092,SASL_SSL://{host}:{_PORT},SSL://{host}:{_CERTIFICATES_PORT}",
        "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SASL_SSL:SASL_SSL,SSL:SSL",
        f"{login}.sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-512",
        f"{login}.plain.sasl.jaas.config": f'{modules}.plain.PlainLoginModule required user_desk="{password}";',
        f"{login}.scram-sha-512.sasl.jaas.config": f"{modules}.scram.ScramLoginModule required;",
        f"{certificates}.ssl.client.auth": "required",
        f"{certificates}.ssl.truststore.type": "PEM",
        f"{certificates}.ssl.truststore.location": "/secured/clients.pem",
    }
    for listener in (login, certificates):
        lines[f"{listener}.ssl.keystore.type"] = "PEM"
        lines[f"{listener}.ssl.keystore.location"] = "/secured/server.pem"
    more = "".join(f"{name}={value}\n" for name, value in lines.items()).encode()
    return _secret("broker", more__properties=more, server__pem=store, clients__pem=clients.certificate.read_bytes())


def _kafka(image: str, namespace: str) -> list[Object]:
    """A Kafka with what :func:`_broker` says, and its Service with all ports."""
    host = f"kafka.{namespace}.svc"
    service, pod = kafka_pod(image, namespace)
    ports = {"plain": 9092, "login": _PORT, "certificates": _CERTIFICATES_PORT}
    service["spec"]["ports"] = [{"name": name, "port": port} for name, port in ports.items()]
    container = pod["spec"]["containers"][0]
    container["command"] = ["python", "-c", _BECOME_KAFKA.format(host=host)]
    container["volumeMounts"].append({"name": "secured", "mountPath": "/secured"})
    pod["spec"]["volumes"].append({"name": "secured", "secret": {"secretName": "broker", "defaultMode": 0o440}})
    return [service, pod]


def _store(authority: Authority, namespace: str) -> bytes:
    """Key and certificate of the Service ``kafka``, PEM."""
    return authority.issue("kafka", hosts=f"DNS:kafka.{namespace}.svc").keystore().read_bytes()


def _desk(feed: str, pool: str, trader: str, kafka: Object) -> list[Object]:
    """A MarketFeed with this Kafka, a TraderPool of one worker and a Trader."""
    market = {"symbols": ["BTC/USDT"], "interval": "1s"}
    strategy = {"name": "sma-cross", "parameters": {"fast": 3, "slow": 8}}
    return [
        _resource("MarketFeed", feed, {"source": {"synthetic": {}}, "kafka": kafka}),
        _resource("TraderPool", pool, {"feed": {"name": feed}, "workers": {"min": 1, "max": 1}}),
        _resource("Trader", trader, {"pool": {"name": pool}, "strategy": strategy, "market": market}),
    ]


@pytest_asyncio.fixture
async def operator(on_node: Namespace, images: Images, tmp_path: Path) -> AsyncIterator[OperatorProcess]:
    """An operator beside the cluster, looking after the test's namespace."""
    async with operator_beside(on_node, images, tmp_path / "operator.log", "--log-level", "debug") as made:
        yield made


def _says(namespace: Namespace, kind: str, name: str, reason: str) -> str:
    """Wait until a resource isn't Ready for this reason; its message."""

    def holds(item: Resource) -> bool:
        ready = conditions_of(item).get("Ready", {})
        return (ready.get("status"), ready.get("reason")) == ("False", reason)

    item = namespace.until(f"{kind} {name} {reason}", (kind, name), holds, _START_S)
    return str(conditions_of(item)["Ready"]["message"])


def _told(namespace: Namespace, name: str) -> list[str]:
    """Reasons of all events that the operator tells of a resource."""
    return [
        item["reason"]
        for item in namespace.get("events.events.k8s.io")["items"]
        if (item["regarding"]["name"], item.get("reportingController")) == (name, "chandlery.dev/operator")
    ]


def _restarts(namespace: Namespace, *pods: str) -> dict[str, tuple[str, list[int]]]:
    """Each pod's uid, and how often each of its containers was started again."""
    found = {}
    for name in pods:
        pod = namespace.get("pod", name)
        containers = [*pod["status"].get("initContainerStatuses", []), *pod["status"]["containerStatuses"]]
        found[name] = (pod["metadata"]["uid"], [one["restartCount"] for one in containers])
    return found


def _until(what: str, look: Callable[[], _Seen], holds: Callable[[_Seen], bool]) -> _Seen:
    """Look until it holds; what fails meanwhile is looked at again."""
    deadline = time.monotonic() + _START_S
    while True:
        last: object
        try:
            last = seen = look()
        except ClusterError as error:
            last = error
        else:
            if holds(seen):
                return seen
        assert time.monotonic() < deadline, f"{what}: not within {_START_S:g} s; last seen: {last}"
        time.sleep(0.5)


def _ready(namespace: Namespace, *resources: tuple[str, str]) -> None:
    for kind, name in resources:
        namespace.wait(f"{kind}/{name}", "condition=Ready", _START_S)


def _rotate(namespace: Namespace, broker: Object, password: str) -> None:
    """Have Kafka take another password, which ``broker`` gives it, and the Secret name that one, while all run."""
    namespace.apply([broker, _secret("desk-kafka", password=password.encode())])
    readers = [("kafka", "kafka", "/secured/more.properties")]
    readers += [(pod, "feed" if pod.startswith("quants") else "", _PASSWORD) for pod in _FEED_PODS]
    for pod, container, path in readers:

        def look(pod: str = pod, container: str = container, path: str = path) -> str:
            return namespace.execute(pod, "python", "-c", f"print(open({path!r}).read())", container=container)

        _until(f"the new password in {pod}", look, lambda seen: password in seen)
    # Who has logged in stays so: it is the next login that needs the new one.
    namespace.kill("kafka", "kafka")


# Two desks start one after the other, 60 s each on a busy machine; a Secret comes into the pods thrice, each time within
# 90 s (a kubelet looks every 60 to 90 s); Kafka starts again in 30 s. That is 420 s; the rest is for what is looked at.
@pytest.mark.timeout(600)
async def test_secrets_that_are_missing_wrong_mended_and_rotated_are_told_once_and_taken_up_without_a_restart(
    on_node: Namespace, images: Images, operator: OperatorProcess, tmp_path: Path
) -> None:
    authority, clients = Authority(tmp_path / "ca", "kafka"), Authority(tmp_path / "clients", "clients")
    wrong, right, rotated = (f"{word}-{uuid.uuid4()}" for word in ("wrong", "right", "rotated"))
    host, store = f"kafka.{on_node.name}.svc", _store(authority, on_node.name)
    on_node.apply([_broker(on_node.name, store, clients, right), *_kafka(images["kafka"], on_node.name)])
    on_node.apply(_desk("other", "others", "bystander", {"bootstrapServers": f"{host}:9092", "partitions": 1}))
    # With it Kafka serves: nothing of the other desk is started again because Kafka isn't there yet.
    on_node.wait("trader/bystander", "condition=Warm", _START_S)
    _ready(on_node, *_OTHERS)
    bystanders = _restarts(on_node, *_OTHER_PODS)
    told_before = {name: _told(on_node, name) for _, name in _OTHERS}

    kafka = {
        "bootstrapServers": f"{host}:{_PORT}",
        "tls": {"trustedCertificates": [{"secretName": "kafka-ca"}]},
        "authentication": {"type": "plain", "username": "desk", "passwordSecret": {"secretName": "desk-kafka"}},
        "partitions": 1,
    }
    on_node.apply(_desk("market", "quants", "one", kafka))
    concerned = (("marketfeed", "market"), ("traderpool", "quants"), ("trader", "one"))
    for kind, name in concerned:
        said = _says(on_node, kind, name, "SecretMissing")
        assert f"Secret {on_node.name}/" in said
        assert "spec.kafka." in said

    ca = _secret("kafka-ca", ca__crt=authority.certificate.read_bytes())
    on_node.apply([ca, _secret("desk-kafka", password=wrong.encode())])
    for kind, name in concerned:
        assert f"key password of Secret {on_node.name}/desk-kafka" in _says(on_node, kind, name, "KafkaUnauthorized")

    on_node.apply(_secret("desk-kafka", password=right.encode()))
    on_node.wait("trader/one", "condition=Warm", _START_S)
    _ready(on_node, *concerned)
    never = _restarts(on_node, *_FEED_PODS)
    assert not any(sum(restarts) for _, restarts in never.values()), never
    _ready(on_node, *_OTHERS)
    assert {name: _told(on_node, name) for _, name in _OTHERS} == told_before, "they need no Secret"
    assert _restarts(on_node, *_OTHER_PODS) == bystanders

    _rotate(on_node, _broker(on_node.name, store, clients, rotated), rotated)
    prefix = on_node.get("marketfeed", "market")["status"]["topicPrefix"]
    topics = [f"{prefix}{name}" for name in ("trades", "candles-fast", "signals")]

    def counted() -> dict[str, int]:
        printed = on_node.execute(_FEED_PODS[0], "python", "-c", _COUNT, f"{host}:9092", *topics)
        found: dict[str, int] = json.loads(printed)
        return found

    first = _until("Kafka up again", counted, bool)
    _until("more of all of them", counted, lambda seen: all(seen[name] > first[name] for name in topics))
    _ready(on_node, *concerned, *_OTHERS)
    assert _restarts(on_node, *_FEED_PODS, *_OTHER_PODS) == never | bystanders
    for _, name in concerned:
        told = _told(on_node, name)
        assert [told.count(reason) for reason in ("SecretMissing", "KafkaUnauthorized")] == [1, 1], told

    # Only the feed has them, and nobody shows them.
    seen = on_node.execute("quants-0-0", "python", "-c", "import os; print(os.listdir('/etc/chandlery'))", container="traders")  # fmt: skip
    assert seen.strip() == "['settings']"
    with pytest.raises(ClusterError, match="No such file"):
        on_node.execute("quants-0-0", "python", "-c", "open('/etc/chandlery/kafka/desk-kafka/password')", container="traders")  # fmt: skip
    shown = [
        on_node.kubectl("describe", "pods,statefulsets,configmaps,marketfeeds,traderpools,traders,secrets"),
        on_node.kubectl("get", "pods,statefulsets,configmaps,events,marketfeeds,traderpools,traders", "-o", "yaml"),
        (tmp_path / "operator.log").read_text(),
        *(on_node.kubectl("logs", pod, "--all-containers") for pod in _FEED_PODS),
    ]
    for text in shown:
        for password in (wrong, right, rotated):
            assert password not in text
            assert base64.b64encode(password.encode()).decode() not in text
    account = json.dumps(on_node.get("trader", "one")["status"])
    assert "Running" in account


async def test_secrets_of_strimzis_users_of_either_kind_are_mounted_and_read_as_they_are(
    on_node: Namespace, images: Images, operator: OperatorProcess, tmp_path: Path
) -> None:
    authority, clients = Authority(tmp_path / "ca", "kafka"), Authority(tmp_path / "clients", "clients")
    host, password = f"kafka.{on_node.name}.svc", f"strimzis-{uuid.uuid4()}"
    store = _store(authority, on_node.name)
    on_node.apply(
        [_broker(on_node.name, store, clients, f"plain-{uuid.uuid4()}"), *_kafka(images["kafka"], on_node.name)]
    )
    on_node.wait("pod/kafka", "condition=Ready", _START_S)
    program = _KNOW_USER.format(host=host, user="by-password", password=password)
    on_node.kubectl("exec", "kafka", "--", "python", "-c", program, timeout_s=_START_S)

    module = "org.apache.kafka.common.security.scram.ScramLoginModule"
    jaas = f'{module} required username="by-password" password="{password}";'
    shown = clients.issue("by-certificate")
    binary = b"\x30\x82 a PKCS #12 store"
    on_node.apply(
        [
            _strimzis("Kafka", _secret(
                "my-cluster-cluster-ca-cert",
                ca__crt=authority.certificate.read_bytes(), ca__p12=binary, ca__password=b"of the store",
            )),
            _strimzis("KafkaUser", _secret("by-password", password=password.encode(), sasl__jaas__config=jaas.encode())),
            _strimzis("KafkaUser", _secret(
                "by-certificate",
                ca__crt=clients.certificate.read_bytes(), user__crt=shown.certificate.read_bytes(),
                user__key=shown.key.read_bytes(), user__p12=binary, user__password=b"of the store",
            )),
        ]
    )  # fmt: skip

    def entered(user: str, port: int) -> Object:
        strimzi = {"cluster": "my-cluster", "user": user}
        return {"bootstrapServers": f"{host}:{port}", "strimzi": strimzi, "partitions": 1}

    # One with all that enters Kafka; of the other kind ingest and aggregator, which take the Secrets no otherwise.
    alone = {"source": {"synthetic": {}}, "symbols": ["BTC/USDT"], "intervals": ["1s"]}
    on_node.apply(_desk("by-password", "quants", "one", entered("by-password", _PORT)))
    alone["kafka"] = entered("by-certificate", _CERTIFICATES_PORT)
    on_node.apply(_resource("MarketFeed", "by-certificate", alone))
    on_node.wait("trader/one", "condition=Warm", _START_S)
    for feed in ("by-password", "by-certificate"):
        on_node.wait(f"marketfeed/{feed}", "condition=Ready", _START_S)
    keys = {"by-password": ["password", "sasl.jaas.config"], "by-certificate": ["user.crt", "user.key"]}
    for user, pod in (
        ("by-password", "by-password-ingest-0"),
        ("by-password", "by-password-aggregator-0"),
        ("by-password", "quants-0-0"),
        ("by-certificate", "by-certificate-ingest-0"),
        ("by-certificate", "by-certificate-aggregator-0"),
    ):
        container = "feed" if pod == "quants-0-0" else ""
        mounted = json.loads(on_node.execute(pod, "python", "-c", _MOUNTED, container=container))
        assert mounted == {"my-cluster-cluster-ca-cert": ["ca.crt"], user: keys[user]}, pod
        assert not any(_restarts(on_node, pod)[pod][1]), pod
