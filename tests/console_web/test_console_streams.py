"""The one stream: it is cut and goes on where it was; what fails says so and leaves the others live."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from playwright.async_api import Browser, Page, Route
from tests.console_api.stage import signal, until
from tests.console_web import browsing
from tests.console_web.conftest import Served
from tests.console_web.cut_proxy import cut_proxy

from chandlery.console.api.models import Signal
from chandlery.core.errors import UnavailableError

pytestmark = pytest.mark.asyncio(loop_scope="module")

IDS = "() => [...document.querySelectorAll('.signal-row a')].map(a => a.hash.split('/').pop())"


def known(number: int, **changes: Any) -> Signal:
    """A signal whose stages are known."""
    return signal(number, stages=[("decided", 120.0), ("acknowledged", 900.0)], frame_to_signal_us=1_020.0, **changes)


async def shown(page: Page, wanted: list[str]) -> None:
    """Wait until the list has these signals in this order, each once, and nothing else."""
    await page.wait_for_function(
        "wanted => JSON.stringify([...document.querySelectorAll('.signal-row a')].map(a => a.hash.split('/').pop()))"
        " === wanted",
        arg=json.dumps(wanted, separators=(",", ":")),
    )


async def test_a_cut_stream_says_so_and_resumes_without_a_missing_or_doubled_signal(
    browser: Browser, served: Served
) -> None:
    served.world.signals.events.clear()
    told = [known(number) for number in range(1, 4)]
    address = await served.start(moves=False)
    async with cut_proxy(address) as (proxy, through), browsing.sight(browser, through) as sight:
        page = sight.page
        resumed: list[str] = []
        page.on(
            "request",
            lambda request: (
                resumed.append(request.headers.get("last-event-id", "")) if "/live?" in request.url else None
            ),
        )
        await page.goto(f"{through}/#/signals")
        await page.wait_for_selector("#link[data-state=live]")
        await until(lambda: served.world.signals.following == 1)
        position = ""
        for one in told:
            position = served.world.signals.tell(one)
        await shown(page, [one.id for one in reversed(told)])
        assert resumed == [""]

        await proxy.cut()
        await page.wait_for_selector("#link[data-state=reconnecting]")
        assert "Reconnecting…" in await page.locator("#link").inner_text()
        missed = [known(number) for number in range(4, 7)]
        for one in missed:
            served.world.signals.tell(one)
        await proxy.mend()
        await page.wait_for_selector("#link[data-state=live]")
        after = known(7)
        await until(lambda: served.world.signals.following == 1)
        served.world.signals.tell(after)
        await shown(page, [one.id for one in reversed([*told, *missed, after])])
        assert position in resumed


async def test_a_signal_that_comes_while_a_view_opens_is_not_missed(browser: Browser, served: Served) -> None:
    served.world.signals.events.clear()
    address = await served.start(moves=False)
    async with browsing.sight(browser, address) as sight:
        held: asyncio.Queue[Route] = asyncio.Queue()
        await sight.page.route("**/api/v1/live?*", held.put)
        await sight.page.goto(f"{address}/#/signals")
        waiting = await held.get()
        # Nobody is told of it yet: only who asks after the stream has begun learns of it.
        served.world.signals.tell(known(1))
        await waiting.continue_()
        await shown(sight.page, [known(1).id])


async def test_a_hole_longer_than_a_page_is_closed(browser: Browser, served: Served) -> None:
    served.world.signals.events.clear()
    address = await served.start(moves=False)
    async with browsing.sight(browser, address) as sight:
        await sight.page.goto(f"{address}/#/signals")
        await until(lambda: served.world.signals.following == 1)
        signals = served.world.signals
        signals.tell(known(1))
        await shown(sight.page, [known(1).id])
        # More than a page is lost to the stream; the gap it tells is the only sign.
        signals.events.extend((signals.told + number, known(number)) for number in range(2, 133))
        signals.told += 200
        signals.tell(known(200))
        await shown(sight.page, [known(number).id for number in (200, *range(132, 0, -1))])


async def test_a_person_can_have_it_tried_again_at_once(browser: Browser, served: Served) -> None:
    address = await served.start()
    phone = {"width": 320, "height": 700}
    async with cut_proxy(address) as (proxy, through), browsing.sight(browser, through, viewport=phone) as sight:
        await sight.open()
        await proxy.cut()
        again = sight.page.get_by_role("button", name="Try now")
        await again.wait_for()
        assert await sight.overflow() <= 0
        await proxy.mend()
        await again.click()
        await sight.page.wait_for_selector("#link[data-state=live]")
        assert await again.is_hidden()


async def test_a_gap_is_closed_by_asking(browser: Browser, served: Served) -> None:
    served.world.signals.events.clear()
    address = await served.start(moves=False)
    async with browsing.sight(browser, address) as sight:
        await sight.page.goto(f"{address}/#/signals")
        await until(lambda: served.world.signals.following == 1)
        # Records that fell out of what is kept while the stream was busy: the list itself still knows them.
        signals = served.world.signals
        signals.told += 5
        signals.events.append((signals.told - 1, known(1)))
        signals.events.append((signals.told, known(2)))
        signals.tell(known(3))
        await shown(sight.page, [known(number).id for number in (3, 2, 1)])


async def test_a_hidden_tab_gives_its_connection_back_and_misses_nothing(browser: Browser, served: Served) -> None:
    served.world.signals.events.clear()
    address = await served.start(moves=False)
    async with browsing.sight(browser, address) as sight:
        page, signals = sight.page, served.world.signals
        await page.clock.install()
        await page.goto(f"{address}/#/signals")
        await page.clock.run_for(1_000)
        await until(lambda: signals.following == 1)
        signals.tell(known(1))
        await shown(page, [known(1).id])
        look = """state => { Object.defineProperty(document, "visibilityState", {value: state, configurable: true});
            document.dispatchEvent(new Event("visibilitychange")) }"""
        await page.evaluate(look, "hidden")
        await page.clock.run_for(70_000)
        await page.locator("#link[data-state=paused]").wait_for()
        await until(lambda: signals.following == 0)
        signals.tell(known(2))
        await page.evaluate(look, "visible")
        await page.locator("#link[data-state=live]").wait_for()
        await shown(page, [known(2).id, known(1).id])


async def test_one_panel_that_fails_says_so_and_leaves_the_others_live(browser: Browser, served: Served) -> None:
    address = await served.start()
    async with browsing.sight(browser, address) as sight:
        page = sight.page
        await sight.open()
        signals = page.get_by_role("region", name="Newest signals")
        traders = page.get_by_role("region", name="Traders", exact=True).first
        rows = await signals.locator(".signal-row").count()
        served.world.signals.fail(UnavailableError("Kafka of default/binance can't be reached"))
        error = signals.locator(".panel-error")
        await error.wait_for()
        assert "Kafka of default/binance can't be reached" in await error.inner_text()
        # What was known stays, and the others go on.
        assert await signals.locator(".signal-row").count() == rows
        assert await traders.locator(".panel-error:visible").count() == 0
        name = next(iter(served.world.backend.traders))
        served.world.backend.traders[name] = served.world.backend.traders[name].model_copy(
            update={"state": "Backoff", "ready": False, "reason": "Exited"}
        )
        await traders.get_by_text("Backoff").wait_for()
        assert await page.locator("#link").get_attribute("data-state") == "live"
        served.world.signals.fail(None)
        await error.wait_for(state="hidden")


async def test_an_answer_to_what_was_asked_before_a_failure_does_not_hide_it(browser: Browser, served: Served) -> None:
    address = await served.start(moves=False)
    served.world.signals.tell(known(1))
    answered, goes_on = asyncio.Event(), asyncio.Event()

    async def held_up(route: Route) -> None:
        answer = await route.fetch()
        answered.set()
        await goes_on.wait()
        await route.fulfill(response=answer)

    async with browsing.sight(browser, address) as sight:
        page = sight.page
        await page.route("**/api/v1/signals?*", held_up)
        await page.goto(f"{address}/#/")
        await answered.wait()
        served.world.signals.fail(UnavailableError("Kafka of default/binance can't be reached"))
        panel = page.get_by_role("region", name="Newest signals")
        error = panel.get_by_text("Kafka of default/binance can't be reached")
        await error.wait_for()
        goes_on.set()
        await panel.locator(".signal-row").first.wait_for()
        assert await error.is_visible(), "what was known stays, and what is wrong too"
        served.world.signals.fail(None)
        served.world.signals.tell(known(2))
        await error.wait_for(state="hidden")


async def broken(page: Page, module: str, line: str) -> None:
    """Have a module of the console throw where it had this line."""

    async def rewritten(route: Route) -> None:
        answer = await route.fetch()
        text = await answer.text()
        assert text.count(line) == 1
        await route.fulfill(response=answer, body=text.replace(line, 'throw new Error("a fault of its own");'))

    await page.route(f"**/js/views/{module}.js", rewritten)


async def test_a_panel_or_a_view_that_throws_says_so_and_leaves_the_stream_and_the_others_alone(
    browser: Browser, served: Served
) -> None:
    address = await served.start()
    async with browsing.sight(browser, address) as sight:
        page = sight.page
        streams: list[str] = []
        page.on("request", lambda request: streams.append(request.url) if "/live?" in request.url else None)
        await broken(page, "overview", "showTiles(tiles, now);")
        await broken(page, "memory", "put(segments.body, loading());")
        await sight.open()
        error = page.get_by_role("region", name="At a glance").locator(".panel-error")
        await error.wait_for()
        assert "a fault of the console" in await error.inner_text()
        # News of another panel, after more than one that the first can't show.
        await until(lambda: sum("a panel can't show what came" in told for told in sight.complaints) > 1)
        name = next(iter(served.world.backend.traders))
        served.world.backend.traders[name] = served.world.backend.traders[name].model_copy(
            update={"state": "Backoff", "ready": False, "reason": "Exited"}
        )
        await page.get_by_role("region", name="Traders", exact=True).first.get_by_text("Backoff").wait_for()
        assert await page.locator("#link").get_attribute("data-state") == "live"
        assert len(streams) == 1, "it was never cut"

        await sight.go("#/memory")
        await page.locator("#view-memory").get_by_text("a fault of the console").wait_for()
        await sight.show("traders")
        assert any("the view memory can't be shown" in told for told in sight.complaints)


async def test_a_panel_whose_question_fails_offers_to_ask_again(browser: Browser, served: Served) -> None:
    address = await served.start()
    served.world.market.failing = UnavailableError("candles can't be read")
    async with browsing.sight(browser, address) as sight:
        page = sight.page
        await sight.open()
        await sight.go("#/traders/default/eth-rsi-01")
        candles = page.get_by_role("region", name="Candles and signals")
        await candles.locator(".panel-error").wait_for()
        assert "candles can't be read" in await candles.locator(".panel-error").inner_text()
        await page.get_by_role("region", name="Figures").get_by_text("rsi-reversion").wait_for()
        served.world.market.failing = None
        await page.wait_for_selector(".chart-box[data-candles]:not([data-candles='0'])")
        await candles.locator(".panel-error").wait_for(state="hidden")
        await page.route("**/api/v1/traders/default/none", lambda route: route.fulfill(status=503))
        await sight.go("#/traders/default/none")
        await page.get_by_text("This Trader can’t be asked after now.").wait_for()
        assert await page.get_by_text("Nothing is known of this Trader.").count() == 0, "it may well be there"


async def test_a_server_that_is_away_at_first_is_waited_for(browser: Browser, served: Served) -> None:
    address = await served.start()
    async with browsing.sight(browser, address) as sight:
        page = sight.page
        await page.route("**/api/v1/config", lambda route: route.abort())
        await page.goto(f"{address}/")
        await page.get_by_text("The server can't be reached. Trying again…").wait_for()
        await page.unroute("**/api/v1/config")
        await page.wait_for_selector(".signal-row")


async def test_all_that_is_shown_comes_by_one_stream(browser: Browser, served: Served) -> None:
    address = await served.start()
    async with browsing.sight(browser, address) as sight:
        assert served.app is not None
        streams = served.app.state.services.streams
        await sight.open("trader")
        for view in ("signals", "feeds", "trader", "overview"):
            await sight.show(view)
        async with asyncio.timeout(10):
            await until(lambda: streams.open == 1)
        assert sight.complaints == []
