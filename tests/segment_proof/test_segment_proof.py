"""The models keep up with the protocol, and the runner tells a survived mutation as a failure."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from pathlib import Path

import pytest
from proofs import __main__ as runner
from proofs import catalogue, spin
from proofs.catalogue import CHECKS, MODELS, MUTATIONS, Check, Mutation

from chandlery.workers.segment import layout

SEGMENT = Path(layout.__file__).parent
MODEL_LINES = [line for path in sorted(MODELS.glob("*.pml")) for line in path.read_text().splitlines()]
PROTOCOL = (SEGMENT / "protocol.h").read_text()

needs_spin = pytest.mark.skipif(
    bool(spin.missing_tools()) and not os.environ.get("CI"), reason="needs spin and gcc: apt-get install spin gcc"
)


def labelled_functions() -> set[tuple[str, str]]:
    """(function, label) wherever a line of protocol.h's code is one end of a pair."""
    found: set[tuple[str, str]] = set()
    function = ""
    for line in PROTOCOL.splitlines():
        if begins := re.match(r"static inline .*?(\w+)\(", line):
            function = begins[1]
        if function:
            found |= {(function, label) for label in re.findall(r"\[([A-Z]+)\]", line)}
    return found


def test_every_label_of_the_protocol_is_in_the_models() -> None:
    header = PROTOCOL.partition("#ifndef")[0]
    labels = set(re.findall(r"\[([A-Z]+)\] ", header)) - {"LABEL"}
    assert len(labels) >= 8
    for source in ("ring.py", "ringpositions.py", "writer.py", "series.c"):
        labels |= set(re.findall(r"\[([A-Z]{4,})\]", (SEGMENT / source).read_text()))
    text = "\n".join(MODEL_LINES)
    assert {label for label in labels if f"[{label}]" not in text} == set()


def test_every_function_of_the_protocol_that_is_an_end_of_a_pair_is_in_the_models() -> None:
    functions = labelled_functions()
    assert len(functions) > 20
    missing = {
        (function, label)
        for function, label in functions
        if not any(re.search(rf"\b{function}\b", line) and f"[{label}]" in line for line in MODEL_LINES)
    }
    assert missing == set()


def test_every_mutation_is_in_its_model() -> None:
    models = {check.name: (MODELS / check.model).read_text() for check in CHECKS}
    for mutation in MUTATIONS:
        for define in mutation.defines:
            name = define.split("=")[0]
            used = re.findall(rf"\b{name}\b", models[mutation.check])
            assert used, f"{mutation.check} doesn't know {name}"


def test_every_switch_of_a_model_is_a_mutation_or_an_instance() -> None:
    known = {define.split("=")[0] for mutation in MUTATIONS for define in mutation.defines}
    known |= {define.split("=")[0] for check in CHECKS for define in check.defines} | {"LTL", "STORES"}
    known |= {"OPS", "POSITIONS", "TRADER_KILLS", "FEED_KILLS", "CANDLES"}
    switches = {name for line in MODEL_LINES for name in re.findall(r"^#ifn?def (\w+)", line)}
    assert switches - known == set()


def test_every_property_that_is_to_catch_something_is_one_of_its_check() -> None:
    checks = {check.name: check for check in CHECKS}
    for mutation in MUTATIONS:
        if mutation.caught_by:
            assert mutation.caught_by in runner.properties(checks[mutation.check]), mutation.name
        assert mutation.why


def outcome(violated: str = "", unreached: tuple[str, ...] = ()) -> spin.Outcome:
    return spin.Outcome(violated=violated, states=7, depth=3, seconds=0.1, unreached=unreached)


CHECK = Check("bells", "bells.pml", stuck="no_wake_up_is_lost")
MUTATION = Mutation("NOBODY_WOKEN", "bells", "no_wake_up_is_lost", "nobody is woken")


def test_a_mutation_that_survives_is_a_failure() -> None:
    verdict = runner.judge_mutation(MUTATION, outcome())
    assert (verdict.good, verdict.verdict) == (False, "SURVIVES")


def test_a_mutation_that_was_said_to_make_no_difference_and_is_caught_is_a_failure() -> None:
    argued = dataclasses.replace(MUTATION, caught_by="")
    assert not runner.judge_mutation(argued, outcome("no_wake_up_is_lost")).good
    assert runner.judge_mutation(argued, outcome()).good


def test_a_mutation_caught_by_another_property_is_a_failure() -> None:
    assert runner.judge_mutation(MUTATION, outcome("no_wake_up_is_lost")).good
    assert not runner.judge_mutation(MUTATION, outcome("another")).good


def test_a_check_that_fails_or_never_reaches_a_statement_is_a_failure() -> None:
    assert runner.judge_check(CHECK, outcome()).good
    assert not runner.judge_check(CHECK, outcome("no_wake_up_is_lost")).good
    assert not runner.judge_check(CHECK, outcome(unreached=("count++",))).good


def test_a_search_that_was_cut_off_proves_nothing() -> None:
    report = "error: max search depth too small\nState-vector 9 byte, depth reached 99, errors: 0\n  7 states, stored\n"
    with pytest.raises(spin.ProofError, match="cut off"):
        spin.read(CHECK, report, 0.0)
    with pytest.raises(spin.ProofError, match="no verdict"):
        spin.read(CHECK, "Killed", 0.0)


@needs_spin
def test_spin_proves_the_bells_and_catches_who_sleeps_without_comparing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = next(each for each in MUTATIONS if each.name == "SLEEP_WITHOUT_COMPARE")
    # Defined to nothing that the model knows: the protocol as it is, so this mutation "survives".
    survivor = dataclasses.replace(wrong, name="OPS")
    monkeypatch.setattr(runner, "MUTATIONS", (wrong, survivor))
    assert runner.main(["--json", "--only", "bells"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert [each["verdict"] for each in told["checks"]] == ["holds"]
    assert [each["verdict"] for each in told["mutations"]] == ["caught", "SURVIVES"]
    assert told["failed"] == 1


@needs_spin
def test_spin_catches_a_missing_release_fence() -> None:
    check = next(each for each in CHECKS if each.name == "rows")
    assert spin.run(check, ("RELEASE_RESERVE=OFF",)).violated == "a_valid_window_is_whole_and_true"


def test_a_check_that_does_not_exist_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        runner.main(["--only", "belts"])
    assert "there are 'rows', 'forming'" in capsys.readouterr().err


def test_without_spin_the_command_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(spin, "missing_tools", lambda: ["spin"])
    assert runner.main([]) == 3
    assert "apt-get install spin" in capsys.readouterr().err


def test_names_of_checks_and_mutations_are_their_own() -> None:
    assert len({check.name for check in CHECKS}) == len(CHECKS)
    assert len({(each.check, each.name) for each in MUTATIONS}) == len(MUTATIONS)
    assert {mutation.check for mutation in MUTATIONS} <= {check.name for check in CHECKS}
    assert catalogue.STUCK


def test_the_document_names_every_property_and_every_mutation() -> None:
    page = (Path(__file__).parents[2] / "docs" / "segment.md").read_text()
    names = {f"`{mutation.name}`" for mutation in MUTATIONS}
    names |= {f"`{name}`" for check in CHECKS for name in runner.properties(check)}
    assert {name for name in names if name not in page} == set()
