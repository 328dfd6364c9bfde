/* Requests that Python answers at once, past libfuse and pyfuse3: see _answers.h.
 *
 * What a message of the kernel holds is taken apart here, the handler for it is called, and its
 * answer is put together and written. `linux/fuse.h` is the reference for both; the kernel puts a
 * NUL behind each name, which is looked for all the same.
 */

#include "_answers.h"

#include <errno.h>
#include <linux/fuse.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>

#define OPCODES 64
#define STATUS_FIELDS 15 /* of fs.HostStat; those not read here come before `mode` */
#define NANOSECONDS 1000000000

static PyObject *handlers[OPCODES];
static PyTypeObject *caller_type;

struct request {
    struct fuse_in_header header;
    const char *argument; /* what follows the header */
    size_t size;
};

/* -- from the message to arguments ------------------------------------------------------------ */

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
    return Py_BuildValue("(K(NNNNNN)ONN)", request->header.nodeid,
                         optional(in.valid & FATTR_MODE, in.mode),
                         optional(in.valid & FATTR_UID, in.uid),
                         optional(in.valid & FATTR_GID, in.gid),
                         optional(in.valid & FATTR_SIZE, in.size),
                         optional_time(in.valid & FATTR_ATIME, in.atime, in.atimensec),
                         optional_time(in.valid & FATTR_MTIME, in.mtime, in.mtimensec), Py_None,
                         optional(in.valid & FATTR_FH, in.fh), caller_of(&request->header));
}

static PyObject *on_read(struct request *request) {
    struct fuse_read_in in;
    return take(request, &in, sizeof(in)) ? Py_BuildValue("(KKI)", in.fh, in.offset, in.size) : NULL;
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

/* What pyfuse3 would call the handler with, new; NULL where the message is not as expected. */
static PyObject *arguments_of(struct request *request) {
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
    case FUSE_FORGET:
    case FUSE_BATCH_FORGET:
        return on_forget(request, request->header.opcode == FUSE_BATCH_FORGET);
    default:
        return NULL;
    }
}

/* -- from the answer to the reply ------------------------------------------------------------- */

struct told { /* what a handler says of an object */
    double name_seconds, seconds;
    struct fuse_attr attr;
};

static void split(double seconds, uint64_t *whole, uint32_t *nanoseconds) {
    double floor_of_it = floor(seconds);
    *whole = (uint64_t)floor_of_it;
    *nanoseconds = (uint32_t)((seconds - floor_of_it) * NANOSECONDS);
}

static uint64_t number(PyObject *tuple, Py_ssize_t index) {
    PyObject *item = PyTuple_GetItem(tuple, index);
    return item == NULL ? 0 : PyLong_AsUnsignedLongLong(item);
}

static void instant(PyObject *tuple, Py_ssize_t index, uint64_t *seconds, uint32_t *nanoseconds) {
    PyObject *item = PyTuple_GetItem(tuple, index);
    long long time = item == NULL ? 0 : PyLong_AsLongLong(item);
    long long rest = time % NANOSECONDS;
    if (rest < 0) /* before 1970 */
        rest += NANOSECONDS;
    *seconds = (uint64_t)((time - rest) / NANOSECONDS);
    *nanoseconds = (uint32_t)rest;
}

/* With number 0, for what is absent, there is no status. Whether they are what they ought to be;
 * NULL for one of them is not. */
static int tell(PyObject *name_seconds, PyObject *seconds, PyObject *inode, PyObject *status,
                PyObject *size, struct told *told) {
    memset(told, 0, sizeof(*told));
    if (!name_seconds || !seconds || !inode || !status || !size)
        return 0;
    told->name_seconds = PyFloat_AsDouble(name_seconds);
    told->seconds = PyFloat_AsDouble(seconds);
    told->attr.ino = PyLong_AsUnsignedLongLong(inode);
    if (told->attr.ino == 0)
        return !PyErr_Occurred();
    if (!PyTuple_Check(status) || PyTuple_Size(status) != STATUS_FIELDS)
        return 0;
    told->attr.mode = (uint32_t)number(status, 4);
    told->attr.nlink = (uint32_t)number(status, 5);
    told->attr.uid = (uint32_t)number(status, 6);
    told->attr.gid = (uint32_t)number(status, 7);
    told->attr.rdev = (uint32_t)number(status, 8);
    told->attr.size = PyLong_AsUnsignedLongLong(size);
    told->attr.blocks = number(status, 10);
    told->attr.blksize = (uint32_t)number(status, 11);
    instant(status, 12, &told->attr.atime, &told->attr.atimensec);
    instant(status, 13, &told->attr.mtime, &told->attr.mtimensec);
    instant(status, 14, &told->attr.ctime, &told->attr.ctimensec);
    return !PyErr_Occurred();
}

/* The same from a tuple of all that, in this order. */
static int understand(PyObject *answer, struct told *told) {
    return PyTuple_Check(answer) && PyTuple_Size(answer) == 5 &&
           tell(PyTuple_GetItem(answer, 0), PyTuple_GetItem(answer, 1), PyTuple_GetItem(answer, 2),
                PyTuple_GetItem(answer, 3), PyTuple_GetItem(answer, 4), told);
}

