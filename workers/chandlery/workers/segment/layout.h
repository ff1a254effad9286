/* Layout of the segment and of a signal ring: offsets, sizes, alignment. No protocol logic (see protocol.h).
 *
 * All words are little-endian and naturally aligned; unless said otherwise a word is a uint64. layout.py reads
 * these constants from the extension, so they stand here and nowhere else. docs/segment.md tells them in prose.
 *
 * Segment file
 *
 *   0            header          4096 bytes
 *   bells        one line of 64 bytes a bell, its first uint32 is the futex word
 *   hash         hash_slots words; 0: empty, else 32 bits of the name's hash << 32 | (series index + 1)
 *   records      RECORD_BYTES a series: identity, state, forming row
 *   data         block_bytes a series: 7 columns of 2 * rows words (and one line of padding), then stamps
 *
 *   record                              data block
 *     0  epoch    8 interval[16]          0                open_time  [rows | the same rows again]
 *    64  symbol[64]                       column_bytes     open
 *   128  revision reserved count session  2 * column_bytes high   ...   6 * column_bytes trades
 *        live_from last_open_time         7 * column_bytes stamps: stamp_rows of 8 words
 *   192  forming: sequence + 7 words
 *   256  forming: 8 stamps
 *
 * Signal ring file
 *
 *   0            header          4096 bytes: identity, head, tail, counters
 *   positions    POSITION_COUNT entries of POSITION_BYTES
 *   slots        slots of SLOT_BYTES: position word, uint32 length, uint32 crc32, payload
 */
#ifndef CHANDLERY_SEGMENT_LAYOUT_H
#define CHANDLERY_SEGMENT_LAYOUT_H

#include <stdint.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the segment is little-endian");
_Static_assert(sizeof(double) == 8, "prices are IEEE 754 binary64");

enum {
    LINE_BYTES = 64,
    WORD_BYTES = 8,
    HEADER_BYTES = 4096,

    LAYOUT_VERSION = 2,
    COLUMN_COUNT = 7, /* open_time open high low close volume trades */
    STAMP_COUNT = 8,

    /* header: fixed once ready. Of every layout version alike, so that its readers can be told of a successor of any
     * other: magic, generation, number of bells, checksum, ready, superseded, and the bells right behind the header. */
    HEADER_MAGIC = 0,
    HEADER_VERSION = 8,
    HEADER_FILE_BYTES = 16,
    HEADER_GENERATION = 24,
    HEADER_ROWS = 32,
    HEADER_GUARD_ROWS = 40,
    HEADER_SERIES = 48,
    HEADER_BELLS = 56,
    HEADER_STAMP_ROWS = 64,
    HEADER_HASH_SLOTS = 72,
    HEADER_BELLS_OFFSET = 80,
    HEADER_HASH_OFFSET = 88,
    HEADER_RECORDS_OFFSET = 96,
    HEADER_DATA_OFFSET = 104,
    HEADER_COLUMN_BYTES = 112,
    HEADER_BLOCK_BYTES = 120,
    HEADER_WRITER_PID = 128,
    HEADER_CREATED_NS = 136, /* CLOCK_MONOTONIC */
    HEADER_CHECKSUM = 144,   /* CRC-32 (as in zlib) of the 144 bytes before */
    /* header: each changing word on its own line */
    HEADER_READY = 192,
    HEADER_SUPERSEDED = 256,
    HEADER_TABLE_VERSION = 320, /* odd while entries move */
    HEADER_HEARTBEAT_NS = 384,  /* CLOCK_MONOTONIC */

    BELL_BYTES = LINE_BYTES,

    RECORD_BYTES = 384,
    RECORD_EPOCH = 0, /* odd: in use; even: free */
    RECORD_INTERVAL = 8,
    INTERVAL_BYTES = 16,
    RECORD_SYMBOL = 64,
    SYMBOL_BYTES = 64,
    RECORD_REVISION = 128, /* odd while rows or session change */
    RECORD_RESERVED = 136, /* rows whose writing has begun */
    RECORD_COUNT = 144,    /* rows complete */
    RECORD_SESSION = 152,
    RECORD_LIVE_FROM_MS = 160,
    RECORD_LAST_OPEN_TIME_MS = 168,
    RECORD_TRADED_FROM_MS = 176,
    RECORD_FORMING_SEQUENCE = 192, /* odd while the forming row changes */
    RECORD_FORMING = 200,          /* 7 words; open_time -1: no forming row */
    RECORD_FORMING_STAMPS = 256,

