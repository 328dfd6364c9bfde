/* What is read from open files, and brought to the disk, without Python.
 *
 * Python decides: a handler says which descriptor a request is about and whether it may have to
 * wait. The bytes then go from there to the kernel in C, and the reply goes out from the thread
 * that has them: no interpreter is needed for it, nor a task that hears of it.
 *
 * What is in the page cache is answered at once. A little that is not is looked for again and
 * again, for a moment, while no other request comes: a fast disk brings it sooner than a thread
 * wakes up. All else is for threads, as many for one device at once as would leave others theirs.
 */

#ifndef OVERLAYD_MOVES_H
#define OVERLAYD_MOVES_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <linux/fuse.h>
#include <stddef.h>
#include <stdint.h>

/* Begin to move for replies on `session`; with `polls`, something is looked for again and again. */
void begin_moves(int session, int polls);

/* No reply goes out any more: the session is about to end. */
void end_moves(void);

/* Do what READ, FSYNC or FSYNCDIR asks in `header` and `argument`, which has the size for that
 * opcode, with the descriptor in `source`: a tuple of that, of an object that keeps it open, of
 * the number of its device, and of how it may be read (HOW_…). Further reads through the same
 * handle go by it, too. -1 with an exception where `source` is nothing of that kind. */
int move(const struct fuse_in_header *header, const void *argument, PyObject *source);

/* Do what READ asks where that is known of its handle; else 0. */
int move_as_before(const struct fuse_in_header *header, const void *argument);

/* The handle is about to be released: nothing is known of it any more. */
void forget_source(uint64_t handle);

enum { HOW_CACHED, HOW_IN_MEMORY, HOW_SLOW };

/* Answer what is there by now; whether anything is still looked for. Needs no interpreter. */
int look_again(void);

/* A list of (opcode, handle, times, result) of what was answered and has not been told yet: bytes
 * or a negative errno, and how often that was asked for without a handler's being called. Of open
 * files only with `all`. NULL without an exception where there is nothing, with one where there is
 * no memory. */
PyObject *moved(int all);

/* How many moves were begun so far, and whether all of the first `count` of them have ended. */
unsigned long long moves_begun(void);
int have_ended(unsigned long long count);

/* What EROFS is called in replies. */
void call_read_only(int error);

/* The monotonic clock. */
long long nanoseconds(void);

#endif
