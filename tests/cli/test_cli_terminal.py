"""What a person sees of ``chandlery up`` on a terminal, and that nothing of it gets into files."""

from __future__ import annotations

import asyncio
import contextlib
import io
import re
from collections.abc import Iterator
from typing import IO

import pytest
from tests.cli.terminal_screen import Terminal

from chandlery.cli.presenting import Presenter
from chandlery.cli.screen import remarks
from chandlery.console.model import FeedRow, SignalRow, TraderRow, View


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    """A terminal of 100 columns."""
    for name, value in {"TERM": "xterm-256color", "COLUMNS": "100", "LINES": "30"}.items():
        monkeypatch.setenv(name, value)
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    made = Terminal()
    yield made
    made.close()


def presenter_on(file: IO[str], *, view: bool = True) -> Presenter:
    """What `chandlery up` makes where its stderr is that file."""
    with contextlib.redirect_stderr(file):
        return Presenter(remarks(), view=view)


def view(state: str = "Active", notices: list[str] | None = None, signals: int = 0) -> View:
    feed = FeedRow("default/market", "synthetic", symbols=["BTC/USDT"], intervals=["1s"], connected=True)
    rows = [SignalRow(f"{n:032d}", "default/a", "buy", "BTC/USDT", "1s", f"{n}.5", 0) for n in range(signals)]
    traders = [TraderRow("default/a", state, ready=state == "Active"), TraderRow("default/b", "Active", ready=True)]
    return View(
        "r", "1", "/s", 1, 0, "running", feeds=[feed], traders=traders, signals=rows, notices=notices or []
    )  # fmt: skip


def test_the_start_is_one_line_that_moves_with_a_bar_and_is_gone_at_its_end(terminal: Terminal) -> None:
    presenter = presenter_on(terminal.file)
    presenter.line("before")
    # Spinner, what is done, bar, time passed.
    line = r"before\n\S {words} {bar} \d:\d\d:\d\d"

    def until_shown(words: str, bar: str) -> None:
        terminal.until(lambda screen: re.fullmatch(line.format(words=words, bar=bar), screen.text) is not None)

    with presenter:
        presenter.say("downloading Kafka", 0.0)
        until_shown("downloading Kafka", "━{24}")
        presenter.say("downloading Kafka", 0.4)
        until_shown("downloading Kafka", "━{9}[╸╺]━{14}")
        presenter.say("starting Kafka", None)
        until_shown("starting Kafka", "━{24}")
        terminal.until(lambda screen: not screen.cursor_shown)
        presenter.line("a remark in between stays")
    presenter.line("after")
    text = terminal.until(lambda screen: "after" in screen.text and screen.cursor_shown)
    assert text.splitlines() == ["before", "a remark in between stays", "after"]


async def test_the_live_view_is_drawn_over_itself_in_colours_and_is_gone_at_its_end(terminal: Terminal) -> None:
    shown = view()
    presenter = presenter_on(terminal.file)
    presenter.line("the panel")
    drawing = asyncio.create_task(presenter.show(lambda: shown))

    def until_shown(words: str) -> str:
        return terminal.until(lambda screen: words in screen.text)

    text = await asyncio.to_thread(until_shown, "no signals yet")
    assert "traders 2/2 ready" in text
    rows = [line.split()[:2] for line in text.splitlines() if re.match(r"default/\w ", line)]
    assert rows == [["default/a", "Active"], ["default/b", "Active"]]
    assert "default/market: connected" in text
    assert "Ctrl-C ends it" in text
    shown = view("Stalled", ["the manifests folder is gone"], signals=2)
    text = await asyncio.to_thread(until_shown, "the manifests folder is gone")
    assert "no signals yet" not in text
    assert "traders 1/2 ready" in text
    assert text.count("Ctrl-C ends it") == 1, "drawn over itself, not below"
    assert text.count("Stalled") == 1
    assert text.index("1.5") < text.index("0.5"), "the newest signal first"
    await asyncio.to_thread(terminal.until, lambda screen: "1;33" in screen.styles)  # the notice, bold and yellow
    drawing.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await drawing
    text = await asyncio.to_thread(terminal.until, lambda screen: screen.text == "the panel" and screen.cursor_shown)
    assert text == "the panel"


@pytest.mark.parametrize("wanted", [True, False])
async def test_nothing_is_coloured_nor_drawn_over_itself_where_it_goes_to_a_file(
    monkeypatch: pytest.MonkeyPatch, wanted: bool
) -> None:
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    file = io.StringIO()
    presenter = presenter_on(file, view=wanted)
    with presenter:
        presenter.say("starting Kafka", None)
    looks = asyncio.Event()

    def look() -> View:
        looks.set()
        return view("Stalled", ["the manifests folder is gone"], signals=1)

    presenter.panel(look(), [("chandlery get traders", "states")])
    looks.clear()
    drawing = asyncio.create_task(presenter.show(look))
    await looks.wait()
    drawing.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await drawing
    text = file.getvalue()
    assert "\x1b" not in text
    assert "\r" not in text
    assert text.startswith("starting Kafka\n")
    for told in ("chandlery is up", "default/a: Stalled", "! the manifests folder is gone", "0.5"):
        assert told in text


def test_who_asks_for_no_view_gets_lines_on_a_terminal_too(terminal: Terminal) -> None:
    presenter = presenter_on(terminal.file, view=False)
    with presenter:
        presenter.say("starting Kafka", None)
        presenter.say("Kafka serves", None)
    text = terminal.until(lambda screen: "serves" in screen.text and screen.text.endswith("serves"))
    assert text.splitlines() == ["starting Kafka", "Kafka serves"]
    terminal.until(lambda screen: screen.cursor_shown and not screen.styles)
