/* statx(2) without ctypes: it is made for nearly every request, and building its arguments and
 * taking its answer apart costs more than the call. Optional: libc.py does the same by ctypes. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#define FIELDS 15

static PyObject *nanoseconds(const struct statx_timestamp *time)
{
    return PyLong_FromLongLong(time->tv_sec * 1000000000LL + time->tv_nsec);
}

/* The fields in the order of fs.HostStat. */
static int fill(PyObject *status, const struct statx *found)
{
    PyObject *values[FIELDS] = {
        PyLong_FromUnsignedLongLong(makedev(found->stx_dev_major, found->stx_dev_minor)),
        PyLong_FromUnsignedLongLong(found->stx_ino),
        PyLong_FromUnsignedLongLong(found->stx_mnt_id),
        nanoseconds(&found->stx_btime),
        PyLong_FromUnsignedLong(found->stx_mode),
        PyLong_FromUnsignedLong(found->stx_nlink),
        PyLong_FromUnsignedLong(found->stx_uid),
        PyLong_FromUnsignedLong(found->stx_gid),
        PyLong_FromUnsignedLongLong(makedev(found->stx_rdev_major, found->stx_rdev_minor)),
        PyLong_FromUnsignedLongLong(found->stx_size),
        PyLong_FromUnsignedLongLong(found->stx_blocks),
        PyLong_FromUnsignedLong(found->stx_blksize),
        nanoseconds(&found->stx_atime),
        nanoseconds(&found->stx_mtime),
        nanoseconds(&found->stx_ctime),
    };
    int failed = 0;

    for (int i = 0; i < FIELDS; i++)
        if (values[i] == NULL || failed) {
            failed = 1;
            Py_XDECREF(values[i]);
        } else if (PyTuple_SetItem(status, i, values[i]) != 0) {
            failed = 1;
        }
    return failed ? -1 : 0;
}

/* statx(directory, name, flags, kind): an instance of kind, a tuple of FIELDS. */
static PyObject *call_statx(PyObject *module, PyObject *args)
{
    int directory, flags, result;
    const char *name;
    Py_ssize_t length;
    PyTypeObject *kind;
    struct statx found;

    (void)module;
    if (!PyArg_ParseTuple(args, "iy#iO!", &directory, &name, &length, &flags, &PyType_Type, &kind))
        return NULL;
    if (strlen(name) != (size_t)length) {
        PyErr_SetString(PyExc_ValueError, "a name holds a NUL byte");
        return NULL;
    }
    if (!PyType_IsSubtype(kind, &PyTuple_Type)) {
        PyErr_SetString(PyExc_TypeError, "the kind of answer is no tuple");
        return NULL;
    }
    /* What a file system does not know stays 0. */
    memset(&found, 0, sizeof found);
    Py_BEGIN_ALLOW_THREADS
    result = statx(directory, name, flags, STATX_BASIC_STATS | STATX_BTIME | STATX_MNT_ID, &found);
    Py_END_ALLOW_THREADS
    if (result != 0)
        return PyErr_SetFromErrno(PyExc_OSError);

    allocfunc allocate = (allocfunc)PyType_GetSlot(kind, Py_tp_alloc);
    PyObject *status = allocate(kind, FIELDS);
    if (status != NULL && fill(status, &found) != 0) {
        Py_DECREF(status);
        return NULL;
    }
    return status;
}

static PyMethodDef methods[] = {
    {"statx", call_statx, METH_VARARGS, "statx(2): status of a name in a directory"},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "overlayd.host._calls", NULL, 0, methods, NULL, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__calls(void)
{
    return PyModuleDef_Init(&definition);
}
