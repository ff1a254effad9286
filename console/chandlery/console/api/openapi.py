"""The API's description, OpenAPI 3.1: problems as problems, the token, and a Trader's manifest whole.

``python -m chandlery.console.api.openapi docs/openapi.json`` writes it; a test holds the file equal to the app.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from chandlery.console.api.events import CandleChange, Failed, Gap, TraderRows
from chandlery.console.api.guard import OPEN_PATHS
from chandlery.console.api.problems import MEDIA_TYPE
from chandlery.core.resources import Trader

_SCHEMAS: Final = "#/components/schemas/"
_EVENTS: Final = (CandleChange, Failed, Gap, TraderRows)
_PROBLEM: Final = {MEDIA_TYPE: {"schema": {"$ref": f"{_SCHEMAS}Problem"}}}
_SECURITY: Final = {
    "type": "http",
    "scheme": "bearer",
    "description": "The token in the server's `token_file`. A server without one listens on loopback alone.",
}
#: Prefix of the schemas of a manifest's parts, which have names of their own in core (Trader, Signals …).
_PART: Final = "Manifest"


def openapi_of(app: FastAPI) -> dict[str, Any]:
    """The description of an app's routes."""
    described = get_openapi(
        title=app.title, version=app.version, summary=app.summary, openapi_version="3.1.0", routes=app.routes
    )
    schemas = described["components"]["schemas"]
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    described["components"]["securitySchemes"] = {"bearer": _SECURITY}
    for path, item in described["paths"].items():
        for operation in item.values():
            operation["security"] = [] if path in OPEN_PATHS else [{"bearer": []}]
            for status, answer in operation["responses"].items():
                if int(status) >= 400:
                    answer["content"] = _PROBLEM
    _tell_manifest(schemas)
    _tell_events(schemas)
    return described


def text_of(described: dict[str, Any]) -> str:
    """As it stands in docs/openapi.json: the version is a release's, and no reason to write the file anew."""
    info = {**described["info"], "version": "0"}
    return json.dumps({**described, "info": info}, indent=1, ensure_ascii=False) + "\n"


def _tell_manifest(schemas: dict[str, Any]) -> None:
    """Put the fields of a Trader's spec and metadata, as core has them, where the model only says "object"."""
    told = Trader.model_json_schema(mode="validation", ref_template=f"{_SCHEMAS}{_PART}{{model}}")
    for name, schema in told.pop("$defs").items():
        schemas[f"{_PART}{name}"] = _plain(schema)
    properties = schemas["Manifest"]["properties"]
    properties["metadata"] = {"$ref": f"{_SCHEMAS}{_PART}Metadata"}
    properties["spec"] = {"$ref": f"{_SCHEMAS}{_PART}TraderSpec"}


def _tell_events(schemas: dict[str, Any]) -> None:
    """Add the data of events: OpenAPI has no place for them at a stream, whose description names them."""
    _, told = models_json_schema([(model, "serialization") for model in _EVENTS], ref_template=f"{_SCHEMAS}{{model}}")
    for name, schema in told["$defs"].items():
        schemas.setdefault(name, schema)


def _plain(schema: Any) -> Any:
    """A schema without what only Kubernetes reads."""
    if isinstance(schema, list):
        return [_plain(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    return {key: _plain(part) for key, part in schema.items() if not key.startswith("x-kubernetes-")}


def _main(arguments: list[str]) -> int:
    if len(arguments) != 1:
        print("usage: python -m chandlery.console.api.openapi FILE", file=sys.stderr)
        return 2
    from chandlery.console.api.app import described_app

    Path(arguments[0]).write_text(text_of(described_app().openapi()), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
