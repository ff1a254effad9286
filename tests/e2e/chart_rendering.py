"""What the chart renders, by Helm itself; no cluster is needed for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from tests.e2e.cluster.commands import run

CHART = Path(__file__).parents[2] / "charts" / "chandlery"


def setting(values: tuple[str, ...]) -> list[str]:
    return [word for value in values for word in ("--set", value)]


def rendered(helm: str, *values: str) -> list[dict[str, Any]]:
    text = run(helm, "template", "mine", str(CHART), "--namespace", "here", *setting(values))
    return [one for one in yaml.safe_load_all(text) if one]


def only(objects: list[dict[str, Any]], kind: str, name: str = "") -> dict[str, Any]:
    (found,) = [one for one in objects if one["kind"] == kind and name in one["metadata"]["name"]]
    return found
