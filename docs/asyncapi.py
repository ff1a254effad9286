"""Writes docs/asyncapi.yaml, the description of the topics, from the types that encode them (core/wire.py, signals.py).

``python docs/asyncapi.py`` writes it; a test compares, so the page can't drift from the code.
"""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any, Final

import msgspec
import yaml

from chandlery.core import clocks, signals, wire

TARGET: Final = Path(__file__).with_name("asyncapi.yaml")

#: Topic suffix -> (what it carries, record types).
CHANNELS: Final[dict[str, tuple[str, tuple[type[msgspec.Struct], ...]]]] = {
    "trades": (
        "Trades, history and heartbeats of one feed, as ingest appends them; a session begins with an opening.",
        (wire.Opening, wire.BackfillRecord, wire.TradesRecord),
    ),
    "candles-live": ("Forming candles.", (wire.CandlesRecord,)),
    "candles-fast": ("Closed, revised and final candles of intervals below a minute.", (wire.CandlesRecord,)),
    "candles": ("Closed, revised and final candles of intervals of a minute and above.", (wire.CandlesRecord,)),
    "trades-late": ("Trades that came after their candle was final.", (wire.LateRecord,)),
    "dead-letters": ("Records that could not be decoded, with the reason.", (wire.DeadLetter,)),
    "signals": (
        "Signals, later the completion of each, and what the close of their candle says of those that were made while it "
        "was forming.",
        (signals.Signal, signals.Completion, signals.Life),
    ),
}

STAMPED: Final[dict[str, Any]] = {clocks.HEADER_NAME: {"type": "string", "format": "binary"}}
#: Headers of records that carry no stamps.
HEADERS: Final[dict[type[msgspec.Struct], dict[str, Any]]] = {
    signals.Signal: {signals.TRACE_HEADER: {"type": "string"}},
    signals.Completion: {},
    signals.Life: {},
    wire.LateRecord: {},
    wire.DeadLetter: {},
}


def document() -> dict[str, Any]:
    """The AsyncAPI 3.0 document."""
    types = list(dict.fromkeys(kind for _, kinds in CHANNELS.values() for kind in kinds))
    _, schemas = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
    messages = {
        kind.__name__: {
            "summary": (inspect.getdoc(kind) or "").split("\n", 1)[0],
            "contentType": "application/json",
            "payload": {"$ref": f"#/components/schemas/{kind.__name__}"},
            "headers": {"type": "object", "properties": HEADERS.get(kind, STAMPED)},
        }
        for kind in types
    }
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Chandlery topics",
            "version": "v1alpha1",
            "description": "JSON records keyed by symbol (UTF-8); topic timestamps are LogAppendTime, event times stand in "
            "the value. The header `stamps` is the binary form described in core/chandlery/core/clocks.py; "
            "`traceparent` is W3C's trace context.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "channels": {
            name: {
                "address": f"{{prefix}}{{feed}}.{name}",
                "description": text,
                "parameters": {"prefix": {"default": "chandlery."}, "feed": {"description": "name of the MarketFeed"}},
                "messages": {kind.__name__: {"$ref": f"#/components/messages/{kind.__name__}"} for kind in kinds},
            }
            for name, (text, kinds) in CHANNELS.items()
        },
        "components": {"messages": messages, "schemas": schemas},
    }


def text() -> str:
    """The document as YAML."""
    head = "# Made by docs/asyncapi.py from the types; don't edit.\n"
    return head + yaml.safe_dump(document(), sort_keys=False, allow_unicode=True, width=110)


if __name__ == "__main__":
    TARGET.write_text(text(), encoding="utf-8")