static void as_entry(const struct told *told, struct fuse_entry_out *out) {
    out->nodeid = told->attr.ino;
    out->attr = told->attr;
    split(told->name_seconds, &out->entry_valid, &out->entry_valid_nsec);
    split(told->seconds, &out->attr_valid, &out->attr_valid_nsec);
}

static int put_entry(PyObject *answer, struct fuse_entry_out *out) {
    struct told told;
    if (!understand(answer, &told))
        return 0;
    as_entry(&told, out);
    return 1;
}

static int put_attributes(PyObject *answer, struct fuse_attr_out *out) {
    struct told told;
    if (!understand(answer, &told))
        return 0;
    out->attr = told.attr;
    split(told.seconds, &out->attr_valid, &out->attr_valid_nsec);
    return 1;
}

/* From (handle, flags), or a handle alone. */
static int put_open(PyObject *answer, struct fuse_open_out *out) {
    if (PyLong_Check(answer)) {
        out->fh = PyLong_AsUnsignedLongLong(answer);
    } else if (PyTuple_Check(answer) && PyTuple_Size(answer) == 2) {
        out->fh = number(answer, 0);
        out->open_flags = (uint32_t)number(answer, 1);
    } else {
        return 0;
    }
    return !PyErr_Occurred();
}

/* The size of the entry for *name*, which is written to `place` if there is enough room; 0 for one
 * that cannot be told of. */
static size_t put_listed(PyObject *entry, PyObject *validity, char *place, size_t room) {
    char *name;
    Py_ssize_t length;
    PyObject *attributes = PyTuple_GetItem(entry, 1);
    struct fuse_direntplus out = {0};
    struct told told;
    if (attributes == NULL || !PyTuple_Check(attributes) || PyTuple_Size(attributes) != 4 ||
        PyBytes_AsStringAndSize(PyTuple_GetItem(entry, 0), &name, &length) != 0)
        return 0;
    size_t size = FUSE_DIRENT_ALIGN(FUSE_NAME_OFFSET_DIRENTPLUS + (size_t)length);
    if (size > room)
        return size;
    if (!tell(PyTuple_GetItem(validity, 0), PyTuple_GetItem(validity, 1),
              PyTuple_GetItem(attributes, 0), PyTuple_GetItem(attributes, 1),
              PyTuple_GetItem(attributes, 2), &told))
        return 0;
    as_entry(&told, &out.entry_out);
    out.dirent.ino = told.attr.ino;
    out.dirent.off = number(entry, 2);
    out.dirent.namelen = (uint32_t)length;
    out.dirent.type = (told.attr.mode & S_IFMT) >> 12;
    memcpy(place, &out, FUSE_NAME_OFFSET_DIRENTPLUS);
    memcpy(place + FUSE_NAME_OFFSET_DIRENTPLUS, name, (size_t)length);
    memset(place + FUSE_NAME_OFFSET_DIRENTPLUS + length, 0,
           size - FUSE_NAME_OFFSET_DIRENTPLUS - (size_t)length);
    return PyErr_Occurred() ? 0 : size;
}

Py_ssize_t add_entries(PyObject *listing, size_t room, PyObject *entries, PyObject *validities) {
    Py_ssize_t count = PyList_Size(entries), taken = 0;
    size_t used = (size_t)PyByteArray_Size(listing);
    if (room < used || PyList_Size(validities) < count) {
        PyErr_SetString(PyExc_ValueError, "a reply with less room, or fewer validities");
        return -1;
    }
    if (PyByteArray_Resize(listing, (Py_ssize_t)room) != 0)
        return -1;
    for (; taken < count; taken++) {
        char *place = PyByteArray_AsString(listing) + used;
        PyObject *entry = PyList_GetItem(entries, taken);
        PyObject *validity = PyList_GetItem(validities, taken);
        if (!PyTuple_Check(entry) || !PyTuple_Check(validity)) {
            PyErr_SetString(PyExc_TypeError, "an entry or its validity is no tuple");
            break;
        }
        size_t size = put_listed(entry, validity, place, room - used);
        if (size == 0 || size > room - used)
            break;
        used += size;
    }
    if (PyByteArray_Resize(listing, (Py_ssize_t)used) != 0 || PyErr_Occurred())
        return -1;
    return taken;
}

union body {
    struct fuse_entry_out entry;
    struct fuse_attr_out attributes;
    struct fuse_open_out open;
    struct fuse_write_out written;
    struct {
        struct fuse_entry_out entry;
        struct fuse_open_out open;
    } created;
};

