"""The console's own files: how they are served, and what is never served."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from tests.console_api.stage import Stage

from chandlery.console.api.pages import Pages


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "static"
    (made / "js").mkdir(parents=True)
    (made / "index.html").write_text("<!doctype html><title>Chandlery</title>")
    (made / "js" / "main.js").write_text("export {};")
    (made / "js" / "chart.mjs").write_text("export {};")
    (made / "style.css").write_text("body {}")
    (made / ".hidden").write_text("secret")
    (tmp_path / "outside.txt").write_text("secret")
    (made / "link.txt").symlink_to(tmp_path / "outside.txt")
    return made


@pytest.fixture
def site(stage: Stage, folder: Path) -> httpx.AsyncClient:
    app: FastAPI = stage.app
    app.router.default = Pages(folder)
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1")


@pytest.mark.parametrize(
    ("path", "content_type"),
    [("/", "text/html"), ("/index.html", "text/html"), ("/js/main.js", "text/javascript"), ("/js/chart.mjs", "text/javascript"), ("/style.css", "text/css")],
)  # fmt: skip
async def test_files_are_served_under_a_strict_policy_and_asked_for_again(
    site: httpx.AsyncClient, path: str, content_type: str
) -> None:
    answer = await site.get(path)
    assert answer.status_code == 200
    assert answer.headers["Content-Type"].startswith(content_type)
    assert answer.headers["Cache-Control"] == "no-cache"
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "script-src" not in policy
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    again = await site.get(path, headers={"If-None-Match": answer.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["Cache-Control"] == "no-cache"


async def test_a_file_that_changed_has_another_etag(site: httpx.AsyncClient, folder: Path) -> None:
    before = (await site.get("/style.css")).headers["ETag"]
    (folder / "style.css").write_text("body { color: red }")
    answer = await site.get("/style.css", headers={"If-None-Match": before})
    assert (answer.status_code, answer.text) == (200, "body { color: red }")


@pytest.mark.parametrize("path", ["/.hidden", "/js/../.hidden", "/%2e%2e/outside.txt", "/..%2foutside.txt", "/js/%2e%2e/%2e%2e/outside.txt", "/link.txt", "/%00", "/js", "/nothing", "//etc/passwd", "/api/v1/../../style.css"])  # fmt: skip
async def test_what_isn_t_the_console_s_is_never_served(site: httpx.AsyncClient, path: str) -> None:
    answer = await site.get(path)
    if path.endswith("style.css"):
        assert answer.status_code in (200, 404)
        return
    assert answer.status_code in (307, 404)
    assert "secret" not in answer.text


async def test_pages_are_only_read(site: httpx.AsyncClient) -> None:
    assert (await site.head("/")).status_code == 200
    answer = await site.post("/", content=b"{}", headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.headers["Content-Type"]) == (405, "application/problem+json")


async def test_without_a_console_the_api_is_served_alone(stage: Stage, tmp_path: Path) -> None:
    stage.app.router.default = Pages(tmp_path / "none")
    async with stage.ask() as api:
        assert (await api.get("http://127.0.0.1/")).status_code == 404
        assert (await api.get("overview")).status_code == 200


async def test_the_page_needs_no_token_for_it_asks_for_one(stage: Stage, token: str, folder: Path) -> None:
    stage.app.router.default = Pages(folder)
    async with stage.ask() as api:
        assert (await api.get("http://127.0.0.1/")).status_code == 200


@pytest.mark.parametrize("path", ["/docs", "/redoc", "/openapi.json", "/docs/oauth2-redirect"])
async def test_no_page_is_there_that_loads_from_elsewhere(site: httpx.AsyncClient, path: str) -> None:
    assert (await site.get(path)).status_code == 404
