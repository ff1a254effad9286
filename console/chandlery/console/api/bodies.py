"""Bodies of requests: JSON by its content type, which a form of another site can't send, and no longer than meant."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.datastructures import Headers

from chandlery.console.api.problems import MOST_BODY_BYTES, ProblemError, problem, too_long


class JsonRoute(APIRoute):
    """A route that looks at what a body says of itself before it is read."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler behind that look."""
        handle = super().get_route_handler()
        if self.body_field is None:
            return handle

        async def looked_at(request: Request) -> Response:
            must_be_json(request.headers)
            return await handle(request)

        return looked_at


def must_be_json(headers: Headers) -> None:
    """What the headers say of the body.

    Raises:
        ProblemError: 415, another type; 413, too long (a body that doesn't say so is stopped by the guard).
    """
    content_type = headers.get("content-type", "")
    if content_type.partition(";")[0].strip().lower() != "application/json":
        detail = "send the body as Content-Type: application/json"
        raise ProblemError(problem(415, "NotJson", detail, field="Content-Type", value=content_type))
    length = headers.get("content-length", "0")
    if length.isdigit() and int(length) > MOST_BODY_BYTES:
        raise ProblemError(too_long())
