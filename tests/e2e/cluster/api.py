"""The few requests to the API server by which a start is followed."""

from __future__ import annotations

import json
import ssl
import time
import urllib.request
from collections.abc import Callable
from typing import Any, Final

from tests.e2e.cluster.commands import ClusterError
from tests.e2e.cluster.plan import Plan

_REQUEST_TIMEOUT_S: Final = 5.0
# A start takes 4 to 5 s on two quiet cores; beside a build at full load it has taken 40 s.
_START_DEADLINE_S: Final = 120.0
_POLL_S: Final = 0.05


class Api:
    """The API server of one cluster, as its administrator."""

    def __init__(self, plan: Plan) -> None:
        self._server = plan.server
        self._context = ssl.create_default_context(cafile=plan.certificates / "ca.crt")
        self._context.load_cert_chain(plan.certificates / "admin.crt", plan.certificates / "admin.key")

    def request(self, path: str, body: dict[str, Any] | None = None) -> bytes:
        """GET a path, or POST a JSON body to it.

        Raises:
            OSError: no answer, or one that isn't 2xx (``urllib.error.HTTPError``).
        """
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._server + path, data, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, context=self._context, timeout=_REQUEST_TIMEOUT_S) as answer:
            content: bytes = answer.read()
            return content

    def wait(self, what: str, path: str, holds: Callable[[bytes], bool] = lambda answer: True) -> None:
        """GET a path until the answer fulfils ``holds``."""
        deadline = time.monotonic() + _START_DEADLINE_S
        last: object = "no answer"
        while True:
            try:
                answer = self.request(path)
            except OSError as error:
                last = error
            else:
                if holds(answer):
                    return
                last = answer[:500].decode(errors="replace")
            if time.monotonic() > deadline:
                raise ClusterError(f"{what}: not within {_START_DEADLINE_S:.0f} s: {last}")
            time.sleep(_POLL_S)
