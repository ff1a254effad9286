/* The atomic accesses to shared memory: all that protocol.h, and so anything, makes there.
 *
 * Payload words are relaxed atomics, so that a torn read is a wrong value and never undefined behaviour.
 */
#ifndef CHANDLERY_SEGMENT_ACCESS_H
#define CHANDLERY_SEGMENT_ACCESS_H

#include <stdatomic.h>
#include <stdint.h>

_Static_assert(ATOMIC_LLONG_LOCK_FREE == 2, "64-bit atomics must be lock-free: they are shared between processes");
_Static_assert(ATOMIC_INT_LOCK_FREE == 2, "32-bit atomics must be lock-free: they are shared between processes");
_Static_assert(sizeof(_Atomic uint64_t) == 8 && sizeof(_Atomic uint32_t) == 4, "atomics have no hidden lock");

static inline _Atomic uint64_t *word_at(uint8_t *at) {
    return (_Atomic uint64_t *)(void *)at;
}

/* Nothing here; tests define them, to go through every interleaving (tests/segment/interleavings.c), to be killed at
 * every access (tests/segment_crash/), or bring all accesses themselves, on a memory of weak order or for a race
 * detector (tests/segment_memory/). */
#ifndef SEGMENT_LOADING
#define SEGMENT_LOADING() ((void)0)
#endif
#ifndef SEGMENT_STORED
#define SEGMENT_STORED() ((void)0)
#endif

#ifdef SEGMENT_ACCESS
#include SEGMENT_ACCESS
#else

static inline uint64_t load_relaxed(uint8_t *at) {
    SEGMENT_LOADING();
    return atomic_load_explicit(word_at(at), memory_order_relaxed);
}

static inline uint64_t load_acquire(uint8_t *at) {
    SEGMENT_LOADING();
    return atomic_load_explicit(word_at(at), memory_order_acquire);
}

static inline void store_relaxed(uint8_t *at, uint64_t value) {
    atomic_store_explicit(word_at(at), value, memory_order_relaxed);
    SEGMENT_STORED();
}

static inline void store_release(uint8_t *at, uint64_t value) {
    atomic_store_explicit(word_at(at), value, memory_order_release);
    SEGMENT_STORED();
}

static inline uint64_t add_release(uint8_t *at, uint64_t amount) {
    uint64_t sum = atomic_fetch_add_explicit(word_at(at), amount, memory_order_release) + amount;
    SEGMENT_STORED();
    return sum;
}

/* The two of a futex word, which has 32 bits. */
static inline uint32_t load_acquire_32(uint8_t *at) {
    SEGMENT_LOADING();
    return atomic_load_explicit((_Atomic uint32_t *)(void *)at, memory_order_acquire);
}

static inline void add_release_32(uint8_t *at, uint32_t amount) {
    atomic_fetch_add_explicit((_Atomic uint32_t *)(void *)at, amount, memory_order_release);
    SEGMENT_STORED();
}

static inline void fence_acquire(void) {
    atomic_thread_fence(memory_order_acquire);
}

static inline void fence_release(void) {
    atomic_thread_fence(memory_order_release);
}

#endif

#endif
