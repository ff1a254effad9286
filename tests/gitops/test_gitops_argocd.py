"""Argo CD's scripts for Chandlery's kinds, run by the Lua that Argo CD speaks: health, and a Trader's actions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from lupa.lua51 import LuaRuntime

from chandlery.core.resources import APPROVE_ANNOTATION, CHANGED_IN_PLACE, KINDS, Trader
from chandlery.core.resources.status import Condition, ConditionStatus, TraderStatus, status_manifest

FOLDER = Path(__file__).parents[2] / "gitops" / "argocd"
CONFIG_MAP = FOLDER / "argocd-cm.yaml"
DATA: dict[str, str] = yaml.safe_load(CONFIG_MAP.read_text(encoding="utf-8"))["data"]
ACTIONS: dict[str, Any] = yaml.safe_load(DATA["resource.customizations.actions.chandlery.dev_Trader"])
# What Argo CD's sandbox leaves of the libraries' dangerous parts: nothing.
FORBIDDEN = ("io", "os", "package", "require", "dofile", "loadfile", "debug")


def run(script: str, manifest: dict[str, Any]) -> Any:
    """Run a script on an object, as Argo CD does: numbers are floats, the object is the global ``obj``."""
    lua = LuaRuntime(register_eval=False)
    for name in FORBIDDEN:
        lua.globals()[name] = None
    lua.globals().obj = lua.table_from(manifest, recursive=True)
    return _plain(lua.execute(script))


def _plain(value: Any) -> Any:
    if not hasattr(value, "items"):
        return value
    items = dict(value.items())
    if items and all(isinstance(key, int) for key in items):
        return [_plain(items[key]) for key in sorted(items)]
    return {key: _plain(inner) for key, inner in items.items()}


def trader(
    ready: tuple[ConditionStatus, str, str] | None = None,
    *,
    reconciling: bool = False,
    stalled: bool = False,
    generation: int = 3,
    observed: int | None = 3,
    **spec: Any,
) -> dict[str, Any]:
    """A Trader as the API server has it, with a status as the operator writes it."""
    moment = "2026-01-01T00:00:00Z"
    conditions = []
    if ready is not None:
        status, reason, message = ready
        conditions.append(Condition("Ready", status, reason, moment, message))
    for kind, is_so in (("Reconciling", reconciling), ("Stalled", stalled)):
        conditions.append(Condition(kind, "True" if is_so else "False", "Same", moment))  # type: ignore[arg-type]
    return {
        "metadata": {"name": "a", "generation": float(generation)},
        "spec": {"suspend": False, **spec},
        "status": status_manifest(TraderStatus(observed_generation=observed, conditions=conditions)),
    }


def health(manifest: dict[str, Any], kind: str = "Trader") -> tuple[str, str]:
    answer = run(DATA[f"resource.customizations.health.chandlery.dev_{kind}"], manifest)
    return answer["status"], answer["message"]


@pytest.mark.parametrize(
    ("manifest", "status", "message"),
    [
        ({"metadata": {"generation": 1}, "spec": {}}, "Progressing", "not seen this version"),
        (trader(("True", "Running", ""), observed=2), "Progressing", "not seen this version"),
        (trader(("True", "Running", "")), "Healthy", "Running"),
        (trader(("True", "Running", "of the version before"), reconciling=True), "Progressing", "version before"),
        (trader(("True", "CrashLoop", "generation 2 failed"), stalled=True), "Degraded", "generation 2 failed"),
        (trader(("False", "WorkerStarting", "worker p-0 is starting"), reconciling=True), "Progressing", "p-0"),
        (trader(("False", "PoolFull", "raise spec.workers.max"), stalled=True), "Degraded", "PoolFull: raise"),
        (trader(("False", "AwaitingApproval", "wait"), reconciling=True), "Suspended", "AwaitingApproval"),
        (trader(("False", "Suspended", ""), suspend=True), "Suspended", "Suspended"),
        (trader(), "Progressing", "Unknown"),
    ],
)
def test_health_follows_the_conditions(manifest: dict[str, Any], status: str, message: str) -> None:
    for kind in KINDS:
        found, said = health(manifest, kind)
        assert found == status
        assert message in said


def offered(manifest: dict[str, Any]) -> set[str]:
    actions = run(ACTIONS["discovery.lua"], manifest)
    return {name for name, action in actions.items() if not action["disabled"]}


def test_only_what_makes_sense_is_offered() -> None:
    assert offered(trader(("True", "Running", ""))) == {"suspend"}
    assert offered(trader(("False", "Suspended", ""), suspend=True)) == {"resume"}
    assert offered(trader(("False", "AwaitingApproval", ""), reconciling=True)) == {"approve", "suspend"}
    assert offered({"metadata": {}, "spec": {}}) == {"suspend"}


def test_approving_is_not_offered_where_no_approval_counts() -> None:
    message = f"ConfigMap desk/code {CHANGED_IN_PLACE}, which no approval of generation 3 covers: give it a new name"
    assert offered(trader(("False", "AwaitingApproval", message), reconciling=True)) == {"suspend"}


def act(name: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    (script,) = [one["action.lua"] for one in ACTIONS["definitions"] if one["name"] == name]
    return lambda manifest: dict(run(script, manifest))


def test_approving_names_the_generation_that_is_there() -> None:
    bare = act("approve")(trader(generation=7))
    assert bare["metadata"]["annotations"] == {APPROVE_ANNOTATION: "7"}
    given = trader(generation=12)
    given["metadata"]["annotations"] = {"team": "quants", APPROVE_ANNOTATION: "7"}
    assert act("approve")(given)["metadata"]["annotations"] == {"team": "quants", APPROVE_ANNOTATION: "12"}


def test_suspend_and_resume_change_that_field_alone() -> None:
    before = trader(("True", "Running", ""), tier="standard")
    after = act("suspend")(before)
    assert after["spec"] == {"suspend": True, "tier": "standard"}
    assert act("resume")(after) == before


def test_every_action_that_is_discovered_is_defined_and_the_kinds_field_exists() -> None:
    discovered = set(run(ACTIONS["discovery.lua"], trader()))
    assert discovered == {one["name"] for one in ACTIONS["definitions"]}
    assert "suspend" in Trader.model_fields["spec"].annotation.model_fields  # type: ignore[union-attr]


def test_the_example_has_argo_cd_leave_alone_what_suspends_any_kind_that_can_be() -> None:
    documents = yaml.safe_load_all((FOLDER / "applications.yaml").read_text(encoding="utf-8"))
    (traders,) = (one["spec"] for one in documents if one["metadata"]["name"] == "traders")
    left = {one["kind"] for one in traders["ignoreDifferences"] if one["jsonPointers"] == ["/spec/suspend"]}
    can_be = {kind for kind, model in KINDS.items() if "suspend" in model.model_fields["spec"].annotation.model_fields}  # type: ignore[union-attr]
    assert left == can_be == {"Trader", "TraderPool"}
    assert "RespectIgnoreDifferences=true" in traders["syncPolicy"]["syncOptions"]
