/* A reader of segments written from docs/segment.md alone: it includes no header of Chandlery.
 *
 *   reader PATH follow BELL SYMBOL INTERVAL…    tell all of these series whenever the bell is rung
 *   reader PATH hammer LINES SYMBOL INTERVAL…   take windows as fast as it goes; tell the first LINES that are whole
 *
 * Both follow a superseded file to its successor and end when there is none. Doubles are told by %.17g: exactly.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/futex.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* docs/segment.md, "Header" */
enum {
    AT_MAGIC = 0,
    AT_VERSION = 8,
    AT_FILE_BYTES = 16,
    AT_GENERATION = 24,
    AT_ROWS = 32,
    AT_GUARD_ROWS = 40,
    AT_SERIES = 48,
    AT_BELLS = 56,
    AT_STAMP_ROWS = 64,
    AT_HASH_SLOTS = 72,
    AT_BELLS_OFFSET = 80,
    AT_HASH_OFFSET = 88,
    AT_RECORDS_OFFSET = 96,
    AT_DATA_OFFSET = 104,
    AT_COLUMN_BYTES = 112,
    AT_BLOCK_BYTES = 120,
    AT_CHECKSUM = 144,
    AT_READY = 192,
    AT_SUPERSEDED = 256,
    AT_TABLE_VERSION = 320,
    HEADER_SIZE = 4096,
    VERSION = 2,
};

/* "Record of a series" */
enum {
    AT_EPOCH = 0,
    AT_INTERVAL = 8,
    AT_SYMBOL = 64,
    AT_REVISION = 128,
    AT_RESERVED = 136,
    AT_COUNT = 144,
    AT_SESSION = 152,
    AT_LIVE_FROM = 160,
    AT_LAST_OPEN_TIME = 168,
    AT_TRADED_FROM = 176,
    AT_FORMING_SEQUENCE = 192,
    AT_FORMING = 200,
    AT_FORMING_STAMPS = 256,
    RECORD_SIZE = 384,
};

enum { COLUMNS = 7, STAMPS = 8, LINE = 64, TURNS = 64, MOST_SERIES = 8, MOST_LENGTH = 4096 };

typedef struct {
    uint8_t *base;
    uint64_t size, generation, rows, guard_rows, series, bells, stamp_rows;
    uint64_t hash_slots, bells_at, hash_at, records_at, data_at, column_bytes, block_bytes;
} File;

typedef struct {
    uint64_t index, epoch;
} Found;

static uint64_t relaxed(const uint8_t *at) {
    return atomic_load_explicit((_Atomic uint64_t *)(void *)at, memory_order_relaxed);
}

static uint64_t acquire(const uint8_t *at) {
    return atomic_load_explicit((_Atomic uint64_t *)(void *)at, memory_order_acquire);
}

static void acquire_fence(void) {
    atomic_thread_fence(memory_order_acquire);
}

static void refuse(const char *why) {
    printf("refused %s\n", why);
    exit(2);
}

/* ---- the file ---- */

static uint32_t crc32_of(const uint8_t *data, size_t size) {
    uint32_t crc = 0xffffffff;
    for (size_t i = 0; i < size; i++) {
        crc ^= data[i];
        for (int bit = 0; bit < 8; bit++)
            crc = (crc & 1) ? crc >> 1 ^ 0xedb88320 : crc >> 1;
    }
    return crc ^ 0xffffffff;
}

static uint64_t up_to_line(uint64_t bytes) {
    return (bytes + LINE - 1) / LINE * LINE;
}

