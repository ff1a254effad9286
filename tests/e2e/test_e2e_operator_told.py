"""What the operator tells people of what is missing or refused: the right words on the right resource, an event once."""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import web
from tests.e2e.kubectl import Namespace
from tests.e2e.operator_cases import (
    BYSTANDERS,
    placed,
    running_bystander,
    running_one,
    scope,
    staged,
    told,
    until_told_once,
    untouched,
)
from tests.support.api_proxy import ApiProxy
from tests.support.needed import missing
from tests.support.operator_stage import NAMESPACE, OperatorProcess, Stage, conditions_of, feed, pool, trader

from chandlery.operator.children.naming import INGEST_PORT
from chandlery.operator.kubernetes.api import Kind
from chandlery.operator.kubernetes.kinds import EVENT, MARKET_FEED, POD, STATEFUL_SET, TRADER, TRADER_POOL


async def said(stage: Stage, ns: str, name: str, kind: Kind = TRADER) -> dict[str, Any]:
    """The conditions of a resource, by their types."""
    return conditions_of(await stage.api.get(kind, ns, name))


async def test_a_feed_that_is_not_there_is_told_by_the_pool_and_its_traders_with_the_name_that_is_near(
    on_control_plane: Namespace, tmp_path: Path
) -> None:
    async with staged(on_control_plane, tmp_path) as (stage, ns):
        operator = await stage.operator(*scope(ns))
        await running_bystander(stage, ns)
        async with untouched(stage, operator, ns, *BYSTANDERS):
            await stage.apply(feed(ns), pool(ns, feed={"name": "markt"}), trader(ns, "one"))
            for name, kind in (("quants", TRADER_POOL), ("one", TRADER)):
                await stage.until_reason(ns, name, "UnknownFeed", kind)
                found = await said(stage, ns, name, kind)
                assert (found["Ready"]["status"], found["Stalled"]["status"]) == ("False", "True")
                assert "markt" in found["Ready"]["message"], "what is named"
                assert 'did you mean "market"?' in found["Ready"]["message"], "and the way out"
                await until_told_once(stage, ns, name, "UnknownFeed")
            # It comes: nothing else has to be done.
            await stage.apply(feed(ns, "markt"))
            for name, kind in (("quants", TRADER_POOL), ("one", TRADER)):
                await stage.until_reason(ns, name, "Running", kind)
                assert (await told(stage, ns, name)).count("UnknownFeed") == 1


async def test_a_pool_that_its_feed_leaves_out_says_so_as_its_traders_do_until_it_is_let_in(
    on_control_plane: Namespace, tmp_path: Path
) -> None:
    async with staged(on_control_plane, tmp_path) as (stage, ns):
        operator = await stage.operator("--own-namespace", ns)  # all namespaces: labels are seen
        desk = f"{ns[:40]}-desk"
        await stage.api.create(NAMESPACE, {"metadata": {"name": desk}})
        try:
            await running_one(stage, ns)
            guests = pool(desk, "guests", feed={"name": "market", "namespace": ns})
            async with untouched(stage, operator, ns, (TRADER_POOL, "quants"), (TRADER, "one")):
                await stage.apply(guests, trader(desk, "guest", in_pool="guests"))
                for name, kind in (("guests", TRADER_POOL), ("guest", TRADER)):
                    await stage.until_reason(desk, name, "NotAllowed", kind)
                    found = await said(stage, desk, name, kind)
                    assert (found["Ready"]["status"], found["Stalled"]["status"]) == ("False", "True")
                    assert "spec.allowedPools" in found["Ready"]["message"], "the way out"
                    await until_told_once(stage, desk, name, "NotAllowed")
                assert (await stage.api.list(STATEFUL_SET, desk)).items == [], "it gets no workers"
                await stage.apply(feed(ns, allowedPools={"namespaces": {"from": "All"}}))
                for name, kind in (("guests", TRADER_POOL), ("guest", TRADER)):
                    await stage.until_reason(desk, name, "Running", kind)
                    assert (await told(stage, desk, name)).count("NotAllowed") == 1
        finally:
            await stage.api.delete(NAMESPACE, "", desk)


