"""Replays: pace, watermarks, resumption, files that can't be used, and the real captures."""

import contextlib
import gzip
import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from tests.stream_ingest.ingest_doubles import BTC_CAPTURE, ETH_CAPTURE, VirtualClock
from tests.stream_ingest.replaying import SKEW_MS, START, Replay, capture, trades
from tests.support.exchange_server import capture_lines, other_frame, trade_frame

from chandlery.core.errors import InputError
from chandlery.stream.ingest.counts import new_counts
from chandlery.stream.ingest.options import ReplayOptions, read_options
from chandlery.stream.ingest.replay import Pace, ReplaySource


def test_the_pace_holds_recorded_distances_divided_by_the_speed() -> None:
    pace = Pace(4.0)
    assert pace.wait_ns(1_000, 50) == 0
    assert pace.wait_ns(1_000 + 4_000_000, 50) == 1_000_000
    assert pace.wait_ns(1_000 + 4_000_000, 50 + 400_000) == 600_000
    assert Pace(None).wait_ns(10**18, 0) == 0


def test_a_pace_left_far_behind_goes_on_from_where_it_is() -> None:
    pace = Pace(1.0)
    pace.wait_ns(0, 0)
    assert pace.wait_ns(1_000_000_000, 10_000_000_000) == 0
    assert pace.wait_ns(1_500_000_000, 10_000_000_000) == 500_000_000


def test_a_moment_out_of_order_is_due_at_once_and_holds_up_none_after_it() -> None:
    hour, second = 3_600_000_000_000, 1_000_000_000
    pace = Pace(1.0)
    assert pace.wait_ns(hour, 0) == 0
    assert pace.wait_ns(0, 0) == 0
    assert pace.wait_ns(hour + second, 0) == second
    assert pace.wait_ns(5, second) == 0
    assert pace.wait_ns(3, second) == 0, "a second one right after it"
    assert pace.wait_ns(hour + 2 * second, second) == second


def test_a_recording_that_begins_again_at_earlier_times_keeps_its_pace() -> None:
    second = 1_000_000_000
    pace, now_ns = Pace(1.0), 0
    recorded = [*range(100, 110), *range(50, 112)]
    waits = []
    for moment in recorded:
        waits.append(pace.wait_ns(moment * second, now_ns))
        now_ns += waits[-1]
    # At 109 it comes to where the first part had ended: that one is due, and those after it keep the pace.
    assert waits == [0, *[second] * 9, 0, *[second] * 58, 0, second, second]


async def test_trades_come_at_the_recorded_pace_restamped_with_the_skew_kept_apart(tmp_path: Path) -> None:
    replay = await Replay([capture(tmp_path / "a.frames", trades("BTCUSDT", 5))], speed=2).run()
    begin = replay.outlet.pushed_ns[0]
    assert [at - begin for at in replay.outlet.pushed_ns] == [index * 50_000_000 for index in range(5)]
    for batch, pushed_ns in zip(replay.outlet.batches, replay.outlet.pushed_ns, strict=True):
        assert (batch.received_ns, batch.exchange_ns) == (pushed_ns, 0)
        assert batch.recorded_skew_ns == SKEW_MS * 1_000_000 + 17
    assert [batch.frame for batch in replay.outlet.batches] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("line", ["no time stamp here", "99999999999999999999 {}"])
@pytest.mark.parametrize("bad", [0, 2, 5])
async def test_a_line_without_a_time_stamp_is_counted_and_not_waited_for(tmp_path: Path, bad: int, line: str) -> None:
    path = tmp_path / "a.frames"
    capture(path, trades("BTCUSDT", 5))
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text("".join([*lines[:bad], f"{line}\n", *lines[bad:]]), encoding="utf-8")
    replay = await Replay([str(path)], ("BTC/USDT",), speed=1).run()
    assert dict(replay.counts.malformed) == {"line": 1}
    assert replay.outlet.pushed_ns == [1_000_000_000 + number * 100_000_000 for number in range(5)]


