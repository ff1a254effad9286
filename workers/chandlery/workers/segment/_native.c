/* The segment for Python: mappings, the writer's and the reader's hot paths. Atomics are in protocol.h.
 *
 * Ownership: a Mapping unmaps its file when the last reference goes; Writer, Reader and Series hold one, and so
 * does every numpy array built on a Mapping's buffer. Nothing here hands out a bare address. Every offset and
 * index that comes from Python or from the file is checked against the mapped size before it is used.
 */
#define PY_SSIZE_T_CLEAN
#define _GNU_SOURCE
#include <Python.h>

#include <math.h>
#include <sys/mman.h>

#include "layout.h"
#include "protocol.h"

#ifndef MADV_POPULATE_READ /* Linux 5.14; older kernels answer EINVAL, and pages come when touched */
#define MADV_POPULATE_READ 22
#define MADV_POPULATE_WRITE 23
#endif

static PyObject *SegmentError;

static PyObject *fail(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    PyErr_FormatV(SegmentError, format, arguments);
    va_end(arguments);
    return NULL;
}

static PyObject *fail_closed(void) {
    return fail("this segment is closed here");
}

/* ---- Mapping ---- */

typedef struct {
    PyObject_HEAD
    uint8_t *base;
    Py_ssize_t length;
    int writable;
} Mapping;

static PyTypeObject MappingType;

static PyObject *mapping_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"fd", "length", "writable", NULL};
    int fd, writable;
    Py_ssize_t length;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "inp", names, &fd, &length, &writable))
        return NULL;
    if (length <= 0)
        return fail("can't map %zd bytes", length);
    Mapping *self = (Mapping *)type->tp_alloc(type, 0);
    if (!self)
        return NULL;
    void *base = mmap(NULL, (size_t)length, writable ? PROT_READ | PROT_WRITE : PROT_READ, MAP_SHARED, fd, 0);
    if (base == MAP_FAILED) {
        Py_DECREF(self);
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    self->base = base;
    self->length = length;
    self->writable = writable;
    return (PyObject *)self;
}

static void mapping_dealloc(Mapping *self) {
    if (self->base)
        munmap(self->base, (size_t)self->length);
    Py_TYPE(self)->tp_free((PyObject *)self);
}

static int mapping_getbuffer(Mapping *self, Py_buffer *view, int flags) {
    return PyBuffer_FillInfo(view, (PyObject *)self, self->base, self->length, !self->writable, flags);
}

static int within(const Mapping *self, Py_ssize_t offset, Py_ssize_t length) {
    if (offset >= 0 && length >= 0 && length <= self->length && offset <= self->length - length)
        return 1;
    fail("%zd bytes at %zd are not within the %zd mapped", length, offset, self->length);
    return 0;
}

/* The address of an aligned word, or NULL with an error set. */
static uint8_t *mapped_word(const Mapping *self, Py_ssize_t offset, int to_write) {
    if (!within(self, offset, WORD_BYTES))
        return NULL;
    if (offset % WORD_BYTES) {
        fail("offset %zd is not aligned to %d", offset, WORD_BYTES);
        return NULL;
    }
    if (to_write && !self->writable) {
        fail("this mapping is read-only");
        return NULL;
    }
    return self->base + offset;
}

static PyObject *mapping_load(Mapping *self, PyObject *argument) {
    Py_ssize_t offset = PyLong_AsSsize_t(argument);
    if (offset == -1 && PyErr_Occurred())
        return NULL;
    uint8_t *at = mapped_word(self, offset, 0);
    return at ? PyLong_FromUnsignedLongLong(load_acquire(at)) : NULL;
}

/* Any integer of -2^63 … 2^64-1 as the word that holds it; 0 with an error set otherwise. */
static int as_word(PyObject *value, uint64_t *word) {
    int overflow;
    long long narrow = PyLong_AsLongLongAndOverflow(value, &overflow);
    if (narrow == -1 && !overflow && PyErr_Occurred())
        return 0;
    if (!overflow) {
        *word = (uint64_t)narrow;
        return 1;
    }
    if (overflow > 0) {
        *word = PyLong_AsUnsignedLongLong(value);
        if (!(*word == (uint64_t)-1 && PyErr_Occurred()))
            return 1;
        PyErr_Clear();
    }
    fail("%R does not fit into a 64-bit word", value);
    return 0;
}

