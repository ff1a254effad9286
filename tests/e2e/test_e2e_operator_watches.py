"""The operator's watches behind a proxy that swallows them, on a real API server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from tests.e2e.kubectl import Namespace
from tests.support.api_proxy import ApiProxy
from tests.support.operator_stage import Object, OperatorProcess, Stage, feed, pool, trader

from chandlery.core.kube_credentials import from_kubeconfig
from chandlery.operator.kubernetes.api import KubeApi
from chandlery.operator.kubernetes.follow import Followed, Names
from chandlery.operator.kubernetes.kinds import CONFIG_MAP, STATEFUL_SET, TRADER

# A twelfth of what an operator in a cluster takes, so that a dead watch is one in 10 s instead of two minutes.
_WATCH_S = 2.0
# A list a minute, another 20 s later, and as much again for a busy machine.
_SWEEP_S = 160.0


@asynccontextmanager
async def _proxied(namespace: Namespace, folder: Path) -> AsyncIterator[ApiProxy]:
    proxy = ApiProxy(namespace.cluster.kubeconfig, folder)
    await proxy.start()
    try:
        yield proxy
    finally:
        await proxy.stop()


@asynccontextmanager
async def _following(namespace: Namespace, proxy: ApiProxy) -> AsyncIterator[Followed]:
    """ConfigMaps of the namespace, followed through the proxy."""
    api = KubeApi(from_kubeconfig(proxy.kubeconfig))

    def nothing(_names: Names, _before: Object | None, _now: Object | None) -> None:
        """What changes is looked at in ``objects``."""

    followed = Followed(api, CONFIG_MAP, namespace.name, nothing, watch_s=_WATCH_S)
    await followed.list_once()
    running = asyncio.create_task(followed.run())
    try:
        yield followed
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await api.close()


async def _until(what: str, holds: Callable[[], bool], timeout_s: float = 30.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, f"not within {timeout_s:g} s: {what}"
        await asyncio.sleep(0.02)


async def test_a_watch_on_which_nothing_changes_counts_as_alive(on_control_plane: Namespace, tmp_path: Path) -> None:
    async with _proxied(on_control_plane, tmp_path) as proxy, _following(on_control_plane, proxy) as followed:
        # Six watches are longer than what counts as dead.
        await _until("six quiet watches", lambda: proxy.watches.count("configmaps") > 6)
        assert followed.problem() == ""
        assert proxy.lists.count("configmaps") == 1, "a quiet watch needs no other list"


async def test_what_a_swallowed_watch_does_not_bring_comes_by_lists_and_the_watch_counts_as_dead(
    on_control_plane: Namespace, tmp_path: Path
) -> None:
    async with _proxied(on_control_plane, tmp_path) as proxy, _following(on_control_plane, proxy) as followed:
        proxy.swallows = lambda plural: plural == "configmaps"
        on_control_plane.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "unseen"}})
        await _until("seen by a list", lambda: (on_control_plane.name, "unseen") in followed.objects)
        await _until("found to be dead", lambda: followed.problem() != "")
        assert "configmaps" in followed.problem()
        proxy.swallows = lambda _plural: False
        await _until("alive again", lambda: followed.problem() == "")


async def test_watches_that_are_cut_at_once_are_lists_before_long(on_control_plane: Namespace, tmp_path: Path) -> None:
    async with _proxied(on_control_plane, tmp_path) as proxy, _following(on_control_plane, proxy) as followed:
        proxy.cuts = lambda plural: plural == "configmaps"
        on_control_plane.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "unseen"}})
        await _until("seen by a list", lambda: (on_control_plane.name, "unseen") in followed.objects)
        watches, lists = proxy.watches.count("configmaps"), proxy.lists.count("configmaps")
        assert watches < 10 * lists, "asked for at ever longer intervals, not in a tight loop"


async def test_an_api_server_that_is_away_is_no_dead_watch(on_control_plane: Namespace, tmp_path: Path) -> None:
    async with _proxied(on_control_plane, tmp_path) as proxy, _following(on_control_plane, proxy) as followed:
        await proxy.stop()
        silent = asyncio.get_running_loop().time() + 6 * _WATCH_S
        while asyncio.get_running_loop().time() < silent:
            assert followed.problem() == ""
            await asyncio.sleep(0.1)


async def test_an_operator_whose_watch_is_swallowed_says_that_it_is_not_healthy(
    on_control_plane: Namespace, tmp_path: Path
) -> None:
    stage = Stage(on_control_plane.cluster.kubeconfig, tmp_path)
    ns = on_control_plane.name
    async with _proxied(on_control_plane, tmp_path) as proxy:
        arguments = ("--namespace", ns, "--own-namespace", ns, "--watch-for", f"{_WATCH_S:g}s")
        operator = OperatorProcess(proxy.kubeconfig, tmp_path / "proxied.log", stage.worker_port, arguments)
        try:
            await stage.start()
            await operator.start()
            await stage.apply(feed(ns), pool(ns), trader(ns, "one"))
            await stage.until_reason(ns, "one", "Running")
            assert await _health(operator) == (200, "ok")
            proxy.swallows = lambda plural: plural == STATEFUL_SET.plural

            async def unhealthy() -> bool:
                return (await _health(operator))[0] == 503

            await stage.until("not healthy", unhealthy)
            assert "statefulsets" in (await _health(operator))[1]
            # Blind on one eye it still sees by lists, and mends.
            await stage.api.delete(STATEFUL_SET, ns, "quants-0")

            async def made_anew() -> bool:
                names = {item["metadata"]["name"] for item in (await stage.api.list(STATEFUL_SET, ns)).items}
                return "quants-0" in names

            await stage.until("the StatefulSet made anew", made_anew)
        finally:
            operator.kill()
            await stage.stop()


@pytest.mark.slow
async def test_an_operator_to_which_the_watch_of_traders_brings_nothing_ends_and_the_next_takes_up_what_it_missed(
    on_control_plane: Namespace, tmp_path: Path
) -> None:
    stage = Stage(on_control_plane.cluster.kubeconfig, tmp_path)
    ns = on_control_plane.name
    async with _proxied(on_control_plane, tmp_path) as proxy:
        arguments = ("--namespace", ns, "--own-namespace", ns)
        operator = OperatorProcess(proxy.kubeconfig, tmp_path / "proxied.log", stage.worker_port, arguments)
        try:
            await stage.start()
            await operator.start()
            await stage.apply(feed(ns), pool(ns), trader(ns, "one"))
            await stage.until_reason(ns, "one", "Running")
            proxy.swallows = lambda plural: plural == TRADER.plural
            await stage.apply(trader(ns, "unseen"))
            process = operator.process
            assert process is not None

            async def ended() -> bool:
                return process.poll() is not None

            await stage.until("ended", ended, _SWEEP_S)
            assert process.returncode > 0, "so that it is started again"
            why = f"within 20 s the watch did not bring {ns}/unseen"
            assert why in operator.log.read_text(), "as docs/operations.md quotes it"
            assert await stage.ready(ns, "unseen") == ("", "")
            proxy.swallows = lambda _plural: False
            await operator.start()
            await stage.until_reason(ns, "unseen", "Running")
            assert await stage.ready(ns, "one") == ("True", "Running")
        finally:
            operator.kill()
            await stage.stop()


async def _health(operator: OperatorProcess) -> tuple[int, str]:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{operator.port}/healthz") as answer,
    ):
        return answer.status, (await answer.text()).strip()
