/* Feeds that end or are killed at any step, their successors' files, and a trader that follows. segment/writer.py,
 * segment/reader.py, trader/market.py and the turn in trader/process.py.
 *
 * Instance: 3 feeds, one after the other (the lock dies with its holder: lock.pml), the last one lives. Each may find
 * too little room for two files, and end in order. The kernel's calls (rename, unlink, futex) happen at once, and
 * order what is before and behind them; [BELL] orders `superseded`, so here no store is seen late.
 * With TIMEOUTS a sleeper may wake by itself at any time, as traders do twice a second, and feeds are killed
 * everywhere. Without, nobody wakes by himself: so it is shown that no way but one takes half a second.
 */
#define LAST 3

hidden byte no_file_is_read_before_it_is_ready;
hidden byte nobody_computes_on_torn_data;

byte path;                  /* which file has the path; 0: none */
bool header[LAST + 1];
bool ready[LAST + 1];
bool superseded[LAST + 1];
bool odd[LAST + 1];         /* any of the sequences: a change has begun */
bool data[LAST + 1];        /* a first candle */
byte bell[LAST + 1];
byte sleeps_by;             /* the file by whose bell the trader sleeps; 0: it is awake */
bool follows;               /* it has seen the last feed's candle */

#ifdef LTL
ltl a_trader_follows { <> follows }
#endif

inline ring(file) { /* bell_advance; bell_wake */
    skip;
#ifndef BELLS_NOT_RUNG
    may_die();
    bell[file]++;
    may_die();
    if
    :: sleeps_by == file -> sleeps_by = 0
    :: else
    fi
#endif
}

inline may_die() { /* kill -9 */
    if
    :: self < LAST && !between -> goto dead
    :: skip
    fi
}

/* The one way that takes a timeout: killed behind the rename, before all is rung. */
inline renamed() {
#ifndef TIMEOUTS
    between = true
#else
    skip
#endif
}

inline mark(file) {
    may_die();
#ifndef NOT_MARKED
    superseded[file] = true
#endif
}

inline put_in_place() {
    may_die();
    atomic {
        path = self;
        renamed()
    }
}

inline make_ready() {
    may_die();
    ready[self] = true
}

inline remove(file) {
#ifndef MARKED_BEHIND_UNLINK
    mark(file);
#endif
    may_die();
    atomic {
        path = 0;
        renamed()
    };
#ifdef MARKED_BEHIND_UNLINK
    mark(file);
#endif
    ring(file);
    between = false
}

active proctype feed() {
    byte self, previous;
    bool between;

next: /* SegmentWriter.create */
    self++;
    between = false;
    previous = path;
    if
    :: previous && !ready[previous] -> previous = 0 /* read_header refuses it */
    :: else
    fi;
    if
    :: previous -> remove(previous); previous = 0 /* no room for both */
    :: skip
    fi;
#ifdef READY_BEFORE_HEADER
    make_ready();
#endif
#ifdef RENAME_BEFORE_READY
    put_in_place();
    between = false;
#endif
    may_die();
    header[self] = true;
#ifndef READY_BEFORE_HEADER
    make_ready(); /* [READY] */
#endif
    if
    :: previous ->
#ifndef MARKED_BEHIND_RENAME
        mark(previous);
#endif
#ifdef RUNG_BEFORE_RENAME
        ring(previous);
#endif
#ifndef RENAME_BEFORE_READY
        put_in_place();
#endif
#ifdef MARKED_BEHIND_RENAME
        mark(previous);
#endif
#ifndef RUNG_BEFORE_RENAME
        ring(previous);
#endif
        between = false
    :: else
#ifndef RENAME_BEFORE_READY
        put_in_place();
        between = false
#endif
    fi;
    previous = 0;
    /* A candle. */
    may_die();
    odd[self] = true;
    may_die();
    data[self] = true;
    may_die();
    odd[self] = false;
    ring(self);
    if
    :: self < LAST -> remove(self) /* SegmentWriter.close */
    :: skip
    fi;

dead:
    previous = 0;
    between = false;
    if
    :: self < LAST -> goto next
    :: else
    fi
}

inline take_token() {
    token_of = file;
    token = (file -> bell[file] : 0)
}

inline open() { /* SegmentMarket._open */
    file = path;
    if
    :: file && !ready[file] -> file = 0
    :: else
    fi;
    assert(file == 0 || header[file] || no_file_is_read_before_it_is_ready);
    if
#ifndef SUPERSEDED_OPENED
    :: file && superseded[file] -> file = 0
#endif
    :: else
    fi
}

active proctype trader() {
    byte file, token, token_of;

    do
    ::
#ifndef TOKEN_BEHIND_LOOK
        take_token();
#endif
        /* SegmentMarket.refresh */
        if
        :: file == 0 -> open()
        :: file && superseded[file] -> open()
        :: else
        fi;
        /* The turn: a window of odd sequences is never valid, and it doesn't wait for them. */
        if
        :: file && data[file] && odd[file] ->
#ifdef ODD_TAKEN
            assert(nobody_computes_on_torn_data)
#endif
#ifdef ODD_WAITED_FOR
            !odd[file]
#endif
            skip
        :: file && data[file] && !odd[file] ->
            if
            :: file == LAST -> break
            :: else
            fi
        :: else
        fi;
#ifdef TOKEN_BEHIND_LOOK
        take_token();
#endif
        /* SegmentMarket.wait */
        if
        :: file == 0 /* looks again soon */
#ifndef FOREIGN_TOKEN
        :: file && token_of != file
        :: file && token_of == file ->
#else
        :: file ->
#endif
            atomic { /* bell_sleep */
                if
                :: bell[file] == token -> sleeps_by = file
                :: else
                fi
            };
            if
            :: sleeps_by == 0
#ifdef TIMEOUTS
            :: sleeps_by -> sleeps_by = 0
#endif
            fi
        fi
    od;
    follows = true
}