static PyObject *mapping_store(Mapping *self, PyObject *const *args, Py_ssize_t nargs) {
    uint64_t value;
    if (nargs != 2)
        return PyErr_Format(PyExc_TypeError, "store() takes an offset and a value");
    Py_ssize_t offset = PyLong_AsSsize_t(args[0]);
    if ((offset == -1 && PyErr_Occurred()) || !as_word(args[1], &value))
        return NULL;
    uint8_t *at = mapped_word(self, offset, 1);
    if (!at)
        return NULL;
    store_release(at, value);
    Py_RETURN_NONE;
}

static PyObject *mapping_add(Mapping *self, PyObject *const *args, Py_ssize_t nargs) {
    uint64_t amount;
    if (nargs != 2)
        return PyErr_Format(PyExc_TypeError, "add() takes an offset and an amount");
    Py_ssize_t offset = PyLong_AsSsize_t(args[0]);
    if ((offset == -1 && PyErr_Occurred()) || !as_word(args[1], &amount))
        return NULL;
    uint8_t *at = mapped_word(self, offset, 1);
    return at ? PyLong_FromUnsignedLongLong(add_release(at, amount)) : NULL;
}

static PyObject *mapping_read(Mapping *self, PyObject *const *args, Py_ssize_t nargs) {
    if (nargs != 2)
        return PyErr_Format(PyExc_TypeError, "read() takes an offset and a length");
    Py_ssize_t offset = PyLong_AsSsize_t(args[0]), length = PyLong_AsSsize_t(args[1]);
    if (PyErr_Occurred() || !within(self, offset, length))
        return NULL;
    return PyBytes_FromStringAndSize((const char *)self->base + offset, length);
}

static PyObject *mapping_write(Mapping *self, PyObject *const *args, Py_ssize_t nargs) {
    if (nargs != 2)
        return PyErr_Format(PyExc_TypeError, "write() takes an offset and bytes");
    Py_ssize_t offset = PyLong_AsSsize_t(args[0]);
    if (offset == -1 && PyErr_Occurred())
        return NULL;
    if (!self->writable)
        return fail("this mapping is read-only");
    Py_buffer data;
    if (PyObject_GetBuffer(args[1], &data, PyBUF_SIMPLE) < 0)
        return NULL;
    int fits = within(self, offset, data.len);
    if (fits)
        memcpy(self->base + offset, data.buf, (size_t)data.len);
    PyBuffer_Release(&data);
    if (!fits)
        return NULL;
    Py_RETURN_NONE;
}

/* Faults the pages of a range in now, so that the first touch later costs nothing. Best effort. */
static void populate(const Mapping *self, Py_ssize_t offset, Py_ssize_t length) {
    Py_ssize_t page = sysconf(_SC_PAGESIZE);
    Py_ssize_t begin = offset / page * page;
    madvise(self->base + begin, (size_t)(offset + length - begin),
            self->writable ? MADV_POPULATE_WRITE : MADV_POPULATE_READ);
}

static PyObject *mapping_populate(Mapping *self, PyObject *const *args, Py_ssize_t nargs) {
    if (nargs != 2)
        return PyErr_Format(PyExc_TypeError, "populate() takes an offset and a length");
    Py_ssize_t offset = PyLong_AsSsize_t(args[0]), length = PyLong_AsSsize_t(args[1]);
    if (PyErr_Occurred() || !within(self, offset, length))
        return NULL;
    populate(self, offset, length);
    Py_RETURN_NONE;
}

static Py_ssize_t mapping_length(Mapping *self) {
    return self->length;
}

