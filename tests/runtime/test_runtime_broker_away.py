"""A whole run whose broker stays away until every signal ring is full: all reconnect, the rings drain, nothing is lost."""

from __future__ import annotations

import contextlib
import json
import signal
from pathlib import Path

import pytest
from tests.runtime.up_process import Up, kill_hard, until, write_manifests

from chandlery.console.model import TraderRow

pytestmark = [pytest.mark.broker, pytest.mark.slow, pytest.mark.timeout(400)]

TRADERS = [f"burst-{at}" for at in range(20)]
#: More than the 256 slots of a ring.
BURST = 300

#: Without a broker no candle comes, so nothing fills a ring: the decision that does has begun before.
STRATEGY = '''
import time
from pathlib import Path

from chandlery.workers.strategy import Strategy, parameter


class Burst(Strategy):
    """Buys once a candle; while there is a file "hold", waits in its call for the file "go" and then fills its ring."""

    name = "burst"
    folder: str = parameter("")
    who: str = parameter("")
    burst: int = parameter(1, ge=1)

    @property
    def warmup(self):
        return 1

    def on_candle(self, ctx, candles):
        folder = Path(self.folder)
        if not (folder / "hold").exists():
            ctx.buy(reason="another candle", rule="each")
            return
        (folder / self.who).touch()
        while not (folder / "go").exists():
            time.sleep(0.02)
        for at in range(self.burst):
            ctx.buy(reason="one of many", rule=f"burst-{at}")
'''


def burster(name: str, folder: Path) -> str:
    parameters = json.dumps({"folder": str(folder), "who": name, "burst": BURST})
    return f"""
apiVersion: chandlery.dev/v1alpha1
kind: Trader
metadata: {{name: {name}}}
spec:
  pool: {{name: demo}}
  strategy: {{name: burst, parameters: {parameters}}}
  market: {{symbols: [BTC/USDT], interval: 1s}}
  signals: {{ttl: 10m}}
"""


def rows(up: Up) -> list[TraderRow]:
    view = up.view()
    return view.traders if view is not None else []


def states(up: Up) -> set[str]:
    return {row.state for row in rows(up)}


def test_with_the_broker_away_every_ring_fills_and_with_it_back_every_signal_is_published(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    gate.mkdir()
    (tmp_path / "strategies").mkdir()
    (tmp_path / "strategies" / "burst.py").write_text(STRATEGY)
    manifests = write_manifests(tmp_path / "m", **{name: burster(name, gate) for name in TRADERS})
    with Up(tmp_path, manifests, "--for", "300s", "--json") as up:
        up.running()
        until(lambda: all(row.signals for row in rows(up)) and len(rows(up)) == 20, lambda: f"all signal: {rows(up)}")
        pids = {row.trader: row.pid for row in rows(up)}

        (gate / "hold").touch()
        until(lambda: all((gate / name).exists() for name in TRADERS), "each of them is in a call")
        kill_hard(up.pid_of("kafka"))
        (gate / "go").touch()

        def all_blocked() -> bool:
            # It is started again and again; not before it is wanted.
            with contextlib.suppress(ProcessLookupError):  # the one of the last look, whose end isn't told yet
                if pid := up.pid_of("kafka"):
                    kill_hard(pid)
            return states(up) == {"Blocked"}

        until(all_blocked, lambda: f"every ring is full: {states(up)}")
        (gate / "hold").unlink()
        full = {row.trader: row.signals for row in rows(up)}

        until(lambda: states(up) == {"Active"}, lambda: f"every ring has drained: {rows(up)}")
        until(
            lambda: all(row.signals > full[row.trader] + BURST - 256 + 1 for row in rows(up)),
            lambda: f"all decide on further candles: {rows(up)}",
        )
        assert {row.trader: row.pid for row in rows(up)} == pids
        up.process.send_signal(signal.SIGINT)
        summary = up.summary()
        assert up.wait() == 0, up.said

    signals = summary["signals"]
    assert summary["problems"] == [], up.said
    assert summary["reconciles"] is True
    assert summary["traders"] == {"desired": 20, "ready": 20, "restarts": 0}
    assert summary["restarts"].keys() == {"kafka"}, "all others reconnected by themselves"
    assert signals["emitted"] >= 20 * BURST
    assert signals["emitted"] == signals["unique"] + signals["dropped"]
    assert (signals["dropped"], signals["pending"]) == (0, 0)
    assert signals["published"] >= signals["unique"], "what was under way may be on the topic twice"
