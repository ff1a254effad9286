"""Prove the segment's protocol, and that its mutations are caught: ``python -m proofs [--json] [--only CHECK …]``.

Exit code 1: a property fails, a mutation survives or is caught by another property than the catalogue says, or spin
gives no verdict. 3: spin or a C compiler is missing.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from proofs import spin
from proofs.catalogue import CHECKS, MODELS, MUTATIONS, Check, Mutation


@dataclass(frozen=True)
class Verdict:
    """One line of the table.

    Attributes:
        what: the check, or the mutation. check: which check it ran under. good: whether it is as it has to be.
        verdict: in words. property: that failed, or, of a check, those that hold.
    """

    what: str
    check: str
    good: bool
    verdict: str
    property: str
    states: int
    depth: int
    seconds: float


def properties(check: Check) -> list[str]:
    """The names of all that a check proves, as its model and the catalogue name them."""
    asserted = re.findall(r"^hidden byte (\w+);", (MODELS / check.model).read_text(), re.MULTILINE)
    return [*asserted, *([check.stuck] if check.stuck else []), *([check.ltl] if check.ltl else [])]


def judge_check(check: Check, outcome: spin.Outcome) -> Verdict:
    """A check is good when nothing fails, and everything in the model was reached: else it proves less than it says."""
    if outcome.violated:
        verdict = "FAILS"
    elif sorted(outcome.unreached) != sorted(check.unreached):
        verdict = f"holds, but these are never reached: {'; '.join(outcome.unreached) or 'none'}"
    else:
        verdict = "holds"
    told = outcome.violated or ", ".join(properties(check))
    good = verdict == "holds"
    return Verdict(check.name, check.name, good, verdict, told, outcome.states, outcome.depth, outcome.seconds)


def judge_mutation(mutation: Mutation, outcome: spin.Outcome) -> Verdict:
    """A mutation is good when the property named for it catches it, or nothing does where it makes no difference."""
    if outcome.violated == mutation.caught_by:
        verdict = "caught" if mutation.caught_by else "no difference, as argued"
    elif not outcome.violated:
        verdict = "SURVIVES"
    else:
        verdict = "CAUGHT BY ANOTHER PROPERTY" if mutation.caught_by else "CAUGHT, said to make no difference"
    return Verdict(
        mutation.name,
        mutation.check,
        outcome.violated == mutation.caught_by,
        verdict,
        outcome.violated,
        outcome.states,
        outcome.depth,
        outcome.seconds,
    )


def no_verdict(what: str, check: str, error: spin.ProofError) -> Verdict:
    """What stands for a run that gave nothing."""
    say(str(error))
    return Verdict(what, check, False, "NO VERDICT", "", 0, 0, 0.0)


def say(text: str) -> None:
    """Progress, beside what is piped on."""
    print(text, file=sys.stderr, flush=True)


def prove(checks: Sequence[Check], mutations: Sequence[Mutation]) -> tuple[list[Verdict], list[Verdict]]:
    """Run all checks, then all mutations."""
    total, done = len(checks) + len(mutations), 0

    def announce(what: str) -> None:
        nonlocal done
        done += 1
        say(f"[{done}/{total}] {what}")

    proven, tried = [], []
    for check in checks:
        announce(check.name)
        try:
            proven.append(judge_check(check, spin.run(check)))
        except spin.ProofError as error:
            proven.append(no_verdict(check.name, check.name, error))
    by_name = {check.name: check for check in CHECKS}
    for mutation in mutations:
        announce(f"{mutation.check}: {mutation.name}")
        try:
            tried.append(judge_mutation(mutation, spin.run(by_name[mutation.check], mutation.defines)))
        except spin.ProofError as error:
            tried.append(no_verdict(mutation.name, mutation.check, error))
    return proven, tried


def table(title: str, verdicts: Sequence[Verdict]) -> str:
    """Verdicts as text, a line each."""
    if not verdicts:
        return ""
    wide = max(len(each.what) for each in verdicts)
    lines = [f"{title:<{wide}}  {'states':>9}  {'depth':>6}  {'CPU s':>5}  verdict"]
    for each in verdicts:
        told = f"{each.verdict}: {each.property}" if each.property else each.verdict
        lines.append(f"{each.what:<{wide}}  {each.states:>9,}  {each.depth:>6,}  {each.seconds:>5.1f}  {told}")
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m proofs", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.add_argument("--only", nargs="+", metavar="CHECK", help="only these checks and their mutations")
    wanted = parser.parse_args(arguments)
    names = [check.name for check in CHECKS]
    if unknown := [name for name in wanted.only or [] if name not in names]:
        known = ", ".join(f"'{name}'" for name in names)
        parser.error(f"no check '{unknown[0]}': there are {known} (names with spaces in quotes)")
    if missing := spin.missing_tools():
        say(f"{' and '.join(missing)} missing. On Debian or Ubuntu: apt-get install {' '.join(missing)}")
        return 3
    begun_s = time.monotonic()
    proven, tried = prove(
        [check for check in CHECKS if not wanted.only or check.name in wanted.only],
        [mutation for mutation in MUTATIONS if not wanted.only or mutation.check in wanted.only],
    )
    bad = [each for each in proven + tried if not each.good]
    seconds = time.monotonic() - begun_s
    if wanted.json:
        rows = {
            "checks": [asdict(each) for each in proven],
            "mutations": [asdict(each) for each in tried],
            "seconds": round(seconds, 1),
            "failed": len(bad),
        }
        print(json.dumps(rows, indent=2))
    else:
        print(table("check", proven))
        print(table("mutation", tried))
    say(
        f"{len(proven)} checks, {len(tried)} mutations in {seconds:.0f} s: " + (f"{len(bad)} FAILED" if bad else "good")
    )
    for each in bad:
        say(f"  {each.check}: {each.what}: {each.verdict} {each.property}".rstrip())
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
