/* File data that goes into a reply by splice(2), without a copy of our own. */

#ifndef OVERLAYD_PIPES_H
#define OVERLAYD_PIPES_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* One of each thread that replies; all zero before its first use. */
struct pipe {
    int ends[2];
    size_t capacity; /* bytes; 0 where there is no pipe */
    size_t filled;
    int is_refused;
};

/* Have the reply to the request that the kernel calls `unique` in the pipe: `size` bytes at
 * `offset` of `file`, which may be waited for. Whether it is; not where there can be no pipe of
 * that size, or the file ends before. */
int gather(struct pipe *pipe, uint64_t unique, int file, off_t offset, size_t size);

/* Send what was gathered last. Whether it arrived, or nobody is left to be told. */
int send_gathered(struct pipe *pipe, int session);

void close_pipe(struct pipe *pipe);

size_t page_size(void);

#endif
