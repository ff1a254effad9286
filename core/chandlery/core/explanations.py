"""The validator's errors in words for a person: which field, what is wrong, what would be right."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, get_args

from pydantic import BaseModel

from chandlery.core.documents import Path, Value
from chandlery.core.resources.base import SENTENCE
from chandlery.core.resources.rules import DNS_LABEL_PATTERN
from chandlery.core.wording import did_you_mean, path_text, shown

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails


def explain(model: type[BaseModel], error: ErrorDetails, value: Value) -> tuple[Path, str]:
    """Say one validation error in words.

    Args:
        model: the resource's type.
        error: one of ``ValidationError.errors()``.
        value: what was validated, as read.

    Returns:
        The field's path as the manifest spells it, and one sentence.
    """
    path = _manifest_path(error["loc"], value)
    kind = error["type"]
    context: Mapping[str, Any] = error.get("ctx", {})
    if kind == SENTENCE:
        return path, str(context.get("text", error["msg"]))
    if kind == "missing":
        return path, f"is missing: {_described(model, path)}"
    if kind == "extra_forbidden":
        return path, _unknown_field(model, path)
    if kind in ("model_type", "model_attributes_type", "dict_type"):
        return path, _needs_fields(model, path, error["input"])
    say = _SAYINGS.get(kind)
    if say is not None:
        return path, f"{say(context)}, got {shown(error['input'])}{_hint(kind, context, error['input'])}"
    if kind == "string_pattern_mismatch":
        return path, f"{shown(error['input'])} won't do: {_pattern_in_words(model, path, context)}"
    return path, f"{error['msg']}, got {shown(error['input'])}"


_SAYINGS: Final[dict[str, Callable[[Mapping[str, Any]], str]]] = {
    "int_type": lambda _: "needs a whole number",
    "int_from_float": lambda _: "needs a whole number",
    "float_type": lambda _: "needs a number",
    "finite_number": lambda _: "needs a finite number",
    "bool_type": lambda _: "needs true or false",
    "string_type": lambda _: "needs text",
    "list_type": lambda _: "needs a list",
    "literal_error": lambda context: f"must be {str(context['expected']).replace(chr(39), '')}",
    "greater_than_equal": lambda context: f"must be at least {context['ge']}",
    "greater_than": lambda context: f"must be above {context['gt']}",
    "less_than_equal": lambda context: f"must be at most {context['le']}",
    "less_than": lambda context: f"must be below {context['lt']}",
    "too_short": lambda context: f"needs at least {context['min_length']} entries".replace("1 entries", "one entry"),
    "too_long": lambda context: f"may have at most {context['max_length']} entries",
    "string_too_short": lambda _: "needs some text",
    "string_too_long": lambda context: f"may have at most {context['max_length']} characters",
}


def _hint(kind: str, context: Mapping[str, Any], value: object) -> str:
    if kind == "string_type" and isinstance(value, bool | int | float):
        return ": put it in quotes"
    if kind == "literal_error" and isinstance(value, str):
        choices = str(context["expected"]).replace(" or ", ", ").replace("'", "").split(", ")
        return did_you_mean(value, choices)
    return ""


def _manifest_path(location: tuple[int | str, ...], value: Value) -> Path:
    """The location without the names of union members, which no manifest has."""
    path: list[str | int] = []
    here: Value = value
    for index, part in enumerate(location):
        last = index == len(location) - 1
        if isinstance(here, dict) and isinstance(part, str) and (part in here or last):
            path.append(part)
            here = here.get(part)
        elif isinstance(here, list) and isinstance(part, int) and part < len(here):
            path.append(part)
            here = here[part]
    return tuple(path)


def _unknown_field(model: type[BaseModel], path: Path) -> str:
    word = str(path[-1])
    owner = _model_at(model, path[:-1])
    known = _aliases(owner) if owner else []
    near = did_you_mean(word, known)
    if near:
        return f"unknown field{near}"
    elsewhere = sorted(_homes(model, word, ()), key=len)
    if elsewhere and elsewhere[0] and (len(elsewhere) == 1 or len(elsewhere[0]) < len(elsewhere[1])):
        return f"unknown field here; it belongs to {path_text(elsewhere[0])}"
    return f"unknown field; known here: {', '.join(known)}" if known else "unknown field"


def _needs_fields(model: type[BaseModel], path: Path, value: object) -> str:
    inner = _model_at(model, path)
    names = f" with the fields {', '.join(_aliases(inner))}" if inner else ""
    return f"needs an object{names}, got {shown(value)}"


def _described(model: type[BaseModel], path: Path) -> str:
    owner = _model_at(model, path[:-1])
    for name, field in owner.model_fields.items() if owner else ():
        if (field.alias or name) == path[-1] and field.description:
            return field.description
    return "it is required"


def _pattern_in_words(model: type[BaseModel], path: Path, context: Mapping[str, Any]) -> str:
    if context.get("pattern") == DNS_LABEL_PATTERN:
        return "lower-case letters, digits and '-', with a letter or digit at both ends, at most 63"
    return _described(model, path)


def _aliases(model: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items()]


def _models_in(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
        return
    for part in get_args(annotation):
        yield from _models_in(part)


def _model_at(model: type[BaseModel], path: Path) -> type[BaseModel] | None:
    here: type[BaseModel] | None = model
    for part in path:
        if isinstance(part, int):
            continue
        if here is None:
            return None
        fields = {field.alias or name: field.annotation for name, field in here.model_fields.items()}
        here = next(_models_in(fields.get(part)), None)
    return here


def _homes(model: type[BaseModel], word: str, path: Path) -> Iterator[Path]:
    """Where in the resource a field of this name does belong."""
    for name, field in model.model_fields.items():
        alias = field.alias or name
        if alias == word:
            yield path
        for inner in _models_in(field.annotation):
            yield from _homes(inner, word, (*path, alias))
