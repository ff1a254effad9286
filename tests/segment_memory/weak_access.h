/* protocol.h's accesses on a memory of weak order: release, acquire, relaxed and fences of C11, as an operational
 * machine of views, without promises.
 *
 * After J. Kang, C.-K. Hur, O. Lahav, V. Vafeiadis, D. Dreyer, "A Promising Semantics for Relaxed-Memory Concurrency"
 * (POPL 2017) and O. Lahav, N. Giannarakis, V. Vafeiadis, "Taming Release-Acquire Consistency" (POPL 2016): a location
 * is its history of messages; a load takes any message that its thread's view doesn't already rule out; an acquire
 * joins the message's view; a relaxed load keeps it for a later acquire fence. Views of locations are whole prefixes
 * of what the one writer stored, so one number stands for a view: how many of its stores are known. As since C++20, a
 * relaxed store doesn't carry on the release sequence of an earlier store; a read-modify-write does.
 *
 * Left out are promises: loads that take what is stored later in program order. A reader stores nothing, and the
 * writer takes nothing from readers, so no cycle could feed one.
 */
#ifndef CHANDLERY_TESTS_WEAK_ACCESS_H
#define CHANDLERY_TESTS_WEAK_ACCESS_H

#include <setjmp.h>
#include <stdlib.h>

#include "sites.h"

enum { MOST_LOCATIONS = 512, MOST_MESSAGES = 96, MOST_CHOICES = 1024, MOST_WORDS = 1 << 15 };

typedef struct {
    uint64_t value;
    int step, view; /* the store's number; how many of the writer's stores its reader knows by it */
} Message;

typedef struct {
    Message messages[MOST_MESSAGES];
    int count, floor; /* the reader's: oldest message that it may still take */
} Location;

static Location locations[MOST_LOCATIONS];
static int location_count;
static int16_t location_of[MOST_WORDS]; /* by word; -1: never stored to since the mark */
static int recording, step, fence_step, last_stored, reading;

/* ---- the reader's way through the choices ---- */

static struct {
    int chosen[MOST_CHOICES], among[MOST_CHOICES];
    int depth, kept; /* choices of this run; those given by the run before */
    int sampling, cursor, cut_short;
    uint64_t random;
} path;
static int known, to_acquire;
static int attempts[WORD_KINDS];
static jmp_buf abandoned;

static uint64_t draw(uint64_t below) {
    path.random ^= path.random << 13;
    path.random ^= path.random >> 7;
    path.random ^= path.random << 17;
    return (path.random >> 20) % below;
}

static int word_index(const uint8_t *at) {
    return (int)((at - segment.base) / WORD_BYTES);
}

static int choose(const Location *location, const int *allowed, int count) {
    if (count == 1)
        return 0;
    if (path.sampling) {
        int choice = 0;
        switch (draw(6)) {
        case 0:
            return (int)draw((uint64_t)count);
        case 1:
            return 0;
        case 2:
            return count - 1;
        default: /* as of one moment, so that much agrees */
            while (choice + 1 < count && location->messages[allowed[choice + 1]].step <= path.cursor)
                choice++;
            return choice;
        }
    }
    if (path.depth == MOST_CHOICES) { /* only a changed protocol.h goes round for so long */
        path.cut_short = 1;
        longjmp(abandoned, 1);
    }
    if (path.depth >= path.kept)
        path.chosen[path.depth] = 0;
    path.among[path.depth] = count;
    return path.chosen[path.depth++];
}

/* An operation that begins anew knows more than when it first began: it can end in nothing that a first attempt
 * can't, so it isn't gone through. */
static void count_attempts(int access, int word) {
    if (access == LOAD_ACQUIRE && (word == REVISION_WORD || word == SEQUENCE_WORD || word == TABLE_VERSION_WORD) &&
        attempts[word]++)
        longjmp(abandoned, 1);
}

static uint64_t read_word(uint8_t *at, int acquire) {
    int place = location_of[word_index(at)];
    if (place < 0)
        return *(uint64_t *)(void *)at;
    Location *location = &locations[place];
    int allowed[MOST_MESSAGES], count = 0, first = location->count - 1;
    while (first > 0 && location->messages[first].step > known && location->messages[first].step > location->floor)
        first--;
    for (int i = first; i < location->count; i++) {
        const Message *message = &location->messages[i];
        int there = 0; /* an older message of the same value that tells no more allows all that this one does */
        for (int j = 0; j < count && !there; j++)
            there = location->messages[allowed[j]].value == message->value &&
                    location->messages[allowed[j]].view <= message->view;
        if (!there)
            allowed[count++] = i;
    }
    const Message *taken = &location->messages[allowed[choose(location, allowed, count)]];
    location->floor = taken->step;
    if (taken->view > to_acquire)
        to_acquire = taken->view;
    if (acquire && taken->view > known)
        known = taken->view;
    return taken->value;
}

