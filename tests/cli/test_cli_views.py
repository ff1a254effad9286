"""What the views show: tables, live view, waterfall, lines."""

from __future__ import annotations

import re

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console, RenderableType

from chandlery.cli.collecting import Collected, Found, as_json, by_prefix, row_of, traced_as_json
from chandlery.cli.getting import Kind, rows_of, select, table_of
from chandlery.cli.signalling import is_of, signals_of
from chandlery.console.amounts import duration_us, size, timestamp
from chandlery.console.inside import segment_inside
from chandlery.console.lines import feed_line
from chandlery.console.live import live_view, start_panel, summary_view
from chandlery.console.model import (
    ConsoleRow,
    FeedRow,
    PoolRow,
    ProcessRow,
    SignalRow,
    TraderRow,
    View,
    decode_view,
    encode_view,
)
from chandlery.console.reading.entries import Key, detail, entry_of
from chandlery.console.summary import Summary
from chandlery.console.tables import signals_table
from chandlery.console.waterfall import bar, signal_waterfall
from chandlery.core.errors import InputError
from chandlery.core.signal_life import SignalLife, Step
from chandlery.core.signals import Completion, Life, Signal, SignalStamps, decode_record, encode


def text_of(renderable: RenderableType, width: int = 300) -> str:
    console = Console(width=width, record=True, file=open("/dev/null", "w"), color_system=None)  # noqa: SIM115
    console.print(renderable)
    return console.export_text()


def a_signal(**changes: object) -> Signal:
    fields: dict[str, object] = {
        "id": "ab" * 16, "trader": "default/sma-btc", "strategy": "sma-cross", "code": "c", "rule": "cross",
        "ordinal": 0, "action": "buy", "symbol": "BTC/USDT", "interval": "1s", "open_time_ms": 1_700_000_000_000,
        "session": 1, "price": "61837.63", "strength": 1.0, "reason": "crossed up",
    }  # fmt: skip
    return Signal(**{**fields, **changes})  # type: ignore[arg-type]


def a_view(traders: int = 2) -> View:
    rows = [
        TraderRow(f"default/t{n}", "Active", ready=True, symbols=["BTC/USDT"], interval="1s") for n in range(traders)
    ]
    return View(
        run="r", version="1", state_dir="/s", pid=1, started_ms=0, traders=rows,
        feeds=[FeedRow("default/market", "synthetic", connected=True, symbols=["BTC/USDT"], intervals=["1s"])],
        pools=[PoolRow("default/demo", workers=1, capacity=20, used=traders, transport="SharedMemory")],
        signals=[SignalRow("ab" * 16, "default/t0", "buy", "BTC/USDT", "1s", "1.5", 0)],
    )  # fmt: skip


def test_traders_table_shows_reason_and_message_of_a_stalled_one() -> None:
    view = a_view()
    view.traders.append(TraderRow("default/bad", "Stalled", reason="UnknownStrategy", message="no strategy sma-cros"))
    shown = text_of(table_of(Kind.traders, view.traders, wide=False))
    assert "UnknownStrategy no strategy sma-cros" in shown
    assert "default/t1" in shown


def test_a_feeds_wide_row_tells_what_was_lost_by_its_kind() -> None:
    lost = FeedRow(
        "default/market",
        "binance",
        connected=True,
        late=1,
        duplicate=2,
        missing_ids=12_345,
        dropped=4,
        dead_letters=5,
        reconnects=6,
    )
    head, row = text_of(table_of(Kind.feeds, [lost], wide=True)).splitlines()
    for name, told in zip(
        ("LATE", "DUPLICATE", "MISSING", "DROPPED", "DEAD", "RECONNECTS"),
        ("1", "2", "12,345", "4", "5", "6"),
        strict=True,
    ):
        end = head.index(name) + len(name)
        assert row[:end].split()[-1] == told
        assert name not in text_of(table_of(Kind.feeds, [lost], wide=False))


