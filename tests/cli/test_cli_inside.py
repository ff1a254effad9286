"""What ``chandlery debug`` shows of a segment and of rings that were really written: each column by its value."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.cli.test_cli_views import text_of
from tests.workers_feed.feed_setup import signal, trader
from typer.testing import CliRunner

from chandlery.cli import debugging
from chandlery.cli.verbs import app
from chandlery.console.amounts import size, timestamp
from chandlery.console.inside import readers_of, rings_inside, segment_inside
from chandlery.console.model import View
from chandlery.core.signals import encode
from chandlery.workers.feed.admission import RecentIds
from chandlery.workers.feed.assignments import Fence
from chandlery.workers.feed.forming_signals import FormingSignals
from chandlery.workers.feed.ring_drain import RingDrain, Tally
from chandlery.workers.segment import SegmentWriter, SignalRing

BEGIN_MS = 1_700_000_000_000
STAMPS = (1,) * 8


def table_of(shown: str, head: str) -> dict[str, dict[str, str]]:
    """Rows of the table whose header begins so, by their first column: cells by header, told apart by where they stand."""
    lines = shown.splitlines()
    at = next(at for at, line in enumerate(lines) if line.startswith(head))
    columns = [(found.start(), found.end(), found.group()) for found in re.finditer(r"\S+( \S+)*", lines[at])]
    rows: dict[str, dict[str, str]] = {}
    for line in lines[at + 1 :]:
        if not line.strip():
            break
        cells = [(found.start(), found.end(), found.group()) for found in re.finditer(r"\S+( \S+)*", line)]
        # A cell overlaps the header of its column: both begin, or both end, at the same place.
        row = {name: text for low, high, name in columns for start, end, text in cells if start == low or end == high}
        rows[cells[0][2]] = row
    return rows


@pytest.fixture
def segment(tmp_path: Path) -> dict[str, Any]:
    """``GET /v1/segment``: a series that has gone round, one that forms only, three readers, one of them by pipe."""
    with SegmentWriter.create(str(tmp_path / "segment"), rows=8, series=4, guard_rows=1, bells=4) as writer:
        btc, eth = writer.add_series("BTC/USDT", "1s"), writer.add_series("ETH/USDT", "1m")
        writer.reset(btc, 7)
        writer.reset(eth, 8)
        for second in range(12):
            writer.append(btc, BEGIN_MS + second * 1_000, 1.0, 1.0, 1.0, 1.0, 1.0, 1, STAMPS)
        assert writer.revise(btc, BEGIN_MS + 11_000, 1.0, 2.0, 1.0, 2.0, 2.0, 2)
        for minute in range(4):
            writer.append(eth, BEGIN_MS + minute * 60_000, 1.0, 1.0, 1.0, 1.0, 1.0, 1, STAMPS)
        writer.set_forming(eth, BEGIN_MS + 240_000, 1.0, 1.0, 1.0, 1.0, 1.0, 1, STAMPS)
        for bell, times in ((1, 3), (2, 1_234)):
            for _ in range(times):
                writer.ring(bell)
        writer.heartbeat()
        told: dict[str, Any] = dict(writer.info())
    return {**told, "traders": {"desk/a": 1, "desk/b": 2, "desk/c": 3}, "piped": ["desk/c"]}


def a_ring(folder: Path, name: str, slots: int, payloads: list[bytes], **counters: int) -> dict[str, Any]:
    """What a feed tells of a Trader's ring when it has taken all of it and the broker has acknowledged the first."""
    path = folder / f"desk__{name}.ring"
    with SignalRing.create(str(path), trader=f"desk/{name}", slots=slots) as ring:
        for payload in payloads:
            assert ring.push(payload)
        for counter, value in counters.items():
            ring.set(counter, value)
        ring.set_position("BTC/USDT", 7, BEGIN_MS + 11_000)
        drain = RingDrain(f"desk/{name}@1", path, path.stat().st_ino, Tally(), Counter())
        drain.take(Fence.of(trader(name, ["BTC/USDT"])), RecentIds(), FormingSignals())
        if drain.in_flight:
            drain.in_flight[0].done = True
            drain.settle()
        if name == "c":  # what a Trader could do to its own
            path.write_bytes(b"\xff" * path.stat().st_size)
            drain.take(Fence.of(trader(name, ["BTC/USDT"])), RecentIds(), FormingSignals())
        told: dict[str, Any] = msgspec.to_builtins(drain.info())
        drain.close()
    return told


@pytest.fixture
def rings(tmp_path: Path) -> dict[str, Any]:
    """``GET /v1/rings``: one with signals under way and one refused, a full one, one that its Trader has broken."""
    sent = {name: [encode(signal(name, number)) for number in range(5)] for name in ("a", "b")}
    return {
        "desk/a": a_ring(
            tmp_path, "a", 8, [*sent["a"], b"rubbish"], calls=4_321, signals=6, lapped=17, reruns=2, stale=3
        ),
        "desk/b": a_ring(tmp_path, "b", 4, sent["b"][:4], calls=9, signals=4, blocked=6),
        "desk/c": a_ring(tmp_path, "c", 4, []),
    }


