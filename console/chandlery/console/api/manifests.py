"""Traders in requests, checked as ``kubectl apply`` and ``chandlery validate`` check them."""

from __future__ import annotations

import json
from typing import Any, Final

from pydantic import ValidationError

from chandlery.console.api.models import Manifest
from chandlery.console.api.problems import ProblemError, problem
from chandlery.core.explanations import explain
from chandlery.core.resources import DEFAULT_NAMESPACE, Trader
from chandlery.core.wording import path_text, shown

#: Of a Trader's metadata, what a person writes. Owners, finalizers and the like are the cluster's own.
_WRITTEN: Final = ("name", "namespace", "labels", "annotations")
_MOST_TOLD: Final = 8


def checked_trader(given: Manifest, namespace: str = "", name: str = "") -> dict[str, Any]:
    """A Trader's manifest as a backend takes it: what a person wrote, nothing that only a server says.

    Args:
        given: the body. namespace, name: of the request's address, which the manifest may not contradict.

    Raises:
        ProblemError: 422, names the first field that is wrong, and all of them in its sentence.
    """
    manifest = given.model_dump(by_alias=True)
    metadata = {key: value for key in _WRITTEN if (value := manifest["metadata"].get(key)) is not None}
    metadata.setdefault("namespace", namespace or DEFAULT_NAMESPACE)
    if name:
        metadata.setdefault("name", name)
    manifest["metadata"] = metadata
    _must_be_text(manifest)
    try:
        trader = Trader.model_validate(manifest)
    except ValidationError as error:
        found = [explain(Trader, one, manifest) for one in error.errors(include_url=False)]
        raise _wrong([(path_text(path), message, _at(manifest, path)) for path, message in found]) from error
    if name and trader.key != (namespace, name):
        field = "metadata.name" if trader.name != name else "metadata.namespace"
        raise _wrong([(field, f"the address says {namespace}/{name}, the manifest {trader.full_name}", trader.full_name)])  # fmt: skip
    return manifest


def _must_be_text(manifest: dict[str, Any]) -> None:
    """JSON can spell half a character (``"\\ud800"``), which no file or API server takes."""
    try:
        json.dumps(manifest, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        broken = error.object[max(0, error.start - 20) : error.start]
        raise _wrong([("body", f"has half a character (a lone surrogate) after {shown(broken)}", "")]) from error


def _at(manifest: object, path: tuple[str | int, ...]) -> object:
    here: Any = manifest
    for part in path:
        try:
            here = here[part]
        except (KeyError, IndexError, TypeError):
            return ""
    return here


def _wrong(found: list[tuple[str, str, object]]) -> ProblemError:
    told = [f"{field}: {message}" for field, message, _ in found[:_MOST_TOLD]]
    if len(found) > _MOST_TOLD:
        told.append(f"and {len(found) - _MOST_TOLD} more")
    field, _, value = found[0]
    return ProblemError(problem(422, "BadField", "; ".join(told), field=field, value=value))
