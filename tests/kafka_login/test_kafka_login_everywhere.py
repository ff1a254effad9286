"""No way to Kafka goes past the login."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
_MADE = re.compile(r"\bAIOKafka(?:Consumer|Producer|AdminClient|Client)\(|\bopen_connection\(host")
#: The embedded broker's own readiness: its plain listener on this machine.
_PLAIN = {"stream/chandlery/stream/broker_ready.py"}


def test_every_client_is_made_by_kafka_client() -> None:
    found = {
        str(file.relative_to(ROOT))
        for source in ("core", "stream", "workers", "operator", "console", "cli")
        for file in (ROOT / source).rglob("*.py")
        if _MADE.search(file.read_text(encoding="utf-8"))
    }
    assert found == _PLAIN
