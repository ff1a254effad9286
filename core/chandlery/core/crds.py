"""CustomResourceDefinitions of the three kinds, made from their types: nothing about a field is said twice.

``python -m chandlery.core.crds FOLDER`` (``make crds``) writes one file a kind. Specs come from the pydantic types'
JSON schema, statuses from the msgspec types'; :func:`structural` turns either into Kubernetes' structural form:
https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#specifying-a-structural-schema
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
import yaml

from chandlery.core.resources import API_VERSION, KINDS
from chandlery.core.resources.rules import RULES
from chandlery.core.resources.status import STATUS_TYPES

GROUP, VERSION = API_VERSION.split("/")
CATEGORY: Final = "chandlery"
#: Digest of the definition: by it the chart sees that a cluster's CRDs are not its own.
SCHEMA_ANNOTATION: Final = "chandlery.dev/schema"
Schema = dict[str, Any]
#: kubectl's client-side apply keeps a copy in an annotation, and annotations end at 256 KiB.
MAX_FILE_BYTES: Final = 256 * 1024
_HEADER: Final = "# Made by `make crds` from core/chandlery/core/resources/: change it there.\n"
# Whole numbers above this are not exact as JSON numbers; a bound of 64 bits is said by the format.
_EXACT_INTEGER: Final = 2**53
# kstatus takes a resource without any status for one that is as it should be. So one that the operator hasn't seen yet
# has this from the API server: an older generation than any.
_UNSEEN: Final = {"observedGeneration": -1}

# What of a JSON schema means the same in a structural one.
_KEPT: Final = frozenset(
    {
        "type", "format", "description", "enum", "required", "not",
        "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum",
        "minLength", "maxLength", "pattern", "minItems", "maxItems", "minProperties", "maxProperties",
        "x-kubernetes-int-or-string", "x-kubernetes-preserve-unknown-fields",
        "x-kubernetes-list-type", "x-kubernetes-list-map-keys", RULES,
    }
)  # fmt: skip
# What says nothing to the API server, or what a structural schema says by itself.
_DROPPED: Final = frozenset({"title", "discriminator", "additionalProperties", "default", "$defs"})


@dataclass(frozen=True, slots=True)
class Names:
    """What a kind is called, and what ``kubectl get`` shows of it.

    Attributes:
        columns: (name, JSON path, type, description), in order; AGE is added.
    """

    plural: str
    short: str
    columns: tuple[tuple[str, str, str, str], ...]


def _condition(kind: str, field: str) -> str:
    return f'.status.conditions[?(@.type=="{kind}")].{field}'


_READY: Final = (
    ("Ready", _condition("Ready", "status"), "string", "Whether all is as the spec asks."),
    ("Reason", _condition("Ready", "reason"), "string", "Why it is, or why not."),
)
NAMES: Final[Mapping[str, Names]] = {
    "MarketFeed": Names(
        "marketfeeds",
        "mf",
        (
            *_READY,
            ("Source", ".status.source", "string", "synthetic, replay or binance."),
            ("Symbols", ".status.symbolCount", "integer", "Symbols that are ingested."),
            ("Intervals", ".status.intervals", "string", "Intervals that are built."),
            ("Pools", ".status.pools", "integer", "TraderPools that use the feed."),
        ),
    ),
    "TraderPool": Names(
        "traderpools",
        "tp",
        (
            *_READY,
            ("Feed", ".spec.feed.name", "string", "The MarketFeed whose candles its workers get."),
            ("Workers", ".status.workers", "integer", "Workers that there are to be now."),
            ("Up", ".status.readyWorkers", "integer", "Workers that are Ready."),
            ("Used", ".status.used", "integer", "Traders that have a worker."),
            ("Capacity", ".status.capacity", "integer", "Traders that fit into the most workers."),
            ("Pending", ".status.pending", "integer", "Traders that wait for room."),
        ),
    ),
    "Trader": Names(
        "traders",
        "td",
        (
            *_READY,
            ("Strategy", ".spec.strategy.name", "string", "What decides."),
            ("Symbols", ".spec.market.symbols", "string", "What is decided on."),
            ("Interval", ".spec.market.interval", "string", "Of which candles."),
            ("Pod", ".status.pod", "string", "Where it runs."),
            ("Signals", ".status.signals", "integer", "Signals emitted, as of the last change of status."),
            (
                "P99",
                ".status.latency.p99",
                "string",
                "99th percentile from frame to acknowledged signal, of all Traders of its worker together.",
            ),
        ),
    ),
}


class UnstructuralError(TypeError):
    """A type has what no structural schema can say: the type must be changed, or given a schema by hand."""


def structural(schema: Schema, definitions: Mapping[str, Schema], *, defaults: bool = True) -> Schema:
    """A JSON schema as Kubernetes' structural schema.

    References are resolved in place, "or null" is dropped (the API server takes null for absent), unknown fields stay
    unknown (so that ``kubectl apply`` refuses them), and an object that has a default has that of its fields (``{}``
    would do, but a default must keep the object's rules). A pattern beside a rule is dropped: the rule says the same in
    words.

    Raises:
        UnstructuralError: there is something that can't be said so.
    """
    schema = _resolved(schema, definitions)
    unknown = set(schema) - _KEPT - _DROPPED - {"properties", "items", "const"}
    if unknown:
        raise UnstructuralError(f"no structural schema can say {', '.join(sorted(unknown))}: {schema}")
    made: Schema = {name: value for name, value in schema.items() if name in _KEPT}
    if "const" in schema:
        made["enum"] = [schema["const"]]
    if "type" not in made and made.get("enum") and all(isinstance(value, str) for value in made["enum"]):
        made["type"] = "string"
    if RULES in made:
        made.pop("pattern", None)
    _bound(made)
    if schema.get("type") == "integer":
        made["format"] = "int64"
    if "properties" in schema:
        made["properties"] = {
            name: structural(field, definitions, defaults=defaults) for name, field in schema["properties"].items()
        }
    for name in ("items", "additionalProperties"):
        if isinstance(schema.get(name), dict):
            made[name] = structural(schema[name], definitions, defaults=defaults)
    if not made.get("required", True):
        del made["required"]
    if defaults and schema.get("default") is not None:
        made["default"] = _default_of_fields(made) if "properties" in made else schema["default"]
    return _in_order(made)


def _default_of_fields(made: Schema) -> dict[str, Any]:
    return {name: field["default"] for name, field in made["properties"].items() if "default" in field}


def _resolved(schema: Schema, definitions: Mapping[str, Schema]) -> Schema:
    """Without ``$ref`` and ``anyOf`` with null at its top; what stands beside them counts more than what they hold."""
    while True:
        beside = {name: value for name, value in schema.items() if name not in ("$ref", "anyOf", "allOf")}
        if "$ref" in schema:
            inner = definitions[schema["$ref"].rpartition("/")[2]]
        elif "anyOf" in schema or "allOf" in schema:
            given: list[Schema] = schema["anyOf" if "anyOf" in schema else "allOf"]
            choices = [one for one in given if one != {"type": "null"}]
            if len(choices) != 1:
                raise UnstructuralError(f"a choice of several forms: {schema}")
            (inner,) = choices
        else:
            return schema
        schema = {**inner, **beside}


def _bound(made: Schema) -> None:
    """Bounds as OpenAPI 3.0 spells them: exclusive ones are marks on the bound."""
    for exclusive, bound in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        value = made.get(exclusive)
        if value is not None and not isinstance(value, bool):
            made[bound], made[exclusive] = value, True
        if abs(made.get(bound, 0)) > _EXACT_INTEGER:
            del made[bound]


_FIRST: Final = ("description", "type", "format")
_LAST: Final = ("required", "properties", "items", RULES)


def _in_order(made: Schema) -> Schema:
    between = sorted(set(made) - {*_FIRST, *_LAST})
    return {name: made[name] for name in (*_FIRST, *between, *_LAST) if name in made}


def _spec_schema(kind: str) -> tuple[Schema, Schema]:
    """Structural schemas of ``metadata`` and ``spec``."""
    whole = KINDS[kind].model_json_schema(mode="serialization")
    fields, definitions = whole["properties"], whole["$defs"]
    # Of metadata a CRD may say no more than how names look, and not in a rule.
    name = _resolved(fields["metadata"], definitions)["properties"]["name"]
    metadata = {"type": "object", "properties": {"name": {key: name[key] for key in ("type", "maxLength", "pattern")}}}
    return metadata, structural(fields["spec"], definitions)


def _status_schema(kind: str) -> Schema:
    whole = msgspec.json.schema(STATUS_TYPES[kind])
    return _in_order(structural({"$ref": whole["$ref"]}, whole["$defs"], defaults=False) | {"default": dict(_UNSEEN)})


def custom_resource_definition(kind: str) -> dict[str, Any]:
    """The CustomResourceDefinition (apiextensions.k8s.io/v1) of one of :data:`KINDS`."""
    names = NAMES[kind]
    metadata, spec = _spec_schema(kind)
    columns = [
        {"name": name, "jsonPath": path, "type": of, "description": says} for name, path, of, says in names.columns
    ]
    columns.append({"name": "Age", "jsonPath": ".metadata.creationTimestamp", "type": "date"})
    version = {
        "name": VERSION,
        "served": True,
        "storage": True,
        "subresources": {"status": {}},
        "additionalPrinterColumns": columns,
        "schema": {
            "openAPIV3Schema": {
                "description": (KINDS[kind].__doc__ or "").strip(),
                "type": "object",
                "required": ["spec"],
                "properties": {
                    "apiVersion": {"type": "string", "description": f"Version of this form: {API_VERSION}."},
                    "kind": {"type": "string", "description": f"{kind}."},
                    "metadata": metadata,
                    "spec": spec,
                    "status": _status_schema(kind),
                },
            }
        },
    }
    definition = {
        "group": GROUP,
        "scope": "Namespaced",
        "names": {
            "kind": kind,
            "listKind": f"{kind}List",
            "plural": names.plural,
            "singular": kind.lower(),
            "shortNames": [names.short],
            "categories": [CATEGORY],
        },
        "versions": [version],
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{names.plural}.{GROUP}",
            "labels": {"app.kubernetes.io/name": "chandlery", "app.kubernetes.io/part-of": "chandlery"},
            "annotations": {SCHEMA_ANNOTATION: hashlib.sha256(json.dumps(definition).encode()).hexdigest()[:16]},
        },
        "spec": definition,
    }


class _PlainDumper(yaml.SafeDumper):
    """Without anchors: a rule that several fields share is written out for each."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def crd_files() -> dict[str, str]:
    """Text of the CRDs' files by name, as they stand in the chart."""
    return {
        f"{NAMES[kind].plural}.yaml": _HEADER
        + yaml.dump(custom_resource_definition(kind), Dumper=_PlainDumper, sort_keys=False, width=120)
        for kind in KINDS
    }


def main(arguments: list[str]) -> int:
    """Write the files into the folder that is named."""
    if len(arguments) != 1:
        print("usage: python -m chandlery.core.crds FOLDER", file=sys.stderr)
        return 2
    folder = Path(arguments[0])
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in crd_files().items():
        (folder / name).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