async def test_a_suspended_pool_has_its_traders_decide_nothing_in_their_places_until_it_is_resumed(
    on_control_plane: Namespace, tmp_path: Path
) -> None:
    async with staged(on_control_plane, tmp_path) as (stage, ns):
        await stage.operator(*scope(ns))
        await running_one(stage, ns)
        await stage.apply(trader(ns, "two", suspend=True))
        await stage.until_reason(ns, "two", "Suspended")

        async def modes(*wanted: str) -> None:
            async def hold() -> bool:
                found = [one for pod in stage.workers.pods.values() if pod.assignment for one in pod.assignment.traders]
                return [one.mode for one in sorted(found, key=lambda one: one.trader)] == list(wanted)

            await stage.until(f"the worker told {wanted}", hold)

        await modes("active", "suspended")
        places = {name: [where for where, _ in await placed(stage, f"{ns}/{name}")] for name in ("one", "two")}
        assert all(places.values())
        await stage.apply(pool(ns, suspend=True))
        await stage.until_reason(ns, "quants", "Suspended", TRADER_POOL)
        await stage.until_reason(ns, "one", "Suspended")
        await modes("suspended", "suspended")
        found = await said(stage, ns, "one")
        assert f"spec.suspend of its TraderPool {ns}/quants" in found["Ready"]["message"]
        for conditions in (found, await said(stage, ns, "quants", TRADER_POOL)):
            states = [conditions[kind]["status"] for kind in ("Ready", "Reconciling", "Stalled")]
            assert states == ["False"] * 3, "as somebody wants it: neither a fault nor under way"
        await stage.apply(pool(ns, suspend=False))
        await stage.until_reason(ns, "quants", "Running", TRADER_POOL)
        await stage.until_reason(ns, "one", "Running")
        assert await stage.ready(ns, "two") == ("False", "Suspended"), "it is suspended itself"
        await modes("active", "suspended")
        now = {name: [where for where, _ in await placed(stage, f"{ns}/{name}")] for name in ("one", "two")}
        assert now == places


async def test_what_keeps_a_worker_out_of_kafka_is_told_once_each_by_its_pool_and_its_traders(
    on_control_plane: Namespace, tmp_path: Path
) -> None:
    async with staged(on_control_plane, tmp_path) as (stage, ns):
        operator = await stage.operator(*scope(ns))
        await running_one(stage, ns)
        await running_bystander(stage, ns)
        ((address, _),) = await placed(stage, f"{ns}/one")
        worker = stage.workers.pod(address)
        async with untouched(stage, operator, ns, (MARKET_FEED, "market"), *BYSTANDERS):
            for reason, stalled in (("SecretMissing", "False"), ("KafkaUnauthorized", "True")):
                words = f"key password of Secret {ns}/desk is what {reason} is about"
                worker.feed = {"broker_problem": {"reason": reason, "message": words}}
                worker.bump()
                for name, kind in (("quants", TRADER_POOL), ("one", TRADER)):
                    await stage.until_reason(ns, name, reason, kind)
                    found = await said(stage, ns, name, kind)
                    assert (found["Ready"]["status"], found["Ready"]["message"]) == ("False", words)
                    assert found["Stalled"]["status"] == stalled, "a Secret may come by itself"
                    await until_told_once(stage, ns, name, reason)


def address_of_none(stage: Stage) -> str:
    """A loopback address of no pod: the stage's node begins at the low end."""
    port = stage.worker_port
    return f"127.{port % 200 + 20}.{port // 200 % 250 + 1}.254"


async def lead_to(stage: Stage, ns: str, pod: str, address: str) -> None:
    """Give a pod of kwok's, whose address leads nowhere, one that does."""
    there = {"status": {"podIP": address, "podIPs": [{"ip": address}]}}
    await stage.api.merge(POD, ns, pod, there, subresource="status")


@asynccontextmanager
async def ingest_at(address: str, answer: dict[str, Any]) -> AsyncIterator[None]:
    """What ingest says of itself, at an address of the test's own."""

    async def status(_request: web.Request) -> web.Response:
        return web.json_response(answer)

    app = web.Application()
    app.router.add_get("/v1/status", status)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        try:
            # No setting changes the port at which the operator asks ingest's pods.
            await web.TCPSite(runner, address, INGEST_PORT).start()
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            missing(f"needs port {INGEST_PORT} of {address}, which somebody has who listens on every address")
        yield
    finally:
        await runner.cleanup()


async def test_what_keeps_ingest_out_of_kafka_is_told_once_each_by_its_feed(
    on_control_plane: Namespace, tmp_path: Path
) -> None:
    answer: dict[str, Any] = {"session": 7}
    async with staged(on_control_plane, tmp_path) as (stage, ns):
        operator = await stage.operator(*scope(ns))
        await running_one(stage, ns)
        await stage.until_reason(ns, "market", "Running", MARKET_FEED)
        await running_bystander(stage, ns)
        none_of_it = ((TRADER_POOL, "quants"), (TRADER, "one"), *BYSTANDERS)
        async with (
            ingest_at(address_of_none(stage), answer),
            untouched(stage, operator, ns, *none_of_it),
        ):
            await lead_to(stage, ns, "market-ingest-0", address_of_none(stage))
            for reason, stalled in (("SecretMissing", "False"), ("KafkaUnauthorized", "True")):
                words = f"key password of Secret {ns}/desk is what {reason} is about"
                answer["kafka_problem"] = {"reason": reason, "message": words}
                await stage.until_reason(ns, "market", reason, MARKET_FEED)
                found = await said(stage, ns, "market", MARKET_FEED)
                assert (found["Ready"]["status"], found["Ready"]["message"]) == ("False", words)
                assert found["Stalled"]["status"] == stalled
                await until_told_once(stage, ns, "market", reason)
            del answer["kafka_problem"]
            await stage.until_reason(ns, "market", "Running", MARKET_FEED)


