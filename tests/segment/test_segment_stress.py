"""Several processes on one segment: nothing torn, revised, reset or removed ever passes as valid."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from tests.segment.segment_processes import (
    STRESS,
    Looked,
    Seen,
    find_under_churn,
    process,
    read_under_stress,
    receive,
    write_under_stress,
)

from chandlery.workers.segment import SegmentWriter


@pytest.mark.parametrize("seed", [1, 2])
def test_no_torn_window_passes_as_valid_between_processes(tmp_path: Path, seed: int) -> None:
    path = str(tmp_path / "segment")
    with contextlib.ExitStack() as stack:
        _, writer = stack.enter_context(process(write_under_stress, path, seed, 80_000))
        assert receive(writer) == "ready"
        readers = [stack.enter_context(process(read_under_stress, path, name))[1] for name in (*STRESS, STRESS[0])]
        for reader in readers:
            assert receive(reader) == "ready"
        writer.send("go")
        for reader in readers:
            seen = receive(reader)
            assert isinstance(seen, dict)
            _judge(Seen(**seen))  # type: ignore[typeddict-item]


def _judge(seen: Seen) -> None:
    assert seen["flaws"] == [], f"{len(seen['flaws'])} flaws passed: {seen['flaws'][:3]}"
    assert seen["valid"] > 0, f"no window was ever whole: {seen}"
    assert seen["forming"] > 0, f"no forming row was ever seen: {seen}"


def test_a_lasting_series_is_found_while_others_come_and_go(tmp_path: Path) -> None:
    path = str(tmp_path / "segment")
    lasting = [(f"KEEP{n}/USDT", "1s") for n in range(3)]
    with SegmentWriter.create(path, rows=4, series=8, guard_rows=1) as writer:
        for session, name in enumerate(lasting):
            writer.reset(writer.add_series(*name), session)
        with process(find_under_churn, path, lasting) as (_, reader):
            assert receive(reader) == "ready"
            for turn in range(30_000):
                writer.add_series(f"S{turn % 37}/USDT", "1m")
                writer.remove_series(f"S{(turn - 4) % 37}/USDT", "1m")
            reader.send("stop")
            told = receive(reader)
    assert isinstance(told, Looked)
    assert told.times > 0
    assert told.missed == [], f"{len(told.missed)} of {told.times} look-ups failed: {told.missed[:3]}"