def test_a_segment_shows_header_series_and_readers_with_their_values(
    segment: dict[str, Any], rings: dict[str, Any]
) -> None:
    header = segment["header"]
    shown = text_of(segment_inside(segment, rings, header["heartbeat_ns"] + 42_000_000))
    figures = dict(re.findall(r"^ *(layout|size|series|writer|superseded) +(.*?) *$", shown, re.MULTILINE))
    assert figures == {
        "layout": f"version {header['layout_version']}, generation {header['generation']}",
        "size": f"{size(header['file_bytes'])}, 8 rows a series",
        "series": "2 of 4",
        "writer": f"pid {header['writer_pid']}, heartbeat 42 ms ago",
        "superseded": "no",
    }
    btc, eth = segment["series"]
    assert table_of(shown, "SERIES  SYMBOL") == {
        "0": {
            "SERIES": "0", "SYMBOL": "BTC/USDT", "INTERVAL": "1s", "SESSION": "7", "CLOSED": "12", "FILL": "100%",
            "REVISION": str(btc["revision"]), "LAST CANDLE": timestamp(BEGIN_MS + 11_000), "FORMING": "–",
        },
        "1": {
            "SERIES": "1", "SYMBOL": "ETH/USDT", "INTERVAL": "1m", "SESSION": "8", "CLOSED": "4", "FILL": "50%",
            "REVISION": str(eth["revision"]), "LAST CANDLE": timestamp(BEGIN_MS + 180_000),
            "FORMING": timestamp(BEGIN_MS + 240_000),
        },
    }  # fmt: skip
    assert btc["revision"] != eth["revision"], "one was corrected"
    assert table_of(shown, "READER") == {
        "desk/a": {"READER": "desk/a", "DOORBELL": "1", "RUNG": "3", "CALLS": "4,321", "LAPPED": "17", "RERUNS": "2", "STALE": "3"},
        "desk/b": {"READER": "desk/b", "DOORBELL": "2", "RUNG": "1,234", "CALLS": "9", "LAPPED": "0", "RERUNS": "0", "STALE": "0"},
        "desk/c": {"READER": "desk/c", "DOORBELL": "pipe", "RUNG": "–", "CALLS": "0", "LAPPED": "0", "RERUNS": "0", "STALE": "0"},
    }  # fmt: skip


def test_rings_show_what_waits_what_is_in_flight_and_what_went_wrong(rings: dict[str, Any]) -> None:
    shown = table_of(text_of(rings_inside(rings)), "RING")
    position = f"BTC/USDT {timestamp(BEGIN_MS + 11_000)}"
    assert shown["desk/a"] == {
        "RING": "desk/a", "DEPTH": "5/8", "IN FLIGHT": "4", "HEAD": "6", "TAIL": "1", "SIGNALS": "6", "BLOCKED": "0",
        "POSITIONS": position, "LAST ERROR": rings["desk/a"]["last_error"],
    }  # fmt: skip
    assert rings["desk/a"]["last_error"].startswith("bad_signal: ")
    assert shown["desk/b"] == {
        "RING": "desk/b", "DEPTH": "3/4", "IN FLIGHT": "3", "HEAD": "4", "TAIL": "1", "SIGNALS": "4", "BLOCKED": "6",
        "POSITIONS": position,
    }  # fmt: skip
    assert shown["desk/c"]["LAST ERROR"] == rings["desk/c"]["corrupt"] != ""


def test_a_segment_as_json_has_its_readers_with_how_many_candles_they_came_too_late_for(
    segment: dict[str, Any], rings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = {"/v1/segment": msgspec.json.encode(segment), "/v1/rings": msgspec.json.encode(rings)}
    monkeypatch.setattr(debugging, "current_view", lambda state: View("r", "1", "s", 1, 0))
    monkeypatch.setattr(debugging, "feed_process", lambda view, worker: worker)
    monkeypatch.setattr(debugging, "ask_process", lambda process, path: answers[path])
    done = CliRunner().invoke(app, ["debug", "segment", "--json"])
    assert done.exit_code == 0, done.output
    told = msgspec.json.decode(done.stdout)
    assert told.pop("readers") == readers_of(segment, rings) == {
        "desk/a": {"doorbell": 1, "rung": 3, "calls": 4_321, "lapped": 17, "reruns": 2, "stale": 3},
        "desk/b": {"doorbell": 2, "rung": 1_234, "calls": 9, "lapped": 0, "reruns": 0, "stale": 0},
        "desk/c": {"doorbell": None, "rung": None, "calls": 0, "lapped": 0, "reruns": 0, "stale": 0},
    }  # fmt: skip
    assert told == msgspec.json.decode(answers["/v1/segment"]), "all else is as the feed says"
