/* Threads without an interpreter, as many for one device at once as leave others theirs. */

#ifndef OVERLAYD_THREADS_H
#define OVERLAYD_THREADS_H

#include "_pipes.h"

#include <stddef.h>

/* What a thread moves by, again and again. */
struct room {
    char *memory;
    size_t size;
    struct pipe pipe;
};

int has_room(struct room *room, size_t size);

struct job {
    struct job *next; /* in the one list it is in */
    struct device *device;
};

struct list {
    struct job *first, *last;
};

void append(struct list *list, struct job *job);
struct job *take_first(struct list *list);

struct device {
    unsigned long long number;
    unsigned late, passed_over; /* for who looks for what it is about to bring */
    unsigned users;             /* of jobs that are anywhere */
    unsigned running;           /* threads */
    struct list waiting;
};

/* What is known of a device, until it is given back. With very many at once some share it. */
struct device *use_device(unsigned long long number);
void give_device_back(struct device *device);

/* Called in a thread with a job and memory of that thread's. */
typedef void job_function(struct job *job, struct room *room);

/* Have a thread call `function` for `job`, now or once its device has one to spare. 0 where there
 * are no more threads to be had. */
int have_done(struct job *job, job_function *function);

#endif
