"""What can be done with Traders in the console, who may, and that what others wrote stays text."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from playwright.async_api import Browser
from tests.console_api.stage import until
from tests.console_web import browsing
from tests.console_web.conftest import Served

from chandlery.console.settings import ConsoleSettings

pytestmark = pytest.mark.asyncio(loop_scope="module")

NAME = "default/eth-rsi-01"
HOSTILE = '<img src=x onerror="window.hacked=1"><script>window.hacked=2</script>'


async def test_a_trader_is_suspended_and_resumed_by_the_button(browser: Browser, served: Served) -> None:
    address = await served.start()
    backend = served.world.backend
    async with browsing.sight(browser, address) as sight:
        await sight.open("trader")
        await sight.page.get_by_role("button", name="Suspend").click()
        await sight.page.get_by_role("button", name="Resume").wait_for()
        assert backend.manifests[NAME].manifest["spec"]["suspend"] is True
        await sight.until("() => document.querySelector('.view-head .badge').textContent === 'Suspended'")
        assert "is suspended" in await sight.text("#toasts")
        await sight.page.get_by_role("button", name="Resume").click()
        await sight.page.get_by_role("button", name="Suspend").wait_for()
        assert backend.manifests[NAME].manifest["spec"]["suspend"] is False
        assert sight.complaints == []


async def test_an_edit_that_is_refused_shows_the_complaint_at_its_field(browser: Browser, served: Served) -> None:
    address = await served.start()
    async with browsing.sight(browser, address) as sight:
        page = sight.page
        await sight.open("trader")
        await page.get_by_role("button", name="Edit").click()
        area = page.locator("#editor textarea")
        manifest = json.loads(await area.input_value())
        manifest["spec"]["market"]["interval"] = "7 minutes"
        await area.fill(json.dumps(manifest, indent=2))
        await page.get_by_role("button", name="Save").click()
        error = page.locator("#editor .field-error")
        await error.get_by_text("interval").wait_for()
        assert (await error.inner_text()).startswith("Line ")
        assert await area.get_attribute("aria-invalid") == "true"
        chosen = await page.evaluate(
            "() => { const a = document.querySelector('#editor textarea'); return a.value.slice(a.selectionStart, a.selectionEnd) }"
        )
        assert '"7 minutes"' in chosen
        await area.fill("{")
        await page.get_by_role("button", name="Save").click()
        await error.get_by_text("This is no JSON").wait_for()
        manifest["spec"]["market"]["interval"] = "5m"
        await area.fill(json.dumps(manifest, indent=2))
        await page.get_by_role("button", name="Save").click()
        await page.locator("#editor").wait_for(state="detached")
        assert served.world.backend.manifests[NAME].manifest["spec"]["market"]["interval"] == "5m"


async def test_an_edit_over_somebody_elses_is_refused(browser: Browser, served: Served) -> None:
    address = await served.start()
    async with browsing.sight(browser, address) as sight:
        page = sight.page
        await sight.open("trader")
        await page.get_by_role("button", name="Edit").click()
        await page.locator("#editor textarea").wait_for()
        await served.world.backend.suspend("default", "eth-rsi-01", suspend=True)
        await page.get_by_role("button", name="Save").click()
        await page.locator("#editor .field-error").get_by_text("changed meanwhile").wait_for()


async def test_a_trader_is_made_from_a_template_and_deleted_after_asking(browser: Browser, served: Served) -> None:
    address = await served.start()
    backend = served.world.backend
    async with browsing.sight(browser, address) as sight:
        page = sight.page
        await sight.open("traders")
        await page.get_by_role("link", name="New Trader").click()
        await page.get_by_label("Template").select_option("macd")
        await page.get_by_role("button", name="Create").click()
        await page.get_by_role("heading", name="my-macd").wait_for()
        assert backend.manifests["default/my-macd"].manifest["spec"]["strategy"]["name"] == "macd"
        delete = page.get_by_role("button", name="Delete")
        await delete.click()
        assert "default/my-macd" in await page.locator("dialog").inner_text()
        await page.get_by_role("button", name="Cancel").click()
        assert "default/my-macd" in backend.manifests
        await delete.click()
        await page.locator("dialog .danger").click()
        await page.get_by_role("heading", name="Traders", exact=True, level=1).wait_for()
        assert "default/my-macd" not in backend.manifests
        assert sight.complaints == []


async def test_where_nothing_may_be_changed_nothing_is_offered(browser: Browser, served: Served) -> None:
    served.settings = ConsoleSettings(listen="127.0.0.1:0", read_only=True)
    address = await served.start()
    async with browsing.sight(browser, address) as sight:
        await sight.open("trader")
        await sight.page.get_by_text("Read-only: changes are refused here.").wait_for()
        assert await sight.page.get_by_role("button", name="Suspend").count() == 0
        await sight.show("traders")
        assert await sight.page.get_by_role("link", name="New Trader").count() == 0


async def test_who_keeps_a_trader_elsewhere_is_told(browser: Browser, served: Served) -> None:
    address = await served.start()
    name = next(name for name, kept in served.world.backend.manifests.items() if kept.kept_by)
    async with browsing.sight(browser, address) as sight:
        await sight.open()
        await sight.go(f"#/traders/{name}")
        await sight.page.get_by_text("Kept by Flux: kustomization default/traders: change it there").wait_for()


async def test_of_a_trader_kept_in_a_file_it_is_told_which_one_changes(browser: Browser, served: Served) -> None:
    address = await served.start()
    kept = served.world.backend.manifests
    name = next(name for name, written in kept.items() if not written.kept_by)
    kept[name] = replace(kept[name], kept_by="/home/me/traders/all.yaml")
    async with browsing.sight(browser, address) as sight:
        await sight.open()
        await sight.go(f"#/traders/{name}")
        await sight.page.get_by_text("Changes are written to /home/me/traders/all.yaml.").wait_for()


async def test_a_token_is_asked_for_and_kept_for_the_tab(browser: Browser, served: Served, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("the right one\n")
    served.settings = ConsoleSettings(listen="127.0.0.1:0", token_file=str(file))
    address = await served.start()
    async with browsing.sight(browser, address) as sight:
        page = sight.page
        await page.goto(f"{address}/")
        await page.locator("#login").wait_for()
        assert sight.complaints == []
        await page.keyboard.press("Escape")
        await page.get_by_role("button", name="Sign in").click()
        assert await page.evaluate("document.activeElement.id") == "token"
        await page.keyboard.type("a wrong one")
        await page.keyboard.press("Enter")
        await page.get_by_text("That isn't the token.").wait_for()
        assert await page.locator("dialog").count() == 1
        await page.locator("#token").fill("the right one")
        await page.keyboard.press("Enter")
        await page.wait_for_selector(".signal-row")
        await page.wait_for_selector("#link[data-state=live]")
        assert await page.evaluate("() => Object.values(localStorage).concat(document.cookie).join('')") == ""
        await page.reload()
        await page.wait_for_selector(".signal-row")
        assert await page.locator("dialog").count() == 0
        # One that holds no more is asked for again, and what is shown goes on with the new one.
        file.write_text("another one")
        await sight.go("#/signals")
        await page.locator("#login").wait_for()
        await page.locator("#token").fill("another one")
        await page.keyboard.press("Enter")
        await page.locator("#link[data-state=live]").wait_for()
        await page.locator("#view-signals .signal-row").first.wait_for()
        await page.get_by_role("button", name="Forget the token").click()
        await page.locator("#login").wait_for()


async def test_hostile_words_stay_words(browser: Browser, served: Served) -> None:
    world = served.world
    served.settings = ConsoleSettings(listen="127.0.0.1:0", trace_url="javascript:window.hacked=3//{trace_id}")
    for name, trader in world.backend.traders.items():
        world.backend.traders[name] = trader.model_copy(
            update={
                "message": HOSTILE,
                "reason": HOSTILE,
                "strategy": HOSTILE,
                "last_error": HOSTILE,
                "worker": HOSTILE,
            }
        )
    world.backend.notices.append(HOSTILE)
    newest = world.signals.events[-1][1].model_copy(
        update={"reason": HOSTILE, "rule": HOSTILE, "strategy": HOSTILE, "emitted_ms": 4_000_000_000_000}
    )
    detail = world.signals.details[newest.id].model_copy(
        update={"reason": HOSTILE, "rule": HOSTILE, "lifecycle": [(HOSTILE, 1)]}
    )
    world.signals.tell(newest, detail)
    address = await served.start(moves=False)
    async with browsing.sight(browser, address) as sight:
        page = sight.page
        await sight.open()
        for hash_, wait in (
            ("#/", ".signal-row"),
            ("#/traders", ".trader-table tbody tr"),
            ("#/traders/default/eth-rsi-01", ".manifest"),
            ("#/signals", ".signal-row"),
            (f"#/signals/{newest.id}", ".life li"),
        ):
            await sight.go(hash_)
            await page.wait_for_selector(wait)
            assert "<img src=x" in await sight.text("#main"), hash_
        assert await page.evaluate("() => document.querySelectorAll('main img, main script').length") == 0
        assert await page.evaluate("() => window.hacked") is None
        assert await page.get_by_role("link", name="Open the trace").count() == 0
        assert sight.complaints == []


async def test_a_deleted_trader_says_so_on_its_page(browser: Browser, served: Served) -> None:
    address = await served.start()
    async with browsing.sight(browser, address) as sight:
        await sight.open("trader")
        await served.world.backend.delete("default", "eth-rsi-01")
        await sight.page.get_by_text("This Trader is gone: somebody deleted it.").wait_for()
        await until(lambda: NAME not in served.world.backend.traders)
