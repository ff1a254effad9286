"""A ``chandlery up`` over real input: an exchange that plays the captures, the run beside it, and its end."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from chandlery.cli.endpoint import Endpoint
from chandlery.cli.instance import fetch_view
from chandlery.cli.runtime.statedir import StateDir
from chandlery.console.model import View
from chandlery.console.summary import Summary, decode_summary
from chandlery.core.errors import ChandleryError

#: Start 4 s, a played capture 15 s, end 3 s; six times that on a machine under load.
DEADLINE_S: Final = 120.0
Seen = TypeVar("Seen")
_POLL_S: Final = 0.1


class Run:
    """One ``chandlery up``, from its start to its summary."""

    def __init__(self, process: asyncio.subprocess.Process, state: Path, errors: Path) -> None:
        self._process = process
        #: The state folder, by which other commands find the run.
        self.state = state
        self._errors = errors

    @property
    def said(self) -> str:
        """What it wrote on stderr, for messages of failed tests."""
        return self._errors.read_text(encoding="utf-8", errors="replace")[-4_000:]

    async def running(self) -> View:
        """Wait until it runs: everything is started, the traders are Ready or had their time."""

        async def look() -> View | None:
            view = await fetch_view(StateDir(self.state).read_run())
            return view if view.phase == "running" else None

        return await self.until(look, "it runs")

    async def status_of(self, name: str) -> dict[str, Any]:
        """Status of one of its processes."""
        view = await fetch_view(StateDir(self.state).read_run())
        socket = next(row.socket for row in view.processes if row.name == name)
        async with Endpoint(Path(socket)) as endpoint:
            return msgspec.json.decode(await endpoint.get("/v1/status"), type=dict[str, Any])

    async def until(self, look: Callable[[], Awaitable[Seen | None]], what: str) -> Seen:
        """Poll until ``look`` gives something; what doesn't answer yet is asked again."""
        deadline = time.monotonic() + DEADLINE_S
        trouble = ""
        while time.monotonic() < deadline:
            assert self._process.returncode is None, f"ended with {self._process.returncode}: {self.said}"
            try:
                found = await look()
            except ChandleryError as error:
                trouble = str(error)
            else:
                if found is not None:
                    return found
            await asyncio.sleep(_POLL_S)
        raise AssertionError(f"not within {DEADLINE_S:.0f} s: {what}; {trouble}; it said:\n{self.said}")

    async def end(self) -> Summary:
        """Ctrl-C; its summary."""
        self._process.send_signal(signal.SIGINT)
        return await self.ended()

    async def ended(self) -> Summary:
        """Wait until it has ended by itself, well; its summary."""
        output, _ = await asyncio.wait_for(self._process.communicate(), DEADLINE_S)
        assert self._process.returncode == 0, f"exit code {self._process.returncode}: {output!r}\n{self.said}"
        return decode_summary(output)


@asynccontextmanager
async def up(folder: Path, manifests: Path, kafka: str, *options: str) -> AsyncIterator[Run]:
    """Start one; it is gone afterwards, whatever happened."""
    state, errors = folder / "state", folder / "up.err"
    words = ["-m", "chandlery.cli", "up", "-f", str(manifests), "--state", str(state), "--kafka", kafka, "--json"]
    words += ["--console", "off"]
    with errors.open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable, *words, "--no-view", *options, stdout=asyncio.subprocess.PIPE, stderr=log
        )
    try:
        yield Run(process, state, errors)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
