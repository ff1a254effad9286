"""One ``chandlery up`` from start to end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shlex
import signal
import sys
import time
from typing import Final

from chandlery.cli.calling import own_command
from chandlery.cli.endings import FAILED, INTERRUPTED
from chandlery.cli.presenting import Presenter
from chandlery.cli.runtime.catalogue import Catalogue
from chandlery.cli.runtime.counting import summarise
from chandlery.cli.runtime.desired import Wanted, read_first, unchecked_notice, unchecked_traders
from chandlery.cli.runtime.ending import end_in_order
from chandlery.cli.runtime.importer import look
from chandlery.cli.runtime.local import LocalRuntime
from chandlery.cli.runtime.options import UpOptions
from chandlery.cli.runtime.recent import RecentSignals
from chandlery.cli.runtime.viewing import Viewer
from chandlery.console.summary import Summary, encode_summary

log = logging.getLogger("chandlery.up")

_LOOK_S: Final = 0.1


class Interrupts:
    """Ctrl-C, SIGTERM and SIGHUP: the first asks for an orderly end, a second for one at once."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.at_once = asyncio.Event()

    def listen(self) -> None:
        """Take the signals."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self._take)

    def _take(self) -> None:
        (self.at_once if self.asked.is_set() else self.asked).set()


async def run_up(options: UpOptions, presenter: Presenter, *, json: bool) -> int:
    """Run until the end that was asked for.

    Returns:
        The exit code.

    Raises:
        ChandleryError: wrong input (then nothing was started), or it can't start.
    """
    interrupts = Interrupts()
    interrupts.listen()
    seen = look(options.strategies)
    read = await _read(options, presenter, interrupts)
    if read is None:
        return INTERRUPTED
    wanted, catalogue = read
    for trader in unchecked_traders(wanted.manifests, catalogue):
        presenter.line(unchecked_notice(trader))
    runtime = LocalRuntime(options, wanted, catalogue, presenter.say, seen=seen)
    work = asyncio.create_task(_work(runtime, presenter, interrupts), name="up")
    hard = asyncio.create_task(interrupts.at_once.wait())
    await asyncio.wait({work, hard}, return_when=asyncio.FIRST_COMPLETED)
    hard.cancel()
    if not work.done():
        presenter.line("ending at once")
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
        await runtime.abort()
        return INTERRUPTED
    summary = work.result()
    if summary is None:
        return INTERRUPTED
    presenter.summary(summary)
    if json:
        sys.stdout.write(encode_summary(summary).decode() + "\n")
    return verdict(options, summary)


async def _read(options: UpOptions, presenter: Presenter, interrupts: Interrupts) -> tuple[Wanted, Catalogue] | None:
    """Manifests and strategies; None: a person ends it before. A strategy that never returns would hold that up, too."""
    reading = asyncio.create_task(read_first(options.manifests, options.strategies, presenter.line), name="read")
    asked = asyncio.create_task(interrupts.asked.wait(), name="interrupts")
    try:
        await asyncio.wait({reading, asked}, return_when=asyncio.FIRST_COMPLETED)
        return None if interrupts.asked.is_set() else reading.result()
    finally:
        reading.cancel()
        asked.cancel()
        await asyncio.gather(reading, asked, return_exceptions=True)


def verdict(options: UpOptions, summary: Summary) -> int:
    """The exit code of a run that ended in order: one that was to end by itself is judged, one that a person ends isn't."""
    judged = options.run_for_s is not None or options.until_end
    return FAILED if summary.problems and judged else 0


async def _work(runtime: LocalRuntime, presenter: Presenter, interrupts: Interrupts) -> Summary | None:
    recent = RecentSignals()
    viewer = Viewer(runtime, recent)
    try:
        with presenter:
            if not await _started(runtime, viewer, interrupts):
                await runtime.abort()
                return None
    except BaseException:
        await runtime.abort()
        raise
    presenter.panel(viewer.view(), _next_commands(runtime.options))
    began = time.monotonic()
    beside = [
        asyncio.create_task(recent.follow(runtime.workers.values), name="newest signals"),
        asyncio.create_task(viewer.lagging.follow(runtime), name="what lags"),
        asyncio.create_task(presenter.show(viewer.view), name="display"),
    ]
    for task in beside:
        task.add_done_callback(runtime.note_end)
    try:
        await _until_end(runtime, interrupts)
    finally:
        for task in beside:
            task.cancel()
        await asyncio.gather(*beside, return_exceptions=True)
    with presenter:
        return summarise(await end_in_order(runtime, viewer, time.monotonic() - began, presenter.say))


async def _started(runtime: LocalRuntime, viewer: Viewer, interrupts: Interrupts) -> bool:
    """Start; returns False when an end was asked for meanwhile."""
    start = asyncio.create_task(runtime.start(viewer.view, viewer.written, viewer.wrong), name="start")
    asked = asyncio.create_task(interrupts.asked.wait())
    try:
        await asyncio.wait({start, asked}, return_when=asyncio.FIRST_COMPLETED)
        if start.done():
            start.result()
            return True
    finally:
        asked.cancel()
        start.cancel()
    # Not awaited itself: that a second Ctrl-C ends this very task would be taken for the start's end.
    await asyncio.wait([start])
    if not start.cancelled() and (error := start.exception()) is not None:
        log.info("the start ended otherwise than it was asked to", extra={"problem": str(error)})
    return False


async def _until_end(runtime: LocalRuntime, interrupts: Interrupts) -> None:
    """Wait for whatever ends the run: a signal, the time, the end of every replay."""
    options = runtime.options
    deadline = time.monotonic() + options.run_for_s if options.run_for_s is not None else float("inf")
    while not interrupts.asked.is_set() and time.monotonic() < deadline:
        if options.until_end and _all_finished(runtime):
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(_LOOK_S, max(0.0, deadline - time.monotonic()))):
                await interrupts.asked.wait()


def _all_finished(runtime: LocalRuntime) -> bool:
    groups = list(runtime.feeds.values())
    # One that can't use its files never gets to their end: that is the run's problem, and no reason to wait for it. Once
    # they are mended there is an end to wait for again.
    return bool(groups) and all(group.finished or group.is_hopeless for group in groups)


def _next_commands(options: UpOptions) -> list[tuple[str, str]]:
    state = "" if str(options.state) == ".chandlery" else f" --state {shlex.quote(str(options.state))}"
    command = own_command()
    return [
        (f"{command} get traders{state}", "what runs, its state and why"),
        (f"{command} signals --follow{state}", "signals as they come"),
        (f"{command} trace SIGNAL{state}", "where one signal's time went"),
        ("Ctrl-C", "ends everything in order"),
    ]
