"""Traders in requests, checked as ``kubectl apply`` and ``chandlery validate`` check them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from pydantic import ValidationError

from chandlery.console.api.models import Manifest
from chandlery.console.api.problems import ProblemError, problem, problem_of
from chandlery.core.errors import InputError
from chandlery.core.explanations import explain
from chandlery.core.resources import DEFAULT_NAMESPACE, Trader
from chandlery.core.wording import path_text, shown

#: Of a Trader's metadata, what a person writes. Owners, finalizers and the like are the cluster's own.
_WRITTEN: Final = ("name", "namespace", "labels", "annotations")
_MOST_TOLD: Final = 8
#: Nine digits: more are no index of anything, and int() has a limit of its own.
_INDEX: Final = re.compile(r"\[([0-9]{1,9})\]")


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


@contextmanager
def told_with_values(manifest: dict[str, Any]) -> Iterator[None]:
    """What a backend refuses of a manifest by its field is told with the value that stands there.

    Raises:
        InputError: as the body raised it, but for that ``value`` of one that names a field.
    """
    try:
        yield
    except InputError as error:
        if field := getattr(error, "field", ""):
            told = problem_of(error)
            value = _at(manifest, _path_of(manifest, field))
            raise ProblemError(problem(told.status, told.reason, told.detail, field=field, value=value)) from error
        raise


def _path_of(manifest: object, field: str) -> tuple[str | int, ...]:
    """The path that ``field`` spells, such as ``spec.market.symbols[0]``; a key may have dots itself."""
    here: Any = manifest
    path: list[str | int] = []
    while field:
        index = _INDEX.match(field)
        if index is not None:
            key: str | int = int(index[1])
            field = field[index.end() :]
        else:
            known = here if isinstance(here, dict) else {}
            spelt = [
                name for name in known if isinstance(name, str) and re.match(f"{re.escape(name)}(?=[.[]|$)", field)
            ]
            key = max(spelt, key=len, default=re.split(r"[.[]", field)[0])
            field = field[len(key) :]
        field = field.removeprefix(".")
        path.append(key)
        here = _at(here, (key,))
        if not key and key != 0:
            break
    return tuple(path)


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
