/* A position in a signal ring, read by another process while the trader stores it. ringpositions.py.
 *
 * Instance: one entry, of one series at first; 3 stores, then maybe its claiming by another series, and stores of that.
 * The reader copies the whole entry until two copies are alike. What a kill leaves is in ring.pml.
 */
#ifndef POSITIONS
#define POSITIONS 5
#endif

/* Words. */
#define VERSION 0
#define NAME 1
#define pair_at(which, part) (2 + 2 * (which) + (part))
#define WORDS 6

/* The ends of the pair, and the steps; a mutation defines one of them otherwise. */
#ifndef BEGIN_POSITION
#define BEGIN_POSITION ON /* RingPositions.store: fence_release [POSITION] */
#endif
#ifndef RELEASE_POSITION
#define RELEASE_POSITION RELEASE /* RingPositions.store: store, release [POSITION] */
#endif
#ifndef CLAIM_POSITION
#define CLAIM_POSITION ON /* RingPositions._claim: fence_release [POSITION] */
#endif
#ifndef ACQUIRE_POSITION
#define ACQUIRE_POSITION ON /* RingPositions.all: fence_acquire [POSITION] */
#endif

#define STORES 40
#include "memory.pml"

/* The names of the properties. */
hidden byte a_position_read_is_whole_and_of_its_series;

#define VERSIONS 12
byte position_of[2 * VERSIONS]; /* by series and version */
byte name, position, version;

#ifdef VERSIONS_REPEATED
#define next_version (own(VERSION) + 1)
#else
#define next_version (2 * position + ((own(VERSION) & 1) ^ 1)) /* 2 * RING_POSITION_CLOCK + the other pair's bit */
#endif

inline store_pair(which) {
    store(pair_at(which, 0), position, RELAXED);
    store(pair_at(which, 1), position, RELAXED)
}

inline set_position() { /* RingPositions.store */
    position++;
    version = next_version;
    position_of[name * VERSIONS + version] = position;
    fence_release(BEGIN_POSITION); /* [POSITION] */
#ifdef VERSION_BEFORE_PAIR
    store(VERSION, version, RELEASE_POSITION);
#endif
#ifdef PAIR_IN_PLACE
    store_pair(own(VERSION) & 1);
    version = version ^ 1;
    position_of[name * VERSIONS + version] = position;
#else
    store_pair(version & 1);
#endif
#ifndef VERSION_BEFORE_PAIR
    store(VERSION, version, RELEASE_POSITION); /* [POSITION] */
#endif
    version = 0
}

inline claim() { /* RingPositions._claim */
    name = 1;
#ifndef VERSION_KEPT_BY_CLAIM
    store(VERSION, 0, RELEASE);
#endif
    fence_release(CLAIM_POSITION); /* [POSITION] */
    store(NAME, name, RELAXED)
}

init {
    atomic {
        set_position();
        fenced = stored;
        do
        :: position < POSITIONS -> set_position()
        :: position < POSITIONS && name == 0 -> claim()
        :: position == POSITIONS -> break
        od;
        run reader()
    }
}

proctype reader() {
    VIEW;
    byte first[WORDS], found, i;
    known = 3;
    do
    :: i < WORDS -> load(i, RELAXED, first[i]); i++
    :: else -> break
    od;
    fence_acquire(ACQUIRE_POSITION); /* [POSITION] */
#ifndef COPIED_ONCE
    i = 0;
    do
    :: i < WORDS ->
        load(i, RELAXED, found);
        if
        :: found != first[i] -> goto none /* again */
        :: else -> i++
        fi
    :: else -> break
    od;
#endif
    assert((first[VERSION] == 0 ||
            (first[pair_at(first[VERSION] & 1, 0)] == position_of[first[NAME] * VERSIONS + first[VERSION]] &&
             first[pair_at(first[VERSION] & 1, 1)] == position_of[first[NAME] * VERSIONS + first[VERSION]])) ||
           a_position_read_is_whole_and_of_its_series);

none:
    skip
}
