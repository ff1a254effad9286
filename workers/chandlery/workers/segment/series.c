/* Series: the hot path of a process that reads one. */
#include "native.h"

typedef struct {
    View view;
    uint64_t index, epoch;
    uint8_t *record;
    PyObject *columns[COLUMN_COUNT]; /* arrays over the doubled columns; NULL until attached */
    Window *prepared;                /* the next window, made before it is asked for; or NULL */
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

static void series_dealloc(Series *self) {
    Py_CLEAR(self->prepared);
    for (int column = 0; column < COLUMN_COUNT; column++)
        Py_CLEAR(self->columns[column]);
    view_dealloc(&self->view);
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

static PyObject *series_attach(Series *self, PyObject *arrays) {
    NEEDS_RECORD(self);
    if (!PyTuple_Check(arrays) || PyTuple_GET_SIZE(arrays) != COLUMN_COUNT)
        return PyErr_Format(PyExc_TypeError, "_attach() takes a tuple of %d arrays", COLUMN_COUNT);
    Py_CLEAR(self->prepared);
    for (int column = 0; column < COLUMN_COUNT; column++)
        Py_XSETREF(self->columns[column], Py_NewRef(PyTuple_GET_ITEM(arrays, column)));
    Py_RETURN_NONE;
}

/* The end and the length that a window is asked for; 0 with an error set. */
static int window_wanted(const Series *self, const char *function, PyObject *const *args, Py_ssize_t nargs,
                         uint64_t *end, uint64_t *length) {
    const Geometry *g = &self->view.segment.geometry;
    if (nargs != 2) {
        PyErr_Format(PyExc_TypeError, "%s() takes an end and a length", function);
        return 0;
    }
    long long asked_end = PyLong_AsLongLong(args[0]), asked_length = PyLong_AsLongLong(args[1]);
    if (PyErr_Occurred()) {
        if (PyErr_ExceptionMatches(PyExc_OverflowError)) {
            PyErr_Clear(); /* a count that the file made up, as a rule */
            fail("%s(end=%R, length=%R): no series counts as far", function, args[0], args[1]);
        }
        return 0;
    }
    if (asked_end < 0 || asked_length < 0) {
        fail("%s(end=%lld, length=%lld): neither can be below 0", function, asked_end, asked_length);
        return 0;
    }
    if ((uint64_t)asked_length > g->rows - g->guard_rows) {
        fail("%s of %lld rows: %llu can be read, of %llu kept the oldest %llu are the writer's guard; raise the pool's "
             "segment.candles",
             function, asked_length, (unsigned long long)(g->rows - g->guard_rows), (unsigned long long)g->rows,
             (unsigned long long)g->guard_rows);
        return 0;
    }
    if (!self->columns[0]) {
        PyErr_SetString(PyExc_TypeError, "this series has no columns: _attach() them first");
        return 0;
    }
    *end = (uint64_t)asked_end;
    *length = (uint64_t)asked_length;
    return 1;
}

/* Rows [end - length, end) as far as `count` lets them be read, and the window on them, prepared or made. */
static Window *window_at(Series *self, uint64_t count, uint64_t end, uint64_t length) {
    const Geometry *g = &self->view.segment.geometry;
    uint64_t stop = end < count ? end : count;
    uint64_t begin = stop > length ? stop - length : 0;
    uint64_t first = first_readable(g, count);
    if (begin < first)
        begin = first < stop ? first : stop;
    Window *prepared = self->prepared;
    if (prepared && prepared->begin == begin && prepared->end == stop) {
        self->prepared = NULL;
        return prepared;
    }
    /* At most begin % rows + rows - guard_rows: within the doubled ring. */
    return make_window(self->columns, begin % g->rows, begin, stop);
}

static PyObject *series_window(Series *self, PyObject *const *args, Py_ssize_t nargs) {
    uint64_t end, length;
    NEEDS_RECORD(self);
    if (!window_wanted(self, "window", args, nargs, &end, &length))
        return NULL;
    Snapshot taken = take_snapshot(&self->view.segment, self->index);
    Window *window = window_at(self, taken.count, end, length);
    if (window) {
        window->session = taken.session;
        window->revision = taken.revision;
    }
    return (PyObject *)window;
}

static PyObject *series_prepare(Series *self, PyObject *const *args, Py_ssize_t nargs) {
    uint64_t end, length;
    NEEDS_RECORD(self);
    if (!window_wanted(self, "prepare", args, nargs, &end, &length))
        return NULL;
    Window *made = window_at(self, end, end, length); /* as it will be when `end` rows are there */
    if (!made)
        return NULL;
    Py_XSETREF(self->prepared, made);
    Py_RETURN_NONE;
}

static PyObject *series_valid(Series *self, PyObject *argument) {
    NEEDS_RECORD(self);
    if (!PyObject_TypeCheck(argument, &WindowType))
        return PyErr_Format(PyExc_TypeError, "valid() takes a window, not %R", argument);
    const Window *window = (const Window *)argument;
    return PyBool_FromLong(
        unchanged(&self->view.segment, self->index, self->epoch, window->revision, window->begin));
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
    {"window", METHOD(series_window), METH_FASTCALL, "Rows [end - length, end), without a copy."},
    {"prepare", METHOD(series_prepare), METH_FASTCALL, "Make the window that is asked for next already now."},
    {"valid", METHOD(series_valid), METH_O, "Whether a window was whole and is still true."},
    {"_attach", METHOD(series_attach), METH_O, "Take the arrays over the doubled columns."},
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
    .tp_dealloc = (destructor)series_dealloc,
    .tp_getset = series_getset,
    .tp_methods = series_methods,
};
