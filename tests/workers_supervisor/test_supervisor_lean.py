"""A trader's process has nothing of telemetry in it: no client of Prometheus, nothing of OpenTelemetry, no network's."""

from __future__ import annotations

import json

from tests.workers_supervisor.fake_feed import trader, worker

#: What exports, serves or sends. ``chandlery.core.telemetry`` makes spans and figures; the feed's and stream's use it.
FOREIGN = ("prometheus_client", "opentelemetry", "google.protobuf", "grpc", "aiokafka", "aiohttp", "faust", "fastapi")
OURS = ("chandlery.core.telemetry", "chandlery.workers.feed", "chandlery.stream", "chandlery.console")

#: Tells what its process has loaded, when it has decided once: all that a trader needs has been imported by then.
TELLS = '''
import json, os, sys
from chandlery.workers.strategy import Strategy


class Tells(Strategy):
    """Buys, and tells its process's modules."""

    def on_candle(self, ctx, candles):
        with open({path!r} + ".half", "w") as file:
            json.dump({{"pid": os.getpid(), "modules": sorted(sys.modules)}}, file)
        os.replace({path!r} + ".half", {path!r})
        ctx.buy("told", rule="told")
'''


async def test_a_real_traders_process_has_no_telemetry_and_no_network_loaded() -> None:
    async with worker() as made:
        told = made.folder / "modules.json"
        (made.strategies / "tells.py").write_text(TELLS.format(path=str(told)))
        made.close(1.0)
        made.assign(trader("a", "tells"))
        pid = (await made.states(a="Active"))["desk/a"].pid
        made.close(2.0)
        await made.signals("desk/a", 1)
        said = json.loads(told.read_text())
    assert said["pid"] == pid
    loaded = set(said["modules"])
    assert {"numpy", "chandlery.workers.trader.loop", "chandlery.workers.segment"} <= loaded, "it is a trader's"
    found = {name for name in loaded for no in (*FOREIGN, *OURS) if name == no or name.startswith(f"{no}.")}
    assert not found