@pytest.mark.parametrize("kind", list(Kind))
@pytest.mark.parametrize("wide", [False, True])
def test_every_kind_has_a_table_with_as_many_lines_as_rows(kind: Kind, wide: bool) -> None:
    rows = rows_of(a_view(), kind)
    assert len(text_of(table_of(kind, rows, wide=wide)).splitlines()) == len(rows) + 1


def test_rows_are_found_by_full_and_by_short_name_and_an_unknown_one_is_refused() -> None:
    rows = rows_of(a_view(), Kind.traders)
    assert select(rows, ["t1"]) == select(rows, ["default/t1"]) == [rows[1]]
    with pytest.raises(InputError, match="default/t0"):
        select(rows, ["nobody"])


def test_a_short_name_is_that_of_all_who_share_it() -> None:
    rows = [TraderRow(name, "Active") for name in ("a/x", "a/y", "b/x")]
    assert select(rows, ["x"]) == [rows[0], rows[2]]
    assert select(rows, ["b/x", "x", "y"]) == rows, "each once, in their own order"
    with pytest.raises(InputError, match=r"^not found: z, c/x; there are: a/x, a/y, b/x$"):
        select(rows, ["x", "z", "c/x"])


def test_signals_are_found_by_their_trader_and_by_their_id() -> None:
    signal = a_view().signals[0]
    of = [("a1" * 16, "default/t0"), ("a2" * 16, "default/t1"), ("b3" * 16, "default/t0"), ("b4" * 16, "desk/t1")]
    rows = [msgspec.structs.replace(signal, id=identity, trader=trader) for identity, trader in of]
    assert select(rows, ["t0"]) == select(rows, ["default/t0"]) == [rows[0], rows[2]]
    assert select(rows, ["a2" * 16]) == select(rows, ["A2"]) == [rows[1]]
    assert select(rows, ["b3", "desk/t1"]) == rows[2:]
    with pytest.raises(InputError, match="2 signals' ids begin with 'a'"):
        select(rows, ["a"])
    with pytest.raises(InputError, match=r"^not found: cc; there are: default/t0, default/t1, desk/t1$"):
        select(rows, ["cc"])


@pytest.mark.parametrize("height", [10, 24, 60])
@pytest.mark.parametrize("width", [80, 200])
def test_the_live_view_fits_the_screen_and_says_what_it_hides(height: int, width: int) -> None:
    view = a_view(traders=200)
    view.console = ConsoleRow("http://127.0.0.1:8420")
    view.signals = [msgspec.structs.replace(view.signals[0], id=str(n), reason="why " * 50) for n in range(50)]
    shown = text_of(live_view(view, height, width), width)
    assert len(shown.splitlines()) <= max(height, 20)
    assert "more: chandlery get traders" in shown
    assert ("http://127.0.0.1:8420" in shown.splitlines()[0]) == (width > 100)


def test_the_live_view_shows_a_broken_trader_before_sound_ones() -> None:
    view = a_view(traders=100)
    view.traders.append(TraderRow("default/zz-broken", "Stalled", reason="CrashLoop"))
    assert "zz-broken" in text_of(live_view(view, 20))