static PyMethodDef mapping_methods[] = {
    {"load", (PyCFunction)mapping_load, METH_O, "Word at an aligned offset (acquire)."},
    {"store", (PyCFunction)(void (*)(void))mapping_store, METH_FASTCALL, "Store a word (release)."},
    {"add", (PyCFunction)(void (*)(void))mapping_add, METH_FASTCALL, "Add to a word (release); the new value."},
    {"read", (PyCFunction)(void (*)(void))mapping_read, METH_FASTCALL, "Copy of a range."},
    {"write", (PyCFunction)(void (*)(void))mapping_write, METH_FASTCALL, "Copy bytes to an offset."},
    {"populate", (PyCFunction)(void (*)(void))mapping_populate, METH_FASTCALL, "Fault a range's pages in."},
    {NULL, NULL, 0, NULL},
};

static PyBufferProcs mapping_buffer = {.bf_getbuffer = (getbufferproc)mapping_getbuffer};
static PySequenceMethods mapping_sequence = {.sq_length = (lenfunc)mapping_length};

static PyTypeObject MappingType = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "chandlery.workers.segment._native.Mapping",
    .tp_doc = "A shared mapping of a file; unmapped when nothing refers to it any more.",
    .tp_basicsize = sizeof(Mapping),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_new = mapping_new,
    .tp_dealloc = (destructor)mapping_dealloc,
    .tp_methods = mapping_methods,
    .tp_as_buffer = &mapping_buffer,
    .tp_as_sequence = &mapping_sequence,
};

/* ---- what Writer, Reader and Series share: a mapping and where things lie in it ---- */

typedef struct {
    PyObject_HEAD
    Mapping *mapping; /* NULL once closed */
    Segment segment;
} View;

/* Takes rows, guard_rows, series, bells, stamp_rows; checks that what they mean fits the mapping. */
static int view_attach(View *self, PyObject *mapping, const unsigned long long *numbers, int to_write) {
    Geometry geometry = {.rows = numbers[0],
                         .guard_rows = numbers[1],
                         .series = numbers[2],
                         .bells = numbers[3],
                         .stamp_rows = numbers[4]};
    if (!derive_geometry(&geometry)) {
        fail("impossible segment: rows %llu, guard_rows %llu, series %llu, bells %llu, stamp_rows %llu", numbers[0],
             numbers[1], numbers[2], numbers[3], numbers[4]);
        return -1;
    }
    Mapping *map = (Mapping *)mapping;
    if (geometry.file_bytes > (uint64_t)map->length) {
        fail("the segment says %llu bytes, %zd are mapped", (unsigned long long)geometry.file_bytes, map->length);
        return -1;
    }
    if (to_write && !map->writable) {
        fail("a writer needs a writable mapping");
        return -1;
    }
    self->segment = (Segment){map->base, geometry};
    Py_XSETREF(self->mapping, (Mapping *)Py_NewRef(mapping));
    return 0;
}

static int view_init(View *self, PyObject *args, int to_write) {
    PyObject *mapping;
    unsigned long long n[5];
    if (!PyArg_ParseTuple(args, "O!(KKKKK)", &MappingType, &mapping, &n[0], &n[1], &n[2], &n[3], &n[4]))
        return -1;
    return view_attach(self, mapping, n, to_write);
}

static void view_dealloc(View *self) {
    Py_CLEAR(self->mapping);
    Py_TYPE(self)->tp_free((PyObject *)self);
}

static PyObject *view_release(View *self, PyObject *Py_UNUSED(ignored)) {
    Py_CLEAR(self->mapping);
    Py_RETURN_NONE;
}

/* A bell's index, or -1 with an error set. */
static int64_t bell_index(const View *self, PyObject *argument) {
    if (!self->mapping) {
        fail_closed();
        return -1;
    }
    long long bell = PyLong_AsLongLong(argument);
    if (bell == -1 && PyErr_Occurred())
        return -1;
    if (bell < 0 || (uint64_t)bell >= self->segment.geometry.bells) {
        fail("bell %lld: there are bells 0 to %llu", bell, (unsigned long long)self->segment.geometry.bells - 1);
        return -1;
    }
    return bell;
}

