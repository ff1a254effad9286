"""Strategies are imported by a process of their own, which tells the catalogue and what becomes of Traders' parameters.

While an instance runs the process is kept: importing takes half a second, an answer of who has imported some milliseconds.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from chandlery.cli.runtime.catalogue import Catalogue
from chandlery.core.configurations import Configuration, Configured
from chandlery.core.errors import InputError, MachineError
from chandlery.workers.catalogue_process import Listed, listed
from chandlery.workers.supervisor.catalogue_reader import Fingerprint, fingerprint

#: Configuring a strategy takes under 1 ms; one that reads a file for it may take seconds.
_ANSWER_TIMEOUT_S: Final = 5.0
#: All of them: five that hang, and a second each for the process that is begun after that. What hasn't been asked by then is
#: asked the next time.
_ANSWERS_TIMEOUT_S: Final = 30.0


def look(folder: Path | None) -> Fingerprint:
    """The files of the folder as they are now; nothing without a folder."""
    return fingerprint(_text(folder))


def _text(folder: Path | None) -> str:
    return str(folder) if folder is not None else ""


@dataclass(frozen=True)
class _Process:
    """One that has imported the strategies. number: grows. seen: the folder before. life: ends it."""

    number: int
    listed: Listed
    seen: Fingerprint
    life: contextlib.AsyncExitStack


class Importer:
    """Imports strategies, and keeps the process that has, until it is closed.

    What hangs or ends the process when it is imported is listed as broken. Where one does when it is configured, it is left
    without an answer, and the others are asked again.

    Attributes:
        restarts: processes that have ended by themselves, and were replaced.
    """

    def __init__(self, folder: Path | None, ended: Callable[[int, str], None] = lambda pid, end: None) -> None:
        """folder: strategies beside the shipped ones. ended: called with one that ended by itself, and what became of it."""
        self.restarts = 0
        self._folder = folder
        self._ended = ended
        self._kept: _Process | None = None
        self._is_closed = False
        self._keeping = asyncio.Lock()
        self._begun = 0

    @property
    def pid(self) -> int:
        """Of the process that is kept; 0: there is none, it has ended, or it is being asked."""
        return self._kept.listed.pid if self._kept is not None and not self._kept.listed.has_ended else 0

    async def catalogue(
        self, asked: Mapping[str, Configuration] | None = None, without: Mapping[str, str] | None = None
    ) -> Catalogue:
        """The strategies there are, all imported anew.

        Args:
            asked: what to configure, by key.
            without: what was left out before and isn't tried again (:attr:`Catalogue.left_out`).

        Raises:
            InputError: no such folder. MachineError: the process failed. OSError: it can't be started.
        """
        return await self._ask(await self._begin(without or {}), asked or {})

    async def answers(self, asked: Mapping[str, Configuration], without: Mapping[str, str]) -> Catalogue:
        """The same, from the process that has imported them already, if there is one and the folder's files are what they were.

        Raises:
            InputError: no such folder. MachineError: the process failed. OSError: it can't be started.
        """
        return await self._ask(await self._taken(without), asked)

    async def keep(self, without: Mapping[str, str]) -> None:
        """Have a process at hand for the next question.

        Raises:
            InputError: no such folder. MachineError: the process failed. OSError: it can't be started.
        """
        async with self._keeping:
            await self._give_back(await self._next(without))

    async def close(self) -> None:
        """End the process; what is being asked is answered still."""
        self._is_closed = True
        kept, self._kept = self._kept, None
        if kept is not None:
            await kept.life.aclose()

    async def _end(self, process: _Process) -> None:
        """End a process that isn't asked any more. That one has ended by itself is told: nobody else would."""
        if process.listed.has_ended:
            self.restarts += 1
            self._ended(process.listed.pid, process.listed.end)
        await process.life.aclose()

    async def _begin(self, without: Mapping[str, str]) -> _Process:
        self._begun += 1
        number = self._begun
        seen = look(self._folder)  # before: what changes while it imports is seen by who asks next
        async with contextlib.AsyncExitStack() as life:
            found = await life.enter_async_context(
                listed(_text(self._folder), is_asked=True, without=without, keeps_errors=True)
            )
            return _Process(number, found, seen, life.pop_all())

    async def _taken(self, without: Mapping[str, str]) -> _Process:
        async with self._keeping:
            pass  # who comes while one is being made has that one
        return await self._next(without)

    async def _next(self, without: Mapping[str, str]) -> _Process:
        """The one that is kept, if it is good for that.

        Who comes while it is being asked gets a process of its own: what hangs holds up nobody else.
        """
        kept, self._kept = self._kept, None
        if kept is not None:
            # What it had to leave out may be sound, and be known as that: it would never have an answer.
            has_all = kept.listed.left_out.keys() <= without.keys()
            if kept.listed.can_be_asked and has_all and kept.seen == look(self._folder):
                return kept
            await self._end(kept)
        return await self._begin(without)

    async def _give_back(self, process: _Process) -> None:
        """Keep the process for the next question, if no newer one is kept; end the other."""
        ended: _Process | None = process
        is_newest = self._kept is None or self._kept.number < process.number
        if process.listed.can_be_asked and is_newest and not self._is_closed:
            ended, self._kept = self._kept, process
        if ended is not None:
            await self._end(ended)

    async def _ask(self, process: _Process, asked: Mapping[str, Configuration]) -> Catalogue:
        entries, left_out = process.listed.entries, process.listed.left_out
        answers: dict[str, Configured | None] = {}
        by_s = asyncio.get_running_loop().time() + _ANSWERS_TIMEOUT_S
        left, is_to_blame = await self._answered(process, asked, answers, by_s)
        if left:
            await self._ask_others(left_out, left, answers, by_s, is_to_blame=is_to_blame)
        return Catalogue(entries, answers, left_out)

    async def _answered(
        self, process: _Process, asked: Mapping[str, Configuration], answers: dict[str, Configured | None], by_s: float
    ) -> tuple[dict[str, Configuration], bool]:
        """Add the answers of one process as they come, and give it back.

        Args:
            by_s: when to stop, on the loop's clock.

        Returns:
            What is left without an answer, and whether the first of it is to blame: it hangs, or has ended the fork that
            answered. Where the process has ended that may be for lack of memory, while it waited.
        """
        now = asyncio.get_running_loop().time
        waiting = dict(enumerate(asked))
        try:
            with contextlib.suppress(TimeoutError, msgspec.DecodeError, ValueError):
                async with asyncio.timeout_at(by_s):
                    await process.listed.ask(asked.values())
                while True:
                    async with asyncio.timeout_at(min(now() + _ANSWER_TIMEOUT_S, by_s)):
                        answer = await process.listed.answer()
                    if answer is None:
                        break
                    if (key := waiting.pop(answer.index, None)) is not None:
                        answers[key] = answer.configured
            is_to_blame = not process.listed.has_ended
        finally:
            await self._give_back(process)
        return {key: asked[key] for key in waiting.values()}, is_to_blame

    async def _ask_others(
        self,
        without: Mapping[str, str],
        left: dict[str, Configuration],
        answers: dict[str, Configured | None],
        by_s: float,
        *,
        is_to_blame: bool,
    ) -> None:
        """Ask again for what one process left without an answer, as long as there is time.

        Args:
            without: what isn't imported. left: first that at which it hangs, or which has ended it.
            is_to_blame: whether that one is not asked for again.
        """
        now = asyncio.get_running_loop().time
        held_up: set[str] = set()
        first = next(iter(left))
        with contextlib.suppress(TimeoutError, InputError, MachineError, OSError):  # without an answer, then
            while left and now() < by_s:
                if is_to_blame:
                    key = next(iter(left))
                    answers[key] = None
                    held_up.add(left.pop(key).strategy)
                # What hung with other parameters may hang again, and must not keep the others from their turn.
                left = dict(sorted(left.items(), key=lambda item: item[1].strategy in held_up))
                if left:
                    async with asyncio.timeout_at(by_s):
                        process = await self._taken(without)
                    left, is_to_blame = await self._answered(process, left, answers, by_s)
                if left:
                    before, first = first, next(iter(left))
                    is_to_blame = is_to_blame or first == before  # what ends two processes is no accident


async def read_catalogue(
    strategies: Path | None,
    asked: Mapping[str, Configuration] | None = None,
    without: Mapping[str, str] | None = None,
) -> Catalogue:
    """The strategies there are, by a process that isn't kept. Arguments and errors: see :meth:`Importer.catalogue`."""
    importer = Importer(strategies)
    try:
        return await importer.catalogue(asked, without)
    finally:
        await importer.close()
