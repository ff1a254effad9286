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

/* Positional arguments, as who waits in a loop gives them, without a parser: it would cost more than all else here. */
static int wait_arguments(PyObject *const *args, Py_ssize_t nargs, PyObject *keywords, PyObject **bell,
                          unsigned long long *seen, double *timeout_s) {
    static const char *const names[] = {"index", "seen", "timeout_s"};
    PyObject *bound[3] = {NULL, NULL, NULL};
    Py_ssize_t nkeywords = keywords ? PyTuple_GET_SIZE(keywords) : 0;
    if (nargs + nkeywords != 3) {
        PyErr_Format(PyExc_TypeError, "wait() takes 3 arguments, got %zd", nargs + nkeywords);
        return 0;
    }
    for (Py_ssize_t i = 0; i < nargs; i++)
        bound[i] = args[i];
    for (Py_ssize_t k = 0; k < nkeywords; k++) {
        int i = 0;
        while (i < 3 && PyUnicode_CompareWithASCIIString(PyTuple_GET_ITEM(keywords, k), names[i]) != 0)
            i++;
        if (i == 3 || bound[i]) {
            PyErr_Format(PyExc_TypeError, "wait(): no such argument, or repeated: %R", PyTuple_GET_ITEM(keywords, k));
            return 0;
        }
        bound[i] = args[nargs + k];
    }
    *bell = bound[0];
    *seen = PyLong_AsUnsignedLongLongMask(bound[1]); /* a bell has 32 bits and wraps: only these are compared */
    *timeout_s = PyFloat_AsDouble(bound[2]);
    return !PyErr_Occurred();
}

static PyObject *reader_wait(View *self, PyObject *const *args, Py_ssize_t nargs, PyObject *keywords) {
    PyObject *argument;
    unsigned long long seen;
    double timeout_s;
    if (!wait_arguments(args, nargs, keywords, &argument, &seen, &timeout_s))
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
        time_t whole_s = (time_t)capped;
        struct timespec timeout = {whole_s, (long)((capped - (double)whole_s) * 1e9)};
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

/* Asked at every wake-up, so without a Python frame. Pairs with the writer's release store, before the path changes. */
static PyObject *reader_superseded(View *self, void *Py_UNUSED(closure)) {
    if (!self->mapping)
        return fail_closed();
    return PyBool_FromLong(load_acquire(self->segment.base + HEADER_SUPERSEDED) != 0);
}

static PyGetSetDef reader_getset[] = {
    {"superseded", (getter)reader_superseded, NULL,
     "Whether another file has taken this one's place, or its writer closed it: open the path again.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMethodDef reader_methods[] = {
    {"_find", METHOD(reader_find), METH_VARARGS, "(index, epoch) of a series, or None."},
    {"bell", METHOD(reader_bell), METH_O, "A bell's value."},
    {"wait", METHOD(reader_wait), FAST, "Sleep while a bell stands at a value."},
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
    .tp_getset = reader_getset,
    .tp_methods = reader_methods,
};
