"""Traders made, changed, suspended and removed; what is wrong with a manifest is named by its field."""

from __future__ import annotations

import copy
import json
from typing import Any

import httpx
import pytest
from tests.console_api.lively import manifest_of
from tests.console_api.stage import Stage

from chandlery.console.backend import BadFieldError, RefusedError
from chandlery.core.errors import InputError, MachineError, UnavailableError

JSON = {"Content-Type": "application/json"}


def new(name: str = "default/new") -> dict[str, Any]:
    return manifest_of(name, "default/standard", "sma-cross", ["BTC/USDT"])


async def test_a_trader_s_life(api: httpx.AsyncClient, stage: Stage) -> None:
    made = await api.post("traders", json=new())
    assert made.status_code == 201
    assert made.headers["Location"] == "/api/v1/traders/default/new"
    assert made.json()["manifest"] == new()
    assert (made.json()["trader"], made.json()["state"]) == ("default/new", "Pending")

    there = await api.get("traders/default/new")
    version = there.json()["resource_version"]
    assert there.headers["ETag"] == f'"{version}"'

    edited = copy.deepcopy(there.json()["manifest"])
    edited["spec"]["market"]["interval"] = "5m"
    changed = await api.put("traders/default/new", json=edited, headers={"If-Match": version})
    assert changed.status_code == 200
    assert changed.json()["manifest"]["spec"]["market"]["interval"] == "5m"

    late = await api.put("traders/default/new", json=edited, headers={"If-Match": f'"{version}"'})
    assert (late.status_code, late.json()["reason"]) == (409, "Conflict")
    for nothing in ('""', '"', f'"{version}'):
        assert (await api.put("traders/default/new", json=edited, headers={"If-Match": nothing})).status_code == 422
    assert (await api.put("traders/default/new", json=edited, headers={"If-Match": "*"})).status_code == 200
    assert (await api.put("traders/default/new", json=edited)).status_code == 200

    suspended = await api.put("traders/default/new/suspend", json={"suspend": True})
    assert (suspended.json()["suspended"], suspended.json()["manifest"]["spec"]["suspend"]) == (True, True)
    resumed = await api.put("traders/default/new/suspend", json={"suspend": False})
    assert resumed.json()["suspended"] is False

    gone = await api.delete("traders/default/new")
    assert (gone.status_code, gone.content) == (204, b"")
    for answer in (
        await api.get("traders/default/new"),
        await api.delete("traders/default/new"),
        await api.put("traders/default/new", json=new()),
        await api.put("traders/default/new/suspend", json={"suspend": True}),
    ):
        assert (answer.status_code, answer.json()["reason"]) == (404, "NotFound")


async def test_a_name_that_is_taken_is_a_conflict(api: httpx.AsyncClient) -> None:
    assert (await api.post("traders", json=new("default/alpha"))).status_code == 409


async def test_what_only_a_server_says_of_a_trader_never_reaches_a_backend(
    api: httpx.AsyncClient, stage: Stage
) -> None:
    body = new()
    body["metadata"] |= {
        "resourceVersion": "1",
        "uid": "x",
        "generation": 4,
        "ownerReferences": [{"kind": "Node"}],
        "finalizers": ["never"],
        "managedFields": [],
        "labels": {"team": "quant"},
    }
    assert (await api.post("traders", json=body)).status_code == 201
    assert stage.backend.manifests["default/new"].manifest["metadata"] == {
        "name": "new",
        "namespace": "default",
        "labels": {"team": "quant"},
    }


def _with(path: str, value: Any) -> dict[str, Any]:
    """A manifest with one field changed; ``...`` removes it."""
    body: dict[str, Any] = new()
    *where, last = path.split(".")
    here: Any = body
    for part in where:
        here = here[part]
    if value is ...:
        del here[last]
    else:
        here[last] = value
    return body


