"""Where a Trader stands: its incarnations as assigned and as their workers tell of them. Pure.

At most two incarnations of a Trader are kept: the one that decides, and its successor, which stands by until it takes
over. Which of a change's phases a Trader is in follows from assignments and workers' answers alone, so whoever plans
next goes on where the last one stopped.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Final

import msgspec

from chandlery.core.assignment import READY_STATES, Mode, TraderAssignment, TraderStatus, WorkerStatus, encode
from chandlery.core.errors import InputError
from chandlery.core.intervals import parse_interval
from chandlery.core.manifests import Key
from chandlery.operator.planner_types import Current, Delays, Desired, Failed, WorkerNow

#: A successor that ended this often before it took over has failed: once is a busy machine, twice may be.
MOST_ATTEMPTS: Final = 3
_WARM: Final = frozenset({"Warm", "Active", "Blocked"})


@dataclass(frozen=True, slots=True)
class Entry:
    """One incarnation, in one worker.

    Attributes:
        digest: of its content, see :func:`content_digest`.
        status: what its worker tells of this very incarnation; None: nothing.
        lost: its worker is not Ready for too long.
        acknowledged: every process of the worker has taken its newest assignment, which this entry is from.
        ready: the worker is Ready.
        heard: the worker has its newest assignment, which not every process need have taken yet.
        may_have_run: it has been Ready since it was made, and doesn't say that it was never assigned anything.
        comes_up_until_ms: until then its worker's pod counts as new; 0: it isn't, or isn't Ready.
        lacks: the feed's source says that it doesn't have one of its symbols: what starts now decides on the others alone.
    """

    pool: Key
    worker: str
    assignment: TraderAssignment
    digest: str
    status: TraderStatus | None = None
    lost: bool = False
    ready: bool = False
    acknowledged: bool = False
    heard: bool = False
    may_have_run: bool = False
    comes_up_until_ms: int = 0
    lacks: bool = False

    @property
    def is_worth_keeping(self) -> bool:
        """Whether it runs, has run or may be about to: while it restarts it is still what one can go back to."""
        return self.may_have_run and self.failure() is None

    @property
    def is_bounded(self) -> bool:
        """Whether its process has taken in the end that it has been given: it decides nothing there or later."""
        if self.assignment.until_ms is None:
            return False
        # Said of the one Trader; the whole assignment waits for others that may only be starting.
        taken = self.status is not None and self.status.until_ms == self.assignment.until_ms
        return (self.heard and taken) or self.acknowledged

    @property
    def is_out(self) -> bool:
        """Whether it decides nothing, and won't again by itself."""
        if self.status is None:
            return self.acknowledged
        if self.status.state == "Retired":
            return self.is_bounded
        return self.status.state in ("Stalled", "Suspended") and self.acknowledged

    @property
    def is_warm(self) -> bool:
        """Whether it could decide now; what is told of a worker that isn't Ready is of before."""
        return self.ready and self.status is not None and self.status.state in _WARM

    @property
    def is_attached(self) -> bool:
        """Whether its process is there, warm or not."""
        return self.ready and self.status is not None and self.status.state in READY_STATES

    @property
    def waits_for_history(self) -> bool:
        """Whether it has decided nothing yet, and can't before it is warm (or may not, by the end it was given)."""
        status = self.status
        return status is not None and status.state in ("Ready", "Retired") and not status.last_open_time_ms

    @property
    def is_about_to_begin(self) -> bool:
        """Whether it is to decide its first candle within a minute: before that nobody can say where it ends."""
        status = self.status
        begun = status is not None and status.state in ("Active", "Blocked")
        return begun and not self.decided_until_ms and parse_interval(self.assignment.interval).length_ms <= 60_000

    @property
    def is_coming_up(self) -> bool:
        """Whether it may still find candles that are due to it by ``since_ms``: in a new pod, whose feed may be reading
        history. Where it ends can't be said before; the interval doesn't matter, as they have closed already.
        """
        owns = self.comes_up_until_ms > 0 and self.assignment.mode == "active" and self.assignment.since_ms > 0
        return owns and self.status is not None and not self.decided_until_ms and self.failure() is None

    @property
    def decided_until_ms(self) -> int:
        """Open time of the first candle after all that it is known to have decided; 0: not known."""
        last_ms = self.status.last_open_time_ms if self.status is not None else 0
        # Not the later of both: a replay's times begin again, and then its first candle is of another run.
        return parse_interval(self.assignment.interval).next_ms(last_ms) if last_ms > 0 else self.assignment.from_ms

    def failure(self) -> tuple[str, str] | None:
        """Why it doesn't get Ready (reason, message); None: it has, or still may."""
        status = self.status
        if status is None:
            return None
        if status.state == "Stalled":
            return status.reason or "BadStrategy", status.message or status.last_error
        if status.state == "Backoff" and (status.attempt >= MOST_ATTEMPTS or status.reason == "CrashLoop"):
            return status.reason or "CrashLoop", ending_of(status)
        return None


