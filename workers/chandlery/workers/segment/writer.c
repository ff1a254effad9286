/* Writer: the hot path of the one process that writes a segment. */
#include "native.h"

enum { ARG_SERIES, ARG_OPEN_TIME, ARG_OPEN, ARG_HIGH, ARG_LOW, ARG_CLOSE, ARG_VOLUME, ARG_TRADES, ARG_STAMPS, ARG_BACKFILL, ARG_LIVE, ARG_COUNT };
static const char *const argument_names[ARG_COUNT] = {"series", "open_time_ms", "open",   "high",   "low",
                                                      "close",  "volume",       "trades", "stamps", "backfill", "live"};
static PyObject *argument_keys[ARG_COUNT];

int intern_argument_names(void) {
    for (int i = 0; i < ARG_COUNT; i++)
        if (!(argument_keys[i] = PyUnicode_InternFromString(argument_names[i])))
            return -1;
    return 0;
}

/* Sorts positional and keyword arguments into `bound`; -1 with an error set. Quick for positional ones. */
static int bind(const char *function, PyObject *const *args, Py_ssize_t nargs, PyObject *keywords, int required,
                int total, PyObject **bound) {
    Py_ssize_t nkeywords = keywords ? PyTuple_GET_SIZE(keywords) : 0;
    for (int i = 0; i < total; i++)
        bound[i] = i < nargs ? args[i] : NULL;
    if (nargs > total)
        goto wrong_count;
    for (Py_ssize_t k = 0; k < nkeywords; k++) {
        PyObject *key = PyTuple_GET_ITEM(keywords, k);
        int i = 0;
        while (i < total && key != argument_keys[i] && PyUnicode_Compare(key, argument_keys[i]) != 0)
            i++;
        if (i == total || bound[i]) {
            PyErr_Format(PyExc_TypeError, "%s(): %s argument %R", function, i == total ? "no such" : "repeated", key);
            return -1;
        }
        bound[i] = args[nargs + k];
    }
    for (int i = 0; i < required; i++)
        if (!bound[i])
            goto wrong_count;
    return 0;
wrong_count:
    PyErr_Format(PyExc_TypeError, "%s() takes %d to %d arguments, got %zd", function, required, total,
                 nargs + nkeywords);
    return -1;
}

/* The series' record when it is in use, or NULL with an error set. */
static uint8_t *live_record(const View *self, PyObject *argument, uint64_t *series) {
    if (!self->mapping) {
        fail_closed();
        return NULL;
    }
    long long index = PyLong_AsLongLong(argument);
    if (index == -1 && PyErr_Occurred())
        return NULL;
    if (index >= 0 && (uint64_t)index < self->segment.geometry.series) {
        uint8_t *record = record_of(&self->segment, (uint64_t)index);
        *series = (uint64_t)index;
        if (load_relaxed(record + RECORD_EPOCH) & 1)
            return record;
    }
    fail("series %lld is not in use", index);
    return NULL;
}

static int as_row(PyObject *const *bound, Row *row) {
    row->open_time_ms = PyLong_AsLongLong(bound[ARG_OPEN_TIME]);
    row->open = PyFloat_AsDouble(bound[ARG_OPEN]);
    row->high = PyFloat_AsDouble(bound[ARG_HIGH]);
    row->low = PyFloat_AsDouble(bound[ARG_LOW]);
    row->close = PyFloat_AsDouble(bound[ARG_CLOSE]);
    row->volume = PyFloat_AsDouble(bound[ARG_VOLUME]);
    row->trades = PyLong_AsLongLong(bound[ARG_TRADES]);
    if (PyErr_Occurred())
        return 0;
    if (row->open_time_ms < 0) {
        fail("open_time_ms %lld: before the epoch", (long long)row->open_time_ms);
        return 0;
    }
    return 1;
}

static int as_stamps(PyObject *argument, int64_t *stamps) {
    if (!PyTuple_Check(argument) || PyTuple_GET_SIZE(argument) != STAMP_COUNT) {
        fail("stamps: a tuple of %d integers is needed, not %R", STAMP_COUNT, argument);
        return 0;
    }
    for (int i = 0; i < STAMP_COUNT; i++)
        stamps[i] = PyLong_AsLongLong(PyTuple_GET_ITEM(argument, i));
    return !PyErr_Occurred();
}

