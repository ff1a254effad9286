"""What aiohttp's errors say, in words that may stand in logs and statuses."""

from __future__ import annotations

from typing import Final

import msgspec

_MOST_CHARS: Final = 200


def in_words(error: BaseException) -> str:
    """Type and message of an error, nothing else: ``repr`` of some holds the request's headers, a token among them."""
    said = getattr(error, "message", None) or getattr(error, "strerror", None)
    if said is None and isinstance(error, msgspec.MsgspecError):
        said = str(error)
    name = type(error).__name__
    return f"{name}: {said[:_MOST_CHARS]}" if isinstance(said, str) and said else name
