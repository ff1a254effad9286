/* protocol.h's accesses for ThreadSanitizer, and what must be known when.
 *
 * ThreadSanitizer judges plain memory only. So the writer logs each of its stores in a plain word of its own just
 * before it, and a reader reads that plain word where the protocol says that it knows of the store: a race is
 * reported unless a release and an acquire, or fences beside relaxed accesses, order the two. Three rules say so:
 *
 *   before a load of what a sequence, an epoch, a count or a bell guards: the store that its value came from
 *   before a guard is loaded to be compared: the guard that was put up before each word read so far
 *   when an operation ends well: the stores of all words that it read
 *
 * gcc's and clang's ThreadSanitizer don't see fences. So a release fence hands the writer's clock to a fiber, which
 * releases it at each later relaxed store, and each relaxed load acquires into a fiber of the reader, whose clock the
 * next acquire fence takes over.
 */
#ifndef CHANDLERY_TESTS_RACE_ACCESS_H
#define CHANDLERY_TESTS_RACE_ACCESS_H

#include <sanitizer/tsan_interface.h>
#include <stdlib.h>

#include "sites.h"

enum { MOST_STEPS = 1 << 17, MOST_WORDS = 1 << 15, MOST_READ = 512, FIBER_NO_SYNC = 1 };

static uint64_t logged[MOST_STEPS]; /* plain: what ThreadSanitizer watches */

/* ---- unwatched: which store a word's value came from ---- */

static volatile int begun_step[MOST_WORDS], done_step[MOST_WORDS]; /* alike: no store to that word is under way */
static volatile int guard_of[MOST_STEPS];                         /* step of the guard put up before; 0: none */
static volatile char kind_of[MOST_STEPS];
static volatile char is_release[MOST_STEPS];
static volatile int last_step, guard_of_kind[WORD_KINDS], last_revision_begun;
static __thread int last_stored;

typedef struct {
    int known_by[WORD_KINDS]; /* step from which the last load of that kind came; 0: before the threads, or unsure */
    int words[MOST_READ], kinds[MOST_READ], count;
    int loads, pause_at;
    void *fiber; /* knows what its relaxed loads brought */
    char clock;
} Reader;

static __thread Reader *reader; /* NULL: the writer */

UNWATCHED int word_of(const uint8_t *at) {
    return (int)((at - segment.base) / WORD_BYTES);
}

/* Which guard a store of that kind stands behind, and whether this store is a guard itself. */
UNWATCHED int begin_step(uint8_t *at, uint64_t value, int kind, int release) {
    int step = ++last_step;
    if (step >= MOST_STEPS)
        abort();
    begun_step[word_of(at)] = step;
    is_release[step] = (char)release;
    kind_of[step] = (char)kind;
    int guard = 0;
    switch (kind) {
    case ROW_WORD:
    case STAMPS_WORD:
        guard = guard_of_kind[REVISION_WORD] ? guard_of_kind[REVISION_WORD] : guard_of_kind[RESERVED_WORD];
        break;
    case COUNT_WORD:
    case SESSION_WORD:
        guard = guard_of_kind[REVISION_WORD];
        break;
    case RESERVED_WORD: /* however long ago the reset was: the count before it is what a reader looks for */
        guard = last_revision_begun;
        break;
    case FORMING_WORD:
        guard = guard_of_kind[SEQUENCE_WORD];
        break;
    case NAME_WORD:
        guard = guard_of_kind[EPOCH_WORD];
        break;
    case HASH_WORD:
        guard = guard_of_kind[TABLE_VERSION_WORD] ? guard_of_kind[TABLE_VERSION_WORD] : guard_of_kind[HASH_WORD];
        break;
    default:
        break;
    }
    guard_of[step] = guard;
    if (kind == REVISION_WORD && value & 1)
        last_revision_begun = step;
    if (kind == REVISION_WORD || kind == SEQUENCE_WORD || kind == TABLE_VERSION_WORD)
        guard_of_kind[kind] = value & 1 ? step : 0;
    else if (kind == RESERVED_WORD)
        guard_of_kind[kind] = step;
    else if (kind == EPOCH_WORD) {
        guard_of_kind[EPOCH_WORD] = value & 1 ? 0 : step;
        guard_of_kind[HASH_WORD] = value & 1 ? step : 0; /* an entry comes after its record is in use */
    }
    return step;
}

