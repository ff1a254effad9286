"""``kubectl chandlery approve``, ``suspend`` and ``resume``: a person's decisions about a Trader."""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec
import typer

from chandlery.cli.plugin.changes import changes_of
from chandlery.cli.plugin.completion import complete_trader
from chandlery.cli.plugin.kubectl import ChangedError, Kubectl, Object
from chandlery.cli.plugin.options import Json
from chandlery.cli.plugin.resources import find_trader
from chandlery.cli.screen import output, remarks
from chandlery.console.cluster import UNSEEN, TraderState
from chandlery.console.statuses import kept_by, trader_state
from chandlery.core.errors import InputError
from chandlery.core.resources.trader import APPROVE_ANNOTATION, CHANGED_IN_PLACE, OF_ITS_POOL

Trader = Annotated[str, typer.Argument(help="[NAMESPACE/]TRADER", autocompletion=complete_trader)]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Have the API server check it, and change nothing.")]

#: The operator writes a status now and then: between reading and patching, rarely twice.
_ATTEMPTS: Final = 5


def approve(
    kubectl: Kubectl,
    trader: Trader,
    generation: Annotated[
        int | None,
        typer.Option("--generation", help="Approve this one if it is the newest, whether or not it waits yet."),
    ] = None,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Let a Trader's waiting change (rollout: Manual) run: the generation that is there now, and no later one."""
    item = find_trader(kubectl, trader)
    wanted = _approvable(item, generation)
    before = trader_state(item)
    if _annotations(item).get(APPROVE_ANNOTATION) == str(wanted):
        _tell(json, dry_run, before, f"generation {wanted} of {before.trader} was approved before", approved=wanted)
        return

    def check(now: Object) -> None:
        if int(now["metadata"]["generation"]) != wanted:
            raise InputError(
                f"{before.trader} was changed meanwhile: generation {now['metadata']['generation']} is the newest, "
                f"not {wanted}; nothing is approved: look at it again"
            )

    changes = changes_of(kubectl, item, before)  # before the operator replaces what runs
    _patched(kubectl, item, {"metadata": {"annotations": {APPROVE_ANNOTATION: str(wanted)}}}, check, dry_run=dry_run)
    instead = f" in place of generation {before.running_generation}" if before.running_generation else ""
    what = "".join(f"\n  {change}" for change in changes) if changes else f" {_what(item)}"
    told = f"approved generation {wanted} of {before.trader}{instead}:{what}"
    _tell(json, dry_run, before, told, approved=wanted, changes=changes)


def suspend(kubectl: Kubectl, trader: Trader, dry_run: DryRun = False, json: Json = False) -> None:
    """Have a Trader keep its place and decide nothing (spec.suspend: true)."""
    _set_suspend(kubectl, trader, True, dry_run=dry_run, json=json)


def resume(kubectl: Kubectl, trader: Trader, dry_run: DryRun = False, json: Json = False) -> None:
    """Have a suspended Trader decide again (spec.suspend: false)."""
    _set_suspend(kubectl, trader, False, dry_run=dry_run, json=json)


def _approvable(item: Object, asked: int | None) -> int:
    """The generation to approve.

    Raises:
        InputError: nothing waits that an approval would let run, or another generation than the one asked for is the
            newest.
    """
    row = trader_state(item)
    if row.rollout != "Manual":
        raise InputError(f"{row.trader} has rollout: {row.rollout}: its changes run without approval")
    if row.reason == "AwaitingApproval" and CHANGED_IN_PLACE in row.message:
        raise InputError(f"nothing of {row.trader} can be approved as it is: {row.message}")
    if asked is not None:
        if asked != row.generation:
            raise InputError(f"the newest generation of {row.trader} is {row.generation}, not {asked}")
        return asked
    if row.reason == UNSEEN:
        raise InputError(
            f"{row.trader}: {row.message}, so nothing is known to wait; "
            f"--generation {row.generation} approves it all the same"
        )
    if row.reason != "AwaitingApproval":
        runs = f"generation {row.running_generation} runs" if row.running_generation else "none runs"
        raise InputError(
            f"nothing of {row.trader} waits for approval: {runs}, {row.generation} is the newest, Ready is {row.ready} "
            f"({row.reason})"
        )
    return row.generation


def _set_suspend(kubectl: Kubectl, name: str, wanted: bool, *, dry_run: bool, json: bool) -> None:
    item = find_trader(kubectl, name)
    row = trader_state(item)
    done = "suspended" if wanted else "resumed"
    if bool(item["spec"].get("suspend", False)) == wanted:
        already = f"{row.trader} is suspended already" if wanted else f"{row.trader} is not suspended"
        already += "" if wanted else _with_its_pool(row)
        _tell(json, dry_run, row, already, suspend=wanted)
        return
    _patched(kubectl, item, {"spec": {"suspend": wanted}}, lambda _now: None, dry_run=dry_run)
    told = f"{done} {row.trader}"
    if not wanted and row.rollout == "Manual":
        told += " (suspending and resuming need no approval)"
    if not wanted:
        told += _with_its_pool(row)
    _tell(json, dry_run, row, told, suspend=wanted)
    if keeper := kept_by(item):
        remarks().print(
            f"{keeper} applies this Trader from a repository and may set spec.suspend back at its next sync: "
            "change it there too, or have it left alone (docs/gitops.md)",
            style="yellow", markup=False,
        )  # fmt: skip


def _with_its_pool(row: TraderState) -> str:
    """That a Trader which isn't suspended itself decides nothing all the same; empty: it does."""
    # Its reason may be why its newest version doesn't run.
    if OF_ITS_POOL not in row.message:
        return ""
    return f", but decides nothing as long as its TraderPool {row.pool} is suspended (spec.suspend)"


def _patched(kubectl: Kubectl, item: Object, body: Object, check: Any, *, dry_run: bool) -> Object:
    """Patch on the version that was looked at; where only its status moved on meanwhile, look and patch again."""
    meta = item["metadata"]
    namespace, name, uid = meta["namespace"], meta["name"], meta["uid"]
    for attempt in range(_ATTEMPTS):
        check(item)
        if item["metadata"]["uid"] != uid:
            raise InputError(f"{namespace}/{name} was deleted and made anew meanwhile: look at it again")
        precondition = {
            "metadata": {**body.get("metadata", {}), "resourceVersion": item["metadata"]["resourceVersion"]}
        }
        try:
            return kubectl.patch("traders.chandlery.dev", namespace, name, {**body, **precondition}, dry_run=dry_run)
        except ChangedError:
            if attempt + 1 == _ATTEMPTS:
                raise
            item = find_trader(kubectl, f"{namespace}/{name}")
    raise AssertionError("the last attempt returns or raises")


def _annotations(item: Object) -> dict[str, str]:
    return item["metadata"].get("annotations") or {}


def _what(item: Object) -> str:
    """``sma-cross {"fast": 5} on BTC/USDT 1m``."""
    spec = item["spec"]
    strategy, market = spec.get("strategy", {}), spec.get("market", {})
    parameters = strategy.get("parameters")
    shown = f" {msgspec.json.encode(parameters).decode()[:200]}" if parameters else ""
    source = strategy.get("source", {}).get("configMapRef", {}).get("name", "")
    return (
        f"{strategy.get('name', '')}{f' of ConfigMap {source}' if source else ''}{shown} on "
        f"{', '.join(market.get('symbols', ()))} {market.get('interval', '')}"
    )


def _tell(json: bool, dry_run: bool, row: TraderState, text: str, **facts: object) -> None:
    if json:
        told = {"trader": row.trader, "generation": row.generation, **facts, "dryRun": dry_run, "message": text}
        print(msgspec.json.encode(told).decode())
    else:
        output().print(("dry run: " if dry_run else "") + text, markup=False)
