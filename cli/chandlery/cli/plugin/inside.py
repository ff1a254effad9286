"""``kubectl chandlery signals``, ``trace`` and ``debug``: signals and shared memory, read from within the workers' pods."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any, Final, TypeVar

import msgspec
import typer
from rich.console import Group
from rich.text import Text

from chandlery.cli.collecting import Collected, by_prefix
from chandlery.cli.plugin.asking import ask, pod_of, records_of_signal
from chandlery.cli.plugin.completion import complete_trader
from chandlery.cli.plugin.kubectl import ForbiddenError, Kubectl
from chandlery.cli.plugin.options import Form, Json, Output
from chandlery.cli.plugin.resources import fetch_items, fetch_status, find_trader
from chandlery.cli.screen import output, remarks
from chandlery.console.inside import rings_inside, segment_inside
from chandlery.console.model import signal_row
from chandlery.console.statuses import trader_state
from chandlery.console.tables import signals_table
from chandlery.console.waterfall import signal_waterfall
from chandlery.core.absence import Absence
from chandlery.core.errors import ChandleryError, InputError, UnavailableError
from chandlery.core.signal_life import SignalLife
from chandlery.core.signals import Signal, encode

Trader = Annotated[str, typer.Argument(help="[NAMESPACE/]TRADER", autocompletion=complete_trader)]
#: Topics read at once: each is a client of its own in another pod.
_AT_ONCE: Final = 8
Answer = TypeVar("Answer")
_ID_DIGITS: Final = frozenset("0123456789abcdef")
#: What the feeds look for, at least: see workers/feed/query.py.
_LEAST_DIGITS: Final = 6


class _Told(msgspec.Struct):
    """One element of ``GET /v1/signals``."""

    signal: Signal
    account: dict[str, Any] = {}


def signals(
    kubectl: Kubectl,
    traders: Annotated[
        list[str] | None,
        typer.Argument(help="Only of these Traders: [NAMESPACE/]TRADER.", autocompletion=complete_trader),
    ] = None,
    last: Annotated[int, typer.Option("--last", min=1, help="How many of the newest.")] = 20,
    form: Output = Form.table,
    json: Json = False,
) -> None:
    """The newest signals that workers have published, oldest first, with their ids and how long they took."""
    status, _ = fetch_status(kubectl, traders or [])
    wanted = {row.trader for row in status.traders}
    pods = {(row.pod_namespace, row.pod) for row in status.traders if row.pod}
    answers, failures = _of_each(sorted(pods), lambda namespace, pod: ask(kubectl, namespace, pod, "signals"))
    told = [one for answer in answers for one in msgspec.convert(answer["signals"], list[_Told])]
    newest = sorted((one for one in told if one.signal.trader in wanted), key=lambda one: one.signal.emitted_wall_ms)
    for failure in failures:
        remarks().print(f"left out: {failure}", style="yellow", markup=False)
    if json or form is Form.json:
        for one in newest[-last:]:
            print(encode(one.signal).decode())
    elif form is Form.name:
        for one in newest[-last:]:
            print(one.signal.id)
    elif newest:
        rows = (signal_row(one.signal, one.account.get("frame_to_signal_us")) for one in newest[-last:])
        output().print(signals_table(rows, wide=form is Form.wide))
    else:
        remarks().print("no signals yet")


def trace(
    kubectl: Kubectl,
    signal: Annotated[str, typer.Argument(help="The signal's id, or enough of its beginning.")],
    trader: Annotated[
        str,
        typer.Option(
            "--trader", help="Whose signal it is: only that Trader's feed is asked.", autocompletion=complete_trader
        ),
    ] = "",
    json: Json = False,
) -> None:
    """One signal's stages as a waterfall: where its time went, and by whose clock."""
    if not signal or not set(signal.lower()) <= _ID_DIGITS:
        raise InputError(f"{signal!r} is no signal's id: it has hexadecimal digits alone")
    if len(signal) < _LEAST_DIGITS:
        raise InputError(f"{signal!r} is the beginning of too many ids: give {_LEAST_DIGITS} digits or more")
    pods = [pod_of(trader_state(find_trader(kubectl, trader)))] if trader else _a_pod_of_each_feed(kubectl)
    where = "namespace " + kubectl.namespace if not kubectl.everywhere else "the cluster"
    if not pods:
        raise UnavailableError(f"no Trader of {where} runs in a pod, so there is no feed to ask; -A asks all")
    answers, failures = _of_each(pods, lambda namespace, pod: records_of_signal(kubectl, namespace, pod, signal))
    collected = Collected()
    for record in itertools.chain.from_iterable(answers):
        collected.add(record)
    for failure in failures:
        remarks().print(f"left out: {failure}", style="yellow", markup=False)
    listed = f"the feeds of {where} were asked; `kubectl chandlery signals` lists the newest"
    found = by_prefix(collected.signals.values(), signal, listed)
    if json:
        print(encode(found).decode())
    else:
        output().print(signal_waterfall(found, _told_of(collected, found.id)))


