/* What libfuse and pyfuse3 do not know is set here, in replies on their way to the kernel.
 *
 * This module is loaded with RTLD_GLOBAL before pyfuse3, so that pyfuse3's call of
 * fuse_session_mount comes here. It calls libfuse's own and then has the session read and write
 * through the two hooks below (fuse_session_custom_io, libfuse 3.14). The read hook notes which
 * requests are INIT, OPEN, OPENDIR and CREATE; the write hook amends the replies to those. All
 * else passes untouched, and so do errors and notifications.
 *
 * Requests that Python answers at once (_answers.h) are not passed on at all: the read hook reads
 * one after the other, as long as they come.
 *
 * No memory is allocated. Both tables are short arrays without order: they hold requests that
 * are being answered at the moment. A table that is full means replies that are not amended,
 * which every caller has to reckon with anyway. Guests have no say in any length that is used
 * here: what counts is what read(2) returned and what libfuse is about to send.
 */

#include "_answers.h"
#include "_moves.h"

#define FUSE_USE_VERSION 35
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <linux/fuse.h>
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define MAX_REQUESTS 1024 /* the daemon answers 256 at once */
#define MAX_AMENDMENTS 1024
#define PAUSES 16 /* some 0.3 us */

/* From newer kernel headers than those that this may be built with. */
#define OPEN_KEEP_CACHE (1u << 1)
#define OPEN_PASSTHROUGH (1u << 7)
#define WRITE_CLEARS_SET_ID (1u << 2)
#define INIT_EXTENDED (1u << 30)
#define INIT_STACK_DEPTH 36 /* where in fuse_init_out; `flags2` lies just before it */
#define INIT_FLAGS2 32