/* Put what a handler answered into a reply; its size, or -1 where it cannot be that. */
static Py_ssize_t put_answer(uint32_t opcode, PyObject *answer, union body *body) {
    switch (opcode) {
    case FUSE_LOOKUP:
    case FUSE_MKDIR:
        return put_entry(answer, &body->entry) ? (Py_ssize_t)sizeof(body->entry) : -1;
    case FUSE_GETATTR:
    case FUSE_SETATTR:
        return put_attributes(answer, &body->attributes) ? (Py_ssize_t)sizeof(body->attributes) : -1;
    case FUSE_OPEN:
    case FUSE_OPENDIR:
        return put_open(answer, &body->open) ? (Py_ssize_t)sizeof(body->open) : -1;
    case FUSE_CREATE:
        if (!PyTuple_Check(answer) || PyTuple_Size(answer) != 2)
            return -1;
        return put_open(PyTuple_GetItem(answer, 0), &body->created.open) &&
                       put_entry(PyTuple_GetItem(answer, 1), &body->created.entry)
                   ? (Py_ssize_t)sizeof(body->created)
                   : -1;
    case FUSE_WRITE:
        body->written.size = PyLong_Check(answer) ? (uint32_t)PyLong_AsUnsignedLong(answer) : 0;
        return PyLong_Check(answer) && !PyErr_Occurred() ? (Py_ssize_t)sizeof(body->written) : -1;
    default:
        return answer == Py_None ? 0 : -1;
    }
}

static int wants_reply(uint32_t opcode) {
    return opcode != FUSE_FORGET && opcode != FUSE_BATCH_FORGET;
}

static void reply(int fd, const struct fuse_in_header *header, int error, void *body, size_t size) {
    struct fuse_out_header out = {.unique = header->unique, .error = -error};
    struct iovec parts[2] = {{&out, sizeof(out)}, {body, error ? 0 : size}};
    if (!wants_reply(header->opcode))
        return;
    out.len = (uint32_t)(sizeof(out) + parts[1].iov_len);
    /* It fails where the request was given up: then nobody is left to be told. */
    while (writev(fd, parts, parts[1].iov_len ? 2 : 1) < 0 && errno == EINTR)
        continue;
}

static void reply_with(int fd, const struct fuse_in_header *header, PyObject *answer,
                       amend_function *amend) {
    union body body;
    Py_buffer data;
    Py_ssize_t size;
    long error = PyLong_Check(answer) ? PyLong_AsLong(answer) : 0;
    memset(&body, 0, sizeof(body));
    if (error < 0) {
        PyErr_Clear(); /* a number that is no errno: -1, which stands for EPERM */
        reply(fd, header, (int)-error, NULL, 0);
    } else if ((header->opcode == FUSE_READ || header->opcode == FUSE_READDIRPLUS) &&
               PyObject_GetBuffer(answer, &data, PyBUF_SIMPLE) == 0) {
        reply(fd, header, 0, data.buf, (size_t)data.len);
        PyBuffer_Release(&data);
    } else if ((size = put_answer(header->opcode, answer, &body)) >= 0) {
        amend(header->opcode, (char *)&body, (size_t)size);
        reply(fd, header, 0, &body, (size_t)size);
    } else {
        if (!PyErr_Occurred())
            PyErr_SetString(PyExc_TypeError, "an answer is not what the request wants");
        PyErr_WriteUnraisable(answer);
        reply(fd, header, EIO, NULL, 0);
    }
}

int answer_request(int fd, const char *message, size_t size, amend_function *amend) {
    struct request request;
    PyObject *handler, *arguments, *answer;
    if (size < sizeof(request.header))
        return 0;
    memcpy(&request.header, message, sizeof(request.header));
    request.argument = message + sizeof(request.header);
    request.size = size - sizeof(request.header);
    handler = request.header.opcode < OPCODES ? handlers[request.header.opcode] : NULL;
    if (handler == NULL)
        return 0;
    arguments = arguments_of(&request);
    if (arguments == NULL) { /* not as expected, or no memory: libfuse is to say what is wrong */
        PyErr_Clear();
        return 0;
    }
    Py_INCREF(handler); /* it may be given up while it runs */
    answer = PyObject_CallObject(handler, arguments);
    Py_DECREF(arguments);
    if (answer == NULL) {
        PyErr_WriteUnraisable(handler);
        reply(fd, &request.header, EIO, NULL, 0);
    } else if (answer != Py_NotImplemented) {
        reply_with(fd, &request.header, answer, amend);
    }
    int is_answered = answer != Py_NotImplemented;
    Py_XDECREF(answer);
    Py_DECREF(handler);
    return is_answered;
}

int have_answered(PyObject *by_opcode, PyTypeObject *type) {
    PyObject *key, *handler;
    Py_ssize_t position = 0;
    for (int i = 0; i < OPCODES; i++)
        Py_CLEAR(handlers[i]);
    Py_XDECREF((PyObject *)caller_type);
    caller_type = (PyTypeObject *)Py_NewRef((PyObject *)type);
    while (PyDict_Next(by_opcode, &position, &key, &handler)) {
        long opcode = PyLong_AsLong(key);
        if (opcode < 0 || opcode >= OPCODES) {
            if (!PyErr_Occurred())
                PyErr_SetString(PyExc_ValueError, "no such operation");
            return -1;
        }
        handlers[opcode] = Py_NewRef(handler);
    }
    return 0;
}
