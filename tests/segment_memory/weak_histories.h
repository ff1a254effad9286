/* Histories of one writer, with the real protocol.h, and what was true at each moment of them.
 *
 * What is stored before mark() every reader knows; what comes after it is what readers are put beside.
 */
#ifndef CHANDLERY_TESTS_WEAK_HISTORIES_H
#define CHANDLERY_TESTS_WEAK_HISTORIES_H

#include "protocol.h"

enum {
    MOST_REVISIONS = 64,
    MOST_ROWS = 32,
    SERIES = 0,
    RANDOM_STEPS = 14,
    MOST_SESSIONS = 2 * RANDOM_STEPS,
};

/* What held while the revision of series 0 stood at twice the index. */
static struct {
    uint64_t epoch, least, most; /* count at its beginning and at its end */
    int64_t session;
    int version[MOST_ROWS];
} truth[MOST_REVISIONS];
static int now;
/* The same for its forming sequence: the row and its stamps. */
static struct {
    uint64_t epoch, words[COLUMN_COUNT + STAMP_COUNT];
} forming_truth[MOST_REVISIONS];
static int all_words; /* every word of a row tells which one it is; else the first and the last */

/* ---- rows that tell what they are ---- */

static uint64_t row_word(int column, int64_t session, uint64_t ordinal, int version) {
    if (column == 0)
        return (uint64_t)session * 1000000 + ordinal * 1000;
    if (!all_words && column != COLUMN_COUNT - 1)
        return 0;
    return (((uint64_t)session * 100 + ordinal) * 100 + (uint64_t)version) * 8 + (uint64_t)column + 1;
}

static uint64_t stamp_word(int stamp, int64_t session, uint64_t ordinal, int version) {
    if (!all_words && stamp != 0 && stamp != STAMP_COUNT - 1)
        return 0;
    return (((uint64_t)session * 100 + ordinal) * 100 + (uint64_t)version) * 16 + (uint64_t)stamp + 1;
}

static Row made_row(int64_t session, uint64_t ordinal, int version) {
    uint64_t words[COLUMN_COUNT];
    for (int column = 0; column < COLUMN_COUNT; column++)
        words[column] = row_word(column, session, ordinal, version);
    return (Row){(int64_t)words[0],     bits_double(words[1]), bits_double(words[2]), bits_double(words[3]),
                 bits_double(words[4]), bits_double(words[5]), (int64_t)words[6]};
}

static void make_stamps(int64_t *stamps, int64_t session, uint64_t ordinal, int version) {
    for (int stamp = 0; stamp < STAMP_COUNT; stamp++)
        stamps[stamp] = (int64_t)stamp_word(stamp, session, ordinal, version);
}

/* ---- the writer ---- */

static uint64_t peek(uint64_t offset) {
    return *(uint64_t *)(void *)(record_of(&segment, SERIES) + offset);
}

static void note(void) {
    uint64_t sequence = peek(RECORD_FORMING_SEQUENCE) / 2;
    forming_truth[sequence].epoch = peek(RECORD_EPOCH);
    memcpy(forming_truth[sequence].words, record_of(&segment, SERIES) + RECORD_FORMING, sizeof forming_truth->words);
    now = (int)(peek(RECORD_REVISION) / 2);
    truth[now].epoch = peek(RECORD_EPOCH);
    truth[now].session = (int64_t)peek(RECORD_SESSION);
    truth[now].most = peek(RECORD_COUNT);
}

static void put(uint64_t ordinal) {
    int64_t stamps[STAMP_COUNT], session = truth[now].session;
    Row row = made_row(session, ordinal, 0);
    make_stamps(stamps, session, ordinal, 0);
    append_row(&segment, SERIES, &row, stamps, 0, 1);
    note();
}

static void revise(uint64_t ordinal, int version) {
    Row row = made_row(truth[now].session, ordinal, version);
    truth[now + 1] = truth[now];
    truth[now + 1].least = truth[now].most;
    truth[now + 1].version[ordinal] = version;
    if (!revise_row(&segment, SERIES, &row))
        abort();
    note();
}

static void start(int64_t session) {
    reset_series(&segment, SERIES, session);
    note();
}

static void form(uint64_t ordinal, int version) {
    int64_t stamps[STAMP_COUNT];
    Row row = made_row(truth[now].session, ordinal, version);
    make_stamps(stamps, truth[now].session, ordinal, version);
    store_forming(record_of(&segment, SERIES), &row, stamps);
    note();
}

static void unform(void) {
    forget_forming(record_of(&segment, SERIES));
    note();
}

static Name named(const char *symbol) {
    Name name = {.interval = "1s"};
    memcpy(name.symbol, symbol, strlen(symbol));
    return name;
}

static void insert(const char *symbol) {
    Name name = named(symbol);
    if (insert_series(&segment, &name) < 0)
        abort();
    note();
}

static void discard(const char *symbol) {
    Name name = named(symbol);
    uint64_t series, epoch, slot;
    if (!find_series(&segment, &name, &series, &epoch, &slot))
        abort();
    remove_series(&segment, series, slot);
}