@dataclass(frozen=True, slots=True)
class Standing:
    """A Trader's incarnations, in the order in which they decide.

    Attributes:
        decider: the one that decides. successor: the one after it.
        failed: what became of a successor that is gone or goes now.
        highest: highest incarnation that is assigned anywhere.
    """

    decider: Entry | None = None
    successor: Entry | None = None
    failed: Failed | None = None
    highest: int = 0

    @property
    def newest(self) -> Entry | None:
        """The one that is to decide in the end."""
        return self.successor or self.decider

    @property
    def move_failed(self) -> bool:
        """Whether what failed is the very version that runs, on another worker."""
        decider, failed = self.decider, self.failed
        return decider is not None and failed is not None and failed.digest == decider.digest

    @property
    def entries(self) -> list[Entry]:
        """Both."""
        return [one for one in (self.decider, self.successor) if one is not None]


def is_lost(worker: WorkerNow, delays: Delays, now_ms: int) -> bool:
    """Whether a worker has not been Ready for too long."""
    return not worker.ready and lost_at_ms(worker.since_ms, worker.was_ready, delays) <= now_ms


def lost_at_ms(since_ms: int, was_ready: bool, delays: Delays) -> int:
    """When a worker that isn't Ready since then counts as lost."""
    return since_ms + (delays.unready_ms if was_ready else delays.starting_ms)


def has_known_intervals(trader: TraderAssignment) -> bool:
    """Whether what an incarnation reads has intervals that this version knows; another may have assigned it."""
    try:
        for series in trader.series():
            parse_interval(series.interval)
    except InputError:
        return False
    return True


def entries_of(current: Current, desired: Desired, now_ms: int) -> dict[str, list[Entry]]:
    """All incarnations of each Trader, lowest first; without those of which nobody here could say when their candles close."""
    found: dict[str, list[Entry]] = {}
    delays = desired.delays
    for pool, workers in current.workers.items():
        unknown = {*desired.unknown_in(pool)}
        for name, worker in workers.items():
            status, assignment = worker.status, worker.assignment
            lost = is_lost(worker, delays, now_ms)
            acknowledged = (
                worker.ready
                and status is not None
                and status.sequence == assignment.sequence
                and status.hash == assignment.hash
            )
            heard = status is not None and status.received_sequence >= assignment.sequence
            may_have_run = worker.was_ready and (status is None or status.received_sequence > 0)
            up_ms = worker.since_ms + delays.coming_up_ms
            # A time to come is of another clock (the machine was started again): it is no bound.
            comes_up = worker.ready and 0 < up_ms - now_ms <= delays.coming_up_ms
            for trader in filter(has_known_intervals, assignment.traders):
                told = told_of(status, trader.trader, trader.incarnation)
                found.setdefault(trader.trader, []).append(
                    Entry(
                        pool,
                        name,
                        trader,
                        content_digest(trader),
                        told,
                        lost,
                        worker.ready,
                        acknowledged,
                        heard,
                        may_have_run,
                        up_ms if comes_up else 0,
                        bool(unknown.intersection(trader.symbols)),
                    )
                )
    for entries in found.values():
        entries.sort(key=lambda one: (one.assignment.incarnation, one.pool, one.worker))
    return found