@pytest.mark.parametrize("bad", [0, 2, 5])
@pytest.mark.parametrize("when", ["no time", "", "0", "99999999999", f"{START - 3_600_000}"])
async def test_a_row_without_a_time_or_an_hour_too_early_holds_up_none_after_it(
    tmp_path: Path, bad: int, when: str
) -> None:
    times = [f"{START + 100 * number}" for number in range(5)]
    rows = [f"{time},1,1" for time in [*times[:bad], when, *times[bad:]]]
    (tmp_path / "t.csv").write_text("\n".join(["time,price,quantity", *rows]), encoding="utf-8")
    replay = await Replay([str(tmp_path / "t.csv")], ("BTC/USDT",), speed=1).run()
    late_s = (replay.clock.now_ns - 1_000_000_000) / 1e9
    is_time = when == f"{START - 3_600_000}"
    if is_time and bad == 0:
        assert late_s == 3_600.4, "before all others it is a recording's begin, with an hour of silence after it"
    else:
        assert late_s == 0.4
    assert replay.counts.malformed["time"] == (0 if is_time else 1)
    assert sum(len(batch.id) for batch in replay.outlet.batches) == (6 if is_time else 5)


async def test_several_files_are_merged_by_receive_time(tmp_path: Path) -> None:
    files = [
        capture(tmp_path / "a.frames.gz", trades("BTCUSDT", 3, 100)),
        capture(tmp_path / "b.frames", trades("ETHUSDT", 3, 100, START + 50)),
    ]
    replay = await Replay(files, speed=1).run()
    assert [batch.symbol[:3] for batch in replay.outlet.batches] == ["BTC", "ETH"] * 3


async def test_in_silence_the_watermark_follows_other_frames_by_a_margin(tmp_path: Path) -> None:
    quiet = [(START + at, other_frame("BTCUSDT", "depthUpdate", START + at)) for at in range(100, 2_000, 100)]
    replay = await Replay(
        [capture(tmp_path / "a.frames", [*trades("BTCUSDT", 1), *quiet])], ("BTC/USDT",), speed=1
    ).run()
    *beats, last = replay.outlet.heartbeats
    assert beats
    assert all(later[1] - sooner[1] >= 250 for sooner, later in itertools.pairwise(beats))
    assert all(mark <= START + 2_000 - 250 and (mark - START) % 100 == 50 for _, mark, _ in beats)
    assert last == ("BTC/USDT", START + 1_900, True)


async def test_no_watermark_passes_a_trade_already_read_in_the_same_slice(tmp_path: Path) -> None:
    frames = sorted(
        [
            *trades("BTCUSDT", 40, 1_000),
            *[(START + at, other_frame("BTCUSDT", "depthUpdate", START + at)) for at in range(0, 40_000, 50)],
        ],
        key=lambda frame: frame[0],
    )
    for speed in (1, 50, "max"):
        replay = await Replay([capture(tmp_path / "a.frames", frames)], ("BTC/USDT",), speed=speed).run()
        assert replay.outlet.ids("BTC/USDT") == list(range(1, 41))
        assert max(mark for _, mark, last in replay.outlet.heartbeats if last) == START + 39_950


async def test_heartbeats_are_not_more_frequent_in_real_time_at_higher_speed(tmp_path: Path) -> None:
    frames = [(START + at, other_frame("BTCUSDT", "depthUpdate", START + at)) for at in range(0, 60_000, 100)]
    replay = await Replay([capture(tmp_path / "a.frames", frames)], ("BTC/USDT",), speed=20).run()
    assert 8 <= len(replay.outlet.heartbeats) <= 13


async def test_other_frames_foreign_symbols_and_garbage_are_counted_by_kind(tmp_path: Path) -> None:
    path = tmp_path / "a.frames"
    capture(
        path,
        [
            *trades("BTCUSDT", 1),
            (START, other_frame("BTCUSDT", "depthUpdate", START)),
            (START, '{"lastUpdateId":1,"bids":[],"asks":[]}'),
            *trades("DOGEUSDT", 2),
            (START, '{"stream":"btcusdt@trade","data":{"e":"trade","E":'),
            (START, trade_frame("BTCUSDT", 9, "x", "1", START)),
        ],
    )
    with path.open("a", encoding="utf-8") as file:
        file.write("no time stamp here\n\n")
    replay = await Replay([str(path)]).run()
    assert dict(replay.counts.skipped_frames) == {"depthUpdate": 1, "other": 1, "other-symbol": 2}
    assert dict(replay.counts.malformed) == {"json": 1, "price": 1, "line": 1}
    assert replay.counts.frames == 8
    assert replay.outlet.ids("BTC/USDT") == [1]


async def test_a_restart_passes_over_what_was_acknowledged_and_nothing_else(tmp_path: Path) -> None:
    frames = sorted([*trades("BTCUSDT", 10), *trades("ETHUSDT", 10, 70)], key=lambda frame: frame[0])
    replay = await Replay([capture(tmp_path / "a.frames", frames)], speed=1).run(BTC_USDT=4, ETH_USDT=7)
    assert replay.outlet.ids("BTC/USDT") == [5, 6, 7, 8, 9, 10]
    assert replay.outlet.ids("ETH/USDT") == [8, 9, 10]
    begin = replay.outlet.pushed_ns[0]
    assert begin == 1_000_000_000, "the part passed over takes no time"