static void check(File *f) {
    const uint8_t *b = f->base;
    if (acquire(b + AT_READY) != UINT64_C(0x2121215944414552)) /* READY!!! */
        refuse("not ready");
    if (memcmp(b + AT_MAGIC, "CHNDLSEG", 8) != 0)
        refuse("no segment");
    if (relaxed(b + AT_VERSION) != VERSION)
        refuse("another version");
    if (relaxed(b + AT_CHECKSUM) != crc32_of(b, AT_CHECKSUM))
        refuse("checksum");
    f->generation = relaxed(b + AT_GENERATION);
    f->rows = relaxed(b + AT_ROWS);
    f->guard_rows = relaxed(b + AT_GUARD_ROWS);
    f->series = relaxed(b + AT_SERIES);
    f->bells = relaxed(b + AT_BELLS);
    f->stamp_rows = relaxed(b + AT_STAMP_ROWS);
    if (f->rows < 2 || f->rows > 1 << 20 || f->guard_rows < 1 || f->guard_rows >= f->rows || f->series < 1 ||
        f->series > 1 << 16 || f->bells < 1 || f->bells > 1 << 16 || f->stamp_rows < 1 || f->stamp_rows > f->rows)
        refuse("numbers out of bounds");
    f->hash_slots = 8;
    while (f->hash_slots < 2 * f->series)
        f->hash_slots *= 2;
    f->bells_at = HEADER_SIZE;
    f->hash_at = f->bells_at + LINE * f->bells;
    f->records_at = f->hash_at + up_to_line(8 * f->hash_slots);
    f->data_at = f->records_at + RECORD_SIZE * f->series;
    f->column_bytes = up_to_line(2 * f->rows * 8) + LINE;
    f->block_bytes = COLUMNS * f->column_bytes + f->stamp_rows * STAMPS * 8;
    uint64_t size = f->data_at + f->block_bytes * f->series;
    if (relaxed(b + AT_FILE_BYTES) != size || relaxed(b + AT_HASH_SLOTS) != f->hash_slots ||
        relaxed(b + AT_BELLS_OFFSET) != f->bells_at || relaxed(b + AT_HASH_OFFSET) != f->hash_at ||
        relaxed(b + AT_RECORDS_OFFSET) != f->records_at || relaxed(b + AT_DATA_OFFSET) != f->data_at ||
        relaxed(b + AT_COLUMN_BYTES) != f->column_bytes || relaxed(b + AT_BLOCK_BYTES) != f->block_bytes)
        refuse("offsets");
    if (size > f->size)
        refuse("truncated");
}

static int superseded(const File *f) {
    return acquire(f->base + AT_SUPERSEDED) != 0;
}

/* 1: open; 0: nothing has the path; -1: what has it is superseded. */
static int open_segment(const char *path, File *f) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    struct stat status;
    if (fstat(fd, &status) != 0 || status.st_size < HEADER_SIZE)
        refuse("truncated");
    f->size = (uint64_t)status.st_size;
    f->base = mmap(NULL, f->size, PROT_READ, MAP_SHARED, fd, 0);
    close(fd);
    if (f->base == MAP_FAILED)
        refuse("not mapped");
    check(f);
    if (superseded(f)) { /* none, for the moment: its successor is about to take the path */
        munmap(f->base, f->size);
        return -1;
    }
    printf("opened %" PRIu64 "\n", f->generation);
    return 1;
}

static const uint8_t *record_at(const File *f, uint64_t index) {
    return f->base + f->records_at + index * RECORD_SIZE;
}

static const uint8_t *block_at(const File *f, uint64_t index) {
    return f->base + f->data_at + index * f->block_bytes;
}

/* ---- "Look a series up" ---- */

static uint64_t hash_of(const char *symbol, const char *interval) {
    uint64_t hash = UINT64_C(14695981039346656037);
    const uint64_t prime = UINT64_C(1099511628211);
    for (; *symbol; symbol++)
        hash = (hash ^ (uint8_t)*symbol) * prime;
    hash *= prime; /* the zero byte */
    for (; *interval; interval++)
        hash = (hash ^ (uint8_t)*interval) * prime;
    return (hash ^ hash >> 32) & UINT32_MAX;
}

static int same_text(const uint8_t *at, size_t size, const char *text) {
    uint8_t padded[64] = {0}, found[64];
    memcpy(padded, text, strlen(text));
    for (size_t i = 0; i < size; i += 8) {
        uint64_t word = relaxed(at + i);
        memcpy(found + i, &word, 8);
    }
    return memcmp(found, padded, size) == 0;
}

static int find(const File *f, const char *symbol, const char *interval, Found *found) {
    if (strlen(symbol) >= 64 || strlen(interval) >= 16)
        return 0;
    const uint64_t hash = hash_of(symbol, interval);
    for (int turn = 0; turn < TURNS; turn++) {
        uint64_t version = acquire(f->base + AT_TABLE_VERSION);
        for (uint64_t probe = 0; probe < f->hash_slots; probe++) {
            uint64_t entry = acquire(f->base + f->hash_at + (hash + probe) % f->hash_slots * 8);
            if (entry == 0)
                break;
            uint64_t index = (entry & UINT32_MAX) - 1;
            if (entry >> 32 != hash || index >= f->series)
                continue;
            const uint8_t *record = record_at(f, index);
            uint64_t epoch = acquire(record + AT_EPOCH);
            int same = same_text(record + AT_SYMBOL, 64, symbol) && same_text(record + AT_INTERVAL, 16, interval);
            acquire_fence();
            if (same && (epoch & 1) && relaxed(record + AT_EPOCH) == epoch) {
                *found = (Found){index, epoch};
                return 1;
            }
        }
        acquire_fence();
        if (!(version & 1) && relaxed(f->base + AT_TABLE_VERSION) == version)
            return 0;
        sched_yield();
    }
    return 0;
}

