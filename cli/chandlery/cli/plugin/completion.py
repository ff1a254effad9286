"""Shell completion: ``kubectl chandlery status sm<TAB>``.

kubectl asks an executable ``kubectl_complete-PLUGIN`` on the PATH, with the words typed so far, the last of them
unfinished; it answers as Cobra's ``__complete`` does: a proposal a line, a tab, its description, and a directive.
"""

from __future__ import annotations

import contextlib
import io
import os
import shlex
import sys
from typing import Final

import typer
from typer.completion import get_completion_inspect_parameters

from chandlery.cli.plugin.kubectl import Kubectl
from chandlery.cli.plugin.options import flags_given
from chandlery.cli.plugin.resources import fetch_items
from chandlery.core.errors import ChandleryError

#: Cobra's ShellCompDirectiveNoFileComp: propose no files.
_NO_FILES: Final = 4
_PROGRAM: Final = "kubectl-chandlery"


def complete_trader(ctx: typer.Context, incomplete: str) -> list[str]:
    """Names of the Traders in the namespace meant; none where they can't be had: a shell shows no errors."""
    given = ctx.params
    kubectl = Kubectl(given.get("namespace") or "", bool(given.get("all_namespaces")), flags_given(given))
    namespace, slash, _ = incomplete.rpartition("/")
    try:
        items = fetch_items(kubectl, "traders", namespace or ("" if kubectl.everywhere else kubectl.namespace))
    except ChandleryError:
        return []
    in_full = bool(slash) or kubectl.everywhere
    names = (
        f"{item['metadata']['namespace']}/{item['metadata']['name']}" if in_full else item["metadata"]["name"]
        for item in items
    )
    return [name for name in names if name.startswith(incomplete)]


def answer(words: list[str]) -> None:
    """Print what kubectl is answered for these words, by Typer's own way of completing for a shell."""
    from chandlery.cli.plugin.app import app

    *before, incomplete = words or [""]
    typed = " ".join([_PROGRAM, *map(shlex.quote, before), shlex.quote(incomplete) if incomplete else ""])
    # fish is the shell whose answers look as Cobra's: the proposal, a tab, its description.
    os.environ.update(
        {f"_{_PROGRAM}_COMPLETE".replace("-", "_").upper(): "complete_fish"},
        _TYPER_COMPLETE_ARGS=typed,
        _TYPER_COMPLETE_FISH_ACTION="get-args",
    )
    get_completion_inspect_parameters()  # has Typer know the shells, which an app without --install-completion doesn't
    told = io.StringIO()
    with contextlib.redirect_stdout(told), contextlib.suppress(SystemExit):
        app(prog_name=_PROGRAM, args=[])
    print("\n".join([*filter(None, told.getvalue().splitlines()), f":{_NO_FILES}"]))


def main() -> None:
    """Entry point of ``kubectl_complete-chandlery``."""
    answer(sys.argv[1:])
