/* Reads and fsyncs of open files: see _moves.h.
 *
 * One move belongs to one request. The event loop makes it. Then it is looked for by that loop
 * (`expected`), or it waits for a thread (`ready`, or `waiting` where its device has its share of
 * them), and once it is answered it is `done`, until the event loop comes to take note of it: only
 * there is what keeps a descriptor open let go of, for that is Python's. The kernel releases no
 * file before it has the answers to all it asked of it, so that none is kept for longer by this.
 *
 * What Python said of a handle is its source, and kept until the handle is released.
 */

#include "_moves.h"
#include "_answers.h"
#include "_threads.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define EXPECTED_NS 250000 /* for so long something is looked for */
#define MOST_EXPECTED 64
#define MOST_LATE 8  /* a device that is late so often is tried with every 256th move */
#define LITTLE 32768 /* bytes; more is not copied in vain, nor at all where that can be */
#define BUCKETS 4096
#define CACHESTAT 451 /* the number of the system call, since Linux 6.5 */

struct source {
    struct source *next; /* in its bucket, or among those that are gone */
    uint64_t handle;
    int file, how;
    PyObject *keeper; /* of the descriptor */
    unsigned long long device;
    unsigned users;                  /* moves; and one while it is known */
    unsigned long long times, bytes; /* that have not been told */
};

