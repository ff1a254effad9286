"""Lists, pages and their bounds."""

from __future__ import annotations

from urllib.parse import quote

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.console_api.stage import FEED, Stage, signal

from chandlery.console.api.fields import PageAsked, page_of
from chandlery.core.errors import UnavailableError
from chandlery.core.signal_life import STANDINGS


async def test_traders_come_by_name_and_are_chosen_by_each_filter(api: httpx.AsyncClient, stage: Stage) -> None:
    stage.add_trader("default/beta", state="CrashLoop", pool="default/other", strategy="macd")
    stage.add_trader("research/gamma", symbols=["ETH/USDT"])

    async def names(query: str) -> list[str]:
        return [one["trader"] for one in (await api.get(f"traders?{query}")).json()["items"]]

    assert await names("") == ["default/alpha", "default/beta", "research/gamma"]
    assert await names("namespace=default") == ["default/alpha", "default/beta"]
    assert await names("pool=default/other") == ["default/beta"]
    assert await names("state=CrashLoop") == ["default/beta"]
    assert await names("q=GAM") == ["research/gamma"]
    assert await names("q=eth/") == ["research/gamma"]
    assert await names("q=macd&namespace=research") == []


@given(st.sets(st.from_regex(r"[a-c]{1,2}/[a-z0-9-]{1,4}", fullmatch=True)), st.integers(1, 5))
def test_pages_together_have_every_item_once_in_order(names: set[str], limit: int) -> None:
    told: list[str] = []
    cursor = ""
    while True:
        page = page_of(sorted(names, reverse=True), lambda one: one, PageAsked(limit=limit, cursor=cursor))
        assert len(page.items) <= limit
        told += page.items
        cursor = page.next
        if not cursor:
            break
        assert len(page.items) == limit
    assert told == sorted(names)


async def test_a_page_goes_on_where_the_last_ended_though_traders_went_meanwhile(
    api: httpx.AsyncClient, stage: Stage
) -> None:
    first = (await api.get("traders?limit=2")).json()
    assert [one["trader"] for one in first["items"]] == ["default/alpha", "default/beta"]
    del stage.backend.traders["default/beta"]
    second = (await api.get(f"traders?limit=2&cursor={first['next']}")).json()
    assert [one["trader"] for one in second["items"]] == ["research/gamma"]
    assert second["next"] == ""


@pytest.mark.parametrize("cursor", ["!", "%FF", "a", "ZGVm=", "w6_Dr-8", "x" * 300])
async def test_a_cursor_that_is_none_is_named(api: httpx.AsyncClient, cursor: str) -> None:
    for listed in ("traders", "signals"):
        answer = await api.get(f"{listed}?cursor={cursor}")
        assert (answer.status_code, answer.json()["field"]) == (422, "cursor"), listed


@pytest.mark.parametrize(
    ("path", "most"),
    [
        ("traders?", 500),
        ("pools?", 500),
        ("feeds?", 500),
        ("signals?", 1_000),
        (f"candles?feed={FEED}&symbol=BTC/USDT&interval=1m&", 5_000),
    ],
)
async def test_giant_pages_are_refused_by_field_and_limit(api: httpx.AsyncClient, path: str, most: int) -> None:
    assert (await api.get(f"{path}limit={most}")).status_code == 200
    for limit in (str(most + 1), "1000000000000", "9" * 5_000, "0", "-1", "1.5", "ten", ""):
        answer = await api.get(f"{path}limit={limit}")
        problem = answer.json()
        assert (answer.status_code, problem["field"], problem["reason"]) == (422, "limit", "BadField"), limit
        assert len(problem["detail"]) < 500
    assert str(most) in (await api.get(f"{path}limit={most + 1}")).json()["detail"]


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("traders?limt=5", "limt"),
        ("traders?namespace=Default", "namespace"),
        ("traders?namespace=a/b", "namespace"),
        ("traders?pool=standard", "pool"),
        ("signals?action=hold", "action"),
        ("signals?state=dead", "state"),
        ("signals?state=confirmed", "state"),
        ("signals/stream?state=active", "state"),
        ("signals?trader=default", "trader"),
        ("signals?trader=default/../x", "trader"),
        ("signals?symbol=%00", "symbol"),
        ("signals?since_ms=-1", "since_ms"),
        ("signals?cursor=a%20b", "cursor"),
        ("latency?window_s=0", "window_s"),
        ("latency?window_s=99999999", "window_s"),
        ("candles?symbol=BTC/USDT&interval=1m", "feed"),
        (f"candles?feed={FEED}&symbol=nothing-at-all&interval=1m", "symbol"),
        (f"candles?feed={FEED}&symbol=BTC/USDT&interval=7m", "interval"),
        (f"candles?feed={FEED}&symbol=BTC/USDT&interval=1m&before_ms=x", "before_ms"),
    ],
)
async def test_a_wrong_parameter_is_named(api: httpx.AsyncClient, path: str, field: str) -> None:
    answer = await api.get(path)
    assert (answer.status_code, answer.json()["field"]) == (422, field)
    assert answer.headers["Content-Type"] == "application/problem+json"


async def test_candles_are_those_of_the_series_and_the_symbol_may_be_spelled_as_the_exchange_does(
    api: httpx.AsyncClient, stage: Stage
) -> None:
    answer = (await api.get(f"candles?feed={FEED}&symbol=btcusdt&interval=1m&limit=1")).json()
    assert answer["symbol"] == "BTC/USDT"
    assert [one["open_time_ms"] for one in answer["candles"]] == [60_000]
    before = (await api.get(f"candles?feed={FEED}&symbol=BTC/USDT&interval=1m&before_ms=60000")).json()
    assert [one["open_time_ms"] for one in before["candles"]] == [0]


