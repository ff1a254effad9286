/* The extension module `_native`: its errors, functions, constants and types. */
#include "native.h"

PyObject *SegmentError;

PyObject *fail(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    PyErr_FormatV(SegmentError, format, arguments);
    va_end(arguments);
    return NULL;
}

PyObject *fail_closed(void) {
    return fail("this segment is closed here");
}
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
    if (intern_argument_names() < 0)
        return NULL;
    PyObject *module = PyModule_Create(&native_module);
    if (!module)
        return NULL;
    if (add_constants(module) < 0 || PyModule_AddType(module, &MappingType) < 0 ||
        PyModule_AddType(module, &WriterType) < 0 || PyModule_AddType(module, &ReaderType) < 0 ||
        PyModule_AddType(module, &SeriesType) < 0 || PyModule_AddType(module, &WindowType) < 0) {
        Py_DECREF(module);
        return NULL;
    }
    return module;
}