async def test_a_symbol_that_the_exchange_does_not_have_is_told_by_whoever_asks_for_it_and_by_the_feed(
    on_control_plane: Namespace, tmp_path: Path
) -> None:
    answer: dict[str, Any] = {"session": 7}
    async with staged(on_control_plane, tmp_path) as (stage, ns):
        await stage.operator(*scope(ns))
        await running_one(stage, ns)
        await stage.apply(trader(ns, "lost", market={"symbols": ["DGOE/USDT"], "interval": "1s"}))
        await stage.until_reason(ns, "lost", "Running")
        await stage.until_reason(ns, "market", "Running", MARKET_FEED)
        async with ingest_at(address_of_none(stage), answer):
            await lead_to(stage, ns, "market-ingest-0", address_of_none(stage))
            answer["unknown_symbols"] = ["DGOE/USDT"]
            await stage.until_reason(ns, "lost", "UnknownSymbol")
            found = await said(stage, ns, "lost")
            assert (found["Ready"]["status"], found["Stalled"]["status"]) == ("False", "True")
            assert "DGOE/USDT" in found["Ready"]["message"]
            assert "mend spec.market" in found["Ready"]["message"], "the way out"

            async def feed_tells() -> bool:
                status = (await stage.api.get(MARKET_FEED, ns, "market"))["status"]
                return bool(status.get("unknownSymbols") == ["DGOE/USDT"])

            await stage.until("the feed told of the symbol", feed_tells)
            await until_told_once(stage, ns, "lost", "UnknownSymbol")
            assert await stage.ready(ns, "one") == ("True", "Running")
            assert "UnknownSymbol" not in await told(stage, ns, "one")
            # Mended as the message says.
            await stage.apply(trader(ns, "lost", market={"symbols": ["ETH/USDT"], "interval": "1s"}))
            await stage.until_reason(ns, "lost", "Running")


async def test_an_event_that_the_api_server_could_not_take_at_first_is_told_once_all_the_same(
    on_control_plane: Namespace, tmp_path: Path
) -> None:
    stage, ns = Stage(on_control_plane.cluster.kubeconfig, tmp_path), on_control_plane.name
    proxy = ApiProxy(stage.kubeconfig, tmp_path)
    await proxy.start()
    # Slow down, a fault of its own, no answer.
    troubles = [429, 500, -1]
    proxy.refuses = lambda method, plural: (
        troubles.pop(0) if troubles and (method, plural) == ("POST", EVENT.plural) else 0
    )
    operator = OperatorProcess(proxy.kubeconfig, tmp_path / "proxied.log", stage.worker_port, scope(ns))
    try:
        await stage.start()
        await operator.start()
        await stage.apply(feed(ns), pool(ns, room=1), trader(ns, "one"))
        await stage.until_reason(ns, "one", "Running")
        await stage.apply(trader(ns, "two"))
        await stage.until_reason(ns, "two", "PoolFull")
        # Nothing changes any more: it is the event alone that is tried again.
        await until_told_once(stage, ns, "two", "PoolFull")
        await until_told_once(stage, ns, "quants", "PoolFull")
        assert not troubles, "all three came"
        metrics = await operator.metrics()
        assert metrics["chandlery_operator_events_waiting"] == metrics["chandlery_operator_events_dropped_total"] == 0
    finally:
        operator.kill()
        await stage.stop()
        await proxy.stop()


async def test_what_an_operator_could_not_tell_before_it_was_killed_is_told_once_by_the_next(
    on_control_plane: Namespace, tmp_path: Path
) -> None:
    stage, ns = Stage(on_control_plane.cluster.kubeconfig, tmp_path), on_control_plane.name
    proxy = ApiProxy(stage.kubeconfig, tmp_path)
    await proxy.start()
    tried = 0

    def refuses(method: str, plural: str) -> int:
        nonlocal tried
        is_event = (method, plural) == ("POST", EVENT.plural)
        tried += is_event
        return 429 if is_event else 0

    operator = OperatorProcess(proxy.kubeconfig, tmp_path / "proxied.log", stage.worker_port, scope(ns))
    try:
        await stage.start()
        await operator.start()
        await stage.apply(feed(ns), pool(ns, room=1), trader(ns, "one"))
        await stage.until_reason(ns, "one", "Running")
        proxy.refuses = refuses
        await stage.apply(trader(ns, "two"))

        async def has_tried() -> bool:
            return tried >= 2  # of whichever is told first; the other waits behind it

        await stage.until("events that were not taken", has_tried)
        operator.kill()
        assert await told(stage, ns, "two") == await told(stage, ns, "quants") == []
        # Nothing changes any more: who comes next finds the statuses, and must still know what nobody was told.
        for _ in range(2):
            following = await stage.operator(*scope(ns))
            for name, kind in (("two", TRADER), ("quants", TRADER_POOL)):
                await stage.until_reason(ns, name, "PoolFull", kind)
                await until_told_once(stage, ns, name, "PoolFull")
            following.kill()
        assert await told(stage, ns, "one") == []
    finally:
        operator.kill()
        await stage.stop()
        await proxy.stop()
