/* Histories of one writer and what readers may make of them on the memory of weak_access.h, with the real protocol.h.
 *
 * A scenario writes a history and then runs a reader's operation once for each choice of messages; where those are
 * too many, once for each of a seeded sample. The operation answers with what it found wrong.
 */
#define SEGMENT_ACCESS "weak_access.h"
/* The clock decides nothing here: outcomes are the same on a busy machine. */
#define SEGMENT_PATIENCE_NS UINT64_MAX
#include "weak_histories.h"

static int accepted, refused;
static char wrong[200];

static const char *found_wrong(const char *what, uint64_t one, uint64_t other, uint64_t third) {
    snprintf(wrong, sizeof wrong, "%s (%llu, %llu, %llu)", what, (unsigned long long)one, (unsigned long long)other,
             (unsigned long long)third);
    return wrong;
}

/* ---- readers: each answers with what it found wrong ---- */

typedef struct {
    Snapshot taken;
    uint64_t begin, words[COLUMN_COUNT][MOST_ROWS];
} Window;

/* Accesses of readers outside protocol.h. */
static uint64_t payload(uint8_t *at) {
    return machine_load(at, LOAD_RELAXED, "a reader", 0);
}

static uint64_t read_plainly(uint64_t offset, int access) {
    return machine_load(record_of(&segment, SERIES) + offset, access, "a reader", 0);
}

/* As a trader does: bounds, then the payload. */
static void take_window(Window *window, uint64_t length) {
    window->taken = take_snapshot(&segment, SERIES);
    uint64_t count = window->taken.count, first = first_readable(&segment.geometry, count);
    window->begin = count > length ? count - length : 0;
    if (window->begin < first)
        window->begin = first;
    for (int column = 0; column < COLUMN_COUNT; column++)
        for (uint64_t row = 0; row < count - window->begin; row++)
            window->words[column][row] =
                payload(block_of(&segment, SERIES) + (uint64_t)column * segment.geometry.column_bytes +
                        (window->begin % segment.geometry.rows + row) * WORD_BYTES);
}

static const char *judge_window(const Window *window, uint64_t epoch) {
    uint64_t moment = window->taken.revision / 2, count = window->taken.count;
    if (!unchanged(&segment, SERIES, epoch, window->taken.revision, window->begin)) {
        refused++;
        return NULL;
    }
    accepted++;
    if (truth[moment].epoch != epoch || truth[moment].session != window->taken.session)
        return found_wrong("accepted: another's window: revision, epoch, session", moment * 2, epoch,
                           (uint64_t)window->taken.session);
    if (count < truth[moment].least || count > truth[moment].most)
        return found_wrong("accepted: a count of another revision", moment * 2, count, 0);
    for (uint64_t row = 0; row < count - window->begin; row++)
        for (int column = 0; column < COLUMN_COUNT; column++) {
            uint64_t ordinal = window->begin + row;
            if (window->words[column][row] !=
                row_word(column, truth[moment].session, ordinal, truth[moment].version[ordinal]))
                return found_wrong("accepted: a row of another moment: ordinal, column, word", ordinal,
                                   (uint64_t)column, window->words[column][row]);
        }
    return NULL;
}

static const char *window(void) {
    Window taken;
    take_window(&taken, all_words ? 3 : 2);
    return judge_window(&taken, 1);
}

static const char *snapshot(void) {
    Snapshot taken = take_snapshot(&segment, SERIES);
    uint64_t moment = taken.revision / 2;
    if (taken.revision & 1)
        return NULL;
    accepted++;
    if (taken.session != truth[moment].session || taken.count < truth[moment].least ||
        taken.count > truth[moment].most)
        return found_wrong("revision, count and session of several moments", moment * 2, taken.count,
                           (uint64_t)taken.session);
    return NULL;
}

