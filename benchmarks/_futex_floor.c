/* The floor of a wake-up: N processes, one futex word each, woken by one writer; nothing else is done.
 *
 * usage: futex_floor WAITERS ROUNDS PERIOD_US SUBSCRIBED
 * Prints one line a sample: nanoseconds from the writer's stamp to the waiter's own clock after its return.
 * SUBSCRIBED of the WAITERS are woken in each round; the others sleep all the time.
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

typedef struct {
    _Alignas(64) _Atomic uint32_t word;
} Bell;

static int64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static void *shared(size_t length) {
    void *memory = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        exit(1);
    return memory;
}

int main(int count, char **words) {
    if (count != 5)
        return 2;
    int waiters = atoi(words[1]), rounds = atoi(words[2]), period_us = atoi(words[3]), subscribed = atoi(words[4]);
    Bell *bells = shared(sizeof(Bell) * (size_t)waiters);
    _Atomic int64_t *stamp = shared(sizeof(int64_t));
    int64_t *samples = shared(sizeof(int64_t) * (size_t)waiters * (size_t)rounds);
    for (int index = 0; index < waiters; index++) {
        if (fork())
            continue;
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        uint32_t seen = 0;
        for (int round = 0; round < rounds;) {
            syscall(SYS_futex, &bells[index].word, FUTEX_WAIT, seen, NULL, NULL, 0);
            uint32_t value = atomic_load(&bells[index].word);
            if (value == seen)
                continue;
            samples[(size_t)index * (size_t)rounds + (size_t)round++] = now_ns() - atomic_load(stamp);
            seen = value;
        }
        _exit(0);
    }
    usleep(300000);
    for (int round = 0; round < rounds; round++) {
        usleep((useconds_t)period_us);
        atomic_store(stamp, now_ns());
        for (int index = 0; index < subscribed; index++)
            atomic_fetch_add(&bells[index].word, 1);
        for (int index = 0; index < subscribed; index++)
            syscall(SYS_futex, &bells[index].word, FUTEX_WAKE, 1, NULL, NULL, 0);
    }
    usleep(300000);
    for (int index = 0; index < subscribed; index++)
        for (int round = 0; round < rounds; round++)
            if (samples[(size_t)index * (size_t)rounds + (size_t)round])
                printf("%lld\n", (long long)samples[(size_t)index * (size_t)rounds + (size_t)round]);
    return 0; /* waiters that sleep still end with their parent */
}
