"""The segment's model with a writer that grows, at any moment, and readers that follow."""

from __future__ import annotations

from collections.abc import Generator

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule
from tests.segment.test_segment_model import CAPACITY, SegmentMachine, Taken, names, shown

from chandlery.workers.segment import SegmentReader, SeriesReader, growth

MOST = 4 * CAPACITY


class GrowingMachine(SegmentMachine):
    """All that the segment's own model does, with steps of a growth in between, and its end or its being given up."""

    def __init__(self) -> None:
        super().__init__()
        self.growing: Generator[None, None, None] | None = None
        self.next_capacity = 0
        self.files = 0
        #: Every series handed out, with the number of the file that it reads.
        self.handed_out: list[tuple[SeriesReader, int]] = []

    def teardown(self) -> None:
        if self.growing is not None:
            self.growing.close()
        super().teardown()

    def series(self, name: tuple[str, str]) -> SeriesReader:
        found = super().series(name)
        self.handed_out.append((found, self.files))
        return found

    def is_current(self, held: Taken) -> bool:
        (file,) = (file for series, file in self.handed_out if series is held.reader)
        return file == self.files

    @precondition(lambda self: self.growing is None and self.capacity < MOST)
    @rule(more=st.integers(1, CAPACITY))
    def begin_to_grow(self, more: int) -> None:
        self.next_capacity = self.capacity + more
        self.growing = self.writer.grow(self.next_capacity)

    @precondition(lambda self: self.growing is None and self.capacity < MOST and self.models)
    @rule(data=st.data(), more=st.integers(1, CAPACITY))
    def grow_under_writes(self, data: st.DataObject, more: int) -> None:
        """A whole growth with a write after each step: left to chance, few growths would meet the write they fear."""
        self.begin_to_grow(more)
        while self.growing is not None:
            self.go_on_growing(1)
            match data.draw(st.sampled_from(["", "append", "revise", "form", "reset", "remove", "add"])):
                case "append" if self.models:
                    self.append(data, 1, False, True)
                case "revise" if self.models:
                    self.revise(data, data.draw(st.integers(0, 3)), data.draw(st.integers(1, 9)))
                case "form" if self.models:
                    self.set_forming(data, 1, 4)
                case "reset" if self.models:
                    self.reset(data, 2)
                case "remove":
                    self.remove_series(data.draw(names))
                case "add":
                    self.add_series(data.draw(names))

    @precondition(lambda self: self.growing is not None)
    @rule(steps=st.integers(1, 8))
    def go_on_growing(self, steps: int) -> None:
        assert self.growing is not None
        for _ in range(steps):
            if next(self.growing, self) is self:
                self.follow()
                return
        assert not self.reader.superseded

    @precondition(lambda self: self.growing is not None)
    @rule()
    def finish_growing(self) -> None:
        self.go_on_growing(1_000)

    @precondition(lambda self: self.growing is not None)
    @rule()
    def give_growing_up(self) -> None:
        assert self.growing is not None
        self.growing.close()
        self.growing = None
        assert not self.reader.superseded

    def follow(self) -> None:
        """What a reader does: it opens the path again."""
        self.growing = None
        self.capacity = self.next_capacity
        self.files += 1
        assert self.reader.superseded
        self.reader.close()
        self.reader = SegmentReader.open(self.writer.path)
        assert not self.reader.superseded
        assert self.writer.capacity == self.capacity
        for name, model in self.models.items():
            model.index = self.writer.add_series(*name)
            series = self.series(name)
            window = series.window(series.count, self.rows - self.guard)
            assert shown(window) == model.rows[self.first(model) :]
            # Rows in the guard can be revised, and read once more rows are free: they are there too.
            held = model.rows[-self.rows :]
            assert all(self.writer.revise(model.index, *values) for values in held)
            model.changes += bool(held)


class SmallSteps(GrowingMachine):
    """The same, a series a step and as many rounds as there may be: writes fall into the copying."""

    def __init__(self) -> None:
        super().__init__()
        self._before = growth.STEP_BYTES, growth.LAST_STEP_BYTES
        growth.STEP_BYTES, growth.LAST_STEP_BYTES = 1, 0  # type: ignore[misc]

    def teardown(self) -> None:
        super().teardown()
        growth.STEP_BYTES, growth.LAST_STEP_BYTES = self._before  # type: ignore[misc]


GrowingMachine.TestCase.settings = settings(max_examples=15, stateful_step_count=40, deadline=None)
TestGrowingModel = GrowingMachine.TestCase
SmallSteps.TestCase.settings = settings(max_examples=200, stateful_step_count=25, deadline=None)
TestGrowingModelInSmallSteps = SmallSteps.TestCase
