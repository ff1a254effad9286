/* Reader: looking series up, and waiting for a bell. */
#include "native.h"

#include <math.h>

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

PyTypeObject ReaderType = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "chandlery.workers.segment._native.Reader",
    .tp_doc = "A reader's side of a mapped segment.",
    .tp_basicsize = sizeof(View),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
    .tp_new = PyType_GenericNew,
    .tp_init = (initproc)reader_init,
    .tp_dealloc = (destructor)view_dealloc,
    .tp_methods = reader_methods,
};