def _told_of(collected: Collected, identity: str) -> SignalLife | None:
    """What records of the signal itself tell of its life: whether another one closed it, they don't."""
    life = collected.lives.of(identity, now_ms=0)
    return None if life is None else life._replace(expires_ms=None)


def _of_each(
    pods: Sequence[tuple[str, str]], asked: Callable[[str, str], Answer]
) -> tuple[list[Answer], list[ChandleryError]]:
    """What each pod answers, and what those say that don't; the first such error is raised where none answers."""
    answers, failures = list[Answer](), list[ChandleryError]()
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        for one in [threads.submit(asked, *pod) for pod in pods]:
            try:
                answers.append(one.result())
            except ChandleryError as error:
                failures.append(error)
    if failures and not answers:
        raise failures[0]
    return answers, failures


def _a_pod_of_each_feed(kubectl: Kubectl) -> list[tuple[str, str]]:
    """One worker's pod for each MarketFeed of the Traders here: each reads its feed's whole topic."""
    rows = [
        trader_state(item) for item in fetch_items(kubectl, "traders", "" if kubectl.everywhere else kubectl.namespace)
    ]
    feeds: dict[str, tuple[str, str]] = {}
    pools = _feeds_of_pools(kubectl, {row.pool for row in rows if row.pod})
    for row in rows:
        if row.pod:
            feed = pools.get(row.pool, row.pool)
            # A Ready one is the likeliest to answer.
            if feed not in feeds or row.ready == "True":
                feeds[feed] = (row.pod_namespace, row.pod)
    return list(feeds.values())


def _feeds_of_pools(kubectl: Kubectl, pools: set[str]) -> dict[str, str]:
    """The feed of each pool; pools that may not be looked at are left out, and count as feeds of their own."""
    feeds: dict[str, str] = {}
    for namespace in sorted({pool.partition("/")[0] for pool in pools}):
        try:
            items = fetch_items(kubectl, "traderpools", namespace)
        except ForbiddenError:
            continue
        for item in items:
            feed = item["spec"]["feed"]
            feeds[f"{namespace}/{item['metadata']['name']}"] = f"{feed.get('namespace') or namespace}/{feed['name']}"
    return feeds


def segment(
    kubectl: Kubectl,
    trader: Trader,
    whole: Annotated[bool, typer.Option("--worker", help="All of its worker, not this Trader's part alone.")] = False,
    json: Json = False,
) -> None:
    """A Trader's part of its worker's segment: header, its series, doorbell, lapped counts, and its signal ring."""
    item = find_trader(kubectl, trader)
    row = trader_state(item)
    full, (namespace, pod) = row.trader, pod_of(row)
    told = ask(kubectl, namespace, pod, "segment", "rings")
    if json:
        print(msgspec.json.encode({"pod": f"{namespace}/{pod}", **told}).decode())
        return
    shown, rings = told["segment"], told["rings"]
    if not whole:
        shown, rings = part_of(shown, full, item["spec"]["market"]), {full: rings[full]} if full in rings else {}
    console = output()
    console.print(Text.assemble(("pod ", "bold"), f"{namespace}/{pod}"))
    console.print(Group(segment_inside(shown, rings, told["now_ns"]), Text(), rings_inside(rings)))
    if full not in told["rings"]:
        console.print(f"{full} has no signal ring in this pod", style="yellow", markup=False)


def rings(
    kubectl: Kubectl,
    trader: Trader,
    whole: Annotated[bool, typer.Option("--worker", help="All rings of its worker.")] = False,
    json: Json = False,
) -> None:
    """A Trader's signal ring: depth, in flight, blocked, positions, last error."""
    row = trader_state(find_trader(kubectl, trader))
    full, (namespace, pod) = row.trader, pod_of(row)
    told = ask(kubectl, namespace, pod, "rings")["rings"]
    mine = told if whole else {full: told[full]} if full in told else {}
    if not mine:
        raise UnavailableError(f"{full} has no signal ring in {namespace}/{pod}")
    if json:
        print(msgspec.json.encode(mine).decode())
    else:
        output().print(rings_inside(mine))


def part_of(segment: Mapping[str, Any], full: str, market: Mapping[str, Any]) -> dict[str, Any]:
    """The segment with the series and the reader of one Trader alone; how many series there are is told of all."""
    interval = market["interval"]
    own = {(symbol, interval) for symbol in market["symbols"]}
    wanted = own | {(one["symbol"], one["interval"]) for one in market.get("informative") or ()}
    there = {(row["symbol"], row["interval"]): row for row in segment.get("series", [])}
    absent = {
        f"{symbol} {by}": segment.get("absent", {}).get(f"{symbol} {by}")
        or f"the segment {Absence.among(symbol, by, there).told(informative=(symbol, by) not in own)}"
        for symbol, by in wanted - there.keys()
    }
    series = [row for name, row in there.items() if name in wanted]
    traders = {one: bell for one, bell in segment.get("traders", {}).items() if one == full}
    return {**segment, "series": series, "absent": absent, "traders": traders, "series_count": len(there)}