static int alive(const File *f, const Found *s) {
    acquire_fence();
    return relaxed(record_at(f, s->index) + AT_EPOCH) == s->epoch;
}

/* ---- "Read a window", "A row's stamps", "Forming row" ---- */

static uint64_t rows_copied[MOST_LENGTH][COLUMNS];
static int slow; /* gives the writer turns in the middle, so that torn windows come often */

static void tell_words(const uint64_t *words) {
    double values[COLUMNS];
    memcpy(values, words, sizeof values);
    printf(" %" PRId64 " %.17g %.17g %.17g %.17g %.17g %" PRId64, (int64_t)words[0], values[1], values[2], values[3],
           values[4], values[5], (int64_t)words[6]);
}

typedef struct {
    uint64_t revision, count;
    int64_t session;
} Snapshot;

static int take_snapshot(const File *f, const Found *s, Snapshot *taken) {
    const uint8_t *record = record_at(f, s->index);
    for (int turn = 0; turn < TURNS; turn++) {
        taken->revision = acquire(record + AT_REVISION);
        taken->count = acquire(record + AT_COUNT);
        taken->session = (int64_t)relaxed(record + AT_SESSION);
        acquire_fence();
        if (!(taken->revision & 1) && relaxed(record + AT_REVISION) == taken->revision)
            return 1;
        sched_yield();
    }
    return 0;
}

/* 1: told; 0: what was read was not whole. */
static int tell_window(const File *f, const Found *s, const char *name) {
    const uint8_t *record = record_at(f, s->index);
    Snapshot taken;
    if (!take_snapshot(f, s, &taken))
        return 0;
    const uint64_t most = f->rows - f->guard_rows;
    const uint64_t begin = taken.count > most ? taken.count - most : 0, length = taken.count - begin;
    if (length > MOST_LENGTH)
        refuse("more rows than this program keeps");
    for (int column = 0; column < COLUMNS; column++) {
        const uint8_t *at = block_at(f, s->index) + (uint64_t)column * f->column_bytes + begin % f->rows * 8;
        for (uint64_t row = 0; row < length; row++)
            rows_copied[row][column] = relaxed(at + row * 8);
        if (slow)
            sched_yield();
    }
    acquire_fence();
    uint64_t reserved = relaxed(record + AT_RESERVED); /* first: a reset sets it back */
    acquire_fence();
    if (relaxed(record + AT_EPOCH) != s->epoch || relaxed(record + AT_REVISION) != taken.revision ||
        (reserved > f->rows && reserved - f->rows > begin))
        return 0;
    printf("window %s %" PRId64 " %" PRIu64 " %" PRIu64 " %" PRIu64, name, taken.session, taken.revision, begin,
           taken.count);
    for (uint64_t row = 0; row < length; row++)
        tell_words(rows_copied[row]);
    printf("\n");
    return 1;
}

static void tell_stamps(const File *f, const Found *s, const char *name) {
    const uint8_t *record = record_at(f, s->index);
    Snapshot taken;
    uint64_t stamps[STAMPS];
    if (!take_snapshot(f, s, &taken) || taken.count == 0)
        return;
    const uint64_t ordinal = taken.count - 1;
    const uint8_t *at = block_at(f, s->index) + COLUMNS * f->column_bytes + ordinal % f->stamp_rows * STAMPS * 8;
    for (int i = 0; i < STAMPS; i++)
        stamps[i] = relaxed(at + i * 8);
    acquire_fence();
    uint64_t reserved = relaxed(record + AT_RESERVED);
    acquire_fence();
    if (reserved - ordinal > f->stamp_rows || relaxed(record + AT_REVISION) != taken.revision || !alive(f, s))
        return;
    printf("stamps %s %" PRIu64, name, ordinal);
    for (int i = 0; i < STAMPS; i++)
        printf(" %" PRId64, (int64_t)stamps[i]);
    printf("\n");
}

