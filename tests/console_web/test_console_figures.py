"""The figures of performance, memory and feeds in a real browser: what the API says, in words that mislead nobody."""

from __future__ import annotations

import pytest
from playwright.async_api import Browser
from tests.console_api.doubles import InMemoryBackend
from tests.console_web import browsing
from tests.console_web.browsing import Sight
from tests.console_web.conftest import Served

from chandlery.console.api.models import Feed, Latency, Memory, ProcessMemory, Quantiles, SegmentUse, TransportLatency

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def tiles(sight: Sight, panel: str = "At a glance") -> dict[str, tuple[str, str]]:
    """Value and note of each tile by its label."""
    found = {}
    for tile in await sight.page.get_by_role("region", name=panel).locator(".tile").all():
        label, value, note = [await tile.locator(f".tile-{part}").inner_text() for part in ("label", "value", "note")]
        found[label] = value, note
    return found


async def tile_is(sight: Sight, label: str, value: str) -> None:
    """Wait until a tile says so."""
    await sight.until(
        """([label, value]) => [...document.querySelectorAll(".tile")].some((one) =>
        one.querySelector(".tile-label").textContent === label && one.querySelector(".tile-value").textContent === value)""",
        [label, value],
    )


def transport(name: str, p50_us: float, p99_us: float, count: int) -> TransportLatency:
    decided = Quantiles(p50_us=p50_us, p99_us=p99_us, count=count)
    return TransportLatency(transport=name, visible_to_decided=decided, frame_to_signal=decided)


SHARED, PIPED = transport("SharedMemory", 250.0, 900.0, 1_200), transport("Pipe", 1_000.0, 4_200.0, 300)


COMPARED = [
    ([SHARED, PIPED], "Shared memory is 4.0 times quicker here (p50)."),
    ([transport("Pipe", 125.0, 4_200.0, 300), SHARED], "Shared memory is 2.0 times slower here (p50)."),
    ([SHARED], "To compare: give some Traders transport: Pipe."),
    ([PIPED], "To compare: give some Traders transport: SharedMemory."),
    ([], "No signal in this window."),
]
ROWS = {
    "SharedMemory": [["shared memory 1,200 signals"], ["p50", "250 µs"], ["p99", "900 µs"]],
    "Pipe": [["serialised through pipes 300 signals"], ["p50", "1.00 ms"], ["p99", "4.20 ms"]],
}


async def test_shared_memory_is_compared_with_pipes_in_figures_and_one_sentence(
    browser: Browser, served: Served
) -> None:
    address = await served.start(moves=False)
    async with browsing.sight(browser, address) as sight:
        panel = sight.page.get_by_role("region", name="Shared memory against serialised")
        for measured, sentence in COMPARED:
            served.world.signals.summary = Latency(
                window_s=60,
                frame_to_signal=Quantiles(p50_us=3_100.0, p99_us=8_450.0, count=1_500),
                visible_to_decided=Quantiles(p50_us=260.0, p99_us=1_234.0, count=1_500),
                transports=measured,
            )
            await sight.page.goto(f"{address}/#/performance")
            await panel.get_by_text(sentence).wait_for()
            rows = [(await row.inner_text()).split("\n") for row in await panel.locator("h3, .compare-line").all()]
            if "slower" not in sentence:
                assert rows == [line for one in measured for line in ROWS[one.transport]]
        assert await tiles(sight) == {
            "Frame to signal, p99": ("8.45 ms", "exchange frame to acknowledged signal"),
            "Frame to signal, p50": ("3.10 ms", "half are quicker"),
            "Visible to decided, p99": ("1.23 ms", "p50 260 µs"),
            "Signals in the window": ("1,500", "60 s"),
        }
        assert sight.complaints == []


def process(
    name: str, pss: int | None = 4_000_000, growth: float | None = 0.0, *, bounded: bool = False
) -> ProcessMemory:
    return ProcessMemory(
        name=name, kind="x", rss_bytes=10_000_000, pss_bytes=pss, bounded=bounded, growth_bytes_per_h=growth
    )