static PyObject *writer_append(View *self, PyObject *const *args, Py_ssize_t nargs, PyObject *keywords) {
    PyObject *bound[ARG_COUNT];
    uint64_t series;
    Row row;
    int64_t stamps[STAMP_COUNT];
    if (bind("append", args, nargs, keywords, ARG_BACKFILL, ARG_COUNT, bound) < 0)
        return NULL;
    uint8_t *record = live_record(self, bound[ARG_SERIES], &series);
    if (!record || !as_row(bound, &row) || !as_stamps(bound[ARG_STAMPS], stamps))
        return NULL;
    int backfill = bound[ARG_BACKFILL] ? PyObject_IsTrue(bound[ARG_BACKFILL]) : 0;
    int live = bound[ARG_LIVE] ? PyObject_IsTrue(bound[ARG_LIVE]) : 1;
    if (backfill < 0 || live < 0)
        return NULL;
    int64_t last = (int64_t)load_relaxed(record + RECORD_LAST_OPEN_TIME_MS);
    if (row.open_time_ms <= last)
        return fail("series %llu: open_time_ms %lld is not newer than the last closed row's %lld",
                    (unsigned long long)series, (long long)row.open_time_ms, (long long)last);
    self->changes[series] = ROWS_CHANGED;
    append_row(&self->segment, series, &row, stamps, backfill, live);
    Py_RETURN_NONE;
}

static PyObject *writer_revise(View *self, PyObject *const *args, Py_ssize_t nargs, PyObject *keywords) {
    PyObject *bound[ARG_COUNT];
    uint64_t series;
    Row row;
    if (bind("revise", args, nargs, keywords, ARG_STAMPS, ARG_STAMPS, bound) < 0)
        return NULL;
    if (!live_record(self, bound[ARG_SERIES], &series) || !as_row(bound, &row))
        return NULL;
    self->changes[series] = ROWS_CHANGED;
    return PyBool_FromLong(revise_row(&self->segment, series, &row));
}

static PyObject *writer_set_forming(View *self, PyObject *const *args, Py_ssize_t nargs, PyObject *keywords) {
    PyObject *bound[ARG_COUNT];
    uint64_t series;
    Row row;
    int64_t stamps[STAMP_COUNT];
    if (bind("set_forming", args, nargs, keywords, ARG_BACKFILL, ARG_BACKFILL, bound) < 0)
        return NULL;
    uint8_t *record = live_record(self, bound[ARG_SERIES], &series);
    if (!record || !as_row(bound, &row) || !as_stamps(bound[ARG_STAMPS], stamps))
        return NULL;
    self->changes[series] |= RECORD_CHANGED;
    store_forming(record, &row, stamps);
    Py_RETURN_NONE;
}

static PyObject *writer_clear_forming(View *self, PyObject *argument) {
    uint64_t series;
    uint8_t *record = live_record(self, argument, &series);
    if (!record)
        return NULL;
    self->changes[series] |= RECORD_CHANGED;
    forget_forming(record);
    Py_RETURN_NONE;
}

static PyObject *writer_reset(View *self, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"series", "session", NULL};
    PyObject *argument;
    long long session;
    uint64_t series;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OL", names, &argument, &session))
        return NULL;
    if (!live_record(self, argument, &series))
        return NULL;
    self->changes[series] = ROWS_CHANGED;
    reset_series(&self->segment, series, session);
    Py_RETURN_NONE;
}

static PyObject *writer_ring(View *self, PyObject *argument) {
    int64_t bell = bell_index(self, argument);
    if (bell < 0)
        return NULL;
    bell_advance(&self->segment, (uint64_t)bell);
    bell_wake(&self->segment, (uint64_t)bell);
    Py_RETURN_NONE;
}

static PyObject *writer_ring_many(View *self, PyObject *argument) {
    PyObject *bells = PySequence_Fast(argument, "ring_many() takes a sequence of bells");
    if (!bells)
        return NULL;
    Py_ssize_t count = PySequence_Fast_GET_SIZE(bells);
    PyObject *result = NULL;
    int64_t *indices = PyMem_New(int64_t, count ? count : 1);
    if (!indices) {
        PyErr_NoMemory();
        goto done;
    }
    for (Py_ssize_t i = 0; i < count; i++)
        if ((indices[i] = bell_index(self, PySequence_Fast_GET_ITEM(bells, i))) < 0)
            goto done;
    /* All values first: who looks before it sleeps needs no wake-up. */
    for (Py_ssize_t i = 0; i < count; i++)
        bell_advance(&self->segment, (uint64_t)indices[i]);
    for (Py_ssize_t i = 0; i < count; i++)
        bell_wake(&self->segment, (uint64_t)indices[i]);
    result = Py_NewRef(Py_None);
done:
    PyMem_Free(indices);
    Py_DECREF(bells);
    return result;
}

static PyObject *writer_heartbeat(View *self, PyObject *Py_UNUSED(ignored)) {
    if (!self->mapping)
        return fail_closed();
    store_release(self->segment.base + HEADER_HEARTBEAT_NS, monotonic_ns());
    Py_RETURN_NONE;
}

/* Looks up the series that the arguments name: 1 it is there, 0 it isn't, -1 with an error set. */
static int find_named(const View *self, PyObject *args, PyObject *kwargs, Name *name, uint64_t *series, uint64_t *slot) {
    static char *names[] = {"symbol", "interval", NULL};
    PyObject *symbol, *interval;
    uint64_t epoch;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "UU", names, &symbol, &interval))
        return -1;
    if (!self->mapping) {
        fail_closed();
        return -1;
    }
    return as_name(symbol, interval, name) ? find_series(&self->segment, name, series, &epoch, slot) : -1;
}

