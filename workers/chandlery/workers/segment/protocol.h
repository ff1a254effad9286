/* The protocol of the segment, on the accesses of access.h, and the futex. No Python here.
 *
 * One writer process, any number of readers that map the file read-only; the writer never waits for them.
 * Both ends of each release/acquire pair carry the same [LABEL]:
 *
 *   [COUNT]    rows below `count` are complete
 *   [RESERVE]  a slot's old row is still whole while `reserved` says so
 *   [REVISION] rows and session are those of an even, unchanged revision
 *   [FORMING]  the forming row is whole under an even, unchanged sequence
 *   [EPOCH]    a record's name and state belong to an odd, unchanged epoch
 *   [SLOT]     a hash slot's record is complete
 *   [TABLE]    no entry moved while an even table version stood still
 *   [BELL]     what was written before a bell was rung is seen by who sees its new value
 *
 * Payload words are relaxed atomics, so that a torn read is a wrong value and never undefined behaviour; the
 * fences beside them order them against the word that guards them.
 */
#ifndef CHANDLERY_SEGMENT_PROTOCOL_H
#define CHANDLERY_SEGMENT_PROTOCOL_H

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <sched.h>
#include <stdint.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "layout.h"

/* A preempted writer needs a turn on this core before it can finish; each attempt gives it one. Readers give up
 * after this many, 0.1 ms where nobody else wants the core, since a killed writer never finishes. Where others want
 * it, one turn may take 30 ms: after so long there is one attempt more. A writer that lives rings when it has finished. */
enum { MAX_ATTEMPTS = 64 };
#ifndef SEGMENT_PATIENCE_NS
#define SEGMENT_PATIENCE_NS 2000000
#endif

typedef struct {
    uint8_t *base;
    Geometry geometry;
} Segment;

typedef struct {
    int64_t open_time_ms;
    double open, high, low, close, volume;
    int64_t trades;
} Row;

typedef struct {
    uint64_t revision, count;
    int64_t session;
} Snapshot;

#include "access.h" // needs Segment