@pytest.mark.parametrize("width", [80, 100, 120, 140, 200])
def test_the_live_view_shows_latency_and_memory_of_each_trader_in_one_line_at_every_width(width: int) -> None:
    view = a_view(traders=0)
    view.traders = [
        TraderRow(
            f"trading-desk/donchian-breakout-{symbol.lower()}", "Suspended", ready=True, strategy="donchian-breakout",
            symbols=[f"{symbol}/USDT", f"{symbol}/EUR", f"{symbol}/BTC"], interval="15m", calls=1_234_567 + at, signals=12_345 + at,
            frame_to_signal_p50_us=12_300.0 + at * 100, frame_to_signal_p99_us=145_600.0 + at * 100, rss_bytes=121_000_000 + at * 100_000,
        )
        for at, symbol in enumerate(("BTC", "ETH"))
    ]  # fmt: skip
    view.traders.append(TraderRow("default/bad", "Stalled", reason="UnknownStrategy", message="no strategy x " * 20))
    view.signals = [msgspec.structs.replace(view.signals[0], reason="why " * 50)]
    lines = [line.rstrip() for line in text_of(live_view(view, 24, width), width).splitlines()]
    (head,) = (line.split() for line in lines if line.startswith("NAME"))
    assert {"STATE", "CALLS", "SIGNALS", "P50", "P99", "MEMORY"} <= set(head)
    assert ("STRATEGY" in head) == (width == 200)
    begin = next(at for at, line in enumerate(lines) if line.startswith("NAME")) + 1
    bad, *rows = lines[begin : begin + 3]
    assert bad.split()[0] == "default/bad"
    assert "  Stalled  " in bad
    for at, row in enumerate(rows):
        assert row.startswith("trading-desk/donch")
        for told in (
            "Suspended",
            f"{1_234_567 + at:,}",
            f"{12_345 + at:,}",
            f"{12.3 + at / 10:.1f} ms",
            f"{145.6 + at / 10:.1f} ms",
        ):
            assert told in row
        assert f"{121.0 + at / 10:.1f} MB" in row
    assert lines[begin + 3].startswith("default/bad: Stalled (UnknownStrategy no strategy x no strategy x")
    assert [lines[begin + 3][-1], lines[begin + 4]] == ["…", ""]
    assert max(map(len, lines)) <= width


def test_the_live_view_leaves_room_for_traders_where_many_have_something_to_say() -> None:
    view = a_view()
    view.traders = [TraderRow(f"default/t{n:02d}", "Stalled", message=f"why {n}") for n in range(50)]
    lines = text_of(live_view(view, 24, 80), 80).splitlines()
    assert len(lines) <= 24
    rows = [line for line in lines if re.match(r"default/t\d+ ", line)]
    reasons = [line for line in lines if re.match(r"default/t\d+: Stalled \(why", line)]
    assert len(rows) > len(reasons) > 0
    assert f"… and {50 - len(rows)} more: chandlery get traders" in lines


def test_a_replay_shows_how_far_it_is_until_it_is_over() -> None:
    view = a_view()
    feed = view.feeds[0]
    assert "replayed" not in feed_line(feed)
    feed.replayed = 0.437
    assert feed_line(feed).startswith("default/market: 43% replayed, ")
    shown = text_of(live_view(view, 20))
    assert "\u2588" * 17 + " " * 23 + " 43% of default/market" in shown
    feed.replayed = 1.0
    assert "99% replayed" in feed_line(feed), "it is read; it isn't through"
    feed.finished = True
    assert feed_line(feed).startswith("default/market: finished, ")
    assert "% of default/market" not in text_of(live_view(view, 20))


def test_a_segment_shows_its_room_and_what_became_of_it() -> None:
    told: dict[str, object] = {"header": {"series_capacity": 128}, "series_count": 90}
    room = {"series_capacity": 512, "series_waiting": 0, "series_in_grace": 3, "series_freed": 7, "growths": 2}
    assert "grow" not in text_of(segment_inside(told, {}, 0)), "a feed of an earlier version says nothing of it"
    text = text_of(segment_inside({**told, "room": room}, {}, 0))
    assert "90 of 128 (may grow to 512; grown 2 times); 3 unread, 7 freed" in text
    assert "no series" not in text
    absent = {"ETH/USDT 3m": "the segment is full"}
    assert "no series ETH/USDT 3m: the segment is full" in text_of(segment_inside({**told, "absent": absent}, {}, 0))
    assert "4 wait for room" in text_of(segment_inside({**told, "room": {**room, "series_waiting": 4}}, {}, 0))


def test_the_live_view_counts_the_memory_of_traders_too() -> None:
    view = a_view(traders=2)
    view.processes = [ProcessRow("kafka", "running", rss_bytes=100_000_000)]
    for row in view.traders:
        row.rss_bytes = 20_000_000
    assert "memory 140.0 MB RSS" in text_of(live_view(view, 20)).splitlines()[0]


def test_the_start_panel_says_what_runs_where_to_look_and_what_to_type() -> None:
    shown = text_of(start_panel(a_view(), [("chandlery get traders", "the traders")]))
    for expected in ("default/market", "default/demo", "2 of 2 ready", "/s/logs", "chandlery get traders"):
        assert expected in shown