UNWATCHED void end_step(uint8_t *at, int step) {
    done_step[word_of(at)] = step;
}

UNWATCHED int step_before(uint8_t *at) {
    return done_step[word_of(at)];
}

/* The step that a value loaded in between came from, or 0 where that isn't sure. */
UNWATCHED int step_if_sure(uint8_t *at, int before) {
    return begun_step[word_of(at)] == before ? before : 0;
}

UNWATCHED int guard_kind_of(int kind) {
    switch (kind) {
    case FORMING_WORD:
        return SEQUENCE_WORD;
    case NAME_WORD:
        return EPOCH_WORD;
    case HASH_WORD:
        return TABLE_VERSION_WORD;
    default:
        return REVISION_WORD;
    }
}

/* A guard loaded to begin with: what was read under it before, in an attempt that failed, doesn't count. */
UNWATCHED void begin_attempt(Reader *self, int guard) {
    int kept = 0;
    for (int i = 0; i < self->count; i++)
        if (guard_kind_of(self->kinds[i]) != guard) {
            self->words[kept] = self->words[i];
            self->kinds[kept++] = self->kinds[i];
        }
    self->count = kept;
}

UNWATCHED void note_read(Reader *self, int kind, int step) {
    int is_guard = kind == REVISION_WORD || kind == SEQUENCE_WORD || kind == TABLE_VERSION_WORD || kind == EPOCH_WORD;
    if (is_guard)
        begin_attempt(self, kind);
    else if (step && kind != BELL_WORD) {
        if (self->count == MOST_READ)
            abort();
        self->words[self->count] = step;
        self->kinds[self->count++] = kind;
    }
    self->known_by[kind] = step && is_release[step] ? step : 0;
}

/* The guard before the store of a word read, if it is one that a load of this kind must find. */
UNWATCHED int guard_to_find(int step, int loaded) {
    int guard = guard_of[step];
    return guard && (loaded != RESERVED_WORD || kind_of[guard] == RESERVED_WORD) ? guard : 0;
}

/* ---- watched ---- */

static void must_be_known(int step) {
    if (step && !logged[step])
        abort();
}

static const struct {
    int loaded, known[2];
} KNOWN_BEFORE[] = {
    {ROW_WORD, {REVISION_WORD, COUNT_WORD}},   {STAMPS_WORD, {REVISION_WORD, COUNT_WORD}},
    {COUNT_WORD, {REVISION_WORD, EPOCH_WORD}}, {SESSION_WORD, {REVISION_WORD, REVISION_WORD}},
    {FORMING_WORD, {SEQUENCE_WORD, BELL_WORD}}, {NAME_WORD, {EPOCH_WORD, EPOCH_WORD}},
    {HASH_WORD, {TABLE_VERSION_WORD, TABLE_VERSION_WORD}}, {REVISION_WORD, {BELL_WORD, EPOCH_WORD}},
};

static void check_before(const Reader *self, int kind) {
    for (size_t i = 0; i < sizeof KNOWN_BEFORE / sizeof *KNOWN_BEFORE; i++)
        if (KNOWN_BEFORE[i].loaded == kind) {
            must_be_known(self->known_by[KNOWN_BEFORE[i].known[0]]);
            must_be_known(self->known_by[KNOWN_BEFORE[i].known[1]]);
        }
}

static void check_guards(const Reader *self, int loaded) {
    for (int i = 0; i < self->count; i++)
        must_be_known(guard_to_find(self->words[i], loaded));
}

static void check_accepted(const Reader *self) {
    for (int i = 0; i < self->count; i++)
        if (self->kinds[i] != RESERVED_WORD && self->kinds[i] != HASH_WORD)
            must_be_known(self->words[i]);
}

static void before_load(void); /* the test's: where the other thread gets its turn */

static void *fence_fiber;
static char fence_clock;

/* A clock that isn't its thread's goes from one place to another by a fiber. */
static void hand_on(void *fiber, void *from, void *to) {
    void *self = __tsan_get_current_fiber();
    __tsan_switch_to_fiber(fiber, FIBER_NO_SYNC);
    __tsan_acquire(from);
    __tsan_release(to);
    __tsan_switch_to_fiber(self, FIBER_NO_SYNC);
}

