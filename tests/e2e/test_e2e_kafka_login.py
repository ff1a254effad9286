"""Kafka with TLS and a login on a real kubelet: Secrets that are missing, wrong, and mended while pods run."""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

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
_PORT = 9094
_BECOME_KAFKA = """
import os
from pathlib import Path
from chandlery.stream.broker_pod import command_line
words = command_line(Path("/data"), "{host}:9092", 256)
with open(words[-1], "a") as settings:
    settings.write(Path("/secured/more.properties").read_text())
os.execv(words[0], words)
"""


def _secret(name: str, **content: bytes) -> Object:
    data = {key.replace("__", "."): base64.b64encode(value).decode() for key, value in content.items()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "type": "Opaque", "data": data}


def _resource(kind: str, name: str, spec: Object) -> Object:
    return {"apiVersion": "chandlery.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}


def _kafka(image: str, namespace: str, authority: Authority, password: str) -> list[Object]:
    """A Kafka that takes logins over TLS at another port of the same Service."""
    host = f"kafka.{namespace}.svc"
    listener = "listener.name.sasl_ssl"
    lines = {
        "listeners": f"PLAINTEXT://:9092,SASL_SSL://:{_PORT},CONTROLLER://127.0.0.1:9093",
        "advertised.listeners": f"PLAINTEXT://{host}:9092,SASL_SSL://{host}:{_PORT}",
        "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SASL_SSL:SASL_SSL",
        f"{listener}.sasl.enabled.mechanisms": "PLAIN",
        f"{listener}.plain.sasl.jaas.config": "org.apache.kafka.common.security.plain.PlainLoginModule required "
        f'user_desk="{password}";',
        f"{listener}.ssl.keystore.type": "PEM",
        f"{listener}.ssl.keystore.location": "/secured/server.pem",
    }
    store = authority.issue("kafka", hosts=f"DNS:{host}").keystore().read_bytes()
    more = "".join(f"{name}={value}\n" for name, value in lines.items()).encode()
    service, pod = kafka_pod(image, namespace)
    service["spec"]["ports"] = [{"name": "plain", "port": 9092}, {"name": "tls", "port": _PORT}]
    container = pod["spec"]["containers"][0]
    container["command"] = ["python", "-c", _BECOME_KAFKA.format(host=host)]
    container["volumeMounts"].append({"name": "secured", "mountPath": "/secured"})
    pod["spec"]["volumes"].append({"name": "secured", "secret": {"secretName": "broker", "defaultMode": 0o440}})
    return [_secret("broker", more__properties=more, server__pem=store), service, pod]


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


async def test_secrets_that_are_missing_wrong_and_mended_are_told_and_taken_up_without_a_restart(
    on_node: Namespace, images: Images, operator: OperatorProcess, tmp_path: Path
) -> None:
    authority = Authority(tmp_path / "ca", "kafka")
    wrong, right = f"wrong-{uuid.uuid4()}", f"right-{uuid.uuid4()}"
    on_node.apply(_kafka(images["kafka"], on_node.name, authority, right))
    kafka = {
        "bootstrapServers": f"kafka.{on_node.name}.svc:{_PORT}",
        "tls": {"trustedCertificates": [{"secretName": "kafka-ca"}]},
        "authentication": {"type": "plain", "username": "desk", "passwordSecret": {"secretName": "desk-kafka"}},
        "partitions": 1,
    }
    market = {"symbols": ["BTC/USDT"], "interval": "1s"}
    strategy = {"name": "sma-cross", "parameters": {"fast": 3, "slow": 8}}
    on_node.apply(
        [
            _resource("MarketFeed", "market", {"source": {"synthetic": {}}, "kafka": kafka}),
            _resource("TraderPool", "quants", {"feed": {"name": "market"}, "workers": {"min": 1, "max": 1}}),
            _resource("Trader", "one", {"pool": {"name": "quants"}, "strategy": strategy, "market": market}),
        ]
    )
    for kind, name in (("marketfeed", "market"), ("traderpool", "quants"), ("trader", "one")):
        said = _says(on_node, kind, name, "SecretMissing")
        assert f"Secret {on_node.name}/" in said
        assert "spec.kafka." in said

    ca = _secret("kafka-ca", ca__crt=authority.certificate.read_bytes())
    on_node.apply([ca, _secret("desk-kafka", password=wrong.encode())])
    for kind, name in (("marketfeed", "market"), ("traderpool", "quants"), ("trader", "one")):
        assert f"key password of Secret {on_node.name}/desk-kafka" in _says(on_node, kind, name, "KafkaUnauthorized")

    on_node.apply(_secret("desk-kafka", password=right.encode()))
    on_node.wait("trader/one", "condition=Warm", _START_S)
    on_node.wait("marketfeed/market", "condition=Ready", _START_S)
    on_node.wait("traderpool/quants", "condition=Ready", _START_S)
    pods = ["market-ingest-0", "market-aggregator-0", "quants-0-0"]
    for name in pods:
        status = on_node.get("pod", name)["status"]
        ended = [*status.get("initContainerStatuses", []), *status["containerStatuses"]]
        assert [one["restartCount"] for one in ended] == [0] * len(ended), name

    # Only the feed has them, and nobody shows them.
    seen = on_node.execute("quants-0-0", "python", "-c", "import os; print(os.listdir('/etc/chandlery'))", container="traders")  # fmt: skip
    assert seen.strip() == "['settings']"
    with pytest.raises(ClusterError, match="No such file"):
        on_node.execute("quants-0-0", "python", "-c", "open('/etc/chandlery/kafka/desk-kafka/password')", container="traders")  # fmt: skip
    shown = [
        on_node.kubectl("describe", "pods,statefulsets,configmaps,marketfeeds,traderpools,traders,secrets"),
        on_node.kubectl("get", "pods,statefulsets,configmaps,events,marketfeeds,traderpools,traders", "-o", "yaml"),
        (tmp_path / "operator.log").read_text(),
        *(on_node.kubectl("logs", pod, "--all-containers") for pod in pods),
    ]
    for text in shown:
        for password in (wrong, right):
            assert password not in text
            assert base64.b64encode(password.encode()).decode() not in text
    account = json.dumps(on_node.get("trader", "one")["status"])
    assert "Running" in account
