"""A signal's life in the browser: the word in its row, the whole of it on its page, both as it goes on."""

from __future__ import annotations

import time

import pytest
from playwright.async_api import Browser
from tests.console_api.stage import signal, until
from tests.console_web import browsing
from tests.console_web.conftest import Served
from tests.console_web.test_console_streams import known

from chandlery.console.api.models import Signal, SignalDetail

pytestmark = pytest.mark.asyncio(loop_scope="module")

WORDS = """() => Object.fromEntries([...document.querySelectorAll('.signal-row a')].map(
    a => [Number(a.querySelector('.signal-price').textContent), a.querySelector('.life-word').textContent]))"""


def detail_of(signal: Signal, *life: tuple[str, int], ended_by: str = "") -> SignalDetail:
    return SignalDetail.model_validate({**signal.model_dump(), "lifecycle": life, "ended_by": ended_by})


async def test_rows_say_in_which_state_a_signals_life_is_and_follow_it(browser: Browser, served: Served) -> None:
    signals = served.world.signals
    signals.events.clear()
    now_ms = int(time.time() * 1000)
    later = {"expires_ms": now_ms + 3_600_000}
    first = known(1, price="1", action="buy", state="active", active_ms=1_000, **later)
    second = known(2, price="2", action="sell", forming=True, state="detected", **later)
    third = known(3, price="3", action="sell", forming=True, state="detected", **later)
    for one in (first, second, third):
        signals.tell(one)
    address = await served.start(moves=False)
    async with browsing.sight(browser, address) as sight:
        page = sight.page
        await page.goto(f"{address}/#/signals")
        await until(lambda: signals.following == 1)
        await sight.until(f'() => JSON.stringify(({WORDS})()) === \'{{"1":"active","2":"detected","3":"detected"}}\'')
        signals.tell(second.model_copy(update={"state": "invalidated", "expires_ms": None}))
        await sight.until(f"() => ({WORDS})()[2] === 'invalidated'")
        assert (await page.evaluate(WORDS))["1"] == "active", "a withdrawn one closes nothing"
        signals.tell(third.model_copy(update={"state": "active", "active_ms": 2_000}))
        await sight.until(f"() => ({WORDS})()[3] === 'active' && ({WORDS})()[1] === 'closed'")
        signals.tell(known(4, price="4", state="active", active_ms=3_000, expires_ms=now_ms - 1))
        await sight.until(f"() => ({WORDS})()[4] === 'expired'")
        await page.get_by_label("State").select_option("invalidated")
        await sight.until(f'() => JSON.stringify(({WORDS})()) === \'{{"2":"invalidated"}}\'')
        assert sight.complaints == []


async def test_a_filter_lets_go_of_what_passes_it_no_longer_and_sees_what_closes_a_signal(
    browser: Browser, served: Served
) -> None:
    signals = served.world.signals
    signals.events.clear()
    now_ms = int(time.time() * 1000)
    later = {"expires_ms": now_ms + 3_600_000}
    bought = known(1, price="1", action="buy", state="active", active_ms=1_000, **later)
    forming = known(2, price="2", action="custom", forming=True, state="detected", **later)
    for one in (bought, forming):
        signals.tell(one)
    address = await served.start(moves=False)
    async with browsing.sight(browser, address) as sight:
        page = sight.page
        await page.goto(f"{address}/#/signals?state=detected")
        await until(lambda: signals.following == 1)
        await sight.until(f'() => JSON.stringify(({WORDS})()) === \'{{"2":"detected"}}\'')
        signals.tell(forming.model_copy(update={"state": "invalidated", "expires_ms": None}))
        await sight.until(f"() => JSON.stringify(({WORDS})()) === '{{}}'")
        assert "No signal passes this filter" in await sight.text("#main")
        await page.get_by_label("State").select_option("")
        await page.get_by_label("Action").select_option("buy")
        await sight.until(f'() => JSON.stringify(({WORDS})()) === \'{{"1":"active"}}\'')
        signals.tell(known(3, price="3", action="sell", state="active", active_ms=2_000, **later))
        await sight.until(f'() => JSON.stringify(({WORDS})()) === \'{{"1":"closed"}}\'')
        await page.get_by_label("State").select_option("active")
        await page.get_by_label("Action").select_option("")
        await sight.until(f'() => JSON.stringify(({WORDS})()) === \'{{"1":"active","3":"active"}}\'')
        signals.tell(known(4, price="4", action="close", state="active", active_ms=3_000, **later))
        await sight.until(f"() => !('3' in ({WORDS})())")
        assert sight.complaints == []


