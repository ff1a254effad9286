"""The console's own files at ``/``: no build step, offline, under a strict policy."""

from __future__ import annotations

import mimetypes
from pathlib import Path
from typing import Final

from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Receive, Scope, Send

from chandlery.console.api.guard import API_PREFIX, FILES_ROUTE, ROUTE_KEY

FOLDER: Final = Path(__file__).resolve().parent.parent / "static"
#: Nothing is loaded from elsewhere, no script stands in a page. Charts set styles on their elements.
POLICY: Final = (
    "default-src 'self'; style-src 'self' 'unsafe-inline'; object-src 'none'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)

# What a machine's own table says of these may be anything, and a module of another type isn't run.
for _suffix, _type in ((".js", "text/javascript"), (".mjs", "text/javascript"), (".css", "text/css")):
    mimetypes.add_type(_type, _suffix)


class Pages:
    """Serves the files of a folder. A browser keeps them and asks each time whether they changed (ETag)."""

    def __init__(self, folder: Path = FOLDER) -> None:
        self._files = StaticFiles(directory=folder, html=True, check_dir=False)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; raises HTTPException where there is no such file."""
        path: str = scope["path"]
        if path.startswith(API_PREFIX) or "/." in path:
            raise HTTPException(404)
        scope[ROUTE_KEY] = FILES_ROUTE
        relative = self._files.get_path({**scope, "root_path": ""})
        found: Response = await self._files.get_response(relative, {**scope, "root_path": ""})
        found.headers["Cache-Control"] = "no-cache"
        found.headers["Content-Security-Policy"] = POLICY
        await found(scope, receive, send)
