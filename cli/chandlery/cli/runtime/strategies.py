"""The strategies while an instance runs: the catalogue is read anew when the folder's files change, or one can't be imported."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from chandlery.cli.runtime.catalogue import Catalogue, unusable_notice
from chandlery.cli.runtime.importer import Importer, look
from chandlery.core.configurations import Answers, Configuration, configurations_of
from chandlery.core.errors import ChandleryError
from chandlery.core.resources import Trader
from chandlery.workers.supervisor.catalogue_reader import FIRST_RETRY_S, LAST_RETRY_S, Fingerprint

log = logging.getLogger("chandlery.up")

#: How often the folder is looked at: a listing of some tens of names costs less than a millisecond.
LOOK_S: Final = 0.5


class Strategies:
    """The strategies that count.

    Workers tell their catalogues too; but a pool without Traders may have no worker, and its first Trader would be refused
    for ever.

    Attributes:
        catalogue: what there is; where it can't be read now, what there was.
    """

    def __init__(self, folder: Path | None, catalogue: Catalogue, seen: Fingerprint | None) -> None:
        """Begin with what was read already.

        Args:
            folder: of ``--strategies``; None: the shipped ones are all there are.
            seen: the folder as it was before ``catalogue`` was read; None: not known, so it is read once more.
        """
        self.catalogue = catalogue
        self._folder = folder
        self._importer = Importer(folder, _log_end)
        self._unread = ""
        self._seen = seen
        self._asked: Mapping[str, Configuration] = {}

    @property
    def notices(self) -> list[str]:
        """That the folder can't be read, or what can't be used, and why."""
        told = [self._unread] if self._unread else []
        if unusable := self.catalogue.unusable():
            told.append(unusable_notice(self._folder, unusable))
        return told

    @property
    def pid(self) -> int:
        """Of the process that has imported them and waits for questions; 0: there is none, or it is being asked."""
        return self._importer.pid

    @property
    def restarts(self) -> int:
        """How often that process ended by itself."""
        return self._importer.restarts

    async def close(self) -> None:
        """End that process."""
        await self._importer.close()

    async def follow(self, changed: Callable[[], None], clock: Callable[[], float] = time.monotonic) -> None:
        """Call ``changed`` after each new catalogue, until cancelled.

        One that can't be read (a folder that is gone), or only without what never returned or ended its process (on a busy
        machine a sound one may take too long), is tried again after pauses that grow.

        Args:
            clock: seconds that never go back.
        """
        # A process for the first question, so that it doesn't wait for the imports; the one that was asked before the start
        # isn't the run's, and nothing would end what it has left. Whoever asks tells why there is none.
        with contextlib.suppress(ChandleryError, OSError):
            await self._importer.keep(self.catalogue.left_out)
        pause_s = FIRST_RETRY_S
        again_s = clock() + pause_s if self.catalogue.left_out else math.inf
        while self._folder is not None or again_s < math.inf:
            present = look(self._folder)
            if present != self._seen or clock() >= again_s:
                pause_s = FIRST_RETRY_S if present != self._seen else min(2 * pause_s, LAST_RETRY_S)
                self._seen = present
                is_read = await self._read(self._folder, changed)
                again_s = math.inf if is_read else clock() + pause_s
            await asyncio.sleep(LOOK_S)

    async def configure(self, traders: Iterable[Trader]) -> None:
        """Have the catalogue tell what becomes of strategies with these Traders' parameters, now and after each change."""
        self._asked = configurations_of(traders)
        asked = self._asked
        catalogue = await self._answering(asked)
        if asked is self._asked:
            answers = {key: catalogue.answers[key] for key in asked if key in catalogue.answers}
            self.catalogue = (
                replace(self.catalogue, answers=answers) if answers != self.catalogue.answers else self.catalogue
            )

    async def answering(self, traders: Iterable[Trader]) -> Catalogue:
        """The catalogue, with what becomes of strategies with these Traders' parameters."""
        return await self._answering(configurations_of(traders))

    async def _answering(self, asked: Mapping[str, Configuration]) -> Catalogue:
        while True:
            known = self.catalogue
            missing = {key: one for key, one in asked.items() if key not in known.answers}
            answers = await self._ask(missing) if missing else {}
            # What was answered while strategies changed may be of either.
            if self.catalogue.entries is known.entries:
                return replace(self.catalogue, answers={**self.catalogue.answers, **answers})

    async def _ask(self, asked: Mapping[str, Configuration]) -> Answers:
        try:
            # What never returned would hold the answers up by half a minute each time; who follows tries it again.
            catalogue = await self._importer.answers(asked, self.catalogue.left_out)
        except (ChandleryError, OSError) as error:
            # The Traders' own processes will find out; a folder that can't be read is told by who follows it.
            log.warning("parameters can't be checked together", extra={"problem": str(error)})
            return dict.fromkeys(asked)
        _log_unchecked(catalogue, asked)
        return catalogue.answers

    async def _read(self, folder: Path | None, changed: Callable[[], None]) -> bool:
        """Read it anew; returns whether all could be imported."""
        asked = self._asked
        try:
            catalogue = await self._importer.catalogue(asked)
        except (ChandleryError, OSError) as error:
            told = f"{folder or 'this installation'}: its strategies can't be read, those known before count: {error}"
            if self._unread != told:
                log.warning("strategies can't be read", extra={"problem": str(error)})
            self._unread = told
            return False
        self._unread = ""
        _log_unchecked(catalogue, asked)
        before = self.catalogue
        are_new = catalogue.entries != before.entries
        if are_new or any(before.answers.get(key) != answer for key, answer in catalogue.answers.items()):
            broken = [str(entry["name"]) for entry in catalogue.entries if entry.get("errors")]
            log.info("strategies changed", extra={"strategies": len(catalogue.entries) - len(broken), "broken": broken})
            self.catalogue = catalogue
            if self._asked is not asked:  # manifests have changed meanwhile
                self.catalogue = await self._answering(self._asked)
            changed()
        return not catalogue.left_out


def _log_end(pid: int, end: str) -> None:
    facts = {"pid": pid, "problem": end}
    log.warning("the process that checks parameters has ended; the next question begins another", extra=facts)


def _log_unchecked(catalogue: Catalogue, asked: Mapping[str, Configuration]) -> None:
    if left := catalogue.unchecked(asked):
        names = sorted({one.strategy for one in left.values()})
        log.warning("strategies left without a check of their parameters", extra={"strategies": names})
