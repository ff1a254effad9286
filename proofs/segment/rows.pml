/* Closed rows: append, lap, revise, reset, a record given away; windows, stamps and find_after judged. protocol.h.
 *
 * Instance: 3 rows of which 1 is guard, 2 columns, each row at both of its places, stamps of 2 rows; 2 rows are there
 * at first; then any OPS of the writer's operations, of which at most one reset and one giving away.
 */
#define ROWS 3
#define READABLE 2 /* rows - guard_rows */
#define STAMP_ROWS 2
#ifndef OPS
#define OPS 4
#endif

/* Words. */
#define EPOCH 0
#define REVISION 1
#define RESERVED 2
#define COUNT 3
#define SESSION 4
#define LAST 5 /* last_open_time_ms, as ordinal + 1; 0: none. live_from and traded_from stand for the same. */
#define STAMPS 6
#define BLOCK 10
#define WORDS 22
#define stamp_at(ordinal, which) (STAMPS + ((ordinal) % STAMP_ROWS) * 2 + (which))
#define row_at(column, place) (BLOCK + (column) * 2 * ROWS + (place))

/* The ends of each pair, and the steps; a mutation defines one of them otherwise. */
#ifndef RELEASE_RESERVE
#define RELEASE_RESERVE ON /* append_row: fence_release [RESERVE] */
#endif
#ifndef ACQUIRE_RESERVE
#define ACQUIRE_RESERVE ON /* lapped, for unchanged and find_after; copy_stamps: fence_acquire [RESERVE] */
#endif
#ifndef RELEASE_COUNT
#define RELEASE_COUNT RELEASE /* append_row: store_release [COUNT] */
#endif
#ifndef ACQUIRE_COUNT
#define ACQUIRE_COUNT ACQUIRE /* series_unsigned, series_first: load_acquire [COUNT] */
#endif
#ifndef BEGIN_REVISION
#define BEGIN_REVISION ON /* begin_change: fence_release [REVISION] */
#endif
#ifndef END_REVISION
#define END_REVISION RELEASE /* end_change: store_release [REVISION] */
#endif
#ifndef ACQUIRE_REVISION
#define ACQUIRE_REVISION ACQUIRE /* take_snapshot: load_acquire [REVISION] */
#endif
#ifndef SNAPSHOT_REVISION
#define SNAPSHOT_REVISION ON /* take_snapshot: fence_acquire [COUNT] [REVISION] */
#endif
#ifndef JUDGE_REVISION
#define JUDGE_REVISION ON /* unchanged: fence_acquire [EPOCH] [REVISION] */
#endif
#ifndef JUDGE_STAMPS
#define JUDGE_STAMPS ON /* copy_stamps: the second fence_acquire [REVISION] */
#endif
#ifndef JUDGE_FOUND
#define JUDGE_FOUND ON /* find_after: fence_acquire [REVISION] */
#endif
#ifndef LATE
#define LATE 0 /* rows that may have been overwritten unnoticed */
#endif

#include "memory.pml"

/* What was true: under each even revision (by its half) the row of each ordinal, the session, and whose series it is.
 * A row is era * 64 + ordinal * 8 + version: no two rows ever written are alike, and later ones are larger. */
#define REVISIONS 6
#define ORDINALS 8
#define FIRST_OWNER 1
byte truth[REVISIONS * ORDINALS];
byte session_of[REVISIONS];
byte owner_of[REVISIONS];
byte least_count[REVISIONS];
byte most_count[REVISIONS];
byte era, count, now, i, j, choice, resets, gifts;
#define truth_of(half, ordinal) truth[(half) * ORDINALS + (ordinal)]

/* The names of the properties. */
hidden byte a_valid_window_is_whole_and_true;
hidden byte a_valid_window_is_of_the_series_asked_for;
hidden byte a_snapshot_belongs_together;
hidden byte stamps_are_those_of_the_row_asked_for;
hidden byte what_find_after_found_was_true;
hidden byte what_is_counted_is_told_of;

inline store_row(ordinal, what) { /* store_row: both places of each column */
    store(row_at(0, (ordinal) % ROWS), what, RELAXED);
    store(row_at(0, (ordinal) % ROWS + ROWS), what, RELAXED);
    store(row_at(1, (ordinal) % ROWS), what, RELAXED);
#ifndef ROW_ONCE
    store(row_at(1, (ordinal) % ROWS + ROWS), what, RELAXED)
#endif
}

inline store_stamps(ordinal, what) {
    store(stamp_at(ordinal, 0), what, RELAXED);
    store(stamp_at(ordinal, 1), what, RELAXED)
}