def memory(*processes: ProcessMemory, measure: str = "PSS") -> Memory:
    return Memory.model_validate(
        {
            "processes": processes,
            "total_bytes": sum(one.pss_bytes or one.rss_bytes for one in processes),
            "measure": measure,
            "total_rss_bytes": 10_000_000 * len(processes),
            "history": [(1_700_000_000_000 + 5_000 * at, 90_000_000 + at * 100_000) for at in range(20)],
            "segments": [
                SegmentUse(worker="standard-0", size_bytes=67_108_864, series_used=9, series_capacity=512, rings=8, laps=2),
                SegmentUse(worker="standard-1", size_bytes=67_108_864, series_used=3, series_capacity=512, ring_depth=5),
            ],
        }
    )  # fmt: skip


async def test_the_memory_tiles_say_which_memory_and_which_process(browser: Browser, served: Served) -> None:
    served.world.backend.memory = memory(process("default/a"), process("default/b", growth=1.2e7))
    address = await served.start(moves=False)
    async with browsing.sight(browser, address) as sight:
        await sight.page.goto(f"{address}/#/memory")
        await tile_is(sight, "Total", "8.0 MB")
        assert await tiles(sight) == {
            "Total": ("8.0 MB", "2 processes, PSS: what they share counts once"),
            "Growing": ("1", "default/b +12.0 MB/h"),
            "Shared memory": ("134.2 MB", "2 segments"),
            "Laps": ("2", "readers were left behind"),
        }
        # The scale of the line begins at nothing: a wave of some per cent is no mountain.
        assert await sight.text(".line-least") == "0"
        cards = [(await card.inner_text()) for card in await sight.page.locator(".cards .card").all()]
        assert "9 of 512 series" in cards[0]
        assert "Waiting in rings\n5" in cards[1]
        served.world.backend.memory = memory(process("default/a", pss=None), process("default/b"), measure="mixed")
        await tile_is(sight, "Total", "14.0 MB")
        assert (await tiles(sight))["Total"][1] == (
            "2 processes, PSS; of 1 only RSS is known, so what those share counts in each"
        )
        assert await sight.page.locator("tbody tr td:nth-child(4)").all_inner_texts() == ["10.0 MB RSS", "4.0 MB PSS"]
        shared = ProcessMemory(name="desk/w0/supervisor", kind="supervisor", rss_bytes=0, pss_bytes=3_000_000)
        served.world.backend.memory = memory(shared, process("default/b"))
        await tile_is(sight, "Total", "7.0 MB")
        supervisor = sight.page.locator("tbody tr", has_text="desk/w0/supervisor")
        assert await supervisor.locator("td:nth-child(n+4)").all_inner_texts() == ["3.0 MB PSS", "–", "–"]
        assert (await tiles(sight))["Growing"] == ("0", "no process above 5 MB/h"), "of a share nothing is said"
        served.world.backend.memory = memory(process("default/a", pss=None), process("default/b"), measure="mixed")
        await sight.go("#/")
        await sight.page.get_by_text("all processes, PSS, and RSS where that isn’t known").wait_for()
        served.world.backend.memory = memory(process("default/a", pss=None), measure="RSS")
        await sight.page.get_by_text("all processes, RSS: what they share counts in each").wait_for()
        assert sight.complaints == []


async def test_growth_that_is_not_known_yet_is_not_none(browser: Browser, served: Served) -> None:
    new = process("default/new", growth=None)
    served.world.backend.memory = memory(new)
    address = await served.start(moves=False)
    async with browsing.sight(browser, address) as sight:
        await sight.page.goto(f"{address}/#/memory")
        growing = sight.page.get_by_role("link", name="Growing")
        await growing.get_by_text("not known yet").wait_for()
        assert (await tiles(sight))["Growing"][0] == "–"
        assert await growing.get_attribute("data-level") is None
        assert await sight.page.locator("tbody tr td:last-child").all_inner_texts() == ["not yet"]
        served.world.backend.memory = memory(new, process("default/old"))
        await tile_is(sight, "Growing", "0")
        assert (await tiles(sight))["Growing"][1] == "no process above 5 MB/h; 1 not known yet"
        assert await growing.get_attribute("data-level") is None
        served.world.backend.memory = memory(process("default/old"), process("kafka", growth=2e8, bounded=True))
        await sight.page.locator(".tile[data-level=good]", has_text="Growing").wait_for()
        assert (await tiles(sight))["Growing"] == ("0", "no process above 5 MB/h")