static void write_word(uint8_t *at, uint64_t value, int view, int word) {
    last_stored = word;
    if (recording) {
        int16_t *place = &location_of[word_index(at)];
        if (*place < 0) {
            if (location_count == MOST_LOCATIONS)
                abort();
            *place = (int16_t)location_count;
            locations[location_count++] = (Location){.messages = {{.value = *(uint64_t *)(void *)at}}, .count = 1};
        }
        Location *location = &locations[*place];
        if (location->count == MOST_MESSAGES)
            abort();
        location->messages[location->count++] = (Message){value, ++step, view < 0 ? step : view};
    }
    *(uint64_t *)(void *)at = value;
}

static uint64_t machine_load(uint8_t *at, int access, const char *function, int line) {
    int word = word_kind(at);
    if (!reading)
        return *(uint64_t *)(void *)at;
    count_attempts(access, word);
    return read_word(at, access == LOAD_ACQUIRE && strong(function, line, access, word));
}

static void machine_store(uint8_t *at, uint64_t value, int access, const char *function, int line) {
    int word = word_kind(at);
    int release = access == STORE_RELEASE && strong(function, line, access, word);
    write_word(at, value, release ? -1 : fence_step, word);
}

static uint64_t machine_add(uint8_t *at, uint64_t amount, const char *function, int line) {
    int word = word_kind(at), place = location_of[word_index(at)], view = fence_step;
    if (place >= 0 && locations[place].messages[locations[place].count - 1].view > view)
        view = locations[place].messages[locations[place].count - 1].view;
    uint64_t value = *(uint64_t *)(void *)at + amount;
    write_word(at, value, strong(function, line, ADD_RELEASE, word) ? -1 : view, word);
    return value;
}

static void machine_fence(int access, const char *function, int line) {
    if (!strong(function, line, access, access == FENCE_RELEASE ? last_stored : ANY_WORD))
        return;
    if (access == FENCE_RELEASE)
        fence_step = step;
    else if (to_acquire > known)
        known = to_acquire;
}

#define load_relaxed(at) machine_load((at), LOAD_RELAXED, __func__, __LINE__)
#define load_acquire(at) machine_load((at), LOAD_ACQUIRE, __func__, __LINE__)
#define load_acquire_32(at) ((uint32_t)machine_load((at), LOAD_ACQUIRE, __func__, __LINE__))
#define store_relaxed(at, value) machine_store((at), (value), STORE_RELAXED, __func__, __LINE__)
#define store_release(at, value) machine_store((at), (value), STORE_RELEASE, __func__, __LINE__)
#define add_release(at, amount) machine_add((at), (amount), __func__, __LINE__)
#define add_release_32(at, amount) ((void)machine_add((at), (amount), __func__, __LINE__))
#define fence_acquire() machine_fence(FENCE_ACQUIRE, __func__, __LINE__)
#define fence_release() machine_fence(FENCE_RELEASE, __func__, __LINE__)

/* ---- around a run ---- */

/* A new, empty segment; what is stored up to mark() is known to every reader. */
static void new_segment(Geometry geometry) {
    free(segment.base);
    segment.geometry = geometry;
    if (!derive_geometry(&segment.geometry) || segment.geometry.file_bytes / WORD_BYTES > MOST_WORDS)
        abort();
    segment.base = calloc(1, segment.geometry.file_bytes);
    if (!segment.base)
        abort();
    recording = reading = step = fence_step = location_count = 0;
    memset(location_of, -1, sizeof location_of);
}

static void mark(void) {
    recording = 1;
}

/* From here on the same thread goes on to another operation. */
static void next_operation(void) {
    memset(attempts, 0, sizeof attempts);
}

static void begin_reading(void) {
    recording = 0;
    reading = 1;
    known = to_acquire = path.depth = 0;
    for (int i = 0; i < location_count; i++)
        locations[i].floor = 0;
    next_operation();
}

/* On to the next choices, depth first; 0 when there are none left. */
static int next_path(void) {
    while (path.depth > 0 && path.chosen[path.depth - 1] + 1 >= path.among[path.depth - 1])
        path.depth--;
    if (path.depth == 0)
        return 0;
    path.chosen[path.depth - 1]++;
    path.kept = path.depth;
    return 1;
}

#endif
