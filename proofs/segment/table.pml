/* Series looked up by name while others are added, removed and moved, and records change hands. protocol.h.
 *
 * Instance: 3 records, 4 hash slots, 3 names of one hash (the worst case: one home, every entry must be compared; the
 * home is the last slot, so that probing wraps); a name is 2 words. The first and the third name are there at first;
 * then any OPS additions and removals. A reader that has been told of the first TOLD of them looks one name up.
 */
#ifndef OPS
#define OPS 4
#endif
#define RECORDS 3
#define SLOTS 4
#define HOME 3

/* Words. An entry is the record's index + 1, and beside it, for the properties only, the epoch it was made for. */
#define TABLE 0
#define slot_at(slot) (1 + (slot))
#define epoch_at(record) (5 + (record))
#define name_at(record, part) (8 + 2 * (record) + (part))
#define state_at(record) (14 + (record))
#define WORDS 17
#define entry_of(record, epoch) ((epoch) * 4 + (record) + 1)
#define record_in(entry) ((entry) % 4 - 1)
#define epoch_in(entry) ((entry) / 4)

/* A mixture of the second's and the third's name is the first's. */
#define NAMES 3
#define part_of(name, part) ((name) == 0 -> 1 : ((name) == 1 -> 2 - (part) : 1 + (part)))

/* The ends of each pair, and the steps; a mutation defines one of them otherwise. */
#ifndef BEGIN_TABLE
#define BEGIN_TABLE ON /* begin_change: fence_release [TABLE] */
#endif
#ifndef END_TABLE
#define END_TABLE RELEASE /* end_change: store_release [TABLE] */
#endif
#ifndef ACQUIRE_TABLE
#define ACQUIRE_TABLE ACQUIRE /* find_series: load_acquire [TABLE] */
#endif
#ifndef RELEASE_SLOT
#define RELEASE_SLOT RELEASE /* insert_series: store_release [SLOT] */
#endif
#ifndef ACQUIRE_SLOT
#define ACQUIRE_SLOT ACQUIRE /* find_series: load_acquire [SLOT] */
#endif
#ifndef RELEASE_EPOCH
#define RELEASE_EPOCH RELEASE /* insert_series: store_release [EPOCH] */
#endif
#ifndef REMOVE_EPOCH
#define REMOVE_EPOCH ON /* remove_series: fence_release [EPOCH] */
#endif
#ifndef ACQUIRE_EPOCH
#define ACQUIRE_EPOCH ACQUIRE /* epoch_if_named: load_acquire [EPOCH] */
#endif
#ifndef JUDGE_EPOCH
#define JUDGE_EPOCH ON /* epoch_if_named: fence_acquire [EPOCH] */
#endif

#include "memory.pml"

#define EPOCHS 8
#define NOWHERE 255
byte name_of[RECORDS * EPOCHS];  /* under each epoch */
byte state_of[RECORDS * EPOCHS];
byte record_of[NAMES];           /* NOWHERE: not there */
byte added_by[NAMES];            /* the operation that added it last; 0: at first */
byte log_of[OPS + 1];            /* messages stored by so many operations */
byte done, free, slot, hole, made, name;

/* The names of the properties. */
hidden byte a_lasting_series_is_found;
hidden byte a_hit_is_of_the_name_asked_for;
hidden byte a_living_series_state_is_its_own;
hidden byte an_entry_leads_to_a_complete_record;

inline store_name(record) {
    store(name_at(record, 0), part_of(name, 0), RELAXED);
    store(name_at(record, 1), part_of(name, 1), RELAXED)
}

inline store_slot() {
    slot = HOME;
    do
    :: own(slot_at(slot)) != 0 -> slot = (slot + 1) % SLOTS
    :: else -> break
    od;
    store(slot_at(slot), entry_of(free, made), RELEASE_SLOT); /* [SLOT] */
    slot = 0
}

inline insert() { /* insert_series */
    free = 0;
    do
    :: own(epoch_at(free)) & 1 -> free++
    :: else -> break
    od;
    made = own(epoch_at(free)) + 1; /* the epoch to be */
    name_of[free * EPOCHS + made] = name;
    state_of[free * EPOCHS + made] = done + 1;
    record_of[name] = free;
    added_by[name] = done;
#ifdef SLOT_BEFORE_RECORD
    store_slot();
#endif
#ifdef EPOCH_BEFORE_NAME
    store(epoch_at(free), made, RELEASE_EPOCH);
#endif
    store_name(free);
    store(state_at(free), done + 1, RELAXED); /* reset_series stands for all of the record's state */
#ifndef EPOCH_BEFORE_NAME
    store(epoch_at(free), made, RELEASE_EPOCH); /* [EPOCH] */
#endif
#ifndef SLOT_BEFORE_RECORD
    store_slot();
#endif
    free = 0;
    made = 0
}

