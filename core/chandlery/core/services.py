"""How a process of Chandlery lives: settings from one file, logs, a loop, and an end in order at SIGTERM or Ctrl-C."""

from __future__ import annotations

import argparse
import asyncio
import signal
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeVar

import msgspec

from chandlery.core.errors import ChandleryError
from chandlery.core.following import begin_again, stop_when_changed
from chandlery.core.logs import configure_logs
from chandlery.core.processes import die_with_parent
from chandlery.core.settings import read_settings

_ENDING: Final = (signal.SIGTERM, signal.SIGINT)

Settings = TypeVar("Settings", bound=msgspec.Struct)


def run_service(
    module: str,
    settings_type: type[Settings],
    serve: Callable[[Settings, asyncio.Event], Awaitable[None]],
    arguments: Sequence[str] | None = None,
    adopt: Callable[[Settings], Awaitable[bool]] | None = None,
) -> int:
    """Run ``python -m MODULE --config FILE [--follow]`` to its end.

    With ``--follow`` the process ends in order and begins again as itself (by exec) whenever its settings change, unless
    what runs takes them in.

    Args:
        module: full name; its last part names the component in logs.
        settings_type: what the file holds; its ``log_level`` counts.
        serve: does the work until the event is set (by SIGTERM or SIGINT), then ends in order.
        arguments: of the command line; absent: this process's.
        adopt: takes changed settings in while ``serve`` runs, or says False; absent: none can be.

    Returns:
        The exit code: 0 after an orderly end, else the error's.
    """
    die_with_parent()
    component = module.rpartition(".")[2]
    parser = argparse.ArgumentParser(prog=f"python -m {module}")
    parser.add_argument("--config", required=True, metavar="FILE", help=f"settings, JSON ({settings_type.__name__})")
    parser.add_argument("--follow", action="store_true", help="begin again whenever the settings file changes")
    options = parser.parse_args(arguments)
    log = configure_logs(component)
    try:
        settings = read_settings(options.config, settings_type)
        log = configure_logs(component, getattr(settings, "log_level", "info"))
        with asyncio.Runner(loop_factory=_quickest_loop()) as runner:
            again = runner.run(_until_told(settings, serve, options.config if options.follow else "", adopt))
    except ChandleryError as error:
        log.error(str(error))
        return error.exit_code
    if again:
        begin_again()
    return 0


async def _until_told(
    settings: Settings,
    serve: Callable[[Settings, asyncio.Event], Awaitable[None]],
    follow: str,
    adopt: Callable[[Settings], Awaitable[bool]] | None,
) -> bool:
    """Serve until a signal, or until the settings in ``follow`` change; returns whether to begin again."""
    stop, ending = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def told() -> None:
        ending.set()
        stop.set()

    for number in _ENDING:
        loop.add_signal_handler(number, told)
    # One that came while the process became itself anew has waited for this, see below.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING)
    following = asyncio.create_task(stop_when_changed(follow, settings, stop, adopt)) if follow else None
    try:
        await serve(settings, stop)
    finally:
        if following is not None:
            following.cancel()
    if following is None:
        return False
    # Between here and the handlers of the next beginning a signal would find nobody, or (as a container's first
    # process) be ignored: the mask outlives exec, and so does what waits behind it.
    signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
    await asyncio.sleep(0)  # one that came just before is told now
    again = stop.is_set() and not ending.is_set()
    if not again:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING)
    return again


def _quickest_loop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's where it is installed: appending a record to Kafka takes a third less CPU with it. Else asyncio's own."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop
