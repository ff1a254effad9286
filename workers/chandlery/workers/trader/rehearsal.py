"""Silent calls that bring a strategy's state to where it was before a candle."""

from __future__ import annotations

from collections.abc import Iterable

from chandlery.workers.candles import Candles
from chandlery.workers.trader.caller import Caller
from chandlery.workers.trader.market import SeriesView
from chandlery.workers.trader.symbol_run import SymbolRun


def rehearse(
    caller: Caller, run: SymbolRun, view: SeriesView, ordinal: int, *, length: int, signalled_from_ms: int
) -> bool:
    """Bring state and cooldowns to where they were before the row ``ordinal``, without signals.

    Args:
        length: rows to go back. signalled_from_ms: decisions on candles that opened before this were no signals, and
            cool nothing down.

    Returns:
        False when the market got another source meanwhile: the rest of the rows is there, and all is to be done anew.
    """
    for earlier in range(max(view.first() + run.need - 1, ordinal - length, run.need - 1), ordinal):
        window = view.window(earlier + 1, run.need)
        if len(window.open_time) < run.need or window.session != run.session:
            continue
        outcome = caller.call(run, Candles(window), forming=False, wait=False)
        open_time_ms = int(window.open_time[-1])
        if not (view.valid(window) and outcome.holds()):
            if not (view.alive and outcome.lives()):
                run.forget_state()
                return False
            continue
        run.strategy = outcome.strategy
        if run.resumed and signalled_from_ms <= open_time_ms <= run.after_ms:
            for decision in outcome.decisions:
                if run.cooldown.admits(decision.rule, open_time_ms):
                    run.cooldown.note(decision.rule, open_time_ms)
    run.rehearsed = True
    return True


def try_out(caller: Caller, runs: Iterable[SymbolRun], memory: int) -> None:
    """Call who stands by once on the newest candles, as soon as they are enough: who raises shall not take over.

    Nothing comes of the calls: whoever begins to decide starts over.
    """
    for run in runs:
        view = run.view
        if run.tried or view is None or view.count - view.first() < run.need:
            continue
        count = view.count
        for at in range(max(view.first() + run.need, count - max(memory, 1) + 1, run.need), count + 1):
            window = view.window(at, run.need)
            if len(window.open_time) >= run.need:
                run.strategy = caller.call(run, Candles(window), forming=False, wait=False).strategy
                run.tried = True
