/* How long readers stay with what isn't whole: the real protocol.h on a clock that goes on by the turns of others. */
#include <sched.h>
#include <stdint.h>
#include <stdlib.h>
#include <time.h>

static int others_turn(void);
static int told_time(struct timespec *now);
#define sched_yield() others_turn()
#define clock_gettime(clock, now) told_time(now)
#include "protocol.h"

static Segment segment;
static uint64_t now_ns, turn_ns;
static int turns, finished_in;

static int told_time(struct timespec *now) {
    *now = (struct timespec){(time_t)(now_ns / 1000000000u), (long)(now_ns % 1000000000u)};
    return 0;
}

/* The writer finishes in the one that it is told to; what it had begun is even then. */
static int others_turn(void) {
    uint8_t *record = record_of(&segment, 0);
    now_ns += turn_ns;
    if (++turns == finished_in) {
        end_change(record + RECORD_REVISION, load_relaxed(record + RECORD_REVISION));
        end_change(record + RECORD_FORMING_SEQUENCE, load_relaxed(record + RECORD_FORMING_SEQUENCE));
        end_change(segment.base + HEADER_TABLE_VERSION, load_relaxed(segment.base + HEADER_TABLE_VERSION));
    }
    return 0;
}

enum { WINDOW, FORMING, STAMPS, LOOK_UP };

/* Reads from a segment whose writer stands in the middle of everything; returns whether anything whole was found, -1
 * for want of memory. What is looked up isn't there: found is, for sure, that it isn't. */
__attribute__((visibility("default"))) int read_beside(int what, uint64_t a_turn_ns, int finished, int *turns_given) {
    const Row row = {60000, 1, 1, 1, 1, 1, 1};
    const Name name = {"BTC/USDT", "1m"}, other = {"ETH/USDT", "1m"};
    int64_t stamps[STAMP_COUNT] = {0};
    uint64_t series, epoch, slot, sequence;
    Row copied;
    free(segment.base);
    segment.geometry = (Geometry){.rows = 4, .guard_rows = 1, .series = 1, .bells = 1, .stamp_rows = 2};
    if (!derive_geometry(&segment.geometry) || !(segment.base = calloc(1, segment.geometry.file_bytes)))
        return -1;
    insert_series(&segment, &name);
    append_row(&segment, 0, &row, stamps, 0, 1);
    store_forming(record_of(&segment, 0), &row, stamps);
    begin_change(record_of(&segment, 0) + RECORD_REVISION);
    begin_change(record_of(&segment, 0) + RECORD_FORMING_SEQUENCE);
    begin_change(segment.base + HEADER_TABLE_VERSION);
    turns = 0, turn_ns = a_turn_ns, finished_in = finished;
    int found = 0;
    if (what == WINDOW)
        found = !(take_snapshot(&segment, 0).revision & 1);
    else if (what == FORMING)
        found = copy_forming(&segment, 0, &sequence, &copied, stamps);
    else if (what == STAMPS)
        found = copy_stamps(&segment, 0, 0, stamps);
    else
        found = !find_series(&segment, &other, &series, &epoch, &slot) &&
                !(load_relaxed(segment.base + HEADER_TABLE_VERSION) & 1);
    *turns_given = turns;
    return found;
}
