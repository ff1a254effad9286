"""The description: whole, true, and the same as docs/openapi.json."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from tests.console_api.stage import Stage

from chandlery.console.api.app import described_app
from chandlery.console.api.openapi import text_of
from chandlery.core.signal_life import STANDINGS

DOCS = Path(__file__).resolve().parents[2] / "docs" / "openapi.json"
DESCRIBED = described_app().openapi()
OPERATIONS = [
    (path, method, operation) for path, item in DESCRIBED["paths"].items() for method, operation in item.items()
]
OPEN = {"/api/v1/healthz", "/api/v1/config"}


def test_the_description_in_the_docs_is_that_of_the_app() -> None:
    assert DOCS.read_text(encoding="utf-8") == text_of(DESCRIBED), (
        "write it anew: python -m chandlery.console.api.openapi docs/openapi.json"
    )


async def test_the_app_tells_the_same_of_itself(stage: Stage) -> None:
    async with stage.ask() as api:
        told = (await api.get("openapi.json")).json()
    assert told["openapi"] == "3.1.0"
    assert {**told, "info": None} == {**DESCRIBED, "info": None}


def test_every_operation_has_an_id_and_says_what_it_does() -> None:
    ids = [operation["operationId"] for _, _, operation in OPERATIONS]
    assert len(set(ids)) == len(ids) == 19
    for path, _, operation in OPERATIONS:
        assert operation["description"], path
        assert operation["tags"], path


def test_every_state_of_a_signal_is_explained_where_it_is_asked_for_and_where_it_is_told() -> None:
    (asked,) = (one for one in DESCRIBED["paths"]["/api/v1/signals"]["get"]["parameters"] if one["name"] == "state")
    (choices,) = (one for one in asked["schema"]["anyOf"] if one.get("type") != "null")
    told = DESCRIBED["components"]["schemas"]["Signal"]["properties"]["state"]
    for enum, description in ((choices["enum"], choices["description"]), (told["enum"], told["description"])):
        assert enum == list(STANDINGS)
        for state, meaning in STANDINGS.items():
            assert f"`{state}` ({meaning})" in description
        assert "No signal is found in `confirmed`" in description


def test_every_error_is_declared_a_problem() -> None:
    for path, method, operation in OPERATIONS:
        errors = {status: answer for status, answer in operation["responses"].items() if int(status) >= 400}
        assert {"401", "403", "422", "500"} <= errors.keys(), (path, method)
        if method in ("post", "put"):
            assert {"400", "413", "415", "409", "503"} <= errors.keys(), path
        for answer in errors.values():
            assert list(answer["content"]) == ["application/problem+json"]
            assert answer["content"]["application/problem+json"]["schema"] == {"$ref": "#/components/schemas/Problem"}


def test_every_operation_but_the_open_ones_needs_the_token() -> None:
    assert DESCRIBED["components"]["securitySchemes"]["bearer"]["scheme"] == "bearer"
    for path, _, operation in OPERATIONS:
        assert operation["security"] == ([] if path in OPEN else [{"bearer": []}]), path


def test_a_manifest_is_described_down_to_its_last_field() -> None:
    schemas = DESCRIBED["components"]["schemas"]
    assert schemas["Manifest"]["properties"]["spec"] == {"$ref": "#/components/schemas/ManifestTraderSpec"}
    assert {"pool", "strategy", "market", "suspend"} <= schemas["ManifestTraderSpec"]["properties"].keys()


def test_the_data_of_every_event_is_described_and_named_where_it_comes() -> None:
    schemas = DESCRIBED["components"]["schemas"]
    streams = {path: item["get"]["responses"]["200"] for path, item in DESCRIBED["paths"].items() if "live" in path or "stream" in path}  # fmt: skip
    assert len(streams) == 3
    for path, answer in streams.items():
        assert list(answer["content"]) == ["text/event-stream"]
        named = set(re.findall(r"\(?(?:list of )?([A-Z][A-Za-z]+)\b", answer["description"]))
        assert named, path
        assert named <= schemas.keys(), path


def _references(part: Any) -> set[str]:
    if isinstance(part, dict):
        own = {part["$ref"]} if isinstance(part.get("$ref"), str) else set()
        return own.union(*map(_references, part.values()))
    return set().union(*map(_references, part)) if isinstance(part, list) else set()


def test_every_reference_leads_somewhere() -> None:
    known = {f"#/components/schemas/{name}" for name in DESCRIBED["components"]["schemas"]}
    assert _references(DESCRIBED) <= known
