/* The arguments of handlers, taken from what the kernel has sent: see _requests.h.
 *
 * `linux/fuse.h` is the reference; the kernel puts a NUL behind each name, which is looked for all
 * the same.
 */

#include "_requests.h"

#include <string.h>

#define NANOSECONDS 1000000000

static PyTypeObject *caller_type;

/* The argument's fixed part, copied; 0 where there is less of it. */
static int take(struct request *request, void *fixed, size_t size) {
    if (request->size < size)
        return 0;
    memcpy(fixed, request->argument, size);
    request->argument += size;
    request->size -= size;
    return 1;
}

/* A name, new; NULL without an exception where there is none. */
static PyObject *take_name(struct request *request) {
    const char *end = memchr(request->argument, '\0', request->size);
    PyObject *name;
    if (end == NULL)
        return NULL;
    name = PyBytes_FromStringAndSize(request->argument, end - request->argument);
    request->size -= (size_t)(end + 1 - request->argument);
    request->argument = end + 1;
    return name;
}

static PyObject *caller_of(const struct fuse_in_header *header) {
    allocfunc allocate = (allocfunc)PyType_GetSlot(caller_type, Py_tp_alloc);
    PyObject *caller = allocate(caller_type, 3);
    uint32_t ids[3] = {header->uid, header->gid, header->pid};
    for (int i = 0; caller != NULL && i < 3; i++) {
        PyObject *id = PyLong_FromUnsignedLong(ids[i]);
        if (id == NULL || PyTuple_SetItem(caller, i, id) != 0)
            Py_CLEAR(caller);
    }
    return caller;
}

static PyObject *on_name(struct request *request) {
    return Py_BuildValue("(KNN)", request->header.nodeid, take_name(request),
                         caller_of(&request->header));
}

static PyObject *on_rename(struct request *request, int has_flags) {
    struct fuse_rename2_in in = {0};
    if (!take(request, &in, has_flags ? sizeof(in) : sizeof(struct fuse_rename_in)))
        return NULL;
    PyObject *old = take_name(request);
    PyObject *new = old == NULL ? NULL : take_name(request);
    return Py_BuildValue("(KNKNIN)", request->header.nodeid, old, in.newdir, new, in.flags,
                         caller_of(&request->header));
}

static PyObject *on_mkdir(struct request *request) {
    struct fuse_mkdir_in in;
    if (!take(request, &in, sizeof(in)))
        return NULL;
    return Py_BuildValue("(KNIN)", request->header.nodeid, take_name(request), in.mode,
                         caller_of(&request->header));
}

static PyObject *on_create(struct request *request) {
    struct fuse_create_in in;
    if (!take(request, &in, sizeof(in)))
        return NULL;
    return Py_BuildValue("(KNIIN)", request->header.nodeid, take_name(request), in.mode, in.flags,
                         caller_of(&request->header));
}

static PyObject *on_open(struct request *request, int with_flags) {
    struct fuse_open_in in;
    if (!take(request, &in, sizeof(in)))
        return NULL;
    PyObject *caller = caller_of(&request->header);
    return with_flags ? Py_BuildValue("(KIN)", request->header.nodeid, in.flags, caller)
                      : Py_BuildValue("(KN)", request->header.nodeid, caller);
}

static PyObject *on_handle(struct request *request) {
    struct fuse_release_in in;
    return take(request, &in, sizeof(in)) ? Py_BuildValue("(K)", in.fh) : NULL;
}

static PyObject *optional(int is_given, unsigned long long value) {
    return is_given ? PyLong_FromUnsignedLongLong(value) : Py_NewRef(Py_None);
}

static PyObject *optional_time(int is_given, uint64_t seconds, uint32_t nanoseconds) {
    return is_given ? PyLong_FromLongLong((long long)seconds * NANOSECONDS + nanoseconds)
                    : Py_NewRef(Py_None);
}

