"""``chandlery perf``."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Annotated

import typer

from chandlery.cli.comparing.asked import Asked, read_asked
from chandlery.cli.comparing.plotting import svg_of
from chandlery.cli.comparing.result import Comparison, encode_comparison
from chandlery.cli.comparing.running import compare as compared
from chandlery.cli.comparing.running import expected_s
from chandlery.cli.comparing.showing import comparison_view
from chandlery.cli.endings import FAILED, ends_well
from chandlery.cli.options import Json
from chandlery.cli.presenting import Presenter
from chandlery.cli.running import Interrupts
from chandlery.cli.screen import output, remarks
from chandlery.core.errors import MachineError


def register(app: typer.Typer) -> None:
    """Add this module's verbs."""
    perf = typer.Typer(help="What things cost on this machine, measured.", no_args_is_help=True)
    # A group of one verb would be taken for the verb itself.
    perf.callback()(_group)
    perf.command("compare")(ends_well(compare))
    app.add_typer(perf, name="perf")


def _group() -> None:
    """What things cost on this machine, measured."""


def compare(
    traders: Annotated[
        str, typer.Option("--traders", metavar="N,N,…", help="How many traders; each number is measured by itself.")
    ] = "5,10,20,50",
    seconds: Annotated[str, typer.Option("--seconds", metavar="N", help="Length of each measurement.")] = "8",
    rate: Annotated[str, typer.Option("--rate", metavar="N", help="Trades a second of each symbol.")] = "20",
    symbols: Annotated[
        str, typer.Option("--symbols", metavar="N", help="Symbols; every trader decides on all of them.")
    ] = "10",
    trigger: Annotated[
        str, typer.Option("--trigger", metavar="CandleClose|EveryUpdate", help="When traders decide.")
    ] = "CandleClose",
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE.svg", help="Draw the comparison into this file too.")
    ] = None,
    json: Json = False,
) -> int:
    """Compare the ways candles reach traders: shared memory against pipes, over the same feed.

    Runs a made-up market with a Kafka of its own in a temporary folder: each number of traders on shared memory and on
    pipes in turns, then a few side by side. With the defaults that takes two to four minutes.
    """
    asked = read_asked(traders=traders, seconds=seconds, rate=rate, symbols=symbols, trigger=trigger, plot=plot)
    found = asyncio.run(_compare(asked))
    if isinstance(found, int):
        return found
    if json:
        print(encode_comparison(found).decode())
    else:
        output().print(comparison_view(found))
    if plot is not None:
        _draw(found, plot)
    return FAILED if found.problems else 0


async def _compare(asked: Asked) -> Comparison | int:
    interrupts = Interrupts()
    interrupts.listen()
    presenter = Presenter(remarks(), view=True)
    began_s = time.monotonic()
    presenter.line(f"about {expected_s(asked) / 60:.1f} minutes; Ctrl-C ends it and leaves nothing")
    with presenter:
        found = await compared(asked, presenter.say, interrupts.asked)
    presenter.line(f"took {time.monotonic() - began_s:.0f} s")
    return found


def _draw(found: Comparison, plot: Path) -> None:
    try:
        plot.write_text(svg_of(found), encoding="utf-8")
    except OSError as error:
        raise MachineError(f"--plot {str(plot)!r}: {error.strerror or error}") from error
    remarks().print(f"drawn into {plot}", soft_wrap=True)
