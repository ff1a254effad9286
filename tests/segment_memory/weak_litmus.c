/* The memory of weak_access.h by small programs whose outcomes are known ("litmus tests"). */
#define SEGMENT_ACCESS "weak_access.h"
/* The clock decides nothing here: outcomes are the same on a busy machine. */
#define SEGMENT_PATIENCE_NS UINT64_MAX
#include "protocol.h"

enum { RELAXED_BOTH, RELEASE_ACQUIRE, RELEASE_ONLY, ACQUIRE_ONLY, FENCES, FENCE_THEN_ACQUIRE, RELEASE_THEN_FENCE,
       FENCE_TOO_LATE, OVERWRITTEN_RELAXED, OVERWRITTEN_BY_ADD, COHERENCE };

static uint8_t *data_word(void) {
    return segment.base + segment.geometry.data_offset;
}

static uint8_t *flag_word(void) {
    return segment.base + segment.geometry.bells_offset;
}

static void write_message(int program) {
    int released = program == RELEASE_ACQUIRE || program == RELEASE_ONLY || program == RELEASE_THEN_FENCE ||
                   program == OVERWRITTEN_RELAXED || program == OVERWRITTEN_BY_ADD;
    int fenced = program == FENCES || program == FENCE_THEN_ACQUIRE;
    store_relaxed(data_word(), 1);
    if (fenced)
        fence_release();
    released ? store_release(flag_word(), 1) : store_relaxed(flag_word(), 1);
    if (program == FENCE_TOO_LATE)
        fence_release();
    if (program == OVERWRITTEN_RELAXED)
        store_relaxed(flag_word(), 2);
    if (program == OVERWRITTEN_BY_ADD) {
        weaken(__LINE__ + 1, "bell");
        (void)add_release(flag_word(), 1);
        mend_all();
    }
    if (program == COHERENCE)
        store_relaxed(data_word(), 2);
}

static int read_message(int program) {
    int acquires = program == RELEASE_ACQUIRE || program == ACQUIRE_ONLY || program == FENCE_THEN_ACQUIRE ||
                   program == OVERWRITTEN_RELAXED || program == OVERWRITTEN_BY_ADD;
    int fences = program == FENCES || program == RELEASE_THEN_FENCE || program == FENCE_TOO_LATE;
    uint64_t first = program == COHERENCE ? load_relaxed(data_word())
                     : acquires           ? load_acquire(flag_word())
                                          : load_relaxed(flag_word());
    if (fences)
        fence_acquire();
    return (int)(first * 3 + load_relaxed(data_word()));
}

/* Outcomes seen, a bit each: 3 * flag (or the first read of the data) + data. */
EXPORT int outcomes(int program) {
    int seen = 0, more = 1;
    new_segment((Geometry){.rows = 2, .guard_rows = 1, .series = 1, .bells = 1, .stamp_rows = 1});
    mark();
    write_message(program);
    path.sampling = path.kept = 0;
    while (more) {
        begin_reading();
        seen |= 1 << read_message(program);
        more = next_path();
    }
    return seen;
}
