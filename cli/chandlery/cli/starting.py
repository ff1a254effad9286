"""``chandlery up`` and ``chandlery validate``."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import typer

from chandlery.cli.endings import ends_well
from chandlery.cli.options import DEFAULT_STATE, Json, Manifests, State, Strategies, duration_ms
from chandlery.cli.presenting import Presenter
from chandlery.cli.running import run_up
from chandlery.cli.runtime.catalogue import unusable_notice
from chandlery.cli.runtime.console_process import console_options
from chandlery.cli.runtime.desired import read_first, unchecked_notice, unchecked_traders
from chandlery.cli.runtime.metrics_ports import TARGETS, MetricsPorts
from chandlery.cli.runtime.options import UpOptions
from chandlery.cli.screen import remarks
from chandlery.core.errors import InputError, LoginError
from chandlery.core.kafka_login import login_of
from chandlery.core.settings import KafkaSecurity, parse_listen
from chandlery.core.transports import Transport
from chandlery.core.wording import shortened

_TRANSPORTS: dict[str, Transport] = {"shared": "SharedMemory", "pipe": "Pipe"}


def register(app: typer.Typer) -> None:
    """Add this module's verbs."""
    app.command("up")(ends_well(up))
    app.command("validate")(ends_well(validate))


def up(
    manifests: Manifests,
    state: State = DEFAULT_STATE,
    strategies: Strategies = None,
    kafka: Annotated[
        str | None, typer.Option("--kafka", metavar="HOST:PORT", help="Use this Kafka instead of starting one.")
    ] = None,
    kafka_config: Annotated[
        Path | None,
        typer.Option("--kafka-config", metavar="FILE", help="How that Kafka is entered: a Kafka client's properties."),
    ] = None,
    secrets: Annotated[
        Path | None,
        typer.Option("--secrets", metavar="DIR", help="Secrets that MarketFeeds name, as files DIR/SECRET/KEY."),
    ] = None,
    port: Annotated[int | None, typer.Option("--port", min=1, max=65_535, help="Port of the embedded Kafka.")] = None,
    transport: Annotated[
        str | None,
        typer.Option("--transport", metavar="shared|pipe", help="How candles reach traders, whatever manifests say."),
    ] = None,
    speed: Annotated[
        str | None, typer.Option("--speed", metavar="N|max", help="Speed of replays, instead of the manifest's.")
    ] = None,
    run_for: Annotated[
        str | None, typer.Option("--for", metavar="60s", help="End after this long, with a summary and a verdict.")
    ] = None,
    until_end: Annotated[bool, typer.Option("--until-end", help="End when every replay has ended.")] = False,
    metrics_port: Annotated[
        int | None,
        typer.Option("--metrics-port", min=1024, max=65_000, help="Figures for Prometheus: first port, one a process."),
    ] = None,
    console: Annotated[
        str | None,
        typer.Option(
            "--console",
            metavar="HOST:PORT|off",
            help="Where REST API and console are; by default the first free port of 127.0.0.1 from 8420 to 8439.",
            show_default=False,
        ),
    ] = None,
    console_token_file: Annotated[
        Path | None,
        typer.Option("--console-token-file", metavar="FILE", help="Who looks there needs the token in this file."),
    ] = None,
    trace_url: Annotated[
        str,
        typer.Option(
            "--trace-url", metavar="URL", help="Where the console's links to traces lead; {trace_id} is put in."
        ),
    ] = "",
    json: Json = False,
    view: Annotated[bool, typer.Option("--view/--no-view", help="The live view, on terminals.")] = True,
    log_level: Annotated[str, typer.Option("--log-level", help="debug, info, warning or error.")] = "info",
) -> int:
    """Run manifests on this machine: broker, ingest, aggregator, feeds, traders and console, until Ctrl-C.

    The folders are watched: a manifest that is added, edited or deleted takes effect within a second.
    """
    options = UpOptions(
        manifests=tuple(map(str, manifests)),
        state=state,
        strategies=strategies,
        kafka=_address(kafka),
        kafka_config=_kafka_config(kafka_config, kafka),
        secrets=secrets.absolute() if secrets is not None else None,
        port=_port(port, kafka),
        transport=_transport(transport),
        speed=_speed(speed),
        run_for_s=duration_ms("--for", run_for) / 1000 if run_for is not None else None,
        until_end=until_end,
        log_level=_level(log_level),
        metrics=MetricsPorts(metrics_port, state / TARGETS) if metrics_port is not None else None,
        console=console_options(console, console_token_file, trace_url),
    )
    return asyncio.run(run_up(options, Presenter(remarks(), view=view), json=json))


def validate(manifests: Manifests, strategies: Strategies = None, json: Json = False) -> None:
    """Check manifests as `up` would, without starting anything. Exit code 2: there is a problem."""

    def say(text: str) -> None:
        sys.stderr.write(f"chandlery: {text}\n")

    wanted, catalogue = asyncio.run(read_first(tuple(map(str, manifests)), strategies, say))
    if unusable := catalogue.unusable():
        say(unusable_notice(strategies, unusable))
    read = wanted.manifests
    unchecked = unchecked_traders(read, catalogue)
    for trader in unchecked:
        say(unchecked_notice(trader))
    found = {"feeds": len(read.feeds), "pools": len(read.pools), "traders": len(read.traders)}
    if json:
        print(msgspec.json.encode({**found, "unchecked": [trader.full_name for trader in unchecked]}).decode())
    else:
        verdict = f"no problem found, {len(unchecked)} not wholly checked" if unchecked else "all is well"
        print(", ".join(f"{number} {kind}" for kind, number in found.items()) + f": {verdict}")


def _address(text: str | None) -> str | None:
    if text is not None and not all(map(_is_host_and_port, text.split(","))):
        raise InputError(f"--kafka {shortened(text)}: write host:port")
    return text


def _is_host_and_port(text: str) -> bool:
    try:
        address = parse_listen(text)
    except InputError:
        return False
    # To be reached, unlike one to listen on, takes a host and a port.
    return not isinstance(address, str) and all(address) and not any(map(str.isspace, text))


def _port(port: int | None, kafka: str | None) -> int | None:
    if port is not None and kafka is not None:
        raise InputError(
            "--port is of the Kafka that is started here, and --kafka names another: leave one of them out"
        )
    return port


def _kafka_config(path: Path | None, kafka: str | None) -> Path | None:
    if path is None:
        return None
    if kafka is None:
        raise InputError("--kafka-config says how a Kafka is entered: name it by --kafka HOST:PORT")
    try:
        login_of(KafkaSecurity(properties=str(path.absolute()))).current()
    except LoginError as error:
        raise InputError(f"--kafka-config: {error}") from error
    return path.absolute()


def _transport(text: str | None) -> Transport | None:
    if text is None:
        return None
    if text not in _TRANSPORTS:
        raise InputError(f"--transport {text!r}: write shared or pipe")
    return _TRANSPORTS[text]


def _speed(text: str | None) -> float | Literal["max"] | None:
    if text is None:
        return None
    if text == "max":
        return "max"
    try:
        speed = float(text)
    except ValueError:
        speed = 0.0
    if not 0 < speed <= 1e6:
        raise InputError(f"--speed {text!r}: write a number above 0 (1 is real time), or max")
    return speed


def _level(text: str) -> str:
    if text not in ("debug", "info", "warning", "error"):
        raise InputError(f"--log-level {text!r}: write debug, info, warning or error")
    return text
