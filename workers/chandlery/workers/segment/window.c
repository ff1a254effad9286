/* Window: views on the closed rows of a series. Making one is most of what a reader does between its wake-up and its
 * strategy, so it is done here in one go: one slice object for all seven columns, no argument twice in Python's hands.
 *
 * The columns are numpy's arrays, sliced by numpy; this file needs nothing of numpy's own.
 */
#include "native.h"

#include <structmember.h>

static void window_dealloc(Window *self) {
    for (int column = 0; column < COLUMN_COUNT; column++)
        Py_XDECREF(self->columns[column]);
    Py_TYPE(self)->tp_free((PyObject *)self);
}

static Py_ssize_t window_length(Window *self) {
    return (Py_ssize_t)(self->end - self->begin);
}

/* Views on [low, low + end - begin) of the doubled columns; NULL with an error set. */
Window *make_window(PyObject *const *columns, uint64_t low, uint64_t begin, uint64_t end) {
    Window *window = (Window *)WindowType.tp_alloc(&WindowType, 0);
    PyObject *from = window ? PyLong_FromUnsignedLongLong(low) : NULL;
    PyObject *to = from ? PyLong_FromUnsignedLongLong(low + end - begin) : NULL;
    PyObject *rows = to ? PySlice_New(from, to, NULL) : NULL;
    Py_XDECREF(from);
    Py_XDECREF(to);
    if (!rows) {
        Py_XDECREF(window);
        return NULL;
    }
    window->begin = begin;
    window->end = end;
    for (int column = 0; column < COLUMN_COUNT; column++)
        if (!(window->columns[column] = PyObject_GetItem(columns[column], rows))) {
            Py_CLEAR(window);
            break;
        }
    Py_DECREF(rows);
    return window;
}

#define COLUMN(name, at, doc) {name, T_OBJECT_EX, offsetof(Window, columns) + (at) * sizeof(PyObject *), READONLY, doc}

static PyMemberDef window_members[] = {
    COLUMN("open_time", 0, "int64, shape (n,), ms UTC, ascending."),
    COLUMN("open", 1, "float64, shape (n,)."),
    COLUMN("high", 2, "float64, shape (n,)."),
    COLUMN("low", 3, "float64, shape (n,)."),
    COLUMN("close", 4, "float64, shape (n,)."),
    COLUMN("volume", 5, "float64, shape (n,)."),
    COLUMN("trades", 6, "int64, shape (n,)."),
    {"begin", T_ULONGLONG, offsetof(Window, begin), READONLY, "First ordinal."},
    {"end", T_ULONGLONG, offsetof(Window, end), READONLY, "Ordinal after the last."},
    {"session", T_LONGLONG, offsetof(Window, session), READONLY, "Of the series when the window was taken."},
    {"revision", T_ULONGLONG, offsetof(Window, revision), READONLY, "Of the series when the window was taken."},
    {NULL, 0, 0, 0, NULL},
};

static PySequenceMethods window_sequence = {.sq_length = (lenfunc)window_length};

PyTypeObject WindowType = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "chandlery.workers.segment._native.Window",
    .tp_doc = "Closed rows [begin, end) of a series: read-only views into the segment, not copies.\n\n"
              "The writer may overwrite what they show; ask SeriesReader.valid() after use, before acting on it.\n"
              "The views keep the mapping alive, also after the reader is closed.",
    .tp_basicsize = sizeof(Window),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .tp_dealloc = (destructor)window_dealloc,
    .tp_members = window_members,
    .tp_as_sequence = &window_sequence,
};