inline append() { /* append_row */
    truth_of(now, count) = era * 64 + count * 8;
#ifndef RESERVED_BEHIND_ROW
    store(RESERVED, count + 1, RELAXED);
    fence_release(RELEASE_RESERVE);
#endif
#ifdef COUNT_BEFORE_ROW
    store(COUNT, count + 1, RELEASE_COUNT);
#endif
    store_row(count, era * 64 + count * 8);
    store_stamps(count, era * 64 + count * 8);
#ifdef RESERVED_BEHIND_ROW
    fence_release(RELEASE_RESERVE);
    store(RESERVED, count + 1, RELAXED);
#endif
#ifndef LAST_BEHIND_COUNT
    store(LAST, count + 1, RELAXED);
#endif
#ifndef COUNT_BEFORE_ROW
    store(COUNT, count + 1, RELEASE_COUNT);
#endif
#ifdef LAST_BEHIND_COUNT
    store(LAST, count + 1, RELAXED);
#endif
    count++;
    most_count[now] = count
}

inline begin_revision() { /* begin_change */
#ifndef REVISION_EVEN_MEANWHILE
    store(REVISION, own(REVISION) | 1, RELAXED);
#endif
    fence_release(BEGIN_REVISION)
}

inline end_revision() { /* end_change */
    now++;
    store(REVISION, now * 2, END_REVISION);
    session_of[now] = own(SESSION);
    least_count[now] = count;
    most_count[now] = count
}

inline revise(ordinal) { /* revise_row [REVISION] */
    i = 0;
    do
    :: i < ORDINALS -> truth_of(now + 1, i) = truth_of(now, i); i++
    :: else -> break
    od;
    truth_of(now + 1, ordinal) = era * 64 + (ordinal) * 8 + now + 1;
    owner_of[now + 1] = owner_of[now];
    begin_revision();
    store_row(ordinal, era * 64 + (ordinal) * 8 + now + 1);
    end_revision()
}

inline reset(session) { /* reset_series [REVISION]; the forming row is in forming.pml */
    era++;
    begin_revision();
    count = 0;
    store(COUNT, 0, RELAXED);
    store(RESERVED, 0, RELAXED);
    store(SESSION, session, RELAXED);
    store(LAST, 0, RELAXED);
    owner_of[now + 1] = own(EPOCH);
    end_revision()
}

inline give_away() { /* remove_series, insert_series, and what the feed does then; names and hash are in table.pml */
    store(EPOCH, own(EPOCH) + 1, RELAXED);
    fence_release(ON); /* [EPOCH], in table.pml */
    reset(0);
    store(EPOCH, own(EPOCH) + 1, RELEASE); /* [EPOCH] */
    owner_of[now] = own(EPOCH)
}

init {
    atomic {
        store(EPOCH, FIRST_OWNER, RELAXED);
        owner_of[0] = FIRST_OWNER;
        append();
        append();
        least_count[0] = count;
        fenced = stored
    }
    atomic {
        choice = OPS;
        do
        :: choice > 0 -> append(); choice--
        :: choice > 0 && count > 0 && now < REVISIONS - 2 -> revise(count - 1); choice--
        :: choice > 0 && count > 1 && now < REVISIONS - 2 -> revise(count - 2); choice--
        :: choice > 0 && resets == 0 -> reset(1); resets++; choice--
        :: choice > 0 && gifts == 0 -> give_away(); gifts++; choice--
        :: choice == 0 -> break
        od;
        i = 0; resets = 0; gifts = 0;
        run reader()
    }
}

#define era_of(half) (truth_of(half, 0) / 64)

/* unchanged [EPOCH] [REVISION], and find_after's judging [REVISION]; here both look at the epoch, which find_after
 * leaves to the window that is taken by what it found. */
inline judge(fence) {
#ifdef REVISION_BEFORE_RESERVED
    fence_acquire(fence);
    load_once(EPOCH, RELAXED, found);
    if
    :: found != FIRST_OWNER -> goto none
    :: else
    fi;
    load(REVISION, RELAXED, found);
    if
    :: found != revision -> goto none
    :: else
    fi;
#endif
    fence_acquire(ACQUIRE_RESERVE); /* [RESERVE] */
    load_once(RESERVED, RELAXED, reserved);
#ifndef LAP_UNCHECKED
    if
    :: reserved > ROWS && reserved - ROWS > begin + LATE -> goto none /* lapped */
    :: else
    fi;
#endif
    reserved = 0;
#ifndef REVISION_BEFORE_RESERVED
    fence_acquire(fence); /* [EPOCH] [REVISION] */
#ifndef EPOCH_UNCHECKED
    load_once(EPOCH, RELAXED, found);
    if
    :: found != FIRST_OWNER -> goto none
    :: else
    fi;
#endif
#ifndef REVISION_UNCHECKED
    load(REVISION, RELAXED, found);
    if
    :: found != revision -> goto none
    :: else
    fi;
#endif
#endif
    found = 0
}