static int as_name(PyObject *symbol, PyObject *interval, Name *name) {
    Py_ssize_t symbol_bytes, interval_bytes;
    const char *symbol_text = PyUnicode_AsUTF8AndSize(symbol, &symbol_bytes);
    const char *interval_text = symbol_text ? PyUnicode_AsUTF8AndSize(interval, &interval_bytes) : NULL;
    if (!interval_text)
        return 0;
    if (symbol_bytes < 1 || symbol_bytes >= SYMBOL_BYTES || strlen(symbol_text) != (size_t)symbol_bytes) {
        fail("symbol %R: 1 to %d bytes are possible", symbol, SYMBOL_BYTES - 1);
        return 0;
    }
    if (interval_bytes < 1 || interval_bytes >= INTERVAL_BYTES || strlen(interval_text) != (size_t)interval_bytes) {
        fail("interval %R: 1 to %d bytes are possible", interval, INTERVAL_BYTES - 1);
        return 0;
    }
    memset(name, 0, sizeof *name);
    memcpy(name->symbol, symbol_text, (size_t)symbol_bytes);
    memcpy(name->interval, interval_text, (size_t)interval_bytes);
    return 1;
}

static PyObject *stamps_tuple(const int64_t *stamps) {
    PyObject *tuple = PyTuple_New(STAMP_COUNT);
    for (int i = 0; tuple && i < STAMP_COUNT; i++) {
        PyObject *item = PyLong_FromLongLong(stamps[i]);
        if (!item)
            Py_CLEAR(tuple);
        else
            PyTuple_SET_ITEM(tuple, i, item);
    }
    return tuple;
}

/* ---- Writer ---- */

enum { ARG_SERIES, ARG_OPEN_TIME, ARG_OPEN, ARG_HIGH, ARG_LOW, ARG_CLOSE, ARG_VOLUME, ARG_TRADES, ARG_STAMPS, ARG_BACKFILL, ARG_LIVE, ARG_COUNT };
static const char *const argument_names[ARG_COUNT] = {"series", "open_time_ms", "open",   "high",   "low",
                                                      "close",  "volume",       "trades", "stamps", "backfill", "live"};
static PyObject *argument_keys[ARG_COUNT];

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
    store_forming(record, &row, stamps);
    Py_RETURN_NONE;
}

static PyObject *writer_clear_forming(View *self, PyObject *argument) {
    uint64_t series;
    uint8_t *record = live_record(self, argument, &series);
    if (!record)
        return NULL;
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
    struct timespec now;
    if (!self->mapping)
        return fail_closed();
    clock_gettime(CLOCK_MONOTONIC, &now);
    store_release(self->segment.base + HEADER_HEARTBEAT_NS, (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec);
    Py_RETURN_NONE;
}

static PyObject *writer_add_series(View *self, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"symbol", "interval", NULL};
    PyObject *symbol, *interval;
    Name name;
    uint64_t series, epoch, slot;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "UU", names, &symbol, &interval))
        return NULL;
    if (!self->mapping)
        return fail_closed();
    if (!as_name(symbol, interval, &name))
        return NULL;
    if (find_series(&self->segment, &name, &series, &epoch, &slot))
        return PyLong_FromUnsignedLongLong(series);
    int64_t added = insert_series(&self->segment, &name);
    if (added < 0)
        return fail("the segment is full: all %llu series are in use; raise segment_series",
                    (unsigned long long)self->segment.geometry.series);
    const Geometry *g = &self->segment.geometry;
    populate(self->mapping, (Py_ssize_t)(g->data_offset + (uint64_t)added * g->block_bytes), (Py_ssize_t)g->block_bytes);
    return PyLong_FromLongLong(added);
}

static PyObject *writer_remove_series(View *self, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"symbol", "interval", NULL};
    PyObject *symbol, *interval;
    Name name;
    uint64_t series, epoch, slot;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "UU", names, &symbol, &interval))
        return NULL;
    if (!self->mapping)
        return fail_closed();
    if (!as_name(symbol, interval, &name))
        return NULL;
    if (find_series(&self->segment, &name, &series, &epoch, &slot))
        remove_series(&self->segment, series, slot);
    Py_RETURN_NONE;
}

static int writer_init(View *self, PyObject *args, PyObject *Py_UNUSED(kwargs)) {
    return view_init(self, args, 1);
}