static const char *forming(void) {
    uint64_t sequence, words[COLUMN_COUNT + STAMP_COUNT];
    int64_t stamps[STAMP_COUNT];
    Row row;
    if (!copy_forming(&segment, SERIES, &sequence, &row, stamps)) {
        refused++;
        return NULL;
    }
    machine_fence(FENCE_ACQUIRE, "a reader", 0); /* as the extension asks whether the record is still this series' */
    if (read_plainly(RECORD_EPOCH, LOAD_RELAXED) != 1) {
        refused++;
        return NULL;
    }
    accepted++;
    memcpy(words, &row, sizeof row);
    memcpy(words + COLUMN_COUNT, stamps, sizeof stamps);
    if (forming_truth[sequence / 2].epoch != 1)
        return found_wrong("another's forming row: sequence, epoch", sequence, forming_truth[sequence / 2].epoch, 0);
    if (memcmp(words, forming_truth[sequence / 2].words, sizeof words) != 0)
        return found_wrong("a torn forming row: sequence, first word, last word", sequence, words[0],
                           words[COLUMN_COUNT + STAMP_COUNT - 1]);
    return NULL;
}

static const char *closed_then_forming(void) {
    uint64_t sequence, count = take_snapshot(&segment, SERIES).count;
    int64_t stamps[STAMP_COUNT];
    Row row;
    next_operation();
    if (!copy_forming(&segment, SERIES, &sequence, &row, stamps)) {
        refused++;
        return NULL;
    }
    accepted++;
    if ((uint64_t)row.open_time_ms < row_word(0, 0, count, 0))
        return found_wrong("closed and afterwards forming: rows, open time", count, (uint64_t)row.open_time_ms, 0);
    return NULL;
}

/* The other way round, as traders do: who sees a candle forming sees all that closed before it. */
static const char *forming_then_closed(void) {
    uint64_t sequence;
    int64_t stamps[STAMP_COUNT];
    Row row;
    if (!copy_forming(&segment, SERIES, &sequence, &row, stamps)) {
        refused++;
        return NULL;
    }
    next_operation();
    accepted++;
    uint64_t count = take_snapshot(&segment, SERIES).count;
    if (row_word(0, 0, count, 0) < (uint64_t)row.open_time_ms)
        return found_wrong("forming, and one before it not closed: open time, rows", (uint64_t)row.open_time_ms, count,
                           0);
    return NULL;
}

/* A choice of what to ask for, gone through like those of messages. */
static uint64_t asked_of(int count) {
    if (path.sampling)
        return draw((uint64_t)count);
    if (path.depth >= path.kept)
        path.chosen[path.depth] = 0;
    path.among[path.depth] = count;
    return (uint64_t)path.chosen[path.depth++];
}

static const char *stamps(void) {
    uint64_t ordinal = 2 + asked_of(4);
    int64_t found[STAMP_COUNT], expected[STAMP_COUNT];
    if (!copy_stamps(&segment, SERIES, ordinal, found)) {
        refused++;
        return NULL;
    }
    accepted++;
    for (int64_t session = 0; session < MOST_SESSIONS; session++) {
        make_stamps(expected, session, ordinal, 0);
        if (memcmp(found, expected, sizeof found) == 0)
            return NULL;
    }
    return found_wrong("another row's stamps: ordinal, first, last", ordinal, (uint64_t)found[0],
                       (uint64_t)found[STAMP_COUNT - 1]);
}

static const char *found_after(void) {
    uint64_t asked = asked_of(8);
    uint64_t found = find_after(&segment, SERIES, (int64_t)row_word(0, 0, asked, 0));
    accepted++;
    for (int moment = 1; moment <= now; moment++)
        for (uint64_t count = truth[moment].least; count <= truth[moment].most; count++) {
            uint64_t ordinal = first_readable(&segment.geometry, count);
            while (ordinal < count &&
                   row_word(0, truth[moment].session, ordinal, 0) <= row_word(0, 0, asked, 0))
                ordinal++;
            if (ordinal == found)
                return NULL;
        }
    return found_wrong("after that row never came this one", asked, found, 0);
}

/* lapped() by itself: a row that was there, and of which no reset took the count back. */
static const char *one_row(void) {
    Snapshot taken = take_snapshot(&segment, SERIES);
    uint64_t ordinal = first_readable(&segment.geometry, taken.count), words[COLUMN_COUNT];
    for (int column = 0; column < COLUMN_COUNT; column++)
        words[column] = payload(block_of(&segment, SERIES) + (uint64_t)column * segment.geometry.column_bytes +
                                ordinal % segment.geometry.rows * WORD_BYTES);
    if (lapped(&segment, SERIES, ordinal)) {
        refused++;
        return NULL;
    }
    accepted++;
    for (int column = 0; column < COLUMN_COUNT; column++)
        if (words[column] != row_word(column, 0, ordinal, 0))
            return found_wrong("not lapped, yet another row: ordinal, column, word", ordinal, (uint64_t)column,
                               words[column]);
    return NULL;
}

