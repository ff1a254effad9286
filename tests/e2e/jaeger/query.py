"""Traces as Jaeger's query API tells them: in OpenTelemetry's form, and in the form that its pages are drawn from."""

from __future__ import annotations

import json
from typing import Any, Final

import aiohttp
from tests.e2e.jaeger.server import MOST_TRACES
from tests.support.otlp_receiver import Seen

#: As OTLP numbers them.
_KINDS: Final = (
    "SPAN_KIND_UNSPECIFIED",
    "SPAN_KIND_INTERNAL",
    "SPAN_KIND_SERVER",
    "SPAN_KIND_CLIENT",
    "SPAN_KIND_PRODUCER",
    "SPAN_KIND_CONSUMER",
)
_EVER: Final = {"query.start_time_min": "2000-01-01T00:00:00Z", "query.start_time_max": "2100-01-01T00:00:00Z"}


class Query:
    """A client of it; use it in ``async with``.

    Args:
        base: its URL.
    """

    def __init__(self, base: str) -> None:
        self._http = aiohttp.ClientSession(base)

    async def __aenter__(self) -> Query:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.close()

    async def services(self) -> set[str]:
        """Names of all services that it has spans of."""
        return set((await self._get("/api/v3/services"))["services"])

    async def trace(self, trace_id: str) -> list[Seen]:
        """One trace by its id; empty where there is none."""
        return _spans(await self._get(f"/api/v3/traces/{trace_id}"))

    async def found(self, service: str) -> set[str]:
        """Ids of all traces that a service has a span in."""
        asked = {**_EVER, "query.service_name": service, "query.num_traces": str(MOST_TRACES)}
        return {span.trace_id for span in _spans(await self._get("/api/v3/traces", asked))}

    async def drawn(self, service: str, tags: dict[str, str]) -> dict[str, list[dict[str, Any]]]:
        """By trace id the spans that Jaeger's pages would draw: times in whole µs, parents and links as references.

        Args:
            tags: attributes that one of the service's spans must have.
        """
        asked = {"service": service, "tags": json.dumps(tags), "limit": str(MOST_TRACES)}
        answer = await self._get("/api/traces", asked)
        return {trace["traceID"]: trace["spans"] for trace in answer["data"]}

    async def _get(self, path: str, asked: dict[str, str] | None = None) -> Any:
        async with self._http.get(path, params=asked) as answer:
            if answer.status == 404:
                return {}
            answer.raise_for_status()
            return await answer.json(content_type=None)


def _spans(answer: dict[str, Any]) -> list[Seen]:
    found = []
    for by_resource in answer.get("result", {}).get("resourceSpans", []):
        resource = _plain(by_resource["resource"]["attributes"])
        for by_scope in by_resource["scopeSpans"]:
            assert by_scope["scope"]["name"] == "chandlery"
            found += [_span(span, resource) for span in by_scope["spans"]]
    return found


def _span(span: dict[str, Any], resource: dict[str, Any]) -> Seen:
    return Seen(
        span["name"],
        _KINDS[span["kind"]],
        span["traceId"],
        span["spanId"],
        span.get("parentSpanId", ""),
        int(span["startTimeUnixNano"]),
        int(span["endTimeUnixNano"]),
        _plain(span.get("attributes", [])),
        resource,
        [(link["traceId"], link["spanId"], _plain(link.get("attributes", []))) for link in span.get("links", [])],
    )


def _plain(pairs: list[dict[str, Any]]) -> dict[str, Any]:
    """Attributes as plain values; each is an object with one key, which names its type."""
    found: dict[str, Any] = {}
    for pair in pairs:
        ((kind, value),) = pair["value"].items()
        found[pair["key"]] = int(value) if kind == "intValue" else float(value) if kind == "doubleValue" else value
    assert len(found) == len(pairs), "an attribute's name stands once"
    return found
