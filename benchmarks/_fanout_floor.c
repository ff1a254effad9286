/* The floor of the fan-out: one writer, N readers, candles in shared memory, one futex word a reader.
 *
 * usage: fanout_floor READERS SUBSCRIBED WARM CANDLES PERIOD_NS
 * Writes 64-bit words on stdout: CPU time of all processes over the CANDLES measured, ns; then two latencies for
 * each of the SUBSCRIBED readers and CANDLES, ns: from the writer's stamp until the reader has its window of 500 in hand,
 * and until it has read it.
 *
 * A reader reads what the other mechanisms' readers read: the newest 500 rows of the columns, their last close and
 * the sum of their closes; and asks afterwards whether the writer has overwritten any of it. Nothing else is done:
 * no names, no sessions, no revisions, no checks of what is mapped.
 */
#define _GNU_SOURCE
#include <linux/futex.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { COLUMNS = 7, ROWS = 1000, WINDOW = 500, HISTORY = 500, CLOSE = 4 };

typedef struct {
    _Alignas(64) _Atomic uint32_t word;
} Bell;

typedef struct {
    _Alignas(64) _Atomic int64_t reserved;
    _Atomic int64_t count;
    _Alignas(64) _Atomic uint64_t column[COLUMNS][2 * ROWS + 8];
} Series;

typedef struct {
    _Alignas(64) _Atomic int64_t read; /* candles that this reader has read */
} Progress;

static int readers, subscribed, warm, candles;
static int64_t period_ns;
static Series *series;
static Bell *bells;
static Progress *progress;
typedef struct {
    int64_t in_hand_ns, read_ns;
} Sample;

static Sample *samples; /* [reader][candle] */
static int64_t *stamp_ns;

