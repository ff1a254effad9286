/* Feeds mutated segments to every reader function of protocol.h, under libFuzzer, ASan and UBSan.
 *
 * An input is a segment file, then pokes (16 bytes each: uint32 before which load, uint32 offset, uint64 value) and
 * their number in a last uint32. The file is copied into memory of exactly its size, so that a read outside it is seen.
 * A poke is a store by a writer gone mad while a reader is at work.
 *
 * The checks of a header are those of layout.py, which a test holds to these; what protocol.h reads after them must
 * lie within the file whatever it holds, and must end: each operation has a bound on its loads.
 */
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void before_load(void);
#define SEGMENT_LOADING() before_load()
#define sched_yield() 0 /* nobody writes here: a turn for the writer only costs time */
#include "protocol.h"

size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t most);

enum { MOST_POKES = 8, POKE_BYTES = 16, MOST_FILE_BYTES = 24 * 1024 };

typedef struct {
    uint32_t load, offset;
    uint64_t value;
} Poke;

static uint8_t *file;
static size_t file_bytes;
static Poke pokes[MOST_POKES];
static uint32_t poke_count;
static uint64_t loads, bound;
static int poking;

static void complain(const char *what) {
    fprintf(stderr, "%s\n", what);
    abort();
}

static void before_load(void) {
    loads++;
    if (bound && loads > bound)
        complain("no end: an operation makes more loads than it can need");
    for (uint32_t i = 0; poking && i < poke_count; i++)
        if (pokes[i].load == loads && pokes[i].offset < file_bytes / 8 * 8)
            memcpy(file + pokes[i].offset / 8 * 8, &pokes[i].value, 8);
}

/* ---- the header ---- */

static uint32_t crc32_of(const uint8_t *data, size_t size) {
    uint32_t crc = UINT32_MAX;
    for (size_t i = 0; i < size; i++) {
        crc ^= data[i];
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? UINT32_C(0xedb88320) : 0);
    }
    return ~crc;
}

static uint64_t word(const uint8_t *data, size_t offset) {
    uint64_t value;
    memcpy(&value, data + offset, 8);
    return value;
}

static void set_word(uint8_t *data, size_t offset, uint64_t value) {
    memcpy(data + offset, &value, 8);
}

static Geometry numbers_of(const uint8_t *data) {
    return (Geometry){.rows = word(data, HEADER_ROWS),
                      .guard_rows = word(data, HEADER_GUARD_ROWS),
                      .series = word(data, HEADER_SERIES),
                      .bells = word(data, HEADER_BELLS),
                      .stamp_rows = word(data, HEADER_STAMP_ROWS)};
}

/* Each word that follows from the numbers, where it stands. */
#define EACH_DERIVED(X)                                                                                                \
    X(HEADER_FILE_BYTES, file_bytes)                                                                                   \
    X(HEADER_HASH_SLOTS, hash_slots)                                                                                   \
    X(HEADER_BELLS_OFFSET, bells_offset)                                                                               \
    X(HEADER_HASH_OFFSET, hash_offset)                                                                                 \
    X(HEADER_RECORDS_OFFSET, records_offset)                                                                           \
    X(HEADER_DATA_OFFSET, data_offset)                                                                                 \
    X(HEADER_COLUMN_BYTES, column_bytes)                                                                               \
    X(HEADER_BLOCK_BYTES, block_bytes)

static int accepted(const uint8_t *data, size_t size, Geometry *g) {
    if (size < HEADER_BYTES || word(data, HEADER_READY) != READY_WORD || word(data, HEADER_MAGIC) != SEGMENT_MAGIC ||
        word(data, HEADER_VERSION) != LAYOUT_VERSION ||
        word(data, HEADER_CHECKSUM) != crc32_of(data, HEADER_CHECKSUM))
        return 0;
    *g = numbers_of(data);
    if (!derive_geometry(g))
        return 0;
#define SAME(place, member)                                                                                            \
    if (word(data, place) != g->member)                                                                                \
        return 0;
    EACH_DERIVED(SAME)
    return g->file_bytes <= size;
}

static void seal(uint8_t *data, const Geometry *g) {
    set_word(data, HEADER_READY, READY_WORD);
    set_word(data, HEADER_MAGIC, SEGMENT_MAGIC);
    set_word(data, HEADER_VERSION, LAYOUT_VERSION);
    set_word(data, HEADER_ROWS, g->rows);
    set_word(data, HEADER_GUARD_ROWS, g->guard_rows);
    set_word(data, HEADER_SERIES, g->series);
    set_word(data, HEADER_BELLS, g->bells);
    set_word(data, HEADER_STAMP_ROWS, g->stamp_rows);
#define STORE(place, member) set_word(data, place, g->member);
    EACH_DERIVED(STORE)
    set_word(data, HEADER_CHECKSUM, crc32_of(data, HEADER_CHECKSUM));
}