proctype reader() {
    VIEW;
    byte revision, session, counted, reserved, found, n, begin, low, high;
    bool good;
    known = 2 * 9 + 1; /* what was there when it found the series; now come other numbers of the log */

    if
    :: goto snapshot
    :: skip
    fi;

    /* The getters of a series: a count, and behind it what goes with it; judged where no reset came in between. */
    load(REVISION, ACQUIRE, revision);
    load_once(COUNT, ACQUIRE_COUNT, counted);        /* [COUNT] */
    load_once(LAST, RELAXED, n);
    fence_acquire(ON);
    load(REVISION, RELAXED, found);
    assert((revision & 1) || found != revision || n >= counted || what_is_counted_is_told_of);
    goto none;

snapshot: /* take_snapshot, one attempt: one more begins like the first, with more known */
    load(REVISION, ACQUIRE_REVISION, revision);      /* [REVISION] */
    load_once(COUNT, RELAXED, counted);
    load_once(SESSION, RELAXED, session);
    fence_acquire(SNAPSHOT_REVISION);                /* [COUNT] [REVISION] */
    load(REVISION, RELAXED, found);
#ifdef ODD_TAKEN
    if
    :: found != revision -> goto none
    :: else -> revision = revision & 254
    fi;
#else
    if
    :: (revision & 1) || found != revision -> goto none
    :: else
    fi;
#endif
    assert((session == session_of[revision / 2] && counted >= least_count[revision / 2] &&
            counted <= most_count[revision / 2]) || a_snapshot_belongs_together);
    found = 0;
    session = 0;
    if
    :: goto window
    :: goto stamps
    :: goto find_after
    fi;

window: /* SeriesReader.window, use, then unchanged */
    begin = (counted > READABLE -> counted - READABLE : 0);
#ifdef CHECK_BEFORE_USE
    judge(JUDGE_REVISION);
#endif
    n = begin;
    good = true;
    do
    :: n < counted ->
        load_once(row_at(0, begin % ROWS + n - begin), RELAXED, found);
        good = good && found == truth_of(revision / 2, n);
        load_once(row_at(1, begin % ROWS + n - begin), RELAXED, found);
        good = good && found == truth_of(revision / 2, n);
        n++
    :: else -> break
    od;
    n = 0;
#ifndef CHECK_BEFORE_USE
    judge(JUDGE_REVISION);
#endif
    assert(good || a_valid_window_is_whole_and_true);
    assert(owner_of[revision / 2] == FIRST_OWNER || a_valid_window_is_of_the_series_asked_for);
    goto none;

stamps: /* copy_stamps of any row */
    if
    :: begin = 0 :: begin = 1 :: begin = 2 :: begin = 3 :: begin = 4
    fi;
    if
    :: begin >= counted || counted - begin > STAMP_ROWS -> goto none
    :: else
    fi;
    load_once(stamp_at(begin, 0), RELAXED, found);
    good = found / 8 == truth_of(revision / 2, begin) / 8;
    load_once(stamp_at(begin, 1), RELAXED, found);
    good = good && found / 8 == truth_of(revision / 2, begin) / 8;
    fence_acquire(ACQUIRE_RESERVE); /* [RESERVE] */
#ifdef REVISION_BEFORE_RESERVED
    load(REVISION, RELAXED, found);
#endif
    load_once(RESERVED, RELAXED, reserved);
#ifndef LAP_UNCHECKED
    if
    :: reserved < begin || reserved - begin > STAMP_ROWS -> goto none /* unsigned: below it is far above */
    :: else
    fi;
#endif
    fence_acquire(JUDGE_STAMPS); /* [REVISION] */
#ifndef REVISION_BEFORE_RESERVED
    load(REVISION, RELAXED, found);
#endif
#ifndef REVISION_UNCHECKED
    if
    :: found != revision -> goto none
    :: else
    fi;
#endif
    assert(good || stamps_are_those_of_the_row_asked_for);
    goto none;

find_after: /* of any row's open time; 0 stands for the row before the first */
    begin = (counted > READABLE -> counted - READABLE : 0);
    if
    :: n = 0 :: n = 1 :: n = 2 :: n = 3 :: n = 4 :: n = 5
    fi;
    low = begin;
    high = counted;
    do /* search_after */
    :: low < high ->
        load_once(row_at(0, ((low + high) / 2) % ROWS), RELAXED, found);
        if
        :: found / 8 >= era_of(revision / 2) * 8 + n -> high = (low + high) / 2
        :: else -> low = (low + high) / 2 + 1
        fi
    :: else -> break
    od;
    judge(JUDGE_FOUND);
    assert(low == (n < begin -> begin : (n > counted -> counted : n)) || what_find_after_found_was_true);
    goto none;

none:
    skip
}
