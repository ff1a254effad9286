"""What a person sees of ``chandlery up``: progress of the start, the live view, or plain lines off terminals."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from types import TracebackType
from typing import Final

from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

from chandlery.console.lines import signal_line, trader_line, view_line
from chandlery.console.live import live_view, start_panel, summary_view
from chandlery.console.model import View
from chandlery.console.summary import Summary

_REDRAW_S: Final = 0.5
#: Off terminals: a line about everything this often.
_LINE_EVERY_S: Final = 5.0
#: The same words again are said after this long only (progress that counts).
_REPEAT_S: Final = 2.0


class Presenter:
    """Draws on stderr; stdout is left to programs."""

    def __init__(self, console: Console, *, view: bool) -> None:
        self._console = console
        self._interactive = console.is_terminal and view
        self._progress: Progress | None = None
        self._said = ("", 0.0)

    def say(self, line: str, fraction: float | None = None) -> None:
        """Tell what is being done."""
        if self._progress is not None:
            task = self._progress.tasks[0].id
            total = None if fraction is None else 1.0
            self._progress.update(task, description=line, completed=fraction or 0.0, total=total)
            return
        words, at = self._said
        if line != words or (fraction is not None and time.monotonic() - at > _REPEAT_S):
            self._said = (line, time.monotonic())
            done = f" ({fraction:.0%})" if fraction is not None and line == words else ""
            self.line(f"{line}{done}")

    def line(self, text: str | Text) -> None:
        """Print a line."""
        self._console.print(text, soft_wrap=True)

    def __enter__(self) -> Presenter:
        """Begin a stretch of work: on terminals a spinner shows what :meth:`say` tells."""
        if self._interactive:
            self._progress = Progress(
                SpinnerColumn(),
                TextColumn("{task.description}"),
                BarColumn(bar_width=24),
                TimeElapsedColumn(),
                console=self._console,
                transient=True,
            )
            self._progress.add_task("starting", total=None)
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def panel(self, view: View, commands: list[tuple[str, str]]) -> None:
        """The panel at the end of the start."""
        self._console.print(start_panel(view, commands))

    def summary(self, summary: Summary) -> None:
        """The run's summary."""
        self._console.print(summary_view(summary))

    async def show(self, view: Callable[[], View]) -> None:
        """Show the running instance until cancelled."""
        if self._interactive:
            await self._show_live(view)
        else:
            await self._show_lines(view)

    async def _show_live(self, view: Callable[[], View]) -> None:
        with Live(console=self._console, auto_refresh=False, transient=True, vertical_overflow="crop") as live:
            while True:
                live.update(live_view(view(), self._console.height, self._console.width), refresh=True)
                await asyncio.sleep(_REDRAW_S)

    async def _show_lines(self, view: Callable[[], View]) -> None:
        teller = LineTeller(self.line)
        while True:
            teller.tell(view(), time.monotonic())
            await asyncio.sleep(_REDRAW_S)


class LineTeller:
    """Tells in lines what changed: traders' states, notices, new signals; and now and then everything."""

    def __init__(self, line: Callable[[str | Text], None]) -> None:
        self._line = line
        self._traders: dict[str, str] = {}
        self._notices: list[str] = []
        self._signals: set[str] = set()
        self._last_s = float("-inf")

    def tell(self, view: View, now_s: float) -> None:
        """Tell what is new in a view."""
        traders = {row.trader: trader_line(row) for row in view.traders}
        for name, text in traders.items():
            if self._traders.get(name) != text:
                self._line(text)
        for name in self._traders.keys() - traders.keys():
            self._line(f"{name}: gone")
        self._traders = traders
        for notice in view.notices:
            if notice not in self._notices:
                self._line(f"! {notice}")
        self._notices = view.notices
        for signal in view.signals:
            if signal.id not in self._signals:
                self._line(signal_line(signal))
        self._signals = {signal.id for signal in view.signals}
        if now_s - self._last_s >= _LINE_EVERY_S:
            self._last_s = now_s
            self._line(view_line(view))
