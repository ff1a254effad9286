"""The operator under everything at once: Traders added, edited and deleted in random order while pushes to workers fail,
come late, twice and in another order, the operator is killed every few seconds and the API server three times.

What is counted is what is left when all has come to rest: Traders that no worker runs as they are wanted (lost), that more
than one runs (doubled), and that run though nobody wants them (ghosts). API server, etcd, controllers and scheduler are
real; pods are kwok's, and the workers' endpoints are simulated: they speak the pod's API.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import time
from pathlib import Path
from typing import Final

from tests.support.operator_chaos import Chances, Chaos, Outcome, faulty_workers
from tests.support.operator_stage import NAMESPACE, Stage

from benchmarks._control_plane import control_plane
from benchmarks.harness import Row, run, say
from chandlery.core.errors import ChandleryError

_SPACE: Final = "operator-chaos"
#: It comes to rest within seconds; a restart of the operator and its longest backoff are 30 s.
_PATIENCE_S: Final = 120.0
_QUICK_PATIENCE_S: Final = 20.0


def measure(quick: bool) -> list[Row]:
    """All rows. ``quick``: less than a fifth of the changes, and one kill of the API server."""
    chances = (
        Chances(changes=300, names=60, pause_s=0.02, operator_lives_s=(1.5, 3.0), api_kills=1)
        if quick
        else Chances(changes=2000, names=200, pause_s=0.03, operator_lives_s=(2.0, 5.0), api_kills=3)
    )
    with control_plane("chandlery-chaos-") as kubeconfig:
        return asyncio.run(_measure(kubeconfig, chances, _QUICK_PATIENCE_S if quick else _PATIENCE_S))


async def _measure(kubeconfig: Path, chances: Chances, patience_s: float) -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        stage = Stage(kubeconfig, Path(folder), faulty_workers(chances))
        try:
            await stage.start()
            with contextlib.suppress(ChandleryError):
                await stage.api.create(NAMESPACE, {"metadata": {"name": _SPACE}})
            say(f"{chances.changes} changes")
            began_s = time.monotonic()
            outcome = await Chaos(stage, _SPACE, chances, ()).unleash(patience_s)
            return _rows(outcome, time.monotonic() - began_s)
        finally:
            await stage.api.delete(NAMESPACE, "", _SPACE)
            await stage.stop()


def _rows(outcome: Outcome, took_s: float) -> list[Row]:
    changes = ", ".join(f"{number} {what}" for what, number in sorted(outcome.changes.items()))
    faults = ", ".join(f"{number} {what}" for what, number in sorted(outcome.faults.items()))
    for name in ("lost", "doubled", "ghosts", "unready"):
        if found := getattr(outcome, name):
            say(f"{name}: {', '.join(found[:10])}")
    return [
        Row("operator_chaos/lost", len(outcome.lost), "traders", goal=0, note=f"{changes} in {took_s:.0f} s"),
        Row("operator_chaos/doubled", len(outcome.doubled), "traders", goal=0),
        Row("operator_chaos/ghosts", len(outcome.ghosts), "traders", goal=0),
        Row("operator_chaos/status_not_running", len(outcome.unready), "traders", goal=0),
        Row("operator_chaos/contradictions", outcome.contradictions, "pushes", goal=0,
            note="sequences that were pushed with two contents"),
        Row("operator_chaos/settled", outcome.settled_s, "s", note="from the last change until all was right"),
        Row("operator_chaos/pushes", outcome.pushes, "pushes", note=faults),
        Row("operator_chaos/operator_kills", outcome.operator_kills, "kills"),
        Row("operator_chaos/api_server_kills", outcome.api_kills, "kills"),
    ]  # fmt: skip


if __name__ == "__main__":
    run(measure, __doc__)