@pytest.mark.parametrize(
    ("row", "told"),
    [
        (None, ""),
        (ConsoleRow("http://127.0.0.1:8420"), "http://127.0.0.1:8420"),
        (
            ConsoleRow("http://127.0.0.1:8421", "port 8420 is held by pid 7 (x)"),
            "http://127.0.0.1:8421, port 8420 is held by",
        ),
        (ConsoleRow("", "it needs fastapi: pip install 'chandlery[console]'"), "it needs fastapi"),
    ],
)
def test_the_start_panel_says_where_the_console_is_or_why_it_is_not(row: ConsoleRow | None, told: str) -> None:
    view = a_view()
    view.console = row
    shown = text_of(start_panel(view, []))
    assert ("console" in shown) == (row is not None)
    assert told in shown


def test_the_summary_view_names_every_problem() -> None:
    shown = text_of(summary_view(Summary(version="1", session=1, problems=["trades don't add up: x"])))
    assert "DO NOT RECONCILE" in shown
    assert "trades don't add up: x" in shown


def test_a_waterfall_shows_stages_with_shares_that_make_a_whole() -> None:
    stamps = SignalStamps(
        received_ns=1_000_000, aggregated_ns=3_000_000, decided_ns=4_000_000, acknowledged_ns=5_000_000
    )
    shown = text_of(signal_waterfall(a_signal(stamps=stamps)))
    assert "50%" in shown
    assert shown.count("25%") == 2
    assert "frame to acknowledged signal: 4.00 ms" in shown


def test_a_waterfall_keeps_the_clocks_skew_apart_and_says_so() -> None:
    stamps = SignalStamps(
        exchange_ns=2_000_000_000, received_ns=1_000_000, decided_ns=2_000_000, wall_offset_ns=729_000_000,
        recorded_skew_ns=-1_270_000_000,
    )  # fmt: skip
    shown = text_of(signal_waterfall(a_signal(stamps=stamps)))
    assert "-1.27 s by two wall clocks" in shown
    assert "replay: when captured" in shown


@pytest.mark.parametrize(("width", "bars", "words"), [(200, True, True), (110, True, False), (80, True, False)])
def test_a_waterfall_gives_up_words_before_bars_and_never_a_figure(width: int, bars: bool, words: bool) -> None:
    names = ("received", "appended", "aggregated", "emitted", "fed", "published", "woken", "decided", "signalled")
    stamps = SignalStamps(**{f"{name}_ns": 10**12 + at * 7_000_000 for at, name in enumerate(names)}, wall_offset_ns=1)
    shown = text_of(signal_waterfall(a_signal(stamps=stamps)), width)
    table = shown[shown.index("STAGE") : shown.index("whole")]
    assert "…" not in table
    assert ("█" in table) is bars
    assert ("doorbell rang" in table) is words
    assert max(map(len, table.splitlines())) <= width


def completed(signal: Signal, acknowledged_ns: int) -> tuple[Completion, Found]:
    """A signal's completion, of a frame that another host received; and the signal as it is found on its topic."""
    completion = Completion(
        signal.id,
        signal.trader,
        acknowledged_ns=acknowledged_ns,
        wall_offset_ns=1,
        origin="0ddba11f" * 4,
        host="c0ffee42" * 4,
    )
    collected = Collected()
    for record in (signal, completion):
        collected.add(encode(record))
    (found,) = signals_of(collected)
    return completion, found


