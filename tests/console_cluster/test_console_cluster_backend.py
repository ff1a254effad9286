"""The cluster's backend follows what there is, and writes with the words of the API server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.console_cluster.api_server import ApiServer, a_trader, an_object, serving
from tests.workers_feed.feed_setup import until

from chandlery.console.backend import ConflictError, NotFoundError, RefusedError
from chandlery.console.backends import cluster
from chandlery.console.backends.cluster import ClusterBackend
from chandlery.console.backends.cluster_api import FieldError, KubeApi
from chandlery.console.backends.cluster_follow import Followed
from chandlery.console.backends.cluster_rows import edition_of, kept
from chandlery.console.settings import ClusterSettings
from chandlery.core.errors import LoginError, UnavailableError
from chandlery.core.kafka_login import KafkaLogin
from chandlery.core.kube_credentials import Credentials
from chandlery.core.settings import KafkaSettings

READY = {"type": "Ready", "status": "True", "reason": "Running", "lastTransitionTime": "2026-01-01T00:00:00Z"}


async def nowhere(name: str, port: int) -> Sequence[tuple[str, int]]:
    return []


@asynccontextmanager
async def running(credentials: Credentials, settings: ClusterSettings | None = None) -> AsyncIterator[ClusterBackend]:
    backend = ClusterBackend(settings or ClusterSettings(), credentials=credentials, resolve=nowhere, poll_s=0.05)
    await backend.start()
    try:
        yield backend
    finally:
        await backend.stop()


def names(backend: ClusterBackend) -> list[str]:
    backend._snapshot = None
    return [row.trader for row in backend.snapshot().traders]


async def listed(backend: ClusterBackend) -> None:
    await until("listed", lambda: not backend._away())


async def test_what_comes_changes_and_goes_is_seen() -> None:
    server = ApiServer()
    server.put("traders", a_trader("one"))
    async with serving(server) as credentials, running(credentials) as backend:
        await until("one", lambda: names(backend) == ["desk/one"])
        await until("watches", lambda: server.open_watches == 3)
        server.put("traders", a_trader("two"))
        await until("two", lambda: names(backend) == ["desk/one", "desk/two"])
        changed = a_trader("two", {"observedGeneration": 1, "conditions": [READY], "worker": "quants-0"})
        server.put("traders", changed)
        await until("ready", lambda: bool(names(backend)) and backend.snapshot().traders[1].ready)
        server.remove("traders", "one")
        await until("gone", lambda: names(backend) == ["desk/two"])


async def test_what_vanished_while_a_watch_was_too_old_is_no_ghost() -> None:
    server = ApiServer()
    server.put("traders", a_trader("ghost"))
    async with serving(server) as credentials, running(credentials) as backend:
        await until("watches", lambda: server.open_watches == 3)
        server.remove("traders", "ghost", silently=True)
        server.lose_version = "traders"
        server.cut()
        await until("gone", lambda: names(backend) == [])


async def test_an_api_server_that_is_away_is_said_once_and_what_was_known_is_shown() -> None:
    server = ApiServer()
    server.put("traders", a_trader("one"))
    async with serving(server) as credentials:
        port = int(credentials.server.rpartition(":")[2])
        backend = ClusterBackend(ClusterSettings(), credentials=credentials, resolve=nowhere, poll_s=0.05)
        await backend.start()
        await until("one", lambda: names(backend) == ["desk/one"])
        await listed(backend)
    try:
        await until("away", lambda: len(backend._away()) == 1 and "doesn't answer" in backend._away()[0])
        assert names(backend) == ["desk/one"]
        server.put("traders", a_trader("two"))
        async with serving(server, port):
            await until("back", lambda: names(backend) == ["desk/one", "desk/two"])
            await listed(backend)
    finally:
        await backend.stop()


async def test_a_part_that_ends_by_a_defect_is_said_and_the_others_go_on() -> None:
    server = ApiServer()
    server.put("traders", a_trader("one"))
    odd = an_object("TraderPool", "odd", {})
    del odd["metadata"]["name"]
    async with serving(server) as credentials:
        server.objects["traderpools", "desk", "odd"] = odd
        async with running(credentials) as backend:
            await until(
                "said", lambda: any("traderpools ended by a defect: KeyError" in one for one in backend._away())
            )
            await until("one", lambda: names(backend) == ["desk/one"])


async def test_a_defect_is_said_all_the_time_and_logged_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "_DEFECT_PAUSE_S", 0.01)
    backend = ClusterBackend(ClusterSettings(), credentials=Credentials("http://127.0.0.1:1", None))
    begun: list[bool] = []

    async def broken() -> None:
        begun.append("broken ended by a defect: KeyError: 'x'" in backend._away())
        raise KeyError("x")

    task = asyncio.create_task(backend._kept_running("broken", broken))
    await until("begun again", lambda: len(begun) > 3)
    task.cancel()
    assert not begun[0]
    assert all(begun[1:]), "it is said also while the part begins again"
    assert len([one for one in caplog.records if one.message == "a part ended"]) == 1


async def test_a_missing_right_is_said_with_the_servers_words() -> None:
    server = ApiServer()
    server.refuse = (403, {"kind": "Status", "reason": "Forbidden", "message": "User cannot list resource"})
    async with serving(server) as credentials, running(credentials) as backend:
        await until("forbidden", lambda: any("cannot list resource" in said for said in backend._away()))
        with pytest.raises(UnavailableError, match="can't be looked at"):
            await backend.manifest("desk", "one")


async def test_a_cluster_without_chandlery_says_so() -> None:
    server = ApiServer()
    server.refuse = (404, {"kind": "Status", "reason": "NotFound", "message": "the server could not find it"})
    async with serving(server) as credentials, running(credentials) as backend:
        await until("absent", lambda: len(backend._away()) == 1 and "CustomResourceDefinitions" in backend._away()[0])


def manifest(name: str, **meta: object) -> dict[str, object]:
    item = a_trader(name)
    return {
        "apiVersion": item["apiVersion"], "kind": "Trader", "metadata": {"name": name, "namespace": "desk", **meta},
        "spec": item["spec"],
    }  # fmt: skip


async def test_a_trader_is_made_edited_suspended_and_deleted() -> None:
    server = ApiServer()
    async with serving(server) as credentials, running(credentials) as backend:
        await listed(backend)
        made = await backend.create(manifest("new", labels={"team": "a"}, uid="forged"))
        assert made.manifest["metadata"] == {"name": "new", "namespace": "desk", "labels": {"team": "a"}}
        assert names(backend) == ["desk/new"], "a write is seen at once"
        with pytest.raises(ConflictError, match="already exists"):
            await backend.create(manifest("new"))
        edited = manifest("new")
        edited["spec"] = {**a_trader("new")["spec"], "trigger": "EveryUpdate"}
        told = await backend.replace(edited, made.resource_version)
        assert told.manifest["spec"]["trigger"] == "EveryUpdate"
        assert told.manifest["metadata"]["labels"] == {"team": "a"}, "a label that an edit leaves out stays"
        with pytest.raises(ConflictError, match="somebody else"):
            await backend.replace(edited, made.resource_version)
        assert (await backend.suspend("desk", "new", suspend=True)).manifest["spec"]["suspend"] is True
        assert backend.snapshot().traders[0].state == "Suspended"
        await backend.delete("desk", "new")
        assert names(backend) == []
        with pytest.raises(NotFoundError):
            await backend.delete("desk", "new")
        with pytest.raises(NotFoundError):
            await backend.manifest("desk", "new")
    strict = [query for method, _, query in server.requests if method in ("POST", "PUT", "PATCH")]
    assert strict
    assert all(query == {"fieldManager": "chandlery-console", "fieldValidation": "Strict"} for query in strict)


async def test_a_status_that_was_written_meanwhile_is_no_conflict() -> None:
    server = ApiServer()
    before = server.put("traders", a_trader("one"))
    async with serving(server) as credentials, running(credentials) as backend:
        await until("one", lambda: names(backend) == ["desk/one"])
        version = (await backend.manifest("desk", "one")).resource_version
        server.put("traders", {**before, "status": {"signals": 3}})
        await backend.replace(manifest("one"), version)


@pytest.mark.parametrize("notes", [{"annotations": {"chandlery.dev/approved": "1"}}, {"labels": {"team": "b"}}])
async def test_an_approval_that_was_made_meanwhile_is_a_conflict(notes: dict[str, dict[str, str]]) -> None:
    server = ApiServer()
    before = server.put("traders", a_trader("one", annotations={"chandlery.dev/approved": "0"}))
    async with serving(server) as credentials, running(credentials) as backend:
        await until("one", lambda: names(backend) == ["desk/one"])
        looked = await backend.manifest("desk", "one")
        server.put("traders", {**before, "metadata": {**before["metadata"], **notes}})
        with pytest.raises(ConflictError, match="somebody else"):
            await backend.replace(looked.manifest, looked.resource_version)
    assert server.objects["traders", "desk", "one"]["metadata"].items() >= notes.items()


def test_what_a_tool_notes_for_itself_is_no_edit() -> None:
    noted = a_trader("one", annotations={"kubectl.kubernetes.io/last-applied-configuration": "{}"}, resourceVersion="9")
    assert edition_of(noted) == edition_of(a_trader("one"))
    assert edition_of(a_trader("one", labels={"b": "1", "a": "2"})) == edition_of(a_trader("one", labels={"a": "2", "b": "1"}))  # fmt: skip


@pytest.mark.parametrize(("version", "there"), [("104", False), ("105", False), ("106", True), ("opaque", False)])
def test_an_answer_that_the_watch_is_past_brings_nothing_back(version: str, there: bool) -> None:
    followed = Followed(KubeApi(Credentials("http://127.0.0.1:1", None)), "traders", "", kept)
    followed._version = "105"  # of the watch's DELETED
    followed.put(a_trader("ghost", resourceVersion=version))
    assert (("desk", "ghost") in followed.objects) is there


@pytest.mark.parametrize(
    ("code", "body", "field", "says"),
    [
        (
            422,
            {
                "reason": "Invalid",
                "message": "Trader is invalid",
                "details": {"causes": [{"field": "spec.market.interval", "message": 'Invalid value: "1x"'}]},
            },
            "spec.market.interval",
            'spec.market.interval: Invalid value: "1x"',
        ),
        (400, {"message": 'strict decoding error: unknown field "spec.sped"'}, "spec.sped", "strict decoding error"),
        (413, {"message": "Request entity too large"}, "", "too large"),
    ],
)
async def test_what_the_server_finds_wrong_comes_back_with_its_field(code: int, body: dict[str, object], field: str, says: str) -> None:  # fmt: skip
    server = ApiServer()
    server.refuse_write = (code, {"kind": "Status", **body})
    async with serving(server) as credentials, running(credentials) as backend:
        await listed(backend)
        with pytest.raises(FieldError, match=says) as raised:
            await backend.create(manifest("bad"))
    assert raised.value.field == field


async def test_a_write_without_the_right_is_refused_and_one_elsewhere_too() -> None:
    server = ApiServer()
    server.put("traders", a_trader("one"))
    server.refuse_write = (403, {"kind": "Status", "reason": "Forbidden", "message": "cannot patch"})
    async with serving(server) as credentials, running(credentials, ClusterSettings(namespaces=["desk"])) as backend:
        await listed(backend)
        with pytest.raises(RefusedError, match="cannot patch"):
            await backend.suspend("desk", "one", suspend=True)
        with pytest.raises(RefusedError, match="looks at desk alone"):
            await backend.delete("other", "one")


async def test_a_feeds_kafka_is_where_its_status_says_and_as_its_spec_says() -> None:
    server = ApiServer()
    synthetic = {"source": {"synthetic": {"seed": 1}}, "symbols": "auto"}
    server.put("marketfeeds", an_object("MarketFeed", "plain", synthetic, {"bootstrapServers": "kafka:9092"}))
    kafka = {"bootstrapServers": "k:9093", "topicPrefix": "p.", "strimzi": {"cluster": "main", "user": "desk"}}
    server.put("marketfeeds", an_object("MarketFeed", "secured", {**synthetic, "kafka": kafka}))
    server.put("marketfeeds", an_object("MarketFeed", "unseen", synthetic))
    server.put("marketfeeds", an_object("MarketFeed", "other", {"source": {"of-a-later-version": {}}}))
    own = KafkaSettings("mine:1", "desk.plain")
    async with serving(server) as credentials, running(credentials) as backend:
        await until("feeds", lambda: len(backend.snapshot().feeds) == 4)
        told = {one.feed: one.kafka for one in backend.kafkas()}
        assert told.keys() == {"desk/plain", "desk/secured"}
        assert (told["desk/plain"].bootstrap, told["desk/plain"].feed) == ("kafka:9092", "desk.plain")
        assert told["desk/secured"].security.strimzi_user == "/etc/chandlery/kafka/desk/desk"
        assert told["desk/secured"].prefix == "p."
        backend._settings = ClusterSettings(kafka={"desk/plain": own})
        assert {one.feed: one.kafka for one in backend.kafkas()}["desk/plain"] == own


async def test_a_feed_of_another_namespace_gets_no_login_and_is_told_which_secret_it_lacks(tmp_path: Path) -> None:
    (tmp_path / "desk" / "desk-kafka").mkdir(parents=True)
    (tmp_path / "desk" / "desk-kafka" / "password").write_text("of the desk")
    login = {"type": "scram-sha-512", "username": "desk", "passwordSecret": {"secretName": "desk-kafka"}}
    spec = {"source": {"synthetic": {"seed": 1}}, "symbols": "auto", "kafka": {"bootstrapServers": "k:9093", "authentication": login}}  # fmt: skip
    server = ApiServer()
    server.put("marketfeeds", an_object("MarketFeed", "market", spec))
    server.put("marketfeeds", an_object("MarketFeed", "market", spec, namespace="evil"))
    async with serving(server) as credentials:
        backend = ClusterBackend(
            ClusterSettings(), credentials=credentials, resolve=nowhere, poll_s=0.05, secrets=str(tmp_path)
        )
        await backend.start()
        try:
            await until("feeds", lambda: len(backend.kafkas()) == 2)
            told = {one.feed: one.kafka.security for one in backend.kafkas()}
            backend._snapshot = None
            (notice,) = [one for one in backend.snapshot().notices if "Secret" in one]
        finally:
            await backend.stop()
    assert KafkaLogin(told["desk/market"]).current().password == "of the desk"
    with pytest.raises(LoginError, match="Secret evil/desk-kafka"):
        KafkaLogin(told["evil/market"]).current()
    assert "evil/market can't be read" in notice
    assert "Secret evil/desk-kafka" in notice
    assert "console.kafkaSecrets" in notice