async def test_a_loop_moves_times_and_ids_on(tmp_path: Path) -> None:
    replay = Replay([capture(tmp_path / "a.frames", trades("BTCUSDT", 4))], ("BTC/USDT",), loop=True)
    rooms = 0

    class EnoughError(Exception):
        pass

    async def room() -> None:
        nonlocal rooms
        rooms += 1
        if rooms == 3:
            raise EnoughError

    replay.outlet.room = room  # type: ignore[method-assign]
    with pytest.raises(EnoughError):
        await replay.run()
    times = [time_ms for batch in replay.outlet.batches for time_ms in batch.time_ms]
    assert replay.outlet.ids("BTC/USDT") == list(range(1, 13))
    assert times == sorted(set(times))
    assert [times[4] - times[3], times[8] - times[7]] == [1_000, 1_000]


@pytest.mark.parametrize("loop", [False, True])
async def test_symbols_that_the_files_do_not_have_are_told_when_they_are_read_to_their_end(
    tmp_path: Path, loop: bool
) -> None:
    files = [capture(tmp_path / "a.frames", trades("BTCUSDT", 40))]
    replay = Replay(files, ("BTC/USDT", "NOPE/USDT"), loop=loop)
    before: list[set[str]] = []

    class EnoughError(Exception):
        pass

    async def room() -> None:
        before.append(set(replay.counts.unknown_symbols))
        if len(before) == 2:
            raise EnoughError

    replay.outlet.room = room  # type: ignore[method-assign]
    with pytest.raises(EnoughError) if loop else contextlib.nullcontext():
        # What was appended before a restart is there too, though it isn't pushed again.
        await replay.run(BTC_USDT=40)
    assert before[0] == set()
    assert replay.counts.unknown_symbols == {"NOPE/USDT"}


async def test_a_symbol_whose_trades_are_all_malformed_is_one_that_the_files_have(tmp_path: Path) -> None:
    broken = [(START, trade_frame("BTCUSDT", number, "a price", "0.5", START)) for number in (1, 2, 3)]
    replay = Replay([capture(tmp_path / "a.frames", broken)], ("BTC/USDT", "NOPE/USDT"))
    await replay.run()
    assert sum(replay.counts.malformed.values()) == 3
    assert replay.counts.unknown_symbols == {"NOPE/USDT"}