def test_a_waterfall_names_each_clock_as_the_console_does() -> None:
    names = ("received", "appended", "aggregated", "emitted", "fed")
    signal = a_signal(stamps=SignalStamps(**{f"{name}_ns": at * 7_000_000 for at, name in enumerate(names, 1)}))
    completion, found = completed(signal, acknowledged_ns=44_000_000)
    lines = text_of(signal_waterfall(*found)).splitlines()
    entry = entry_of(signal, "default/market", Key(0, "", 0, 0))
    entry.complete(completion)
    page = detail(entry, SignalLife((Step("active", 0),)), "")
    told = {stage.name: stage.clock_name for stage in page.waterfall}
    assert told == {
        "appended": "broker's clock", "aggregated": "host clock c0ffee42", "emitted": "host clock c0ffee42",
        "fed": "host clock", "acknowledged": "host clock",
    }  # fmt: skip
    for name, clock in told.items():
        (line,) = (line for line in lines if line.startswith(name))
        assert f"  {clock} " in line
    assert page.received_host == "0ddba11f"
    assert "begins with the frame received, by host clock 0ddba11f" in lines
    alone = text_of(signal_waterfall(signal))
    assert "begins with the frame received" not in alone, "by the same clock as all else"
    assert "host's wall clock" in next(line for line in alone.splitlines() if line.startswith("aggregated"))


def test_a_traced_signal_as_json_has_the_stages_that_the_console_shows() -> None:
    names = ("received", "appended", "aggregated", "emitted", "fed", "published", "woken", "decided", "signalled")
    stamps = SignalStamps(**{f"{name}_ns": at**2 * 7_000_000 for at, name in enumerate(names, 1)}, exchange_ns=5)
    signal = a_signal(stamps=stamps)
    completion, found = completed(signal, acknowledged_ns=800_000_000)
    told = msgspec.json.decode(traced_as_json(found))
    entry = entry_of(signal, "default/market", Key(0, "", 0, 0))
    entry.complete(completion)
    page = detail(entry, SignalLife((Step("active", 0),)), "")
    assert told["stages"] == [stage.model_dump() for stage in page.waterfall]
    assert [stage["name"] for stage in told["stages"]] == [*names[1:], "acknowledged"]
    assert {stage["duration_us"] > 0 for stage in told["stages"]} == {True}
    assert sum(stage["duration_us"] for stage in told["stages"]) == pytest.approx(told["whole_us"])
    for name in ("whole_us", "frame_to_signal_us", "visible_to_decided_us", "skew_us", "transit_us", "corrected"):
        assert told[name] == getattr(page, name)
    assert (told["received_host"], told["stages"][1]["host"]) == ("0ddba11f", "c0ffee42")
    assert decode_record(traced_as_json(found).encode()) == found.signal, "it is still the record"


def test_a_signal_without_stamps_still_has_a_waterfall() -> None:
    assert "without a latency account" in text_of(signal_waterfall(a_signal()))


@given(
    start=st.floats(min_value=0, max_value=1e9), length=st.floats(min_value=0, max_value=1e9),
    rest=st.floats(min_value=0, max_value=1e9),
)  # fmt: skip
def test_a_bar_always_has_its_width_and_a_mark(start: float, length: float, rest: float) -> None:
    drawn = bar(start, length, start + length + rest, 40).plain
    assert len(drawn) == 40
    assert drawn.strip()


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "–"), (85.4, "85 µs"), (4200.0, "4.20 ms"), (42_000.0, "42.0 ms"), (-1_270_000.0, "-1.27 s")],
)
def test_durations_carry_a_fitting_unit(value: float | None, text: str) -> None:
    assert duration_us(value) == text


def test_sizes_carry_a_fitting_unit() -> None:
    assert [size(0), size(312_000), size(9_800_000), size(2_500_000_000)] == ["–", "312 kB", "9.8 MB", "2.50 GB"]


def test_a_view_survives_its_json() -> None:
    view = a_view()
    assert decode_view(encode_view(view)) == view


def test_a_signal_is_found_by_the_beginning_of_its_id() -> None:
    one, other = a_signal(id="ab" * 16), a_signal(id="ac" * 16)
    assert by_prefix([one, other], "AB") is one
    with pytest.raises(InputError, match="2 signals"):
        by_prefix([one, other], "a")
    with pytest.raises(InputError, match="no signal"):
        by_prefix([one, other], "ff")


def test_signals_are_chosen_by_full_or_short_trader_name() -> None:
    signal = a_signal()
    assert is_of(signal, "")
    assert is_of(signal, "sma-btc")
    assert is_of(signal, "default/sma-btc")
    assert not is_of(signal, "other/sma-btc")


