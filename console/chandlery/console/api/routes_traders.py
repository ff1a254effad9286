"""One Trader: look at it, make it, change it, suspend it, remove it."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Header, Response

from chandlery.console.api.bodies import JsonRoute
from chandlery.console.api.declared import problems
from chandlery.console.api.fields import Label
from chandlery.console.api.manifests import checked_trader, told_with_values
from chandlery.console.api.models import Manifest, Suspension, TraderDetail
from chandlery.console.api.services import Services, services_of

router = APIRouter(tags=["traders"], route_class=JsonRoute)
Served = Annotated[Services, Depends(services_of)]
IfMatch = Annotated[
    str | None,
    Header(
        max_length=256,
        pattern=r'^(\*|"[A-Za-z0-9_.:-]+"|[A-Za-z0-9_.:-]+)$',
        description="`resource_version` of the Trader that the edit was made on; absent or `*`: whatever stands there.",
    ),
]


@router.get("/traders/{namespace}/{name}", operation_id="getTrader", responses=problems(404, 503))
async def get_trader(services: Served, namespace: Label, name: Label, response: Response) -> TraderDetail:
    """One Trader, live, with its manifest."""
    return _tagged(await services.trader(namespace, name), response)


@router.post("/traders", operation_id="createTrader", status_code=201, responses=problems(400, 409, 413, 415, 503))
async def create_trader(services: Served, given: Manifest, response: Response) -> TraderDetail:
    """Make a Trader."""
    services.must_be_writable()
    manifest = checked_trader(given)
    with told_with_values(manifest):
        written = await services.backend.create(manifest)
    namespace, name = manifest["metadata"]["namespace"], manifest["metadata"]["name"]
    response.headers["Location"] = f"/api/v1/traders/{namespace}/{name}"
    return _tagged(services.detail(namespace, name, written), response)


@router.put(
    "/traders/{namespace}/{name}", operation_id="replaceTrader", responses=problems(400, 404, 409, 413, 415, 503)
)
async def replace_trader(
    services: Served, namespace: Label, name: Label, given: Manifest, response: Response, if_match: IfMatch = None
) -> TraderDetail:
    """Change a Trader's spec; with `If-Match` only if nobody else changed it meanwhile."""
    services.must_be_writable()
    manifest = checked_trader(given, namespace, name)
    version = (if_match or "").strip('"')
    with told_with_values(manifest):
        written = await services.backend.replace(manifest, "" if version == "*" else version)
    return _tagged(services.detail(namespace, name, written), response)


@router.put(
    "/traders/{namespace}/{name}/suspend",
    operation_id="suspendTrader",
    responses=problems(400, 404, 409, 413, 415, 503),
)
async def suspend_trader(
    services: Served, namespace: Label, name: Label, given: Suspension, response: Response
) -> TraderDetail:
    """Let a Trader decide nothing more, keeping its place; or let it go on."""
    services.must_be_writable()
    written = await services.backend.suspend(namespace, name, suspend=given.suspend)
    return _tagged(services.detail(namespace, name, written), response)


@router.delete(
    "/traders/{namespace}/{name}", operation_id="deleteTrader", status_code=204, responses=problems(404, 409, 503)
)
async def delete_trader(services: Served, namespace: Label, name: Label) -> None:
    """Remove a Trader."""
    services.must_be_writable()
    await services.backend.delete(namespace, name)


def _tagged(detail: TraderDetail, response: Response) -> TraderDetail:
    if detail.resource_version:
        response.headers["ETag"] = f'"{detail.resource_version}"'
    return detail
