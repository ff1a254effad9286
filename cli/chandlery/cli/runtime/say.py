"""How the runtime tells what it does."""

from __future__ import annotations

from typing import Protocol


class Say(Protocol):
    """Takes what the start and the end have to tell: a line, and the share done (None: unknown)."""

    def __call__(self, line: str, fraction: float | None = None) -> None: ...
