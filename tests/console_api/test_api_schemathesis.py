"""The app keeps its word: whatever its description allows or forbids is asked, in process, from a fixed seed.

Streams are left out: their answers never end. Their refusals are held by test_api_streams.py.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.specs.openapi.checks import positive_data_acceptance
from tests.console_api.lively import World

from chandlery.console.api.app import create_app
from chandlery.console.settings import ConsoleSettings

TOKEN = "t0ken"
#: No schema says that an interval divides a day, a symbol ends in a known quote, a cursor is one that was given out.
BEYOND_A_SCHEMA = {
    "createTrader",
    "replaceTrader",
    "listCandles",
    "listSignals",
    "listTraders",
    "listPools",
    "listFeeds",
}
_folder = tempfile.TemporaryDirectory()
_file = Path(_folder.name, "token")
_file.write_text(TOKEN)
_world = World()
_app = create_app(
    ConsoleSettings(listen="0.0.0.0:0", token_file=str(_file)), _world.backend, _world.signals, _world.market
)
schema = schemathesis.openapi.from_asgi(
    "/api/v1/openapi.json", _app, headers={"Authorization": f"Bearer {TOKEN}"}
).exclude(path_regex="/stream$|/live$")


@schema.hook
def filter_query(_context: Any, query: dict[str, Any] | None) -> bool:
    """An empty list or object has no place in a query string: what is wrong by it alone would be sent as right."""
    return all(value not in ([], {}, None) for value in (query or {}).values())


@schema.parametrize()
@settings(
    max_examples=15,
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_what_the_description_says_is_so(case: schemathesis.Case[Any]) -> None:
    left_out: list[Any] = (
        [positive_data_acceptance] if case.operation.definition.raw["operationId"] in BEYOND_A_SCHEMA else []
    )
    case.call_and_validate(headers={"Authorization": f"Bearer {TOKEN}"}, excluded_checks=left_out)
