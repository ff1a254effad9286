"""What ``chandlery perf compare`` was asked for: its options read and checked. Pure but for a look at the plot's folder."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final, get_args

from chandlery.core.assignment import Trigger
from chandlery.core.errors import InputError
from chandlery.core.wording import shortened

#: A worker takes 256 Traders; more than this many processes on one machine say nothing but how they wait for each other.
MOST_TRADERS: Final = 100
MOST_SIZES: Final = 8
LEAST_SECONDS, MOST_SECONDS = 2, 120
#: Trades a second and symbol: beyond it the market's own parts would be what is measured.
MOST_RATE: Final = 500
MOST_SYMBOLS: Final = 64


@dataclass(frozen=True)
class Asked:
    """A comparison.

    Attributes:
        traders: numbers of traders to measure, in the order given. seconds: of each measurement.
        rate: trades a second of each symbol. symbols: how many; each Trader decides on all of them.
        plot: SVG file to write; None: none.
    """

    traders: tuple[int, ...]
    seconds: int
    rate: float
    symbols: int
    trigger: Trigger
    plot: Path | None = None


def read_asked(*, traders: str, seconds: str, rate: str, symbols: str, trigger: str, plot: Path | None = None) -> Asked:
    """Check the options, as they were typed.

    Raises:
        InputError: names the option, its value and what to write instead.
    """
    triggers = get_args(Trigger)
    named = next((one for one in triggers if one.lower() == trigger.lower()), None)
    if named is None:
        raise InputError(f"--trigger {trigger!r}: write {' or '.join(triggers)}")
    return Asked(
        _sizes(traders),
        _within("--seconds", seconds, LEAST_SECONDS, MOST_SECONDS, "seconds of each measurement"),
        _rate(rate),
        _within("--symbols", symbols, 1, MOST_SYMBOLS, "symbols"),
        named,
        _plot(plot),
    )


def _whole(text: str) -> int:
    """A whole number as typed; -1 for what is none (or far above all that is asked for)."""
    return int(text) if re.fullmatch("[0-9]{1,9}", text.strip()) else -1


def _within(option: str, text: str, least: int, most: int, what: str) -> int:
    value = _whole(text)
    if not least <= value <= most:
        raise InputError(f"{option} {shortened(text)}: write a whole number from {least} to {most} ({what})")
    return value


def _rate(text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = 0.0
    if not 0 < rate <= MOST_RATE:
        raise InputError(
            f"--rate {shortened(text)}: write a number above 0, at most {MOST_RATE} (trades a second and symbol)"
        )
    return rate


def _sizes(text: str) -> tuple[int, ...]:
    wanted = f"write numbers from 1 to {MOST_TRADERS}, such as 5,10,20,50"
    sizes: list[int] = []
    for word in text.split(","):
        if not word.strip():
            where = "there is no number" if not text.strip() else "a comma has no number beside it"
            raise InputError(f"--traders {shortened(text)}: {where}; {wanted}")
        if not 1 <= _whole(word) <= MOST_TRADERS:
            raise InputError(f"--traders {shortened(text)}: {shortened(word.strip())} won't do; {wanted}")
        sizes.append(_whole(word))
    if len(set(sizes)) < len(sizes):
        raise InputError(f"--traders {shortened(text)}: one number stands there twice; {wanted}")
    if len(sizes) > MOST_SIZES:
        raise InputError(f"--traders {shortened(text)}: {len(sizes)} numbers; write {MOST_SIZES} at most")
    return tuple(sizes)


def _plot(path: Path | None) -> Path | None:
    """Where it can't be written is known before minutes are spent on what it would show."""
    if path is None:
        return None
    if path.suffix.lower() != ".svg":
        raise InputError(f"--plot {str(path)!r}: SVG is what is written; write a name that ends in .svg")
    folder = path.absolute().parent
    if not folder.is_dir():
        raise InputError(f"--plot {str(path)!r}: there is no folder {folder}; make it, or name another")
    if path.is_dir() or not os.access(path if path.exists() else folder, os.W_OK):
        raise InputError(f"--plot {str(path)!r}: can't be written; name another file")
    return path