/* ---- what readers do ---- */

static uint64_t sink;

static void begin_operation(uint64_t most_loads) {
    loads = 0;
    bound = most_loads;
    poking = 1;
}

/* As series_bounds() of the extension and SeriesReader.window(): what is read must lie in the doubled columns. */
static void read_window(const Segment *s, uint64_t series, uint64_t epoch, uint64_t end, uint64_t length) {
    const Geometry *g = &s->geometry;
    if (length > g->rows - g->guard_rows)
        return;
    begin_operation(3 * (MAX_ATTEMPTS + 1) + 16 + COLUMN_COUNT * length);
    Snapshot taken = take_snapshot(s, series);
    uint64_t stop = end < taken.count ? end : taken.count;
    uint64_t begin = stop > length ? stop - length : 0;
    uint64_t first = first_readable(g, taken.count);
    if (begin < first)
        begin = first < stop ? first : stop;
    if (stop - begin > length)
        complain("a window is longer than asked");
    uint8_t *at = block_of(s, series) + begin % g->rows * WORD_BYTES;
    for (int column = 0; column < COLUMN_COUNT; column++, at += g->column_bytes)
        for (uint64_t row = 0; row < stop - begin; row++)
            sink += load_relaxed(at + row * WORD_BYTES);
    sink += (uint64_t)unchanged(s, series, epoch, taken.revision, begin);
}

static void read_series(const Segment *s, uint64_t series, uint64_t epoch) {
    const Geometry *g = &s->geometry;
    const uint64_t attempts = MAX_ATTEMPTS + 1, count = word(record_of(s, series), RECORD_COUNT);
    const uint64_t ends[] = {count, count / 2, 3, 0, UINT64_MAX, INT64_MAX, count + 1};
    for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++) {
        read_window(s, series, epoch, ends[i], g->rows - g->guard_rows);
        read_window(s, series, epoch, ends[i], 1);
        begin_operation(3 * attempts + STAMP_COUNT + 2);
        int64_t stamps[STAMP_COUNT];
        if (copy_stamps(s, series, ends[i] - 1, stamps))
            sink += (uint64_t)stamps[STAMP_COUNT - 1];
        begin_operation(2);
        sink += (uint64_t)lapped(s, series, ends[i]);
    }
    const int64_t times[] = {INT64_MIN, -1, 0, 5, word(record_of(s, series), RECORD_LAST_OPEN_TIME_MS), INT64_MAX};
    for (size_t i = 0; i < sizeof times / sizeof times[0]; i++) {
        begin_operation(attempts * (3 * attempts + 64 + 2));
        sink += find_after(s, series, times[i]);
    }
    uint64_t sequence;
    Row row;
    int64_t stamps[STAMP_COUNT];
    begin_operation(attempts * (COLUMN_COUNT + STAMP_COUNT + 2));
    if (copy_forming(s, series, &sequence, &row, stamps)) {
        if (row.open_time_ms < 0 || sequence & 1)
            complain("a forming row that is none");
        sink += (uint64_t)row.trades + sequence;
    }
}

static void look_up(const Segment *s, const Name *name) {
    uint64_t series = 0, epoch = 0, slot = 0;
    const uint64_t name_words = (SYMBOL_BYTES + INTERVAL_BYTES) / WORD_BYTES;
    begin_operation((MAX_ATTEMPTS + 1) * (s->geometry.hash_slots * (name_words + 3) + 2));
    if (find_series(s, name, &series, &epoch, &slot)) {
        if (!(epoch & 1) || series >= s->geometry.series || slot >= s->geometry.hash_slots)
            complain("a series was found that can't be");
        read_series(s, series, epoch);
    }
}

