"""The real protocol.h on a memory of weak order: what readers accept is true, and each barrier is needed.

Each scenario is gone through for every choice of messages that C11's release, acquire and fences leave a reader.
Then the order is taken away at one site at a time, or a step is done wrongly, and a scenario must find it.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from tests.segment_memory.barriers import CAUGHT, DOUBLED
from tests.segment_memory.compiling import HERE, changed_protocol, library
from tests.segment_memory.weak_memory import Site, WeakMemory, lines_that_ask_for_order

SAMPLE = 20_000
#: Histories at random: so many of each, as many runs of each at most, depth first and drawn.
HISTORIES, RANDOM_RUNS, RANDOM_SAMPLE = 60, 3_000, 1_000

#: A reader there never refuses what it took: it takes until it has something whole.
NEVER_REFUSED = ("snapshot", "found_after", "lasting_neighbour")

ROW_STORED = "    store_row(s, series, ordinal, row);\n    uint8_t *at = stamps_of"
RESERVED_STORED = "    store_relaxed(record + RECORD_RESERVED, ordinal + 1);\n"
RESERVE_FENCE = (
    "    fence_release(); // [RESERVE] who reads any word stored below also reads `reserved` as stored above\n"
)
COUNT_STORED = "    store_release(record + RECORD_COUNT, ordinal + 1); // [COUNT]\n"
FORMING_CLEARED = "    if (forming >= 0 && forming <= row->open_time_ms)\n        forget_forming(record);\n"
LAPPED_FIRST = "    int over = lapped(s, series, begin); // [RESERVE]\n"
NAME_STORED = "    store_name(record, name);\n    reset_series(s, series, 0);\n"
EPOCH_BEGUN = "    store_release(record + RECORD_EPOCH, epoch + 1); // [EPOCH]\n"
EPOCH_ENDED = "    store_relaxed(record + RECORD_EPOCH, load_relaxed(record + RECORD_EPOCH) + 1);\n"
EPOCH_FENCE = "    fence_release(); // [EPOCH] who reads a later name or row also reads the new epoch; remove_entry() has one too\n"

#: Steps done wrongly: the change of protocol.h, and a scenario that goes wrong with it.
STEPS: dict[str, tuple[list[tuple[str, str]], str]] = {
    "the count before the row": (
        [(COUNT_STORED, ""), (ROW_STORED, COUNT_STORED + ROW_STORED)],
        "window go_round",
    ),
    "reserved after the row": (
        [(RESERVED_STORED + RESERVE_FENCE, ""), (COUNT_STORED, RESERVED_STORED + RESERVE_FENCE + COUNT_STORED)],
        "window go_round",
    ),
    "reserved not advanced": ([(RESERVED_STORED, "")], "window go_round"),
    "reserved not looked at": (
        [(LAPPED_FIRST, "    int over = 0;\n    (void)begin;\n")],
        "window go_round",
    ),
    "reserved looked at last": (
        [
            (LAPPED_FIRST, ""),
            ("    return !over && !(revision & 1) && load_relaxed", "    return !(revision & 1) && load_relaxed"),
            (
                "           load_relaxed(record + RECORD_REVISION) == revision;\n",
                "           load_relaxed(record + RECORD_REVISION) == revision && !lapped(s, series, begin);\n",
            ),
        ],
        "window go_round_and_start_over",
    ),
    "the forming row cleared after the count": (
        [(FORMING_CLEARED, ""), (COUNT_STORED, COUNT_STORED + FORMING_CLEARED)],
        "closed_then_forming form_and_close",
    ),
    "the epoch not looked at": (
        [
            (
                "    return !over && !(revision & 1) && load_relaxed(record + RECORD_EPOCH) == epoch &&\n",
                "    (void)epoch;\n    return !over && !(revision & 1) &&\n",
            )
        ],
        "window give_record_away",
    ),
    "the revision not looked at": (
        [("           load_relaxed(record + RECORD_REVISION) == revision;\n", "           1;\n")],
        "window revise_twice",
    ),
    "a snapshot's revision loaded once": (
        [
            (
                "if (!(taken.revision & 1) && load_relaxed(record + RECORD_REVISION) == taken.revision)",
                "if (!(taken.revision & 1))",
            )
        ],
        "snapshot start_over",
    ),
    "a forming row's sequence loaded once": (
        [
            (
                "if (!(*sequence & 1) && load_relaxed(record + RECORD_FORMING_SEQUENCE) == *sequence)",
                "if (!(*sequence & 1))",
            )
        ],
        "forming form_some",
    ),
    "a sequence that never is odd": (
        [
            ("load_relaxed(sequence) | 1;", "load_relaxed(sequence);"),
            ("store_release(sequence, begun + 1)", "store_release(sequence, begun + 2)"),
        ],
        "window revise_twice",
    ),
    "the second copy of a row forgotten": (
        [("        store_relaxed(at + rows * WORD_BYTES, words[column]);\n", "")],
        "window go_round",
    ),
    "a reset that ends before the count": (
        [
            ("    store_relaxed(record + RECORD_COUNT, 0);\n", ""),
            (
                "    end_change(record + RECORD_REVISION, begun); // [REVISION]\n}\n\n/* ---- closed rows, read",
                "    end_change(record + RECORD_REVISION, begun); // [REVISION]\n"
                "    store_relaxed(record + RECORD_COUNT, 0);\n}\n\n/* ---- closed rows, read",
            ),
        ],
        "snapshot start_over",
    ),
    "stamps whose reserved isn't looked at": (
        [("    return reserved - ordinal <= s->geometry.stamp_rows &&", "    (void)reserved;\n    return")],
        "stamps go_round",
    ),
    "the epoch begun before the name": (
        [(EPOCH_BEGUN, ""), (NAME_STORED, EPOCH_BEGUN + NAME_STORED)],
        "owner change_owners",
    ),
    "the epoch ended after the entry is gone": (
        [
            (EPOCH_ENDED + EPOCH_FENCE, ""),
            ("    remove_entry(s, slot);\n", "    remove_entry(s, slot);\n" + EPOCH_ENDED),
        ],
        "owner change_owners",
    ),
    "the epoch not ended": (
        [(EPOCH_ENDED, "    (void)record;\n"), ("(load_relaxed(record_of(s, series) + RECORD_EPOCH) & 1)", "0")],
        "discarded discard_and_ring",
    ),
    "entries moved under an even table version": (
        [
            (
                "    uint64_t begun = begin_change(s->base + HEADER_TABLE_VERSION); // [TABLE]\n",
                "    fence_release();\n",
            ),
            ("    end_change(s->base + HEADER_TABLE_VERSION, begun); // [TABLE]\n", ""),
        ],
        "lasting_neighbour move_neighbours",
    ),
    "a miss believed without the table version": (
        [
            (
                "if (!(version & 1) && load_relaxed(s->base + HEADER_TABLE_VERSION) == version)",
                "if (version < UINT64_MAX)",
            )
        ],
        "lasting_neighbour move_neighbours",
    ),
    "a look-up that trusts the hash": (
        [("memcmp(&found, name, sizeof found) == 0;", "memcmp(&found, name, 0) == 0;")],
        "twins share_a_hash",
    ),
}


@pytest.fixture(scope="module")
def memory(tmp_path_factory: pytest.TempPathFactory) -> WeakMemory:
    memory = WeakMemory.build(tmp_path_factory.mktemp("weak_memory"))
    memory.wrong()  # so that the sites are known
    return memory


def test_the_machine_allows_what_c11_allows_and_nothing_else(tmp_path: Path) -> None:
    machine = library(HERE / "weak_litmus.c", tmp_path / "weak_litmus.so")
    unordered, ordered = {0, 1, 3, 4}, {0, 1, 4}  # 3 * flag + data: 3 is the flag without the data
    names = [
        "relaxed both", "release acquire", "release only", "acquire only", "fences", "fence then acquire",
        "release then fence", "fence too late", "overwritten relaxed", "overwritten by add", "coherence",
    ]  # fmt: skip
    expected = [
        unordered, ordered, unordered, unordered, ordered, ordered, ordered, unordered,
        # The flag, released as 1, ends as 2: by a relaxed store, which orders nothing, or by an addition, which does.
        {0, 1, 4, 6, 7}, {0, 1, 4, 7},
        # One location read twice: never the older after the newer.
        {0, 1, 2, 4, 5, 8},
    ]  # fmt: skip
    for program, (name, outcomes) in enumerate(zip(names, expected, strict=True)):
        bits = machine.outcomes(program)
        assert {outcome for outcome in range(16) if bits >> outcome & 1} == outcomes, name


def test_what_a_reader_accepts_is_true_whatever_it_is_given(memory: WeakMemory) -> None:
    memory.weaken()
    for scenario in memory.scenarios:
        outcome = memory.explore(scenario)
        assert outcome.wrong is None, f"{scenario}: {outcome.wrong}"
        assert outcome.exhaustive, f"{scenario}: more than {outcome.runs} runs"
        assert outcome.accepted > 0, scenario
        assert outcome.refused > 0 or scenario.startswith(NEVER_REFUSED), scenario


def test_what_a_reader_accepts_is_true_in_every_word(memory: WeakMemory) -> None:
    memory.weaken()
    for seed, scenario in enumerate(memory.scenarios):
        outcome = memory.explore(scenario, sample=SAMPLE, seed=seed + 1)
        assert outcome.wrong is None, f"{scenario}: {outcome.wrong}"
        assert outcome.runs == SAMPLE


def test_what_a_reader_accepts_is_true_beside_whatever_a_writer_does(memory: WeakMemory) -> None:
    memory.weaken()
    accepted: Counter[str] = Counter()
    for scenario in memory.at_random:
        for seed in range(HISTORIES):
            for sample in (0, RANDOM_SAMPLE):
                outcome = memory.explore(scenario, seed=seed, sample=sample, most_runs=RANDOM_RUNS)
                assert outcome.wrong is None, f"{scenario}, seed {seed}: {outcome.wrong}"
                accepted[scenario] += outcome.accepted
    assert sorted(accepted) == sorted(memory.at_random)


def test_every_place_that_asks_for_order_is_come_by_and_in_the_table(memory: WeakMemory) -> None:
    sites = memory.sites()
    assert {site.line for site in sites if site.access not in ("load_relaxed", "store_relaxed")} == (
        lines_that_ask_for_order()
    )
    assert sorted(site.name for site in sites) == sorted([*CAUGHT, *DOUBLED])


def site_named(memory: WeakMemory, name: str) -> Site:
    (site,) = [site for site in memory.sites() if site.name == name]
    return site


@pytest.mark.parametrize("name", CAUGHT)
def test_without_the_order_asked_for_a_scenario_goes_wrong(memory: WeakMemory, name: str) -> None:
    memory.weaken(site_named(memory, name))
    assert memory.explore(CAUGHT[name]).wrong is not None


@pytest.mark.parametrize("name", DOUBLED)
def test_an_order_asked_for_twice_is_needed_once(memory: WeakMemory, name: str) -> None:
    other, scenario = DOUBLED[name]
    memory.weaken(site_named(memory, name))
    assert memory.wrong() == {}, "it isn't doubled: give it a scenario"
    memory.weaken(site_named(memory, name), site_named(memory, other))
    assert memory.explore(scenario).wrong is not None


@pytest.mark.parametrize("step", STEPS)
def test_with_a_step_done_wrongly_a_scenario_goes_wrong(step: str, tmp_path: Path) -> None:
    changes, scenario = STEPS[step]
    memory = WeakMemory.build(tmp_path, changed_protocol(tmp_path / "changed", changes))
    assert memory.explore(scenario).wrong is not None
