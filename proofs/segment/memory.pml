/* The memory that the models run on: one writer's stores, and what a reader that doesn't share its order may see.
 *
 * It is the promise-free part of the "promising semantics" (Kang and others, POPL 2017: views and messages), cut down
 * to one writer. The writer's stores are messages in a log, in its program order. A message carries how much of the log
 * is known to whoever synchronises with it: for a release store all before it, for a relaxed one all before the
 * writer's last release fence. A reader may take any message of a word that is not older than
 *   - the one it took of that word before (coherence), and
 *   - the newest one in the part of the log that it knows.
 * What a message carries becomes known at once by an acquire load; by a relaxed one, at the next acquire fence.
 *
 * A reader that runs behind the writer, but may take old messages, sees all that one beside it can see: readers store
 * nothing, so the writer's run doesn't depend on them; and a killed writer's log is the beginning of a longer one's.
 * So, where nobody sleeps, the writer goes first and the reader looks back: fewer states, the same outcomes.
 */

#define RELAXED 0
#define RELEASE 1
#define ACQUIRE 2
#define ON 1
#define OFF 0

#ifndef STORES
#define STORES 100
#endif

byte value[STORES];   /* of each message; message 0 is the zero that every word begins with */
byte carries[STORES]; /* so many messages are known to who synchronises with this one */
byte before[STORES];  /* the word's message before this one */
byte newest[WORDS];   /* each word's newest message */
byte stored;          /* messages in the log */
byte fenced;          /* of these, before the writer's last release fence */

inline store(word, what, order) {
    d_step {
        stored++;
        value[stored] = what;
        before[stored] = newest[word];
        newest[word] = stored;
        if
        :: order == RELEASE -> carries[stored] = stored
        :: else -> carries[stored] = fenced
        fi
    }
}

/* What the writer itself reads of its own words. */
#define own(word) value[newest[word]]

inline fence_release(there) {
    if
    :: there -> fenced = stored
    :: else
    fi
}

/* A reader's view; each reader has its own. */
#define VIEW                                                                   \
    byte known;     /* messages known */                                       \
    byte coming;    /* … and from the next acquire fence on */                 \
    byte taken[WORDS]; /* the message last taken of each word */               \
    byte at

inline take(word, order, into, least) {
    at = newest[word];
    do
    :: at > least && at > known -> at = before[at]
    :: break
    od;
    if
    :: carries[at] > coming -> coming = carries[at]
    :: else
    fi;
    if
    :: order == ACQUIRE && carries[at] > known -> known = carries[at]
    :: else
    fi;
    into = value[at]
}

inline load(word, order, into) {
    atomic {
        take(word, order, into, taken[word]);
        taken[word] = at;
        at = 0
    }
}

/* Of a word that is loaded only once: nothing to remember. */
inline load_once(word, order, into) {
    atomic {
        take(word, order, into, 0);
        at = 0
    }
}

inline fence_acquire(there) {
    atomic {
        if
        :: there && coming > known -> known = coming
        :: else
        fi
    }
}