@pytest.mark.parametrize(
    ("path", "value", "field"),
    [
        ("kind", "TraderPool", "kind"),
        ("kind", ..., "kind"),
        ("apiVersion", "v1", "apiVersion"),
        ("status", {}, "status"),
        ("metadata", [], "metadata"),
        ("metadata.name", ..., "metadata.name"),
        ("metadata.name", "New_One", "metadata.name"),
        ("metadata.name", "../../etc/cron.d/x", "metadata.name"),
        ("metadata.name", "a\n", "metadata.name"),
        ("metadata.name", "x" * 64, "metadata.name"),
        ("metadata.name", {"$ne": ""}, "metadata.name"),
        ("metadata.namespace", "a/b", "metadata.namespace"),
        ("metadata.namespace", "..", "metadata.namespace"),
        ("metadata.labels", {"a": 1}, "metadata.labels.a"),
        ("spec", {}, "spec.pool"),
        ("spec.pol", {}, "spec.pol"),
        ("spec.market.interval", "7m", "spec.market.interval"),
        ("spec.market.symbols", [], "spec.market.symbols"),
        ("spec.market.symbols", ["BTC/USDT"] * 65, "spec.market.symbols"),
        ("spec.market.warmup", 10**30, "spec.market.warmup"),
        ("spec.suspend", "yes", "spec.suspend"),
        ("spec.strategy.parameters", {"fast": []}, "spec.strategy.parameters.fast"),
        ("spec.strategy.parameters", {"fast": "\ud800"}, "body"),
        ("spec.signals", {"ttl": "soon"}, "spec.signals.ttl"),
    ],
)
async def test_what_is_wrong_with_a_manifest_is_named_and_reaches_no_backend(
    api: httpx.AsyncClient, stage: Stage, path: str, value: Any, field: str
) -> None:
    for method, where in (("POST", "traders"), ("PUT", "traders/default/new")):
        if method == "PUT" and path == "metadata.name" and value is ...:
            continue  # the address names it
        answer = await api.request(method, where, content=json.dumps(_with(path, value)), headers=JSON)
        assert answer.status_code == 422
        assert answer.headers["Content-Type"] == "application/problem+json"
        problem = answer.json()
        assert problem["field"] == field
        assert problem["detail"].startswith(f"{field}: ")
        assert stage.backend.asked == []


async def test_all_that_is_wrong_is_told_in_one_sentence(api: httpx.AsyncClient) -> None:
    body = new()
    body["spec"]["market"] = {"symbols": ["?"], "interval": "7m"}
    detail = (await api.post("traders", json=body)).json()["detail"]
    assert "spec.market.symbols[0]: " in detail
    assert "spec.market.interval: " in detail


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
async def test_numbers_that_no_json_has_are_refused(api: httpx.AsyncClient, stage: Stage, number: str) -> None:
    body = (
        '{"apiVersion":"chandlery.dev/v1alpha1","kind":"Trader","metadata":{"name":"new"},"spec":{"pool":{"name":"p"},'
        '"strategy":{"name":"s","parameters":{"x":' + number + '}},"market":{"symbols":["BTC/USDT"],"interval":"1m"}}}'
    )
    answer = await api.post("traders", content=body, headers=JSON)
    assert answer.status_code in (400, 422)
    assert stage.backend.asked == []


@pytest.mark.parametrize(
    ("name", "namespace"),
    [("%2e%2e", "default"), ("alpha%00", "default"), ("ALPHA", "default"), ("alpha%0a", "default"), ("alpha'--", "default"), ("alpha", "..%2f.."), ("alpha", "-x"), ("a" * 64, "default"), ("alpha%2fsuspend%2f..", "default"), ("%ff", "default"), ("alpha;rm", "default"), ("alpha?x", "{{7*7}}")],
)  # fmt: skip
async def test_names_that_kubernetes_wouldn_t_take_reach_no_backend(
    api: httpx.AsyncClient, stage: Stage, name: str, namespace: str
) -> None:
    for method in ("GET", "PUT", "DELETE"):
        answer = await api.request(method, f"traders/{namespace}/{name}", json=new() if method == "PUT" else None)
        assert answer.status_code in (404, 405, 422)
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert stage.backend.asked == []


async def test_the_manifest_may_not_contradict_the_address(api: httpx.AsyncClient, stage: Stage) -> None:
    other = await api.put("traders/default/alpha", json=new("default/beta"))
    assert (other.status_code, other.json()["field"]) == (422, "metadata.name")
    elsewhere = await api.put("traders/default/alpha", json=new("research/alpha"))
    assert (elsewhere.status_code, elsewhere.json()["field"]) == (422, "metadata.namespace")
    assert stage.backend.asked == []
    unnamed = new("research/gamma")
    unnamed["metadata"] = {}
    assert (await api.put("traders/research/gamma", json=unnamed)).status_code == 200