/* The changes in the order of core's Changes. */
static PyObject *on_setattr(struct request *request) {
    struct fuse_setattr_in in;
    if (!take(request, &in, sizeof(in)))
        return NULL;
    if ((in.valid & FATTR_ATIME_NOW && !(in.valid & FATTR_ATIME)) ||
        (in.valid & FATTR_MTIME_NOW && !(in.valid & FATTR_MTIME)))
        return NULL; /* no kernel asks so: it says what time it is */
    return Py_BuildValue(
        "(K(NNNNNN)ONN)", request->header.nodeid, optional(in.valid & FATTR_MODE, in.mode),
        optional(in.valid & FATTR_UID, in.uid), optional(in.valid & FATTR_GID, in.gid),
        optional(in.valid & FATTR_SIZE, in.size),
        optional_time(in.valid & FATTR_ATIME, in.atime, in.atimensec),
        optional_time(in.valid & FATTR_MTIME, in.mtime, in.mtimensec), Py_None,
        optional(in.valid & FATTR_FH, in.fh), caller_of(&request->header));
}

static PyObject *on_read(struct request *request) {
    struct fuse_read_in in;
    return take(request, &in, sizeof(in)) ? Py_BuildValue("(KKI)", in.fh, in.offset, in.size)
                                          : NULL;
}

static PyObject *on_fsync(struct request *request) {
    struct fuse_fsync_in in;
    if (!take(request, &in, sizeof(in)))
        return NULL;
    return Py_BuildValue("(KN)", in.fh, PyBool_FromLong(in.fsync_flags & FUSE_FSYNC_FDATASYNC));
}

static PyObject *on_getxattr(struct request *request) {
    struct fuse_getxattr_in in;
    return take(request, &in, sizeof(in)) ? on_name(request) : NULL;
}

static PyObject *on_write(struct request *request) {
    struct fuse_write_in in;
    if (!take(request, &in, sizeof(in)) || in.size > request->size)
        return NULL;
    return Py_BuildValue("(KKy#)", in.fh, in.offset, request->argument, (Py_ssize_t)in.size);
}

static PyObject *on_forget(struct request *request, int batch) {
    struct fuse_batch_forget_in in = {.count = 1};
    struct fuse_forget_one one = {.nodeid = request->header.nodeid};
    if (batch ? !take(request, &in, sizeof(in)) : !take(request, &one.nlookup, sizeof(one.nlookup)))
        return NULL;
    PyObject *all = PyList_New(0);
    for (uint32_t i = 0; all != NULL && i < in.count; i++) {
        if (batch && !take(request, &one, sizeof(one)))
            break;
        PyObject *entry = Py_BuildValue("(KK)", one.nodeid, one.nlookup);
        if (entry == NULL || PyList_Append(all, entry) != 0)
            Py_CLEAR(all);
        Py_XDECREF(entry);
    }
    return all == NULL ? NULL : Py_BuildValue("(N)", all);
}

PyObject *arguments_of(struct request *request) {
    switch (request->header.opcode) {
    case FUSE_LOOKUP:
    case FUSE_UNLINK:
    case FUSE_RMDIR:
        return on_name(request);
    case FUSE_GETATTR:
        return Py_BuildValue("(KO)", request->header.nodeid, Py_None);
    case FUSE_MKDIR:
        return on_mkdir(request);
    case FUSE_RENAME:
    case FUSE_RENAME2:
        return on_rename(request, request->header.opcode == FUSE_RENAME2);
    case FUSE_CREATE:
        return on_create(request);
    case FUSE_OPEN:
    case FUSE_OPENDIR:
        return on_open(request, request->header.opcode == FUSE_OPEN);
    case FUSE_RELEASE:
    case FUSE_RELEASEDIR:
        return on_handle(request);
    case FUSE_SETATTR:
        return on_setattr(request);
    case FUSE_READ:
    case FUSE_READDIRPLUS:
        return on_read(request);
    case FUSE_WRITE:
        return on_write(request);
    case FUSE_FSYNC:
    case FUSE_FSYNCDIR:
        return on_fsync(request);
    case FUSE_GETXATTR:
        return on_getxattr(request);
    case FUSE_FORGET:
    case FUSE_BATCH_FORGET:
        return on_forget(request, request->header.opcode == FUSE_BATCH_FORGET);
    default:
        return NULL;
    }
}

int is_request(struct request *request, const char *message, size_t size) {
    if (size < sizeof(request->header))
        return 0;
    memcpy(&request->header, message, sizeof(request->header));
    request->message = request->argument = message + sizeof(request->header);
    request->size = size - sizeof(request->header);
    return 1;
}

void use_caller_type(PyTypeObject *type) {
    Py_XDECREF((PyObject *)caller_type);
    caller_type = (PyTypeObject *)Py_NewRef((PyObject *)type);
}