@pytest.mark.parametrize("completion_first", [False, True])
def test_a_completion_gives_its_signal_the_brokers_acknowledgement_in_either_order(completion_first: bool) -> None:
    signal = encode(a_signal(stamps=SignalStamps(received_ns=5)))
    completion = encode(Completion("ab" * 16, "default/sma-btc", acknowledged_ns=9, wall_offset_ns=3))
    collected = Collected()
    for record in [completion, signal] if completion_first else [signal, completion]:
        collected.add(record)
    (one,) = collected.signals.values()
    assert (one.stamps.acknowledged_ns, one.stamps.wall_offset_ns) == (9, 3)


def test_a_repeated_signal_counts_as_published_but_not_as_another() -> None:
    collected = Collected()
    assert collected.add(encode(a_signal())) is not None
    assert collected.add(encode(a_signal())) is None
    assert collected.add(b"garbage") is None
    assert (collected.published, len(collected.signals), collected.undecodable) == (2, 1, 1)


def collected_lives() -> Collected:
    """A buy that a confirmed sell closes, a sell that its close withdraws, and a record of each twice."""
    at_ms = 1_700_000_000_000
    buy = a_signal(id="a1" * 16, emitted_wall_ms=at_ms)
    sell = a_signal(id="b2" * 16, emitted_wall_ms=at_ms + 1_000, action="sell", forming=True)
    other = a_signal(id="c3" * 16, emitted_wall_ms=at_ms + 9_000, action="sell", forming=True)
    collected = Collected()
    for record in (
        buy,
        sell,
        other,
        Life(sell.id, sell.trader, sell.symbol, "confirmed", 0, at_ms + 2_000),
        Life(other.id, other.trader, other.symbol, "invalidated", 0, at_ms + 10_000),
    ):
        for _ in range(2):
            collected.add(encode(record))
    return collected


def test_signals_show_the_state_of_their_lives_and_json_tells_the_whole() -> None:
    collected = collected_lives()
    assert (collected.published, len(collected.signals)) == (6, 3), "what is told of lives is no signal"
    found = [Found(one, collected.lives.of(one.id, 1_700_000_000_000)) for one in collected.signals.values()]
    table = text_of(signals_table(row_of(one.signal, one.life) for one in found))
    assert "STATE" in table
    assert [state for line in table.splitlines() for state in ("closed", "active", "invalidated") if state in line] == [
        "closed", "active", "invalidated"
    ]  # fmt: skip
    told = msgspec.json.decode(as_json(found[0]))
    assert (told["state"], told["ended_by"], told["expires_ms"]) == ("closed", "b2" * 16, None)
    assert told["life"] == [
        ["detected", 1_700_000_000_000], ["active", 1_700_000_000_000], ["closed", 1_700_000_002_000]
    ]  # fmt: skip
    assert decode_record(as_json(found[0]).encode()) == found[0].signal, "it is still the record"
    assert "STATE" not in text_of(signals_table(row_of(one.signal) for one in found))


def test_a_waterfall_tells_the_life_with_its_times() -> None:
    collected = collected_lives()
    lives = {identity: collected.lives.of(identity, 1_700_000_003_000) for identity in collected.signals}
    shown = text_of(signal_waterfall(collected.signals["a1" * 16], lives["a1" * 16]))
    assert f"closed {timestamp(1_700_000_002_000)}, by {'b2' * 16}" in shown
    active = text_of(signal_waterfall(collected.signals["b2" * 16], lives["b2" * 16]))
    assert f"confirmed {timestamp(1_700_000_002_000)}" in active
    assert "if nothing ends it before" in active
    assert "invalidated" in text_of(signal_waterfall(collected.signals["c3" * 16], lives["c3" * 16]))


def test_a_signal_that_is_told_and_forgotten_leaves_no_life_behind() -> None:
    collected = collected_lives()
    for identity in list(collected.signals):
        collected.forget(identity)
    assert len(collected.lives) == 0
