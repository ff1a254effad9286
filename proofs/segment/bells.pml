/* Doorbells: who sleeps by a bell is woken by all that was written before it was rung. protocol.h, and the reader's turn
 * in trader/process.py: token, look, wait.
 *
 * Instance: 3 candles; one bell, on which a trader and a debugger wait; each is woken for nothing once. Writer and
 * readers run side by side, on the memory of memory.pml: a look may find old candles. FUTEX_WAIT compares and goes to
 * sleep, FUTEX_WAKE wakes, in one step each: the kernel does both under one lock, behind full barriers.
 */
#define CANDLES 3
#define READERS 2

/* Words. */
#define COUNT 0
#define BELL 1
#define WORDS 2

/* The ends of the pair, and the steps; a mutation defines one of them otherwise. */
#ifndef RELEASE_BELL
#define RELEASE_BELL RELEASE /* bell_advance: fetch_add, release [BELL] */
#endif
#ifndef ACQUIRE_BELL
#define ACQUIRE_BELL ACQUIRE /* bell_value: load_acquire [BELL] */
#endif
#ifndef BELL_VALUES
#define BELL_VALUES 16 /* in truth 2^32 */
#endif

#define STORES 10
#include "memory.pml"

bool asleep[READERS];
bool has_seen[READERS];

#ifdef LTL
ltl every_candle_is_seen { <> (has_seen[0] && has_seen[1]) }
#endif

inline advance() { /* bell_advance */
    store(BELL, (own(BELL) + 1) % BELL_VALUES, RELEASE_BELL) /* [BELL] */
}

inline wake() { /* bell_wake: all who wait */
    atomic {
        if
#ifdef ONE_WOKEN
        :: asleep[0] -> asleep[0] = false
        :: asleep[1] -> asleep[1] = false
        :: else
#else
#ifdef NOBODY_WOKEN
        :: true
#else
        :: true -> asleep[0] = false; asleep[1] = false
#endif
#endif
        fi
    }
}

active proctype writer() {
    byte candle;
    do
    :: candle < CANDLES ->
        candle++;
#ifdef BELL_BEFORE_COUNT
        advance();
        wake();
#endif
        store(COUNT, candle, RELEASE); /* the end of an append */
#ifdef WAKE_BEFORE_ADVANCE
        wake();
        advance()
#endif
#ifndef BELL_BEFORE_COUNT
#ifndef WAKE_BEFORE_ADVANCE
        advance();
        wake()
#endif
#endif
    :: else -> break
    od
}

proctype reader(byte me) {
    VIEW;
    byte token, found;
    bool startled;
    do
    ::
#ifdef TOKEN_BEHIND_LOOK
        load(COUNT, RELAXED, found);
#endif
        load(BELL, ACQUIRE_BELL, token); /* bell_value [BELL] */
#ifndef TOKEN_BEHIND_LOOK
        load(COUNT, RELAXED, found);     /* it looks at its series */
#endif
        if
        :: found == CANDLES -> break
        :: else -> found = 0
        fi;
        atomic { /* bell_sleep */
            if
#ifndef SLEEP_WITHOUT_COMPARE
            :: own(BELL) != token -> taken[BELL] = newest[BELL] /* EAGAIN: what the kernel saw stands for us too */
            :: else ->
#else
            :: true ->
#endif
                asleep[me] = true
            fi;
            token = 0
        }
        if
        :: !asleep[me]
        :: asleep[me] && !startled -> startled = true; asleep[me] = false
        fi
    od;
    has_seen[me] = true
}

init {
    atomic {
        run reader(0);
        run reader(1)
    }
}