static void empty_segment(uint64_t series) {
    memset(truth, 0, sizeof truth);
    memset(forming_truth, 0, sizeof forming_truth);
    now = 0;
    new_segment((Geometry){.rows = 4, .guard_rows = 1, .series = series, .bells = 1, .stamp_rows = 2});
}

/* A series of so many rows, which every reader knows. */
static void started(uint64_t rows) {
    empty_segment(2);
    insert("BTC/USDT");
    for (uint64_t ordinal = 0; ordinal < rows; ordinal++)
        put(ordinal);
    truth[now].least = truth[now].most;
    mark();
}

static void go_round(void) {
    started(5);
    for (uint64_t ordinal = 5; ordinal < 9; ordinal++)
        put(ordinal);
}

static void revise_twice(void) {
    started(5);
    revise(4, 1);
    revise(3, 2);
}

static void revise_and_append(void) {
    started(5);
    revise(4, 1);
    put(5);
    revise(3, 2);
}

static void start_over(void) {
    started(5);
    start(1);
    for (uint64_t ordinal = 0; ordinal < 3; ordinal++)
        put(ordinal);
}

static void go_round_and_start_over(void) {
    started(5);
    for (uint64_t ordinal = 5; ordinal < 8; ordinal++)
        put(ordinal);
    start(1);
    for (uint64_t ordinal = 0; ordinal < 5; ordinal++)
        put(ordinal);
}

static void give_record_away(void) {
    started(5);
    discard("BTC/USDT");
    insert("ETH/USDT");
    start(2);
    for (uint64_t ordinal = 0; ordinal < 4; ordinal++)
        put(ordinal);
}

/* Some of everything, on one series. */
static void live_long(void) {
    started(5);
    put(5);
    revise(5, 1);
    form(6, 1);
    put(6);
    put(7);
    start(1);
    for (uint64_t ordinal = 0; ordinal < 5; ordinal++)
        put(ordinal);
    revise(2, 1);
    discard("BTC/USDT");
    insert("ETH/USDT");
    start(2);
    put(0);
}

static uint64_t history_seed;

static void live_at_random(void) {
    int64_t session = 0;
    int version = 0, other = 0;
    started(5);
    path.random = history_seed * UINT64_C(0x9e3779b97f4a7c15) | 1;
    for (int i = 0; i < RANDOM_STEPS; i++) {
        uint64_t count = truth[now].most;
        switch (draw(8)) {
        case 0:
            if (count) {
                revise(count - 1 - draw(count < 4 ? count : 4), ++version);
                break;
            } /* fall through */
        case 1:
            form(count, ++version);
            break;
        case 2:
            unform();
            break;
        case 3:
            start(++session);
            break;
        case 4:
            discard(other ? "ETH/USDT" : "BTC/USDT");
            other = !other;
            insert(other ? "ETH/USDT" : "BTC/USDT");
            start(++session);
            break;
        default:
            put(count);
        }
    }
}

static void form_some(void) {
    started(1);
    form(1, 1);
    form(1, 2);
    unform();
    form(2, 3);
}

static void form_and_close(void) {
    started(3);
    form(3, 1);
    put(3);
    form(4, 1);
}

static void form_and_give_away(void) {
    started(1);
    form(1, 1);
    discard("BTC/USDT");
    insert("ETH/USDT");
    form(0, 7);
}

static void change_owners(void) {
    started(1);
    discard("BTC/USDT");
    insert("ETH/USDT");
    discard("ETH/USDT");
    insert("BTC/USDT");
}

static void come_back(void) {
    started(5);
    discard("BTC/USDT");
    insert("ETH/USDT");
    start(2);
    for (uint64_t ordinal = 0; ordinal < 4; ordinal++)
        put(ordinal);
    discard("ETH/USDT");
    insert("BTC/USDT");
    start(3);
    put(0);
    put(1);
}

static void first_insert(void) {
    empty_segment(2);
    mark();
    insert("ETH/USDT");
    put(0);
    put(1);
}

static void ring(void) {
    started(3);
    form(3, 1);
    put(3);
    bell_advance(&segment, 0);
    form(4, 1);
    bell_advance(&segment, 0);
}

static void discard_and_ring(void) {
    started(3);
    discard("BTC/USDT");
    bell_advance(&segment, 0);
}

static char neighbours[4][16]; /* symbols that want the same slot */

static void move_neighbours(void) {
    empty_segment(4);
    for (int number = 0, chosen = 0; chosen < 4; number++) {
        char symbol[16] = {0};
        snprintf(symbol, sizeof symbol, "S%d", number);
        Name name = named(symbol);
        if ((hash_name(&name) & (segment.geometry.hash_slots - 1)) == 5)
            memcpy(neighbours[chosen++], symbol, sizeof symbol);
    }
    for (int i = 0; i < 3; i++)
        insert(neighbours[i]);
    mark();
    discard(neighbours[0]);
    insert(neighbours[3]);
    discard(neighbours[1]);
}

/* Two names that are equal in all the bits that the hash table keeps. */
static void share_a_hash(void) {
    empty_segment(4);
    insert("C5202/USDT");
    mark();
    insert("C55375/USDT");
    discard("C5202/USDT");
}

#endif
