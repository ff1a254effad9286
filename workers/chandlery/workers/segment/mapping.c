/* Mapping: a file in memory, for Python; words of it by atomics, and its bytes as a buffer. */
#include "native.h"

#include <sys/mman.h>

#ifndef MADV_POPULATE_READ /* Linux 5.14; older kernels answer EINVAL, and pages come when touched */
#define MADV_POPULATE_READ 22
#define MADV_POPULATE_WRITE 23
#endif

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
    if (self->base) {
        /* Who unmaps a file last frees it, 0.5 ms a MB, which a thread may do while others go on. */
        Py_BEGIN_ALLOW_THREADS
        munmap(self->base, (size_t)self->length);
        Py_END_ALLOW_THREADS
    }
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

void populate(const Mapping *self, Py_ssize_t offset, Py_ssize_t length) {
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

/* For what is hardly used any more: unmapping it all at once takes 0.5 us a page. The file keeps what it holds, and
 * who reads or writes it again has it mapped again. Whole pages within the range; best effort. */
static PyObject *mapping_depopulate(Mapping *self, PyObject *const *args, Py_ssize_t nargs) {
    if (nargs != 2)
        return PyErr_Format(PyExc_TypeError, "depopulate() takes an offset and a length");
    Py_ssize_t offset = PyLong_AsSsize_t(args[0]), length = PyLong_AsSsize_t(args[1]);
    if (PyErr_Occurred() || !within(self, offset, length))
        return NULL;
    Py_ssize_t page = sysconf(_SC_PAGESIZE), begin = (offset + page - 1) / page * page;
    Py_ssize_t end = (offset + length) / page * page;
    if (begin < end)
        madvise(self->base + begin, (size_t)(end - begin), MADV_DONTNEED);
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
    {"depopulate", (PyCFunction)(void (*)(void))mapping_depopulate, METH_FASTCALL, "Let a range's pages go for now."},
    {NULL, NULL, 0, NULL},
};

static PyBufferProcs mapping_buffer = {.bf_getbuffer = (getbufferproc)mapping_getbuffer};
static PySequenceMethods mapping_sequence = {.sq_length = (lenfunc)mapping_length};

PyTypeObject MappingType = {
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