async def test_it_says_how_much_of_its_files_is_read(tmp_path: Path) -> None:
    """Of two captures of the same time, one a tenth of the other, each counts by its bytes; one that loops has no end."""
    many, few = trades("BTCUSDT", 10_000, 1), trades("ETHUSDT", 1_000, 10)
    files = [capture(tmp_path / "a.frames.gz", many), capture(tmp_path / "b.frames", few)]
    replay = Replay(files)
    told: list[float] = []

    async def room() -> None:
        told.append(replay.counts.replayed or 0.0)

    replay.outlet.room = room  # type: ignore[method-assign]
    assert replay.counts.replayed == 0.0
    await replay.run()
    assert told == sorted(told)
    assert len(set(told)) > 5
    assert 0.2 < told[len(told) // 2] < 0.8, "half of the time is about half of the bytes"
    assert replay.counts.replayed == 1.0
    assert Replay(files, loop=True).counts.replayed is None


async def test_reading_is_lazy_and_gives_room_its_say(tmp_path: Path) -> None:
    replay = Replay([capture(tmp_path / "a.frames", trades("BTCUSDT", 5_000))])
    pushed: list[int] = []

    async def room() -> None:
        pushed.append(len(replay.outlet.ids("BTC/USDT")))

    replay.outlet.room = room  # type: ignore[method-assign]
    await replay.run()
    assert pushed[:3] == [500, 1_000, 1_500]


def test_the_first_trade_of_a_symbol_is_found(tmp_path: Path) -> None:
    frames = [*trades("BTCUSDT", 2), *trades("ETHUSDT", 1, start_ms=START + 500)]
    source = Replay([capture(tmp_path / "a.frames", frames)], ("BTC/USDT", "ETH/USDT", "SOL/USDT")).source
    assert source.first_trade_ms("ETH/USDT") == START + 500
    assert source.first_trade_ms("SOL/USDT") is None


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("t.csv", "time,price\n1723161254000,1\n", "no column quantity"),
        ("t.csv", "time,price,quantity,id\n1723161254000,1\n", "line 2"),
        ("t.csv", "time,price,quantity\n1723161254000,1,1\n", "no symbol column"),
        ("t.parquet", "garbage", "can't read the table"),
        ("t.feather", "garbage", "can't read the table"),
        ("t.frames.gz", "garbage", "can't read the capture"),
    ],
)
async def test_a_file_that_cannot_be_used_is_named_with_the_reason(
    tmp_path: Path, name: str, content: str, says: str
) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    replay = Replay([str(tmp_path / name)])
    with pytest.raises(InputError, match=says) as refused:
        await replay.run()
    assert name in str(refused.value)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"files": []}, "files"),
        ({"files": ["absent.frames"]}, "no such file"),
        ({"files": [__file__]}, r"\.frames"),
        ({"files": ["x"], "speed": "slow"}, "speed"),
        ({"files": ["x"], "speed": 0}, "speed"),
        ({"file": ["x"]}, "file"),
    ],
)
def test_options_that_cannot_be_used_are_refused_by_name(options: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        ReplaySource(read_options("replay", options, ReplayOptions), ["BTC/USDT"], 250, new_counts({}), VirtualClock())


async def test_a_truncated_capture_gives_what_it_has_and_then_says_so(tmp_path: Path) -> None:
    whole = gzip.compress(
        "".join(f"{START * 10**6 + n} {text}\n" for n, (_, text) in enumerate(trades("BTCUSDT", 5_000))).encode()
    )
    (tmp_path / "cut.frames.gz").write_bytes(whole[: len(whole) // 2])
    replay = Replay([str(tmp_path / "cut.frames.gz")])
    with pytest.raises(InputError, match=r"cut\.frames\.gz"):
        await replay.run()
    assert len(replay.outlet.ids("BTC/USDT")) >= 500


@pytest.mark.skipif(not BTC_CAPTURE.exists(), reason="the captures of ../shared/data are not here")
async def test_the_real_captures_have_their_trades_in_order_with_exact_decimals() -> None:
    replay = await Replay([str(BTC_CAPTURE), str(ETH_CAPTURE)]).run()
    expected: dict[str, list[tuple[int, int, int, int]]] = {"BTC/USDT": [], "ETH/USDT": []}
    for _, text in capture_lines([BTC_CAPTURE, ETH_CAPTURE]):
        data = json.loads(text).get("data", {})
        if data.get("e") == "trade":
            # The exchange writes eight decimals, always.
            price, quantity = (int(data[name].replace(".", "")) for name in ("p", "q"))
            expected[f"{data['s'][:3]}/USDT"].append((data["t"], data["T"], price, quantity))
    for symbol, count in (("BTC/USDT", 9_757), ("ETH/USDT", 6_106)):
        batches = [batch for batch in replay.outlet.batches if batch.symbol == symbol]
        rows = [
            row for batch in batches for row in zip(batch.id, batch.time_ms, batch.price, batch.quantity, strict=True)
        ]
        assert len(rows) == count
        assert rows == expected[symbol]
    assert replay.counts.frames == 41_249 + 33_618
    assert replay.counts.malformed == {}
    skews = [batch.recorded_skew_ns / 1e6 for batch in replay.outlet.batches]
    assert -1_280 < min(skews) < max(skews) < -1_000


@pytest.mark.skipif(not BTC_CAPTURE.exists(), reason="the captures of ../shared/data are not here")
async def test_in_the_real_captures_no_trade_comes_after_a_heartbeat_that_excluded_it() -> None:
    replay = Replay([str(BTC_CAPTURE), str(ETH_CAPTURE)], speed=50)
    marks = {"BTC/USDT": 0, "ETH/USDT": 0}
    outlet = replay.outlet
    noted_trades, noted_heartbeat = outlet.trades, outlet.heartbeat
    early: list[tuple[str, int, int]] = []

    def trades(batch: Any) -> None:
        early.extend((batch.symbol, time, marks[batch.symbol]) for time in batch.time_ms if time < marks[batch.symbol])
        noted_trades(batch)

    def heartbeat(symbol: str, exchange_ms: int, *, last: bool = False) -> None:
        marks[symbol] = max(marks[symbol], exchange_ms)
        noted_heartbeat(symbol, exchange_ms, last=last)

    outlet.trades, outlet.heartbeat = trades, heartbeat  # type: ignore[method-assign]
    await replay.run()
    assert early == []
    assert len(outlet.heartbeats) > 2