struct move {
    struct job job;
    struct move *older, *newer; /* among all that have not ended */
    unsigned long long number;
    uint64_t unique, offset;
    uint32_t opcode, size;
    int data_only;
    struct source *source;
    long long until;
    ssize_t result; /* bytes, or a negative errno */
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* of all up to the next blank line */
static struct list done;
static struct move *oldest, *newest;
static unsigned long long begun;

static struct move *expected[MOST_EXPECTED]; /* of the event loop alone, as all that follows */
static int expected_count, may_expect;
static struct room near;
static struct source *sources[BUCKETS], *gone;

static pthread_rwlock_t session_lock = PTHREAD_RWLOCK_INITIALIZER;
static int session = -1, may_splice;
static int read_only_error = EROFS;

long long nanoseconds(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000LL + time.tv_nsec;
}

static void note_begun(struct move *move) {
    move->job.device = use_device(move->source->device);
    pthread_mutex_lock(&lock);
    move->number = ++begun;
    move->older = newest;
    *(newest == NULL ? &oldest : &newest->newer) = move;
    newest = move;
    pthread_mutex_unlock(&lock);
}

/* `move` is answered. */
static void note_ended(struct move *move) {
    *(move->older == NULL ? &oldest : &move->older->newer) = move->newer;
    *(move->newer == NULL ? &newest : &move->newer->older) = move->older;
    append(&done, &move->job);
}

/* -- the work itself -------------------------------------------------------------------------- */

/* As many bytes as asked for, fewer only at the end of the file; -EAGAIN where `flags` forbid to
 * wait for some of them. */
static ssize_t read_all(const struct move *move, char *memory, int flags) {
    size_t got = 0;
    while (got < move->size) {
        struct iovec rest = {memory + got, move->size - got};
        ssize_t count = preadv2(move->source->file, &rest, 1, (off_t)(move->offset + got), flags);
        if (count < 0 && errno == EOPNOTSUPP && flags)
            return -EAGAIN;
        if (count < 0)
            return -errno;
        if (count == 0)
            break;
        got += (size_t)count;
    }
    return (ssize_t)got;
}

/* What need not be waited for. */
static ssize_t read_now(const struct move *move, struct room *room) {
    if (!has_room(room, move->size))
        return -ENOMEM;
    return read_all(move, room->memory, move->source->how == HOW_IN_MEMORY ? 0 : RWF_NOWAIT);
}

static ssize_t sync_file(const struct move *move) {
    return (move->data_only ? fdatasync(move->source->file) : fsync(move->source->file)) == 0
               ? 0
               : -errno;
}

static void answer(struct move *move, ssize_t result, const struct room *room) {
    int error = result < 0 ? (int)-result : 0;
    size_t size = error || move->opcode != FUSE_READ ? 0 : (size_t)result;
    move->result = error == EROFS ? -read_only_error : result;
    pthread_rwlock_rdlock(&session_lock);
    if (session >= 0)
        send_reply(session, move->unique, (int)(error ? -move->result : 0), room->memory, size);
    pthread_rwlock_unlock(&session_lock);
}

static void end(struct move *move) {
    give_device_back(move->job.device);
    pthread_mutex_lock(&lock);
    note_ended(move); /* and is gone, once the event loop sees that */
    pthread_mutex_unlock(&lock);
}

/* How many of the bytes that are asked for the file has, as far as that is known beforehand. */
static size_t bytes_there(const struct move *move) {
    struct stat status;
    if (fstat(move->source->file, &status) != 0 || (uint64_t)status.st_size <= move->offset)
        return 0;
    uint64_t rest = (uint64_t)status.st_size - move->offset;
    return rest < move->size ? (size_t)rest : move->size;
}

/* The same as `answer` with `size` bytes of the file by splice(2), which may wait for them; 0 where
 * that cannot be done. */
static int answer_by_pipe(struct move *move, size_t size, struct pipe *pipe) {
    int is_sent = 1;
    if (size == 0 || !may_splice ||
        !gather(pipe, move->unique, move->source->file, (off_t)move->offset, size))
        return 0;
    move->result = (ssize_t)size;
    pthread_rwlock_rdlock(&session_lock);
    if (session >= 0)
        is_sent = send_gathered(pipe, session);
    pthread_rwlock_unlock(&session_lock);
    return is_sent;
}

/* Whether none of `size` bytes has to be waited for, unless it is on its way just now. */
static int are_in_cache(const struct move *move, size_t size) {
    uint64_t range[2] = {move->offset, size};
    uint64_t counts[5] = {0}; /* struct cachestat; the first is of the pages that are there */
    size_t page = page_size();
    return syscall(CACHESTAT, move->source->file, range, counts, 0) == 0 &&
           counts[0] >= (move->offset % page + size + page - 1) / page;
}

/* Answered without a copy, where all of it is in the cache. */
static int answer_from_cache(struct move *move) {
    size_t size = bytes_there(move);
    return size > LITTLE && are_in_cache(move, size) && answer_by_pipe(move, size, &near.pipe);
}

static void read_patiently(struct move *move, struct room *room) {
    if (move->source->how == HOW_CACHED && move->size > LITTLE) {
        /* All of it at once, not as much as the host reads ahead by itself. */
        posix_fadvise(move->source->file, (off_t)move->offset, move->size, POSIX_FADV_WILLNEED);
        if (answer_by_pipe(move, bytes_there(move), &room->pipe))
            return;
    }
    answer(move, has_room(room, move->size) ? read_all(move, room->memory, 0) : -ENOMEM, room);
}

static void do_move(struct job *job, struct room *room) {
    struct move *move = (struct move *)job;
    if (move->opcode == FUSE_READ)
        read_patiently(move, room);
    else
        answer(move, sync_file(move), room);
    end(move);
}

static void leave_to_thread(struct move *move) {
    if (!have_done(&move->job, do_move)) {
        answer(move, -EAGAIN, &near);
        end(move);
    }
}

/* -- what is about to be there ---------------------------------------------------------------- */

/* Whether to look for it, as its device mostly brings what is asked for at once. */
static int is_expected(const struct move *move) {
    struct device *device = move->job.device;
    if (!may_expect || move->size > LITTLE || expected_count == MOST_EXPECTED)
        return 0;
    if (device->passed_over) {
        device->passed_over--;
        return 0;
    }
    return 1;
}

static void expect(struct move *move) {
    move->until = nanoseconds() + EXPECTED_NS;
    expected[expected_count++] = move;
}

/* Whether `move` need not be looked for any more. */
static int is_over(struct move *move) {
    struct device *device = move->job.device;
    ssize_t result = read_now(move, &near);
    if (result != -EAGAIN) {
        device->late = 0;
        answer(move, result, &near);
        end(move);
    } else if (nanoseconds() > move->until) {
        device->late += device->late < MOST_LATE;
        device->passed_over = 1u << device->late;
        leave_to_thread(move);
    } else {
        return 0;
    }
    return 1;
}

int look_again(void) {
    for (int i = 0; i < expected_count;)
        if (is_over(expected[i]))
            expected[i] = expected[--expected_count];
        else
            i++;
    return expected_count;
}

/* -- sources ---------------------------------------------------------------------------------- */

static struct source **place_of(uint64_t handle) {
    struct source **place = &sources[handle % BUCKETS];
    while (*place != NULL && (*place)->handle != handle)
        place = &(*place)->next;
    return place;
}

static struct source *make_source(uint64_t handle, PyObject *told) {
    struct source *source = calloc(1, sizeof(*source));
    if (source == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    source->handle = handle;
    if (!PyArg_ParseTuple(told, "iOKi", &source->file, &source->keeper, &source->device,
                          &source->how)) {
        free(source);
        return NULL;
    }
    Py_INCREF(source->keeper);
    return source;
}

static void keep(struct source *source) {
    struct source **place = place_of(source->handle);
    if (*place == NULL) {
        *place = source;
        source->users++;
    }
}

void forget_source(uint64_t handle) {
    struct source **place = place_of(handle), *source = *place;
    if (source == NULL)
        return;
    *place = source->next;
    source->next = gone;
    gone = source;
}

static void let_go(struct source *source) {
    if (--source->users == 0) {
        Py_DECREF(source->keeper);
        free(source);
    }
}

/* -- moves ------------------------------------------------------------------------------------ */

static void read_file(struct move *move) {
    ssize_t result;
    if (move->source->how == HOW_SLOW) {
        leave_to_thread(move);
        return;
    }
    PyThreadState *state = move->size > LITTLE ? PyEval_SaveThread() : NULL;
    if (move->size > LITTLE && answer_from_cache(move))
        result = move->result;
    else if ((result = read_now(move, &near)) != -EAGAIN)
        answer(move, result, &near);
    if (state != NULL)
        PyEval_RestoreThread(state);
    if (result != -EAGAIN)
        end(move);
    else if (is_expected(move))
        expect(move);
    else
        leave_to_thread(move);
}

static void take_request(struct move *move, const struct fuse_in_header *header,
                         const void *argument) {
    move->unique = header->unique;
    move->opcode = header->opcode;
    if (header->opcode == FUSE_READ) {
        struct fuse_read_in in;
        memcpy(&in, argument, sizeof(in));
        move->offset = in.offset;
        move->size = in.size;
    } else {
        struct fuse_fsync_in in;
        memcpy(&in, argument, sizeof(in));
        move->data_only = in.fsync_flags & FUSE_FSYNC_FDATASYNC;
    }
}

static int begin(const struct fuse_in_header *header, const void *argument, struct source *source) {
    struct move *move = calloc(1, sizeof(*move));
    if (move == NULL)
        return -1;
    move->source = source;
    source->users++;
    take_request(move, header, argument);
    note_begun(move);
    if (move->opcode == FUSE_READ) {
        read_file(move);
    } else if (source->how == HOW_IN_MEMORY) {
        answer(move, sync_file(move), &near);
        end(move);
    } else {
        leave_to_thread(move);
    }
    return 0;
}

int move(const struct fuse_in_header *header, const void *argument, PyObject *told) {
    uint64_t handle;
    memcpy(&handle, argument, sizeof(handle)); /* with which the arguments of all three begin */
    struct source *source = make_source(handle, told);
    if (source == NULL)
        return -1;
    source->users++;
    if (header->opcode == FUSE_READ)
        keep(source);
    int failed = begin(header, argument, source);
    let_go(source);
    if (failed)
        PyErr_NoMemory();
    return failed;
}

int move_as_before(const struct fuse_in_header *header, const void *argument) {
    struct fuse_read_in in;
    memcpy(&in, argument, sizeof(in));
    struct source *source = *place_of(in.fh);
    if (source == NULL || begin(header, argument, source) != 0)
        return 0;
    source->times++;
    return 1;
}

/* -- what is told ----------------------------------------------------------------------------- */

static int tell(PyObject **all, uint32_t opcode, uint64_t handle, unsigned long long times,
                long long result) {
    PyObject *one = Py_BuildValue("(IKKL)", opcode, handle, times, result);
    if (one != NULL && *all == NULL)
        *all = PyList_New(0);
    int failed = one == NULL || *all == NULL || PyList_Append(*all, one) != 0;
    Py_XDECREF(one);
    return failed;
}

static int tell_source(PyObject **all, struct source *source) {
    if (source->times == 0 && source->bytes == 0)
        return 0;
    if (tell(all, FUSE_READ, source->handle, source->times, (long long)source->bytes) != 0)
        return -1;
    source->times = source->bytes = 0;
    return 0;
}

/* Let go of what is done; failures are told at once. */
static int tell_done(PyObject **all) {
    int failed = 0;
    pthread_mutex_lock(&lock);
    struct move *move = (struct move *)done.first, *next;
    done.first = NULL;
    pthread_mutex_unlock(&lock);
    for (; move != NULL; move = next) {
        next = (struct move *)move->job.next;
        if (move->result < 0)
            failed |= tell(all, move->opcode, move->source->handle, 0, move->result);
        else if (move->opcode == FUSE_READ)
            move->source->bytes += (unsigned long long)move->result;
        let_go(move->source);
        free(move);
    }
    return failed;
}

PyObject *moved(int with_open) {
    PyObject *all = NULL;
    int failed = done.first == NULL ? 0 : tell_done(&all);
    while (gone != NULL) {
        struct source *source = gone;
        gone = source->next;
        failed |= tell_source(&all, source);
        let_go(source);
    }
    for (int i = 0; with_open && i < BUCKETS; i++)
        for (struct source *source = sources[i]; source != NULL; source = source->next)
            failed |= tell_source(&all, source);
    if (failed)
        Py_CLEAR(all);
    return all;
}

unsigned long long moves_begun(void) { return begun; }

int have_ended(unsigned long long count) {
    pthread_mutex_lock(&lock);
    int ended = oldest == NULL || oldest->number > count;
    pthread_mutex_unlock(&lock);
    return ended;
}

void call_read_only(int error) { read_only_error = error; }

void begin_moves(int descriptor, int polls) {
    struct stat status;
    pthread_rwlock_wrlock(&session_lock);
    session = descriptor;
    pthread_rwlock_unlock(&session_lock);
    may_expect = polls;
    may_splice =
        fstat(descriptor, &status) == 0 && S_ISCHR(status.st_mode); /* a socket cuts it up */
    expected_count = 0;
}

void end_moves(void) {
    pthread_rwlock_wrlock(&session_lock);
    session = -1;
    pthread_rwlock_unlock(&session_lock);
    while (expected_count) /* of what nobody hears */
        end(expected[--expected_count]);
    for (int i = 0; i < BUCKETS; i++)
        while (sources[i] != NULL)
            forget_source(sources[i]->handle);
}