async def test_a_feeds_card_says_whether_it_lives_and_how_late_it_is(browser: Browser, served: Served) -> None:
    served.world.backend.feeds = [
        Feed(feed="default/a", alive=True, connected=True, source="binance", symbols=["BTC/USDT"], intervals=["1m"],
             trades_per_s=712.4, lag=3, behind_ms=4_200, late=2, duplicate=1, trades=12_345, frames=6_789,
             missing_ids=1_234, dropped=5, dead_letters=6, reconnects=7, lost_ages_ms={"dropped": 1_000},
             candles_closed=77, watermark_age_ms=800),
        Feed(feed="default/b", connected=True, source="replay", message="no candle for 40 s", watermark_age_ms=40_000),
        Feed(feed="default/c", source="binance"),
        Feed(feed="default/d", alive=True, finished=True, source="replay", lag=1),
    ]  # fmt: skip
    served.world.market.newest.clear()
    address = await served.start(moves=False)
    async with browsing.sight(browser, address) as sight:
        await sight.page.goto(f"{address}/#/feeds")
        cards = sight.page.locator(".feed-cards .card")
        await cards.nth(3).wait_for()
        said: list[tuple[str, dict[str, str]]] = []
        for card in await cards.all():
            figures = [one.split("\n", 1) for one in await card.locator(".figures > div").all_inner_texts()]
            said.append((await card.locator(".badge").inner_text(), {name: value for name, value in figures}))
        assert [state for state, _ in said] == ["Alive", "Connected, silent", "Not connected", "Finished"]
        assert said[0][1] == {
            "Trades a second": "712",
            "Newest candle": "< 1 s ago",
            "Lag": "3 records, 4 s behind",
            "Late trades": "2",
            "Doubled trades": "1",
            "Missing trades": "1,234",
            "Dropped": "5",
            "Dead letters": "6",
            "Reconnects": "7",
            "Trades": "12,345",
            "Frames": "6,789",
            "Candles closed": "77",
            "Symbols": "BTC/USDT",
            "Intervals": "1m",
        }
        assert (said[1][1]["Newest candle"], said[2][1]["Newest candle"]) == ("40 s ago", "none yet")
        assert said[3][1]["Lag"] == "1 record"
        assert await cards.nth(1).locator(".message").inner_text() == "no candle for 40 s"
        await sight.page.goto(f"{address}/#/")
        await sight.page.get_by_text(
            "feed default/a has lost some of its market: frames or trades were dropped"
        ).wait_for()
        assert sight.complaints == []


async def test_where_nothing_runs_each_view_says_so_and_none_says_that_all_is_well(
    browser: Browser, served: Served
) -> None:
    world = served.world
    world.backend = InMemoryBackend()
    world.signals.summary = Latency(window_s=60)
    world.signals.rate = 0.0
    world.signals.events.clear()
    address = await served.start(moves=False)
    said = {
        "#/": ("Nothing runs yet: apply a MarketFeed", "no process is known yet", "No signal yet."),
        "#/traders": ("No Trader here.",),
        "#/signals": ("No signal",),
        "#/performance": ("no signal in this window", "No signal in this window."),
        "#/memory": ("no process is known yet", "no segment yet", "No segment yet", "No process is known yet."),
        "#/feeds": ("No feed yet: apply a MarketFeed.",),
        "#/new-trader": ("No TraderPool is known",),
        "#/traders/default/none": ("Nothing is known of this Trader.", "None is known.", "It hasn't signalled yet."),
    }
    async with browsing.sight(browser, address) as sight:
        await sight.page.goto(f"{address}/#/nowhere")
        await sight.page.locator("h1").wait_for()
        for hash_, words in said.items():
            await sight.go(hash_)
            for each in words:
                await sight.page.get_by_text(each).first.wait_for()
            # Panels have their data by events of their own, one after the other.
            await sight.until("""() => !document.querySelector("#main").innerText.includes("Loading")""")
            shown = await sight.text("#main")
            assert "as it should be" not in shown
            assert "Choose a series" not in shown
        assert [words for words in sight.complaints if "404" not in words] == []