@pytest.mark.parametrize("body", [{}, {"suspend": "yes"}, {"suspend": 1}, {"suspend": True, "reason": "x"}, [], None])
async def test_a_suspension_says_true_or_false_and_nothing_else(
    api: httpx.AsyncClient, stage: Stage, body: Any
) -> None:
    assert (await api.put("traders/default/alpha/suspend", content=json.dumps(body), headers=JSON)).status_code == 422
    assert stage.backend.asked == []


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (UnavailableError("the instance at its socket doesn't answer"), 503, "Unavailable"),
        (InputError("spec.pool.name: there is no TraderPool default/none"), 422, "BadField"),
        (RefusedError("the API server says no: traders is forbidden"), 403, "Refused"),
        (MachineError("no room is left for the manifest"), 503, "MachineLacks"),
        (RuntimeError("inside"), 500, "Defect"),
    ],
)
async def test_a_backend_s_error_is_told_in_its_words(
    api: httpx.AsyncClient, stage: Stage, error: Exception, status: int, reason: str
) -> None:
    stage.backend.failing = error
    for method in ("GET", "POST", "PUT", "DELETE"):
        path = "traders" if method == "POST" else "traders/default/alpha"
        body = new("default/alpha") if method in ("POST", "PUT") else None
        answer = await api.request(method, path, json=body)
        problem = answer.json()
        assert (answer.status_code, problem["reason"]) == (status, reason)
        assert (problem["detail"] == str(error)) is (status != 500)
        assert ("Retry-After" in answer.headers) is (status == 503)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("spec.pool.name", "demo"),
        ("spec.strategy.parameters.fast", "0"),
        ("spec.strategy.parameters.a.b[0]", "dotted"),
        ("spec.market.symbols[0]", "BTC/USDT"),
        ("spec.market.symbols[7]", ""),
        ("spec.market.symbols[" + "9" * 5000 + "]", ""),
        ("spec.strategy.source", ""),
        ("..", ""),
        ("metadata.labels", ""),
    ],
)
async def test_a_field_that_a_backend_refuses_is_told_with_the_value_that_stands_there(
    api: httpx.AsyncClient, stage: Stage, field: str, value: str
) -> None:
    stage.backend.failing = BadFieldError(f"{field}: won't do", field)
    body = new("default/alpha")
    body["spec"]["pool"]["name"] = "demo"
    body["spec"]["strategy"]["parameters"] = {"fast": 0, "a.b[0]": "dotted", "a": "another"}
    body["spec"]["market"]["symbols"] = ["BTC/USDT"]
    for method, path in (("POST", "traders"), ("PUT", "traders/default/alpha")):
        answer = await api.request(method, path, json=body)
        told = answer.json()
        assert (answer.status_code, told["reason"], told["detail"]) == (422, "BadField", f"{field}: won't do")
        assert (told["field"], told["value"]) == (field, value)


@pytest.mark.parametrize("why", ["read_only", "backend"])
async def test_nothing_is_changed_where_nothing_may_be(stage: Stage, why: str) -> None:
    if why == "read_only":
        stage.settings.read_only = True
    else:
        stage.backend.writable = False
    async with stage.ask() as api:
        for answer in (
            await api.post("traders", json=new()),
            await api.put("traders/default/alpha", json=new("default/alpha")),
            await api.put("traders/default/alpha/suspend", json={"suspend": True}),
            await api.delete("traders/default/alpha"),
        ):
            assert (answer.status_code, answer.json()["reason"]) == (403, "Refused")
        assert (await api.get("config")).json()["writable"] is False
        assert (await api.get("overview")).json()["writable"] is False
    assert stage.backend.asked == []


async def test_what_was_just_written_is_told_though_nothing_runs_yet(api: httpx.AsyncClient, stage: Stage) -> None:
    stage.backend.figures_follow = False
    made = (await api.post("traders", json=new())).json()
    assert (made["state"], made["ready"]) == ("Pending", False)
    assert (made["strategy"], made["symbols"], made["interval"]) == ("sma-cross", ["BTC/USDT"], "1m")
    assert made["pool"] == "default/standard"
    suspended = (await api.put("traders/default/alpha/suspend", json={"suspend": True})).json()
    assert (suspended["state"], suspended["suspended"]) == ("Active", True)
