"""``kubectl chandlery status``."""

from __future__ import annotations

import time
from typing import Annotated, Final

import msgspec
import typer

from chandlery.cli.endings import FAILED
from chandlery.cli.options import duration_ms
from chandlery.cli.plugin.completion import complete_trader
from chandlery.cli.plugin.kubectl import Kubectl
from chandlery.cli.plugin.options import Form, Json, Output
from chandlery.cli.plugin.resources import fetch_status
from chandlery.cli.screen import output, remarks
from chandlery.console.cluster import ClusterStatus, status_view
from chandlery.core.errors import UnavailableError

#: Three requests of 0.1 s each, and nothing that hurries.
_LOOK_S: Final = 1.0


def status(
    kubectl: Kubectl,
    traders: Annotated[
        list[str] | None,
        typer.Argument(help="Only these Traders: [NAMESPACE/]TRADER.", autocompletion=complete_trader),
    ] = None,
    form: Output = Form.table,
    json: Json = False,
    exit_code: Annotated[
        bool, typer.Option("--exit-code", help="Exit with 1 unless all is Ready (or suspended, as somebody wanted).")
    ] = False,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait until all is Ready; exit with 1 if it isn't within --timeout.")
    ] = False,
    timeout: Annotated[str, typer.Option("--timeout", help="How long --wait waits: 90s, 5m …")] = "5m",
) -> int:
    """Feeds, pools and Traders: what is Ready, what runs where, and what to do about the rest."""
    deadline = time.monotonic() + duration_ms("--timeout", timeout) / 1000
    seen, unseen = _look(kubectl, traders or [])
    while wait and not seen.ready and time.monotonic() < deadline:
        time.sleep(_LOOK_S)
        try:
            seen, unseen = _look(kubectl, traders or [])
        except UnavailableError as error:
            # An API server that is being updated is away for a moment: that is what waiting is for.
            if time.monotonic() >= deadline:
                raise
            remarks().print(f"waiting: {error}", style="dim", markup=False)
    _print(seen, Form.json if json else form, kubectl)
    for line in unseen:
        remarks().print(f"left out: {line}", style="yellow", markup=False)
    return FAILED if (wait or exit_code) and not seen.ready else 0


def _look(kubectl: Kubectl, names: list[str]) -> tuple[ClusterStatus, list[str]]:
    return fetch_status(kubectl, names)


def _print(seen: ClusterStatus, form: Form, kubectl: Kubectl) -> None:
    if form is Form.json:
        print(msgspec.json.format(msgspec.json.encode(seen), indent=2).decode())
    elif form is Form.name:
        for feed in seen.feeds:
            print(f"marketfeed/{feed.feed}")
        for pool in seen.pools:
            print(f"traderpool/{pool.pool}")
        for trader in seen.traders:
            print(f"trader/{trader.trader}")
    elif not (seen.feeds or seen.pools or seen.traders):
        where = "the cluster" if kubectl.everywhere else f"namespace {kubectl.namespace}"
        remarks().print(f"nothing of Chandlery in {where}" + ("" if kubectl.everywhere else "; -A looks everywhere"))
    else:
        output().print(status_view(seen, wide=form is Form.wide))
