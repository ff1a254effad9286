"""Every view in a real browser: it has its data, complains of nothing, fits a phone, and can be walked by keyboard."""

from __future__ import annotations

import pytest
from playwright.async_api import Browser
from tests.console_web import browsing
from tests.console_web.browsing import VIEWS, Sight
from tests.console_web.legible import FAULTS

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.mark.parametrize("view", VIEWS)
async def test_a_view_shows_its_data_and_complains_of_nothing(sight: Sight, view: str) -> None:
    await sight.open(view)
    await sight.seen("#link[data-state=live]")
    assert await sight.text("#link") == "Live"
    assert await sight.page.locator(".panel-error:visible").count() == 0
    assert "undefined" not in await sight.text("#main")
    assert "NaN" not in await sight.text("#main")


async def test_a_first_look_answers_without_a_click(sight: Sight) -> None:
    await sight.open()
    await sight.until("() => document.querySelectorAll('.tile-value').length === 5")
    tiles = {
        (await tile.locator(".tile-label").inner_text()): await tile.locator(".tile-value").inner_text()
        for tile in await sight.page.locator(".tile").all()
    }
    assert tiles["Feeds alive"] == "2/2"
    assert tiles["Traders Ready"] == "18/19"
    assert float(tiles["Signals a minute"]) > 0
    assert tiles["p99 frame to signal"].endswith("ms")
    assert tiles["Memory"].endswith("MB")
    assert "btc-donchian-03" in await sight.text(".attention")
    # The worst first, its state in words.
    assert await sight.text(".trader-table tbody tr .badge") == "CrashLoop"
    assert await sight.page.locator(".trader-table tbody tr").first.locator(".spark").count() == 1
    assert await sight.page.locator(".signal-row").first.locator(".stages").count() == 1


async def test_the_traders_table_filters_and_sorts(sight: Sight) -> None:
    await sight.open("traders")
    assert await sight.page.locator(".trader-table tbody tr").count() == 20
    await sight.page.get_by_label("Filter").fill("macd research")
    await sight.until("() => document.querySelectorAll('.trader-table tbody tr').length === 1")
    assert await sight.page.locator(".view-head [aria-live]").inner_text() == "1 of 20"
    await sight.page.get_by_label("Filter").fill("")
    await sight.page.get_by_label("State").select_option("Suspended")
    assert await sight.text(".trader-table tbody tr .badge") == "Suspended"
    assert "state=Suspended" in sight.page.url
    await sight.page.get_by_label("State").select_option("")
    await sight.page.get_by_role("button", name="Memory").click()
    assert await sight.page.locator("th[aria-sort=descending]").inner_text() == "Memory (RSS)"
    sizes = [
        float(text.removesuffix(" MB"))
        for text in await sight.page.locator("tbody tr td:nth-child(6)").all_inner_texts()
    ]
    assert sizes == sorted(sizes, reverse=True)


async def test_a_view_that_is_opened_again_at_once_still_shows_all_rows(sight: Sight) -> None:
    await sight.open("traders")
    for _ in range(3):
        await sight.page.evaluate("() => { location.hash = '#/traders?x=' + Math.random() }")
    await sight.until("() => document.querySelectorAll('.trader-table tbody tr').length === 20")


async def test_signals_are_paged_into_the_past_without_a_double(sight: Sight) -> None:
    await sight.open("signals")
    await sight.until("() => document.querySelectorAll('.signal-row').length >= 50")
    await sight.page.evaluate("() => scrollTo(0, document.body.scrollHeight)")
    await sight.until("() => document.querySelectorAll('.signal-row').length >= 60")
    hrefs = await sight.page.evaluate("() => [...document.querySelectorAll('.signal-row a')].map(a => a.href)")
    assert len(hrefs) == len(set(hrefs))
    times = await sight.page.evaluate("() => [...document.querySelectorAll('.signal-row time')].map(t => t.dateTime)")
    assert times == sorted(times, reverse=True)


