"""Resources that an older definition let in, and that this operator can't read: what runs goes on, and is told."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import yaml
from tests.e2e.cluster.commands import ClusterError
from tests.e2e.kubectl import Namespace
from tests.e2e.operator_cases import placed, running_one, scope, staged, until_told_once, untouched
from tests.support.operator_stage import CRD, ROOT, Stage, conditions_of, trader

from chandlery.core.errors import InputError
from chandlery.operator.kubernetes.kinds import MARKET_FEED, TRADER, TRADER_POOL

DEFINITION = ROOT / "charts" / "chandlery" / "crds" / "traders.yaml"
NO_INTERVAL: dict[str, Any] = {"spec": {"market": {"symbols": ["BTC/USDT"], "interval": "1x"}}}


def older_definition() -> dict[str, Any]:
    """The definition of Traders as one might have been that knew nothing of intervals."""
    body: dict[str, Any] = yaml.safe_load(DEFINITION.read_text())
    spec = body["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    spec["properties"]["market"]["properties"]["interval"] = {"type": "string"}
    return body


@asynccontextmanager
async def older_definitions(stage: Stage) -> AsyncIterator[None]:
    """Have the API server take whatever interval."""
    await stage.api.apply(CRD, older_definition())
    try:
        yield
    finally:
        await stage.api.apply(CRD, yaml.safe_load(DEFINITION.read_text()))


async def test_a_trader_that_can_not_be_read_runs_on_over_the_operators_restart_and_stops_when_it_is_suspended(
    on_control_plane: Namespace, tmp_path: Path
) -> None:
    async with staged(on_control_plane, tmp_path) as (stage, ns):
        operator = await stage.operator(*scope(ns))
        await running_one(stage, ns)
        await stage.apply(trader(ns, "two"))
        await stage.until_reason(ns, "two", "Running")
        ran = await placed(stage, f"{ns}/one")
        await operator.stop()

        async def is_taken() -> bool:
            try:
                await stage.api.merge(TRADER, ns, "one", NO_INTERVAL)
            except InputError:
                return False
            return True

        async def is_refused() -> bool:
            another = json.dumps(trader(ns, "three", **NO_INTERVAL["spec"]))
            tried = ("create", "--dry-run=server", "-f", "-")
            try:
                await asyncio.to_thread(on_control_plane.cluster.kubectl, *tried, stdin=another)
            except ClusterError:
                return True
            return False

        async with older_definitions(stage):
            await stage.until("the older definition in force", is_taken)
        await stage.until("the definition of now in force", is_refused)
        operator = await stage.operator(*scope(ns))
        await stage.until_reason(ns, "one", "BadManifest")
        item = await stage.api.get(TRADER, ns, "one")
        found, status = conditions_of(item), item["status"]
        assert (found["Ready"]["status"], found["Stalled"]["status"]) == ("True", "True")
        assert found["Ready"]["message"].startswith("spec.market.interval: ")
        assert found["Ready"]["message"].endswith(" (generation 1 stays)")
        assert (status["observedGeneration"], status["runningGeneration"]) == (2, 1)
        await until_told_once(stage, ns, "one", "BadManifest")
        everything_else = ((MARKET_FEED, "market"), (TRADER_POOL, "quants"), (TRADER, "two"))
        async with untouched(stage, operator, ns, *everything_else):
            assert await placed(stage, f"{ns}/one") == ran
        # What was let in once stays let in as long as it isn't touched: so anything else of it can be changed.
        await stage.api.merge(TRADER, ns, "one", {"spec": {"suspend": True}})

        async def is_suspended() -> bool:
            pods = stage.workers.pods.values()
            assigned = [one for pod in pods if pod.assignment for one in pod.assignment.traders]
            modes = [one.mode for one in assigned if one.trader == f"{ns}/one"]
            return modes == ["suspended"] and (await stage.ready(ns, "one")) == ("False", "BadManifest")

        await stage.until("it is suspended", is_suspended)
        await stage.apply(trader(ns, "one", fast=12))
        await stage.api.merge(TRADER, ns, "one", {"spec": {"suspend": False}})
        await stage.until_rolled_out(ns, "one")
        assert (await stage.ready(ns, "one")) == ("True", "Running")
