"""``chandlery debug`` and ``chandlery doctor``."""

from __future__ import annotations

import time
from typing import Annotated, Any

import msgspec
import typer

from chandlery.cli import doctor as machine
from chandlery.cli.endings import ends_well
from chandlery.cli.instance import ask_process, current_view, feed_process
from chandlery.cli.options import DEFAULT_STATE, Json, State
from chandlery.cli.screen import output
from chandlery.console.inside import readers_of, rings_inside, segment_inside

Worker = Annotated[str | None, typer.Argument(help="Worker, such as quants-0; may be left out if there is one.")]


def register(app: typer.Typer) -> None:
    """Add this module's verbs."""
    debug = typer.Typer(help="Shared memory and signal rings from inside.", no_args_is_help=True)
    debug.command("segment")(ends_well(segment))
    debug.command("signals")(ends_well(signals))
    app.add_typer(debug, name="debug")
    app.command("doctor")(ends_well(doctor))


def segment(worker: Worker = None, json: Json = False, state: State = DEFAULT_STATE) -> None:
    """A worker's segment: header, series, fill, revisions, doorbells, readers, lapped counts."""
    process = feed_process(current_view(state), worker)
    told, rings = _object(ask_process(process, "/v1/segment")), _object(ask_process(process, "/v1/rings"))
    if json:
        print(msgspec.json.encode({**told, "readers": readers_of(told, rings)}).decode())
        return
    output().print(segment_inside(told, rings, time.monotonic_ns()))


def signals(worker: Worker = None, json: Json = False, state: State = DEFAULT_STATE) -> None:
    """A worker's signal rings: depth, in flight, blocked, positions, last errors."""
    body = ask_process(feed_process(current_view(state), worker), "/v1/rings")
    if json:
        print(body.decode())
        return
    output().print(rings_inside(_object(body)))


def doctor(
    port: Annotated[
        list[int] | None, typer.Option("--port", min=1, max=65_535, help="Port that must be free; may be repeated.")
    ] = None,
    json: Json = False,
    state: State = DEFAULT_STATE,
) -> int:
    """Check this machine: shared memory, futex, memory, Java, Kafka, ports; says what to do."""
    checks = machine.examine(state, port or [])
    print(machine.render(checks, json))
    return machine.exit_code(checks)


def _object(body: bytes) -> dict[str, Any]:
    return msgspec.json.decode(body, type=dict[str, Any])
