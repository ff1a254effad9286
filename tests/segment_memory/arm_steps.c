/* Every operation of the protocol once, on whatever machine this is built for.
 *
 * Prints what readers get after each step of a writer, and last a checksum of the segment's bytes: two machines that
 * mean the same by layout.h and protocol.h print the same. The functions below main() are what a test looks at in the
 * machine code.
 */
#include <stdio.h>
#include <stdlib.h>

#include "protocol.h"

#define SEPARATE __attribute__((noinline))

static Segment segment;

SEPARATE void step_append(const Row *row, const int64_t *stamps) {
    append_row(&segment, 0, row, stamps, 0, 1);
}

SEPARATE int step_revise(const Row *row) {
    return revise_row(&segment, 0, row);
}

SEPARATE void step_form(const Row *row, const int64_t *stamps) {
    store_forming(record_of(&segment, 0), row, stamps);
}

SEPARATE void step_reset(int64_t session) {
    reset_series(&segment, 0, session);
}

SEPARATE int64_t step_insert(const Name *name) {
    return insert_series(&segment, name);
}

SEPARATE void step_remove(uint64_t series, uint64_t slot) {
    remove_series(&segment, series, slot);
}

SEPARATE void step_ring(void) {
    bell_advance(&segment, 0);
}

SEPARATE uint32_t step_bell(void) {
    return bell_value(&segment, 0);
}

SEPARATE Snapshot step_snapshot(void) {
    return take_snapshot(&segment, 0);
}

SEPARATE int step_unchanged(uint64_t epoch, uint64_t revision, uint64_t begin) {
    return unchanged(&segment, 0, epoch, revision, begin);
}

SEPARATE int step_copy_forming(uint64_t *sequence, Row *row, int64_t *stamps) {
    return copy_forming(&segment, 0, sequence, row, stamps);
}

SEPARATE int step_copy_stamps(uint64_t ordinal, int64_t *stamps) {
    return copy_stamps(&segment, 0, ordinal, stamps);
}

SEPARATE uint64_t step_find_after(int64_t open_time_ms) {
    return find_after(&segment, 0, open_time_ms);
}

SEPARATE int step_find(const Name *name, uint64_t *series, uint64_t *epoch, uint64_t *slot) {
    return find_series(&segment, name, series, epoch, slot);
}

static Name named(const char *symbol) {
    Name name = {.interval = "1m"};
    memcpy(name.symbol, symbol, strlen(symbol));
    return name;
}

static Row row_of(int64_t ordinal, int version) {
    double key = (double)ordinal * 1000 + version;
    return (Row){ordinal * 60000, key, key + 0.5, key - 0.5, -key, key / 3, ordinal};
}

static void make_stamps(int64_t *stamps, int64_t ordinal) {
    for (int stamp = 0; stamp < STAMP_COUNT; stamp++)
        stamps[stamp] = ordinal * 100 + stamp;
}

static void tell(const char *step) {
    Snapshot taken = step_snapshot();
    uint64_t begin = first_readable(&segment.geometry, taken.count), sequence = 0;
    uint64_t epoch = load_acquire(record_of(&segment, 0) + RECORD_EPOCH);
    int64_t stamps[STAMP_COUNT] = {0};
    Row forming = {0};
    int is_forming = step_copy_forming(&sequence, &forming, stamps);
    printf("%s: revision %llu count %llu session %lld", step, (unsigned long long)taken.revision,
           (unsigned long long)taken.count, (long long)taken.session);
    for (uint64_t ordinal = begin; ordinal < taken.count; ordinal++) {
        uint8_t *at = block_of(&segment, 0) + ordinal % segment.geometry.rows * WORD_BYTES;
        printf(" [%lld %.3f]", (long long)open_time_at(&segment, 0, ordinal),
               bits_double(load_relaxed(at + 5 * segment.geometry.column_bytes)));
    }
    printf(" valid %d", step_unchanged(epoch, taken.revision, begin));
    if (is_forming)
        printf(" forming %lld %.3f %lld", (long long)forming.open_time_ms, forming.volume, (long long)stamps[7]);
    if (taken.count && step_copy_stamps(taken.count - 1, stamps))
        printf(" stamps %lld %lld", (long long)stamps[0], (long long)stamps[7]);
    printf(" after 120000: %llu bell %u\n", (unsigned long long)step_find_after(120000), step_bell());
}

static void tell_look_up(const char *symbol) {
    uint64_t series = 0, epoch = 0, slot = 0;
    Name name = named(symbol);
    int found = step_find(&name, &series, &epoch, &slot);
    printf("%s: %s", symbol, found ? "found" : "unknown");
    if (found)
        printf(" series %llu epoch %llu slot %llu", (unsigned long long)series, (unsigned long long)epoch,
               (unsigned long long)slot);
    printf("\n");
}

static uint64_t checksum(void) {
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    for (uint64_t i = 0; i < segment.geometry.file_bytes; i++)
        hash = (hash ^ segment.base[i]) * UINT64_C(0x100000001b3);
    return hash;
}

int main(void) {
    segment.geometry = (Geometry){.rows = 4, .guard_rows = 1, .series = 3, .bells = 2, .stamp_rows = 2};
    if (!derive_geometry(&segment.geometry))
        return 1;
    segment.base = aligned_alloc(4096, (segment.geometry.file_bytes + 4095) / 4096 * 4096);
    if (!segment.base)
        return 1;
    memset(segment.base, 0, segment.geometry.file_bytes);
    printf("bytes %llu records at %llu data at %llu column %llu block %llu\n",
           (unsigned long long)segment.geometry.file_bytes, (unsigned long long)segment.geometry.records_offset,
           (unsigned long long)segment.geometry.data_offset, (unsigned long long)segment.geometry.column_bytes,
           (unsigned long long)segment.geometry.block_bytes);

    int64_t stamps[STAMP_COUNT];
    Name first = named("BTC/USDT"), second = named("ETH/USDT");
    printf("inserted %lld\n", (long long)step_insert(&first));
    printf("inserted %lld\n", (long long)step_insert(&second));
    tell("empty");
    for (int64_t ordinal = 0; ordinal < 6; ordinal++) {
        Row row = row_of(ordinal, 0);
        make_stamps(stamps, ordinal);
        step_append(&row, stamps);
        step_ring();
        tell("appended");
    }
    Row row = row_of(6, 1);
    make_stamps(stamps, 6);
    step_form(&row, stamps);
    tell("forming");
    row = row_of(4, 7);
    printf("revised %d\n", step_revise(&row));
    tell("revised");
    row = row_of(1, 7);
    printf("revised %d\n", step_revise(&row));
    row = row_of(6, 2);
    step_append(&row, stamps);
    tell("closed");
    step_reset(3);
    tell("reset");
    tell_look_up("BTC/USDT");
    tell_look_up("ETH/USDT");
    uint64_t series, epoch, slot;
    if (step_find(&first, &series, &epoch, &slot))
        step_remove(series, slot);
    tell_look_up("BTC/USDT");
    tell_look_up("ETH/USDT");
    printf("bell sleeps %d\n", bell_sleep(&segment, 0, step_bell() - 1, NULL)); /* it has rung: at once */
    bell_wake(&segment, 0);
    printf("checksum %016llx\n", (unsigned long long)checksum());
    return 0;
}
