/* Series: the hot path of a process that reads one. */
#include "native.h"

typedef struct {
    View view;
    uint64_t index, epoch;
    uint8_t *record;
} Series;

static int series_init(Series *self, PyObject *args, PyObject *Py_UNUSED(kwargs)) {
    PyObject *mapping;
    unsigned long long n[5], index, epoch;
    self->record = NULL; /* a second, failing __init__ must not leave an address of the first's mapping */
    if (!PyArg_ParseTuple(args, "O!(KKKKK)KK", &MappingType, &mapping, &n[0], &n[1], &n[2], &n[3], &n[4], &index,
                          &epoch))
        return -1;
    if (view_attach(&self->view, mapping, n, 0) < 0)
        return -1;
    if (index >= self->view.segment.geometry.series) {
        Py_CLEAR(self->view.mapping);
        fail("series %llu: there are %llu", index, n[2]);
        return -1;
    }
    self->index = index;
    self->epoch = epoch;
    self->record = record_of(&self->view.segment, index);
    return 0;
}

/* Guards against a subclass that skipped __init__. */
#define NEEDS_RECORD(self)                                                                                             \
    if (!(self)->record)                                                                                               \
    return fail_closed()

/* Whether what was read before belongs to this series: its record may be another's by now. */
static int still_alive(const Series *self) {
    fence_acquire(); // [EPOCH]
    return load_relaxed(self->record + RECORD_EPOCH) == self->epoch;
}

static PyObject *series_alive(Series *self, void *Py_UNUSED(closure)) {
    NEEDS_RECORD(self);
    return PyBool_FromLong(load_acquire(self->record + RECORD_EPOCH) == self->epoch); // [EPOCH]
}

static PyObject *series_signed(Series *self, void *offset) {
    NEEDS_RECORD(self);
    return PyLong_FromLongLong((long long)load_acquire(self->record + (uintptr_t)offset));
}

static PyObject *series_unsigned(Series *self, void *offset) {
    NEEDS_RECORD(self);
    return PyLong_FromUnsignedLongLong(load_acquire(self->record + (uintptr_t)offset)); // [COUNT] [REVISION]
}

static PyObject *series_first(Series *self, PyObject *Py_UNUSED(ignored)) {
    NEEDS_RECORD(self);
    uint64_t count = load_acquire(self->record + RECORD_COUNT); // [COUNT]
    return PyLong_FromUnsignedLongLong(first_readable(&self->view.segment.geometry, count));
}

static PyObject *series_find_after(Series *self, PyObject *argument) {
    NEEDS_RECORD(self);
    long long open_time_ms = PyLong_AsLongLong(argument);
    if (open_time_ms == -1 && PyErr_Occurred())
        return NULL;
    return PyLong_FromUnsignedLongLong(find_after(&self->view.segment, self->index, open_time_ms));
}

/* (begin, end, session, revision) of the rows [end - length, end) that can be read. */
static PyObject *series_bounds(Series *self, PyObject *const *args, Py_ssize_t nargs) {
    NEEDS_RECORD(self);
    if (nargs != 2)
        return PyErr_Format(PyExc_TypeError, "window() takes an end and a length");
    long long end = PyLong_AsLongLong(args[0]), length = PyLong_AsLongLong(args[1]);
    if (PyErr_Occurred())
        return NULL;
    const Geometry *g = &self->view.segment.geometry;
    if (end < 0 || length < 0 || (uint64_t)length > g->rows - g->guard_rows)
        return fail("window(end=%lld, length=%lld): at least 0, and at most %llu rows can be read", end, length,
                    (unsigned long long)(g->rows - g->guard_rows));
    Snapshot taken = take_snapshot(&self->view.segment, self->index);
    uint64_t stop = (uint64_t)end < taken.count ? (uint64_t)end : taken.count;
    uint64_t begin = stop > (uint64_t)length ? stop - (uint64_t)length : 0;
    uint64_t first = first_readable(g, taken.count);
    if (begin < first)
        begin = first < stop ? first : stop;
    return Py_BuildValue("KKLK", (unsigned long long)begin, (unsigned long long)stop, (long long)taken.session,
                         (unsigned long long)taken.revision);
}