async def test_signals_are_filtered_by_trader_symbol_and_action(sight: Sight) -> None:
    await sight.open("signals")
    await sight.page.get_by_label("Symbol").fill("ETH/USDT")
    await sight.page.get_by_label("Action").select_option("sell")
    await sight.until(
        """() => { const rows = [...document.querySelectorAll('.signal-row')];
        return rows.length > 0 && rows.every(row => row.querySelector('.action').textContent === 'sell'
            && row.querySelector('.signal-symbol').textContent.startsWith('ETH/USDT')) }"""
    )
    await sight.page.get_by_label("Trader").fill("nobody/here")
    await sight.until("() => document.querySelector('#main').innerText.includes('No signal passes this filter')")
    for part in ("nobody/", "nobo"):
        await sight.page.get_by_label("Trader").fill(part)
        await sight.until("() => document.querySelector('#main').innerText.includes('No signal passes this filter')")
    assert "must match" not in await sight.page.inner_text("#main"), "what is half typed is no error"


async def test_a_traders_bare_name_is_enough_to_see_its_signals(sight: Sight) -> None:
    await sight.open("signals")
    first = await sight.page.text_content(".signal-row .signal-trader")
    assert first is not None
    await sight.until("() => document.querySelectorAll('#known-traders option').length > 1")
    await sight.page.get_by_label("Trader").fill(first.split("/")[-1])
    await sight.until(
        f"""() => {{ const rows = [...document.querySelectorAll('.signal-row .signal-trader')];
        return rows.length > 0 && rows.every(row => row.textContent.endsWith({first.split("/")[-1]!r})) }}"""
    )


async def test_a_signals_page_explains_each_stage(sight: Sight) -> None:
    await sight.open("signal")
    names = await sight.page.locator(".waterfall tbody th").all_inner_texts()
    assert [name.split("\n")[0] for name in names][:2] == ["appended", "aggregated"]
    assert len(names) == 9
    clocks = await sight.page.locator(".waterfall .clock").all_inner_texts()
    assert "broker's clock" in clocks
    assert "host clock" in clocks
    assert "±" in await sight.text(".waterfall tbody tr td:nth-child(3)")
    shares = [
        int(text.removesuffix("%"))
        for text in await sight.page.locator(".waterfall tbody td:nth-child(4)").all_inner_texts()
    ]
    assert 95 <= sum(shares) <= 105
    assert "exchange to frame: 41.2 ms" in await sight.text(".remarks")
    assert "detected" in await sight.text(".life")
    link = sight.page.get_by_role("link", name="Open the trace")
    assert (await link.get_attribute("href") or "").startswith("http://127.0.0.1:16686/trace/")


async def test_a_traders_chart_has_its_signals_and_takes_another_interval(sight: Sight) -> None:
    await sight.open("trader")
    await sight.until("() => Number(document.querySelector('.chart-box').dataset.markers) > 0")
    assert "TradingView" in await sight.text(".attribution")
    assert await sight.page.locator(".attribution a").get_attribute("href") == "https://www.tradingview.com/"
    legend = await sight.text(".chart-legend")
    await sight.page.get_by_label("Interval").select_option("1s")
    await sight.until("before => !['', before].includes(document.querySelector('.chart-legend').textContent)", legend)
    await sight.until("() => document.querySelector('.chart-box').getAttribute('aria-label').endsWith('1s')")