inline remove_entry() { /* remove_entry [TABLE] [SLOT] */
#ifndef TABLE_EVEN_MEANWHILE
    store(TABLE, own(TABLE) | 1, RELAXED);
#endif
    fence_release(BEGIN_TABLE); /* begin_change [TABLE] */
#ifndef HOLE_LEFT
    slot = (hole + 1) % SLOTS;
    do
    :: own(slot_at(slot)) == 0 -> break
    :: own(slot_at(slot)) != 0 && (slot + SLOTS - HOME) % SLOTS >= (slot + SLOTS - hole) % SLOTS ->
        store(slot_at(hole), own(slot_at(slot)), RELAXED); /* [SLOT] behind the fence of begin_change */
        hole = slot;
        slot = (slot + 1) % SLOTS
    :: else -> slot = (slot + 1) % SLOTS
    od;
    slot = 0;
#endif
    store(slot_at(hole), 0, RELAXED);
    store(TABLE, (own(TABLE) | 1) + 1, END_TABLE) /* end_change [TABLE] */
}

inline remove() { /* remove_series */
    free = record_of[name];
    record_of[name] = NOWHERE;
    hole = HOME;
    do
    :: record_in(own(slot_at(hole))) != free -> hole = (hole + 1) % SLOTS
    :: else -> break
    od;
#ifndef EPOCH_BEHIND_ENTRY
    store(epoch_at(free), own(epoch_at(free)) + 1, RELAXED);
#endif
    fence_release(REMOVE_EPOCH); /* [EPOCH] */
    remove_entry();
#ifdef EPOCH_BEHIND_ENTRY
    store(epoch_at(free), own(epoch_at(free)) + 1, RELAXED);
#endif
    hole = 0;
    free = 0
}

init {
    atomic {
        record_of[1] = NOWHERE;
        name = 0; insert();
        name = 2; insert();
        fenced = stored;
        log_of[0] = stored;
        do
        :: done < OPS ->
            done++;
            if
            :: name = 0 :: name = 1 :: name = 2
            fi;
            if
            :: record_of[name] == NOWHERE -> insert()
            :: else -> remove()
            fi;
            log_of[done] = stored
        :: else -> break
        od;
        name = 0;
        run reader()
    }
}

proctype reader() {
    VIEW;
    byte wanted, told, version, probe, entry, epoch, part, again;
    bool same;
    atomic {
        if
        :: wanted = 0 :: wanted = 1 :: wanted = 2
        fi;
        do
        :: told < OPS -> told++
        :: break
        od;
        known = log_of[told] /* by a bell, or by the file's having got its name */
    }

    /* find_series, one attempt */
    load(TABLE, ACQUIRE_TABLE, version);                                  /* [TABLE] */
    do
    :: probe < SLOTS ->
        load_once(slot_at((HOME + probe) % SLOTS), ACQUIRE_SLOT, entry);  /* [SLOT] */
        if
        :: entry == 0 -> break
        :: else
        fi;
        /* epoch_if_named */
        load(epoch_at(record_in(entry)), ACQUIRE_EPOCH, epoch);           /* [EPOCH] */
        assert(epoch >= epoch_in(entry) || an_entry_leads_to_a_complete_record);
        load_once(name_at(record_in(entry), 0), RELAXED, part);
        same = part == part_of(wanted, 0);
        load_once(name_at(record_in(entry), 1), RELAXED, part);
#ifndef HALF_A_NAME_COMPARED
        same = same && part == part_of(wanted, 1);
#endif
        fence_acquire(JUDGE_EPOCH);                                       /* [EPOCH] */
#ifndef EPOCH_UNCHECKED
        load(epoch_at(record_in(entry)), RELAXED, again);
        same = same && again == epoch;
#endif
#ifndef EVEN_EPOCH_TAKEN
        same = same && (epoch & 1);
#endif
        if
        :: same -> goto hit
        :: else -> probe++
        fi
    :: else -> break
    od;
#ifndef TABLE_VERSION_IGNORED
    load(TABLE, RELAXED, again); /* no fence: every slot was loaded with acquire [TABLE] */
    if
    :: (version & 1) || again != version -> goto none /* once more */
    :: else
    fi;
#endif
    assert((record_of[wanted] == NOWHERE || added_by[wanted] > told) || a_lasting_series_is_found);
    goto none;

hit:
    probe = record_in(entry);
    assert(name_of[probe * EPOCHS + epoch] == wanted || a_hit_is_of_the_name_asked_for);
    load_once(state_at(probe), RELAXED, part);
    fence_acquire(ON);                                                    /* still_alive [EPOCH] */
    load(epoch_at(probe), RELAXED, again);
    assert((again != epoch || part == state_of[probe * EPOCHS + epoch]) || a_living_series_state_is_its_own);

none:
    skip
}
