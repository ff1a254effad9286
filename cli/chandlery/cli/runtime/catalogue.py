"""The strategies there are, and what becomes of them with Traders' parameters: asked of a process of their own.

Strategies are never imported here.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec

from chandlery.core.configurations import Answer, Answers, Configuration, Configured
from chandlery.core.errors import InputError, MachineError
from chandlery.workers.catalogue_process import Output, listed

#: Configuring a strategy takes under 1 ms; one that reads a file for it may take seconds.
_ANSWER_TIMEOUT_S: Final = 5.0
#: All of them: five that hang, and a second each for the process that is asked after that. What hasn't been asked by then is
#: asked the next time.
_ANSWERS_TIMEOUT_S: Final = 30.0

#: Strategies that can't be used of which a notice says why.
_MOST_NAMED: Final = 5

_decode_answer: Final = msgspec.json.Decoder(Answer).decode


@dataclass(frozen=True)
class Catalogue:
    """What is known of strategies.

    Attributes:
        entries: as ``python -m chandlery.workers.catalogue`` prints them.
        answers: what becomes of strategies with the parameters that were asked for; without those there was no time for.
        left_out: what ended the process that imported it, or never returned, and which of them: entry points and files of the
            folder. It is among the entries, as broken.
    """

    entries: Sequence[Mapping[str, Any]] = ()
    answers: Answers = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)

    def unchecked(self, asked: Mapping[str, Configuration]) -> dict[str, Configuration]:
        """Those of which nobody can say what becomes of them, though their strategy can be used."""
        usable = {entry["name"] for entry in self.entries if not entry.get("errors")}
        return {key: one for key, one in asked.items() if one.strategy in usable and self.answers.get(key) is None}

    def unusable(self) -> str:
        """What of the folder of strategies can't be used, and what installed ones were left out, and why; empty: nothing.

        Traders tell of it only where they name it and nothing else has the name.
        """
        broken = [
            f"{entry['name']}: {entry['errors'][0]}"
            for entry in self.entries
            if entry.get("errors") and (entry.get("source") == "folder" or entry["name"] in self.left_out)
        ]
        more = f"; and {len(broken) - _MOST_NAMED} more" if len(broken) > _MOST_NAMED else ""
        return "; ".join(broken[:_MOST_NAMED]) + more


def unusable_notice(folder: Path | None, unusable: str) -> str:
    """What is to be said of what :meth:`Catalogue.unusable` tells, with a folder beside the installed strategies or without."""
    return f"{folder or 'this installation'}: not all of its strategies can be used: {unusable}"


async def read_catalogue(
    strategies: Path | None,
    asked: Mapping[str, Configuration] | None = None,
    without: Mapping[str, str] | None = None,
) -> Catalogue:
    """The strategies there are.

    What hangs or ends the process when it is imported is listed as broken. Where one does when it is configured, it is left
    without an answer, and a new process is asked for the others.

    Args:
        strategies: a folder beside the shipped ones. asked: what to configure, by key.
        without: what was left out before and isn't tried again (:attr:`Catalogue.left_out`).

    Raises:
        InputError: no such folder. MachineError: the process failed.
    """
    asked = asked or {}
    folder = str(strategies) if strategies is not None else ""
    answers: dict[str, Configured | None] = {}
    async with listed(folder, asked.values(), without=without, keeps_errors=True) as (entries, left_out, output):
        by_s = asyncio.get_running_loop().time() + _ANSWERS_TIMEOUT_S
        left = await _answers(output, asked, answers, by_s)
    if left:
        await _ask_others(folder, left_out, left, answers, by_s)
    return Catalogue(entries, answers, left_out)


async def _answers(
    output: Output, asked: Mapping[str, Configuration], answers: dict[str, Configured | None], by_s: float
) -> dict[str, Configuration]:
    """Add the answers of one process as they come.

    Args:
        asked: what it was asked, in that order. by_s: when to stop, on the loop's clock.

    Returns:
        What is left without an answer: first that at which the process hangs or ended.
    """
    now = asyncio.get_running_loop().time
    waiting = dict(enumerate(asked))
    with contextlib.suppress(TimeoutError, msgspec.DecodeError):  # of an empty line: the process ended
        while waiting:
            async with asyncio.timeout_at(min(now() + _ANSWER_TIMEOUT_S, by_s)):
                answer = _decode_answer(await output.readline())
            if (key := waiting.pop(answer.index, None)) is not None:
                answers[key] = answer.configured
    return {key: asked[key] for key in waiting.values()}


async def _ask_others(
    folder: str,
    without: Mapping[str, str],
    left: dict[str, Configuration],
    answers: dict[str, Configured | None],
    by_s: float,
) -> None:
    """Ask new processes for what one left without an answer, as long as there is time.

    Args:
        without: what they don't import. left: first that at which it hangs or ended.
    """
    now = asyncio.get_running_loop().time
    held_up: set[str] = set()
    with contextlib.suppress(TimeoutError, InputError, MachineError, OSError):  # without an answer, then
        while left and now() < by_s:
            key = next(iter(left))
            answers[key] = None
            held_up.add(left.pop(key).strategy)
            # What hung with other parameters may hang again, and must not keep the others from their turn.
            left = dict(sorted(left.items(), key=lambda item: item[1].strategy in held_up))
            if left:
                others = listed(folder, left.values(), without=without, keeps_errors=True)
                async with asyncio.timeout_at(by_s), others as (_, _, output):
                    left = await _answers(output, left, answers, by_s)
