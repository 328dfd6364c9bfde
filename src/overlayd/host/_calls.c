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
/* So many are asked between letting go of the interpreter and taking it again. */
#define AT_ONCE 32

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

/* What a file system does not know stays 0. */
static int ask(int directory, const char *name, int flags, struct statx *found)
{
    memset(found, 0, sizeof *found);
    return statx(directory, name, flags, STATX_BASIC_STATS | STATX_BTIME | STATX_MNT_ID, found);
}

static int is_kind_of_status(PyTypeObject *kind)
{
    if (PyType_IsSubtype(kind, &PyTuple_Type))
        return 1;
    PyErr_SetString(PyExc_TypeError, "the kind of answer is no tuple");
    return 0;
}

/* An instance of kind, a tuple of FIELDS. */
static PyObject *make_status(PyTypeObject *kind, const struct statx *found)
{
    allocfunc allocate = (allocfunc)PyType_GetSlot(kind, Py_tp_alloc);
    PyObject *status = allocate(kind, FIELDS);

    if (status != NULL && fill(status, found) != 0) {
        Py_DECREF(status);
        return NULL;
    }
    return status;
}

/* statx(directory, name, flags, kind): an instance of kind. */
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
    if (!is_kind_of_status(kind))
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    result = ask(directory, name, flags, &found);
    Py_END_ALLOW_THREADS
    return result == 0 ? make_status(kind, &found) : PyErr_SetFromErrno(PyExc_OSError);
}

/* Ask for count of names, from first on, and put an answer for each into answers. */
static int ask_some(int directory, PyObject *names, Py_ssize_t first, Py_ssize_t count, int flags,
                    PyTypeObject *kind, PyObject *answers)
{
    char *texts[AT_ONCE];
    struct statx found[AT_ONCE];
    int results[AT_ONCE];

    for (Py_ssize_t i = 0; i < count; i++)
        if (PyBytes_AsStringAndSize(PyTuple_GetItem(names, first + i), &texts[i], NULL) != 0)
            return -1;
    Py_BEGIN_ALLOW_THREADS
    for (Py_ssize_t i = 0; i < count; i++)
        results[i] = ask(directory, texts[i], flags, &found[i]);
    Py_END_ALLOW_THREADS
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *answer = results[i] == 0 ? make_status(kind, &found[i]) : Py_NewRef(Py_None);

        if (answer == NULL || PyList_SetItem(answers, first + i, answer) != 0)
            return -1;
    }
    return 0;
}

/* statx_many(directory, names, flags, kind): a list of an instance of kind for each name in a list,
 * None where the call failed. */
static PyObject *call_statx_many(PyObject *module, PyObject *args)
{
    int directory, flags;
    PyObject *list, *names, *answers;
    PyTypeObject *kind;

    (void)module;
    if (!PyArg_ParseTuple(args, "iO!iO!", &directory, &PyList_Type, &list, &flags, &PyType_Type,
                          &kind))
        return NULL;
    if (!is_kind_of_status(kind) || (names = PyList_AsTuple(list)) == NULL)
        return NULL; /* A tuple keeps its names, whatever other threads do to the list. */
    Py_ssize_t total = PyTuple_Size(names);
    answers = PyList_New(total);
    for (Py_ssize_t first = 0; answers != NULL && first < total; first += AT_ONCE) {
        Py_ssize_t count = total - first < AT_ONCE ? total - first : AT_ONCE;

        if (ask_some(directory, names, first, count, flags, kind, answers) != 0)
            Py_CLEAR(answers);
    }
    Py_DECREF(names);
    return answers;
}

static PyMethodDef methods[] = {
    {"statx", call_statx, METH_VARARGS, "statx(2): status of a name in a directory"},
    {"statx_many", call_statx_many, METH_VARARGS, "the same for each of a list of names"},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "overlayd.host._calls", NULL, 0, methods, NULL, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__calls(void)
{
    return PyModuleDef_Init(&definition);
}
