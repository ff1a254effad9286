"""The GitOps example on a real API server: rendered by kustomize, applied twice, changed by its strategy's file."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.e2e.kubectl import Cluster, Namespace

from chandlery.core.crds import NAMES

ROOT = Path(__file__).parents[2]
TRADERS = ROOT / "gitops" / "traders"
CRDS = ROOT / "charts" / "chandlery" / "crds"


@pytest.fixture
def namespace(control_plane: Cluster, on_control_plane: Namespace) -> Namespace:
    control_plane.apply(CRDS)
    for names in NAMES.values():
        control_plane.kubectl(
            "wait", "--for=condition=Established", f"crd/{names.plural}.chandlery.dev", "--timeout=30s"
        )
    return on_control_plane


def rendered(cluster: Cluster, folder: Path, namespace: str) -> list[dict[str, Any]]:
    objects = list(yaml.safe_load_all(cluster.kubectl("kustomize", str(folder))))
    for one in objects:
        one["metadata"]["namespace"] = namespace
    return objects


def named(objects: list[dict[str, Any]], kind: str, name: str = "") -> dict[str, Any]:
    (found,) = [one for one in objects if one["kind"] == kind and one["metadata"]["name"].startswith(name)]
    return found


@pytest.mark.parametrize("overlay", ["staging", "production"])
def test_an_overlay_is_accepted_and_applying_it_again_changes_nothing(namespace: Namespace, overlay: str) -> None:
    objects = rendered(namespace.cluster, TRADERS / "overlays" / overlay, namespace.name)
    for _ in range(2):
        namespace.apply(objects, "--server-side", "--validate=strict", "--field-manager=gitops")
    generations = {one["metadata"]["generation"] for one in namespace.get("chandlery")["items"]}
    assert generations == {1}


def test_a_changed_strategy_file_is_a_changed_trader_and_nothing_else(namespace: Namespace, tmp_path: Path) -> None:
    copy = tmp_path / "traders"
    shutil.copytree(TRADERS, copy)
    before = rendered(namespace.cluster, copy / "overlays" / "staging", namespace.name)
    file = copy / "base" / "strategies" / "breakout.py"
    file.write_text(file.read_text(encoding="utf-8") + "# changed\n", encoding="utf-8")
    after = rendered(namespace.cluster, copy / "overlays" / "staging", namespace.name)
    changed = named(after, "ConfigMap")["metadata"]["name"]
    assert changed != named(before, "ConfigMap")["metadata"]["name"]
    reference = named(after, "Trader", "breakout")["spec"]["strategy"]["source"]["configMapRef"]
    assert reference == {"name": changed, "key": "breakout.py"}
    differing = [one["metadata"]["name"] for one, other in zip(before, after, strict=True) if one != other]
    assert sorted(differing) == sorted([named(before, "ConfigMap")["metadata"]["name"], "breakout-majors"])


def test_argo_cds_settings_are_a_config_map_that_the_api_server_takes(namespace: Namespace) -> None:
    text = (ROOT / "gitops" / "argocd" / "argocd-cm.yaml").read_text(encoding="utf-8")
    settings = yaml.safe_load(text)
    settings["metadata"]["namespace"] = namespace.name
    namespace.apply({**settings, "data": {}})
    patch = {"data": settings["data"]}
    namespace.kubectl("patch", "configmap", "argocd-cm", "--patch", json.dumps(patch))
    assert set(namespace.get("configmap", "argocd-cm")["data"]) == {
        *(f"resource.customizations.health.chandlery.dev_{kind}" for kind in NAMES),
        "resource.customizations.actions.chandlery.dev_Trader",
    }
