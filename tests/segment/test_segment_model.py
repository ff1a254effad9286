"""The segment against a plain-Python model, over arbitrary histories of writes."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, precondition, rule
from tests.segment.segment_rows import Row, row, stamps

from chandlery.workers.segment import SegmentError, SegmentReader, SegmentWriter, SeriesReader, Window

SYMBOLS = [f"S{n}/USDT" for n in range(5)]
INTERVALS = ["1s", "1m"]
CAPACITY = 4

names = st.tuples(st.sampled_from(SYMBOLS), st.sampled_from(INTERVALS))


@dataclass
class Model:
    """What a series must hold."""

    index: int
    session: int = 0
    rows: list[Row] = field(default_factory=list)
    stamped: list[tuple[int, ...]] = field(default_factory=list)
    forming: tuple[Row, tuple[int, ...]] | None = None
    live_from_ms: int = -1
    traded_from_ms: int = -1
    changes: int = 0
    gone: bool = False


@dataclass
class Taken:
    """A window and what it must show as long as it is valid."""

    model: Model
    reader: SeriesReader
    window: Window
    changes: int
    rows: list[Row]


class SegmentMachine(RuleBasedStateMachine):
    """One writer, one reader, every public operation; small rings so that all wraps happen."""

    taken: Bundle[Taken] = Bundle("taken")

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.mkdtemp(prefix="segment-model-")
        self.models: dict[tuple[str, str], Model] = {}
        self.ordinal = 0
        self.capacity = CAPACITY

    @initialize(rows=st.integers(4, 24), guard=st.integers(1, 3), stamp_rows=st.integers(1, 24))
    def create(self, rows: int, guard: int, stamp_rows: int) -> None:
        path = str(Path(self.folder, "segment"))
        self.rows, self.guard, self.stamp_rows = rows, guard, min(rows, stamp_rows)
        self.writer = SegmentWriter.create(
            path, rows=rows, series=CAPACITY, guard_rows=guard, bells=2, stamp_rows=stamp_rows
        )
        self.reader = SegmentReader.open(path)
        self.add_series((SYMBOLS[0], INTERVALS[0]))

    def teardown(self) -> None:
        if hasattr(self, "writer"):
            self.reader.close()
            self.writer.close()
        shutil.rmtree(self.folder)

    def series(self, name: tuple[str, str]) -> SeriesReader:
        found = self.reader.series(*name)
        assert found is not None, f"{name} is in the segment but not found"
        return found

    def first(self, model: Model) -> int:
        return max(0, len(model.rows) - (self.rows - self.guard))

    @rule(name=names)
    def add_series(self, name: tuple[str, str]) -> None:
        if name in self.models:
            assert self.writer.add_series(*name) == self.models[name].index
        elif len(self.models) == self.capacity:
            with pytest.raises(SegmentError, match="full"):
                self.writer.add_series(*name)
        else:
            index = self.writer.add_series(*name)
            assert index not in {model.index for model in self.models.values()}
            self.models[name] = Model(index)

    @rule(name=names)
    def remove_series(self, name: tuple[str, str]) -> None:
        self.writer.remove_series(*name)
        model = self.models.pop(name, None)
        if model is not None:
            model.gone = True

    @precondition(lambda self: self.models)
    @rule(data=st.data(), count=st.integers(1, 30), backfill=st.booleans(), live=st.booleans())
    def append(self, data: st.DataObject, count: int, backfill: bool, live: bool) -> None:
        model = self.models[data.draw(st.sampled_from(sorted(self.models)))]
        for _ in range(count):
            self.ordinal += 1
            values, stamped = row(model.session, self.ordinal), stamps(model.session, self.ordinal)
            self.writer.append(model.index, *values, stamped, backfill=backfill, live=live)
            model.rows.append(values)
            model.stamped.append(stamped)
            if not backfill and model.traded_from_ms < 0:
                model.traded_from_ms = values[0]
            if not backfill and live and model.live_from_ms < 0:
                model.live_from_ms = values[0]
            if model.forming is not None and model.forming[0][0] <= values[0]:
                model.forming = None

    @precondition(lambda self: self.models)
    @rule(data=st.data(), back=st.integers(0, 40))
    def append_old(self, data: st.DataObject, back: int) -> None:
        model = self.models[data.draw(st.sampled_from(sorted(self.models)))]
        if not model.rows:
            return
        values = model.rows[max(0, len(model.rows) - 1 - back)]
        with pytest.raises(SegmentError, match="not newer"):
            self.writer.append(model.index, *values, stamps(0, 0))

    @precondition(lambda self: self.models)
    @rule(data=st.data(), back=st.integers(0, 30), version=st.integers(1, 9))
    def revise(self, data: st.DataObject, back: int, version: int) -> None:
        model = self.models[data.draw(st.sampled_from(sorted(self.models)))]
        if not model.rows:
            return
        at = max(0, len(model.rows) - 1 - back)
        open_time_ms = model.rows[at][0]
        values = (open_time_ms, *row(0, at, version)[1:])
        there = at >= len(model.rows) - self.rows
        assert self.writer.revise(model.index, *values) is there
        if there:
            model.rows[at] = values
            model.changes += 1

    @precondition(lambda self: self.models)
    @rule(data=st.data())
    def revise_absent(self, data: st.DataObject) -> None:
        model = self.models[data.draw(st.sampled_from(sorted(self.models)))]
        newest = model.rows[-1][0] if model.rows else 0
        assert not self.writer.revise(model.index, *row(model.session, self.ordinal + 5)[:1], 1, 1, 1, 1, 1, 1)
        assert not self.writer.revise(model.index, newest + 1, 1, 1, 1, 1, 1, 1)

    @precondition(lambda self: self.models)
    @rule(data=st.data(), session=st.integers(0, 3))
    def reset(self, data: st.DataObject, session: int) -> None:
        model = self.models[data.draw(st.sampled_from(sorted(self.models)))]
        self.writer.reset(model.index, session)
        model.session, model.rows, model.stamped, model.forming = session, [], [], None
        model.live_from_ms = model.traded_from_ms = -1
        model.changes += 1

    @precondition(lambda self: self.models)
    @rule(data=st.data(), ahead=st.integers(1, 3), version=st.integers(0, 9))
    def set_forming(self, data: st.DataObject, ahead: int, version: int) -> None:
        model = self.models[data.draw(st.sampled_from(sorted(self.models)))]
        values = row(model.session, self.ordinal + ahead, version)
        self.writer.set_forming(model.index, *values, stamps(1, version))
        model.forming = values, stamps(1, version)

    @precondition(lambda self: self.models)
    @rule(data=st.data())
    def clear_forming(self, data: st.DataObject) -> None:
        model = self.models[data.draw(st.sampled_from(sorted(self.models)))]
        self.writer.clear_forming(model.index)
        model.forming = None

    @precondition(lambda self: self.models)
    @rule(target=taken, data=st.data(), back=st.integers(-2, 30), length=st.integers(0, 24))
    def take(self, data: st.DataObject, back: int, length: int) -> Taken:
        name = data.draw(st.sampled_from(sorted(self.models)))
        model, series = self.models[name], self.series(name)
        length = min(length, self.rows - self.guard)
        end = max(0, len(model.rows) - back)
        window = series.window(end, length)
        stop = min(end, len(model.rows))
        begin = min(stop, max(0, stop - length, self.first(model)))
        assert (window.begin, window.end, window.session) == (begin, stop, model.session)
        assert len(window) == stop - begin == len(window.open_time) == len(window.trades)
        return Taken(model, series, window, model.changes, model.rows[begin:stop])

    @rule(held=taken)
    def look_again(self, held: Taken) -> None:
        self.check(held)

    @rule(held=consumes(taken))
    def let_go(self, held: Taken) -> None:
        self.check(held)

    def is_current(self, _held: Taken) -> bool:
        """Whether the segment that a window shows is still the one that is written."""
        return True

    def check(self, held: Taken) -> None:
        overwritten = len(held.model.rows) > held.window.begin + self.rows
        true_still = not held.model.gone and held.model.changes == held.changes and not overwritten
        true_still = true_still and self.is_current(held)
        assert held.reader.valid(held.window) is true_still
        if true_still:
            assert shown(held.window) == held.rows

    @rule(data=st.data(), time_ms=st.integers(0, 3_000_000_000))
    @precondition(lambda self: self.models)
    def find_after(self, data: st.DataObject, time_ms: int) -> None:
        name = data.draw(st.sampled_from(sorted(self.models)))
        model = self.models[name]
        if model.rows:
            time_ms = data.draw(st.sampled_from([time_ms, *(values[0] for values in model.rows)]))
        newer = [at for at in range(self.first(model), len(model.rows)) if model.rows[at][0] > time_ms]
        assert self.series(name).find_after(time_ms) == (newer[0] if newer else len(model.rows))

    @invariant()
    def states_agree(self) -> None:
        for name, model in self.models.items():
            series = self.series(name)
            count = len(model.rows)
            assert (series.symbol, series.interval, series.alive) == (*name, True)
            assert (series.session, series.count, series.first()) == (model.session, count, self.first(model))
            assert (series.live_from_ms, series.traded_from_ms) == (model.live_from_ms, model.traded_from_ms)
            assert series.last_open_time_ms == (model.rows[-1][0] if count else -1)
            forming = series.forming()
            assert (forming and (forming[:7], forming.stamps)) == model.forming
            for ordinal in range(max(0, count - self.stamp_rows - 1), count + 1):
                there = count - self.stamp_rows <= ordinal < count
                assert series.stamps(ordinal) == (model.stamped[ordinal] if there else None)
            for ordinal in range(max(0, count - self.rows - 1), count):
                assert series.lapped(ordinal) is (count > ordinal + self.rows)

    @invariant()
    def info_agrees(self) -> None:
        if not hasattr(self, "reader"):
            return
        told = {(one["symbol"], one["interval"]): one for one in self.reader.info()["series"]}
        assert set(told) == set(self.models)
        for name, model in self.models.items():
            assert told[name]["count"] == len(model.rows)
            assert told[name]["fill"] == min(len(model.rows), self.rows)
            assert told[name]["session"] == model.session


def shown(window: Window) -> list[Row]:
    """The rows of a window as tuples."""
    return list(
        zip(
            window.open_time.tolist(),
            window.open.tolist(),
            window.high.tolist(),
            window.low.tolist(),
            window.close.tolist(),
            window.volume.tolist(),
            window.trades.tolist(),
            strict=True,
        )
    )


SegmentMachine.TestCase.settings = settings(max_examples=120, stateful_step_count=40, deadline=None)
TestSegmentModel = SegmentMachine.TestCase
