"""Whether an object of the API server still is what a manifest says. Pure.

The API server fills in defaults and writes amounts in its own way, so what stands there has more fields than was
applied. A difference found where there is none costs one write that changes nothing; one not found would stay.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from chandlery.core.errors import InputError
from chandlery.core.quantities import parse_quantity

#: What identifies an object stands in its metadata as well; these say how it shall be.
_META: Final = ("labels", "annotations")
_OURS: Final = frozenset({"metadata", "apiVersion", "kind"})


def covers(there: Mapping[str, Any], manifest: Mapping[str, Any]) -> bool:
    """Whether everything that the manifest says stands in the object; what else stands there doesn't matter."""
    meta, wanted = there["metadata"], manifest["metadata"]
    return all(_has(meta.get(name), wanted.get(name)) for name in _META) and all(
        _has(there.get(name), value) for name, value in manifest.items() if name not in _OURS
    )


def _has(there: Any, wanted: Any) -> bool:
    if wanted is None or wanted in ({}, [], "", 0):  # False among them: the API server leaves such fields out
        return not there
    if isinstance(wanted, Mapping):
        return isinstance(there, Mapping) and all(_has(there.get(name), value) for name, value in wanted.items())
    if isinstance(wanted, Sequence) and not isinstance(wanted, str):
        return _has_all(there, wanted)
    return bool(there == wanted) or _same_amount(there, wanted)


def _has_all(there: Any, wanted: Sequence[Any]) -> bool:
    if not isinstance(there, list):
        return False
    if all(isinstance(item, Mapping) and "name" in item for item in [*there, *wanted]):
        named = {item["name"]: item for item in there}  # what others added beside ours stays theirs
        return all(item["name"] in named and _has(named[item["name"]], item) for item in wanted)
    return len(there) == len(wanted) and all(_has(*pair) for pair in zip(there, wanted, strict=True))


def _same_amount(there: Any, wanted: Any) -> bool:
    if not (isinstance(there, str) and isinstance(wanted, str)):
        return False
    try:
        return parse_quantity(there) == parse_quantity(wanted)
    except InputError:
        return False