static const char *lasting_neighbour(void) {
    Name name = named(neighbours[2]);
    uint64_t series = 0, epoch = 0, slot;
    if (!find_series(&segment, &name, &series, &epoch, &slot))
        return found_wrong("a series was not found while its neighbours moved", 0, 0, 0);
    accepted++;
    return series == 2 && epoch == 1 ? NULL : found_wrong("another series was found", series, epoch, 0);
}

static const char *twins(void) {
    Name name = named("C55375/USDT");
    uint64_t series, epoch, slot;
    if (!find_series(&segment, &name, &series, &epoch, &slot)) {
        refused++;
        return NULL;
    }
    accepted++;
    return series == 1 && epoch == 1 ? NULL : found_wrong("a name led to its twin: series, epoch", series, epoch, 0);
}

static const char *owner(void) {
    int other = (int)asked_of(2);
    Name name = named(other ? "ETH/USDT" : "BTC/USDT");
    uint64_t series, epoch, slot;
    if (!find_series(&segment, &name, &series, &epoch, &slot)) {
        refused++;
        return NULL;
    }
    accepted++;
    if (series == 0 && (other ? epoch == 3 : epoch == 1 || epoch == 5))
        return NULL;
    return found_wrong("a name led to another's record: which, series, epoch", (uint64_t)other, series, epoch);
}

/* Found by name, a series is read as its new owner left it. */
static const char *found_and_read(void) {
    Name name = named("ETH/USDT");
    uint64_t series, epoch, slot;
    Window taken;
    if (!find_series(&segment, &name, &series, &epoch, &slot)) {
        refused++;
        return NULL;
    }
    next_operation();
    take_window(&taken, 2);
    return judge_window(&taken, epoch);
}

/* What the extension reads of it without a snapshot is its own too; also by an entry of its earlier life. */
static const char *found_and_glanced(void) {
    Name name = named("BTC/USDT");
    uint64_t series, epoch, slot;
    if (!find_series(&segment, &name, &series, &epoch, &slot) || epoch != 5) {
        refused++;
        return NULL;
    }
    accepted++;
    int64_t newest = (int64_t)read_plainly(RECORD_LAST_OPEN_TIME_MS, LOAD_ACQUIRE);
    uint64_t count = read_plainly(RECORD_COUNT, LOAD_ACQUIRE);
    if (newest != -1 && newest < (int64_t)row_word(0, 3, 0, 0))
        return found_wrong("the newest row is another's: open time, count", (uint64_t)newest, count, 0);
    return count > 2 ? found_wrong("the count is another's", count, 0, 0) : NULL;
}

static const char *entry_seen(void) {
    Name name = named("ETH/USDT");
    uint64_t series, epoch, slot = 0;
    if (find_series(&segment, &name, &series, &epoch, &slot)) {
        accepted++;
        return NULL;
    }
    refused++;
    slot = hash_name(&name) & (segment.geometry.hash_slots - 1);
    if (locations[location_of[word_index(hash_slot(&segment, slot))]].floor)
        return found_wrong("an entry was seen, its series not found", slot, 0, 0);
    return NULL;
}

static const char *rung(void) {
    uint64_t sequence = 0, rings = bell_value(&segment, 0);
    int64_t stamps[STAMP_COUNT];
    Row row = {0};
    uint64_t count = take_snapshot(&segment, SERIES).count;
    next_operation();
    int is_forming = copy_forming(&segment, SERIES, &sequence, &row, stamps);
    rings ? accepted++ : refused++;
    if (rings >= 1 && count < 4)
        return found_wrong("rung, yet the row isn't seen", rings, count, 0);
    if (rings >= 2 && (!is_forming || (uint64_t)row.open_time_ms != row_word(0, 0, 4, 0)))
        return found_wrong("rung, yet the forming row isn't seen", rings, sequence, 0);
    return NULL;
}

