"""The ``kubectl chandlery`` command: its verbs in one place."""

from __future__ import annotations

import typer

from chandlery.cli.endings import ends_well, run
from chandlery.cli.plugin import deciding, inside
from chandlery.cli.plugin.logs import logs
from chandlery.cli.plugin.options import on_cluster
from chandlery.cli.plugin.status import status
from chandlery.cli.plugin.top import top
from chandlery.cli.runtime.version import own_version


def version() -> None:
    """Print the version."""
    print(f"chandlery {own_version()}")


app = typer.Typer(
    name="kubectl chandlery",
    help="Chandlery on Kubernetes: what runs, how fast, and why not. Flags as kubectl has them.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,  # kubectl asks in its own way: completion.py
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("status")(on_cluster(status, lists=True))
app.command("top")(on_cluster(top, lists=True))
app.command("signals")(on_cluster(inside.signals, lists=True))
app.command("trace")(on_cluster(inside.trace, lists=True))
app.command("logs")(on_cluster(logs))
app.command("approve")(on_cluster(deciding.approve))
app.command("suspend")(on_cluster(deciding.suspend))
app.command("resume")(on_cluster(deciding.resume))
debug = typer.Typer(help="Shared memory and signal rings from inside a Trader's worker.", no_args_is_help=True)
debug.command("segment")(on_cluster(inside.segment))
debug.command("signals")(on_cluster(inside.rings))
app.add_typer(debug, name="debug")
app.command("version")(ends_well(version))


def main() -> None:
    """Entry point of ``kubectl-chandlery``; see ``chandlery.cli.endings`` for the exit codes."""
    run(app, "kubectl chandlery")