#define FAST (METH_FASTCALL | METH_KEYWORDS)
#define METHOD(function) ((PyCFunction)(void (*)(void))(function))

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
    {"_release", METHOD(view_release), METH_NOARGS, "Let go of the mapping."},
    {NULL, NULL, 0, NULL},
};

static PyTypeObject WriterType = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "chandlery.workers.segment._native.Writer",
    .tp_doc = "The writer's side of a mapped segment.",
    .tp_basicsize = sizeof(View),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
    .tp_new = PyType_GenericNew,
    .tp_init = (initproc)writer_init,
    .tp_dealloc = (destructor)view_dealloc,
    .tp_methods = writer_methods,
};

/* ---- Reader ---- */

static int reader_init(View *self, PyObject *args, PyObject *Py_UNUSED(kwargs)) {
    return view_init(self, args, 0);
}

static PyObject *reader_find(View *self, PyObject *args) {
    PyObject *symbol, *interval;
    Name name;
    uint64_t series, epoch, slot;
    if (!PyArg_ParseTuple(args, "UU", &symbol, &interval))
        return NULL;
    if (!self->mapping)
        return fail_closed();
    if (!as_name(symbol, interval, &name))
        return NULL;
    if (!find_series(&self->segment, &name, &series, &epoch, &slot))
        Py_RETURN_NONE;
    const Geometry *g = &self->segment.geometry;
    populate(self->mapping, 0, (Py_ssize_t)(g->hash_offset)); /* header and bells */
    populate(self->mapping, (Py_ssize_t)(g->records_offset + series * RECORD_BYTES), RECORD_BYTES);
    populate(self->mapping, (Py_ssize_t)(g->data_offset + series * g->block_bytes), (Py_ssize_t)g->block_bytes);
    return Py_BuildValue("KK", (unsigned long long)series, (unsigned long long)epoch);
}

static PyObject *reader_bell(View *self, PyObject *argument) {
    int64_t bell = bell_index(self, argument);
    return bell < 0 ? NULL : PyLong_FromUnsignedLong(bell_value(&self->segment, (uint64_t)bell));
}

static PyObject *reader_wait(View *self, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"index", "seen", "timeout_s", NULL};
    PyObject *argument;
    unsigned long long seen;
    double timeout_s;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OKd", names, &argument, &seen, &timeout_s))
        return NULL;
    int64_t bell = bell_index(self, argument);
    if (bell < 0)
        return NULL;
    if (isnan(timeout_s))
        return fail("timeout_s is not a number");
    Mapping *held = (Mapping *)Py_NewRef(self->mapping); /* another thread may close the reader meanwhile */
    Segment segment = self->segment;
    if (timeout_s > 0 && bell_value(&segment, (uint64_t)bell) == (uint32_t)seen) {
        double capped = timeout_s < 1e6 ? timeout_s : 1e6;
        struct timespec timeout = {(time_t)capped, (long)((capped - floor(capped)) * 1e9)};
        Py_BEGIN_ALLOW_THREADS
        bell_sleep(&segment, (uint64_t)bell, (uint32_t)seen, &timeout);
        Py_END_ALLOW_THREADS
    }
    PyObject *value = PyLong_FromUnsignedLong(bell_value(&segment, (uint64_t)bell));
    Py_DECREF(held);
    if (PyErr_CheckSignals() < 0)
        Py_CLEAR(value);
    return value;
}

static PyMethodDef reader_methods[] = {
    {"_find", METHOD(reader_find), METH_VARARGS, "(index, epoch) of a series, or None."},
    {"bell", METHOD(reader_bell), METH_O, "A bell's value."},
    {"wait", METHOD(reader_wait), METH_VARARGS | METH_KEYWORDS, "Sleep while a bell stands at a value."},
    {"_release", METHOD(view_release), METH_NOARGS, "Let go of the mapping."},
    {NULL, NULL, 0, NULL},
};

static PyTypeObject ReaderType = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "chandlery.workers.segment._native.Reader",
    .tp_doc = "A reader's side of a mapped segment.",
    .tp_basicsize = sizeof(View),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
    .tp_new = PyType_GenericNew,
    .tp_init = (initproc)reader_init,
    .tp_dealloc = (destructor)view_dealloc,
    .tp_methods = reader_methods,
};

