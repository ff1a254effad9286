/* Feeds that end or are killed at any step, their successors' files, and a trader that follows. segment/writer.py,
 * segment/reader.py, trader/market.py and the turn in trader/process.py.
 *
 * Instance: 3 feeds, one after the other (the lock dies with its holder: lock.pml), the last one lives. Each may find
 * too little room for two files, and end in order. The kernel's calls (rename, unlink, futex) happen at once, and
 * order what is before and behind them; [BELL] orders `superseded`, so here no store is seen late.
 * With TIMEOUTS a sleeper may wake by itself at any time, as traders do twice a second. Without, nobody wakes by
 * himself: so it is shown that nothing waits for that, wherever feeds are killed. Growth gives the path away by the
 * same steps as a successor.
 */
#define LAST 3

hidden byte no_file_is_read_before_it_is_ready;
hidden byte nobody_computes_on_torn_data;

byte path;                  /* which file has the path; 0: none */
byte aside;                 /* and which the second name, segment.old: its readers may not have been rung */
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
    :: self < LAST -> goto dead
    :: skip
    fi
}

inline mark(file) {
    may_die();
#ifndef NOT_MARKED
    superseded[file] = true
#endif
}

inline put_in_place() {
    may_die();
    path = self
}

inline make_ready() {
    may_die();
    ready[self] = true
}

inline set_aside(file) { /* _Previous.set_aside: link */
    may_die();
#ifndef NOT_SET_ASIDE
    aside = file
#endif
}

inline forget_aside() {
    may_die();
    aside = 0
}

inline remove(file) { /* _Previous.remove, SegmentWriter.close */
#ifndef MARKED_BEHIND_UNLINK
    mark(file);
#endif
    may_die();
#ifdef NOT_SET_ASIDE
    path = 0; /* unlink */
#else
    atomic { path = 0; aside = file } /* rename */
#endif
#ifdef MARKED_BEHIND_UNLINK
    mark(file);
#endif
    ring(file);
    forget_aside()
}

active proctype feed() {
    byte self, previous;

next: /* SegmentWriter.create */
    self++;
    if
    :: aside -> /* left by one that was killed before it had rung */
        previous = aside;
        mark(previous);
        ring(previous);
        forget_aside()
    :: else
    fi;
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
#endif
    may_die();
    header[self] = true;
#ifndef READY_BEFORE_HEADER
    make_ready(); /* [READY] */
#endif
    if
    :: previous ->
        set_aside(previous);
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
        forget_aside()
    :: else
#ifndef RENAME_BEFORE_READY
        put_in_place()
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
