"""What a strategy prints stands in the log with its Trader's name, line by line, whatever the level."""

from __future__ import annotations

import io
import json
import logging
import sys

import pytest

from chandlery.core.logs import JsonFormatter
from chandlery.workers.trader.printing import printing_to


@pytest.fixture
def log() -> tuple[logging.Logger, io.StringIO]:
    """A logger as a trader process has it, at a level that leaves infos out."""
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(JsonFormatter("trader desk/a"))
    logger = logging.Logger("chandlery", logging.ERROR)
    logger.addHandler(handler)
    return logger, written


def lines(written: io.StringIO) -> list[tuple[str, str, str]]:
    records = map(json.loads, written.getvalue().splitlines())
    return [(record["component"], record["printed"], record["message"]) for record in records]


def test_each_printed_line_names_its_trader_and_its_stream(log: tuple[logging.Logger, io.StringIO]) -> None:
    logger, written = log
    before = sys.stdout, sys.stderr
    with printing_to(logger):
        print("one", 2)
        print("two\nthree", file=sys.stderr)
        print("begun and", end=" ")
        print("ended")
        print("never ended", end="")
    assert lines(written) == [
        ("trader desk/a", "stdout", "one 2"),
        ("trader desk/a", "stderr", "two"),
        ("trader desk/a", "stderr", "three"),
        ("trader desk/a", "stdout", "begun and ended"),
        ("trader desk/a", "stdout", "never ended"),
    ]
    assert (sys.stdout, sys.stderr) == before


def test_what_never_ends_its_line_is_told_in_pieces(log: tuple[logging.Logger, io.StringIO]) -> None:
    logger, written = log
    with printing_to(logger):
        for _ in range(100):
            print("x" * 1_000, end="")
    told = [message for _, _, message in lines(written)]
    assert "".join(told) == "x" * 100_000
    assert max(map(len, told)) <= 8_192


def test_what_was_begun_before_a_crash_is_told(log: tuple[logging.Logger, io.StringIO]) -> None:
    logger, written = log

    def ends() -> None:
        with printing_to(logger):
            print("last words", end="")
            sys.exit(3)

    with pytest.raises(SystemExit):
        ends()
    assert lines(written) == [("trader desk/a", "stdout", "last words")]