static PyObject *writer_add_series(View *self, PyObject *args, PyObject *kwargs) {
    Name name;
    uint64_t series, slot;
    int there = find_named(self, args, kwargs, &name, &series, &slot);
    if (there)
        return there < 0 ? NULL : PyLong_FromUnsignedLongLong(series);
    int64_t added = insert_series(&self->segment, &name);
    if (added < 0)
        return fail("the segment is full: all %llu series are in use; raise segment_series",
                    (unsigned long long)self->segment.geometry.series);
    self->changes[added] = ROWS_CHANGED;
    const Geometry *g = &self->segment.geometry;
    populate(self->mapping, (Py_ssize_t)(g->data_offset + (uint64_t)added * g->block_bytes), (Py_ssize_t)g->block_bytes);
    return PyLong_FromLongLong(added);
}

static PyObject *writer_remove_series(View *self, PyObject *args, PyObject *kwargs) {
    Name name;
    uint64_t series, slot;
    int there = find_named(self, args, kwargs, &name, &series, &slot);
    if (there < 0)
        return NULL;
    if (there) {
        self->changes[series] = ROWS_CHANGED;
        remove_series(&self->segment, series, slot);
    }
    Py_RETURN_NONE;
}

static PyObject *writer_take_changed(View *self, PyObject *Py_UNUSED(ignored)) {
    if (!self->mapping)
        return fail_closed();
    PyObject *rows = PyList_New(0), *records = PyList_New(0);
    for (uint64_t series = 0; rows && records && series < self->segment.geometry.series; series++) {
        if (!self->changes[series])
            continue;
        PyObject *index = PyLong_FromUnsignedLongLong(series);
        if (!index || PyList_Append(self->changes[series] & ROWS_CHANGED ? rows : records, index) < 0) {
            Py_XDECREF(index);
            Py_CLEAR(rows);
            break;
        }
        Py_DECREF(index);
    }
    if (!rows || !records) {
        Py_XDECREF(rows);
        Py_XDECREF(records);
        return NULL;
    }
    memset(self->changes, 0, self->segment.geometry.series);
    return Py_BuildValue("NN", rows, records);
}

/* Entries stay where they are: who follows one finds a record that isn't in use. Nobody is given such a record any
 * more, for another file has the path. The fence: who reads what is written to that one from now on also finds the
 * series here ended. */
static PyObject *writer_end_series(View *self, PyObject *Py_UNUSED(ignored)) {
    if (!self->mapping)
        return fail_closed();
    for (uint64_t series = 0; series < self->segment.geometry.series; series++) {
        uint8_t *epoch = record_of(&self->segment, series) + RECORD_EPOCH;
        uint64_t now = load_relaxed(epoch);
        if (now & 1)
            store_relaxed(epoch, now + 1);
    }
    fence_release(); // [EPOCH] as in remove_series(), but for the other file
    Py_RETURN_NONE;
}

static int writer_init(View *self, PyObject *args, PyObject *Py_UNUSED(kwargs)) {
    return view_init(self, args, 1);
}


static PyMethodDef writer_methods[] = {
    {"append", METHOD(writer_append), FAST, "Append a closed row."},
    {"revise", METHOD(writer_revise), FAST, "Change a closed row; False when it isn't in the ring."},
    {"set_forming", METHOD(writer_set_forming), FAST, "Set the forming row."},
    {"clear_forming", METHOD(writer_clear_forming), METH_O, "There is no forming row any more."},
    {"reset", METHOD(writer_reset), METH_VARARGS | METH_KEYWORDS, "Empty a series and begin a session."},
    {"ring", METHOD(writer_ring), METH_O, "Ring a bell: one system call."},
    {"ring_many", METHOD(writer_ring_many), METH_O, "Ring several bells."},
    {"heartbeat", METHOD(writer_heartbeat), METH_NOARGS, "Store now (monotonic) as the writer's sign of life."},
    {"add_series", METHOD(writer_add_series), METH_VARARGS | METH_KEYWORDS, "Index of a series, new or not."},
    {"remove_series", METHOD(writer_remove_series), METH_VARARGS | METH_KEYWORDS, "Take a series out."},
    {"take_changed", METHOD(writer_take_changed), METH_NOARGS, "Series written to since this was last asked."},
    {"end_series", METHOD(writer_end_series), METH_NOARGS, "End all series of a file that another one has replaced."},
    {"_release", METHOD(view_release), METH_NOARGS, "Let go of the mapping."},
    {NULL, NULL, 0, NULL},
};

PyTypeObject WriterType = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "chandlery.workers.segment._native.Writer",
    .tp_doc = "The writer's side of a mapped segment.",
    .tp_basicsize = sizeof(View),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
    .tp_new = PyType_GenericNew,
    .tp_init = (initproc)writer_init,
    .tp_dealloc = (destructor)view_dealloc,
    .tp_methods = writer_methods,
};