def told_of(status: WorkerStatus | None, trader: str, incarnation: int) -> TraderStatus | None:
    """What a worker tells of one incarnation of a Trader; None: nothing."""
    for answers in (status.traders, status.successors) if status is not None else ():
        one = answers.get(trader)
        if one is not None and one.incarnation == incarnation:
            return one
    return None


def ending_of(status: TraderStatus) -> str:
    """How its process ended, as it is told, without the pause before the next start: that is another each time."""
    return status.last_error or _without_pause(status.message)


def _without_pause(message: str) -> str:
    return message.partition("; starts again")[0]


def news_of(status: WorkerStatus) -> object:
    """What of a worker's answer plans and conditions depend on, apart from figures that move by themselves.

    Whatever is left out here is told by the next look at everything, minutes later.
    """
    return (
        status.sequence,
        status.hash,
        status.received_sequence,
        status.supervisor_connected,
        [
            {name: _news_of(one)
             for name, one in answers.items()}
            for answers in (status.traders, status.successors)
        ],
        status.catalogue,
        status.feed.get("broker_problem"),
    )  # fmt: skip


def _news_of(one: TraderStatus) -> object:
    tried = (one.attempt > 0, one.attempt >= MOST_ATTEMPTS)
    # Which candle it is moves by itself: where a plan goes by it, something else has told that it is time to plan.
    begun = one.last_open_time_ms > 0
    # What a process that runs has to say stands in no condition.
    message = _without_pause(one.message) if one.state == "Backoff" else one.message
    said = None if one.state in READY_STATES else (message, one.last_error)
    return one.state, one.reason, said, one.generation, one.incarnation, one.code, one.until_ms, begun, tried


def standing_of(
    entries: list[Entry], pool: Key, uid: str, failed: Failed | None, *, overdue: bool, now_ms: int
) -> Standing:
    """Where a Trader stands in its pool, once what needs no place is settled.

    Args:
        entries: all its incarnations, lowest first. pool, uid: what it belongs to, and its identity: what is in another
            pool, or of another Trader of its name, goes.
        failed: the successor that failed before. overdue: the one that decided has had its time to retire.
    """
    highest = max((one.assignment.incarnation for one in entries), default=0)
    mine = _two(_one_each([one for one in entries if (one.pool, one.assignment.uid) == (pool, uid)]))
    if not mine:
        return Standing(failed=failed, highest=highest)
    decider, successor = mine[0], mine[1] if len(mine) > 1 else None
    if successor is None:
        if decider.assignment.mode == "standby":  # what it stood by for is gone
            decider = promoted(decider, decider.assignment.from_ms)
        return Standing(decider, None, failed, highest)
    if successor.assignment.mode != "standby":
        decider = _told_of_moved_end(decider, successor)
        # One without a bound was replaced at once, in a plan of which only half was carried out.
        if decider.assignment.until_ms is None or decider.lost or decider.is_out or overdue:
            return Standing(successor, None, failed, highest)
        return Standing(decider, successor, failed, highest)
    if decider.lost and not successor.lost:
        return Standing(promoted(successor, _begins_ms(decider, successor)), None, failed, highest)
    failure = successor.failure()
    if failure is not None:
        gone = Failed(successor.digest, successor.assignment.generation, failure[0], failure[1][:500], now_ms)
        return Standing(decider, None, gone, highest)
    if decider.is_out and decider.assignment.until_ms is None:
        return Standing(promoted(successor, _begins_ms(decider, successor)), None, failed, highest)
    return Standing(decider, successor, failed, highest)


