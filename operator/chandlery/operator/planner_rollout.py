"""How a Trader gets from one version or worker to the next: the phases, one step a plan. Pure.

1. A successor stands by, beside the old one or where it is to run.
2. It is warm: the old one is told to stop at candle T, the one after all that it has decided (event time).
3. The old one's process has taken that in: nothing later than what its status tells is decided there any more. If
   it had gone on past T meanwhile, T is after that. The successor decides from T on.
4. The old one has decided all that is before T on every symbol, and goes.

T is open time of a candle, never a time of day: a replayed market's candles are of another year.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Final

import msgspec

from chandlery.core.assignment import TraderAssignment
from chandlery.core.intervals import parse_interval
from chandlery.operator.planner_standing import (
    Entry,
    Standing,
    begins_ms,
    bounded,
    follows_ms,
    promoted,
)
from chandlery.operator.planner_types import Phase, Rollout

Placed = tuple[str, TraderAssignment]

#: Intervals from its bound on after which a Trader goes on without it: seconds suffice for its status and events to tell.
_BOUND_INTERVALS: Final = 10


@dataclass(frozen=True, slots=True)
class Step:
    """What a Trader's incarnations shall be next.

    Attributes:
        placed: worker and assignment of each, in the order in which they decide.
        rollout: the change under way, None: none. retires: the first of them is only waited for.
    """

    placed: list[Placed]
    rollout: Rollout | None = None
    retires: bool = False


def begins_beside(standing: Standing, wanted: TraderAssignment, digest: str, home: str) -> bool:
    """Whether the next step would be to start a successor in the very worker of what runs."""
    decider, successor = standing.decider, standing.successor
    return (
        decider is not None
        and decider.worker == home
        and (successor is None or successor.worker != home)
        and not _at_once(standing, wanted)
        and decider.digest != digest
    )


def stands_beside(standing: Standing, home: str) -> bool:
    """Whether a successor is in the very worker of what runs."""
    decider, successor = standing.decider, standing.successor
    return decider is not None and successor is not None and decider.worker == successor.worker == home


def next_step(
    standing: Standing,
    wanted: TraderAssignment,
    digest: str,
    home: str,
    *,
    incarnation: int,
    may_begin: bool = True,
    in_place: bool = False,
    overdue: bool = False,
) -> Step:
    """The next step of one Trader.

    Args:
        wanted: what it shall run; digest: of its content. home: name of the worker that shall run it.
        incarnation: the next one's number.
        may_begin: there is room for a successor now. in_place: there will never be, it has to take the old one's place.
        overdue: what is only waited for has had its time.
    """
    decider, successor = standing.decider, standing.successor
    fresh = msgspec.structs.replace(wanted, incarnation=incarnation)
    if decider is None:
        return Step([(home, fresh)])
    if successor is not None and successor.assignment.mode != "standby" and wanted.mode != "suspended":
        return _taking_over(decider, successor, wanted, digest, home, incarnation)
    if decider.digest == digest and decider.worker == home:
        return Step([(home, _kept(decider, wanted))])
    if _at_once(standing, wanted):
        if wanted.mode == "active" and decider.assignment.mode == "active":
            fresh.from_ms = follows_ms(decider, fresh.interval, digest)
        return Step([(home, fresh)])
    if successor is not None and successor.digest == digest and successor.worker == home:
        return _standing_by(decider, successor, wanted)
    if in_place:
        return _in_place(decider, fresh, home, overdue)
    running = bounded(decider, None).assignment
    is_move = decider.digest == digest
    if not may_begin and not (successor is not None and successor.worker == home):
        message = f"generation {wanted.generation} waits for room to roll out beside others on worker {home}"
        return Step([(decider.worker, running)], Rollout("Waiting", wanted.generation, message, is_move=is_move))
    fresh.mode = "standby"
    return Step([(decider.worker, running), (home, fresh)], _warming(decider, fresh, home, is_move))


def _at_once(standing: Standing, wanted: TraderAssignment) -> bool:
    """Whether nothing is lost where the old one simply ends."""
    decider = standing.decider
    assert decider is not None
    if "suspended" in (decider.assignment.mode, wanted.mode):
        return True
    # One that fails while its successor gets ready is waited for: the successor may never get there.
    is_no_loss = not decider.is_worth_keeping and standing.successor is None
    return is_no_loss or decider.lost


def _kept(entry: Entry, wanted: TraderAssignment) -> TraderAssignment:
    """What runs, as it is: a generation that changes nothing is only told.

    Once it decides well away from the bound where it began, that has done its part: in a replay's next run, whose times
    begin again, it would hold the Trader back where its pod has started anew. Until then it tells where it took over.
    """
    status, from_ms = entry.status, entry.assignment.from_ms
    if status is not None and status.state == "Active" and status.last_open_time_ms > 0:
        away_ms = abs(status.last_open_time_ms - from_ms)
        if away_ms >= _BOUND_INTERVALS * parse_interval(entry.assignment.interval).length_ms:
            from_ms = 0
    return msgspec.structs.replace(entry.assignment, generation=wanted.generation, from_ms=from_ms, until_ms=None)


def _standing_by(decider: Entry, successor: Entry, wanted: TraderAssignment) -> Step:
    is_move = decider.digest == successor.digest
    successor_now = msgspec.structs.replace(successor.assignment, generation=wanted.generation)
    told = decider.assignment.until_ms
    # An old one that isn't warm itself loses nothing to one that isn't either. One of whose symbols its source no longer has
    # one never has all its candles, and decides on the others: waited for, it would hold back its pool's roll for ever.
    needs_no_warmth = successor.lacks or decider.waits_for_history
    may_take_over = successor.is_warm or (successor.is_attached and needs_no_warmth)
    if not may_take_over or (told is None and decider.status is None):
        # One that was told to end goes on: nobody is there to follow it.
        return Step(
            [(decider.worker, bounded(decider, None).assignment), (successor.worker, successor_now)],
            _warming(decider, successor_now, successor.worker, is_move),
        )
    if told is None and (decider.is_about_to_begin or decider.is_coming_up):
        does = "takes over after its first candle"
        return Step(
            [(decider.worker, decider.assignment), (successor.worker, successor_now)],
            _change("HandingOver", does, decider, successor_now, successor.worker, is_move),
        )
    if told is None or not decider.is_bounded:
        until_ms = decider.decided_until_ms if told is None else told
        return Step(
            [(decider.worker, bounded(decider, until_ms).assignment), (successor.worker, successor_now)],
            _change("HandingOver", "takes over at the next candle", decider, successor_now, successor.worker, is_move),
        )
    # What it decided before it heard of the bound is in its status now, and it decides nothing else past the bound: the
    # successor may begin right after, even before the old one hears that the bound has moved.
    until_ms = max(told, decider.decided_until_ms)
    begins = promoted(successor, begins_ms(decider, successor_now.interval, until_ms)).assignment
    begins.generation = wanted.generation
    return Step(
        [(decider.worker, bounded(decider, until_ms).assignment), (successor.worker, begins)],
        _change("TakingOver", "has taken over", decider, begins, successor.worker, is_move),
        retires=True,
    )


def _taking_over(
    decider: Entry, successor: Entry, wanted: TraderAssignment, digest: str, home: str, incarnation: int
) -> Step:
    """The successor decides; another change waits until the old one is gone."""
    now, worker = successor.assignment, successor.worker
    if successor.digest == digest:
        now = msgspec.structs.replace(now, generation=wanted.generation)
    if successor.lost and home != worker:
        from_ms = follows_ms(successor, now.interval, successor.digest)
        now = msgspec.structs.replace(now, incarnation=incarnation, from_ms=from_ms)
        worker = home
    is_move = decider.digest == successor.digest
    return Step(
        [(decider.worker, decider.assignment), (worker, now)],
        _change("TakingOver", "has taken over", decider, now, worker, is_move),
        retires=True,
    )


def _in_place(decider: Entry, fresh: TraderAssignment, home: str, overdue: bool) -> Step:
    """Stop the old one at a candle, and start the new one in its place from there: nothing is missed but time."""
    told, due_ms = decider.assignment.until_ms, decider.decided_until_ms
    if told is None and decider.is_coming_up:
        message = (
            f"generation {fresh.generation} has no room beside generation {decider.assignment.generation}: it starts in its "
            f"place, when that has decided its first candle"
        )
        rollout = Rollout("HandingOver", fresh.generation, message, is_move=False)
        return Step([(decider.worker, decider.assignment)], rollout)
    if told is not None and decider.is_bounded and due_ms <= told and (decider.is_out or overdue):
        fresh.from_ms = begins_ms(decider, fresh.interval, told)
        return Step([(home, fresh)])
    until_ms = due_ms if told is None or decider.is_bounded else told
    old = bounded(decider, until_ms if told is None else max(told, until_ms)).assignment
    message = (
        f"generation {fresh.generation} has no room beside generation {old.generation}: it starts in its place, when "
        f"that has decided what is closed"
    )
    rollout = Rollout("HandingOver", fresh.generation, message, is_move=False)
    return Step([(decider.worker, old)], rollout, retires=told is not None)


def _warming(decider: Entry, successor: TraderAssignment, worker: str, is_move: bool) -> Rollout:
    return _change("Warming", "stands by until it is warm", decider, successor, worker, is_move)


def _change(
    phase: Phase, does: str, decider: Entry, successor: TraderAssignment, worker: str, is_move: bool
) -> Rollout:
    old = f"generation {decider.assignment.generation}"
    from_ms = successor.from_ms if successor.mode == "active" else 0
    if phase == "TakingOver":
        does += (f" from the candle of {candle_text(from_ms)} on" if from_ms else "") + f"; {old} ends"
    else:
        does += f"; {old} decides meanwhile"
    message = f"generation {successor.generation} on worker {worker} {does}"
    return Rollout(phase, successor.generation, message, successor.incarnation, worker, is_move, from_ms)


def candle_text(open_time_ms: int) -> str:
    """A candle's open time for a person: RFC 3339, UTC, whole seconds."""
    return dt.datetime.fromtimestamp(open_time_ms / 1000, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
