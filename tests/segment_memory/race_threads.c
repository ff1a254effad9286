/* The real protocol.h by threads over one shared mapping, under ThreadSanitizer.
 *
 *   race_threads turns [LINE WORD]…   each history beside each reader, the writer's turn once before each load of the
 *                                     reader; at the sites named the order of memory is taken away
 *   race_threads free                 a writer and two readers that run freely
 *
 * Within a pair of turns the threads hand over by a futex that ThreadSanitizer doesn't see: nothing but the protocol
 * orders them. A barrier, which it does see, stands between one pair and the next.
 */
#define SEGMENT_ACCESS "race_access.h"
/* The clock decides nothing here: outcomes are the same on a busy machine. */
#define SEGMENT_PATIENCE_NS UINT64_MAX
#include <pthread.h>
#include <sys/mman.h>

#include "protocol.h"

enum { FREE_STEPS = MOST_STEPS - 4096, FREE_READERS = 2 };

static volatile int turn; /* 0: the reader begins; 1: the writer's; 2: the writer is done */

UNWATCHED void await_turn(int wanted) {
    int now;
    while ((now = turn) != wanted)
        syscall(SYS_futex, &turn, FUTEX_WAIT, now, NULL, NULL, 0);
}

UNWATCHED void give_turn(int next) {
    turn = next;
    syscall(SYS_futex, &turn, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

UNWATCHED int turn_given(void) {
    return turn;
}

UNWATCHED int writer_is_done(void) {
    return last_step >= FREE_STEPS;
}

static void before_load(void) {
    if (reader->loads++ == reader->pause_at) {
        give_turn(1);
        await_turn(2);
    }
}

/* ---- the writer ---- */

static void put(uint64_t series, int64_t ordinal) {
    Row row = {ordinal * 1000, 1, 2, 3, 4, 5, ordinal};
    int64_t stamps[STAMP_COUNT] = {ordinal};
    append_row(&segment, series, &row, stamps, 0, 1);
}

static void form(uint64_t series, int64_t ordinal) {
    Row row = {ordinal * 1000, 1, 2, 3, 4, 5, ordinal};
    int64_t stamps[STAMP_COUNT] = {ordinal};
    store_forming(record_of(&segment, series), &row, stamps);
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
}

static void discard(const char *symbol) {
    Name name = named(symbol);
    uint64_t series, epoch, slot;
    if (!find_series(&segment, &name, &series, &epoch, &slot))
        abort();
    remove_series(&segment, series, slot);
}

static void go_round(void) {
    for (int64_t ordinal = 5; ordinal < 9; ordinal++)
        put(0, ordinal);
}

static void revise(void) {
    Row row = {4000, 9, 9, 9, 9, 9, 9};
    if (!revise_row(&segment, 0, &row))
        abort();
}

static void start_over(void) {
    put(0, 5);
    reset_series(&segment, 0, 1);
    for (int64_t ordinal = 100; ordinal < 105; ordinal++)
        put(0, ordinal);
}

static void change_forming(void) {
    form(0, 5);
    forget_forming(record_of(&segment, 0));
    form(0, 6);
}

static void close_and_ring(void) {
    form(0, 5);
    put(0, 5);
    bell_advance(&segment, 0);
}

static char symbols[6][16]; /* all want one slot of the hash */
enum { FIRST, SECOND, THIRD, LATER, ABSENT, SYMBOLS };

static void choose_symbols(void) {
    for (int number = 0, chosen = 0; chosen < SYMBOLS; number++) {
        char symbol[16] = {0};
        snprintf(symbol, sizeof symbol, "S%d", number);
        Name name = named(symbol);
        if ((hash_name(&name) & 7) == 5)
            memcpy(symbols[chosen++], symbol, sizeof symbol);
    }
}

static void give_away(void) {
    discard(symbols[FIRST]);
    insert(symbols[LATER]);
    put(0, 0);
}

static void come_back(void) {
    discard(symbols[FIRST]);
    insert(symbols[LATER]);
    discard(symbols[LATER]);
    insert(symbols[FIRST]);
}

static void (*const HISTORIES[])(void) = {go_round, revise, start_over, change_forming,
                                        close_and_ring, give_away, come_back};

static void set_up(void) {
    insert(symbols[FIRST]);
    insert(symbols[SECOND]);
    insert(symbols[THIRD]);
    for (int64_t ordinal = 0; ordinal < 5; ordinal++)
        put(0, ordinal);
    form(0, 5);
}

/* ---- readers: whether what they got was accepted ---- */

static int snapshot(void) {
    return !(take_snapshot(&segment, 0).revision & 1);
}

static int window(void) {
    Snapshot taken = take_snapshot(&segment, 0);
    uint64_t begin = first_readable(&segment.geometry, taken.count);
    for (int column = 0; column < COLUMN_COUNT; column++)
        for (uint64_t row = 0; row < taken.count - begin; row++)
            (void)race_load(block_of(&segment, 0) + (uint64_t)column * segment.geometry.column_bytes +
                                (begin % segment.geometry.rows + row) * WORD_BYTES,
                            LOAD_RELAXED, "a reader", 0);
    return unchanged(&segment, 0, 1, taken.revision, begin);
}

static int forming(void) {
    uint64_t sequence;
    int64_t stamps[STAMP_COUNT];
    Row row;
    return copy_forming(&segment, 0, &sequence, &row, stamps);
}

static int stamps(void) {
    int64_t found[STAMP_COUNT];
    return copy_stamps(&segment, 0, 4, found);
}

static int found_after(void) {
    return find_after(&segment, 0, 3000) > 0;
}

static int look_up(const char *symbol) {
    Name name = named(symbol);
    uint64_t series, epoch, slot;
    if (!find_series(&segment, &name, &series, &epoch, &slot))
        return 0;
    return !(take_snapshot(&segment, series).revision & 1);
}

static int first(void) {
    return look_up(symbols[FIRST]);
}

static int neighbour(void) {
    return look_up(symbols[THIRD]);
}

static int newcomer(void) {
    return look_up(symbols[LATER]);
}

static int absent(void) {
    return look_up(symbols[ABSENT]);
}

static int rung(void) {
    (void)bell_value(&segment, 0);
    return window();
}

static int (*const OPERATIONS[])(void) = {snapshot, window, forming, stamps, found_after,
                                        first,    neighbour, newcomer, absent, rung};

enum { HISTORY_COUNT = sizeof HISTORIES / sizeof *HISTORIES, OPERATION_COUNT = sizeof OPERATIONS / sizeof *OPERATIONS };

/* ---- by turns ---- */

static long accepted_count, refused_count;

UNWATCHED void new_segment(void) {
    segment.geometry = (Geometry){.rows = 4, .guard_rows = 1, .series = 4, .bells = 1, .stamp_rows = 2};
    if (!derive_geometry(&segment.geometry) || segment.geometry.file_bytes / WORD_BYTES > MOST_WORDS)
        abort();
    segment.base = mmap(NULL, segment.geometry.file_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (segment.base == MAP_FAILED)
        abort();
    last_step = last_revision_begun = 0;
    for (int word = 0; word < MOST_WORDS; word++)
        begun_step[word] = done_step[word] = 0;
    for (int kind = 0; kind < WORD_KINDS; kind++)
        guard_of_kind[kind] = 0;
}

static pthread_barrier_t barrier;
static int history, operation, pause_at, paused; /* this pair of turns; history HISTORY_COUNT: the end */

static void await_others(void) {
    pthread_barrier_wait(&barrier);
}

static void *write_in_turn(void *unused) {
    for (await_others(); history < HISTORY_COUNT; await_others()) {
        await_turn(1);
        HISTORIES[history]();
        give_turn(2);
        await_others();
    }
    return unused;
}

static void *read_in_turn(void *unused) {
    for (await_others(); history < HISTORY_COUNT; await_others()) {
        Reader self = {.pause_at = pause_at, .fiber = __tsan_create_fiber(0)};
        reader = &self;
        int accepted = OPERATIONS[operation]();
        if (accepted)
            check_accepted(&self);
        accepted ? accepted_count++ : refused_count++;
        paused = turn_given() == 2;
        if (!paused)
            give_turn(1);
        __tsan_destroy_fiber(self.fiber);
        await_others();
    }
    return unused;
}

/* The writer's whole history between two loads of the reader; 0 when the reader had fewer loads. */
static int take_turns(void) {
    new_segment();
    set_up();
    give_turn(0);
    await_others(); /* they begin */
    await_others(); /* they are done */
    munmap(segment.base, segment.geometry.file_bytes);
    return paused;
}

static void run_in_turns(void) {
    pthread_t writing, reading;
    pthread_barrier_init(&barrier, NULL, 3);
    if (pthread_create(&writing, NULL, write_in_turn, NULL) || pthread_create(&reading, NULL, read_in_turn, NULL))
        abort();
    for (history = 0; history < HISTORY_COUNT; history++)
        for (operation = 0; operation < OPERATION_COUNT; operation++)
            for (pause_at = 0; take_turns();)
                pause_at++;
    await_others();
    pthread_join(writing, NULL);
    pthread_join(reading, NULL);
}

/* ---- freely ---- */

static void *write_freely(void *unused) {
    int64_t ordinal = 5;
    for (unsigned turn_number = 1; !writer_is_done(); turn_number++) {
        form(0, ordinal);
        put(0, ordinal++);
        bell_advance(&segment, 0);
        if (turn_number % 7 == 0) {
            Row row = {(ordinal - 1) * 1000, 9, 9, 9, 9, 9, 9};
            revise_row(&segment, 0, &row);
        }
        if (turn_number % 50 == 0)
            reset_series(&segment, 0, (int64_t)turn_number);
        if (turn_number % 31 == 0) {
            discard(symbols[SECOND]);
            insert(symbols[SECOND]);
        }
        sched_yield();
    }
    return unused;
}

static void *read_freely(void *counts) {
    void *fiber = __tsan_create_fiber(0);
    for (int next = 0; !writer_is_done(); next = (next + 1) % OPERATION_COUNT) {
        Reader self = {.pause_at = -1, .fiber = fiber};
        reader = &self;
        int accepted = OPERATIONS[next]();
        if (accepted)
            check_accepted(&self);
        ((long *)counts)[accepted]++;
    }
    __tsan_destroy_fiber(fiber);
    return NULL;
}

static void run_freely(void) {
    pthread_t writing, reading[FREE_READERS];
    long counts[FREE_READERS][2] = {{0}};
    new_segment();
    set_up();
    if (pthread_create(&writing, NULL, write_freely, NULL))
        abort();
    for (int i = 0; i < FREE_READERS; i++)
        if (pthread_create(&reading[i], NULL, read_freely, counts[i]))
            abort();
    pthread_join(writing, NULL);
    for (int i = 0; i < FREE_READERS; i++) {
        pthread_join(reading[i], NULL);
        refused_count += counts[i][0];
        accepted_count += counts[i][1];
    }
}

int main(int count, char **arguments) {
    int freely = count == 2 && strcmp(arguments[1], "free") == 0;
    for (int i = 2; i + 1 < count; i += 2)
        if (!weaken(atoi(arguments[i]), arguments[i + 1]))
            return 2;
    fence_fiber = __tsan_create_fiber(0);
    choose_symbols();
    freely ? run_freely() : run_in_turns();
    printf("accepted %ld refused %ld\n", accepted_count, refused_count);
    return 0;
}