static int64_t clock_ns(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static void *shared(size_t length) {
    void *memory = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (memory == MAP_FAILED)
        exit(1);
    return memory;
}

static void append(const double *row) {
    int64_t ordinal = atomic_load_explicit(&series->count, memory_order_relaxed);
    atomic_store_explicit(&series->reserved, ordinal + 1, memory_order_relaxed);
    atomic_thread_fence(memory_order_release);
    for (int column = 0; column < COLUMNS; column++) {
        uint64_t word;
        __builtin_memcpy(&word, &row[column], sizeof word);
        atomic_store_explicit(&series->column[column][ordinal % ROWS], word, memory_order_relaxed);
        atomic_store_explicit(&series->column[column][ordinal % ROWS + ROWS], word, memory_order_relaxed);
    }
    atomic_store_explicit(&series->count, ordinal + 1, memory_order_release);
}

static double value_at(int column, int64_t index) {
    uint64_t word = atomic_load_explicit(&series->column[column][index], memory_order_relaxed);
    double value;
    __builtin_memcpy(&value, &word, sizeof value);
    return value;
}

static double read_window(int64_t end) {
    int64_t low = (end - WINDOW) % ROWS;
    double sum = value_at(CLOSE, low + WINDOW - 1);
    for (int64_t index = low; index < low + WINDOW; index++)
        sum += value_at(CLOSE, index);
    return sum;
}

static int overwritten(int64_t begin) {
    atomic_thread_fence(memory_order_acquire);
    return atomic_load_explicit(&series->reserved, memory_order_relaxed) - ROWS > begin;
}

static void be_reader(int index) {
    volatile double kept = 0;
    int total = warm + candles;
    int64_t end = HISTORY;
    while (end < HISTORY + total) {
        uint32_t seen = atomic_load_explicit(&bells[index].word, memory_order_acquire);
        if (atomic_load_explicit(&series->count, memory_order_acquire) == end) {
            syscall(SYS_futex, &bells[index].word, FUTEX_WAIT, seen, NULL, NULL, 0);
            continue;
        }
        int64_t in_hand_ns = clock_ns(CLOCK_MONOTONIC);
        kept = kept + read_window(end + 1);
        if (overwritten(end + 1 - WINDOW))
            exit(1);
        samples[(int64_t)index * total + end - HISTORY] = (Sample){in_hand_ns, clock_ns(CLOCK_MONOTONIC)};
        end++;
        atomic_store_explicit(&progress[index].read, end - HISTORY, memory_order_release);
    }
    for (;;)
        pause();
}

static void be_idle(int index) {
    for (;;)
        syscall(SYS_futex, &bells[index].word, FUTEX_WAIT, 0, NULL, NULL, 0);
}

static void publish(int first, int count) {
    double row[COLUMNS] = {0, 1000, 1001, 999, 1000, 10, 7};
    int64_t due = clock_ns(CLOCK_MONOTONIC) + period_ns;
    for (int number = first; number < first + count; number++, due += period_ns) {
        int64_t early = due - clock_ns(CLOCK_MONOTONIC);
        if (early > 0) {
            struct timespec pause = {early / 1000000000, early % 1000000000};
            clock_nanosleep(CLOCK_MONOTONIC, 0, &pause, NULL);
        }
        stamp_ns[number] = early > 0 ? clock_ns(CLOCK_MONOTONIC) : due;
        row[0] = number;
        append(row);
        for (int index = 0; index < subscribed; index++)
            atomic_fetch_add_explicit(&bells[index].word, 1, memory_order_release);
        for (int index = 0; index < subscribed; index++)
            syscall(SYS_futex, &bells[index].word, FUTEX_WAKE, INT32_MAX, NULL, NULL, 0);
    }
    for (int index = 0; index < subscribed; index++)
        while (atomic_load_explicit(&progress[index].read, memory_order_acquire) < first + count)
            usleep(1000);
}

static int64_t cpu_ns(const pid_t *pids) {
    int64_t sum = clock_ns(CLOCK_PROCESS_CPUTIME_ID);
    for (int index = 0; index < readers; index++) {
        clockid_t clock;
        if (clock_getcpuclockid(pids[index], &clock))
            exit(1);
        sum += clock_ns(clock);
    }
    return sum;
}

int main(int count, char **words) {
    if (count != 6)
        return 2;
    readers = atoi(words[1]), subscribed = atoi(words[2]), warm = atoi(words[3]), candles = atoi(words[4]);
    period_ns = atoll(words[5]);
    int total = warm + candles;
    series = shared(sizeof *series);
    bells = shared(sizeof *bells * (size_t)readers);
    progress = shared(sizeof *progress * (size_t)readers);
    samples = shared(sizeof *samples * (size_t)readers * (size_t)total);
    stamp_ns = shared(sizeof *stamp_ns * (size_t)total);
    for (int number = 0; number < HISTORY; number++)
        append((double[COLUMNS]){number, 1000, 1001, 999, 1000, 10, 7});
    pid_t *pids = calloc((size_t)readers, sizeof *pids);
    for (int index = 0; index < readers; index++) {
        pids[index] = fork();
        if (pids[index] < 0)
            return 1;
        if (!pids[index]) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            if (index < subscribed)
                be_reader(index);
            be_idle(index);
        }
    }
    publish(0, warm);
    int64_t before = cpu_ns(pids);
    publish(warm, candles);
    int64_t used = cpu_ns(pids) - before;
    fwrite(&used, sizeof used, 1, stdout);
    for (int index = 0; index < subscribed; index++)
        for (int number = warm; number < total; number++) {
            Sample at = samples[(int64_t)index * total + number];
            const int64_t latencies[] = {at.in_hand_ns - stamp_ns[number], at.read_ns - stamp_ns[number]};
            fwrite(latencies, sizeof latencies, 1, stdout);
        }
    fflush(stdout);
    for (int index = 0; index < readers; index++) {
        kill(pids[index], SIGKILL);
        waitpid(pids[index], NULL, 0);
    }
    return 0;
}
