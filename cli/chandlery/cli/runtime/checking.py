"""Manifests that were read, until it is known what becomes of strategies with their parameters."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final

from chandlery.cli.runtime.catalogue import Catalogue
from chandlery.cli.runtime.desired import Wanted, check_again, held_back
from chandlery.cli.runtime.strategies import Strategies
from chandlery.core.manifests import ManifestSet

#: How long all changes wait for the answers: a process that imports the strategies has them within a second or two on most
#: machines, and a change that is seen whole is better than one in two steps.
_PATIENCE_S: Final = 2.0


class Checking:
    """Lets what was read count: at once what needs no answer of a strategy, the rest when the answers have come.

    A strategy may hang; others' suspensions and deletions must not wait for it.

    Attributes:
        waiting: full names of Traders that keep their earlier version, or wait, until then.
    """

    def __init__(
        self,
        strategies: Strategies,
        want: Callable[[Wanted], None],
        spawn: Callable[[Coroutine[Any, Any, None], str], asyncio.Task[None]],
    ) -> None:
        """want: makes something count. spawn: runs something beside."""
        self.waiting: list[str] = []
        self._strategies = strategies
        self._want = want
        self._spawn = spawn
        self._newest: tuple[Wanted, Catalogue] | None = None
        self._asking: asyncio.Task[None] | None = None

    async def take(self, read: Wanted, catalogue: Catalogue, standing: ManifestSet) -> None:
        """Let manifests count; returns when those do that can.

        Args:
            catalogue: what they were checked against. standing: the manifests that count until now.
        """
        self._newest = read, catalogue
        # One that asks already goes on, so that what it has found out of a hanging strategy isn't lost: else edits that
        # follow each other quickly would let it hang for ever.
        if self._asking is None or self._asking.done():
            self._asking = self._spawn(self._ask(), "check parameters")
        done, _ = await asyncio.wait([self._asking], timeout=_PATIENCE_S)
        if not done:
            held, self.waiting = held_back(read, standing, self._strategies.catalogue)
            self._want(held)

    async def _ask(self) -> None:
        while self._newest is not None:
            newest = read, catalogue = self._newest
            await self._strategies.configure(read.manifests.traders.values())
            if newest is self._newest:
                self._newest, self.waiting = None, []
                # Other strategies may have come meanwhile, or more is known of them.
                known = self._strategies.catalogue
                self._want(read if catalogue is known else check_again(read, known))

    @property
    def notices(self) -> list[str]:
        """What a person should know now."""
        if not self.waiting:
            return []
        return [f"changes of {', '.join(self.waiting)} wait until their strategies have checked the parameters"]