/* ---- Series ---- */

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

static PyTypeObject SeriesType = {
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

/* ---- module ---- */

static PyObject *native_geometry(PyObject *Py_UNUSED(module), PyObject *args) {
    unsigned long long n[5];
    if (!PyArg_ParseTuple(args, "KKKKK", &n[0], &n[1], &n[2], &n[3], &n[4]))
        return NULL;
    Geometry g = {.rows = n[0], .guard_rows = n[1], .series = n[2], .bells = n[3], .stamp_rows = n[4]};
    if (!derive_geometry(&g))
        return fail("impossible segment: rows %llu (2 to %d), guard_rows %llu (1 to rows - 1), series %llu (1 to %d), "
                    "bells %llu (1 to %d), stamp_rows %llu (1 to rows)",
                    n[0], MAX_ROWS, n[1], n[2], MAX_SERIES, n[3], MAX_BELLS, n[4]);
    const unsigned long long found[] = {g.rows,         g.guard_rows,  g.series,         g.bells,
                                        g.stamp_rows,   g.hash_slots,  g.bells_offset,   g.hash_offset,
                                        g.records_offset, g.data_offset, g.column_bytes, g.block_bytes,
                                        g.file_bytes};
    const Py_ssize_t count = sizeof found / sizeof found[0];
    PyObject *tuple = PyTuple_New(count);
    for (Py_ssize_t i = 0; tuple && i < count; i++) {
        PyObject *item = PyLong_FromUnsignedLongLong(found[i]);
        if (!item)
            Py_CLEAR(tuple);
        else
            PyTuple_SET_ITEM(tuple, i, item);
    }
    return tuple;
}

static PyObject *native_fence_acquire(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored)) {
    fence_acquire();
    Py_RETURN_NONE;
}

static PyObject *native_fence_release(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored)) {
    fence_release();
    Py_RETURN_NONE;
}