static inline uint64_t double_bits(double value) {
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static inline double bits_double(uint64_t bits) {
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* ---- places ---- */

static inline uint8_t *record_of(const Segment *s, uint64_t series) {
    return s->base + s->geometry.records_offset + series * RECORD_BYTES;
}

static inline uint8_t *block_of(const Segment *s, uint64_t series) {
    return s->base + s->geometry.data_offset + series * s->geometry.block_bytes;
}

static inline uint8_t *stamps_of(const Segment *s, uint64_t series, uint64_t ordinal) {
    return block_of(s, series) + COLUMN_COUNT * s->geometry.column_bytes +
           ordinal % s->geometry.stamp_rows * (STAMP_COUNT * WORD_BYTES);
}

static inline uint8_t *hash_slot(const Segment *s, uint64_t slot) {
    return s->base + s->geometry.hash_offset + slot * WORD_BYTES;
}

static inline uint8_t *bell_of(const Segment *s, uint64_t bell) {
    return s->base + s->geometry.bells_offset + bell * BELL_BYTES;
}

/* ---- turns ---- */

static inline uint64_t monotonic_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* The writer's turn behind an attempt that failed; makes the next one the last where that took too long. */
static inline void give_writer_turn(int *attempt, uint64_t *begun_ns) {
    if (*attempt == MAX_ATTEMPTS)
        return; /* that was the last */
    if (*attempt == 0)
        *begun_ns = monotonic_ns();
    sched_yield();
    if (monotonic_ns() - *begun_ns > SEGMENT_PATIENCE_NS)
        *attempt = MAX_ATTEMPTS - 1;
}

/* ---- sequences: odd while what they guard changes ---- */

/* Pairs, through the fence, with the check after a reader's fence_acquire(). */
static inline uint64_t begin_change(uint8_t *sequence) {
    uint64_t now = load_relaxed(sequence) | 1; /* odd already: the change before this one was cut short */
    store_relaxed(sequence, now);
    fence_release();
    return now;
}

static inline void end_change(uint8_t *sequence, uint64_t begun) {
    store_release(sequence, begun + 1);
}

/* ---- bells ---- */

static inline uint32_t bell_value(const Segment *s, uint64_t bell) {
    return load_acquire_32(bell_of(s, bell)); // [BELL]
}

static inline void bell_advance(const Segment *s, uint64_t bell) {
    add_release_32(bell_of(s, bell), 1); // [BELL]
}

/* Wakes all who wait: one waits as a rule, a debugger may wait beside it. Not FUTEX_PRIVATE: other processes. */
static inline void bell_wake(const Segment *s, uint64_t bell) {
    syscall(SYS_futex, bell_of(s, bell), FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

/* Sleeps while the bell stands at `seen`; 0 or the errno that ended the sleep. */
static inline int bell_sleep(const Segment *s, uint64_t bell, uint32_t seen, const struct timespec *timeout) {
    return syscall(SYS_futex, bell_of(s, bell), FUTEX_WAIT, seen, timeout, NULL, 0) == 0 ? 0 : errno;
}

/* ---- closed rows, written ---- */

static inline void store_row(const Segment *s, uint64_t series, uint64_t ordinal, const Row *row) {
    const uint64_t words[COLUMN_COUNT] = {(uint64_t)row->open_time_ms, double_bits(row->open),  double_bits(row->high),
                                          double_bits(row->low),       double_bits(row->close), double_bits(row->volume),
                                          (uint64_t)row->trades};
    const uint64_t rows = s->geometry.rows, column_bytes = s->geometry.column_bytes;
    uint8_t *at = block_of(s, series) + ordinal % rows * WORD_BYTES;
    for (int column = 0; column < COLUMN_COUNT; column++, at += column_bytes) {
        store_relaxed(at, words[column]);
        store_relaxed(at + rows * WORD_BYTES, words[column]);
    }
}

static inline void store_forming(uint8_t *record, const Row *row, const int64_t *stamps) {
    const uint64_t words[COLUMN_COUNT] = {(uint64_t)row->open_time_ms, double_bits(row->open),  double_bits(row->high),
                                          double_bits(row->low),       double_bits(row->close), double_bits(row->volume),
                                          (uint64_t)row->trades};
    uint64_t begun = begin_change(record + RECORD_FORMING_SEQUENCE); // [FORMING]
    for (int column = 0; column < COLUMN_COUNT; column++)
        store_relaxed(record + RECORD_FORMING + column * WORD_BYTES, words[column]);
    for (int stamp = 0; stamp < STAMP_COUNT; stamp++)
        store_relaxed(record + RECORD_FORMING_STAMPS + stamp * WORD_BYTES, (uint64_t)stamps[stamp]);
    end_change(record + RECORD_FORMING_SEQUENCE, begun); // [FORMING]
}

static inline void forget_forming(uint8_t *record) {
    uint64_t begun = begin_change(record + RECORD_FORMING_SEQUENCE); // [FORMING]
    store_relaxed(record + RECORD_FORMING, (uint64_t)-1);
    end_change(record + RECORD_FORMING_SEQUENCE, begun); // [FORMING]
}

/* The caller has checked that the row is newer than the last. */
/* `live`: the row comes as it happens; else it was read later. A backfilled one comes from no trade of the session. */
static inline void append_row(const Segment *s, uint64_t series, const Row *row, const int64_t *stamps, int backfill,
                              int live) {
    uint8_t *record = record_of(s, series);
    uint64_t ordinal = load_relaxed(record + RECORD_COUNT);
    store_relaxed(record + RECORD_RESERVED, ordinal + 1);
    fence_release(); // [RESERVE] who reads any word stored below also reads `reserved` as stored above
    store_row(s, series, ordinal, row);
    uint8_t *at = stamps_of(s, series, ordinal);
    for (int stamp = 0; stamp < STAMP_COUNT; stamp++)
        store_relaxed(at + stamp * WORD_BYTES, (uint64_t)stamps[stamp]);
    /* Before the count: nobody shall see a candle closed and, afterwards, still forming. */
    int64_t forming = (int64_t)load_relaxed(record + RECORD_FORMING);
    if (forming >= 0 && forming <= row->open_time_ms)
        forget_forming(record);
    if (!backfill && (int64_t)load_relaxed(record + RECORD_TRADED_FROM_MS) < 0)
        store_relaxed(record + RECORD_TRADED_FROM_MS, (uint64_t)row->open_time_ms);
    if (!backfill && live && (int64_t)load_relaxed(record + RECORD_LIVE_FROM_MS) < 0)
        store_relaxed(record + RECORD_LIVE_FROM_MS, (uint64_t)row->open_time_ms);
    store_relaxed(record + RECORD_LAST_OPEN_TIME_MS, (uint64_t)row->open_time_ms);
    store_release(record + RECORD_COUNT, ordinal + 1); // [COUNT]
}

static inline int64_t open_time_at(const Segment *s, uint64_t series, uint64_t ordinal) {
    return (int64_t)load_relaxed(block_of(s, series) + ordinal % s->geometry.rows * WORD_BYTES);
}

/* Smallest ordinal in [low, high) whose open time is above the given one; high when there is none. */
static inline uint64_t search_after(const Segment *s, uint64_t series, uint64_t low, uint64_t high, int64_t time_ms) {
    while (low < high) {
        uint64_t middle = low + (high - low) / 2;
        if (open_time_at(s, series, middle) > time_ms)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

/* 1 when the row was there. Rows in the guard can be revised too: a window taken earlier may still hold them. */
static inline int revise_row(const Segment *s, uint64_t series, const Row *row) {
    uint8_t *record = record_of(s, series);
    uint64_t count = load_relaxed(record + RECORD_COUNT);
    uint64_t oldest = count > s->geometry.rows ? count - s->geometry.rows : 0;
    uint64_t after = search_after(s, series, oldest, count, row->open_time_ms);
    if (after == oldest || open_time_at(s, series, after - 1) != row->open_time_ms)
        return 0;
    uint64_t begun = begin_change(record + RECORD_REVISION); // [REVISION]
    store_row(s, series, after - 1, row);
    end_change(record + RECORD_REVISION, begun); // [REVISION]
    return 1;
}

static inline void reset_series(const Segment *s, uint64_t series, int64_t session) {
    uint8_t *record = record_of(s, series);
    uint64_t begun = begin_change(record + RECORD_REVISION); // [REVISION]
    forget_forming(record);
    store_relaxed(record + RECORD_COUNT, 0);
    store_relaxed(record + RECORD_RESERVED, 0);
    store_relaxed(record + RECORD_SESSION, (uint64_t)session);
    store_relaxed(record + RECORD_LIVE_FROM_MS, (uint64_t)-1);
    store_relaxed(record + RECORD_LAST_OPEN_TIME_MS, (uint64_t)-1);
    store_relaxed(record + RECORD_TRADED_FROM_MS, (uint64_t)-1);
    end_change(record + RECORD_REVISION, begun); // [REVISION]
}

/* ---- closed rows, read ---- */

/* Revision, count and session that belong together. An odd revision in the answer: they don't, never valid. */
static inline Snapshot take_snapshot(const Segment *s, uint64_t series) {
    uint8_t *record = record_of(s, series);
    Snapshot taken;
    uint64_t begun_ns = 0;
    for (int attempt = 0;; attempt++) {
        taken.revision = load_acquire(record + RECORD_REVISION); // [REVISION]
        taken.count = load_relaxed(record + RECORD_COUNT);
        taken.session = (int64_t)load_relaxed(record + RECORD_SESSION);
        fence_acquire(); // [COUNT] [REVISION]
        if (!(taken.revision & 1) && load_relaxed(record + RECORD_REVISION) == taken.revision)
            return taken;
        if (attempt == MAX_ATTEMPTS) {
            taken.revision |= 1;
            return taken;
        }
        give_writer_turn(&attempt, &begun_ns);
    }
}

static inline uint64_t first_readable(const Geometry *g, uint64_t count) {
    uint64_t readable = g->rows - g->guard_rows;
    return count > readable ? count - readable : 0;
}

static inline int lapped(const Segment *s, uint64_t series, uint64_t ordinal) {
    fence_acquire(); // [RESERVE]
    uint64_t reserved = load_relaxed(record_of(s, series) + RECORD_RESERVED);
    return reserved > s->geometry.rows && reserved - s->geometry.rows > ordinal;
}

/* Whether nothing read since the snapshot (epoch, revision) from ordinal `begin` on was overwritten.
 * `reserved` comes first: a reset sets it back, and who has read it so also reads the reset's revision. */
static inline int unchanged(const Segment *s, uint64_t series, uint64_t epoch, uint64_t revision, uint64_t begin) {
    uint8_t *record = record_of(s, series);
    int over = lapped(s, series, begin); // [RESERVE]
    fence_acquire();                     // [EPOCH] [REVISION]
    return !over && !(revision & 1) && load_relaxed(record + RECORD_EPOCH) == epoch &&
           load_relaxed(record + RECORD_REVISION) == revision;
}

/* Smallest readable ordinal whose open time is above the given one; the count when there is none. */
static inline uint64_t find_after(const Segment *s, uint64_t series, int64_t open_time_ms) {
    for (int attempt = 0;; attempt++) {
        Snapshot taken = take_snapshot(s, series);
        uint64_t first = first_readable(&s->geometry, taken.count);
        uint64_t found = search_after(s, series, first, taken.count, open_time_ms);
        int over = lapped(s, series, first); // [RESERVE]
        fence_acquire();                     // [REVISION] a reset sets `reserved` back
        if ((!over && load_relaxed(record_of(s, series) + RECORD_REVISION) == taken.revision) ||
            attempt == MAX_ATTEMPTS)
            return found;
    }
}

/* 1: filled in; 0: no forming row, or none that stood still. */
static inline int copy_forming(const Segment *s, uint64_t series, uint64_t *sequence, Row *row, int64_t *stamps) {
    uint8_t *record = record_of(s, series);
    uint64_t words[COLUMN_COUNT], begun_ns = 0;
    for (int attempt = 0; attempt <= MAX_ATTEMPTS; attempt++) {
        *sequence = load_acquire(record + RECORD_FORMING_SEQUENCE); // [FORMING]
        for (int column = 0; column < COLUMN_COUNT; column++)
            words[column] = load_relaxed(record + RECORD_FORMING + column * WORD_BYTES);
        for (int stamp = 0; stamp < STAMP_COUNT; stamp++)
            stamps[stamp] = (int64_t)load_relaxed(record + RECORD_FORMING_STAMPS + stamp * WORD_BYTES);
        fence_acquire(); // [FORMING]
        if (!(*sequence & 1) && load_relaxed(record + RECORD_FORMING_SEQUENCE) == *sequence) {
            *row = (Row){(int64_t)words[0],     bits_double(words[1]), bits_double(words[2]), bits_double(words[3]),
                         bits_double(words[4]), bits_double(words[5]), (int64_t)words[6]};
            return row->open_time_ms >= 0;
        }
        give_writer_turn(&attempt, &begun_ns);
    }
    return 0;
}

/* 1: filled in; 0: that row's stamps are not there, or no longer. */
static inline int copy_stamps(const Segment *s, uint64_t series, uint64_t ordinal, int64_t *stamps) {
    uint8_t *record = record_of(s, series);
    Snapshot taken = take_snapshot(s, series);
    if ((taken.revision & 1) || ordinal >= taken.count || taken.count - ordinal > s->geometry.stamp_rows)
        return 0;
    uint8_t *at = stamps_of(s, series, ordinal);
    for (int stamp = 0; stamp < STAMP_COUNT; stamp++)
        stamps[stamp] = (int64_t)load_relaxed(at + stamp * WORD_BYTES);
    fence_acquire(); // [RESERVE]
    uint64_t reserved = load_relaxed(record + RECORD_RESERVED);
    fence_acquire(); // [REVISION] a reset sets `reserved` back
    return reserved - ordinal <= s->geometry.stamp_rows && load_relaxed(record + RECORD_REVISION) == taken.revision;
}

/* ---- the series table ---- */

typedef struct {
    char symbol[SYMBOL_BYTES];
    char interval[INTERVAL_BYTES];
} Name; /* zero-padded */

/* FNV-1a, 64 bits, over symbol, a zero byte, interval; folded to 32. */
static inline uint64_t hash_name(const Name *name) {
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    for (int i = 0; i < SYMBOL_BYTES && name->symbol[i]; i++)
        hash = (hash ^ (uint8_t)name->symbol[i]) * UINT64_C(0x100000001b3);
    hash *= UINT64_C(0x100000001b3); /* the zero byte */
    for (int i = 0; i < INTERVAL_BYTES && name->interval[i]; i++)
        hash = (hash ^ (uint8_t)name->interval[i]) * UINT64_C(0x100000001b3);
    return (hash ^ hash >> 32) & UINT32_MAX;
}

static inline void load_name(uint8_t *record, Name *name) {
    for (int i = 0; i < SYMBOL_BYTES; i += WORD_BYTES) {
        uint64_t word = load_relaxed(record + RECORD_SYMBOL + i);
        memcpy(name->symbol + i, &word, WORD_BYTES);
    }
    for (int i = 0; i < INTERVAL_BYTES; i += WORD_BYTES) {
        uint64_t word = load_relaxed(record + RECORD_INTERVAL + i);
        memcpy(name->interval + i, &word, WORD_BYTES);
    }
}

static inline void store_name(uint8_t *record, const Name *name) {
    uint64_t word;
    for (int i = 0; i < SYMBOL_BYTES; i += WORD_BYTES) {
        memcpy(&word, name->symbol + i, WORD_BYTES);
        store_relaxed(record + RECORD_SYMBOL + i, word);
    }
    for (int i = 0; i < INTERVAL_BYTES; i += WORD_BYTES) {
        memcpy(&word, name->interval + i, WORD_BYTES);
        store_relaxed(record + RECORD_INTERVAL + i, word);
    }
}

/* The record's epoch when it is in use under this name, else 0. */
static inline uint64_t epoch_if_named(uint8_t *record, const Name *name) {
    uint64_t epoch = load_acquire(record + RECORD_EPOCH); // [EPOCH]
    Name found;
    load_name(record, &found);
    fence_acquire(); // [EPOCH]
    int same = load_relaxed(record + RECORD_EPOCH) == epoch && memcmp(&found, name, sizeof found) == 0;
    return (epoch & 1) && same ? epoch : 0;
}

/* 1 and the series' place and epoch, or 0. A hit is proven by the record itself; a miss by the table version. */
static inline int find_series(const Segment *s, const Name *name, uint64_t *series, uint64_t *epoch, uint64_t *slot) {
    const uint64_t mask = s->geometry.hash_slots - 1, tag = hash_name(name);
    uint64_t begun_ns = 0;
    for (int attempt = 0; attempt <= MAX_ATTEMPTS; attempt++) {
        uint64_t version = load_acquire(s->base + HEADER_TABLE_VERSION); // [TABLE]
        for (uint64_t probe = 0; probe <= mask; probe++) {
            *slot = (tag + probe) & mask;
            uint64_t entry = load_acquire(hash_slot(s, *slot)); // [SLOT]
            if (entry == 0)
                break;
            *series = (entry & UINT32_MAX) - 1;
            if (entry >> 32 != tag || *series >= s->geometry.series)
                continue;
            *epoch = epoch_if_named(record_of(s, *series), name);
            if (*epoch)
                return 1;
        }
        /* No fence: every slot was read by an acquire. [TABLE] */
        if (!(version & 1) && load_relaxed(s->base + HEADER_TABLE_VERSION) == version)
            return 0;
        give_writer_turn(&attempt, &begun_ns);
    }
    return 0;
}

/* Index of the new series, or -1 when all records are in use. The caller has looked for the name before. */
static inline int64_t insert_series(const Segment *s, const Name *name) {
    const uint64_t mask = s->geometry.hash_slots - 1, tag = hash_name(name);
    uint64_t series = 0;
    while (series < s->geometry.series && (load_relaxed(record_of(s, series) + RECORD_EPOCH) & 1))
        series++;
    if (series == s->geometry.series)
        return -1;
    uint8_t *record = record_of(s, series);
    uint64_t epoch = load_relaxed(record + RECORD_EPOCH);
    store_name(record, name);
    reset_series(s, series, 0);
    store_release(record + RECORD_EPOCH, epoch + 1); // [EPOCH]
    uint64_t slot = tag & mask;
    while (load_relaxed(hash_slot(s, slot)))
        slot = (slot + 1) & mask;
    store_release(hash_slot(s, slot), tag << 32 | (series + 1)); // [SLOT]
    return (int64_t)series;
}

/* Takes the entry out and moves back those behind it, so that no probe needs tombstones. */
static inline void remove_entry(const Segment *s, uint64_t hole) {
    const uint64_t mask = s->geometry.hash_slots - 1;
    uint64_t begun = begin_change(s->base + HEADER_TABLE_VERSION); // [TABLE]
    for (uint64_t slot = (hole + 1) & mask;; slot = (slot + 1) & mask) {
        uint64_t entry = load_relaxed(hash_slot(s, slot));
        if (entry == 0)
            break;
        uint64_t home = (entry >> 32) & mask;
        if (((slot - home) & mask) >= ((slot - hole) & mask)) {
            store_relaxed(hash_slot(s, hole), entry); // [SLOT] behind the fence of begin_change()
            hole = slot;
        }
    }
    store_relaxed(hash_slot(s, hole), 0);
    end_change(s->base + HEADER_TABLE_VERSION, begun); // [TABLE]
}

static inline void remove_series(const Segment *s, uint64_t series, uint64_t slot) {
    uint8_t *record = record_of(s, series);
    store_relaxed(record + RECORD_EPOCH, load_relaxed(record + RECORD_EPOCH) + 1);
    fence_release(); // [EPOCH] who reads a later name or row also reads the new epoch; remove_entry() has one too
    remove_entry(s, slot);
}

#endif