async def test_an_unknown_feed_is_404_and_503_while_who_would_know_is_away(
    api: httpx.AsyncClient, stage: Stage
) -> None:
    path = "candles?feed=default/none&symbol=BTC/USDT&interval=1m"
    assert (await api.get(path)).status_code == 404
    stage.backend.away = ["the instance doesn't answer: connection refused"]
    answer = await api.get(path)
    assert answer.status_code == 503
    assert "connection refused" in answer.json()["detail"]
    assert int(answer.headers["Retry-After"]) > 0


async def test_a_market_that_can_t_be_asked_is_503_in_its_own_words(api: httpx.AsyncClient, stage: Stage) -> None:
    stage.market.failing = UnavailableError("Kafka at 127.0.0.1:9 doesn't answer")
    answer = await api.get(f"candles?feed={FEED}&symbol=BTC/USDT&interval=1m")
    assert (answer.status_code, answer.json()["reason"]) == (503, "Unavailable")
    assert answer.json()["detail"] == "Kafka at 127.0.0.1:9 doesn't answer"


async def test_signals_come_newest_first_page_after_page(api: httpx.AsyncClient, stage: Stage) -> None:
    for number in range(25):
        stage.signals.tell(signal(number, action="buy" if number % 2 else "sell"))
    told: list[str] = []
    cursor = ""
    while True:
        page = (await api.get(f"signals?limit=10&cursor={quote(cursor)}")).json()
        told += [one["id"] for one in page["items"]]
        cursor = page["next"]
        if not cursor:
            break
    assert told == [f"{number:032x}" for number in reversed(range(25))]
    bought = (await api.get("signals?action=buy&since_ms=600000&until_ms=900000")).json()["items"]
    assert [one["action"] for one in bought] == ["buy"] * len(bought)
    assert bought
    stage.signals.tell(signal(1, state="invalidated"))
    withdrawn = (await api.get("signals?state=invalidated")).json()["items"]
    assert [(one["id"], one["state"], one["expires_ms"]) for one in withdrawn] == [(f"{1:032x}", "invalidated", None)]
    unknown = await api.get("signals?cursor=elsewhere")
    assert (unknown.status_code, unknown.json()["reason"]) == (422, "BadField")


async def test_no_signal_is_found_confirmed_so_asking_for_it_names_the_states_there_are(api: httpx.AsyncClient) -> None:
    answer = await api.get("signals?state=confirmed")
    assert (answer.status_code, answer.json()["field"]) == (422, "state")
    assert "'detected', 'invalidated', 'active', 'closed' or 'expired'" in answer.json()["detail"]
    for state in STANDINGS:
        assert (await api.get(f"signals?state={state}")).status_code == 200


async def test_a_signal_is_told_whole_with_the_address_of_its_trace(stage: Stage) -> None:
    stage.settings.trace_url = "https://traces.example.com/trace/{trace_id}"
    stage.signals.tell(signal(1))
    known = stage.signals.details[f"{1:032x}"]
    stage.signals.details[known.id] = known.model_copy(update={"trace_id": "ab" * 16})
    async with stage.ask() as api:
        answer = (await api.get(f"signals/{1:032x}")).json()
        assert answer["trace_url"] == f"https://traces.example.com/trace/{'ab' * 16}"
        assert (await api.get(f"signals/{2:032x}")).status_code == 404
        for bad in ("x", "A" * 32, f"{1:032x}%0a", "..%2f..%2fetc"):
            assert (await api.get(f"signals/{bad}")).status_code in (404, 422)


async def test_the_age_of_a_feed_is_the_readers_where_the_backend_knows_none(
    api: httpx.AsyncClient, stage: Stage
) -> None:
    assert (await api.get("feeds")).json()["items"][0]["watermark_age_ms"] is None
    stage.market.newest[FEED] = 1_000
    assert (await api.get("feeds")).json()["items"][0]["watermark_age_ms"] > 10**9


@pytest.mark.parametrize("path", ["nothing", "traders/", "traders/default", "traders/default/alpha/x", "overview/", "../../etc/passwd"])  # fmt: skip
async def test_what_isn_t_there_is_a_problem(api: httpx.AsyncClient, path: str) -> None:
    answer = await api.get(path)
    assert answer.status_code == 404
    assert answer.headers["Content-Type"] == "application/problem+json"


@pytest.mark.parametrize(("method", "path"), [("POST", "overview"), ("PATCH", "traders"), ("POST", "traders/default/alpha"), ("DELETE", "traders"), ("PUT", "signals")])  # fmt: skip
async def test_a_method_that_a_route_hasn_t_is_405_and_says_which_it_has(
    api: httpx.AsyncClient, method: str, path: str
) -> None:
    answer = await api.request(method, path, headers={"Content-Type": "application/json"})
    assert answer.status_code == 405
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.headers["Allow"]


async def test_a_defect_is_a_problem_that_tells_nothing_of_the_inside(api: httpx.AsyncClient, stage: Stage) -> None:
    stage.backend.broken = RuntimeError("secret inside")
    answer = await api.get("overview")
    assert (answer.status_code, answer.json()["reason"]) == (500, "Defect")
    assert "secret" not in answer.text
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
