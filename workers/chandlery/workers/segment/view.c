/* What Writer, Reader and Series share: a mapping and where things lie in it; arguments from Python. */
#include "native.h"

int view_attach(View *self, PyObject *mapping, const unsigned long long *numbers, int to_write) {
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
    if (to_write) {
        uint8_t *changes = PyMem_Calloc(geometry.series, 1);
        if (!changes) {
            PyErr_NoMemory();
            return -1;
        }
        PyMem_Free(self->changes);
        self->changes = changes;
    }
    self->segment = (Segment){map->base, geometry};
    Py_XSETREF(self->mapping, (Mapping *)Py_NewRef(mapping));
    return 0;
}

int view_init(View *self, PyObject *args, int to_write) {
    PyObject *mapping;
    unsigned long long n[5];
    if (!PyArg_ParseTuple(args, "O!(KKKKK)", &MappingType, &mapping, &n[0], &n[1], &n[2], &n[3], &n[4]))
        return -1;
    return view_attach(self, mapping, n, to_write);
}

void view_dealloc(View *self) {
    PyMem_Free(self->changes);
    Py_CLEAR(self->mapping);
    Py_TYPE(self)->tp_free((PyObject *)self);
}

PyObject *view_release(View *self, PyObject *Py_UNUSED(ignored)) {
    Py_CLEAR(self->mapping);
    Py_RETURN_NONE;
}

int64_t bell_index(const View *self, PyObject *argument) {
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

int as_name(PyObject *symbol, PyObject *interval, Name *name) {
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

PyObject *stamps_tuple(const int64_t *stamps) {
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