struct amendment {
    uint64_t handle;
    uint32_t flags;
    int32_t backing; /* 0 for none */
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* notifications come from any thread */
static uint64_t requests[MAX_REQUESTS]; /* `unique` of those whose replies are looked at */
static uint32_t opcodes[MAX_REQUESTS];
static size_t request_count;
static struct amendment amendments[MAX_AMENDMENTS];
static size_t amendment_count;

static uint64_t wanted, offered, granted; /* INIT flags, the second word of them above 32 bits */
static uint32_t stack_depth;
static unsigned long long answered; /* requests that libfuse did not see */
static unsigned long long amended;  /* replies to OPEN, OPENDIR and CREATE */
static int clears_set_id; /* whether the last request is a write that set-id bits do not survive */
static int session_fd = -1;

static int answers;              /* whether the read hook has requests answered */
static long long patience, turn; /* nanoseconds, for the read that comes next */
static int found_nothing;        /* whether the last one did not find any */
static const char *trouble = "nothing is mounted";

/* -- the tables ------------------------------------------------------------------------------- */

static void note_request(uint64_t unique, uint32_t opcode) {
    if (request_count < MAX_REQUESTS) {
        requests[request_count] = unique;
        opcodes[request_count++] = opcode;
    }
}

/* The opcode of a noted request, which is noted no longer; 0 for all others. */
static uint32_t take_request(uint64_t unique) {
    for (size_t i = 0; i < request_count; i++) {
        if (requests[i] == unique) {
            uint32_t opcode = opcodes[i];
            requests[i] = requests[--request_count];
            opcodes[i] = opcodes[request_count];
            return opcode;
        }
    }
    return 0;
}

static int take_amendment(uint64_t handle, struct amendment *found) {
    for (size_t i = 0; i < amendment_count; i++) {
        if (amendments[i].handle == handle) {
            *found = amendments[i];
            amendments[i] = amendments[--amendment_count];
            return 1;
        }
    }
    return 0;
}

/* -- requests --------------------------------------------------------------------------------- */

/* INIT's flags; `size` bytes are there behind the header. */
static uint64_t flags_offered(const char *argument, size_t size) {
    uint32_t words[5] = {0}; /* major, minor, max_readahead, flags, flags2 */
    memcpy(words, argument, size < sizeof(words) ? size : sizeof(words));
    uint64_t flags = words[3];
    return flags & INIT_EXTENDED ? flags | (uint64_t)words[4] << 32 : flags;
}

static int is_clearing(const char *message, size_t size) {
    struct fuse_in_header header;
    struct fuse_write_in write;
    if (size < sizeof(header) + sizeof(write))
        return 0;
    memcpy(&header, message, sizeof(header));
    memcpy(&write, message + sizeof(header), sizeof(write));
    return header.opcode == FUSE_WRITE && (write.write_flags & WRITE_CLEARS_SET_ID) != 0;
}

static void look_at_request(const char *message, size_t size) {
    struct fuse_in_header header;
    if (size < sizeof(header))
        return; /* libfuse complains of it */
    memcpy(&header, message, sizeof(header));
    switch (header.opcode) {
    case FUSE_INIT:
        offered = flags_offered(message + sizeof(header), size - sizeof(header));
        granted = 0;
        /* fall through */
    case FUSE_OPEN:
    case FUSE_OPENDIR:
    case FUSE_CREATE:
        note_request(header.unique, header.opcode);
    }
}

/* Leave the processor to its other thread for a moment, which may be the one that is waited for. */
static void relax(void) {
    for (int i = 0; i < PAUSES; i++) {
#if defined(__x86_64__) || defined(__i386__)
        __builtin_ia32_pause();
#elif defined(__aarch64__)
        __asm__ __volatile__("yield");
#endif
    }
}

/* read(2), tried again for as long as `patience` wants, or something is expected for a reply. */
static ssize_t read_soon(int fd, void *buffer, size_t size) {
    ssize_t got = read(fd, buffer, size);
    int error = errno, expects = look_again();
    errno = error;
    if (got >= 0 || error != EAGAIN || (patience == 0 && !expects))
        return got;
    Py_BEGIN_ALLOW_THREADS long long end = nanoseconds() + patience;
    while ((got = read(fd, buffer, size)) < 0 && errno == EAGAIN &&
           (expects || nanoseconds() < end)) {
        relax();
        if (expects && !(expects = look_again())) /* who has waited for it will ask for more */
            end = nanoseconds() + patience;
    }
    Py_END_ALLOW_THREADS return got;
}

static void amend_ours(uint32_t opcode, char *reply, size_t size);

/* The next request that libfuse has to see. EINTR, on which pyfuse3 comes back after a turn of its
 * loop: none came for some time, the turn is over, or (the first time) the mount is gone. */
static ssize_t read_and_answer(int fd, void *buffer, size_t size) {
    long long end = nanoseconds() + turn;
    do {
        ssize_t got = read_soon(fd, buffer, size);
        if (got < 0) {
            if (errno == EAGAIN || !found_nothing)
                errno = EINTR;
            found_nothing = 1;
            return -1;
        }
        found_nothing = 0;
        clears_set_id = is_clearing(buffer, (size_t)got);
        if (!answer_request(fd, buffer, (size_t)got, amend_ours))
            return got;
        answered++;
    } while (nanoseconds() < end);
    errno = EINTR;
    return -1;
}

static ssize_t hooked_read(int fd, void *buffer, size_t size, void *userdata) {
    (void)userdata;
    ssize_t got = answers ? read_and_answer(fd, buffer, size) : read(fd, buffer, size);
    if (got > 0) { /* libfuse looks at errno only after -1 */
        clears_set_id = is_clearing(buffer, (size_t)got);
        pthread_mutex_lock(&lock);
        look_at_request(buffer, (size_t)got);
        pthread_mutex_unlock(&lock);
    }
    return got;
}

/* -- replies ---------------------------------------------------------------------------------- */

/* INIT's reply, 24 bytes for kernels older than 7.23, else 64. */
static void amend_init(char *reply, size_t size) {
    uint64_t flags = wanted & offered;
    uint32_t low, high = 0;
    if (size < offsetof(struct fuse_init_out, flags) + sizeof(low))
        return;
    memcpy(&low, reply + offsetof(struct fuse_init_out, flags), sizeof(low));
    low |= (uint32_t)flags;
    if (size >= INIT_STACK_DEPTH + sizeof(stack_depth)) {
        memcpy(&high, reply + INIT_FLAGS2, sizeof(high));
        high |= (uint32_t)(flags >> 32);
        if (flags >> 32) {
            low |= INIT_EXTENDED;
            memcpy(reply + INIT_FLAGS2, &high, sizeof(high));
            memcpy(reply + INIT_STACK_DEPTH, &stack_depth, sizeof(stack_depth));
        }
    }
    memcpy(reply + offsetof(struct fuse_init_out, flags), &low, sizeof(low));
    granted = low | (low & INIT_EXTENDED ? (uint64_t)high << 32 : 0);
}

/* A reply that ends with fuse_open_out. */
static void amend_open(char *reply, size_t size) {
    struct fuse_open_out open;
    struct amendment amendment;
    char *place = reply + size - sizeof(open);
    memcpy(&open, place, sizeof(open));
    if (!take_amendment(open.fh, &amendment))
        return;
    open.open_flags |= amendment.flags;
    if (amendment.backing > 0) { /* an inode is read through our cache or past it, never both */
        open.open_flags = (open.open_flags | OPEN_PASSTHROUGH) & ~OPEN_KEEP_CACHE;
        memcpy((char *)&open + sizeof(open) - sizeof(amendment.backing), &amendment.backing,
               sizeof(amendment.backing));
    }
    memcpy(place, &open, sizeof(open));
    amended++;
}

static void amend(uint32_t opcode, char *reply, size_t size) {
    size_t entry = opcode == FUSE_CREATE ? sizeof(struct fuse_entry_out) : 0;
    if (opcode == FUSE_INIT)
        amend_init(reply, size);
    else if (size == entry + sizeof(struct fuse_open_out))
        amend_open(reply, size);
}

static void amend_ours(uint32_t opcode, char *reply, size_t size) {
    pthread_mutex_lock(&lock);
    amend(opcode, reply, size);
    pthread_mutex_unlock(&lock);
}

static ssize_t hooked_writev(int fd, struct iovec *iov, int count, void *userdata) {
    (void)userdata;
    struct fuse_out_header header = {0};
    char reply[sizeof(struct fuse_entry_out) + sizeof(struct fuse_open_out)];
    struct iovec changed[2];
    if (count > 0 && iov[0].iov_len == sizeof(header))
        memcpy(&header, iov[0].iov_base, sizeof(header));
    if (header.unique == 0) /* a notification, or nothing that we know */
        return writev(fd, iov, count);
    pthread_mutex_lock(&lock);
    uint32_t opcode = take_request(header.unique);
    if (opcode && header.error == 0 && count == 2 && iov[1].iov_len <= sizeof(reply)) {
        memcpy(reply, iov[1].iov_base, iov[1].iov_len);
        amend(opcode, reply, iov[1].iov_len);
        changed[0] = iov[0];
        changed[1] = (struct iovec){.iov_base = reply, .iov_len = iov[1].iov_len};
        iov = changed;
    }
    pthread_mutex_unlock(&lock);
    return writev(fd, iov, count);
}

/* -- the session ------------------------------------------------------------------------------ */

typedef int mount_function(struct fuse_session *, const char *);
typedef int custom_io_function(struct fuse_session *, const struct fuse_custom_io *, int);

static custom_io_function *custom_io(void) {
    /* By its first version, which is the one of the struct below, also where there is a newer. */
    void *found = dlvsym(RTLD_DEFAULT, "fuse_session_custom_io", "FUSE_3.0");
    return (custom_io_function *)(found ? found : dlsym(RTLD_DEFAULT, "fuse_session_custom_io"));
}

__attribute__((visibility("default"))) int fuse_session_mount(struct fuse_session *session,
                                                              const char *mountpoint) {
    /* Without splice_receive and splice_send libfuse does not splice: it would read past us. */
    static const struct fuse_custom_io io = {.read = hooked_read, .writev = hooked_writev};
    mount_function *libfuse_mount = (mount_function *)dlsym(RTLD_NEXT, "fuse_session_mount");
    custom_io_function *hook = custom_io();
    if (libfuse_mount == NULL) {
        errno = ENOSYS;
        return -1;
    }
    int status = libfuse_mount(session, mountpoint);
    if (status != 0)
        return status;
    session_fd = fuse_session_fd(session);
    request_count = amendment_count = 0;
    answers = found_nothing = clears_set_id = 0;
    offered = granted = amended = answered = 0;
    if (hook == NULL)
        trouble = "this libfuse is older than 3.14";
    else if (hook(session, &io, session_fd) != 0)
        trouble = "libfuse refused the hooks"; /* and goes on without them */
    else
        trouble = NULL;
    return 0;
}

/* -- for Python ------------------------------------------------------------------------------- */

static PyObject *py_want(PyObject *module, PyObject *arguments) {
    (void)module;
    unsigned long long flags;
    unsigned int depth;
    if (!PyArg_ParseTuple(arguments, "KI", &flags, &depth))
        return NULL;
    wanted = flags;
    stack_depth = depth;
    Py_RETURN_NONE;
}

static PyObject *py_amend_open(PyObject *module, PyObject *arguments) {
    (void)module;
    unsigned long long handle;
    struct amendment new = {0}, old;
    if (!PyArg_ParseTuple(arguments, "KIi", &handle, &new.flags, &new.backing))
        return NULL;
    new.handle = handle;
    pthread_mutex_lock(&lock);
    take_amendment(handle, &old); /* of a reply that never came */
    int fits = trouble == NULL && amendment_count < MAX_AMENDMENTS;
    if (fits && (new.flags || new.backing > 0))
        amendments[amendment_count++] = new;
    pthread_mutex_unlock(&lock);
    return PyBool_FromLong(fits);
}

static PyObject *py_clears_set_id(PyObject *module, PyObject *arguments) {
    (void)module, (void)arguments;
    return PyBool_FromLong(clears_set_id);
}

static PyObject *py_state(PyObject *module, PyObject *arguments) {
    (void)module, (void)arguments;
    return Py_BuildValue("ziKKKK", trouble, session_fd, (unsigned long long)offered,
                         (unsigned long long)granted, amended, answered);
}

static PyObject *py_answer_with(PyObject *module, PyObject *arguments) {
    (void)module;
    PyObject *handlers, *note;
    PyTypeObject *caller;
    int polls;
    if (!PyArg_ParseTuple(arguments, "O!O!Op", &PyDict_Type, &handlers, &PyType_Type, &caller,
                          &note, &polls))
        return NULL;
    if (!PyType_IsSubtype(caller, &PyTuple_Type)) {
        PyErr_SetString(PyExc_TypeError, "callers have to be tuples");
        return NULL;
    }
    int flags = trouble == NULL ? fcntl(session_fd, F_GETFL) : -1;
    if (flags < 0 || fcntl(session_fd, F_SETFL, flags | O_NONBLOCK) != 0)
        Py_RETURN_FALSE;
    if (have_answered(handlers, caller, note) != 0)
        return NULL;
    begin_moves(session_fd, polls);
    answers = 1;
    patience = turn = 0;
    Py_RETURN_TRUE;
}

static PyObject *py_end_moves(PyObject *module, PyObject *arguments) {
    (void)module, (void)arguments;
    answers = 0;
    Py_BEGIN_ALLOW_THREADS end_moves();
    Py_END_ALLOW_THREADS tell_moved(0);
    Py_RETURN_NONE;
}

static PyObject *py_note_moves(PyObject *module, PyObject *arguments) {
    (void)module, (void)arguments;
    tell_moved(1);
    Py_RETURN_NONE;
}

static PyObject *py_moves_begun(PyObject *module, PyObject *arguments) {
    (void)module, (void)arguments;
    return PyLong_FromUnsignedLongLong(moves_begun());
}

static PyObject *py_have_ended(PyObject *module, PyObject *arguments) {
    (void)module;
    unsigned long long count;
    if (!PyArg_ParseTuple(arguments, "K", &count))
        return NULL;
    look_again(); /* while nothing is read */
    return PyBool_FromLong(have_ended(count));
}

static PyObject *py_call_read_only(PyObject *module, PyObject *arguments) {
    (void)module;
    int error;
    if (!PyArg_ParseTuple(arguments, "i", &error))
        return NULL;
    call_read_only(error);
    Py_RETURN_NONE;
}

static PyObject *py_add_entries(PyObject *module, PyObject *arguments) {
    (void)module;
    PyObject *listing, *entries, *validities;
    Py_ssize_t room;
    if (!PyArg_ParseTuple(arguments, "O!nO!O!", &PyByteArray_Type, &listing, &room, &PyList_Type,
                          &entries, &PyList_Type, &validities))
        return NULL;
    Py_ssize_t taken = add_entries(listing, room < 0 ? 0 : (size_t)room, entries, validities);
    return taken < 0 ? NULL : PyLong_FromSsize_t(taken);
}

static PyObject *py_pace(PyObject *module, PyObject *arguments) {
    (void)module;
    if (!PyArg_ParseTuple(arguments, "LL", &patience, &turn))
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *py_found_nothing(PyObject *module, PyObject *arguments) {
    (void)module, (void)arguments;
    return PyBool_FromLong(found_nothing);
}

static PyMethodDef methods[] = {
    {"answer_with", py_answer_with, METH_VARARGS,
     "answer_with({opcode: handler}, caller, take_note, polls) -> bool"},
    {"note_moves", py_note_moves, METH_NOARGS,
     "call take_note([(opcode, handle, times, result), ...])"},
    {"moves_begun", py_moves_begun, METH_NOARGS, "moves_begun() -> how many"},
    {"have_ended", py_have_ended, METH_VARARGS, "have_ended(count) -> bool, of the first moves"},
    {"end_moves", py_end_moves, METH_NOARGS, "before the session ends"},
    {"call_read_only", py_call_read_only, METH_VARARGS, "call_read_only(errno), EROFS in replies"},
    {"add_entries", py_add_entries, METH_VARARGS,
     "add_entries(listing, room, entries, validities) -> how many of them"},
    {"pace", py_pace, METH_VARARGS, "pace(patience, turn), in nanoseconds, for the next read"},
    {"found_nothing", py_found_nothing, METH_NOARGS, "found_nothing() -> bool, of the last read"},
    {"want", py_want, METH_VARARGS, "want(init_flags, stack_depth), before the mount"},
    {"amend_open", py_amend_open, METH_VARARGS, "amend_open(handle, flags, backing) -> bool"},
    {"clears_set_id", py_clears_set_id, METH_NOARGS,
     "clears_set_id() -> bool, of the last request"},
    {"state", py_state, METH_NOARGS,
     "state() -> (trouble, session_fd, offered, granted, amended, answered)"},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, .m_name = "_wire", .m_size = -1,
                                        .m_methods = methods};

PyMODINIT_FUNC PyInit__wire(void) { return PyModule_Create(&definition); }
