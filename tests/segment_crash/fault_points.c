/* Counts accesses to shared memory, and kills the process at the one it is armed for. See fault_points.h. */
#include <linux/futex.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

enum { MOST_MAPPINGS = 4096 };

static struct {
    uint8_t *begin, *end;
} mappings[MOST_MAPPINGS];
static int mapping_count;
static long stores, loads, kill_at_store, kill_at_load; /* 0: not armed */

static void die(void) {
    kill(getpid(), SIGKILL);
    for (;;)
        pause();
}

/* Forgets the counts; the process dies right after that store, or right before that load. 0: at none. */
EXPORT void fault_point_arm(long store, long load) {
    stores = loads = 0;
    kill_at_store = store;
    kill_at_load = load;
}

EXPORT long fault_point_stores(void) {
    return stores;
}

EXPORT long fault_point_loads(void) {
    return loads;
}

void fault_point_stored(void) {
    if (++stores == kill_at_store)
        die();
}

void fault_point_loading(void) {
    if (++loads == kill_at_load)
        die();
}

/* Mappings that were unmapped stay noted: of what is mapped there later nothing is copied to in words either. */
void *fault_point_mmap(void *at, size_t length, int protection, int flags, int fd, off_t offset) {
    uint8_t *base = mmap(at, length, protection, flags, fd, offset);
    if (base != MAP_FAILED && mapping_count < MOST_MAPPINGS) {
        mappings[mapping_count].begin = base;
        mappings[mapping_count++].end = base + length;
    }
    return base;
}

static int is_shared(const uint8_t *at) {
    for (int i = 0; i < mapping_count; i++)
        if (mappings[i].begin <= at && at < mappings[i].end)
            return 1;
    return 0;
}

void *fault_point_copy(void *to, const void *from, size_t length) {
    if (!is_shared(to))
        return memcpy(to, from, length);
    for (size_t done = 0; done < length; done += 8) {
        memcpy((uint8_t *)to + done, (const uint8_t *)from + done, length - done < 8 ? length - done : 8);
        fault_point_stored();
    }
    return to;
}

/* A wake-up is a step of the writer's; a sleep begins and ends with one of the reader's. */
long fault_point_syscall(long number, ...) {
    long argument[6];
    va_list arguments;
    va_start(arguments, number);
    for (int i = 0; i < 6; i++)
        argument[i] = va_arg(arguments, long);
    va_end(arguments);
    int waits = number == SYS_futex && (int)argument[1] == FUTEX_WAIT;
    if (waits)
        fault_point_loading();
    long result = syscall(number, argument[0], argument[1], argument[2], argument[3], argument[4], argument[5]);
    if (waits)
        fault_point_loading();
    else
        fault_point_stored();
    return result;
}
