"""docs/segment.md is enough to write a reader in another language: one in C, that includes nothing of Chandlery."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest
from tests.segment.segment_processes import DEADLINE_S, process, receive, write_under_stress
from tests.segment.segment_rows import row, stamps
from tests.segment_reader.foreign_reader import SOURCE, Oracle, build, running, told

from chandlery.workers.segment import SegmentWriter, _native

ROWS, GUARD = 8, 2
DOCUMENT = Path(__file__).parents[2] / "docs" / "segment.md"


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("reader"))


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "segment")


def make(path: str, series: int = 3) -> SegmentWriter:
    return SegmentWriter.create(path, rows=ROWS, series=series, guard_rows=GUARD, bells=3, stamp_rows=4)


def test_the_reader_includes_nothing_of_chandlery() -> None:
    included = re.findall(r'#include ([<"].*)', SOURCE.read_text(encoding="utf-8"))
    assert included
    assert all(name.startswith("<") for name in included)


def test_its_offsets_are_those_of_the_document() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    offsets: dict[str, set[str]] = {}
    for offset, name in re.findall(r"^\| (\d+) \| `(?:HEADER|RECORD)_(\w+?)(?:_MS)?`", text, re.M):
        offsets.setdefault(name, set()).add(offset)
    used = re.findall(r"AT_(\w+) = (\d+),", SOURCE.read_text(encoding="utf-8"))
    assert len(used) > 25
    assert [name for name, offset in used if offset not in offsets[name]] == []


def test_what_it_reads_at_each_bell_is_what_the_writer_wrote(program: Path, path: str) -> None:
    """Every step of a writer's life, told while the reader sleeps; then the bell, and the reader's account."""
    draw = random.Random(11)
    with make(path) as writer:
        series = [Oracle(writer, *name, rows=ROWS, guard_rows=GUARD) for name in (("BTC/USDT", "1s"), ("É/€", "15m"))]
        series[0].add()
        with running(program, path, "follow", "1", "BTC/USDT", "1s", "É/€", "15m") as reader:
            assert reader.line() == "opened 1"
            for step in range(120):
                lines, _ = reader.lines_until("seen")
                assert [told(line) for line in lines] == [told_ for one in series for told_ in one.expected()], step
                reader.wait_asleep()
                _change(draw, step, series)
                writer.ring(1)
            writer.close()
            lines, _ = reader.lines_until("gone")
            assert lines[-1] == "superseded 1"
            assert reader.process.wait(DEADLINE_S) == 0


def _change(draw: random.Random, step: int, series: list[Oracle]) -> None:
    first, second = series
    if step == 20:
        second.add()
    elif step == 60:
        first.remove()
    elif step == 65:
        first.add()
    elif step in (45, 90):
        first.reset(step)
    else:
        one = second if (step > 20 and draw.random() < 0.4) or 60 <= step <= 65 else first
        count = len(one._there.rows)
        kind = draw.random()
        if kind < 0.6 or not count:
            one.append(backfill=draw.random() < 0.3, live=draw.random() < 0.5)
        elif kind < 0.8:
            one.form(count + draw.randrange(2), draw.randrange(900))
        else:
            one.revise(draw.randrange(max(0, count - ROWS), count), draw.randrange(1, 900))


def test_it_follows_a_superseded_file_to_its_successor(program: Path, path: str) -> None:
    first = make(path)
    one = Oracle(first, "BTC/USDT", "1s", rows=ROWS, guard_rows=GUARD)
    one.add()
    one.append()
    with running(program, path, "follow", "2", "BTC/USDT", "1s") as reader:
        reader.lines_until("seen")
        reader.wait_asleep()
        first.close(unlink=False)  # as one that was killed: its successor wakes the readers
        with make(path, series=9) as second:
            assert [reader.line() for _ in range(2)] == ["superseded 1", "opened 2"]
            lines, _ = reader.lines_until("seen")
            assert lines == ["absent BTC/USDT@1s"]
            again = Oracle(second, "BTC/USDT", "1s", rows=ROWS, guard_rows=GUARD)
            again.add()
            again.append()
            reader.wait_asleep()
            second.ring(2)
            lines, _ = reader.lines_until("seen")
            assert [told(line) for line in lines] == again.expected()


def test_what_passes_as_whole_under_a_writer_at_full_speed_is_whole(program: Path, path: str) -> None:
    """Appends, revisions, resets and reused records by another process; the reader vouches for what it tells."""
    checked = {"window": 0, "forming": 0, "stamps": 0}
    with process(write_under_stress, path, 3, 30_000) as (_, connection):
        assert receive(connection) == "ready"
        with running(program, path, "hammer", "1500", "A/USDT", "1s", "B/USDT", "1s") as reader:
            assert reader.line() == "opened 1"
            connection.send("go")
            lines, closing = reader.lines_until("hammered")
            assert reader.lines_until("gone")[0] == ["superseded 1"]
    for line in lines:
        kind, _, *values = line.split()
        checked[kind] += 1
        {"window": _check_window, "forming": _check_forming, "stamps": _check_stamps}[kind](values)
    whole = int(closing.split()[1])
    assert whole >= checked["window"] > 0, closing


def _check_window(values: list[str]) -> None:
    session, revision, begin, end = map(int, values[:4])
    rows = [tuple(map(float, values[at : at + 7])) for at in range(4, len(values), 7)]
    assert revision % 2 == 0
    assert [one[0] for one in rows] == [row(session, ordinal)[0] for ordinal in range(begin, end)]
    for ordinal, one in zip(range(begin, end), rows, strict=True):
        assert one == row(session, ordinal, int(one[6]) % 1_000)


def _check_forming(values: list[str]) -> None:
    open_time, trades = int(values[0]), int(values[6])
    session, ordinal = open_time // 1_000_000_000, trades // 1_000
    assert tuple(map(float, values[:7])) == row(session, ordinal, trades % 1_000)
    assert tuple(map(int, values[7:])) == stamps(session, ordinal)


def _check_stamps(values: list[str]) -> None:
    ordinal, first = int(values[0]), int(values[1])
    assert tuple(map(int, values[1:])) == stamps(first // 1_000_000, ordinal)


@pytest.mark.parametrize(
    ("offset", "value", "why"),
    [
        (_native.HEADER_VERSION, 3, "another version"),
        (_native.HEADER_MAGIC, 3, "no segment"),
        (_native.HEADER_ROWS, 9, "checksum"),
        (_native.HEADER_READY, 0, "not ready"),
    ],
)
def test_it_refuses_what_the_document_says_to_refuse(
    program: Path, path: str, offset: int, value: int, why: str
) -> None:
    make(path).close(unlink=False)
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(value.to_bytes(8, "little"))
    with running(program, path, "follow", "0", "A", "1s") as reader:
        assert reader.line() == f"refused {why}"
