/* Goes through interleavings of writer and reader, one access at a time, with the real protocol.h.
 *
 * The writer runs first; the whole segment is kept as it was after each of its stores (a state). Then a reader's
 * operation runs on those states: a schedule says before which of its loads time goes on to which state. So a
 * reader can be stopped between any two loads for as long as the writer needs for any number of stores.
 */
#include <stdlib.h>

static void before_load(void);
static void after_store(void);
#define SEGMENT_LOADING() before_load()
#define SEGMENT_STORED() after_store()
/* The clock decides nothing here: outcomes are the same on a busy machine. */
#define SEGMENT_PATIENCE_NS UINT64_MAX
#include "protocol.h"

enum { MOST_STATES = 2000, MOST_JUMPS = 8 };

static Segment segment;
static uint8_t *states;
static int state_count, playing;
static int jump_loads[MOST_JUMPS], jump_states[MOST_JUMPS], jump_count, jumps_done, loads;

static void go_to(int state) {
    memcpy(segment.base, states + (size_t)state * segment.geometry.file_bytes, segment.geometry.file_bytes);
}

static void keep_state(void) {
    if (state_count == MOST_STATES)
        abort();
    memcpy(states + (size_t)state_count++ * segment.geometry.file_bytes, segment.base, segment.geometry.file_bytes);
}

static void after_store(void) {
    if (!playing)
        keep_state();
}

static void before_load(void) {
    if (!playing)
        return;
    while (jumps_done < jump_count && loads >= jump_loads[jumps_done])
        go_to(jump_states[jumps_done++]);
    loads++;
}

#define EXPORT __attribute__((visibility("default")))

EXPORT int begin(uint64_t rows, uint64_t guard_rows, uint64_t series, uint64_t stamp_rows) {
    free(segment.base);
    free(states);
    segment.geometry =
        (Geometry){.rows = rows, .guard_rows = guard_rows, .series = series, .bells = 1, .stamp_rows = stamp_rows};
    if (!derive_geometry(&segment.geometry))
        return 0;
    segment.base = aligned_alloc(4096, (segment.geometry.file_bytes + 4095) / 4096 * 4096);
    states = malloc(MOST_STATES * segment.geometry.file_bytes);
    if (!segment.base || !states)
        return 0;
    memset(segment.base, 0, segment.geometry.file_bytes);
    playing = state_count = 0;
    return 1;
}

/* Forgets the states so far: what comes next is what readers are put beside. */
EXPORT void mark(void) {
    state_count = 0;
    keep_state();
}

EXPORT int count_states(void) {
    return state_count;
}

static Name named(const char *symbol) {
    Name name = {.interval = "1s"};
    strncpy(name.symbol, symbol, SYMBOL_BYTES - 1);
    return name;
}

EXPORT int64_t insert(const char *symbol) {
    Name name = named(symbol);
    return insert_series(&segment, &name);
}

EXPORT int discard(const char *symbol) {
    Name name = named(symbol);
    uint64_t series, epoch, slot;
    if (!find_series(&segment, &name, &series, &epoch, &slot))
        return 0;
    remove_series(&segment, series, slot);
    return 1;
}

EXPORT void append(uint64_t series, const Row *row, const int64_t *stamps) {
    append_row(&segment, series, row, stamps, 0, 1);
}

EXPORT int revise(uint64_t series, const Row *row) {
    return revise_row(&segment, series, row);
}

EXPORT void reset(uint64_t series, int64_t session) {
    reset_series(&segment, series, session);
}

EXPORT void form(uint64_t series, const Row *row, const int64_t *stamps) {
    store_forming(record_of(&segment, series), row, stamps);
}

EXPORT void unform(uint64_t series) {
    forget_forming(record_of(&segment, series));
}

/* What follows runs from `state` on; before load number loads[i] time goes on to at_states[i]. */
EXPORT void play(int state, int count, const int *at_loads, const int *at_states) {
    playing = 1;
    go_to(state);
    loads = jumps_done = 0;
    jump_count = count;
    memcpy(jump_loads, at_loads, (size_t)count * sizeof *at_loads);
    memcpy(jump_states, at_states, (size_t)count * sizeof *at_states);
}

EXPORT int count_loads(void) {
    return loads;
}

EXPORT uint64_t epoch_now(uint64_t series) {
    return atomic_load(word_at(record_of(&segment, series) + RECORD_EPOCH));
}

/* Revision, count and session. */
EXPORT void take_state(uint64_t series, int64_t *words) {
    Snapshot taken = take_snapshot(&segment, series);
    words[0] = (int64_t)taken.revision;
    words[1] = (int64_t)taken.count;
    words[2] = taken.session;
}

/* A trader's way: bounds, payload column by column, validation. 1: valid. */
EXPORT int take_window(uint64_t series, uint64_t epoch, uint64_t length, uint64_t *begin_end, int64_t *session,
                       uint64_t *payload) {
    Snapshot taken = take_snapshot(&segment, series);
    uint64_t first = first_readable(&segment.geometry, taken.count);
    uint64_t begin = taken.count > length ? taken.count - length : 0;
    if (begin < first)
        begin = first;
    begin_end[0] = begin;
    begin_end[1] = taken.count;
    *session = taken.session;
    for (int column = 0; column < COLUMN_COUNT; column++)
        for (uint64_t row = 0; row < taken.count - begin; row++)
            *payload++ = load_relaxed(block_of(&segment, series) + (uint64_t)column * segment.geometry.column_bytes +
                                      (begin % segment.geometry.rows + row) * WORD_BYTES);
    return unchanged(&segment, series, epoch, taken.revision, begin);
}

EXPORT int take_forming(uint64_t series, Row *row, int64_t *stamps) {
    uint64_t sequence;
    return copy_forming(&segment, series, &sequence, row, stamps);
}

EXPORT int take_stamps(uint64_t series, uint64_t ordinal, int64_t *stamps) {
    return copy_stamps(&segment, series, ordinal, stamps);
}

EXPORT uint64_t take_found(uint64_t series, int64_t open_time_ms) {
    return find_after(&segment, series, open_time_ms);
}

/* The epoch of the series found by name, or 0. */
EXPORT uint64_t look_up(const char *symbol) {
    Name name = named(symbol);
    uint64_t series, epoch, slot;
    return find_series(&segment, &name, &series, &epoch, &slot) ? epoch << 32 | series : 0;
}
