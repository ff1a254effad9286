/* The forming row: set, changed, cleared by its candle's closing, by a reset, by the record's next owner. protocol.h.
 *
 * Instance: one series of one closed row; the forming row as open time, one more column and one stamp; any OPS of the
 * writer's operations, of which at most one reset and one giving away. A reader copies the forming row once, before or
 * behind a snapshot.
 */
#ifndef OPS
#define OPS 4
#endif

/* Words. */
#define EPOCH 0
#define REVISION 1
#define COUNT 2
#define SEQUENCE 3
#define OPEN 4 /* which forming row it is, 1 and up; 0: none */
#define COLUMN 5
#define STAMP 6
#define WORDS 7

/* The ends of each pair, and the steps; a mutation defines one of them otherwise. */
#ifndef BEGIN_FORMING
#define BEGIN_FORMING ON /* begin_change: fence_release [FORMING] */
#endif
#ifndef END_FORMING
#define END_FORMING RELEASE /* end_change: store_release [FORMING] */
#endif
#ifndef ACQUIRE_FORMING
#define ACQUIRE_FORMING ACQUIRE /* copy_forming: load_acquire [FORMING] */
#endif
#ifndef JUDGE_FORMING
#define JUDGE_FORMING ON /* copy_forming: fence_acquire [FORMING] */
#endif
#ifndef ALIVE_EPOCH
#define ALIVE_EPOCH ON /* still_alive (series.c): fence_acquire [EPOCH] */
#endif

#include "memory.pml"

#define FIRST_OWNER 1
byte open_of[OPS + 2];
byte count_at[OPS + 2];
byte era_of[OPS + 2];
byte owner_of[OPS + 2];
byte era_under[OPS + 3]; /* by half of the revision */
byte sets, count, era, now, choice, resets, gifts;

/* The names of the properties. */
hidden byte a_forming_row_is_whole;
hidden byte a_forming_row_is_of_the_series_asked_for;
hidden byte no_candle_is_seen_closed_and_afterwards_forming;
hidden byte who_sees_a_forming_row_sees_what_closed_before_it;
hidden byte no_forming_row_outlives_its_session;

inline begin_forming() { /* begin_change */
#ifndef FORMING_EVEN_MEANWHILE
    store(SEQUENCE, own(SEQUENCE) | 1, RELAXED);
#endif
    fence_release(BEGIN_FORMING)
}

inline end_forming() { /* end_change */
    store(SEQUENCE, (own(SEQUENCE) | 1) + 1, END_FORMING)
}

inline set_forming(opens) { /* store_forming [FORMING] */
    sets++;
    open_of[sets] = opens;
    count_at[sets] = count;
    era_of[sets] = era;
    owner_of[sets] = own(EPOCH);
    begin_forming();
    store(OPEN, sets, RELAXED);
    store(COLUMN, sets, RELAXED);
    store(STAMP, sets, RELAXED);
    end_forming()
}

inline forget_forming() { /* forget_forming [FORMING] */
    begin_forming();
    store(OPEN, 0, RELAXED);
    end_forming()
}

inline append() { /* append_row, without its row */
#ifdef FORMING_CLEARED_BEHIND_COUNT
    store(COUNT, count + 1, RELEASE);
#endif
#ifndef FORMING_KEPT_BY_CLOSING
    if
    :: own(OPEN) && open_of[own(OPEN)] <= count -> forget_forming()
    :: else
    fi;
#endif
#ifndef FORMING_CLEARED_BEHIND_COUNT
    store(COUNT, count + 1, RELEASE); /* [COUNT] */
#endif
    count++
}

inline reset() { /* reset_series */
    era++;
    store(REVISION, own(REVISION) | 1, RELAXED);
    fence_release(ON); /* [REVISION] */
#ifndef FORMING_KEPT_BY_RESET
    forget_forming();
#endif
    count = 0;
    store(COUNT, 0, RELAXED);
    now++;
    era_under[now] = era;
    store(REVISION, now * 2, RELEASE) /* [REVISION] */
}

inline give_away() { /* remove_series, insert_series */
    store(EPOCH, own(EPOCH) + 1, RELAXED);
    fence_release(ON); /* [EPOCH] */
    reset();
    store(EPOCH, own(EPOCH) + 1, RELEASE) /* [EPOCH] */
}

init {
    atomic {
        store(EPOCH, FIRST_OWNER, RELAXED);
        store(COUNT, 1, RELAXED);
        count = 1;
        fenced = stored;
        choice = OPS;
        do
        :: choice > 0 -> append(); choice--
        :: choice > 0 -> set_forming(count); choice--
        :: choice > 0 -> forget_forming(); choice--
        :: choice > 0 && resets == 0 -> reset(); resets++; choice--
        :: choice > 0 && gifts == 0 -> give_away(); gifts++; choice--
        :: choice == 0 -> break
        od;
        resets = 0; gifts = 0;
        run reader()
    }
}

proctype reader() {
    VIEW;
    byte sequence, again, which, column, stamp, revision, counted;
    bool snapshot_first;
    known = 2; /* what was there when it found the series */

    if
    :: snapshot_first = true; goto snapshot
    :: skip
    fi;

copy: /* copy_forming, one attempt */
    load(SEQUENCE, ACQUIRE_FORMING, sequence);       /* [FORMING] */
    load_once(OPEN, RELAXED, which);
    load_once(COLUMN, RELAXED, column);
    load_once(STAMP, RELAXED, stamp);
    fence_acquire(JUDGE_FORMING);                    /* [FORMING] */
#ifndef SEQUENCE_UNCHECKED
    load(SEQUENCE, RELAXED, again);
    if
    :: again != sequence -> goto none
    :: else
    fi;
#endif
#ifndef ODD_SEQUENCE_TAKEN
    if
    :: sequence & 1 -> goto none
    :: else
    fi;
#endif
    sequence = 0;
    again = 0;
    /* still_alive */
    fence_acquire(ALIVE_EPOCH);                      /* [EPOCH] */
#ifndef ALIVE_UNCHECKED
    load_once(EPOCH, RELAXED, again);
    if
    :: again != FIRST_OWNER -> goto none
    :: else -> again = 0
    fi;
#endif
    assert((which == 0 || (which == column && which == stamp)) || a_forming_row_is_whole);
    assert((which == 0 || owner_of[which] == FIRST_OWNER) || a_forming_row_is_of_the_series_asked_for);
    column = 0;
    stamp = 0;
    if
    :: which == 0 || snapshot_first -> goto judged
    :: else
    fi;

snapshot: /* take_snapshot, one attempt */
    load(REVISION, ACQUIRE, revision);               /* [REVISION] */
    load_once(COUNT, RELAXED, counted);
    fence_acquire(ON);                               /* [COUNT] [REVISION] */
    load(REVISION, RELAXED, again);
    if
    :: (revision & 1) || again != revision -> goto none
    :: else -> again = 0
    fi;
    if
    :: snapshot_first -> goto copy
    :: else
    fi;
    assert((era_under[revision / 2] != era_of[which] || counted >= count_at[which]) ||
           who_sees_a_forming_row_sees_what_closed_before_it);

judged:
    if
    :: snapshot_first && which != 0 ->
        assert((era_under[revision / 2] != era_of[which] || open_of[which] >= counted) ||
               no_candle_is_seen_closed_and_afterwards_forming);
        assert(era_of[which] >= era_under[revision / 2] || no_forming_row_outlives_its_session)
    :: else
    fi;

none:
    skip
}
