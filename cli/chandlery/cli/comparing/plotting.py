"""A comparison as an SVG: a panel for each figure, readable on light and dark grounds. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Final
from xml.sax.saxutils import escape

from chandlery.cli.comparing.result import TRANSPORTS, Comparison, Measured, Size
from chandlery.cli.comparing.showing import CHARTS, WORDS

_WIDTH, _HEIGHT = 900, 620
_PANEL_W, _PANEL_H = 420, 250
#: Left, right, above and below the bars of a panel.
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 12, 40, 34
_HEAD: Final = 74

_STYLE: Final = """
svg { background: var(--ground); --ground: #ffffff; --ink: #1d232a; --faint: #68727d; --line: #d9dee3;
  --shared: #0b7a5c; --pipe: #c2570c; font-family: system-ui, sans-serif; }
@media (prefers-color-scheme: dark) {
  svg { --ground: #14181c; --ink: #e6eaee; --faint: #9aa5b1; --line: #343c44; --shared: #3ecf9f; --pipe: #ff9b52; }
}
text { fill: var(--ink); font-size: 12px; } .faint { fill: var(--faint); } .title { font-size: 14px; font-weight: 600; }
.head { font-size: 18px; font-weight: 600; } .line { stroke: var(--line); stroke-width: 1; }
.shared { fill: var(--shared); } .pipe { fill: var(--pipe); }
"""
_CLASSES: Final = {"SharedMemory": "shared", "Pipe": "pipe"}


def svg_of(found: Comparison) -> str:
    """The whole picture."""
    of = found.conditions
    told = (
        f"{of.symbols} symbols at 1s, {of.rate:g} trades a second each, {of.trigger}, window of {of.window} candles; "
    )
    told += f"{found.machine.cores} cores, Linux {found.machine.kernel}; chandlery {found.version}"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" height="{_HEIGHT}" '
        f'role="img" aria-label="{escape("Shared memory and pipes compared: " + found.advice, {chr(34): "&quot;"})}">',
        f"<style>{_STYLE}</style>",
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" style="fill: var(--ground)"/>',
        _text(20, 30, "Shared memory and pipes, by number of traders", "head"),
        _text(20, 50, told, "faint"),
    ]
    at = _WIDTH - 220
    for transport in TRANSPORTS:
        parts.append(f'<rect class="{_CLASSES[transport]}" x="{at}" y="20" width="12" height="12"/>')
        parts.append(_text(at + 18, 30, WORDS[transport]))
        at += 130
    for number, (title, value_of, in_words) in enumerate(CHARTS):
        x, y = 20 + number % 2 * (_PANEL_W + 20), _HEAD + number // 2 * (_PANEL_H + 20)
        parts += _panel(x, y, title, found.sizes, value_of, in_words)
    return "\n".join([*parts, "</svg>", ""])


def _panel(
    x: float,
    y: float,
    title: str,
    sizes: Sequence[Size],
    value_of: Callable[[Measured], float | None],
    in_words: Callable[[float], str],
) -> Iterator[str]:
    yield _text(x, y + 16, title, "title")
    values = [value_of(one.by_transport[each]) for one in sizes for each in TRANSPORTS]
    most = max((value for value in values if value is not None), default=0.0)
    if most <= 0:
        yield _text(x + _LEFT, y + 60, "nothing was measured", "faint")
        return
    left, right, top, bottom = x + _LEFT, x + _PANEL_W - _RIGHT, y + _TOP, y + _PANEL_H - _BOTTOM
    step = _round_step(most / 4)
    steps = math.ceil(most / step)
    for line in range(steps + 1):
        at = bottom - (bottom - top) * line / steps
        yield f'<line class="line" x1="{left:g}" y1="{at:.1f}" x2="{right:g}" y2="{at:.1f}"/>'
        yield _text(left - 6, at + 4, in_words(line * step) if line else "0", "faint", "end")
    room = (right - left) / len(sizes)
    width = min(42.0, room * 0.36)
    for number, one in enumerate(sizes):
        middle = left + room * (number + 0.5)
        for transport, begin in zip(TRANSPORTS, (middle - width - 1, middle + 1), strict=True):
            value = value_of(one.by_transport[transport])
            if value is None:
                continue
            high = (bottom - top) * value / (step * steps)
            shown = f"{one.traders} on {WORDS[transport]}: {in_words(value)}"
            yield (
                f'<rect class="{_CLASSES[transport]}" x="{begin:.1f}" y="{bottom - high:.1f}" width="{width:.1f}" '
                f'height="{high:.1f}"><title>{escape(shown)}</title></rect>'
            )
        yield _text(middle, bottom + 18, f"{one.traders}", "faint", "middle")
    yield _text(left - 6, bottom + 18, "traders", "faint", "end")


def _round_step(least: float) -> float:
    """The next of 1, 2, 2.5, 5, 10 … that is at least so much."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(power * by for by in (1, 2, 2.5, 5, 10) if power * by >= least * 0.999)


def _text(x: float, y: float, words: str, kind: str = "", anchor: str = "start") -> str:
    style = f' class="{kind}"' if kind else ""
    return f'<text{style} x="{x:g}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'