@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (320, "light")])
async def test_no_view_is_wider_than_a_phone(browser: Browser, demo: str, width: int, scheme: str) -> None:
    size = {"width": width, "height": 780}
    async with browsing.sight(browser, demo, viewport=size, color_scheme=scheme) as page:
        await page.open()
        for view in VIEWS:
            await page.show(view)
            assert await page.overflow() <= 0, view
        assert page.complaints == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_on_a_desktop_each_view_is_legible_and_named_in_light_and_dark(
    browser: Browser, demo: str, scheme: str
) -> None:
    async with browsing.sight(browser, demo, viewport={"width": 1280, "height": 860}, color_scheme=scheme) as sight:
        await sight.open()
        await sight.seen(".trader-table tbody tr")
        assert await sight.page.evaluate(FAULTS) == []
        for view in VIEWS:
            await sight.show(view)
            assert await sight.page.evaluate(FAULTS) == [], view
            assert await sight.overflow() <= 0, view
            # Whatever signal it was that is shown.
            for action in ("buy", "sell", "close", "custom") if view == "signal" else ():
                shown = (
                    f"() => {{ document.querySelector('.action').dataset.action = '{action}'; return ({FAULTS})(); }}"
                )
                assert await sight.page.evaluate(shown) == [], action
        assert sight.complaints == []
        # That it finds what there is to find.
        await sight.page.evaluate(
            """() => { const [main] = document.getElementsByTagName("main");
            main.insertAdjacentHTML("beforeend", "<p id='main'>pale</p><button></button><h1>again</h1>");
            main.querySelector("p:last-of-type").style.color = "color-mix(in srgb, currentColor 30%, transparent)" }"""
        )
        faults = await sight.page.evaluate(FAULTS)
        assert [fault.split(":")[0].split(" ")[0] for fault in faults] == ["contrast", "no", "twice", "2"]


@pytest.mark.parametrize("width", [360, 390])
async def test_on_a_phone_no_name_of_a_trader_and_no_clock_is_cut_off(browser: Browser, demo: str, width: int) -> None:
    cut = """() => [...document.querySelectorAll(".signal-trader, .two-lines .name, .signal-time, .signal-length, .clock")]
       .filter((one) => one.offsetParent && one.scrollWidth > one.clientWidth && getComputedStyle(one).display !== "inline")
       .map((one) => one.textContent)"""
    async with browsing.sight(browser, demo, viewport={"width": width, "height": 844}) as page:
        await page.open()
        for view, some in (("signals", ".signal-trader"), ("overview", ".signal-trader"), ("signal", ".clock")):
            await page.show(view)
            await page.seen(some)
            assert await page.page.evaluate(cut) == [], view
            assert await page.overflow() <= 0, view
        await page.show("traders")
        # A name as long as Kubernetes takes.
        await page.page.evaluate(
            "document.querySelector('.two-lines .name').textContent = 'n'.repeat(63) + '/' + 'm'.repeat(63)"
        )
        assert await page.page.evaluate(cut) == []
        assert await page.overflow() <= 0


@pytest.mark.parametrize("width", [320, 360])
async def test_on_a_phone_the_longest_stage_and_every_label_of_the_rail_have_their_room(
    browser: Browser, demo: str, width: int
) -> None:
    outside = """(selector) => [...document.querySelectorAll(selector)].filter((one) => {
      const box = one.getBoundingClientRect();
      const row = one.closest("tr, li").getBoundingClientRect();
      return one.offsetParent && (box.left < row.left - 0.5 || box.right > row.right + 0.5);
    }).map((one) => one.textContent)"""
    async with browsing.sight(browser, demo, viewport={"width": width, "height": 700}) as page:
        await page.open()
        assert await page.page.evaluate(outside, ".rail span") == []
        await page.show("signal")
        await page.page.evaluate(
            """() => { const [, length, , clock] = document.querySelectorAll(".waterfall tbody tr:first-child td");
            length.textContent = "1234.5 ms ± 1.24 ms";
            clock.textContent = "host clock 0a1b2c3d" }"""
        )
        assert await page.page.evaluate(outside, ".waterfall td") == []
        assert await page.overflow() <= 0


