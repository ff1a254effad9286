"""What ``chandlery up`` tells off terminals."""

from __future__ import annotations

import io

from rich.console import Console
from rich.text import Text

from chandlery.cli.presenting import LineTeller, Presenter
from chandlery.console.model import SignalRow, TraderRow, View


def view(state: str = "Active", notices: list[str] | None = None, signals: int = 0) -> View:
    rows = [SignalRow(f"{n:032d}", "default/a", "buy", "BTC/USDT", "1s", "1.5", 0) for n in range(signals)]
    return View(
        "r", "1", "/s", 1, 0, traders=[TraderRow("default/a", state)], signals=rows, notices=notices or []
    )  # fmt: skip


def told(teller_input: list[tuple[View, float]]) -> list[list[str]]:
    """Lines told for each view in turn."""
    lines: list[str] = []
    teller = LineTeller(lambda text: lines.append(text.plain if isinstance(text, Text) else text))
    said: list[list[str]] = []
    for one, now_s in teller_input:
        teller.tell(one, now_s)
        said.append(list(lines))
        lines.clear()
    return said


def test_a_trader_is_told_of_when_its_state_changes_and_when_it_goes() -> None:
    empty = View("r", "1", "/s", 1, 0)
    first, same, changed, gone = told([(view(), 0.0), (view(), 1.0), (view("Stalled"), 2.0), (empty, 3.0)])
    assert "default/a: Active" in first
    assert same == []
    assert changed == ["default/a: Stalled"]
    assert gone == ["default/a: gone"]


def test_notices_and_signals_are_told_once() -> None:
    first, same, more = told([(view(notices=["x is missing"], signals=1), 0.0), (view(notices=["x is missing"], signals=1), 1.0), (view(signals=3), 2.0)])  # fmt: skip
    assert "! x is missing" in first
    assert same == []
    assert len(more) == 2


def test_everything_is_told_in_a_line_now_and_then() -> None:
    counts = [sum(line.startswith("traders:") for line in lines) for lines in told([(view(), s) for s in (0.0, 1.0, 4.9, 5.0, 9.0, 10.0)])]  # fmt: skip
    assert counts == [1, 0, 0, 1, 0, 1]


def test_progress_off_terminals_is_plain_lines_without_repetition() -> None:
    out = io.StringIO()
    presenter = Presenter(Console(file=out, width=80), view=True)
    with presenter:
        presenter.say("starting Kafka", None)
        presenter.say("starting Kafka", None)
        presenter.say("downloading", 0.1)
        presenter.say("downloading", 0.2)
        presenter.say("done", 1.0)
    assert out.getvalue().splitlines() == ["starting Kafka", "downloading", "done"]


def test_a_long_line_is_not_wrapped_off_terminals() -> None:
    out = io.StringIO()
    Presenter(Console(file=out, width=40), view=True).line("x" * 100)
    assert out.getvalue() == "x" * 100 + "\n"
