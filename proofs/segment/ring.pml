/* The signal ring: a trader that pushes and a feed that drains, each killed at any step and started again. ring.py,
 * ringpositions.py; the broker is what the feed publishes to, consumers know a signal by its id.
 *
 * Instance: 2 slots; 3 candles, of which each brings one signal, its id the candle; the trader is killed at most
 * TRADER_KILLS times, the feed FEED_KILLS times. The trader's stores go through memory.pml. The feed's go by pwrite,
 * whose copy isn't atomic: tail and complement come one behind the other, each of them in two pieces, in any order.
 * What memory.pml leaves out, a load that waits until behind a later store, is put in by hand ([TAIL]).
 */
#define SLOTS 2
#ifndef CANDLES
#define CANDLES 3
#endif
#ifndef TRADER_KILLS
#define TRADER_KILLS 1
#endif
#ifndef FEED_KILLS
#define FEED_KILLS 1
#endif

/* Words. A slot is its position, and payload with checksum: position * 8 + candle. */
#define HEAD 0
#define slot_at(position) (1 + 2 * ((position) % SLOTS))
#define WORDS 5

/* The ends of each pair, and the steps; a mutation defines one of them otherwise. */
#ifndef RELEASE_HEAD
#define RELEASE_HEAD RELEASE /* push: store, release [HEAD] */
#endif
#ifndef ACQUIRE_HEAD
#define ACQUIRE_HEAD ON /* pending: fence_acquire [HEAD] */
#endif

#define STORES 30
#include "memory.pml"

/* The names of the properties. */
hidden byte no_signal_is_lost;
hidden byte no_signal_is_doubled_without_a_kill;
hidden byte no_slot_fails_its_checks;
hidden byte the_head_is_possible;
hidden byte a_position_is_whole;

byte tail_low, tail_high, complement_low, complement_high; /* two pieces each; the complement told as what it says */
byte version, session[2], open_time[2];                    /* a position's pairs; both parts are the candle */
byte published[CANDLES + 1];
byte trader_kills, feed_kills;
bool trader_done;

#ifdef LTL
bool drained;
ltl all_is_drained { <> drained }
#endif

inline may_die(deaths, most) { /* kill -9 */
    atomic {
        if
        :: deaths < most -> deaths++; goto dead
        :: skip
        fi
    }
}

inline set_position() { /* RingPositions.store */
    may_die(trader_kills, TRADER_KILLS);
#ifdef POSITION_IN_PLACE
    session[version & 1] = candle;
    may_die(trader_kills, TRADER_KILLS);
    open_time[version & 1] = candle
#else
    session[(version + 1) & 1] = candle;
    may_die(trader_kills, TRADER_KILLS);
    open_time[(version + 1) & 1] = candle;
    may_die(trader_kills, TRADER_KILLS);
    version = (version + 1) & 3
#endif
}

inline store_slot() {
    may_die(trader_kills, TRADER_KILLS);
    store(slot_at(own(HEAD)), own(HEAD), RELAXED);
    may_die(trader_kills, TRADER_KILLS);
    store(slot_at(own(HEAD)) + 1, own(HEAD) * 8 + candle, RELAXED)
}

inline store_head() {
    may_die(trader_kills, TRADER_KILLS);
    store(HEAD, own(HEAD) + 1, RELEASE_HEAD) /* [HEAD] */
}

inline read_tail() { /* _mapped_tail; on attaching, _read_tail */
    found = tail_low + 2 * tail_high; /* [TAIL] */
    if
#ifndef TAIL_WITHOUT_COMPLEMENT
    :: found != complement_low + 2 * complement_high /* the tail known before will do */
    :: found == complement_low + 2 * complement_high ->
#else
    :: true ->
#endif
        if
#ifndef TAIL_READ_ONCE
        :: found == tail_low + 2 * tail_high -> tail = found
        :: else
#else
        :: tail = found
#endif
        fi
    fi;
    found = 0
}

