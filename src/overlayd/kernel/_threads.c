/* See _threads.h. All that is static here is read and changed under `lock`. */

#define _GNU_SOURCE
#include "_threads.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define THREADS_PER_DEVICE 16
#define IDLE_SECONDS 10  /* for so long a thread is kept for the next job */
#define KEPT_ROOM 131072 /* bytes of memory that it keeps meanwhile */
#define DEVICES 32       /* in use at once; those beyond share what the last one has */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t is_ready = PTHREAD_COND_INITIALIZER;
static struct list ready;
static unsigned idle, queued; /* threads that wait for a job, jobs in `ready` */
static struct device devices[DEVICES];
static job_function *do_job;

int has_room(struct room *room, size_t size) {
    if (room->size < size) {
        free(room->memory);
        room->memory = malloc(size);
        room->size = room->memory == NULL ? 0 : size;
    }
    return room->size >= size;
}

void append(struct list *list, struct job *job) {
    job->next = NULL;
    if (list->first == NULL)
        list->first = job;
    else
        list->last->next = job;
    list->last = job;
}

struct job *take_first(struct list *list) {
    struct job *job = list->first;
    if (job != NULL)
        list->first = job->next;
    return job;
}

/* -- devices ---------------------------------------------------------------------------------- */

static struct device *find_device(unsigned long long number) {
    struct device *unused = NULL;
    for (int i = 0; i < DEVICES; i++) {
        if (devices[i].number == number)
            return &devices[i];
        if (unused == NULL && devices[i].users == 0)
            unused = &devices[i];
    }
    if (unused == NULL)
        return &devices[DEVICES - 1];
    memset(unused, 0, sizeof(*unused));
    unused->number = number;
    return unused;
}

struct device *use_device(unsigned long long number) {
    pthread_mutex_lock(&lock);
    struct device *device = find_device(number);
    device->users++;
    pthread_mutex_unlock(&lock);
    return device;
}

void give_device_back(struct device *device) {
    pthread_mutex_lock(&lock);
    device->users--;
    pthread_mutex_unlock(&lock);
}

/* -- threads ---------------------------------------------------------------------------------- */

/* The next job that is ready, NULL where none came for long. */
static struct job *next_ready(void) {
    struct timespec limit;
    clock_gettime(CLOCK_REALTIME, &limit);
    limit.tv_sec += IDLE_SECONDS;
    idle++;
    while (ready.first == NULL)
        if (pthread_cond_timedwait(&is_ready, &lock, &limit) == ETIMEDOUT)
            break;
    idle--;
    if (ready.first != NULL)
        queued--;
    return take_first(&ready);
}

/* The thread of a job that is done is free for the next one on `device`. */
static void pass_on(struct device *device) {
    struct job *waiting = take_first(&device->waiting);
    if (waiting == NULL) {
        device->running--;
    } else {
        queued++;
        append(&ready, waiting); /* for this very thread, if no other is quicker */
    }
}

static void *work(void *unused) {
    struct room room = {0};
    struct job *job;
    (void)unused;
    pthread_mutex_lock(&lock);
    while ((job = next_ready()) != NULL) {
        struct device *device = job->device;
        device->users++; /* the job is gone once it is done */
        pthread_mutex_unlock(&lock);
        do_job(job, &room);
        if (room.size > KEPT_ROOM) {
            free(room.memory);
            room.memory = NULL;
            room.size = 0;
        }
        pthread_mutex_lock(&lock);
        pass_on(device);
        device->users--;
    }
    pthread_mutex_unlock(&lock);
    close_pipe(&room.pipe);
    free(room.memory);
    return NULL;
}

/* Whether there is one more; it leaves all signals to others. */
static int start_thread(void) {
    pthread_t thread;
    pthread_attr_t attributes;
    sigset_t all, before;
    sigfillset(&all);
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int failed = pthread_create(&thread, &attributes, work, NULL);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    return !failed;
}

int have_done(struct job *job, job_function *function) {
    struct device *device = job->device;
    int has_thread = 1;
    pthread_mutex_lock(&lock);
    do_job = function;
    if (device->running >= THREADS_PER_DEVICE) {
        append(&device->waiting, job);
    } else if ((has_thread = idle > queued || start_thread())) {
        device->running++;
        queued++;
        append(&ready, job);
        pthread_cond_signal(&is_ready);
    }
    pthread_mutex_unlock(&lock);
    return has_thread;
}