async def test_a_row_that_leaves_has_no_other_put_in_anew(browser: Browser, served: Served) -> None:
    signals = served.world.signals
    signals.events.clear()
    forming = {"forming": True, "state": "detected", "expires_ms": int(time.time() * 1000) + 3_600_000}
    rows = [known(number, price=str(number), action="custom", **forming) for number in (1, 2, 3)]
    for one in rows:
        signals.tell(one)
    address = await served.start(moves=False)
    async with browsing.sight(browser, address) as sight:
        await sight.page.goto(f"{address}/#/signals?state=detected")
        await until(lambda: signals.following == 1)
        await sight.until(f"() => Object.keys(({WORDS})()).length === 3")
        assert await sight.page.locator(".signal-row .signal-price").all_inner_texts() == ["3", "2", "1"]
        await sight.page.locator(".signal-row a").nth(1).focus()
        await sight.page.evaluate(
            "() => { window.moved = 0; new MutationObserver(all => all.forEach(one => window.moved += one.addedNodes.length))"
            ".observe(document.querySelector('.signal-list'), {childList: true}); }"
        )
        signals.tell(rows[2].model_copy(update={"state": "invalidated", "expires_ms": None}))
        await sight.until(f"() => Object.keys(({WORDS})()).length === 2")
        focused = await sight.page.evaluate("() => document.activeElement.querySelector('.signal-price')?.textContent")
        assert (focused, await sight.page.evaluate("() => window.moved")) == ("2", 0)
        assert sight.complaints == []


async def test_a_list_of_what_has_ended_grows_as_signals_end(browser: Browser, served: Served) -> None:
    signals = served.world.signals
    signals.events.clear()
    later = {"expires_ms": int(time.time() * 1000) + 3_600_000}
    signals.tell(known(1, price="1", action="buy", state="active", active_ms=1_000, **later))
    signals.tell(known(2, price="2", action="sell", symbol="ETH/USDT", state="closed", expires_ms=None))
    address = await served.start(moves=False)
    async with browsing.sight(browser, address) as sight:
        page = sight.page

        async def shows(rows: str) -> None:
            await sight.until(f"() => JSON.stringify(({WORDS})()) === '{rows}'")

        await page.goto(f"{address}/#/signals?state=closed")
        await until(lambda: signals.following == 1)
        await shows('{"2":"closed"}')
        # One that was there before, then one that came meanwhile, each closed by what comes.
        signals.tell(known(3, price="3", action="sell", state="active", active_ms=2_000, **later))
        await shows('{"1":"closed","2":"closed"}')
        signals.tell(known(4, price="4", action="close", state="active", active_ms=3_000, **later))
        await shows('{"1":"closed","2":"closed","3":"closed"}')
        forming = known(5, price="5", action="buy", forming=True, state="detected", **later)
        signals.tell(forming)
        # Nothing comes by the stream when time is up: rows leave and enter by themselves.
        soon = {"expires_ms": int(time.time() * 1000) + 1_500}
        signals.tell(known(6, price="6", symbol="XRP/USDT", state="active", active_ms=4_000, **soon))
        await page.get_by_label("State").select_option("expired")
        await shows('{"6":"expired"}')
        await page.get_by_label("State").select_option("active")
        await shows('{"1":"active","3":"active","4":"active"}')
        signals.tell(forming.model_copy(update={"state": "active", "active_ms": 5_000, **later}))
        await shows('{"1":"active","5":"active"}')
        assert sight.complaints == []


@pytest.mark.parametrize("view", ["signals", "", "traders/default/sma-btc"])
async def test_a_row_says_that_a_signal_is_expired_without_anything_coming(
    browser: Browser, served: Served, view: str
) -> None:
    signals = served.world.signals
    signals.events.clear()
    address = await served.start(moves=False)
    trader = next(iter(served.world.backend.traders))
    async with browsing.sight(browser, address) as sight:
        await sight.page.goto(f"{address}/#/{view.replace('default/sma-btc', trader)}")
        await until(lambda: signals.following == 1)
        soon = {"expires_ms": int(time.time() * 1000) + 2_000}
        signals.tell(known(1, price="1", trader=trader, state="active", active_ms=1_000, **soon))
        await sight.until(f"() => ({WORDS})()[1] === 'expired'")
        assert sight.complaints == []