def _told_of_moved_end(decider: Entry, successor: Entry) -> Entry:
    """The old one with the end that its successor begins at, where that was moved and only the successor's worker was
    told (a plan of which half was kept): one of its symbols may have stopped at the end of before.

    Never beyond what it has decided: a successor that was lost goes on elsewhere from a later candle than the end.
    """
    until_ms = decider.assignment.until_ms
    if until_ms is None or decider.assignment.interval != successor.assignment.interval:
        return decider
    moved_ms = min(successor.assignment.from_ms, decider.decided_until_ms)
    if moved_ms <= until_ms:
        return decider
    return replace(bounded(decider, moved_ms), acknowledged=False)


def _one_each(entries: list[Entry]) -> list[Entry]:
    """One entry an incarnation: of one found in two workers (a plan of which half was kept), one that lives."""
    found: dict[int, Entry] = {}
    for one in entries:
        other = found.get(one.assignment.incarnation)
        if other is None or (other.lost and not one.lost):
            found[one.assignment.incarnation] = one
    return list(found.values())


def _two(entries: list[Entry]) -> list[Entry]:
    """The two that count, of more (a plan of which half was kept)."""
    while len(entries) > 2:
        # A successor that decides already was kept because the one before it was through; one that stands by is
        # superseded by the next.
        entries = entries[1:] if entries[1].assignment.mode != "standby" else [entries[0], *entries[2:]]
    return entries


def promoted(entry: Entry, from_ms: int) -> Entry:
    """The entry as the one that decides, from a candle on."""
    assignment = msgspec.structs.replace(entry.assignment, mode="active", from_ms=from_ms, until_ms=None)
    return _with(entry, assignment)


def bounded(entry: Entry, until_ms: int | None) -> Entry:
    """The entry as one that decides up to a candle."""
    return _with(entry, msgspec.structs.replace(entry.assignment, until_ms=until_ms))


def _with(entry: Entry, assignment: TraderAssignment) -> Entry:
    return replace(entry, assignment=assignment)


def _begins_ms(decider: Entry, successor: Entry) -> int:
    return follows_ms(decider, successor.assignment.interval, successor.digest)


def follows_ms(before: Entry, interval: str, digest: str) -> int:
    """From which candle an incarnation decides that follows one which can't be asked any more where it has stopped.

    Of a lost worker's newest candle nobody knows whether its signals left the pod. The same version decides it again:
    its signals have the same ids.
    """
    if before.lost and before.digest == digest and before.status is not None:
        return before.status.last_open_time_ms or before.assignment.from_ms
    return begins_ms(before, interval)


def begins_ms(before: Entry, interval: str, at_ms: int | None = None) -> int:
    """From which candle a successor decides what the one before it has not decided.

    Args:
        interval: the successor's. at_ms: the candle of the one before; None: after all that it is known to have decided.

    Returns:
        Open time, ms; 0: not known, from the newest on. With another interval, the candle in which that falls.
    """
    at_ms = before.decided_until_ms if at_ms is None else at_ms
    if at_ms <= 0 or interval == before.assignment.interval:
        return max(0, at_ms)
    return parse_interval(interval).floor_ms(at_ms)


def content_digest(assignment: TraderAssignment, *, mode: Mode | None = None) -> str:
    """Digest of what a Trader runs, apart from which generation and incarnation that is, and which candles it decides
    (16 hex digits).

    Args:
        mode: taken instead of the assignment's own; one that stands by is to become active.
    """
    mode = mode or ("active" if assignment.mode == "standby" else assignment.mode)
    unnumbered = msgspec.structs.replace(assignment, generation=1, incarnation=1, mode=mode)
    bare = msgspec.structs.replace(unnumbered, from_ms=0, until_ms=None, since_ms=0)
    return hashlib.sha256(encode(bare)).hexdigest()[:16]
