"""Manifests of a Kafka for a test's namespace, from the project's own image."""

from __future__ import annotations

from typing import Any

PORT = 9092


def kafka_manifests(image: str) -> list[dict[str, Any]]:
    """A Deployment ``kafka`` of one pod, and the Service by which clients reach it: ``kafka:9092``.

    Its data end with the pod, not with the container: a killed broker comes back with every record.
    """
    labels = {"app": "kafka"}
    broker = {
        "name": "kafka",
        "image": image,
        "command": ["python", "-m", "chandlery.stream.broker_pod", "--data", "/data", "--advertise", f"kafka:{PORT}"],
        "ports": [{"containerPort": PORT}],
        "readinessProbe": {"tcpSocket": {"port": PORT}, "periodSeconds": 1, "failureThreshold": 120},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": "data", "mountPath": "/data"}, {"name": "tmp", "mountPath": "/tmp"}],
    }
    pod = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 5,
        "securityContext": {"runAsNonRoot": True, "fsGroup": 10001, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [broker],
        "volumes": [{"name": "data", "emptyDir": {}}, {"name": "tmp", "emptyDir": {}}],
    }
    return [
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "kafka"},
            "spec": {"selector": labels, "ports": [{"port": PORT}]},
        },
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "kafka"},
            "spec": {
                "replicas": 1,
                "strategy": {"type": "Recreate"},
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": pod},
            },
        },
    ]