static void read_all(uint8_t *data, size_t size) {
    Geometry geometry;
    if (!accepted(data, size, &geometry))
        return;
    const Segment s = {data, geometry};
    Name name;
    static const char *const symbols[] = {"A", "B", "C", "D", "E/USDT"};
    for (size_t i = 0; i < sizeof symbols / sizeof symbols[0]; i++) {
        memset(&name, 0, sizeof name);
        strcpy(name.symbol, symbols[i]);
        strcpy(name.interval, "1s");
        look_up(&s, &name);
    }
    for (uint64_t series = 0; series < geometry.series && series < 8; series++) {
        begin_operation(64);
        load_name(record_of(&s, series), &name);
        look_up(&s, &name); /* what a record says it is, zeros at its end or not */
        read_series(&s, series, load_acquire(record_of(&s, series) + RECORD_EPOCH));
    }
    begin_operation(0);
    poking = 0;
    for (uint64_t bell = 0; bell < geometry.bells; bell++)
        sink += bell_value(&s, bell);
    /* What a successor does to the file that it finds: mark it, ring its bells. */
    store_release(data + HEADER_SUPERSEDED, 1);
    for (uint64_t bell = 0; bell < geometry.bells; bell++)
        bell_advance(&s, bell);
}

/* Where the file ends and its pokes begin; an input without pokes is a file as a whole. */
static size_t split(const uint8_t *data, size_t size) {
    uint32_t count;
    poke_count = 0;
    if (size < 4)
        return size;
    memcpy(&count, data + size - 4, 4);
    if (count > MOST_POKES || size < 4 + count * POKE_BYTES)
        return size;
    size_t rest = size - 4 - count * POKE_BYTES;
    for (uint32_t i = 0; i < count; i++) {
        memcpy(&pokes[i].load, data + rest + i * POKE_BYTES, 4);
        memcpy(&pokes[i].offset, data + rest + i * POKE_BYTES + 4, 4);
        memcpy(&pokes[i].value, data + rest + i * POKE_BYTES + 8, 8);
    }
    poke_count = count;
    return rest;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    file_bytes = split(data, size);
    file = NULL;
    if (posix_memalign((void **)&file, LINE_BYTES, file_bytes ? file_bytes : 1))
        abort();
    memcpy(file, data, file_bytes);
    if (getenv("FUZZ_VERDICT")) { /* for the test that holds accepted() to layout.py */
        Geometry geometry;
        fprintf(stderr, "verdict: %s\n", accepted(file, file_bytes, &geometry) ? "accepted" : "refused");
    }
    read_all(file, file_bytes);
    free(file);
    return 0;
}

/* ---- mutation that knows what a segment is ---- */

static uint64_t state;

static uint64_t draw(uint64_t most) { /* 0 … most - 1, by xorshift */
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return most ? (state >> 11) % most : 0;
}

static void draw_geometry(Geometry *g) {
    do {
        g->rows = 2 + draw(draw(4) ? 7 : 40);
        g->guard_rows = 1 + draw(g->rows - 1);
        g->series = 1 + draw(draw(4) ? 3 : 6);
        g->bells = 1 + draw(3);
        g->stamp_rows = 1 + draw(g->rows);
    } while (!derive_geometry(g) || g->file_bytes > MOST_FILE_BYTES);
}

/* A real segment: made by the writer's own functions. */
static size_t make(uint8_t *data, size_t most) {
    Geometry g;
    draw_geometry(&g);
    if (g.file_bytes > most)
        return 0;
    memset(data, 0, g.file_bytes);
    seal(data, &g);
    uint8_t *base; /* data need not be aligned */
    if (posix_memalign((void **)&base, LINE_BYTES, g.file_bytes))
        abort();
    memcpy(base, data, g.file_bytes);
    const Segment s = {base, g};
    bound = 0;
    poking = 0;
    for (uint64_t series = 0; series < 1 + draw(g.series); series++) {
        Name name = {{0}, "1s"};
        name.symbol[0] = (char)('A' + series);
        int64_t index = insert_series(&s, &name);
        if (index < 0)
            break;
        const int64_t stamps[STAMP_COUNT] = {1, 2, 3, 4, 5, 6, 7, 8};
        uint64_t rows = draw(3 * g.rows);
        for (uint64_t row = 0; row <= rows; row++) {
            const Row values = {(int64_t)row, 1, 2, 3, 4, 5, 6};
            if (row < rows)
                append_row(&s, (uint64_t)index, &values, stamps, draw(2) == 0, draw(2) == 0);
            else if (draw(2))
                store_forming(record_of(&s, (uint64_t)index), &values, stamps);
        }
    }
    memcpy(data, base, g.file_bytes);
    free(base);
    return g.file_bytes;
}

static uint64_t draw_value(uint64_t was, const Geometry *g) {
    const uint64_t choice[] = {0,
                               1,
                               was + 1,
                               was - 1,
                               was ^ UINT64_C(1) << draw(64),
                               was * 2,
                               UINT64_MAX,
                               INT64_MAX,
                               UINT64_C(1) << 63,
                               UINT64_C(1) << 32,
                               UINT32_MAX,
                               draw(64),
                               g->rows,
                               g->file_bytes,
                               g->series + 1,
                               UINT64_C(1) << draw(64),
                               state};
    return choice[draw(sizeof choice / sizeof choice[0])];
}

