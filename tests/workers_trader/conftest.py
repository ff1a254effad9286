"""The stage on which traders are turned by hand: a segment and a ring in the test's own folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.workers_trader.trader_stage import Stage, Tell


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    """A stage; what happens meanwhile in calls ends with the test."""
    made = Stage(tmp_path)
    yield made
    Tell.meanwhile = None
    made.writer.close()
