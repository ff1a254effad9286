"""What shall run, by the manifests as they stand now and by what was good before."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from chandlery.cli.runtime.catalogue import Catalogue
from chandlery.cli.runtime.importer import read_catalogue
from chandlery.core.checks import trader_findings
from chandlery.core.configurations import configuration_of, configurations_of
from chandlery.core.errors import ManifestError
from chandlery.core.explanations import explain
from chandlery.core.manifests import STDIN, Key, ManifestSet, Problem, Standing, check_against_catalogue, read_manifests
from chandlery.core.resources import MarketFeed, Trader, TraderPool
from chandlery.core.wording import path_text
from chandlery.workers.catalogue_process import TIMEOUT_S

#: Most machines import the strategies in less; after this it is said what is waited for.
_PATIENCE_S: Final = 4.0
#: Resources of an emptied file that its notice names.
_MOST_NAMED: Final = 3


@dataclass(frozen=True)
class Wanted:
    """What shall run.

    Attributes:
        manifests: the resources that count: as on disk, and as they were where what is on disk can't be read.
        found: what the checks across resources found in them.
        refused: problems of what is on disk but doesn't count.
    """

    manifests: ManifestSet
    found: list[Problem]
    refused: list[Problem]

    def refused_traders(self) -> dict[Key, list[Problem]]:
        """Problems by Trader."""
        by_trader: dict[Key, list[Problem]] = {}
        for problem in self.refused:
            if problem.kind == "Trader" and problem.name:
                by_trader.setdefault((problem.namespace, problem.name), []).append(problem)
        return by_trader

    def other_problems(self) -> list[Problem]:
        """Problems that belong to no Trader."""
        return [one for one in [*self.refused, *self.found] if one.kind != "Trader" or not one.name]


async def read_first(
    roots: Sequence[str], strategies: Path | None, say: Callable[[str], None]
) -> tuple[Wanted, Catalogue]:
    """Read manifests and strategies before anything starts: everything must be right.

    Args:
        roots: folders and files. strategies: folder beside the shipped ones. say: told what is waited for, where that is long.

    Raises:
        ManifestError: every problem, one a line; or there is no Trader.
        InputError: no such folder of strategies. MachineError: they can't be listed.
    """
    manifests = read_manifests(roots)
    waited_for = f"importing the strategies; one that takes more than {TIMEOUT_S:g} s is left out"
    telling = asyncio.get_running_loop().call_later(_PATIENCE_S, say, waited_for)
    try:
        catalogue = await read_catalogue(strategies, configurations_of(manifests.traders.values()))
    finally:
        telling.cancel()
    return wanted_first(roots, manifests, catalogue), catalogue


def wanted_first(roots: Sequence[str], manifests: ManifestSet, catalogue: Catalogue) -> Wanted:
    """What shall run, of manifests of which everything must be right.

    Raises:
        ManifestError: see :func:`read_first`.
    """
    found = _check(manifests, catalogue)
    problems = sorted([*manifests.problems, *found])
    if problems:
        raise ManifestError("\n".join(map(str, problems)))
    if not manifests.traders and not manifests.pools:
        left_out = "".join(f"\n{notice}" for notice in manifests.notices)
        raise ManifestError(f"no Trader and no TraderPool in {', '.join(roots)}{left_out}")
    return Wanted(manifests, [], [])


def read_again(roots: Sequence[str], kept: Iterable[str], previous: ManifestSet, catalogue: Catalogue) -> Wanted:
    """Read manifests while running: what is wrong keeps its earlier version, or waits.

    Args:
        roots: folders and files.
        kept: files that are gone but count still (see ``folder``).
        previous: what counted until now.
    """
    # Standard input was read at the start, and can't be read again.
    kept = [*kept, STDIN] if "-" in roots else [*kept]
    read = read_manifests([root for root in roots if root != "-"], Standing(previous.origins, kept))
    gone = [Problem(file, 0, 0, "", "", "", "", "is gone, and kept") for file in kept]
    emptied = emptied_files(read, previous)
    merged = replace(read, problems=[*read.problems, *gone, *emptied]).carry_over(previous)
    found = _check(merged, catalogue)
    # A missing folder is told by the watcher's notice: once is enough.
    refused = [problem for problem in read.problems if problem.identity is not None or problem.file not in roots]
    return Wanted(merged, found, [*refused, *emptied])


def check_again(wanted: Wanted, catalogue: Catalogue) -> Wanted:
    """The same manifests, held against strategies that have changed, or of which more is known."""
    return replace(wanted, found=_check(wanted.manifests, catalogue))


def held_back(wanted: Wanted, standing: ManifestSet, catalogue: Catalogue) -> tuple[Wanted, list[str]]:
    """The same, but for Traders of which it isn't known yet what becomes of their strategy with its parameters.

    They stay as they are in ``standing``; one that is new waits.

    Returns:
        What is wanted then, and the full names of those Traders.
    """
    read = wanted.manifests
    manifests = replace(read, traders=dict(read.traders), origins=dict(read.origins))
    held: list[str] = []
    for key, trader in read.traders.items():
        asked, earlier = configuration_of(trader), standing.traders.get(key)
        if asked is None or asked.key in catalogue.answers or (earlier and configuration_of(earlier) == asked):
            continue
        held.append(trader.full_name)
        identity = (trader.KIND, *key)
        if earlier is None:
            del manifests.traders[key], manifests.origins[identity]
        else:
            manifests.take(identity, earlier, standing.origins[identity])
    return check_again(replace(wanted, manifests=manifests), catalogue), held


def _check(manifests: ManifestSet, catalogue: Catalogue) -> list[Problem]:
    return check_against_catalogue(manifests, catalogue.entries, catalogue.answers)


def unchecked_traders(manifests: ManifestSet, catalogue: Catalogue) -> list[Trader]:
    """Traders of which nobody can say whether their parameters fit each other: the strategy hung, or failed otherwise."""
    left = catalogue.unchecked(configurations_of(manifests.traders.values()))
    return [one for one in manifests.traders.values() if (asked := configuration_of(one)) and asked.key in left]


def unchecked_notice(trader: Trader) -> str:
    """What is to be said of one of :func:`unchecked_traders`."""
    strategy = trader.spec.strategy.name
    return (
        f"Trader {trader.full_name}: whether its parameters fit each other was not checked, for {strategy} gave no answer; "
        "its own process will find out"
    )


def waiting_changes(manifests: ManifestSet, feeds: Iterable[MarketFeed], pools: Iterable[TraderPool]) -> list[str]:
    """Changes of feeds and pools that running processes can't take in, a sentence each.

    Args:
        feeds, pools: what the running processes were started with.
    """
    changed = [
        f"MarketFeed {feed.full_name} changed: that takes effect at the next start"
        for feed in feeds
        if feed.key in manifests.feeds and manifests.feeds[feed.key].spec != feed.spec
    ]
    for then in pools:
        now = manifests.pools.get(then.key)
        if now is None:
            continue
        differs = (now.spec.feed, now.spec.segment, now.spec.transport)
        if differs != (then.spec.feed, then.spec.segment, then.spec.transport):
            changed.append(
                f"TraderPool {now.full_name} changed its feed, segment or transport: that takes effect at the next start"
            )
    return list(dict.fromkeys(changed))


def emptied_files(read: ManifestSet, previous: ManifestSet) -> list[Problem]:
    """Files that have lost every document: half-written, until they have one again or are gone.

    A file of one Trader of which comments are left is that Trader taken out, by hand or through the API.
    """
    found: list[Problem] = []
    for file, has_comments in read.empty.items():
        declared = [identity for identity, origin in previous.origins.items() if origin.file == file]
        lost = [identity for identity in declared if identity not in read.origins]
        is_taken_out = has_comments and [kind for kind, *_ in declared] == ["Trader"]
        if lost and not is_taken_out:
            what = ", ".join("/".join(part for part in identity if part) for identity in lost[:_MOST_NAMED])
            more = f" and {len(lost) - _MOST_NAMED} more" if len(lost) > _MOST_NAMED else ""
            told = f"has no document any more: what it declared ({what}{more}) keeps running until it has one (delete it to end that)"
            found.append(Problem(file, 0, 0, "", "", "", "", told))
    return found


async def wrong_with(
    manifest: dict[str, Any], manifests: ManifestSet, answering: Callable[[Iterable[Trader]], Awaitable[Catalogue]]
) -> list[tuple[str, str]]:
    """(field, sentence) of what keeps a Trader from running beside the pools, feeds and strategies there are.

    Args:
        answering: gives the catalogue, with what becomes of strategies with these Traders' parameters.
    """
    try:
        trader = Trader.model_validate(manifest)
    except ValidationError as error:
        found = [explain(Trader, one, manifest) for one in error.errors(include_url=False)]
        return [(path_text(path), message) for path, message in found]
    catalogue = await answering([trader])
    findings = trader_findings(manifests, trader, catalogue.entries, catalogue.answers)
    return [(path_text(one.path), one.message) for one in findings]