static PyMethodDef native_methods[] = {
    {"geometry", native_geometry, METH_VARARGS, "Where everything lies, from the five numbers."},
    {"fence_acquire", native_fence_acquire, METH_NOARGS, "Nothing below is read before what is above."},
    {"fence_release", native_fence_release, METH_NOARGS, "Nothing above is written after what is below."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef native_module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "chandlery.workers.segment._native",
    .m_doc = "Shared-memory segment: mappings, atomics, doorbells.",
    .m_size = -1,
    .m_methods = native_methods,
};

typedef struct {
    const char *name;
    unsigned long long value;
} Constant;

#define CONSTANT(name) {#name, (unsigned long long)(name)}

static const Constant constants[] = {
    CONSTANT(WORD_BYTES),
    CONSTANT(HEADER_BYTES),
    CONSTANT(LAYOUT_VERSION),
    CONSTANT(COLUMN_COUNT),
    CONSTANT(STAMP_COUNT),
    CONSTANT(SEGMENT_MAGIC),
    CONSTANT(RING_MAGIC),
    CONSTANT(READY_WORD),
    CONSTANT(HEADER_MAGIC),
    CONSTANT(HEADER_VERSION),
    CONSTANT(HEADER_FILE_BYTES),
    CONSTANT(HEADER_GENERATION),
    CONSTANT(HEADER_ROWS),
    CONSTANT(HEADER_GUARD_ROWS),
    CONSTANT(HEADER_SERIES),
    CONSTANT(HEADER_BELLS),
    CONSTANT(HEADER_STAMP_ROWS),
    CONSTANT(HEADER_HASH_SLOTS),
    CONSTANT(HEADER_BELLS_OFFSET),
    CONSTANT(HEADER_HASH_OFFSET),
    CONSTANT(HEADER_RECORDS_OFFSET),
    CONSTANT(HEADER_DATA_OFFSET),
    CONSTANT(HEADER_COLUMN_BYTES),
    CONSTANT(HEADER_BLOCK_BYTES),
    CONSTANT(HEADER_WRITER_PID),
    CONSTANT(HEADER_CREATED_NS),
    CONSTANT(HEADER_CHECKSUM),
    CONSTANT(HEADER_READY),
    CONSTANT(HEADER_SUPERSEDED),
    CONSTANT(HEADER_TABLE_VERSION),
    CONSTANT(HEADER_HEARTBEAT_NS),
    CONSTANT(BELL_BYTES),
    CONSTANT(RECORD_BYTES),
    CONSTANT(RECORD_EPOCH),
    CONSTANT(RECORD_INTERVAL),
    CONSTANT(INTERVAL_BYTES),
    CONSTANT(RECORD_SYMBOL),
    CONSTANT(SYMBOL_BYTES),
    CONSTANT(RECORD_REVISION),
    CONSTANT(RECORD_RESERVED),
    CONSTANT(RECORD_COUNT),
    CONSTANT(RECORD_SESSION),
    CONSTANT(RECORD_LIVE_FROM_MS),
    CONSTANT(RECORD_LAST_OPEN_TIME_MS),
    CONSTANT(RECORD_TRADED_FROM_MS),
    CONSTANT(RECORD_FORMING_SEQUENCE),
    CONSTANT(RECORD_FORMING),
    CONSTANT(RECORD_FORMING_STAMPS),
    CONSTANT(RING_VERSION),
    CONSTANT(RING_OLDEST_VERSION),
    CONSTANT(RING_HEADER_BYTES),
    CONSTANT(RING_MAGIC_AT),
    CONSTANT(RING_VERSION_AT),
    CONSTANT(RING_FILE_BYTES),
    CONSTANT(RING_SLOTS),
    CONSTANT(RING_SLOT_BYTES),
    CONSTANT(RING_POSITIONS_OFFSET),
    CONSTANT(RING_SLOTS_OFFSET),
    CONSTANT(RING_READY),
    CONSTANT(RING_TRADER),
    CONSTANT(RING_TRADER_BYTES),
    CONSTANT(RING_HEAD),
    CONSTANT(RING_TAIL),
    CONSTANT(RING_COUNTERS),
    CONSTANT(RING_COUNTER_COUNT),
    CONSTANT(RING_POSITION_CLOCK),
    CONSTANT(RING_UID),
    CONSTANT(RING_UID_BYTES),
    CONSTANT(POSITION_COUNT),
    CONSTANT(POSITION_BYTES),
    CONSTANT(POSITION_VERSION),
    CONSTANT(POSITION_USED_AT),
    CONSTANT(POSITION_PAIRS),
    CONSTANT(POSITION_SERIES),
    CONSTANT(SLOT_BYTES),
    CONSTANT(SLOT_HEADER_BYTES),
    CONSTANT(SLOT_PAYLOAD_BYTES),
    CONSTANT(MAX_RING_SLOTS),
};

static int add_constants(PyObject *module) {
    for (size_t i = 0; i < sizeof constants / sizeof constants[0]; i++) {
        PyObject *value = PyLong_FromUnsignedLongLong(constants[i].value);
        int failed = !value || PyModule_AddObjectRef(module, constants[i].name, value) < 0;
        Py_XDECREF(value);
        if (failed)
            return -1;
    }
    return 0;
}

PyMODINIT_FUNC PyInit__native(void) {
    PyObject *errors = PyImport_ImportModule("chandlery.core.errors");
    if (!errors)
        return NULL;
    SegmentError = PyObject_GetAttrString(errors, "SegmentError");
    Py_DECREF(errors);
    if (!SegmentError)
        return NULL;
    for (int i = 0; i < ARG_COUNT; i++)
        if (!(argument_keys[i] = PyUnicode_InternFromString(argument_names[i])))
            return NULL;
    PyObject *module = PyModule_Create(&native_module);
    if (!module)
        return NULL;
    if (add_constants(module) < 0 || PyModule_AddType(module, &MappingType) < 0 ||
        PyModule_AddType(module, &WriterType) < 0 || PyModule_AddType(module, &ReaderType) < 0 ||
        PyModule_AddType(module, &SeriesType) < 0) {
        Py_DECREF(module);
        return NULL;
    }
    return module;
}
