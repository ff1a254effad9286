"""The ``chandlery`` command: its verbs in one place."""

from __future__ import annotations

import typer

from chandlery.cli import debugging, getting, listing_logs, performing, signalling, starting

app = typer.Typer(
    name="chandlery",
    help="One market feed, many traders, every microsecond explained.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for part in (starting, getting, signalling, debugging, performing, listing_logs):
    part.register(app)
