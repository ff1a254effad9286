"""One line a fact, in pods and on a terminal."""

from __future__ import annotations

import json
import logging

import pytest

from chandlery.core.logs import JsonFormatter, TerminalFormatter


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        ("no broker\nat b:9092\r\n", "no broker\\nat b:9092\\r\\n"),
        ("\x1b[31mred\x85", "\\x1b[31mred\\x85"),
        ("a\u2028b", "a\\u2028b"),
        ("ä b\\c", "ä b\\c"),
    ],
)
def test_what_others_said_stays_on_one_line_and_moves_no_cursor(words: str, shown: str) -> None:
    record = logging.makeLogRecord({"msg": "given up: %s", "args": (words,), "levelno": logging.INFO, "error": words})
    (line,) = TerminalFormatter("feed").format(record).splitlines()
    assert line.endswith(f" feed  given up: {shown}  error={shown}")
    (line,) = JsonFormatter("feed").format(record).split("\n")
    assert json.loads(line)["error"] == words
