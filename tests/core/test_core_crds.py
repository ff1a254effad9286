"""The CRDs: made from the types, closed, wholly described, and no different from what stands in the chart."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from chandlery.core.crds import (
    MAX_FILE_BYTES,
    UnstructuralError,
    crd_files,
    custom_resource_definition,
    structural,
)
from chandlery.core.resources import KINDS

CHART_CRDS = Path(__file__).parents[2] / "charts" / "chandlery" / "crds"


def schema_of(kind: str) -> dict[str, Any]:
    (version,) = custom_resource_definition(kind)["spec"]["versions"]
    schema: dict[str, Any] = version["schema"]["openAPIV3Schema"]
    return schema


def nodes(schema: dict[str, Any], path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every schema in a schema, with its path as ``kubectl explain`` spells it."""
    yield path, schema
    for name, field in schema.get("properties", {}).items():
        yield from nodes(field, f"{path}.{name}")
    for inner in (schema.get("items"), schema.get("additionalProperties")):
        if inner is not None:
            yield from nodes(inner, f"{path}[]")


def test_the_chart_has_the_crds_that_the_types_make() -> None:
    assert {file.name for file in CHART_CRDS.iterdir()} == set(crd_files())
    for name, text in crd_files().items():
        assert (CHART_CRDS / name).read_text(encoding="utf-8") == text, "run: make crds"


@pytest.mark.parametrize("kind", KINDS)
def test_each_is_short_enough_for_a_client_side_apply(kind: str) -> None:
    for text in crd_files().values():
        assert len(text.encode()) < MAX_FILE_BYTES


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_written_is_what_is_meant(kind: str) -> None:
    texts = [yaml.safe_load(text) for text in crd_files().values()]
    assert custom_resource_definition(kind) in texts


@pytest.mark.parametrize("kind", KINDS)
def test_every_field_of_spec_and_status_is_described(kind: str) -> None:
    schema = schema_of(kind)
    for part in ("spec", "status"):
        for path, node in nodes(schema["properties"][part], part):
            assert path.endswith("[]") or node.get("description", "").rstrip(")").endswith("."), path


@pytest.mark.parametrize("kind", KINDS)
def test_unknown_fields_are_unknown_everywhere_but_in_a_pods_template_and_where_forms_are_free(kind: str) -> None:
    free = {path for path, node in nodes(schema_of(kind), kind) if "x-kubernetes-preserve-unknown-fields" in node}
    assert (
        free
        == {
            "MarketFeed": {
                "MarketFeed.spec.source.replay.files[]",
                "MarketFeed.spec.source.replay.speed",
                "MarketFeed.spec.symbols",
            },
            "TraderPool": {"TraderPool.spec.podTemplate"},
            "Trader": {"Trader.spec.strategy.parameters[]"},
        }[kind]
    )


@pytest.mark.parametrize("kind", KINDS)
def test_every_schema_has_one_type_and_nothing_that_a_structural_schema_refuses(kind: str) -> None:
    for path, node in nodes(schema_of(kind), kind):
        free = {"x-kubernetes-preserve-unknown-fields", "x-kubernetes-int-or-string"} & set(node)
        assert isinstance(node.get("type"), str) or free, path
        assert not {"$ref", "anyOf", "allOf", "oneOf", "title", "const", "nullable"} & set(node), path
        for rule in node.get("x-kubernetes-validations", []):
            assert rule["message"]
            assert "\n" not in rule["message"], path
            assert rule.get("fieldPath", ".")[1:] in {"", *node.get("properties", {})}, path


def test_a_status_is_by_default_of_no_generation_and_conditions_merge_by_their_type() -> None:
    for kind in KINDS:
        status = schema_of(kind)["properties"]["status"]
        assert status.pop("default") == {"observedGeneration": -1}
        assert not [path for path, node in nodes(status, "status") if "default" in node]
        assert status["properties"]["conditions"]["x-kubernetes-list-map-keys"] == ["type"]


def test_a_traders_columns_are_those_that_say_how_it_is() -> None:
    (version,) = custom_resource_definition("Trader")["spec"]["versions"]
    names = [column["name"].upper() for column in version["additionalPrinterColumns"]]
    assert " ".join(names) == "READY REASON STRATEGY SYMBOLS INTERVAL POD SIGNALS P99 AGE"


def test_a_traders_latency_is_told_to_be_that_of_its_whole_worker() -> None:
    (version,) = custom_resource_definition("Trader")["spec"]["versions"]
    (column,) = (one for one in version["additionalPrinterColumns"] if one["name"] == "P99")
    latency = schema_of("Trader")["properties"]["status"]["properties"]["latency"]
    for described in (column, latency):
        assert "of all Traders of its worker together" in described["description"]


@pytest.mark.parametrize("kind", KINDS)
def test_each_column_shows_a_field_that_there_is_in_a_form_that_it_has(kind: str) -> None:
    (version,) = custom_resource_definition(kind)["spec"]["versions"]
    *columns, age = version["additionalPrinterColumns"]
    assert age["jsonPath"] == ".metadata.creationTimestamp"
    for column in columns:
        shown = field_at(schema_of(kind), column["jsonPath"])
        assert shown["type"] == column["type"] or (shown["type"], column["type"]) == ("array", "string"), column


def field_at(schema: dict[str, Any], path: str) -> dict[str, Any]:
    """What a schema says of a column's path: names, of which a list's is followed by the key that chooses one in it."""
    steps = re.findall(r'\.(\w+)(?:\[\?\(@\.(\w+)=="\w+"\)\])?', path)
    assert steps, path
    for name, key in steps:
        assert name in schema["properties"], path
        schema = schema["properties"][name]
        if key:
            schema = schema["items"]
            assert "enum" in schema["properties"][key] or schema["properties"][key]["type"] == "string"
    return schema


def test_a_form_that_no_structural_schema_has_is_an_error_not_a_hole() -> None:
    with pytest.raises(UnstructuralError, match="a choice of several forms"):
        structural({"anyOf": [{"type": "string"}, {"type": "integer"}]}, {})
    with pytest.raises(UnstructuralError, match="patternProperties"):
        structural({"type": "object", "patternProperties": {}}, {})
