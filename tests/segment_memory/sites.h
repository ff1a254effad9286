/* Names of the places in protocol.h where the order of memory is asked for, and which of them are weakened.
 *
 * A site is a line of protocol.h and the kind of word that it accesses: begin_change() and end_change() serve three
 * sequences, and each use counts for itself. A release fence's word is the one that was stored before it; an acquire
 * fence counts for its line alone. Included by protocol.h through SEGMENT_ACCESS, where Segment is known.
 */
#ifndef CHANDLERY_TESTS_SITES_H
#define CHANDLERY_TESTS_SITES_H

#include <stdio.h>

enum { MOST_LINES = 1024 };

enum {
    BELL_WORD,
    HASH_WORD,
    TABLE_VERSION_WORD,
    HEADER_WORD,
    EPOCH_WORD,
    NAME_WORD,
    REVISION_WORD,
    RESERVED_WORD,
    COUNT_WORD,
    SESSION_WORD,
    TIME_WORD,
    SEQUENCE_WORD,
    FORMING_WORD,
    ROW_WORD,
    STAMPS_WORD,
    ANY_WORD,
    WORD_KINDS
};

static const char *const WORD_NAMES[WORD_KINDS] = {"bell",     "hash",    "table_version", "header", "epoch",
                                                   "name",     "revision", "reserved",     "count",  "session",
                                                   "time",     "forming_sequence", "forming", "row",  "stamps",  "-"};

enum { LOAD_RELAXED, LOAD_ACQUIRE, STORE_RELAXED, STORE_RELEASE, ADD_RELEASE, FENCE_ACQUIRE, FENCE_RELEASE };

static const char *const ACCESS_NAMES[] = {"load_relaxed", "load_acquire",  "store_relaxed", "store_release",
                                           "add_release",  "fence_acquire", "fence_release"};

typedef struct {
    const char *function; /* NULL: not come by yet */
    int access, weakened;
} Site;

static Site sites[MOST_LINES][WORD_KINDS];
static Segment segment; /* the one there is in these tests */

#define UNWATCHED static __attribute__((noinline, no_sanitize("thread"), unused))

UNWATCHED int word_kind(const uint8_t *at) {
    const Geometry *g = &segment.geometry;
    uint64_t offset = (uint64_t)(at - segment.base);
    if (offset < g->bells_offset)
        return offset == HEADER_TABLE_VERSION ? TABLE_VERSION_WORD : HEADER_WORD;
    if (offset < g->hash_offset)
        return BELL_WORD;
    if (offset < g->records_offset)
        return HASH_WORD;
    if (offset >= g->data_offset)
        return (offset - g->data_offset) % g->block_bytes < COLUMN_COUNT * g->column_bytes ? ROW_WORD : STAMPS_WORD;
    switch ((offset - g->records_offset) % RECORD_BYTES) {
    case RECORD_EPOCH:
        return EPOCH_WORD;
    case RECORD_REVISION:
        return REVISION_WORD;
    case RECORD_RESERVED:
        return RESERVED_WORD;
    case RECORD_COUNT:
        return COUNT_WORD;
    case RECORD_SESSION:
        return SESSION_WORD;
    case RECORD_LIVE_FROM_MS:
    case RECORD_LAST_OPEN_TIME_MS:
    case RECORD_TRADED_FROM_MS:
        return TIME_WORD;
    case RECORD_FORMING_SEQUENCE:
        return SEQUENCE_WORD;
    default:
        return (offset - g->records_offset) % RECORD_BYTES < RECORD_REVISION ? NAME_WORD : FORMING_WORD;
    }
}

/* Whether this access keeps the order it asks for. */
UNWATCHED int strong(const char *function, int line, int access, int word) {
    Site *site = &sites[line][word];
    if (!site->function) {
        site->function = function;
        site->access = access;
    }
    return !site->weakened;
}

#define EXPORT __attribute__((visibility("default"), unused))

/* One line a site come by: line, function, access, word. Line 0 stands for accesses outside protocol.h. */
EXPORT void list_sites(char *text, int room) {
    for (int line = 1; line < MOST_LINES; line++)
        for (int word = 0; word < WORD_KINDS; word++) {
            const Site *site = &sites[line][word];
            if (!site->function || room <= 1)
                continue;
            int written = snprintf(text, (size_t)room, "%d %s %s %s\n", line, site->function,
                                   ACCESS_NAMES[site->access], WORD_NAMES[word]);
            text += written;
            room -= written;
        }
}

/* Takes the order from every site of that description, one that nobody has come by yet too; 0: unknown words. */
EXPORT int weaken(int line, const char *word) {
    for (int kind = 0; kind < WORD_KINDS; kind++)
        if (strcmp(WORD_NAMES[kind], word) == 0)
            return sites[line][kind].weakened = 1;
    return 0;
}

EXPORT void mend_all(void) {
    for (int line = 0; line < MOST_LINES; line++)
        for (int word = 0; word < WORD_KINDS; word++)
            sites[line][word].weakened = 0;
}

#endif
