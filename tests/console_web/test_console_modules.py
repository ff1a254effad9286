"""The console's pure parts, asked in the browser: amounts as the command line writes them, events, places in JSON."""

from __future__ import annotations

import json
import random

import pytest
from playwright.async_api import Browser
from tests.console_web import browsing

from chandlery.console.amounts import clock_time, duration_us, size, timestamp

pytestmark = pytest.mark.asyncio(loop_scope="module")


def _durations() -> list[float]:
    chosen = random.Random(5)
    ties = [0.5, 1.5, 2.5, 999.5, 1_125.0, 1_015.0, 1_005.0, 12_250.0, 12_350.0, 1_125_000.0, 1_015_000.0, 999_950.0]
    spread = [10 ** chosen.uniform(-2, 8) for _ in range(1_500)]
    halves = [chosen.randrange(1, 20_000_000) / 2 for _ in range(1_500)]
    return [*ties, *spread, *halves, *(-one for one in halves[:50]), 0.0]


async def test_amounts_are_digit_for_digit_those_of_the_command_line(browser: Browser, demo: str) -> None:
    durations = _durations()
    sizes = [
        0,
        1,
        499,
        500,
        999_500,
        1_050_000,
        1_250_000,
        *(random.Random(6).randrange(1, 5_000_000_000) for _ in range(1_000)),
    ]
    times = [0, -5, 1, 1_764_124_000_123, 1_723_117_596_789]
    async with browsing.sight(browser, demo) as sight:
        await sight.page.goto(f"{demo}/")
        shown = await sight.page.evaluate(
            """async ([durations, sizes, times]) => { const a = await import("/js/amounts.js");
            return [durations.map(a.durationUs), sizes.map(a.sizeBytes), times.map(a.clockTime), times.map(a.timestamp)] }""",
            [durations, sizes, times],
        )
    assert shown[0] == [duration_us(one) for one in durations]
    assert shown[1] == [size(one) for one in sizes]
    assert shown[2] == [clock_time(one) for one in times]
    assert shown[3] == [timestamp(one) for one in times]


async def test_events_are_the_same_however_the_bytes_are_cut(browser: Browser, demo: str) -> None:
    text = (
        ': open\n\nevent: signal\nid: a:1\ndata: {"x":\ndata: 1}\n\n\r\nevent:failed\rdata:one\r\rdata: bare\r\n\r\n'
        ": keep-alive\n\nevent: none\n\nid: only\n\nevent: signal\nid: a:2\ndata:\n\ndata: unfinished"
    )
    expected = [
        {"event": "signal", "data": '{"x":\n1}', "id": "a:1"},
        {"event": "failed", "data": "one", "id": None},
        {"event": "message", "data": "bare", "id": None},
        {"place": "only"},
        {"event": "signal", "data": "", "id": "a:2"},
    ]
    chosen = random.Random(7)
    cuts = [sorted(chosen.sample(range(1, len(text)), chosen.randrange(0, 30))) for _ in range(200)]
    cuts.append(list(range(1, len(text))))
    pieces = [[text[begin:end] for begin, end in zip([0, *cut], [*cut, len(text)], strict=True)] for cut in cuts]
    async with browsing.sight(browser, demo) as sight:
        await sight.page.goto(f"{demo}/")
        parsed = await sight.page.evaluate(
            """async pieces => { const { EventParser } = await import("/js/sse.js");
            return pieces.map(chunks => { const got = [];
                const parser = new EventParser(({event, data, id}) => got.push({event, data, id: id ?? null}),
                    id => got.push({place: id}));
                for (const chunk of chunks) parser.feed(chunk);
                return got; }) }""",
            pieces,
        )
    assert all(got == expected for got in parsed)


async def test_a_field_is_found_in_a_text_of_json(browser: Browser, demo: str) -> None:
    manifest = {
        "metadata": {"name": 'a"b', "labels": {"spec": "no"}},
        "spec": {
            "market": {"symbols": ["BTC/USDT", "x, y}"], "interval": "7m"},
            "parameters": {"fast": -1.5e3, "on": True},
        },
    }
    fields = [
        "spec.market.symbols[1]",
        "spec.market.interval",
        "spec.parameters.fast",
        "spec.market.warmup",
        "spec.symbols",
        "nowhere",
        "metadata.name",
    ]
    async with browsing.sight(browser, demo) as sight:
        await sight.page.goto(f"{demo}/")
        for indent in (None, 2):
            text = json.dumps(manifest, indent=indent)
            places = await sight.page.evaluate(
                """async ([text, fields]) => { const { placeOf } = await import("/js/json_place.js");
                return fields.map(field => placeOf(text, field) ?? null) }""",
                [text, fields],
            )
            found = [None if place is None else text[place[0] : place[1]] for place in places]
            assert found[0] == '"x, y}"'
            assert found[1] == '"interval": "7m"'
            assert found[2] == '"fast": -1500.0'
            # What isn't there is shown at the nearest that is.
            assert found[3] is not None
            assert found[3].startswith('"market"')
            assert found[4] is not None
            assert found[4].startswith('"spec": {"market"' if indent is None else '"spec": {\n')
            assert found[5] is None
            assert found[6] == '"name": "a\\"b"'


async def test_a_pause_before_the_next_try_grows_is_never_the_same_and_has_a_cap(browser: Browser, demo: str) -> None:
    async with browsing.sight(browser, demo) as sight:
        await sight.page.goto(f"{demo}/")
        pauses = await sight.page.evaluate(
            """async () => { const { backoffMs } = await import("/js/live.js");
            return Array.from({length: 40}, (_, attempt) => [0, 0.5, 1].map(random => backoffMs(attempt, random))) }"""
        )
    assert pauses[0] == [250, 375, 500]
    assert pauses[1] == [500, 750, 1_000]
    assert all(high <= 15_000 and low >= high / 2 for low, _, high in pauses)
    assert pauses[39] == [7_500, 11_250, 15_000]
