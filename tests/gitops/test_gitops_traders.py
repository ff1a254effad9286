"""The GitOps example: its manifests are sound, and its own strategy is one."""

from __future__ import annotations

from pathlib import Path

import yaml

from chandlery.core.manifests import check_against_catalogue, parse_manifests
from chandlery.workers.discovery import find_strategy

BASE = Path(__file__).parents[2] / "gitops" / "traders" / "base"


def test_the_base_is_sound_with_the_config_map_that_kustomize_makes() -> None:
    kustomization = yaml.safe_load((BASE / "kustomization.yaml").read_text(encoding="utf-8"))
    (generated,) = kustomization["configMapGenerator"]
    data = {Path(file).name: (BASE / file).read_text(encoding="utf-8") for file in generated["files"]}
    config_map = yaml.safe_dump(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": generated["name"]}, "data": data}
    )
    texts = [(BASE / name).read_text(encoding="utf-8") for name in kustomization["resources"]]
    manifests = parse_manifests("---\n".join([*texts, config_map]))
    assert [str(problem) for problem in manifests.problems] == []
    assert [str(problem) for problem in check_against_catalogue(manifests, None)] == []


def test_its_own_strategy_can_be_run() -> None:
    text = (BASE / "strategies" / "breakout.py").read_text(encoding="utf-8")
    assert find_strategy("breakout", source=text).strategy.name == "breakout"
