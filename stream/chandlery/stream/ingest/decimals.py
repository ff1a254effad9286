"""Exact decimals as integers with a scale: ``61837.63`` at scale 8 is ``6183763000000``."""

from __future__ import annotations

import math
import re
from decimal import Decimal
from typing import Final

#: Exchanges quote at most eight decimals; sources hand over columns at this scale unless a text has more.
SCALE: Final = 8
#: More decimals than this are noise or an attack on memory, not a price.
MAX_SCALE: Final = 18
_UNUSUAL: Final = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,4})?")


def parse_decimal(text: str) -> tuple[int, int]:
    """Read a decimal text exactly.

    Args:
        text: digits with at most one point, such as ``61837.63000000``; an exponent is understood too.

    Returns:
        (value, scale) with scale ≥ 8, so that text = value · 10^-scale.

    Raises:
        ValueError: no finite decimal, or more than 18 significant decimals.
    """
    whole, _, fraction = text.partition(".")
    digits = whole + fraction
    if not (digits.isascii() and digits.isdigit()):
        return _parse_unusual(text)
    places = len(fraction)
    if places <= SCALE:
        return int(digits) * 10 ** (SCALE - places), SCALE
    return _at_least_scale(int(digits), places, text)


def _parse_unusual(text: str) -> tuple[int, int]:
    if _UNUSUAL.fullmatch(text) is None:
        raise ValueError(f"{text!r} is no decimal")
    parsed = Decimal(text)
    sign, digits, exponent = parsed.as_tuple()
    # Adjusted exponents bound the work: 1e999999 is a valid Decimal and a gigabyte of digits.
    if not isinstance(exponent, int) or abs(parsed.adjusted()) > 40:
        raise ValueError(f"{text!r} is no finite decimal of a sensible size")
    value = int("".join(map(str, digits))) * (-1 if sign else 1)
    if exponent >= 0:
        return value * 10 ** (exponent + SCALE), SCALE
    if -exponent <= SCALE:
        return value * 10 ** (SCALE + exponent), SCALE
    return _at_least_scale(value, -exponent, text)


def _at_least_scale(value: int, scale: int, text: str) -> tuple[int, int]:
    while scale > SCALE and value % 10 == 0:
        value //= 10
        scale -= 1
    if scale > MAX_SCALE:
        raise ValueError(f"{text!r} has more than {MAX_SCALE} decimals")
    return value, scale


def parse_column(texts: list[str]) -> tuple[list[int], int]:
    """Read decimal texts to integers at one scale that holds them all exactly.

    Raises:
        ValueError: as :func:`parse_decimal`.
    """
    pairs = [parse_decimal(text) for text in texts]
    scale = max((places for _, places in pairs), default=SCALE)
    return [value * 10 ** (scale - places) for value, places in pairs], scale


def float_text(value: float, places: int) -> str:
    """Decimal text of a binary float: its 15 significant digits, at most ``places`` decimals, no exponent.

    Fifteen digits are what a double keeps of any decimal; the 16th and 17th are noise of the binary form.
    """
    text = f"{Decimal(f'{value:.15g}'):f}"
    whole, point, fraction = text.partition(".")
    if point and len(fraction) > places:
        return f"{Decimal(text):.{places}f}"
    return whole + point + fraction


def least_scale(values: list[int], scale: int) -> tuple[list[int], int]:
    """Same decimals at the least scale that holds them all: ([6183760, 100], 2) → ([618376, 10], 1)."""
    common = math.gcd(*values)
    if common == 0:
        return [0] * len(values), 0
    drop = 0
    while drop < scale and common % 10 == 0:
        common //= 10
        drop += 1
    if drop == 0:
        return values, scale
    divisor = 10**drop
    return [value // divisor for value in values], scale - drop


def rescale(values: list[int], scale: int, wanted: int) -> list[int]:
    """Same decimals at a scale that is at least as large."""
    return values if wanted == scale else [value * 10 ** (wanted - scale) for value in values]
