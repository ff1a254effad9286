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

from chandlery.cli.collecting import Collected, Found, as_json, by_prefix, traced_as_json
from chandlery.cli.plugin.asking import ask, pod_of, records_of_signal
from chandlery.cli.plugin.completion import complete_trader
from chandlery.cli.plugin.kubectl import ForbiddenError, Kubectl
from chandlery.cli.plugin.options import Form, Json, Output
from chandlery.cli.plugin.resources import fetch_items, fetch_status, find_trader
from chandlery.cli.screen import output, remarks
from chandlery.console.inside import readers_of, rings_inside, segment_inside
from chandlery.console.model import SignalRow, signal_row
from chandlery.console.statuses import trader_state
from chandlery.console.tables import signals_table
from chandlery.console.waterfall import signal_waterfall
from chandlery.core.absence import Absence
from chandlery.core.errors import ChandleryError, InputError, UnavailableError
from chandlery.core.signal_life import Lives, SignalLife
from chandlery.core.signals import Life, Signal

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
    #: Missing: of a feed that doesn't tell it.
    word: Life | msgspec.UnsetType | None = msgspec.UNSET


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
    """The newest signals that workers have published, oldest first: their ids, how long they took, what became of them."""
    status, _ = fetch_status(kubectl, traders or [])
    wanted = {row.trader for row in status.traders}
    pods = {(row.pod_namespace, row.pod) for row in status.traders if row.pod}
    answers, failures = _of_each(sorted(pods), lambda namespace, pod: ask(kubectl, namespace, pod, "signals"))
    told = [one for one in _told_signals(answers) if one[0].signal.trader in wanted]
    newest = sorted(told, key=lambda one: one[0].signal.emitted_wall_ms)[-last:]
    for failure in failures:
        remarks().print(f"left out: {failure}", style="yellow", markup=False)
    if json or form is Form.json:
        for one, life in newest:
            print(as_json(Found(one.signal, life)))
    elif form is Form.name:
        for one, _ in newest:
            print(one.signal.id)
    elif newest:
        output().print(signals_table((_row(*one) for one in newest), wide=form is Form.wide))
    else:
        remarks().print("no signals yet")


def _told_signals(answers: Sequence[Mapping[str, Any]]) -> list[tuple[_Told, SignalLife | None]]:
    """The signals of all answers, with their lives as they were when asked: all that may have ended one is newer than it."""
    lives = Lives()
    told = [(answer.get("now_ms", 0), msgspec.convert(answer["signals"], list[_Told])) for answer in answers]
    for one in itertools.chain.from_iterable(ones for _, ones in told):
        lives.add(one.signal)
        if isinstance(one.word, Life):
            lives.add(one.word)
    return [
        (one, None if one.word is msgspec.UNSET else lives.of(one.signal.id, now_ms))
        for now_ms, ones in told
        for one in ones
    ]


def _row(told: _Told, life: SignalLife | None) -> SignalRow:
    return signal_row(told.signal, told.account.get("frame_to_signal_us"), "" if life is None else life.state)


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
    hosts = (collected.hosts.get(found.id, ""), collected.origins.get(found.id, ""))
    if json:
        # Without its life, of which another signal's records may tell more.
        print(traced_as_json(Found(found, None, *hosts)))
    else:
        output().print(signal_waterfall(found, _told_of(collected, found.id), *hosts))


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
        told["segment"]["readers"] = readers_of(told["segment"], told["rings"])
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
