"""Flux's example: what its parts refer to is there."""

from __future__ import annotations

from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]


def test_it_makes_the_namespace_that_its_traders_go_to() -> None:
    parts = list(yaml.safe_load_all((ROOT / "gitops" / "flux" / "chandlery.yaml").read_text(encoding="utf-8")))
    (kustomization,) = [one for one in parts if one["kind"] == "Kustomization"]
    overlay = ROOT / kustomization["spec"]["path"] / "kustomization.yaml"
    namespace = yaml.safe_load(overlay.read_text(encoding="utf-8"))["namespace"]
    assert namespace in [one["metadata"]["name"] for one in parts if one["kind"] == "Namespace"]
    sources = [one["metadata"]["name"] for one in parts if one["kind"] == "GitRepository"]
    assert kustomization["spec"]["sourceRef"]["name"] in sources
