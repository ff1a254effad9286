"""What routes declare of their errors, for OpenAPI."""

from __future__ import annotations

from typing import Any, Final

from chandlery.console.api.models import Problem

_MEANINGS: Final = {
    400: "The body is no JSON.",
    401: "The token is missing or another.",
    403: "Not from here (Host, Origin), or nothing may be changed.",
    404: "There is no such thing.",
    409: "It exists already, or somebody else changed it meanwhile.",
    413: "The body is too long.",
    415: "The body is not `application/json`.",
    422: "A field of the request is wrong; `field` names it.",
    500: "A defect of Chandlery.",
    503: "Who would know doesn't answer, or too many streams are open; try again after `Retry-After` seconds.",
}

Responses = dict[int | str, dict[str, Any]]


def problems(*more: int) -> Responses:
    """The errors that any request may get, and those of one route."""
    return {
        status: {"model": Problem, "description": _MEANINGS[status]} for status in sorted({401, 403, 422, 500, *more})
    }


def stream(*more: int, events: str) -> Responses:
    """A stream of server-sent events."""
    answer = {"description": events, "content": {"text/event-stream": {"schema": {"type": "string"}}}}
    return {200: answer, **problems(503, *more)}
