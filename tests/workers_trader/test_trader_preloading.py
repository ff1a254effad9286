"""What the fork server does once, so that no trader's memory pays for it."""

from __future__ import annotations

import subprocess
import sys

_LOOKS = """
import sys
from chandlery.core.logs import configure_logs
from chandlery.workers.trader.nursery import preload
preload()
from chandlery.workers.discovery import SHIPPED, find_strategy
seen = []
sys.addaudithook(lambda event, args: seen.append(args[0]) if event in ("open", "import", "compile") else None)
codes = [found.code(found.strategy()) for found in map(find_strategy, SHIPPED)]
configure_logs("trader desk/a")
print(len(codes), seen)
"""


def test_a_trader_that_is_forked_finds_shipped_strategies_and_its_log_without_reading_anything() -> None:
    run = subprocess.run([sys.executable, "-c", _LOOKS], capture_output=True, text=True, check=False, timeout=60)
    assert (run.stdout, run.stderr) == ("5 []\n", "")
