"""The running local instance, as other commands see it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec

from chandlery.cli.endpoint import Endpoint
from chandlery.cli.runtime.statedir import RunRecord, StateDir
from chandlery.console.model import ProcessRow, View, decode_view
from chandlery.core.errors import InputError, UnavailableError


async def fetch_view(record: RunRecord) -> View:
    """The instance's view.

    Raises:
        UnavailableError: it doesn't answer.
    """
    async with Endpoint(Path(record.api)) as endpoint:
        body = await endpoint.get("/v1/view")
    try:
        return decode_view(body)
    except msgspec.DecodeError as error:
        raise UnavailableError(f"the instance (pid {record.pid}) is of another version: {error}") from error


def current_view(state: Path) -> View:
    """View of the instance over a state folder.

    Raises:
        UnavailableError: none runs, or it doesn't answer.
    """
    return asyncio.run(fetch_view(StateDir(state).read_run()))


def feed_process(view: View, worker: str | None) -> ProcessRow:
    """The feed process of a worker; of the only one when none is named.

    Raises:
        InputError: no such worker, or several and none named.
    """
    feeds = {row.name.removeprefix("feed-"): row for row in view.processes if row.name.startswith("feed-")}
    if worker is None and len(feeds) == 1:
        return next(iter(feeds.values()))
    if worker in feeds:
        return feeds[worker]
    names = ", ".join(sorted(feeds)) or "none"
    asked = f"no worker {worker!r}" if worker else "several workers"
    raise InputError(f"{asked}: name one of: {names}")


def ask_process(row: ProcessRow, path: str) -> bytes:
    """One GET of a process's API."""

    async def ask() -> bytes:
        async with Endpoint(Path(row.socket)) as endpoint:
            return await endpoint.get(path)

    return asyncio.run(ask())
