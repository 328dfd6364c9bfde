/* Requests of the kernel, taken apart. */

#ifndef OVERLAYD_REQUESTS_H
#define OVERLAYD_REQUESTS_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <linux/fuse.h>
#include <stddef.h>

struct request {
    struct fuse_in_header header;
    const char *message;  /* what follows the header */
    const char *argument; /* what of it is still to be taken, and how much that is */
    size_t size;
};

/* Whether there is a whole header in `message`, which `request` then refers to. */
int is_request(struct request *request, const char *message, size_t size);

/* What pyfuse3 would call the handler with, new, but for the caller; NULL where the message is not
 * as expected, with an exception or without. */
PyObject *arguments_of(struct request *request);

/* The type of callers, a tuple of user, group and process. */
void use_caller_type(PyTypeObject *type);

#endif
