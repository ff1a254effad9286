"""One signal's latency account as a waterfall in the terminal."""

from __future__ import annotations

from typing import Final

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from chandlery.console.amounts import duration_us, timestamp
from chandlery.console.tables import figures_table
from chandlery.core.latency import Account, TimedStage, account, clock_name, short_host, timeline
from chandlery.core.signal_life import SignalLife
from chandlery.core.signals import Signal
from chandlery.core.wording import printable

_BAR: Final = 40
_FEWEST_BARS: Final = 8
#: Fewer characters of "what happens" tell nothing.
_FEWEST_WORDS: Final = 24
#: Between columns.
_GAP: Final = 2


def signal_waterfall(
    signal: Signal, life: SignalLife | None = None, host: str = "", origin: str = ""
) -> RenderableType:
    """What the signal says, what became of it, its stages as bars over time, and what its clocks are worth.

    Args:
        host, origin: of its completion.
    """
    told = account(signal.stamps)
    return Group(_headline(signal, life), _Stages(told, host), *_remarks(told, short_host(origin)))


def _headline(signal: Signal, life: SignalLife | None) -> Table:
    candle = f"{signal.symbol} {signal.interval} opened {timestamp(signal.open_time_ms)}"
    rows = [
        ("signal", signal.id),
        ("trader", f"{signal.trader} ({signal.strategy}, rule {signal.rule}, incarnation {signal.incarnation})"),
        ("says", f"{signal.action} at {signal.price}, strength {signal.strength:g}: {printable(signal.reason)}"),
        ("candle", candle + (" (still forming then)" if signal.forming else "")),
        ("emitted", timestamp(signal.emitted_wall_ms)),
    ]
    if life is not None:
        rows.append(("life", "\n".join(life_lines(life))))
    return figures_table(rows)


def life_lines(life: SignalLife) -> list[str]:
    """A signal's life, a line a state."""
    lines = [f"{step.state} {timestamp(step.at_ms)}" for step in life.steps]
    if life.ended_by:
        lines[-1] += f", by {life.ended_by}"
    if life.expires_ms is not None:
        lines.append(f"expires {timestamp(life.expires_ms)}, if nothing ends it before")
    return lines


class _Stages:
    """The stages as a table that fits: first the words go, as far as they must, then the bars."""

    def __init__(self, told: Account, host: str) -> None:
        self._told = told
        self._host = host

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        rest = Measurement.get(console, options, _table(self._told, self._host, 0, 0)).maximum
        room = options.max_width - rest - 2 * _GAP  # columns are kept apart, the bars' from the words' too
        bars = min(_BAR, room) if room >= _FEWEST_BARS else 0
        yield _table(self._told, self._host, bars, max(room - bars, 0))


def _table(told: Account, host: str, bars: int, words: int) -> Table:
    """The stages with bars and words of these widths; 0: without."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, _GAP, 0, 0))
    for name in ("STAGE", "START", "LENGTH", "SHARE", "CLOCK"):
        table.add_column(name, justify="right" if name in ("START", "LENGTH", "SHARE") else "left", no_wrap=True)
    if bars:
        table.add_column("", no_wrap=True)
    if words >= _FEWEST_WORDS:
        table.add_column("WHAT", overflow="ellipsis", no_wrap=True, style="dim", max_width=words)
    for stage in timeline(told, host):
        shown: list[RenderableType] = [
            stage.name,
            duration_us(stage.start_us),
            _length(stage),
            f"{stage.share:.0%}",
            stage.clock_name,
        ]
        if bars:
            shown.append(bar(stage.start_us, stage.duration_us, told.whole_us, bars))
        if words >= _FEWEST_WORDS:
            shown.append(stage.meaning)
        table.add_row(*shown)
    table.add_row(Text("whole", style="bold"), "", Text(duration_us(told.whole_us), style="bold"))
    return table


def _length(stage: TimedStage) -> str:
    # An uncertainty that the shown digits hide anyway would only be noise.
    if stage.uncertainty_us < 0.5 or stage.uncertainty_us * 50 < stage.duration_us:
        return duration_us(stage.duration_us)
    return f"{duration_us(stage.duration_us)} ± {duration_us(stage.uncertainty_us)}"


def bar(start_us: float, length_us: float, whole_us: float, width: int = _BAR) -> Text:
    """A stage as a bar at its place in time; the shortest still shows as one thin mark."""
    begin = min(int(_share(start_us, whole_us) * width), width - 1)
    cells = min(max(1, round(_share(length_us, whole_us) * width)), width - begin)
    mark = "█" if length_us * width >= whole_us else "▏"
    return Text(" " * begin + mark * cells + " " * (width - begin - cells), style="cyan")


def _share(part: float, whole: float) -> float:
    return part / whole if whole > 0 else 0.0


def _remarks(told: Account, origin: str) -> list[Text]:
    lines: list[str] = []
    if origin:
        lines.append(f"begins with the frame received, by {clock_name(origin, 'monotonic')}")
    if told.frame_to_signal_us is not None:
        lines.append(f"frame to acknowledged signal: {duration_us(told.frame_to_signal_us)}")
    if told.visible_to_decided_us is not None:
        lines.append(f"visible in the segment to decided: {duration_us(told.visible_to_decided_us)}")
    if told.skew_us is not None:
        lines.append(
            f"exchange to frame: {duration_us(told.skew_us)} by two wall clocks (network and clock difference "
            "together, so not a stage)"
        )
    if told.transit_us is not None:
        lines.append(
            f"of that, more than the quickest frame of the last minutes took: {duration_us(told.transit_us)} "
            f"± {duration_us(told.transit_uncertainty_us)}"
        )
    if told.recorded_skew_us is not None:
        lines.append(
            f"replay: when captured, the frame's receive clock read {duration_us(told.recorded_skew_us)} "
            "after the exchange's stamp (kept apart, no stage)"
        )
    if told.corrected:
        lines.append(f"{told.corrected} stamp(s) contradicted their neighbours and were moved; see ± above")
    if not told.stages:
        lines.append("no stamps: this signal came without a latency account")
    return [Text(line, style="dim") for line in lines]
