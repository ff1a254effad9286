"""Amounts of memory in manifests, in Kubernetes' notation: ``256Mi``, ``1.5Gi``, ``1G``, ``268435456``."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Final

from chandlery.core.errors import InputError

_FACTORS: Final = {
    "": 1,
    "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15,
    "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "Pi": 2**50,
}  # fmt: skip
#: Also the pattern of the resources' schema.
PATTERN: Final = r"^[0-9]{1,18}(\.[0-9]{1,9})?(k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?$"
_COMPILED: Final = re.compile(PATTERN)
_MOST_BYTES: Final = 2**62


def parse_quantity(text: str) -> int:
    """Read an amount of memory.

    Args:
        text: a number and a unit: ``Ki Mi Gi Ti Pi`` (powers of 1024), ``k M G T P`` (powers of 1000), or none.

    Returns:
        Bytes, a fraction rounded up as Kubernetes does.

    Raises:
        InputError: the text is no amount of memory; common slips (``256MB``, ``128m``) get their own sentence.
    """
    match = _COMPILED.match(text)
    if match is None or match.end() != len(text):
        raise InputError(f"{text!r} is no amount of memory: {_what_is_right(text)}")
    unit = match[2] or ""
    exact = Decimal(text.removesuffix(unit)) * _FACTORS[unit]
    total = int(exact.to_integral_value(rounding="ROUND_CEILING"))
    if total > _MOST_BYTES:
        raise InputError(f"{text!r} is too much: 4096 Pi at most")
    return total


def _what_is_right(text: str) -> str:
    slip = re.fullmatch(r"([0-9.]+)\s*([kKMGTP])i?[bB]", text)
    if slip:
        return f"units have no B; write {slip[1]}{slip[2].upper()}i"
    if re.fullmatch(r"[0-9.]+m", text):
        return "m means thousandths; write Mi for mebibytes"
    return "write a number with Ki, Mi or Gi (or k, M, G), such as 256Mi"


def format_quantity(amount_bytes: int) -> str:
    """Shortest exact spelling in powers of 1024: 268435456 gives ``256Mi``, 1000 gives ``1000``."""
    for unit in ("Pi", "Ti", "Gi", "Mi", "Ki"):
        if amount_bytes and amount_bytes % _FACTORS[unit] == 0:
            return f"{amount_bytes // _FACTORS[unit]}{unit}"
    return str(amount_bytes)
