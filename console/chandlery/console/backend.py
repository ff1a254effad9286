"""What the API needs of the system behind it: `chandlery up` on this machine, or Chandlery on Kubernetes.

An implementation keeps what it knows up to date by itself between :meth:`Backend.start` and :meth:`Backend.stop`; all
reads are of memory, never of the network, so that a slow worker or API server never holds an answer up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from chandlery.console.api.models import Feed, Memory, Pool, Trader
from chandlery.core.errors import InputError
from chandlery.core.settings import KafkaSettings


class NotFoundError(InputError):
    """There is no such resource."""


class ConflictError(InputError):
    """It exists already, or somebody else changed it meanwhile: look again, then try again."""


class RefusedError(InputError):
    """Whoever runs the system doesn't let this API do that: read-only, or no right."""


class BadFieldError(InputError):
    """A field of a manifest is wrong.

    Attributes:
        field: the first one, e.g. ``spec.pool.name``.
    """

    def __init__(self, sentence: str, field: str) -> None:
        super().__init__(sentence)
        self.field = field


@dataclass(frozen=True)
class TraderManifest:
    """A Trader as it was written. See :class:`chandlery.console.api.models.TraderDetail` for the last two."""

    manifest: dict[str, Any]
    kept_by: str = ""
    resource_version: str = ""


@dataclass(frozen=True)
class FeedKafka:
    """A MarketFeed (``namespace/name``) and where its topics are."""

    feed: str
    kafka: KafkaSettings


@dataclass(frozen=True)
class Snapshot:
    """All that a backend knows now.

    Attributes:
        away: what it can't ask now and why, one sentence each. started_ms: of the instance; 0: unknown.
        notices: what a person should know. transports: how candles reach each Trader, where that is known.
    """

    traders: Sequence[Trader] = ()
    pools: Sequence[Pool] = ()
    feeds: Sequence[Feed] = ()
    memory: Memory = field(default_factory=lambda: Memory(processes=[]))
    away: Sequence[str] = ()
    notices: Sequence[str] = ()
    started_ms: int = 0
    transports: Mapping[str, str] = field(default_factory=dict)


class Backend(Protocol):
    """The system behind the API. ``writable``: whether Traders can be changed through it."""

    mode: Literal["local", "cluster"]
    writable: bool

    async def start(self) -> None:
        """Begin to follow. Returns at once, also where nobody answers yet: ``Snapshot.away`` says so."""
        ...

    async def stop(self) -> None: ...

    def snapshot(self) -> Snapshot: ...

    def kafkas(self) -> Sequence[FeedKafka]:
        """Where signals and candles are; may change while it runs."""
        ...

    async def manifest(self, namespace: str, name: str) -> TraderManifest:
        """Raises: NotFoundError; UnavailableError: it can't be asked."""
        ...

    async def create(self, manifest: dict[str, Any]) -> TraderManifest:
        """Make a Trader. The manifest's form is checked before; the backend checks what only it knows.

        Raises:
            InputError: a field is wrong; its message names it. ConflictError: there is one of that name.
            RefusedError: it may not. UnavailableError: it can't be asked.
        """
        ...

    async def replace(self, manifest: dict[str, Any], resource_version: str) -> TraderManifest:
        """Change a Trader's spec.

        Args:
            resource_version: that the edit was made on; empty: whatever stands there.

        Raises:
            As :meth:`create`; NotFoundError; ConflictError: somebody else changed it meanwhile.
        """
        ...

    async def suspend(self, namespace: str, name: str, *, suspend: bool) -> TraderManifest:
        """Set ``spec.suspend`` and nothing else. Raises: as :meth:`replace`."""
        ...

    async def delete(self, namespace: str, name: str) -> None:
        """Remove a Trader. Raises: as :meth:`replace`."""
        ...
