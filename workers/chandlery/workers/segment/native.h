/* What the files of the extension share. Atomics are in access.h alone, what is made of them in protocol.h.
 *
 * Ownership: a Mapping unmaps its file when the last reference goes; Writer, Reader and Series hold one, and so
 * does every numpy array built on a Mapping's buffer. Nothing here hands out a bare address. Every offset and
 * index that comes from Python or from the file is checked against the mapped size before it is used.
 */
#ifndef CHANDLERY_SEGMENT_NATIVE_H
#define CHANDLERY_SEGMENT_NATIVE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "layout.h"
#include "protocol.h"

#define FAST (METH_FASTCALL | METH_KEYWORDS)
#define METHOD(function) ((PyCFunction)(void (*)(void))(function))

/* ---- _native.c ---- */

/* chandlery.core.errors.SegmentError. */
extern PyObject *SegmentError;

/* Sets a SegmentError; NULL. */
PyObject *fail(const char *format, ...);
PyObject *fail_closed(void);

/* ---- mapping.c ---- */

typedef struct {
    PyObject_HEAD
    uint8_t *base;
    Py_ssize_t length;
    int writable;
} Mapping;

extern PyTypeObject MappingType;

/* Faults the pages of a range in now, so that the first touch later costs nothing. Best effort. */
void populate(const Mapping *self, Py_ssize_t offset, Py_ssize_t length);

/* ---- view.c ---- */

typedef struct {
    PyObject_HEAD
    Mapping *mapping; /* NULL once closed */
    Segment segment;
    uint8_t *changes; /* of a writer: what it has changed of each series since somebody took note; else NULL */
} View;

/* Values of `changes`. Whose rows have changed, its record has too, whether or not that is said. */
enum { RECORD_CHANGED = 1, ROWS_CHANGED = 2 };

/* Takes rows, guard_rows, series, bells, stamp_rows; checks that what they mean fits the mapping. */
int view_attach(View *self, PyObject *mapping, const unsigned long long *numbers, int to_write);
int view_init(View *self, PyObject *args, int to_write);
void view_dealloc(View *self);
PyObject *view_release(View *self, PyObject *unused);

/* A bell's index, or -1 with an error set. */
int64_t bell_index(const View *self, PyObject *argument);
int as_name(PyObject *symbol, PyObject *interval, Name *name);
PyObject *stamps_tuple(const int64_t *stamps);

/* ---- window.c ---- */

typedef struct {
    PyObject_HEAD
    PyObject *columns[COLUMN_COUNT];
    uint64_t begin, end, revision;
    int64_t session;
} Window;

extern PyTypeObject WindowType;

/* Views on [low, low + end - begin) of the doubled columns; NULL with an error set. Session and revision are 0. */
Window *make_window(PyObject *const *columns, uint64_t low, uint64_t begin, uint64_t end);

/* ---- writer.c, reader.c, series.c ---- */

extern PyTypeObject WriterType, ReaderType, SeriesType;
int intern_argument_names(void);

#endif
