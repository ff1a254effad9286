"""Durations in manifests: ``500ms``, ``5s``, ``1m30s``, ``12h``, ``30d``; kept as whole milliseconds."""

from __future__ import annotations

import re
from typing import Final

from chandlery.core.errors import InputError
from chandlery.core.wording import shortened

#: Units from long to short, each with its milliseconds.
UNITS: Final = (("w", 604_800_000), ("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1))
#: Also the pattern of the resources' schema: units from long to short, each at most once.
PATTERN: Final = r"^([0-9]+w)?([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?([0-9]+ms)?$"
#: As in the resources' schema; int() refuses thousands of digits in words of its own.
MOST_CHARS: Final = 64
# A bound far above any use keeps sums of two durations and a time inside 64 bits.
MOST_MS: Final = 100 * 366 * 86_400_000


def parse_duration(text: str) -> int:
    """Read a duration.

    Args:
        text: whole numbers with units ``w d h m s ms``, from long to short, such as ``1m30s``.

    Returns:
        Milliseconds, 0 or more.

    Raises:
        InputError: the text is no duration, or longer than a hundred years.
    """
    match = re.match(PATTERN, text) if len(text) <= MOST_CHARS else None
    if not text or match is None or match.end() != len(text):
        raise InputError(
            f"{shortened(text)} is no duration: write whole numbers with units w, d, h, m, s or ms, such as 1m30s"
        )
    total_ms = sum(
        int(part[: -len(unit)]) * unit_ms
        for part, (unit, unit_ms) in zip(match.groups(), UNITS, strict=True)
        if part is not None
    )
    if total_ms > MOST_MS:
        raise InputError(f"{text!r} is too long: a hundred years at most")
    return total_ms


def format_duration(duration_ms: int) -> str:
    """Shortest spelling of a duration (ms): 90_000 gives ``1m30s``, 0 gives ``0s``."""
    if duration_ms == 0:
        return "0s"
    parts: list[str] = []
    for unit, unit_ms in UNITS[1:]:  # no weeks: 14d reads better than 2w
        count, duration_ms = divmod(duration_ms, unit_ms)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts)