static const char *discarded(void) {
    Window taken;
    take_window(&taken, 2);
    uint64_t rings = bell_value(&segment, 0);
    const char *flaw = judge_window(&taken, 1);
    return flaw || !rings || !unchanged(&segment, SERIES, 1, taken.taken.revision, taken.begin)
               ? flaw
               : found_wrong("rung for its removal, a series' window was accepted", rings, 0, 0);
}

static const struct {
    const char *name;
    void (*history)(void);
    const char *(*operation)(void);
} scenarios[] = {
    {"window go_round", go_round, window},
    {"window revise_twice", revise_twice, window},
    {"window revise_and_append", revise_and_append, window},
    {"window start_over", start_over, window},
    {"window go_round_and_start_over", go_round_and_start_over, window},
    {"window give_record_away", give_record_away, window},
    {"window live_at_random", live_at_random, window},
    {"snapshot live_at_random", live_at_random, snapshot},
    {"stamps live_at_random", live_at_random, stamps},
    {"found_after live_at_random", live_at_random, found_after},
    {"forming live_at_random", live_at_random, forming},
    {"found_and_read live_at_random", live_at_random, found_and_read},
    {"window live_long", live_long, window},
    {"snapshot live_long", live_long, snapshot},
    {"stamps live_long", live_long, stamps},
    {"found_after live_long", live_long, found_after},
    {"found_and_read live_long", live_long, found_and_read},
    {"snapshot start_over", start_over, snapshot},
    {"snapshot revise_and_append", revise_and_append, snapshot},
    {"forming form_some", form_some, forming},
    {"forming form_and_give_away", form_and_give_away, forming},
    {"closed_then_forming form_and_close", form_and_close, closed_then_forming},
    {"forming_then_closed form_and_close", form_and_close, forming_then_closed},
    {"stamps go_round", go_round, stamps},
    {"stamps go_round_and_start_over", go_round_and_start_over, stamps},
    {"found_after go_round", go_round, found_after},
    {"found_after go_round_and_start_over", go_round_and_start_over, found_after},
    {"one_row go_round", go_round, one_row},
    {"lasting_neighbour move_neighbours", move_neighbours, lasting_neighbour},
    {"twins share_a_hash", share_a_hash, twins},
    {"owner change_owners", change_owners, owner},
    {"found_and_read give_record_away", give_record_away, found_and_read},
    {"found_and_read first_insert", first_insert, found_and_read},
    {"found_and_glanced come_back", come_back, found_and_glanced},
    {"entry_seen first_insert", first_insert, entry_seen},
    {"rung ring", ring, rung},
    {"discarded discard_and_ring", discard_and_ring, discarded},
};

EXPORT const char *scenario_name(int scenario) {
    return scenario < (int)(sizeof scenarios / sizeof *scenarios) ? scenarios[scenario].name : NULL;
}

static const char *run_once(int scenario) {
    begin_reading();
    if (setjmp(abandoned))
        return NULL;
    return scenarios[scenario].operation();
}

/* What was found wrong, or NULL. Depth first up to `limit` runs; after that, if more are left, or if limit is 0,
 * `sample` drawn ones. numbers: runs, accepted, refused, 1 where every choice was gone through. */
EXPORT const char *explore(int scenario, int every_word, long limit, long sample, uint64_t seed, long *numbers) {
    const char *flaw = NULL;
    int more = 1;
    long runs = 0;
    all_words = every_word;
    accepted = refused = 0;
    history_seed = seed;
    scenarios[scenario].history();
    path.sampling = path.kept = path.cut_short = 0;
    for (; !flaw && more && runs < limit; runs++) {
        flaw = run_once(scenario);
        more = next_path();
    }
    path.sampling = 1;
    path.random = seed * UINT64_C(0x9e3779b97f4a7c15) | 1;
    for (long drawn = 0; !flaw && more && drawn < sample; drawn++, runs++) {
        path.cursor = (int)draw((uint64_t)step + 1);
        flaw = run_once(scenario);
    }
    numbers[0] = runs;
    numbers[1] = accepted;
    numbers[2] = refused;
    numbers[3] = !more && !path.cut_short;
    return flaw;
}