/* The offset of a word that means something. */
static size_t draw_place(const Geometry *g, size_t size) {
    size_t at;
    switch (draw(6)) {
    case 0:
        at = draw(HEADER_CHECKSUM / 8) * 8;
        break;
    case 1:
        at = draw(2) ? HEADER_TABLE_VERSION : HEADER_SUPERSEDED;
        break;
    case 2:
        at = g->hash_offset + draw(g->hash_slots) * 8;
        break;
    case 3:
    case 4:
        at = g->records_offset + draw(g->series) * RECORD_BYTES + draw(RECORD_BYTES / 8) * 8;
        break;
    default:
        at = draw(size / 8) * 8;
    }
    return at + 8 <= size ? at : draw(size / 8) * 8;
}

static void spoil_words(uint8_t *data, size_t size) {
    Geometry g = numbers_of(data);
    if (!derive_geometry(&g) || g.file_bytes > size)
        draw_geometry(&g);
    for (uint64_t times = 1 + draw(4); times; times--) {
        size_t at = draw_place(&g, size);
        uint64_t value = draw_value(word(data, at), &g);
        if (at >= g.hash_offset && at < g.records_offset && draw(4)) {
            /* An entry with a right hash and any index: behind it alone a record is looked at. */
            Name name = {{0}, "1s"};
            name.symbol[0] = (char)('A' + draw(4));
            value = hash_name(&name) << 32 | (draw(2) ? draw(g.series + 4) : value & UINT32_MAX);
            at = g.hash_offset + (draw(2) ? at - g.hash_offset : hash_name(&name) % g.hash_slots * 8);
        }
        set_word(data, at, value);
    }
    if (draw(8)) { /* as a rule it gets past the header's check; its numbers may be new ones */
        Geometry numbers = numbers_of(data);
        seal(data, derive_geometry(&numbers) && numbers.file_bytes <= 2 * size ? &numbers : &g);
    }
}

/* Every slot taken, each by the same hash: a look-up has to probe them all. */
static void fill_hash(uint8_t *data, size_t size) {
    Geometry g = numbers_of(data);
    if (!derive_geometry(&g) || g.records_offset > size)
        return;
    Name name = {{0}, "1s"};
    name.symbol[0] = (char)('A' + draw(4));
    for (uint64_t slot = 0; slot < g.hash_slots; slot++)
        set_word(data, g.hash_offset + slot * 8, hash_name(&name) << 32 | draw(g.series + 2));
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t most, unsigned int seed) {
    state = seed * UINT64_C(0x9e3779b97f4a7c15) + 1;
    draw(2);
    if (most < 4 + MOST_POKES * POKE_BYTES + HEADER_BYTES)
        return LLVMFuzzerMutate(data, size, most);
    const size_t most_file = most - 4 - MOST_POKES * POKE_BYTES;
    size = split(data, size);
    if (size > most_file)
        size = most_file;
    if (size < HEADER_BYTES || !draw(16)) {
        size_t made = make(data, most_file);
        size = made ? made : size;
        poke_count = 0;
    }
    switch (size < HEADER_BYTES ? 0 : draw(16)) {
    case 0:
        size = LLVMFuzzerMutate(data, size, most_file);
        break;
    case 1: { /* cut short, or longer by what is no part of it */
        size_t other = draw(2) ? draw(size + 1) : size + draw(256);
        other = other < most_file ? other : most_file;
        if (other > size)
            memset(data + size, 0xff, other - size);
        size = other;
        break;
    }
    case 2:
        fill_hash(data, size);
        break;
    case 3:
    case 4:
    case 5:
        poke_count = (uint32_t)draw(MOST_POKES + 1);
        for (uint32_t i = 0; i < poke_count; i++) {
            Geometry g = numbers_of(data);
            if (!derive_geometry(&g) || g.file_bytes > size)
                draw_geometry(&g);
            size_t at = draw_place(&g, size);
            pokes[i] = (Poke){(uint32_t)(1 + draw(draw(2) ? 40 : 400)), (uint32_t)at, draw_value(word(data, at), &g)};
        }
        break;
    default:
        spoil_words(data, size);
    }
    for (uint32_t i = 0; i < poke_count; i++)
        memcpy(data + size + i * POKE_BYTES, &pokes[i], POKE_BYTES);
    memcpy(data + size + poke_count * POKE_BYTES, &poke_count, 4);
    return size + poke_count * POKE_BYTES + 4;
}