    /* signal ring */
    RING_VERSION = 2,
    RING_OLDEST_VERSION = 1, /* its positions, at other offsets, were kept by symbol alone */
    RING_HEADER_BYTES = 4096,
    RING_MAGIC_AT = 0,
    RING_VERSION_AT = 8,
    RING_FILE_BYTES = 16,
    RING_SLOTS = 24,
    RING_SLOT_BYTES = 32,
    RING_POSITIONS_OFFSET = 40,
    RING_SLOTS_OFFSET = 48,
    RING_READY = 64,
    RING_TRADER = 128,
    RING_TRADER_BYTES = 384,
    RING_HEAD = 512,       /* written by the trader */
    RING_TAIL = 576,       /* written by the feed: the tail, then its complement */
    RING_COUNTERS = 640,
    RING_COUNTER_COUNT = 18,
    RING_POSITION_CLOCK = 832, /* counts stored positions */
    RING_UID = 896,            /* the Trader's; zeros in version 1 */
    RING_UID_BYTES = 256,

    POSITION_COUNT = 64,
    POSITION_BYTES = 128,
    POSITION_VERSION = 0, /* 0: empty; its lowest bit says which pair holds */
    POSITION_USED_AT = 8, /* position clock when it was last stored */
    POSITION_PAIRS = 16,  /* two pairs of (session, open_time_ms) */
    POSITION_SERIES = 48, /* symbol, a space, interval */

    SLOT_BYTES = 1024,
    SLOT_HEADER_BYTES = 16,
    SLOT_PAYLOAD_BYTES = SLOT_BYTES - SLOT_HEADER_BYTES,

    /* Bounds that keep every product far below 2^63. */
    MAX_ROWS = 1 << 20,
    MAX_SERIES = 1 << 16,
    MAX_BELLS = 1 << 16,
    MAX_RING_SLOTS = 1 << 16,
};

#define SEGMENT_MAGIC UINT64_C(0x4745534c444e4843) /* "CHNDLSEG" */
#define RING_MAGIC UINT64_C(0x474e524c444e4843)    /* "CHNDLRNG" */
#define READY_WORD UINT64_C(0x2121215944414552)    /* "READY!!!" */

_Static_assert(RECORD_BYTES % LINE_BYTES == 0, "records begin on a line");
_Static_assert(RECORD_FORMING_STAMPS + STAMP_COUNT * WORD_BYTES <= RECORD_BYTES, "a record holds its forming row");
_Static_assert(RECORD_FORMING + COLUMN_COUNT * WORD_BYTES == RECORD_FORMING_STAMPS, "forming row is one line");
_Static_assert(RECORD_INTERVAL + INTERVAL_BYTES <= RECORD_SYMBOL, "names don't overlap");
_Static_assert(RECORD_SYMBOL + SYMBOL_BYTES == RECORD_REVISION, "names don't overlap");
_Static_assert(RING_COUNTERS + RING_COUNTER_COUNT * WORD_BYTES <= RING_POSITION_CLOCK, "counters fit");
_Static_assert(RING_TRADER + RING_TRADER_BYTES <= RING_HEAD, "the trader's name fits");
_Static_assert(RING_UID + RING_UID_BYTES <= RING_HEADER_BYTES, "the Trader's uid fits");

/* Where everything lies, derived from five numbers. */
typedef struct {
    uint64_t rows, guard_rows, series, bells, stamp_rows;
    uint64_t hash_slots;
    uint64_t bells_offset, hash_offset, records_offset, data_offset;
    uint64_t column_bytes, block_bytes, file_bytes;
} Geometry;

static inline uint64_t whole_lines(uint64_t bytes) {
    return (bytes + LINE_BYTES - 1) / LINE_BYTES * LINE_BYTES;
}

/* Fills in what follows from the five numbers; 0 when they are out of bounds. */
static inline int derive_geometry(Geometry *g) {
    if (g->rows < 2 || g->rows > MAX_ROWS || g->guard_rows < 1 || g->guard_rows >= g->rows || g->series < 1 ||
        g->series > MAX_SERIES || g->bells < 1 || g->bells > MAX_BELLS || g->stamp_rows < 1 ||
        g->stamp_rows > g->rows)
        return 0;
    g->hash_slots = 8;
    while (g->hash_slots < 2 * g->series) /* at most half full: probes stay short */
        g->hash_slots *= 2;
    g->bells_offset = HEADER_BYTES;
    g->hash_offset = g->bells_offset + g->bells * BELL_BYTES;
    g->records_offset = g->hash_offset + whole_lines(g->hash_slots * WORD_BYTES);
    g->data_offset = g->records_offset + g->series * RECORD_BYTES;
    /* One line more a column: with rows a power of two the columns would else share cache sets. */
    g->column_bytes = whole_lines(2 * g->rows * WORD_BYTES) + LINE_BYTES;
    g->block_bytes = COLUMN_COUNT * g->column_bytes + g->stamp_rows * STAMP_COUNT * WORD_BYTES;
    g->file_bytes = g->data_offset + g->series * g->block_bytes;
    return 1;
}

#endif