async def test_of_two_forming_signals_the_one_confirmed_later_closes_the_other(
    browser: Browser, served: Served
) -> None:
    signals = served.world.signals
    signals.events.clear()
    later = {"expires_ms": int(time.time() * 1000) + 3_600_000}
    forming = {"forming": True, "state": "detected", **later}
    made = [("sell", "BTC/USDT"), ("buy", "BTC/USDT"), ("buy", "ETH/USDT"), ("sell", "ETH/USDT")]
    pairs = [
        known(number, price=str(number), action=action, symbol=symbol, **forming)
        for number, (action, symbol) in enumerate(made, 1)
    ]
    for one in pairs:
        signals.tell(one)
    address = await served.start(moves=False)
    async with browsing.sight(browser, address) as sight:
        await sight.page.goto(f"{address}/#/signals")
        await until(lambda: signals.following == 1)
        await sight.until(f"() => Object.keys(({WORDS})()).length === 4")

        def confirm(number: int, active_ms: int, signalled_ns: int) -> None:
            update = {"state": "active", "active_ms": active_ms, "signalled_ns": signalled_ns}
            signals.tell(pairs[number - 1].model_copy(update=update))

        confirm(2, 1_000, 8)
        confirm(1, 2_000, 7)
        await sight.until(f"() => ({WORDS})()[1] === 'active' && ({WORDS})()[2] === 'closed'")
        # In the same millisecond the one signalled later closes the one signalled first.
        confirm(4, 1_000, 8)
        confirm(3, 1_000, 9)
        await sight.until(f"() => ({WORDS})()[3] === 'active' && ({WORDS})()[4] === 'closed'")
        assert sight.complaints == []


async def test_what_the_server_says_takes_back_a_guessed_end(browser: Browser, served: Served) -> None:
    signals = served.world.signals
    signals.events.clear()
    later = {"expires_ms": int(time.time() * 1000) + 3_600_000}
    bought = {"price": "1", "action": "buy", "state": "active", "active_ms": 1_000, **later}
    signals.tell(signal(1, **bought))
    address = await served.start(moves=False)
    async with browsing.sight(browser, address) as sight:
        await sight.page.goto(f"{address}/#/signals")
        await until(lambda: signals.following == 1)
        signals.tell(known(2, price="2", action="sell", state="active", active_ms=2_000, **later))
        await sight.until(f"() => ({WORDS})()[1] === 'closed' && ({WORDS})()[2] === 'active'")
        signals.tell(known(1, **bought))
        await sight.until(f"() => ({WORDS})()[1] === 'active'")
        assert await sight.page.locator(".signal-row [aria-label^='stages: decided']").count() == 2
        assert sight.complaints == []


async def test_a_signals_page_tells_its_whole_life_with_times_and_goes_on_with_it(
    browser: Browser, served: Served
) -> None:
    signals = served.world.signals
    now_ms = int(time.time() * 1000)
    one = known(1, forming=True, state="detected", expires_ms=now_ms + 3_600_000)
    signals.tell(one, detail_of(one, ("detected", now_ms)))
    address = await served.start(moves=False)
    async with browsing.sight(browser, address) as sight:
        page = sight.page
        await page.goto(f"{address}/#/signals/{one.id}")
        await sight.seen(".life li")
        assert await page.locator(".life li strong").all_inner_texts() == ["detected", "expired"]
        assert await page.locator(".life li.coming strong").all_inner_texts() == ["expired"]
        assert "the close confirms or withdraws it" in await sight.text("#main")
        await until(lambda: signals.following == 1)
        active = one.model_copy(update={"state": "active", "expires_ms": int(time.time() * 1000) + 1_500})
        life = [("detected", now_ms), ("confirmed", now_ms + 5), ("active", now_ms + 5)]
        signals.tell(active, detail_of(active, *life))
        await sight.until("() => document.querySelectorAll('.life li').length === 4")
        times = await page.locator(".life li time").evaluate_all("times => times.map(t => Date.parse(t.dateTime))")
        assert times == [now_ms, now_ms + 5, now_ms + 5, active.expires_ms]
        assert await sight.text(".head-badges .life-word") == "active"
        # Its time is up, and nothing comes by the stream: the page asks again by itself.
        ended = active.model_copy(update={"state": "closed", "expires_ms": None})
        signals.details[one.id] = detail_of(ended, *life, ("closed", now_ms + 9), ended_by="e" * 32)
        await sight.until("() => document.querySelector('.life li[data-state=closed] a')")
        href = await page.locator(".life li[data-state=closed] a").get_attribute("href")
        assert href == f"#/signals/{'e' * 32}"
        assert await page.locator(".life li.coming").count() == 0
        assert sight.complaints == []
