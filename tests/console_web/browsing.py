"""A page of the console in Debian's Chromium that remembers what went wrong, and ways to wait for what must come."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import pytest
from playwright.async_api import Browser, Page, async_playwright

CHROMIUM: Final = "/usr/bin/chromium"
#: No test waits longer for what must come, ms.
SOON_MS: Final = 15_000
#: What each view shows once it has its data.
VIEWS: Final = {
    "overview": ("#/", ".signal-row"),
    "traders": ("#/traders", ".trader-table tbody tr"),
    "trader": ("#/traders/default/eth-rsi-01", ".chart-box[data-candles]:not([data-candles='0'])"),
    "signals": ("#/signals", ".signal-row"),
    "signal": ("#/signals/{signal}", ".waterfall tbody tr"),
    "performance": ("#/performance", ".stage-table tbody tr"),
    "memory": ("#/memory", ".cards .card"),
    "feeds": ("#/feeds", ".chart-box[data-candles]:not([data-candles='0'])"),
    "new": ("#/new-trader", "textarea.json"),
}


def chromium() -> str:
    """Where Chromium is. Without it tests are skipped; in CI they fail, so that nobody takes the console for tested."""
    if not os.access(CHROMIUM, os.X_OK):
        missing = f"the console is tested in Debian's Chromium and {CHROMIUM} is missing: apt-get install chromium"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(missing)
    return CHROMIUM


@asynccontextmanager
async def browser() -> AsyncIterator[Browser]:
    """A headless Chromium."""
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    async with async_playwright() as driver:
        opened = await driver.chromium.launch(executable_path=chromium(), args=arguments)
        try:
            yield opened
        finally:
            await opened.close()


class Sight:
    """One page, and what its console and its requests complained of."""

    def __init__(self, page: Page, address: str) -> None:
        self.page = page
        self.address = address
        self.complaints: list[str] = []
        self.page.set_default_timeout(SOON_MS)
        page.on("console", lambda said: self._note(said.type in ("error", "warning"), f"console: {said.text}"))
        page.on("pageerror", lambda error: self._note(True, f"page: {error}"))
        page.on("response", lambda answer: self._note(answer.status >= 400, f"{answer.status}: {answer.url}"))
        # What the console itself lets go of (a view that closes, a stream that others take the place of) is no failure.
        page.on(
            "requestfailed",
            lambda request: self._note(request.failure != "net::ERR_ABORTED", f"{request.failure}: {request.url}"),
        )

    def _note(self, wrong: bool, words: str) -> None:
        if wrong:
            self.complaints.append(words)

    async def open(self, view: str = "overview") -> None:
        """Load the console at a view and wait for its data."""
        hash_, shown = VIEWS[view]
        if "{signal}" in hash_:
            await self.open()
            await self.show(view)
            return
        await self.page.goto(f"{self.address}/{hash_}")
        await self.seen(shown)

    async def show(self, view: str) -> None:
        """Go to a view and wait for its data."""
        hash_, shown = VIEWS[view]
        if "{signal}" in hash_:
            hash_ = await self.known_signal()
        await self.go(hash_)
        await self.seen(shown)

    async def seen(self, selector: str) -> None:
        """Wait until such an element is visible. A locator: a handle of it would keep it from being collected."""
        await self.page.locator(selector).first.wait_for()

    async def known_signal(self) -> str:
        """The page of a signal whose stages are known."""
        ids = await self.page.evaluate(
            """async () => (await (await fetch("api/v1/signals?limit=50")).json()).items
               .filter(({stages}) => stages.length).map(({id}) => id)"""
        )
        return f"#/signals/{ids[0]}"

    async def go(self, hash_: str) -> None:
        """Set the address, as a link would."""
        await self.page.evaluate("hash => { location.hash = hash }", hash_)

    async def text(self, selector: str) -> str:
        """Text of the first such element."""
        return await self.page.locator(selector).first.inner_text()

    async def until(self, script: str, argument: Any = None) -> None:
        """Wait until an expression or function of JavaScript is true."""
        await self.page.wait_for_function(script, arg=argument, timeout=SOON_MS)

    async def overflow(self) -> int:
        """Pixels by which the page is wider than the window."""
        wide = await self.page.evaluate("document.documentElement.scrollWidth - innerWidth")
        return int(wide)


@asynccontextmanager
async def sight(opened: Browser, address: str, **context: Any) -> AsyncIterator[Sight]:
    """A page in a context of its own: no storage, cache or colour is left from another."""
    made = await opened.new_context(**{"viewport": {"width": 1280, "height": 860}, **context})
    try:
        yield Sight(await made.new_page(), address)
    finally:
        await made.close()
