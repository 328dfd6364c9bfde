/* Requests that Python answers at once, past libfuse and pyfuse3.
 *
 * Both make objects of their own out of each request and each answer, and a task of trio's that
 * waits for the handler: more than most handlers cost. A handler that is given here is called
 * with what pyfuse3 would call it with, but for the caller, which is a `Caller`; it answers in
 * plain tuples, with a negative errno, or NotImplemented: then the request goes to libfuse as if
 * nothing had happened, and may wait for its answer there. What is read or brought to the disk may
 * be left to _moves.h.
 */

#ifndef OVERLAYD_ANSWERS_H
#define OVERLAYD_ANSWERS_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stddef.h>
#include <stdint.h>

/* Amends a reply of that opcode before it goes out. */
typedef void amend_function(uint32_t opcode, char *reply, size_t size);

/* Answer the request in `message` on `fd`. Whether it was; else libfuse has to. */
int answer_request(int fd, const char *message, size_t size, amend_function *amend);

/* Send the reply to the request that the kernel calls `unique`: an errno, or a body. */
void send_reply(int fd, uint64_t unique, int error, const void *body, size_t size);

/* Have requests answered by `by_opcode` from now on, a dict; `type` is that of callers, a tuple;
 * `note` is called with what _moves.h has answered. -1 with an exception. */
int have_answered(PyObject *by_opcode, PyTypeObject *type, PyObject *note);

/* Call `note` now, if there is anything to be told; of files that are open only if asked to. */
void tell_moved(int with_open);

/* Add to `listing`, a bytearray that is to become a reply to READDIRPLUS of at most `room` bytes,
 * as many of `entries` as go in, a list, each with what is said of it in `validities`. How many
 * they are, -1 with an exception. */
Py_ssize_t add_entries(PyObject *listing, size_t room, PyObject *entries, PyObject *validities);

#endif
