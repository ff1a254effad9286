"""Errors as answers: RFC 9457's ``application/problem+json``, whatever went wrong and wherever."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import compile_path

from chandlery.console.api.models import Problem
from chandlery.console.backend import ConflictError, NotFoundError, RefusedError
from chandlery.core.errors import ChandleryError, InputError, MachineError, UnavailableError
from chandlery.core.wording import shown

log = logging.getLogger("chandlery.console.api")

MEDIA_TYPE: Final = "application/problem+json"
#: Asked again earlier, what doesn't answer won't answer either, s.
RETRY_AFTER_S: Final = 2
#: Longest body, bytes: a Trader's manifest has a few hundred; 64 symbols and all parameters stay below 64 KiB.
MOST_BODY_BYTES: Final = 256 * 1024
#: Problems of one request that are told; the rest are counted.
_MOST_TOLD: Final = 8
_REASONS: Final = {400: "BadRequest", 404: "NotFound", 405: "MethodNotAllowed", 406: "NotAcceptable"}


class ProblemError(Exception):
    """Ends a request with a problem; ``headers`` go with it."""

    def __init__(self, problem: Problem, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(problem.detail)
        self.problem = problem
        self.headers = dict(headers or {})


def problem(status: int, reason: str, detail: str, *, field: str = "", value: object = None) -> Problem:
    """A problem with the status's own title; text that can't be sent (lone surrogates) is replaced."""
    return Problem(
        title=HTTPStatus(status).phrase,
        status=status,
        detail=sendable(detail),
        reason=reason,
        field=sendable(field),
        value=sendable("" if value is None else shown(value).strip('"')),
    )


def sendable(text: str) -> str:
    """Text as UTF-8 can carry it."""
    return text.encode("utf-8", "replace").decode()


def response(told: Problem, headers: Mapping[str, str] | None = None) -> Response:
    """A problem as a response."""
    return Response(told.model_dump_json(), status_code=told.status, media_type=MEDIA_TYPE, headers=dict(headers or {}))


def problem_of(error: Exception) -> Problem:
    """What an error is to a caller. One that is ours tells nothing of the inside: the log has it."""
    match error:
        case ProblemError():
            return error.problem
        case NotFoundError():
            return problem(404, "NotFound", str(error))
        case ConflictError():
            return problem(409, "Conflict", str(error))
        case RefusedError():
            return problem(403, "Refused", str(error))
        case InputError():
            return problem(422, "BadField", str(error), field=getattr(error, "field", ""))
        case UnavailableError():
            return problem(503, "Unavailable", str(error))
        case MachineError():
            return problem(503, "MachineLacks", str(error))
        case _:
            return problem(500, "Defect", "this is a defect of Chandlery; the log of the console's process says more")


def headers_of(told: Problem) -> dict[str, str]:
    """Headers that a problem's status asks for."""
    return {"Retry-After": str(RETRY_AFTER_S)} if told.status == 503 else {}


def too_long() -> Problem:
    """The body is longer than any that is meant."""
    return problem(413, "TooLong", f"the body may have at most {MOST_BODY_BYTES} bytes", field="body")


def invalid(errors: Sequence[Any]) -> Problem:
    """The validator's errors of one request: the first names the field, the sentence tells of all."""
    first = errors[0]
    if first["type"] == "json_invalid":
        why = first.get("ctx", {}).get("error", "")
        return problem(400, "BadJson", f"the body is no JSON: {why}", field="body")
    told = [f"{_field(error)}: {_sentence(error)}" for error in errors[:_MOST_TOLD]]
    if len(errors) > _MOST_TOLD:
        told.append(f"and {len(errors) - _MOST_TOLD} more")
    return problem(422, "BadField", "; ".join(told), field=_field(first), value=first.get("input"))


def _field(error: Any) -> str:
    """``limit`` of ``("query", "limit")``; ``spec.market`` of ``("body", "spec", "market")``."""
    where = [str(part) for part in error["loc"]]
    return ".".join(where[1:]) or ".".join(where)


def _sentence(error: Any) -> str:
    message = str(error["msg"]).removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    if error["type"] in ("missing", "extra_forbidden"):
        return {"missing": "is missing", "extra_forbidden": "is not known here"}[error["type"]]
    return f"{message}, got {shown(error.get('input'))}"


def answer_with_problems(app: FastAPI) -> None:
    """Make every error of an app a problem."""

    async def told(_: Request, error: Exception) -> Response:
        made = problem_of(error)
        headers = error.headers if isinstance(error, ProblemError) else headers_of(made)
        return response(made, headers)

    async def of_http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        if error.status_code == 413:
            return response(too_long())
        reason = _REASONS.get(error.status_code, HTTPStatus(error.status_code).phrase.replace(" ", ""))
        detail = {
            404: f"there is nothing at {request.url.path}",
            405: f"{request.method} can't be used on {request.url.path}",
        }.get(error.status_code, str(error.detail))
        headers = {"Allow": ", ".join(_methods(app, request.url.path))} if error.status_code == 405 else error.headers
        return response(problem(error.status_code, reason, detail), headers)

    async def of_validation(_: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return response(invalid(error.errors()))

    async def of_defect(request: Request, error: Exception) -> Response:
        log.error("a request failed", exc_info=error, extra={"method": request.method, "path": request.url.path})
        return response(problem_of(error))

    app.add_exception_handler(ProblemError, told)
    app.add_exception_handler(InputError, told)
    app.add_exception_handler(UnavailableError, told)
    app.add_exception_handler(MachineError, told)
    app.add_exception_handler(HTTPException, of_http)
    app.add_exception_handler(RequestValidationError, of_validation)
    app.add_exception_handler(ChandleryError, of_defect)


def _methods(app: FastAPI, path: str) -> list[str]:
    """All methods of an address: the framework names those of the first route alone. A file is only read."""
    for template, item in app.openapi()["paths"].items():
        if compile_path(template)[0].match(path):
            return sorted(method.upper() for method in item)
    return ["GET", "HEAD"]
