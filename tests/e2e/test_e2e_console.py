"""The console on a real Kubernetes: it tells what runs, changes nothing unasked, and lives through an API server's end."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import signal
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Final

import aiohttp
import msgspec
import pytest
import yaml
from tests.e2e.cluster.commands import ClusterError
from tests.e2e.conftest import Images
from tests.e2e.desk import CHART, FEED, POOL, RELEASE, ROLES, START_S, WORKER, Desk, install, reason_of
from tests.e2e.kubectl import Cluster, Namespace
from tests.support.operator_chaos import api_server_of
from tests.support.operator_stage import free_port, trader
from tests.workers_feed.feed_setup import until

from chandlery.console.api.models import Overview, Trader, TraderDetail
from chandlery.console.client import ApiClient, ApiInputError, ApiUnavailableError
from chandlery.console.settings import ClusterSettings, ConsoleSettings
from chandlery.core.resources import API_VERSION

_CONSOLE: Final = f"{RELEASE}-console"


@contextmanager
def forwarded(namespace: Namespace) -> Iterator[str]:
    """``kubectl port-forward`` to the console, as a person reaches it."""
    cluster = namespace.cluster
    kubectl = str(cluster.binaries / "kubectl") if cluster.binaries else "kubectl"
    command = [kubectl, "--namespace", namespace.name, "port-forward", f"service/{_CONSOLE}", ":8420"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=cluster.environment(), text=True) as process:
        try:
            assert process.stdout is not None
            found = re.search(r"127\.0\.0\.1:(\d+)", process.stdout.readline())
            assert found is not None
            yield f"http://127.0.0.1:{found[1]}"
        finally:
            process.terminate()


def token_of(namespace: Namespace) -> str:
    return base64.b64decode(namespace.get("secret", f"{_CONSOLE}-token")["data"]["token"]).decode()


@pytest.fixture(scope="module")
def desk(node: Cluster, images: Images) -> Iterator[Desk]:
    """A desk with a console and a Trader ``steady``."""
    namespace = node.namespace(f"console-{uuid.uuid4().hex[:6]}")
    try:
        desk = install(namespace, {role: images[role] for role in (*ROLES, "console")}, console={})
        namespace.apply(desk.trader("steady"))
        desk.wait_ready("steady")
    except ClusterError as error:
        raise ClusterError(f"{error}\n{namespace.diagnosis()}") from error
    yield desk
    # What it has outside of its namespace goes only so.
    node.run("helm", "uninstall", RELEASE, "--namespace", namespace.name, timeout_s=START_S)
    namespace.remove()


@asynccontextmanager
async def console_of(desk: Desk) -> AsyncIterator[ApiClient]:
    with forwarded(desk.namespace) as address:
        async with ApiClient(address, token_of(desk.namespace)) as api:
            yield api


@pytest.mark.node
@pytest.mark.slow
async def test_the_first_look_and_the_figures_are_of_what_runs(desk: Desk) -> None:
    name = f"{desk.namespace.name}/steady"
    async with console_of(desk) as api:
        looks: list[Overview] = []

        async def all_is_well() -> bool:
            looks.append(await api.overview())
            told = looks[-1]
            well = told.feeds_alive == 1 and told.signals_per_min > 0 and told.memory_bytes > 0
            # How quick the machine is that runs this is another test's concern.
            troubles = [one for one in told.attention if not one.startswith("signals are slow")]
            return well and not troubles and not told.away

        try:
            await until("all is well", all_is_well, START_S)
        except AssertionError as error:
            raise AssertionError(looks[-1].model_dump_json(indent=1)) from error
        told = looks[-1]
        assert (told.mode, told.writable) == ("cluster", False)
        assert (told.feeds, told.traders, told.traders_ready) == (1, 1, 1)
        rows: list[TraderDetail] = []

        async def is_counted() -> bool:
            rows.append(await api.trader(name))
            return rows[-1].calls > 0 and rows[-1].rss_bytes > 1_000_000

        # A signal is on its topic before the next look at its worker's figures counts the call.
        await until("its own figures", is_counted, START_S)
        row = rows[-1]
        assert (row.state, row.ready, row.worker) == ("Active", True, WORKER.removesuffix("-0"))
        assert row.age_ms < 10_000
        assert row.manifest["spec"]["market"]["symbols"] == ["BTC/USDT"]
        (pool,) = [one async for one in api.pools()]
        assert (pool.pool, pool.ready_workers, pool.used) == (f"{desk.namespace.name}/{POOL}", 1, 1)
        (feed,) = [one async for one in api.feeds()]
        assert (feed.feed, feed.connected) == (f"{desk.namespace.name}/{FEED}", True)
        assert feed.candles_closed > 0
        memory = await api.memory()
        kinds = {"ingest", "aggregator", "feed", "supervisor", "fork_server", "trader"}
        assert {process.kind for process in memory.processes} == kinds
        assert [segment.series_used for segment in memory.segments] == [1]

        async def has_candles() -> bool:
            return len((await api.candles(feed.feed, "BTC/USDT", "1s")).candles) > 10

        await until("candles", has_candles, START_S)


@pytest.mark.node
@pytest.mark.slow
async def test_signals_come_from_the_real_topic_as_they_are_made(desk: Desk) -> None:
    name = f"{desk.namespace.name}/steady"
    async with console_of(desk) as api, asyncio.timeout(START_S):
        async for event in api.follow_signals(trader=name):
            if event.signal.stages:
                break
        assert event.signal.trader == name
        on_topic, _ = await asyncio.to_thread(desk.signals, "steady")
        assert event.signal.id in on_topic
        assert (await api.signal(event.signal.id)).waterfall


@pytest.mark.node
@pytest.mark.slow
async def test_nobody_is_told_anything_without_the_token_and_nothing_is_changed_unasked(desk: Desk) -> None:
    name = f"{desk.namespace.name}/steady"
    with forwarded(desk.namespace) as address:
        async with aiohttp.ClientSession(raise_for_status=True) as browser:
            async with browser.get(address) as page:
                assert "<html" in await page.text(), "the pages are in the image, and tell nothing by themselves"
            (script, *_) = re.findall(r'src="([^"]+\.js)"', await (await browser.get(address)).text())
            await browser.get(f"{address}/{script.lstrip('/')}")
        for token in ("", "wrong"):
            async with ApiClient(address, token) as stranger:
                with pytest.raises(ApiInputError) as refused:
                    await stranger.overview()
                assert refused.value.problem.status == 401
    async with console_of(desk) as api:
        with pytest.raises(ApiInputError) as refused:
            await api.suspend_trader(name)
        assert (refused.value.problem.status, refused.value.problem.reason) == (403, "Refused")
    assert not desk.namespace.get("trader", "steady")["spec"].get("suspend", False)


@pytest.mark.node
@pytest.mark.slow
async def test_a_console_that_is_killed_comes_back_and_tells_the_same(desk: Desk) -> None:
    namespace = desk.namespace
    if namespace.cluster.signal is None:
        pytest.skip("containers of a cluster that isn't this run's own can't be killed")
    (pod,) = namespace.get("pods", "-l", "app.kubernetes.io/component=console")["items"]
    await asyncio.to_thread(namespace.kill, pod["metadata"]["name"], "console")

    async def tells_the_same() -> bool:
        try:
            async with console_of(desk) as api:
                told = await api.overview()
        except (ApiUnavailableError, AssertionError):  # it isn't up yet, or kubectl found nobody to forward to
            return False
        return (told.feeds_alive, told.traders, told.traders_ready, told.away) == (1, 1, 1, [])

    await until("the console's answer", tells_the_same, START_S)


@pytest.mark.node
@pytest.mark.slow
def test_the_chart_tests_its_console_too(desk: Desk) -> None:
    told = desk.namespace.cluster.run("helm", "test", RELEASE, "--namespace", desk.namespace.name, timeout_s=START_S)
    assert told.count("Phase:          Succeeded") == 2


def rights(namespace: Namespace, account: str = _CONSOLE) -> set[tuple[str, str]]:
    """(resource, verb) of all that a ServiceAccount may beyond what everybody may."""
    whom = ("--as", f"system:serviceaccount:{namespace.name}:{account}", "--as-group=system:authenticated")
    everybody = ("--as", f"system:serviceaccount:{namespace.name}:nobody", "--as-group=system:authenticated")

    def listed(who: tuple[str, ...]) -> set[tuple[str, str]]:
        found = set()
        for line in namespace.kubectl("auth", "can-i", "--list", "--no-headers", *who).splitlines():
            resource, verbs = re.match(r"(\S*).*\[([^\]]*)\]\s*$", line).groups()  # type: ignore[union-attr]
            found |= {(resource, verb) for verb in verbs.split()}
        return found

    return listed(whom) - listed(everybody)


@pytest.mark.node
@pytest.mark.slow
async def test_a_writable_console_changes_traders_with_its_own_rights_and_has_no_other(desk: Desk) -> None:
    namespace, name = desk.namespace, f"{desk.namespace.name}/through-api"
    looked_at = {
        (f"{kind}.chandlery.dev", verb) for kind in ("marketfeeds", "traderpools", "traders") for verb in ("list", "watch")
    }  # fmt: skip
    assert rights(namespace) == looked_at
    arguments = ("--namespace", namespace.name, "--reuse-values", "--set", "console.writable=true", "--wait")
    await asyncio.to_thread(
        namespace.cluster.run, "helm", "upgrade", RELEASE, str(CHART), *arguments, timeout_s=2 * START_S
    )
    assert rights(namespace) == looked_at | {
        ("traders.chandlery.dev", verb) for verb in ("get", "create", "update", "patch", "delete")
    }
    manifest = desk.trader("through-api", "ETH/USDT")
    manifest["metadata"]["namespace"] = namespace.name
    async with console_of(desk) as api:
        made = await api.create_trader(manifest)
        assert made.kept_by == ""
        await asyncio.to_thread(desk.wait_ready, "through-api")
        with pytest.raises(ApiInputError) as wrong:
            await api.replace_trader({**manifest, "spec": {**manifest["spec"], "tier": "Not a tier"}})
        assert (wrong.value.problem.status, wrong.value.problem.field) == (422, "spec.tier")
        edited = {**manifest, "spec": {**manifest["spec"], "trigger": "EveryUpdate"}}
        told = await api.replace_trader(edited, made.resource_version)
        with pytest.raises(ApiInputError) as late:
            await api.replace_trader(manifest, made.resource_version)
        assert late.value.problem.status == 409
        assert told.manifest["spec"]["trigger"] == "EveryUpdate"
        assert (await api.suspend_trader(name)).suspended
        namespace.until("suspended", ("trader", "through-api"), lambda one: reason_of(one) == "Suspended", START_S)
        await api.delete_trader(name)
    namespace.wait("trader/through-api", "delete")


# An API server that is killed, and a console that follows it with the chart's rights. ------------------------------


def kubeconfig_of_the_console(namespace: Namespace, folder: Path) -> tuple[Path, str]:
    """A kubeconfig with the rights that the chart gives the console, and the manifests that give them."""
    cluster = namespace.cluster
    made = cluster.run(
        "helm", "template", RELEASE, str(CHART), "--namespace", namespace.name, "--set", "console.enabled=true",
        "--show-only", "templates/console-rbac.yaml",
    )  # fmt: skip
    cluster.apply(made)
    namespace.kubectl("create", "serviceaccount", _CONSOLE)
    token = namespace.kubectl("create", "token", _CONSOLE, "--duration=1h").strip()
    config = yaml.safe_load(cluster.kubectl("config", "view", "--raw", "--flatten"))
    config["users"] = [{"name": entry["name"], "user": {"token": token}} for entry in config["users"]]
    path = folder / "console.kubeconfig"
    path.write_text(yaml.safe_dump(config))
    return path, made


@asynccontextmanager
async def console_process(kubeconfig: Path, namespace: str, folder: Path) -> AsyncIterator[tuple[ApiClient, Any]]:
    """``python -m chandlery.console`` on loopback, which needs no token there."""
    listen = f"127.0.0.1:{free_port()}"
    settings = ConsoleSettings(
        listen=listen, backend="cluster", cluster=ClusterSettings(namespaces=[namespace], kubeconfig=str(kubeconfig))
    )
    (folder / "console.json").write_bytes(msgspec.json.encode(settings))
    with (folder / "console.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "chandlery.console", "--config", str(folder / "console.json"), stdout=log, stderr=log
        )
    try:
        async with ApiClient(f"http://{listen}") as api:
            yield api, process
    finally:
        if process.returncode is None:
            process.terminate()
        assert await asyncio.wait_for(process.wait(), 20) == 0, (folder / "console.log").read_text()[-3_000:]


async def test_an_api_server_that_is_killed_is_said_to_be_away_and_followed_again(
    on_control_plane: Namespace, tmp_path: Path
) -> None:
    cluster = on_control_plane.cluster
    if cluster.logs is None:
        pytest.skip("somebody else's cluster: its API server is not ours to kill")
    cluster.apply(CHART / "crds", "--server-side", "--force-conflicts")
    for crd in ("traders", "traderpools", "marketfeeds"):
        cluster.kubectl("wait", "--for=condition=Established", f"crd/{crd}.chandlery.dev", "--timeout=30s")
    kubeconfig, made = kubeconfig_of_the_console(on_control_plane, tmp_path)
    try:
        await _followed_through_a_kill(on_control_plane, kubeconfig, tmp_path)
    finally:
        cluster.kubectl("delete", "--ignore-not-found", "-f", "-", stdin=made)


async def _followed_through_a_kill(namespace: Namespace, kubeconfig: Path, folder: Path) -> None:
    def manifest(name: str) -> str:
        return json.dumps({"apiVersion": API_VERSION, "kind": "Trader", **trader(namespace.name, name)})

    await asyncio.to_thread(namespace.apply, manifest("before"))
    async with console_process(kubeconfig, namespace.name, folder) as (api, process):

        async def names() -> list[str]:
            try:
                rows: list[Trader] = [row async for row in api.traders()]
            except ApiUnavailableError:
                return []  # it isn't up yet
            return [row.trader.partition("/")[2] for row in rows]

        async def has(*wanted: str) -> bool:
            return await names() == list(wanted)

        await until("the first Trader", lambda: has("before"), START_S)
        os.kill(api_server_of(namespace.cluster.kubeconfig.parent), signal.SIGKILL)

        async def is_away() -> bool:
            return any("doesn't answer" in said for said in (await api.overview()).away)

        await until("said to be away", is_away, START_S)
        assert await names() == ["before"], "what was known is shown on"

        async def applied() -> bool:
            try:
                await asyncio.to_thread(namespace.apply, manifest("meanwhile"))
            except ClusterError:
                return False
            return True

        await until("the API server back", applied, START_S)
        await until("the new Trader", lambda: has("before", "meanwhile"), START_S)
        await asyncio.to_thread(namespace.kubectl, "delete", "trader", "before", "--wait=false")
        await until("the deleted one gone", lambda: has("meanwhile"), START_S)

        async def is_well() -> bool:
            return not [said for said in (await api.overview()).away if "API server" in said]

        await until("nothing away", is_well, START_S)
        assert process.returncode is None, "it lived through"