@pytest.mark.parametrize("width", [1024, 1280])
async def test_beside_another_panel_a_common_name_of_a_trader_keeps_to_one_line(
    browser: Browser, demo: str, width: int
) -> None:
    broken = """() => [...document.querySelectorAll(".signal-trader")].filter((one) => {
      one.textContent = "default/donchian-slow-btc";
      return one.getBoundingClientRect().height > 2 * parseFloat(getComputedStyle(one).fontSize);
    }).length"""
    async with browsing.sight(browser, demo, viewport={"width": width, "height": 800}) as page:
        await page.open()
        await page.seen(".signal-trader")
        assert await page.page.evaluate(broken) == 0
        assert await page.overflow() <= 0


async def test_colours_follow_the_system_and_a_persons_choice(browser: Browser, demo: str) -> None:
    async with browsing.sight(browser, demo, color_scheme="dark") as page:
        await page.open("feeds")
        ground = "() => getComputedStyle(document.body).backgroundColor"
        dark = await page.page.evaluate(ground)
        await page.page.locator("#theme").click()
        light = await page.page.evaluate(ground)
        assert light != dark
        await page.page.reload()
        await page.page.wait_for_selector("h1")
        assert await page.page.evaluate(ground) == light
        await page.page.locator("#theme").click()
        assert await page.page.evaluate(ground) == dark


async def test_the_console_is_walked_by_keyboard(sight: Sight) -> None:
    page = sight.page
    await sight.open()
    await page.keyboard.press("Tab")
    assert await page.evaluate("document.activeElement.id") == "skip"
    await page.keyboard.press("Enter")
    assert await page.evaluate("document.activeElement.id") == "main"
    await page.locator("#skip").focus()
    seen: list[str] = []
    while "Signals" not in seen:
        await page.keyboard.press("Tab")
        assert await page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
        seen.append((await page.evaluate("document.activeElement.innerText")).strip())
        assert len(seen) < 20, seen
    await page.keyboard.press("Enter")
    await page.wait_for_selector("#view-signals")
    assert await page.evaluate("document.activeElement.tagName") == "H1"
    assert await page.title() == "Signals · Chandlery"
    assert await page.locator(".rail a[aria-current=page]").inner_text() == "Signals"
    await page.keyboard.press("Tab")
    assert await page.evaluate("document.activeElement.labels[0].innerText") == "Trader"


async def test_escape_closes_a_dialog_and_the_focus_goes_back(sight: Sight) -> None:
    page = sight.page
    await sight.open("trader")
    button = page.get_by_role("button", name="Delete")
    await button.focus()
    await page.keyboard.press("Enter")
    await page.wait_for_selector("dialog[open]")
    # The answer that does nothing has the focus.
    assert await page.evaluate("document.activeElement.innerText") == "Cancel"
    await page.keyboard.press("Escape")
    await sight.until("() => document.querySelector('dialog') === null")
    assert await page.evaluate("document.activeElement.innerText") == "Delete"


async def test_nothing_moves_where_motion_is_unwanted(browser: Browser, demo: str) -> None:
    async with browsing.sight(browser, demo, reduced_motion="reduce") as page:
        await page.open()
        moving = await page.page.evaluate("() => document.getAnimations().length")
        assert moving == 0


async def test_an_address_that_leads_nowhere_says_so(sight: Sight) -> None:
    await sight.open()
    await sight.go("#/nowhere/at/all")
    await sight.until("() => document.querySelector('h1').textContent === 'There is no such page'")
    await sight.go("#/%E0%A4%A")
    await sight.until("() => document.querySelector('h1').textContent === 'There is no such page'")


async def test_pages_carry_a_strict_policy_and_all_they_load_is_their_own(browser: Browser, demo: str) -> None:
    async with browsing.sight(browser, demo) as page:
        hosts: list[str] = []
        page.page.on("request", lambda request: hosts.append(request.url))
        answer = await page.page.goto(f"{demo}/")
        assert answer is not None
        policy = answer.headers["content-security-policy"]
        assert "default-src 'self'" in policy
        assert "script" not in policy
        await page.page.wait_for_selector(".signal-row")
        assert all(url.startswith(demo) for url in hosts)