active proctype trader() {
    byte candle, tail, found;

start:
    atomic { /* kept by the supervisor, mapped by the trader */
        candle = open_time[version & 1];
        assert(session[version & 1] == open_time[version & 1] || a_position_is_whole);
        candle++
    }
    read_tail();
    do
    :: candle <= CANDLES ->
#ifdef POSITION_BEFORE_PUSH
        set_position();
#endif
#ifdef SLOT_BEFORE_TAIL
        store_slot(); /* what a missing acquire at [TAIL] would allow */
#endif
#ifndef FULL_UNCHECKED
        do
        :: own(HEAD) - tail < SLOTS -> break
        :: else -> read_tail()
        od;
#endif
#ifdef HEAD_BEFORE_SLOT
        store_head();
        if
        :: true ->
            may_die(trader_kills, TRADER_KILLS);
            store(slot_at(own(HEAD) - 1), own(HEAD) - 1, RELAXED);
            store(slot_at(own(HEAD) - 1) + 1, (own(HEAD) - 1) * 8 + candle, RELAXED)
        fi;
#else
#ifndef SLOT_BEFORE_TAIL
        store_slot();
#endif
        store_head();
#endif
#ifndef POSITION_BEFORE_PUSH
        set_position();
#endif
        candle++
    :: else -> break
    od;
    candle = 0;
    trader_done = true;
    goto end;

dead:
    candle = 0;
    tail = 0;
    goto start;

end:
    skip
}

/* One word of the pair: its pieces in any order. */
inline copy_word(low, high) {
    if
    :: low = cursor % 2; high = cursor / 2
    :: high = cursor / 2; low = cursor % 2
    fi
}

inline acknowledge() { /* one pwrite: a kill waits until it is through */
    if
    :: copy_word(tail_low, tail_high); copy_word(complement_low, complement_high)
    :: copy_word(complement_low, complement_high); copy_word(tail_low, tail_high)
    fi;
    tail = cursor
}

active proctype feed() {
    VIEW;
    byte tail, cursor, head, found;
    bool sound;

start: /* SignalRing.attach */
    atomic {
        tail = tail_low + 2 * tail_high;
        cursor = tail;
        known = stored /* it and what it reads were made before it */
    }
    do
    ::
        /* pending, one slot */
#ifdef LTL
        taken[HEAD] = newest[HEAD]; /* no store stays unseen for good */
#endif
        load(HEAD, RELAXED, head);
        fence_acquire(ACQUIRE_HEAD); /* [HEAD] */
        assert((cursor <= head && head <= tail + SLOTS) || the_head_is_possible);
        if
        :: cursor < head ->
            head = 0;
#ifdef TAIL_BEFORE_READ
            cursor++;
            acknowledge(); /* what a missing release at [TAIL] would allow */
            cursor--;
#endif
            load(slot_at(cursor), RELAXED, found);
            sound = found == cursor;
            load(slot_at(cursor) + 1, RELAXED, found);
            sound = sound && found / 8 == cursor;
            assert(sound || no_slot_fails_its_checks);
            cursor++;
            sound = false;
#ifdef TAIL_BEFORE_PUBLISH
            acknowledge();
#endif
            may_die(feed_kills, FEED_KILLS);
            atomic { /* and the broker's acknowledgement */
                published[found % 8]++;
                assert(published[found % 8] <= (1 + trader_kills) * (1 + feed_kills) ||
                       no_signal_is_doubled_without_a_kill);
                found = 0
            }
            may_die(feed_kills, FEED_KILLS)
        :: else -> head = 0
        fi;
        if
#ifndef TAIL_BEFORE_PUBLISH
        :: tail < cursor -> acknowledge()
#endif
        :: trader_done && tail == cursor && tail == own(HEAD) -> break
#ifndef LTL
        :: skip /* more may be taken while earlier ones are in flight */
#else
        :: tail == cursor && !(trader_done && tail == own(HEAD))
#endif
        fi
    od;
    found = 1;
    do
    :: found <= CANDLES -> assert(published[found] || no_signal_is_lost); found++
    :: else -> break
    od;
    found = 0;
#ifdef LTL
    drained = true;
#endif
    goto end;

dead:
    head = 0;
    found = 0;
    sound = false;
    goto start;

end:
    skip
}
