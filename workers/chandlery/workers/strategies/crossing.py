"""Which side a value is on, free of rounding noise: what crossing rules are made of."""

from __future__ import annotations

from typing import Final

#: Differences below this share of the price are rounding: TA-Lib's running sums leave some 1e-15 of the
#: price a candle, and no market quotes ten digits.
TOLERANCE: Final = 1e-10


def side(value: float, reference: float, scale: float) -> int:
    """+1 where ``value`` is above ``reference``, -1 below, 0 where they are equal but for rounding.

    Args:
        scale: a typical magnitude, such as the price, that the rounding is relative to.
    """
    difference = value - reference
    if abs(difference) <= TOLERANCE * abs(scale):
        return 0
    return 1 if difference > 0 else -1
