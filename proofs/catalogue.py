"""What is proven: the models, the ways each is checked, and the mutations that a check must catch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

MODELS: Final = Path(__file__).parent / "segment"

#: How spin names a violation that is no assertion.
STUCK: Final = "invalid end state"


@dataclass(frozen=True)
class Check:
    """One model, explored whole.

    Attributes:
        name: of the check; the model is ``MODELS / model``.
        stuck: what it means when no process can go on; empty where no process waits.
        ltl: the property in linear temporal logic that is checked, under weak fairness; empty: assertions only.
        defines: what the model is told, as for a C preprocessor.
        unreached: statements that are never reached, and why that is right.
    """

    name: str
    model: str
    stuck: str = ""
    ltl: str = ""
    defines: tuple[str, ...] = ()
    unreached: tuple[str, ...] = ()


@dataclass(frozen=True)
class Mutation:
    """A wrong protocol.

    Attributes:
        name: the defines that make it, joined by a plus sign.
        check: what catches it.
        caught_by: the property that fails; empty: it makes no difference, and ``why`` says why.
        why: what is mutated; or the argument.
        small: defines of another instance, where the check's own is needlessly large or too small.
    """

    name: str
    check: str
    caught_by: str
    why: str
    small: tuple[str, ...] = ()

    @property
    def defines(self) -> tuple[str, ...]:
        return tuple(self.name.split("+")) + self.small


CHECKS: Final = (
    Check("rows", "rows.pml"),
    Check("forming", "forming.pml"),
    # All names have one home, so no entry stays where it is when one before it goes.
    Check("table", "table.pml", unreached=("slot = ((slot+1)%4)",)),
    Check("bells", "bells.pml", stuck="no_wake_up_is_lost"),
    Check("bells, in the end", "bells.pml", ltl="every_candle_is_seen"),
    Check(
        "restart, at once",
        "restart.pml",
        stuck="a_trader_follows_at_once",
        # No feed here gives its file the path before it is ready, and the trader never opens such a one.
        unreached=("previous = 0", "file = 0", "file = 0"),
    ),
    Check(
        "restart, in the end",
        "restart.pml",
        ltl="a_trader_follows",
        defines=("TIMEOUTS",),
        unreached=("previous = 0", "file = 0", "file = 0"),
    ),
    Check("lock", "lock.pml", stuck="the_lock_is_free_in_the_end"),
    Check("ring", "ring.pml", stuck="push_and_drain_go_on"),
    Check(
        "ring, in the end",
        "ring.pml",
        ltl="all_is_drained",
        defines=("TRADER_KILLS=1", "FEED_KILLS=0"),
        unreached=("head = 0", "found = 0"),  # where a killed feed starts again: none is killed here
    ),
    Check("positions", "positions.pml"),
)

_WINDOW: Final = "a_valid_window_is_whole_and_true"
_SNAPSHOT: Final = "a_snapshot_belongs_together"
_TOLD: Final = "what_is_counted_is_told_of"
_FORMING: Final = "a_forming_row_is_whole"
_LASTING: Final = "a_lasting_series_is_found"
_HIT: Final = "a_hit_is_of_the_name_asked_for"
_STATE: Final = "a_living_series_state_is_its_own"
_ENTRY: Final = "an_entry_leads_to_a_complete_record"
_WAKE: Final = "no_wake_up_is_lost"
_AT_ONCE: Final = "a_trader_follows_at_once"
_FOLLOWS: Final = "a_trader_follows"
_CHECKS: Final = "no_slot_fails_its_checks"
_LOST: Final = "no_signal_is_lost"
_HEAD: Final = "the_head_is_possible"
_POSITION: Final = "a_position_read_is_whole_and_of_its_series"

_FEW: Final = ("OPS=3",)
_NO_KILLS: Final = ("TRADER_KILLS=0", "FEED_KILLS=0", "CANDLES=5")

MUTATIONS: Final = (
    # ---- rows: the ends of each pair
    Mutation("RELEASE_RESERVE=OFF", "rows", _WINDOW, "append_row without its release fence [RESERVE]"),
    Mutation("ACQUIRE_RESERVE=OFF", "rows", _WINDOW, "lapped without its acquire fence [RESERVE]"),
    Mutation("RELEASE_COUNT=RELAXED", "rows", _WINDOW, "the count stored relaxed [COUNT]"),
    Mutation("ACQUIRE_COUNT=RELAXED", "rows", _TOLD, "the count loaded relaxed by the getters [COUNT]"),
    Mutation("BEGIN_REVISION=OFF", "rows", _WINDOW, "begin_change without its release fence [REVISION]"),
    Mutation("END_REVISION=RELAXED", "rows", _WINDOW, "end_change relaxed [REVISION]"),
    Mutation("ACQUIRE_REVISION=RELAXED", "rows", _SNAPSHOT, "the snapshot's revision loaded relaxed [REVISION]"),
    Mutation("SNAPSHOT_REVISION=OFF", "rows", _WINDOW, "take_snapshot without its acquire fence [COUNT] [REVISION]"),
    Mutation("JUDGE_REVISION=OFF", "rows", _WINDOW, "unchanged without its own acquire fence [EPOCH] [REVISION]"),
    Mutation(
        "JUDGE_STAMPS=OFF",
        "rows",
        "stamps_are_those_of_the_row_asked_for",
        "copy_stamps without its second acquire fence [REVISION]",
    ),
    Mutation(
        "JUDGE_FOUND=OFF",
        "rows",
        "what_find_after_found_was_true",
        "find_after without its own acquire fence [REVISION]",
    ),
    # ---- rows: the steps
    Mutation("COUNT_BEFORE_ROW", "rows", _WINDOW, "the count stored before the row"),
    Mutation("RESERVED_BEHIND_ROW", "rows", _WINDOW, "`reserved` stored behind the row"),
    Mutation("ROW_ONCE", "rows", _WINDOW, "a column's second place not stored"),
    Mutation("LAST_BEHIND_COUNT", "rows", _TOLD, "last_open_time stored behind the count"),
    Mutation("REVISION_EVEN_MEANWHILE", "rows", _WINDOW, "the revision not made odd"),
    Mutation("ODD_TAKEN", "rows", _SNAPSHOT, "an odd revision taken for one that holds"),
    Mutation("CHECK_BEFORE_USE", "rows", _WINDOW, "a window judged before its use"),
    Mutation("LAP_UNCHECKED", "rows", _WINDOW, "`reserved` not looked at"),
    Mutation("LATE=1", "rows", _WINDOW, "one overwritten row not noticed"),
    Mutation("REVISION_UNCHECKED", "rows", _WINDOW, "the revision not looked at again"),
    Mutation("REVISION_BEFORE_RESERVED", "rows", _WINDOW, "the revision judged before `reserved`: a reset hides a lap"),
    Mutation(
        "EPOCH_UNCHECKED",
        "rows",
        "a_valid_window_is_of_the_series_asked_for",
        "the epoch not looked at when a window is judged",
    ),
    Mutation(
        "READABLE=3",
        "rows",
        "",
        "no guard rows: what is overwritten is found out all the same; they only make it rare",
        _FEW,
    ),
    # ---- forming
    Mutation("BEGIN_FORMING=OFF", "forming", _FORMING, "begin_change without its release fence [FORMING]"),
    Mutation("END_FORMING=RELAXED", "forming", _FORMING, "end_change relaxed [FORMING]"),
    Mutation("ACQUIRE_FORMING=RELAXED", "forming", _FORMING, "the sequence loaded relaxed [FORMING]"),
    Mutation("JUDGE_FORMING=OFF", "forming", _FORMING, "copy_forming without its acquire fence [FORMING]"),
    Mutation(
        "ALIVE_EPOCH=OFF",
        "forming",
        "",
        "copy_forming and copy_stamps end with an acquire fence behind their last payload load",
        _FEW,
    ),
    Mutation("FORMING_EVEN_MEANWHILE", "forming", _FORMING, "the sequence not made odd"),
    Mutation("SEQUENCE_UNCHECKED", "forming", _FORMING, "the sequence not looked at again"),
    Mutation("ODD_SEQUENCE_TAKEN", "forming", _FORMING, "an odd sequence taken for one that holds"),
    Mutation(
        "FORMING_CLEARED_BEHIND_COUNT",
        "forming",
        "no_candle_is_seen_closed_and_afterwards_forming",
        "the forming row cleared behind the count",
    ),
    Mutation(
        "FORMING_KEPT_BY_CLOSING",
        "forming",
        "no_candle_is_seen_closed_and_afterwards_forming",
        "the forming row not cleared by its candle's closing",
    ),
    Mutation(
        "FORMING_KEPT_BY_RESET",
        "forming",
        "no_forming_row_outlives_its_session",
        "the forming row not cleared by a reset",
    ),
    Mutation(
        "ALIVE_UNCHECKED",
        "forming",
        "a_forming_row_is_of_the_series_asked_for",
        "the epoch not looked at behind the forming row",
    ),
    # ---- table: the ends of each pair
    Mutation("BEGIN_TABLE=OFF", "table", _LASTING, "begin_change without its release fence [TABLE]"),
    Mutation("END_TABLE=RELAXED", "table", _LASTING, "end_change relaxed [TABLE]"),
    Mutation("ACQUIRE_TABLE=RELAXED", "table", _LASTING, "the table version loaded relaxed [TABLE]"),
    Mutation("RELEASE_SLOT=RELAXED", "table", _ENTRY, "a new entry stored relaxed [SLOT]"),
    Mutation("ACQUIRE_SLOT=RELAXED", "table", _ENTRY, "a slot loaded relaxed [SLOT]"),
    Mutation("RELEASE_EPOCH=RELAXED", "table", _STATE, "a new epoch stored relaxed [EPOCH]"),
    Mutation(
        "REMOVE_EPOCH=OFF",
        "table",
        "",
        "begin_change's release fence [TABLE] stands between the old epoch's end and a new name",
        _FEW,
    ),
    Mutation("ACQUIRE_EPOCH=RELAXED", "table", _HIT, "the epoch loaded relaxed [EPOCH]"),
    Mutation("JUDGE_EPOCH=OFF", "table", _HIT, "epoch_if_named without its acquire fence [EPOCH]"),
    # ---- table: the steps
    Mutation("SLOT_BEFORE_RECORD", "table", _ENTRY, "the hash slot stored before the record"),
    Mutation("EPOCH_BEFORE_NAME", "table", _STATE, "the epoch made odd before name and state are stored"),
    Mutation("TABLE_EVEN_MEANWHILE", "table", _LASTING, "the table version not made odd"),
    Mutation("TABLE_VERSION_IGNORED", "table", _LASTING, "a miss believed without the table version"),
    Mutation("HOLE_LEFT", "table", _LASTING, "later entries not moved back"),
    Mutation("EPOCH_BEHIND_ENTRY", "table", _STATE, "a removed record's epoch changed behind its entry"),
    Mutation("HALF_A_NAME_COMPARED", "table", _HIT, "a name compared in part"),
    Mutation("EPOCH_UNCHECKED", "table", _HIT, "the epoch not looked at again behind the name"),
    Mutation("EVEN_EPOCH_TAKEN", "table", _STATE, "a free record taken for one in use"),
    # ---- bells
    Mutation("RELEASE_BELL=RELAXED", "bells", _WAKE, "a bell advanced relaxed [BELL]"),
    Mutation("ACQUIRE_BELL=RELAXED", "bells", _WAKE, "a bell loaded relaxed [BELL]"),
    Mutation("BELL_BEFORE_COUNT", "bells", _WAKE, "the bell rung before the row counts"),
    Mutation("WAKE_BEFORE_ADVANCE", "bells", _WAKE, "sleepers woken before the bell's value changes"),
    Mutation("NOBODY_WOKEN", "bells", _WAKE, "the value changed and nobody woken"),
    Mutation("ONE_WOKEN", "bells", _WAKE, "one of two sleepers woken"),
    Mutation("SLEEP_WITHOUT_COMPARE", "bells", _WAKE, "a sleep that doesn't compare the bell's value"),
    Mutation("TOKEN_BEHIND_LOOK", "bells", _WAKE, "the bell's value taken behind the look at the series"),
    Mutation("BELL_VALUES=2", "bells", _WAKE, "a bell that wraps while a reader looks: in truth after 2^32 rings"),
    # ---- restart
    Mutation("NOT_MARKED", "restart, at once", _AT_ONCE, "the file before not marked as superseded"),
    Mutation("BELLS_NOT_RUNG", "restart, at once", _AT_ONCE, "its bells not rung"),
    Mutation("FOREIGN_TOKEN", "restart, at once", _AT_ONCE, "a sleep by the bell's value of the file before"),
    Mutation("TOKEN_BEHIND_LOOK", "restart, at once", _AT_ONCE, "the bell's value taken behind the look"),
    Mutation("ODD_WAITED_FOR", "restart, at once", _AT_ONCE, "an odd sequence waited for without end"),
    Mutation("ODD_TAKEN", "restart, at once", "nobody_computes_on_torn_data", "an odd sequence not minded"),
    Mutation("RENAME_BEFORE_READY", "restart, at once", _AT_ONCE, "the path given before the file is ready"),
    Mutation(
        "RENAME_BEFORE_READY+READY_BEFORE_HEADER",
        "restart, at once",
        "no_file_is_read_before_it_is_ready",
        "and the ready word stored before the header",
    ),
    Mutation("NOT_SET_ASIDE", "restart, at once", _AT_ONCE, "no second name for a file whose readers aren't rung yet"),
    Mutation(
        "MARKED_BEHIND_RENAME+NOT_SET_ASIDE",
        "restart, in the end",
        _FOLLOWS,
        "superseded marked behind the rename, with no second name",
    ),
    Mutation(
        "MARKED_BEHIND_UNLINK+NOT_SET_ASIDE",
        "restart, in the end",
        _FOLLOWS,
        "superseded marked behind the unlinking, with no second name",
    ),
    Mutation(
        "MARKED_BEHIND_RENAME",
        "restart, at once",
        "",
        "the second name leads the next feed to the file, to mark and to ring it",
    ),
    Mutation(
        "READY_BEFORE_HEADER",
        "restart, at once",
        "",
        "the file gets its path only when both are there; [READY] guards a file met by any other way",
    ),
    Mutation(
        "RUNG_BEFORE_RENAME",
        "restart, at once",
        "",
        "who finds its file superseded doesn't sleep by a bell before it has the next one",
    ),
    Mutation(
        "SUPERSEDED_OPENED",
        "restart, at once",
        "",
        "a trader would look at it again at once, not every 50 ms: CPU time, nothing else",
    ),
    # ---- lock
    Mutation(
        "LOCK_FILE_UNCHECKED", "lock", "one_feed_writes_at_a_time", "the locked file not compared with the path's"
    ),
    Mutation("UNLOCKED_BEFORE_UNLINK", "lock", "one_feed_writes_at_a_time", "the lock given back before its unlinking"),
    # ---- ring
    Mutation("RELEASE_HEAD=RELAXED", "ring", _CHECKS, "the head stored relaxed [HEAD]"),
    Mutation("ACQUIRE_HEAD=OFF", "ring", _CHECKS, "pending without its acquire fence [HEAD]"),
    Mutation("HEAD_BEFORE_SLOT", "ring", _CHECKS, "the head stored before the slot"),
    Mutation("SLOT_BEFORE_TAIL", "ring", _CHECKS, "a slot filled before the tail is read [TAIL]"),
    Mutation("TAIL_BEFORE_READ", "ring", _LOST, "the tail stored before the slot is read [TAIL]"),
    Mutation("TAIL_BEFORE_PUBLISH", "ring", _LOST, "the tail stored before the broker has the signal"),
    Mutation("TAIL_WITHOUT_COMPLEMENT", "ring", _HEAD, "a tail believed without its complement", _NO_KILLS),
    Mutation("TAIL_READ_ONCE", "ring", _HEAD, "a tail not looked at again behind its complement", _NO_KILLS),
    Mutation("FULL_UNCHECKED", "ring", _HEAD, "a full ring pushed to"),
    Mutation("POSITION_BEFORE_PUSH", "ring", _LOST, "the position stored before the push that it covers"),
    Mutation("POSITION_IN_PLACE", "ring", "a_position_is_whole", "a position stored over the pair that holds"),
    # ---- positions
    Mutation("BEGIN_POSITION=OFF", "positions", _POSITION, "a pair stored without the release fence before [POSITION]"),
    Mutation("RELEASE_POSITION=RELAXED", "positions", _POSITION, "the version stored relaxed [POSITION]"),
    Mutation("CLAIM_POSITION=OFF", "positions", _POSITION, "an entry claimed without the release fence [POSITION]"),
    Mutation("ACQUIRE_POSITION=OFF", "positions", _POSITION, "two copies without the acquire fence between [POSITION]"),
    Mutation("VERSION_BEFORE_PAIR", "positions", _POSITION, "the version stored before the pair"),
    Mutation("PAIR_IN_PLACE", "positions", _POSITION, "the pair that holds overwritten"),
    Mutation("VERSIONS_REPEATED", "positions", _POSITION, "a version that stood there before, of another series"),
    Mutation("VERSION_KEPT_BY_CLAIM", "positions", _POSITION, "an entry claimed under its version"),
    Mutation("COPIED_ONCE", "positions", _POSITION, "one copy believed"),
)
