"""docs/resources.md lists every field of the resources, with its default, as the types have it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from chandlery.core.resources import KINDS, Resource
from chandlery.core.resources.trader import Signals

PAGE = Path(__file__).parents[2] / "docs" / "resources.md"


def _target(field: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any] | None:
    """The object that a field holds (itself, in a list, or unless absent), if any."""
    for one in [field, field.get("items", {}), *field.get("anyOf", []), *field.get("items", {}).get("anyOf", [])]:
        if "$ref" in one:
            target: dict[str, Any] = definitions[one["$ref"].rpartition("/")[2]]
            return target
    return None


def rows(schema: dict[str, Any], definitions: dict[str, Any], path: str) -> Iterator[str]:
    """A table row for each field below ``spec``."""
    for name, field in schema["properties"].items():
        here = f"{path}.{name}"
        target = _target(field, definitions)
        listed = "[]" if field.get("type") == "array" else ""
        if name in schema.get("required", []):
            default = "required"
        elif target is not None and not listed:
            default = ""
        else:
            value = field.get("default")
            default = "" if value is None else f"`{value if isinstance(value, str) else json.dumps(value)}`"
        meaning = field.get("description") or (target or {}).get("description", "")
        yield f"| `{here}` | {default} | {meaning} |"
        if target is not None and "properties" in target:
            yield from rows(target, definitions, here + listed)


def expected(kind: type[Resource]) -> list[str]:
    schema = kind.model_json_schema(mode="serialization")
    definitions = schema["$defs"]
    return list(rows(definitions[f"{kind.KIND}Spec"], definitions, "spec"))


@pytest.mark.parametrize("kind", KINDS.values())
def test_the_page_has_every_field_of(kind: type[Resource]) -> None:
    section = PAGE.read_text(encoding="utf-8").partition(f"\n## {kind.KIND}\n")[2].partition("\n## ")[0]
    found = [line for line in section.splitlines() if line.startswith("| `")]
    wanted = expected(kind)
    assert found == wanted, "write into the table of docs/resources.md:\n" + "\n".join(wanted)


def test_the_time_to_live_is_described_by_the_two_clocks_that_it_counts_by() -> None:
    """Market time for candles (workers/trader/loop.py compares open times), the wall clock for signals (signal_life.py)."""
    field = Signals.model_fields["ttl"]
    candles, _, signals = (field.description or "").partition(";")
    assert "market time" in candles
    assert "behind the newest one of its series" in candles
    assert "by the clock" in signals
