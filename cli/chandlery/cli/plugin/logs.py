"""``kubectl chandlery logs``: one Trader's lines out of the log that all Traders of its worker write."""

from __future__ import annotations

import contextlib
import os
import select
import sys
import time
from collections import deque
from collections.abc import Iterator
from typing import Annotated, Final

import msgspec
import typer

from chandlery.cli.options import duration_ms
from chandlery.cli.plugin.asking import TRADERS, pod_of
from chandlery.cli.plugin.completion import complete_trader
from chandlery.cli.plugin.kubectl import ForbiddenError, Kubectl, NotFoundError
from chandlery.cli.plugin.loglines import LogLine, read_line
from chandlery.cli.plugin.options import Json
from chandlery.cli.plugin.resources import find_trader
from chandlery.cli.screen import output, remarks
from chandlery.console.statuses import trader_state
from chandlery.core.errors import ChandleryError, InputError, UnavailableError

#: A container that ended starts again within a second or later; a moved Trader's new pod is known as soon.
_AGAIN_S: Final = 1.0
#: Whether the Trader is still in the pod whose log is followed: a request of 0.1 s.
_STILL_THERE_S: Final = 5.0

Place = tuple[str, str]


def logs(
    kubectl: Kubectl,
    trader: Annotated[str, typer.Argument(help="[NAMESPACE/]TRADER", autocompletion=complete_trader)],
    follow: Annotated[
        bool, typer.Option("-f", "--follow", help="Go on as the log grows, also in another pod; Ctrl-C ends it.")
    ] = False,
    tail: Annotated[int, typer.Option("--tail", help="Only the last lines of this Trader; -1: all.")] = -1,
    previous: Annotated[
        bool, typer.Option("-p", "--previous", help="Of the container before, where it was started again.")
    ] = False,
    since: Annotated[
        str, typer.Option("--since", help="Only lines younger than this: 5m, 1h …", show_default=False)
    ] = "",
    worker: Annotated[bool, typer.Option("--worker", help="Every line of its worker, other Traders' too.")] = False,
    json: Json = False,
) -> None:
    """A Trader's own log lines and what its supervisor says of it, from its worker's traders container."""
    if follow and previous:
        raise InputError("--previous can't be followed: that container has ended")
    row = trader_state(find_trader(kubectl, trader))
    window: tuple[str, ...] = ("--previous",) if previous else ()
    if since:
        window += (f"--since={max(1, duration_ms('--since', since) // 1000)}s",)
    show = _Shower(json=json, whose=worker)
    wanted = "" if worker else row.trader
    namespace, pod = pod_of(row)
    last: deque[LogLine] = deque(maxlen=max(tail, 0))
    seen, any_wanted = "", False
    for line in _lines(kubectl, namespace, pod, wanted, *window):
        if line is None:
            continue
        seen = max(seen, line.stamp)
        if not line.is_wanted:
            continue
        any_wanted = True
        if tail < 0:
            show(line)
        else:
            last.append(line)
    for line in last:
        show(line)
    if follow:
        try:
            _follow(kubectl, row.trader, wanted, (namespace, pod), seen, show)
        except NotFoundError:
            remarks().print(f"{row.trader} was deleted", markup=False)
    elif not any_wanted:
        remarks().print(f"no lines of {row.trader} in {namespace}/{pod}", markup=False)


def _follow(kubectl: Kubectl, trader: str, wanted: str, place: Place, seen: str, show: _Shower) -> None:
    """Show new lines until the Trader is deleted; its pod may be replaced, and it may move."""
    told = ""
    while True:
        try:
            # The server cuts by whole seconds: what was shown of the last one is left out here.
            window = (f"--since-time={seen[:19]}{seen[29:]}",) if seen else ()
            for line in _lines(kubectl, *place, wanted, "--follow", *window, tick_s=_STILL_THERE_S):
                if line is None:
                    if _place_of(kubectl, trader) not in (place, None):
                        break  # it moved: this pod's log goes on without it
                    continue
                if line.stamp and line.stamp <= seen:
                    continue
                seen = line.stamp or seen
                if line.is_wanted:
                    show(line)
        except (ForbiddenError, NotFoundError):
            raise
        except ChandleryError as error:
            if str(error) != told:  # said once, not each second
                told = str(error)
                remarks().print(f"waiting: {told}", style="dim", markup=False)
        time.sleep(_AGAIN_S)
        now = _place_of(kubectl, trader)
        if now is not None and now != place:
            remarks().print(f"{trader} goes on in {'/'.join(now)}", style="dim", markup=False)
            place, seen = now, ""


def _place_of(kubectl: Kubectl, trader: str) -> Place | None:
    """The pod that runs a Trader; None: none does now, or that can't be known now.

    Raises:
        NotFoundError: the Trader is gone.
    """
    try:
        return pod_of(trader_state(find_trader(kubectl, trader)))
    except UnavailableError:
        return None


def _lines(
    kubectl: Kubectl, namespace: str, pod: str, wanted: str, *window: str, tick_s: float = float("inf")
) -> Iterator[LogLine | None]:
    """Lines of a worker's traders container.

    Args:
        wanted: the Trader whose lines are wanted; empty: all. tick_s: this often comes a None, whatever comes beside it.

    Raises:
        ForbiddenError: may not read that pod's log. UnavailableError: there is none now.
    """
    arguments = ("logs", "--namespace", namespace, pod, "--container", TRADERS, "--timestamps", *window)
    with kubectl.started(*arguments) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        for raw in _ticking(process.stdout.fileno(), tick_s):
            yield None if raw is None else read_line(raw.decode(errors="replace"), wanted)
        complaint = process.stderr.read().decode(errors="replace")
        code = process.wait()
    if code:
        error = kubectl.failure(complaint, code)
        if isinstance(error, ForbiddenError):
            raise ForbiddenError(
                f"reading the log of {namespace}/{pod} takes the right to get pods and pods/log in namespace {namespace} "
                f"(view has both): {error}"
            )
        if "previous terminated container" in complaint:
            raise UnavailableError(
                f"{namespace}/{pod}: its traders container was not started again: there is no log before"
            )
        raise UnavailableError(f"{namespace}/{pod}: {error}")


def _ticking(descriptor: int, tick_s: float) -> Iterator[bytes | None]:
    """Lines as they come, without their ends, and a None every ``tick_s``."""
    begun, next_s = b"", time.monotonic() + tick_s
    while True:
        left_s = next_s - time.monotonic()
        if left_s <= 0:
            next_s += tick_s
            yield None
            continue
        readable, _, _ = select.select([descriptor], [], [], None if left_s == float("inf") else left_s)
        if not readable:
            continue
        chunk = os.read(descriptor, 65_536)
        if not chunk:
            if begun:
                yield begun
            return
        *whole, begun = (begun + chunk).split(b"\n")
        yield from whole


class _Shower:
    """Prints lines: raw JSON, or in a form for people, in colours on terminals alone."""

    def __init__(self, *, json: bool, whose: bool) -> None:
        self._json = json
        self._whose = whose
        self._console = output()

    def __call__(self, line: LogLine) -> None:
        if self._json:
            raw = line.raw
            if not line.facts:
                raw = msgspec.json.encode({"time": line.stamp, "message": line.raw}).decode()
            sys.stdout.write(raw + "\n")
        else:
            self._console.print(line.text(whose=self._whose), soft_wrap=True)
        with contextlib.suppress(ValueError):
            sys.stdout.flush()