/* What was done before the last release fence goes with a relaxed store. */
static void carry_fence(uint8_t *at) {
    hand_on(fence_fiber, &fence_clock, at);
}

/* What a relaxed load brings is known after the next acquire fence. */
static void keep_for_fence(uint8_t *at) {
    hand_on(reader->fiber, at, &reader->clock);
}

static uint64_t race_load(uint8_t *at, int access, const char *function, int line) {
    int kind = word_kind(at);
    if (!reader)
        return __atomic_load_n((uint64_t *)(void *)at, __ATOMIC_RELAXED);
    before_load();
    check_before(reader, kind);
    int is_guard = kind == REVISION_WORD || kind == SEQUENCE_WORD || kind == TABLE_VERSION_WORD || kind == EPOCH_WORD;
    if (access == LOAD_RELAXED && (is_guard || kind == RESERVED_WORD))
        check_guards(reader, kind);
    int acquire = access == LOAD_ACQUIRE && strong(function, line, access, kind), step = step_before(at);
    uint64_t value;
    if (kind == BELL_WORD)
        value = acquire ? __atomic_load_n((uint32_t *)(void *)at, __ATOMIC_ACQUIRE)
                        : __atomic_load_n((uint32_t *)(void *)at, __ATOMIC_RELAXED);
    else
        value = acquire ? __atomic_load_n((uint64_t *)(void *)at, __ATOMIC_ACQUIRE)
                        : __atomic_load_n((uint64_t *)(void *)at, __ATOMIC_RELAXED);
    step = step_if_sure(at, step);
    if (!acquire)
        keep_for_fence(at);
    if (access == LOAD_ACQUIRE || !is_guard) /* else it was loaded to be compared: nothing is loaded on its strength */
        note_read(reader, kind, step);
    return value;
}

static void race_store(uint8_t *at, uint64_t value, int access, const char *function, int line) {
    int kind = word_kind(at);
    int step = begin_step(at, value, kind, access == STORE_RELEASE);
    logged[step] = 1;
    if (access == STORE_RELEASE && strong(function, line, access, kind))
        __atomic_store_n((uint64_t *)(void *)at, value, __ATOMIC_RELEASE);
    else {
        carry_fence(at);
        __atomic_store_n((uint64_t *)(void *)at, value, __ATOMIC_RELAXED);
    }
    end_step(at, step);
    last_stored = kind;
}

static void race_add_32(uint8_t *at, uint32_t amount, const char *function, int line) {
    int kind = word_kind(at);
    int step = begin_step(at, 0, kind, 1);
    logged[step] = 1;
    if (strong(function, line, ADD_RELEASE, kind))
        __atomic_fetch_add((uint32_t *)(void *)at, amount, __ATOMIC_RELEASE);
    else {
        carry_fence(at);
        __atomic_fetch_add((uint32_t *)(void *)at, amount, __ATOMIC_RELAXED);
    }
    end_step(at, step);
    last_stored = kind;
}

static void race_fence(int access, const char *function, int line) {
    if (!strong(function, line, access, access == FENCE_RELEASE ? last_stored : ANY_WORD))
        return;
    if (access == FENCE_RELEASE) {
        __tsan_release(&fence_clock);
        return;
    }
    if (!reader)
        return;
    __tsan_acquire(&reader->clock);
}

#define load_relaxed(at) race_load((at), LOAD_RELAXED, __func__, __LINE__)
#define load_acquire(at) race_load((at), LOAD_ACQUIRE, __func__, __LINE__)
#define load_acquire_32(at) ((uint32_t)race_load((at), LOAD_ACQUIRE, __func__, __LINE__))
#define store_relaxed(at, value) race_store((at), (value), STORE_RELAXED, __func__, __LINE__)
#define store_release(at, value) race_store((at), (value), STORE_RELEASE, __func__, __LINE__)
#define add_release_32(at, amount) race_add_32((at), (amount), __func__, __LINE__)
#define fence_acquire() race_fence(FENCE_ACQUIRE, __func__, __LINE__)
#define fence_release() race_fence(FENCE_RELEASE, __func__, __LINE__)

#endif
