"""What becomes of traces that were sent."""

from __future__ import annotations

from typing import Literal, NamedTuple


class Answer(NamedTuple):
    """What became of a request.

    Attributes:
        verdict: ``taken``; ``later``: send it again after ``after_s`` (0: not said); ``refused``: never will be.
        rejected: spans that a receiver left out of a request that it took. words: why, for a person.
    """

    verdict: Literal["taken", "later", "refused"]
    words: str = ""
    after_s: float = 0.0
    rejected: int = 0
