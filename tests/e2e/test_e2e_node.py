"""The node tier is a Kubernetes that runs pods: two containers over one memory volume, as a worker's are."""

from __future__ import annotations

from typing import Any

import pytest
from tests.e2e.cluster.commands import ClusterError
from tests.e2e.conftest import Images
from tests.e2e.kubectl import Namespace

pytestmark = pytest.mark.node

# The sidecar writes a growing count into a shared file; the reader's container maps the same file.
_WRITER = """
import mmap, os, time
with open("/shared/segment.draft", "w+b") as file:
    file.truncate(4096)
    view = mmap.mmap(file.fileno(), 4096)
os.rename("/shared/segment.draft", "/shared/segment")
while True:
    view[0:8] = (int.from_bytes(view[0:8], "little") + 1).to_bytes(8, "little")
    time.sleep(0.01)
"""
_READ = """
import mmap, time
with open("/shared/segment", "rb") as file:
    view = mmap.mmap(file.fileno(), 4096, prot=mmap.PROT_READ)
seen = set()
deadline = time.monotonic() + 20
while len(seen) < 5 and time.monotonic() < deadline:
    seen.add(view[0:8])
print(len(seen))
"""
_WRITE = """
try:
    open("/shared/segment", "r+b")
except OSError as error:
    print(error.strerror)
else:
    print("opened for writing")
"""
_STRICT = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}


def _pod(image: str) -> dict[str, Any]:
    shared = {"name": "shared", "mountPath": "/shared"}
    writer = {
        "name": "writer",
        "image": image,
        "restartPolicy": "Always",
        "command": ["python", "-c", _WRITER],
        "startupProbe": {
            "exec": {"command": ["python", "-c", "open('/shared/segment')"]},
            "periodSeconds": 1,
            "failureThreshold": 60,
        },
        "securityContext": _STRICT,
        "volumeMounts": [shared],
    }
    reader = {
        "name": "reader",
        "image": image,
        "command": ["python", "-c", "import threading; threading.Event().wait()"],
        "securityContext": _STRICT,
        "volumeMounts": [{**shared, "readOnly": True}],
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "pair"},
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "automountServiceAccountToken": False,
            "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
            "initContainers": [writer],
            "containers": [reader],
            "volumes": [{"name": "shared", "emptyDir": {"medium": "Memory", "sizeLimit": "16Mi"}}],
        },
    }


def test_a_sidecar_and_a_container_share_memory_that_only_the_sidecar_can_write(
    on_node: Namespace, images: Images
) -> None:
    on_node.apply(_pod(images["workers"]))
    on_node.wait("pod/pair", "condition=Ready")
    assert on_node.execute("pair", "python", "-c", _READ, container="reader").strip() == "5"
    assert on_node.execute("pair", "python", "-c", _WRITE, container="reader").strip() == "Read-only file system"


def test_a_service_is_reached_by_its_name(on_node: Namespace, images: Images) -> None:
    server = {
        "name": "server",
        "image": images["workers"],
        "command": ["python", "-m", "http.server", "8080", "--directory", "/etc/ssl"],
        "readinessProbe": {"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1},
    }
    on_node.apply(
        [
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": "server", "labels": {"app": "server"}},
                "spec": {"terminationGracePeriodSeconds": 1, "containers": [server]},
            },
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {"name": "web"},
                "spec": {"selector": {"app": "server"}, "ports": [{"port": 80, "targetPort": 8080}]},
            },
        ]
    )
    on_node.wait("pod/server", "condition=Ready")
    program = f"import urllib.request as u; print(u.urlopen('http://web.{on_node.name}.svc.cluster.local/').status)"

    def answer() -> str:
        try:
            return on_node.execute("server", "python", "-c", program).strip()
        except ClusterError as error:  # the endpoint may be younger than the proxy's rules
            return str(error)

    on_node.until("an answer of the service", ("service", "web"), lambda service: answer() == "200")


def test_a_container_over_its_memory_limit_ends_alone(on_node: Namespace, images: Images) -> None:
    greedy = {
        "name": "greedy",
        "image": images["workers"],
        "command": ["python", "-c", "import time; held = bytearray(128 << 20); time.sleep(600)"],
        "resources": {"limits": {"memory": "64Mi"}},
    }
    modest = {"name": "modest", "image": images["workers"], "command": ["python", "-c", "import time; time.sleep(600)"]}
    on_node.apply(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "mixed"},
            "spec": {
                "restartPolicy": "Never",
                "terminationGracePeriodSeconds": 1,
                "containers": [greedy, modest],
            },
        }
    )

    def is_killed(pod: dict[str, Any]) -> bool:
        states = {each["name"]: each["state"] for each in pod["status"].get("containerStatuses", [])}
        ended = states.get("greedy", {}).get("terminated", {})
        return ended.get("reason") == "OOMKilled" and "running" in states.get("modest", {})

    on_node.until("the greedy container's end", ("pod", "mixed"), is_killed)


def test_a_diagnosis_begins_with_the_last_words_of_a_container_that_was_restarted(
    on_node: Namespace, images: Images
) -> None:
    program = """
import os, sys, time
if not os.path.exists("/kept/tried"):
    open("/kept/tried", "w").close()
    print("these were my last words")
    sys.exit(3)
time.sleep(600)
"""
    twice = {
        "name": "twice",
        "image": images["workers"],
        "command": ["python", "-c", program],
        "volumeMounts": [{"name": "kept", "mountPath": "/kept"}],
    }
    on_node.apply(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "restarted"},
            "spec": {
                "terminationGracePeriodSeconds": 0,
                "containers": [twice],
                "volumes": [{"name": "kept", "emptyDir": {}}],
            },
        }
    )

    def is_restarted(pod: dict[str, Any]) -> bool:
        (one,) = pod["status"].get("containerStatuses", [{"restartCount": 0}])
        return one["restartCount"] == 1 and "running" in one["state"]

    on_node.until("its second try", ("pod", "restarted"), is_restarted)
    title, words, *_ = on_node.diagnosis().splitlines()
    assert title.startswith("--- ended: restarted twice: 1 restarts; ended with exit code 3, reason Error, ran from 20")
    assert words == "these were my last words"