static void tell_forming(const File *f, const Found *s, const char *name) {
    const uint8_t *record = record_at(f, s->index);
    for (int turn = 0; turn < TURNS; turn++) {
        uint64_t words[COLUMNS], stamps[STAMPS], sequence = acquire(record + AT_FORMING_SEQUENCE);
        for (int i = 0; i < COLUMNS; i++)
            words[i] = relaxed(record + AT_FORMING + i * 8);
        for (int i = 0; i < STAMPS; i++)
            stamps[i] = relaxed(record + AT_FORMING_STAMPS + i * 8);
        acquire_fence();
        if ((sequence & 1) || relaxed(record + AT_FORMING_SEQUENCE) != sequence) {
            sched_yield();
            continue;
        }
        if ((int64_t)words[0] < 0 || !alive(f, s))
            return;
        printf("forming %s", name);
        tell_words(words);
        for (int i = 0; i < STAMPS; i++)
            printf(" %" PRId64, (int64_t)stamps[i]);
        printf("\n");
        return;
    }
}

static void tell_series(const File *f, const char *symbol, const char *interval) {
    char name[96];
    Found found;
    snprintf(name, sizeof name, "%s@%s", symbol, interval);
    for (int turn = 0; turn < TURNS; turn++) {
        if (!find(f, symbol, interval, &found)) {
            printf("absent %s\n", name);
            return;
        }
        const uint8_t *record = record_at(f, found.index);
        tell_forming(f, &found, name); /* before the window that goes with it */
        tell_stamps(f, &found, name);
        printf("from %s %" PRId64 " %" PRId64 " %" PRId64 "\n", name, (int64_t)relaxed(record + AT_LIVE_FROM),
               (int64_t)relaxed(record + AT_TRADED_FROM), (int64_t)relaxed(record + AT_LAST_OPEN_TIME));
        if (tell_window(f, &found, name))
            return;
    }
    printf("never whole %s\n", name);
}

/* ---- "Bells", "Replacing the file" ---- */

static uint32_t bell_value(const File *f, uint64_t bell) {
    return atomic_load_explicit((_Atomic uint32_t *)(void *)(f->base + f->bells_at + LINE * bell),
                                memory_order_acquire);
}

static void follow(File *f, uint64_t bell, int count, char **names) {
    if (bell >= f->bells)
        refuse("no such bell");
    uint32_t seen = bell_value(f, bell);
    while (!superseded(f)) {
        for (int i = 0; i + 1 < count; i += 2)
            tell_series(f, names[i], names[i + 1]);
        printf("seen %" PRIu32 "\n", seen);
        fflush(stdout);
        while (bell_value(f, bell) == seen)
            syscall(SYS_futex, f->base + f->bells_at + LINE * bell, FUTEX_WAIT, seen, NULL, NULL, 0);
        seen = bell_value(f, bell);
    }
}

static void hammer(File *f, long *lines, int count, char **names) {
    long whole = 0, refused = 0;
    Found found[MOST_SERIES];
    int have[MOST_SERIES] = {0};
    slow = 1;
    FILE *silent = fopen("/dev/null", "w"), *loud = stdout;
    while (!superseded(f))
        for (int i = 0; i + 1 < count && i < 2 * MOST_SERIES; i += 2) {
            if (!have[i / 2] || !alive(f, &found[i / 2]))
                have[i / 2] = find(f, names[i], names[i + 1], &found[i / 2]);
            if (!have[i / 2])
                continue;
            stdout = *lines > 0 ? loud : silent;
            int told = tell_window(f, &found[i / 2], names[i]);
            whole += told;
            refused += !told;
            *lines -= told;
            if (whole % 7 == 0) {
                tell_forming(f, &found[i / 2], names[i]);
                tell_stamps(f, &found[i / 2], names[i]);
            }
            stdout = loud;
        }
    fclose(silent);
    printf("hammered %ld %ld\n", whole, refused);
}

int main(int count, char **arguments) {
    File file;
    if (count < 6)
        return 1;
    const int following = strcmp(arguments[2], "follow") == 0;
    long number = strtol(arguments[3], NULL, 10);
    for (int opened; (opened = open_segment(arguments[1], &file)) != 0;) {
        if (opened < 0) {
            usleep(1000);
            continue;
        }
        if (following)
            follow(&file, (uint64_t)number, count - 4, arguments + 4);
        else
            hammer(&file, &number, count - 4, arguments + 4);
        printf("superseded %" PRIu64 "\n", file.generation);
        munmap(file.base, file.size);
    }
    printf("gone\n");
    return 0;
}
