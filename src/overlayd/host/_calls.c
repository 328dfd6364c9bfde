/* Calls that requests make again and again, without ctypes: building their arguments and taking
 * their answers apart costs more than they do. Optional: fs.py and credentials.py do without. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

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

static int is_kind_of_status(PyObject *kind)
{
    if (PyType_Check(kind) && PyType_IsSubtype((PyTypeObject *)kind, &PyTuple_Type))
        return 1;
    PyErr_SetString(PyExc_TypeError, "the kind of answer is no tuple");
    return 0;
}

static int is_count(Py_ssize_t given, Py_ssize_t wanted)
{
    if (given == wanted)
        return 1;
    PyErr_Format(PyExc_TypeError, "%zd arguments instead of %zd", given, wanted);
    return 0;
}

static int to_int(PyObject *number, int *value)
{
    long wide = PyLong_AsLong(number);

    if (wide == -1 && PyErr_Occurred())
        return -1;
    if (wide < INT_MIN || wide > INT_MAX) {
        PyErr_SetString(PyExc_OverflowError, "a number is larger than an int");
        return -1;
    }
    *value = (int)wide;
    return 0;
}

/* An instance of kind, a tuple of FIELDS. */
static PyObject *make_status(PyObject *kind, const struct statx *found)
{
    allocfunc allocate = (allocfunc)PyType_GetSlot((PyTypeObject *)kind, Py_tp_alloc);
    PyObject *status = allocate((PyTypeObject *)kind, FIELDS);

    if (status != NULL && fill(status, found) != 0) {
        Py_DECREF(status);
        return NULL;
    }
    return status;
}

/* statx(directory, name, flags, kind): an instance of kind. */
static PyObject *call_statx(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    int directory, flags, result;
    char *name;
    struct statx found;

    (void)module;
    if (!is_count(count, 4) || to_int(args[0], &directory) != 0 ||
        PyBytes_AsStringAndSize(args[1], &name, NULL) != 0 || to_int(args[2], &flags) != 0 ||
        !is_kind_of_status(args[3]))
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    result = ask(directory, name, flags, &found);
    Py_END_ALLOW_THREADS
    return result == 0 ? make_status(args[3], &found) : PyErr_SetFromErrno(PyExc_OSError);
}

static PyObject *pair(int number, PyObject *status)
{
    PyObject *held = status != NULL ? Py_BuildValue("(iN)", number, status) : NULL;

    if (held == NULL)
        close(number);
    return held;
}

/* hold(directory, name, kind): an O_PATH descriptor, and of what it is an instance of kind. */
static PyObject *call_hold(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    int directory, number, error = 0;
    char *name;
    struct statx found;

    (void)module;
    if (!is_count(count, 3) || to_int(args[0], &directory) != 0 ||
        PyBytes_AsStringAndSize(args[1], &name, NULL) != 0 || !is_kind_of_status(args[2]))
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    number = openat(directory, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (number < 0) {
        error = errno;
    } else if (ask(number, "", AT_EMPTY_PATH | AT_NO_AUTOMOUNT | AT_STATX_DONT_SYNC, &found) != 0) {
        error = errno;
        close(number);
    }
    Py_END_ALLOW_THREADS
    if (error != 0) {
        errno = error;
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    return pair(number, make_status(args[2], &found));
}

/* Ask for count of names, from first on, and put an answer for each into answers. */
static int ask_some(int directory, PyObject *names, Py_ssize_t first, Py_ssize_t count, int flags,
                    PyObject *kind, PyObject *answers)
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
static PyObject *call_statx_many(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    int directory, flags;
    PyObject *names, *answers, *kind;

    (void)module;
    if (!is_count(count, 4) || to_int(args[0], &directory) != 0 || to_int(args[2], &flags) != 0 ||
        !is_kind_of_status(kind = args[3]))
        return NULL;
    if (!PyList_Check(args[1])) {
        PyErr_SetString(PyExc_TypeError, "the names are no list");
        return NULL;
    }
    if ((names = PyList_AsTuple(args[1])) == NULL)
        return NULL; /* A tuple keeps its names, whatever other threads do to the list. */
    Py_ssize_t total = PyTuple_Size(names);
    answers = PyList_New(total);
    for (Py_ssize_t first = 0; answers != NULL && first < total; first += AT_ONCE) {
        Py_ssize_t some = total - first < AT_ONCE ? total - first : AT_ONCE;

        if (ask_some(directory, names, first, some, flags, kind, answers) != 0)
            Py_CLEAR(answers);
    }
    Py_DECREF(names);
    return answers;
}

static int to_id(PyObject *number, unsigned int *value)
{
    unsigned long wide = PyLong_AsUnsignedLong(number);

    if (wide == (unsigned long)-1 && PyErr_Occurred())
        return -1;
    if (wide > UINT_MAX) {
        PyErr_SetString(PyExc_OverflowError, "an id is larger than 32 bits");
        return -1;
    }
    *value = (unsigned int)wide;
    return 0;
}

/* The errno of giving this thread all groups in a tuple, 0 for success; -1 with an exception set.
 * By the system call: what libc has of that name changes every thread. */
static int set_groups(PyObject *groups)
{
    Py_ssize_t count = PyTuple_Size(groups);
    unsigned int *ids = count >= 0 ? PyMem_Calloc(count > 0 ? count : 1, sizeof *ids) : NULL;
    int error = 0;

    if (ids == NULL) {
        if (!PyErr_Occurred())
            PyErr_NoMemory();
        return -1;
    }
    for (Py_ssize_t i = 0; i < count && error == 0; i++)
        error = to_id(PyTuple_GetItem(groups, i), &ids[i]);
    if (error == 0 && syscall(SYS_setgroups, (size_t)count, ids) != 0)
        error = errno;
    PyMem_Free(ids);
    return error;
}

/* take_on(uid, gid, groups): this thread's file system ids, and its groups unless None. All that
 * can be set is, before it is told that something could not. */
static PyObject *call_take_on(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    unsigned int uid, gid;
    int error = 0;

    (void)module;
    if (!is_count(count, 3) || to_id(args[0], &uid) != 0 || to_id(args[1], &gid) != 0 ||
        (args[2] != Py_None && (error = set_groups(args[2])) < 0))
        return NULL;
    setfsgid(gid);
    setfsuid(uid);
    /* An id that never is valid leaves things alone and reads them. */
    if ((unsigned int)setfsuid(-1) != uid || (unsigned int)setfsgid(-1) != gid)
        error = error != 0 ? error : EPERM;
    if (error == 0)
        Py_RETURN_NONE;
    errno = error;
    return PyErr_SetFromErrno(PyExc_OSError);
}

/* By way of another pointer: a function of three arguments is meant. */
#define CALL(function) ((PyCFunction)(void (*)(void))(function))

static PyMethodDef methods[] = {
    {"statx", CALL(call_statx), METH_FASTCALL, "statx(2): status of a name in a directory"},
    {"statx_many", CALL(call_statx_many), METH_FASTCALL, "the same for each of a list of names"},
    {"hold", CALL(call_hold), METH_FASTCALL, "openat(2) with O_PATH, and statx(2) of that"},
    {"take_on", CALL(call_take_on), METH_FASTCALL, "setgroups(2), setfsgid(2) and setfsuid(2)"},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "overlayd.host._calls", NULL, 0, methods, NULL, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__calls(void)
{
    return PyModuleDef_Init(&definition);
}
