"""The control-plane tier is a Kubernetes whose pods run in name only."""

from __future__ import annotations

import pytest
from tests.e2e.cluster.commands import ClusterError
from tests.e2e.kubectl import Namespace, Resource

_DEPLOYMENT = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "many"},
    "spec": {
        "replicas": 20,
        "selector": {"matchLabels": {"app": "many"}},
        "template": {
            "metadata": {"labels": {"app": "many"}},
            "spec": {"containers": [{"name": "only", "image": "example.invalid/nothing:1"}]},
        },
    },
}


def test_a_deployment_becomes_available_on_simulated_nodes(on_control_plane: Namespace) -> None:
    on_control_plane.apply(_DEPLOYMENT)
    on_control_plane.wait("deployment/many", "condition=Available")
    pods = on_control_plane.get("pods", "-l", "app=many")["items"]
    assert len(pods) == 20
    assert all(pod["spec"]["nodeName"].startswith("fake-") for pod in pods)


def test_a_failed_command_says_what_the_server_answered(on_control_plane: Namespace) -> None:
    with pytest.raises(ClusterError, match=r'deployments\.apps "absent" not found'):
        on_control_plane.get("deployment", "absent")


def test_waiting_ends_at_its_deadline_with_what_was_last_seen(on_control_plane: Namespace) -> None:
    on_control_plane.apply(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "one"}, "data": {"a": "last words"}}
    )

    def never(resource: Resource) -> bool:
        return False

    with pytest.raises(ClusterError, match="last words"):
        on_control_plane.until("the impossible", ("configmap", "one"), never, timeout_s=0.5)


def test_a_diagnosis_tells_events_and_states_of_a_namespace(on_control_plane: Namespace) -> None:
    on_control_plane.apply(_DEPLOYMENT)
    on_control_plane.wait("deployment/many", "condition=Available")
    diagnosis = on_control_plane.diagnosis()
    assert "\n--- ended" not in f"\n{diagnosis}"
    assert "ScalingReplicaSet" in diagnosis
    assert "deployment.apps/many" in diagnosis