static PyObject *series_unchanged(Series *self, PyObject *const *args, Py_ssize_t nargs) {
    NEEDS_RECORD(self);
    if (nargs != 2)
        return PyErr_Format(PyExc_TypeError, "_unchanged() takes a begin and a revision");
    unsigned long long begin = PyLong_AsUnsignedLongLong(args[0]), revision = PyLong_AsUnsignedLongLong(args[1]);
    if (PyErr_Occurred())
        return NULL;
    return PyBool_FromLong(unchanged(&self->view.segment, self->index, self->epoch, revision, begin));
}

static PyObject *series_lapped(Series *self, PyObject *argument) {
    NEEDS_RECORD(self);
    unsigned long long ordinal = PyLong_AsUnsignedLongLong(argument);
    if (ordinal == (unsigned long long)-1 && PyErr_Occurred())
        return NULL;
    return PyBool_FromLong(lapped(&self->view.segment, self->index, ordinal));
}

static PyObject *series_forming(Series *self, PyObject *Py_UNUSED(ignored)) {
    uint64_t sequence;
    Row row;
    int64_t stamps[STAMP_COUNT];
    NEEDS_RECORD(self);
    if (!copy_forming(&self->view.segment, self->index, &sequence, &row, stamps))
        Py_RETURN_NONE;
    if (!still_alive(self))
        Py_RETURN_NONE;
    PyObject *tuple = stamps_tuple(stamps);
    return tuple ? Py_BuildValue("LdddddLNK", (long long)row.open_time_ms, row.open, row.high, row.low, row.close,
                                 row.volume, (long long)row.trades, tuple, (unsigned long long)sequence)
                 : NULL;
}

static PyObject *series_stamps(Series *self, PyObject *argument) {
    int64_t stamps[STAMP_COUNT];
    NEEDS_RECORD(self);
    unsigned long long ordinal = PyLong_AsUnsignedLongLong(argument);
    if (ordinal == (unsigned long long)-1 && PyErr_Occurred())
        return NULL;
    if (!copy_stamps(&self->view.segment, self->index, ordinal, stamps) || !still_alive(self))
        Py_RETURN_NONE;
    return stamps_tuple(stamps);
}

static PyGetSetDef series_getset[] = {
    {"alive", (getter)series_alive, NULL, "Whether the record still means this series.", NULL},
    {"session", (getter)series_signed, NULL, "The market's session.", (void *)RECORD_SESSION},
    {"count", (getter)series_unsigned, NULL, "Closed rows since the reset.", (void *)RECORD_COUNT},
    {"revision", (getter)series_unsigned, NULL, "Changes of rows and resets.", (void *)RECORD_REVISION},
    {"live_from_ms", (getter)series_signed, NULL, "First row that came as it happened, or -1.", (void *)RECORD_LIVE_FROM_MS},
    {"traded_from_ms", (getter)series_signed, NULL, "First row not backfilled, or -1.", (void *)RECORD_TRADED_FROM_MS},
    {"last_open_time_ms", (getter)series_signed, NULL, "Newest closed row, or -1.", (void *)RECORD_LAST_OPEN_TIME_MS},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMethodDef series_methods[] = {
    {"first", METHOD(series_first), METH_NOARGS, "Oldest ordinal that can be read."},
    {"find_after", METHOD(series_find_after), METH_O, "Smallest readable ordinal opened after a time, or the count."},
    {"lapped", METHOD(series_lapped), METH_O, "Whether a row has been overwritten."},
    {"stamps", METHOD(series_stamps), METH_O, "A row's stamps, or None."},
    {"_bounds", METHOD(series_bounds), METH_FASTCALL, "(begin, end, session, revision) of a window."},
    {"_unchanged", METHOD(series_unchanged), METH_FASTCALL, "Whether nothing from `begin` on changed."},
    {"_forming", METHOD(series_forming), METH_NOARGS, "The forming row as a tuple, or None."},
    {NULL, NULL, 0, NULL},
};

PyTypeObject SeriesType = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "chandlery.workers.segment._native.Series",
    .tp_doc = "A reader's side of one series.",
    .tp_basicsize = sizeof(Series),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
    .tp_new = PyType_GenericNew,
    .tp_init = (initproc)series_init,
    .tp_dealloc = (destructor)view_dealloc,
    .tp_getset = series_getset,
    .tp_methods = series_methods,
};
