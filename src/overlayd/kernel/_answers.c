/* Requests that Python answers at once, past libfuse and pyfuse3: see _answers.h.
 *
 * The handler for a request is called, and its answer is put together and written, as
 * `linux/fuse.h` has it.
 */

#include "_answers.h"
#include "_moves.h"
#include "_requests.h"

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
static PyObject *take_note; /* called with what was answered without a handler */

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
        return put_attributes(answer, &body->attributes) ? (Py_ssize_t)sizeof(body->attributes)
                                                         : -1;
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

void send_reply(int fd, uint64_t unique, int error, const void *body, size_t size) {
    struct fuse_out_header out = {.unique = unique, .error = -error};
    struct iovec parts[2] = {{&out, sizeof(out)}, {(void *)body, error ? 0 : size}};
    out.len = (uint32_t)(sizeof(out) + parts[1].iov_len);
    /* It fails where the request was given up: then nobody is left to be told. */
    while (writev(fd, parts, parts[1].iov_len ? 2 : 1) < 0 && errno == EINTR)
        continue;
}

static void reply(int fd, const struct fuse_in_header *header, int error, void *body, size_t size) {
    if (wants_reply(header->opcode))
        send_reply(fd, header->unique, error, body, size);
}

static int is_of_bytes(uint32_t opcode) {
    return opcode == FUSE_READ || opcode == FUSE_READDIRPLUS || opcode == FUSE_GETXATTR;
}

static void reply_with_bytes(int fd, const struct request *request, const Py_buffer *data) {
    struct fuse_getxattr_in in;
    struct fuse_getxattr_out out = {.size = (uint32_t)data->len};
    if (request->header.opcode != FUSE_GETXATTR) {
        reply(fd, &request->header, 0, data->buf, (size_t)data->len);
        return;
    }
    memcpy(&in, request->message, sizeof(in));
    if (in.size == 0) /* which asks how much there is */
        reply(fd, &request->header, 0, &out, sizeof(out));
    else
        reply(fd, &request->header, in.size < out.size ? ERANGE : 0, data->buf, out.size);
}

static int is_source(uint32_t opcode, PyObject *answer) {
    return (opcode == FUSE_READ || opcode == FUSE_FSYNC || opcode == FUSE_FSYNCDIR) &&
           PyTuple_Check(answer);
}

/* Whether `answer` is what the request wants. */
static int reply_as_told(int fd, const struct request *request, PyObject *answer,
                         amend_function *amend) {
    const struct fuse_in_header *header = &request->header;
    union body body;
    Py_buffer data;
    Py_ssize_t size;
    memset(&body, 0, sizeof(body));
    if (is_source(header->opcode, answer))
        return move(header, request->message, answer) == 0;
    if (is_of_bytes(header->opcode)) {
        if (PyObject_GetBuffer(answer, &data, PyBUF_SIMPLE) != 0)
            return 0;
        reply_with_bytes(fd, request, &data);
        PyBuffer_Release(&data);
        return 1;
    }
    if ((size = put_answer(header->opcode, answer, &body)) < 0)
        return 0;
    amend(header->opcode, (char *)&body, (size_t)size);
    reply(fd, header, 0, &body, (size_t)size);
    return 1;
}

static void reply_with(int fd, const struct request *request, PyObject *answer,
                       amend_function *amend) {
    long error = PyLong_Check(answer) ? PyLong_AsLong(answer) : 0;
    if (error < 0) {
        PyErr_Clear(); /* a number that is no errno: -1, which stands for EPERM */
        reply(fd, &request->header, (int)-error, NULL, 0);
    } else if (!reply_as_told(fd, request, answer, amend)) {
        if (!PyErr_Occurred())
            PyErr_SetString(PyExc_TypeError, "an answer is not what the request wants");
        PyErr_WriteUnraisable(answer);
        reply(fd, &request->header, EIO, NULL, 0);
    }
}

void tell_moved(int with_open) {
    PyObject *told = NULL, *all = moved(with_open);
    if (all != NULL && take_note != NULL)
        told = PyObject_CallFunctionObjArgs(take_note, all, NULL);
    if (PyErr_Occurred())
        PyErr_WriteUnraisable(take_note);
    Py_XDECREF(told);
    Py_XDECREF(all);
}

/* Whether the handler need not be called. */
static int is_answered_already(const struct request *request) {
    struct fuse_release_in in;
    if (request->header.opcode == FUSE_READ && request->size >= sizeof(struct fuse_read_in))
        return move_as_before(&request->header, request->message);
    if (request->header.opcode == FUSE_RELEASE && request->size >= sizeof(in)) {
        memcpy(&in, request->message, sizeof(in));
        forget_source(in.fh);
    }
    tell_moved(0); /* before the handler, which takes what was read through a handle together */
    return 0;
}

static int ask_handler(int fd, struct request *request, PyObject *handler, amend_function *amend) {
    PyObject *arguments = arguments_of(request);
    if (arguments == NULL) { /* not as expected, or no memory: libfuse is to say what is wrong */
        PyErr_Clear();
        return 0;
    }
    Py_INCREF(handler); /* it may be given up while it runs */
    PyObject *answer = PyObject_CallObject(handler, arguments);
    Py_DECREF(arguments);
    if (answer == NULL) {
        PyErr_WriteUnraisable(handler);
        reply(fd, &request->header, EIO, NULL, 0);
    } else if (answer != Py_NotImplemented) {
        reply_with(fd, request, answer, amend);
    }
    int is_answered = answer != Py_NotImplemented;
    Py_XDECREF(answer);
    Py_DECREF(handler);
    return is_answered;
}

int answer_request(int fd, const char *message, size_t size, amend_function *amend) {
    struct request request;
    if (!is_request(&request, message, size) || request.header.opcode >= OPCODES)
        return 0;
    if (request.header.opcode == FUSE_INTERRUPT)
        return 1; /* none of ours can be; libfuse would ask the kernel to say so again */
    PyObject *handler = handlers[request.header.opcode];
    if (handler == NULL)
        return 0;
    return is_answered_already(&request) || ask_handler(fd, &request, handler, amend);
}

int have_answered(PyObject *by_opcode, PyTypeObject *type, PyObject *note) {
    PyObject *key, *handler;
    Py_ssize_t position = 0;
    for (int i = 0; i < OPCODES; i++)
        Py_CLEAR(handlers[i]);
    use_caller_type(type);
    Py_XDECREF(take_note);
    take_note = Py_NewRef(note);
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
