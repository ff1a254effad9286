"""Who may call: tokens, Host, Origin, CORS, content types and lengths."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.console_api.lively import manifest_of
from tests.console_api.stage import Stage

from chandlery.console.api.guard import is_loopback_name
from chandlery.console.api.problems import MOST_BODY_BYTES
from chandlery.core.errors import InputError

READS = ["overview", "traders", "pools", "feeds", "signals", "latency", "memory", "openapi.json"]


@pytest.mark.parametrize("given", [None, "", "Bearer", "Bearer wrong", "Bearer right!", "Basic right", "right", "bearer  right"])  # fmt: skip
async def test_without_the_right_token_nothing_is_told(stage: Stage, token: str, given: str | None) -> None:
    async with stage.ask(headers={} if given is None else {"Authorization": given}) as api:
        for path in [*READS, "nothing", "live?topics=overview"]:
            answer = await api.get(path)
            assert answer.status_code == 401, path
            assert answer.headers["WWW-Authenticate"].startswith("Bearer")
            problem = answer.json()
            assert (problem["reason"], problem["field"]) == ("Unauthorized", "Authorization")
            assert token not in answer.text


async def test_the_right_token_is_let_in_under_any_host_name(stage: Stage, token: str) -> None:
    async with stage.ask(headers={"Authorization": f"Bearer {token}", "Host": "desk.example.com"}) as api:
        assert {(await api.get(path)).status_code for path in READS} == {200}


async def test_a_token_that_is_changed_counts_at_once_and_one_that_is_gone_lets_nobody_in(
    stage: Stage, token: str
) -> None:
    file = Path(stage.settings.token_file)
    async with stage.ask() as api:
        file.write_text("another one")
        assert (await api.get("overview", headers={"Authorization": f"Bearer {token}"})).status_code == 401
        assert (await api.get("overview", headers={"Authorization": "Bearer another one"})).status_code == 200
        file.unlink()
        assert (await api.get("overview", headers={"Authorization": "Bearer another one"})).status_code == 401


async def test_health_and_config_need_no_token(stage: Stage, token: str) -> None:
    async with stage.ask() as api:
        assert (await api.get("healthz")).json() == {"status": "ok"}
        assert (await api.get("config")).json() == {
            "version": stage.services.version,
            "mode": "local",
            "token_required": True,
            "trace_url": "",
            "writable": True,
        }


@pytest.mark.parametrize("listen", ["0.0.0.0:0", ":8420", "192.0.2.7:80", "console.example.com:80", "[::]:80"])
def test_an_address_that_others_reach_is_refused_without_a_token(stage: Stage, listen: str) -> None:
    stage.settings.listen = listen
    with pytest.raises(InputError, match="token_file"):
        _ = stage.app


@pytest.mark.parametrize("listen", ["0.0.0.0:0", "127.0.0.1:0", "[::1]:0", "localhost:0", "unix:/run/x/api.sock"])
def test_loopback_sockets_and_servers_with_a_token_may_listen(stage: Stage, token: str, listen: str) -> None:
    stage.settings.listen = listen
    if not listen.startswith("0."):
        stage.settings.token_file = ""
    assert stage.app


@pytest.mark.parametrize("host", ["evil.example.com", "evil.example.com:8420", "127.0.0.1.evil.example.com", "localhost.evil.example.com", "0.0.0.0", "", "[", "user@evil.example.com"])  # fmt: skip
async def test_a_name_that_was_pointed_to_loopback_is_refused(stage: Stage, host: str) -> None:
    async with stage.ask() as api:
        answer = await api.get("traders", headers={"Host": host})
    assert answer.status_code == 403
    assert answer.json()["reason"] == "UnknownHost"


@pytest.mark.parametrize("host", ["127.0.0.1:8420", "localhost", "LOCALHOST:1", "[::1]:8420", "127.3.2.1", "desk.example.com"])  # fmt: skip
async def test_loopback_names_and_allowed_hosts_are_served(stage: Stage, host: str) -> None:
    stage.settings.allowed_hosts = ["Desk.example.com"]
    async with stage.ask() as api:
        assert (await api.get("traders", headers={"Host": host})).status_code == 200


@pytest.mark.parametrize("origin", ["https://evil.example.com", "null", "http://127.0.0.1:9", "http://127.0.0.1.evil.example.com", "http://["])  # fmt: skip
@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_a_foreign_page_may_not_call(stage: Stage, origin: str, method: str) -> None:
    async with stage.ask() as api:
        answer = await api.request(method, "traders/default/alpha", headers={"Origin": origin})
    assert answer.status_code == 403
    assert answer.json()["reason"] == "ForeignOrigin"
    assert "Access-Control-Allow-Origin" not in answer.headers
    assert "default/alpha" in stage.backend.manifests


async def test_another_sites_page_can_t_open_streams_by_an_image(api: httpx.AsyncClient) -> None:
    answer = await api.get("live?topics=overview", headers={"Sec-Fetch-Site": "cross-site"})
    assert answer.status_code == 403


async def test_our_own_page_may_call(stage: Stage) -> None:
    async with stage.ask() as api:
        own = {"Origin": "http://127.0.0.1", "Sec-Fetch-Site": "same-origin"}
        assert (await api.delete("traders/default/alpha", headers=own)).status_code == 204


async def test_an_allowed_origin_may_call_and_is_told_so(stage: Stage) -> None:
    stage.settings.allowed_origins = ["https://desk.example.com"]
    async with stage.ask() as api:
        answer = await api.get("traders", headers={"Origin": "https://desk.example.com"})
        assert answer.status_code == 200
        assert answer.headers["Access-Control-Allow-Origin"] == "https://desk.example.com"
        assert answer.headers["Vary"] == "Origin"
        asked = {"Origin": "https://desk.example.com", "Access-Control-Request-Method": "PUT"}
        preflight = await api.options("traders/default/alpha", headers=asked)
        assert preflight.status_code == 204
        assert "PUT" in preflight.headers["Access-Control-Allow-Methods"]
        assert "If-Match" in preflight.headers["Access-Control-Allow-Headers"]
        foreign = await api.options("traders", headers={**asked, "Origin": "https://other.example.com"})
        assert foreign.status_code == 403
        assert "Access-Control-Allow-Methods" not in foreign.headers


@pytest.mark.parametrize("content_type", [None, "text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "application/jsonp", "application/yaml"])  # fmt: skip
async def test_a_body_of_another_type_is_refused(stage: Stage, content_type: str | None) -> None:
    headers = {"Content-Type": content_type} if content_type else {}
    async with stage.ask() as api:
        answer = await api.post("traders", content=b'{"kind": "Trader"}', headers=headers)
    assert answer.status_code == 415
    assert answer.json()["field"] == "Content-Type"
    assert stage.backend.asked == []


async def test_a_charset_beside_the_type_is_fine(stage: Stage) -> None:
    body: Any = manifest_of("default/new", "default/standard", "macd", ["BTC/USDT"])
    async with stage.ask(headers={"Content-Type": "application/json; charset=utf-8"}) as api:
        assert (await api.post("traders", json=body)).status_code == 201


async def test_a_body_that_says_it_is_too_long_isn_t_read(api: httpx.AsyncClient, stage: Stage) -> None:
    answer = await api.post(
        "traders", content=b"[" * (MOST_BODY_BYTES + 1), headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == 413
    assert answer.json()["reason"] == "TooLong"


async def test_a_body_without_a_length_is_read_no_further_than_allowed(api: httpx.AsyncClient, stage: Stage) -> None:
    given = 0

    async def endless() -> Any:
        nonlocal given
        while True:
            given += 65_536
            yield b" " * 65_536

    answer = await api.post("traders", content=endless(), headers={"Content-Type": "application/json"})
    assert answer.status_code == 413
    assert given <= MOST_BODY_BYTES + 2 * 65_536
    assert stage.backend.asked == []


@pytest.mark.parametrize("body", [b"", b"{", b"[" * 100_000, b'{"a": ' + b"9" * 5_000 + b"}", b"\xff\xfe", b"\x00"])
async def test_what_is_no_json_is_a_problem(api: httpx.AsyncClient, body: bytes) -> None:
    answer = await api.post("traders", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code in (400, 422)
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json()["status"] == answer.status_code


@pytest.mark.parametrize(("host", "is_one"), [("127.0.0.1", True), ("::1", True), ("[::1]", True), ("localhost.", True), ("a.localhost", True), ("127.0.0.1.nip.io", False), ("10.0.0.1", False), ("", False), ("0.0.0.0", False)])  # fmt: skip
def test_loopback_is_told_from_what_looks_like_it(host: str, is_one: bool) -> None:
    assert is_loopback_name(host) is is_one
