/* See _pipes.h; fuse_dev_splice_write in fs/fuse/dev.c takes the message from the pipe. */

#define _GNU_SOURCE
#include "_pipes.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <unistd.h>

#define MOST_PAGES 256 /* of 4 KiB are what /proc/sys/fs/pipe-max-size allows by default */

size_t page_size(void) {
    static size_t size;
    if (size == 0)
        size = (size_t)sysconf(_SC_PAGESIZE);
    return size;
}

void close_pipe(struct pipe *pipe) {
    if (pipe->capacity) {
        close(pipe->ends[0]);
        close(pipe->ends[1]);
        pipe->capacity = 0;
    }
}

/* Whether as many bytes fit, of which each page takes a place, and the header one. */
static int has_capacity(struct pipe *pipe, off_t offset, size_t size) {
    size_t page = page_size(), pages = 1 + (size + (size_t)offset % page + page - 1) / page;
    size_t wanted = pages * page;
    if (pipe->capacity >= wanted)
        return 1;
    if (pipe->is_refused || pages > MOST_PAGES)
        return 0;
    if (pipe->capacity == 0 && pipe2(pipe->ends, O_CLOEXEC | O_NONBLOCK) == 0)
        pipe->capacity = page; /* at the least */
    int got = pipe->capacity ? fcntl(pipe->ends[1], F_SETPIPE_SZ, (int)wanted) : -1;
    if (got > 0)
        pipe->capacity = (size_t)got;
    pipe->is_refused = got < 0; /* as to users who have many pipes */
    return pipe->capacity >= wanted;
}

static int fill(struct pipe *pipe, const struct fuse_out_header *header, int file, off_t offset,
                size_t size) {
    if (write(pipe->ends[1], header, sizeof(*header)) != sizeof(*header))
        return 0;
    while (size > 0) {
        loff_t at = offset;
        ssize_t count = splice(file, &at, pipe->ends[1], NULL, size, 0);
        if (count <= 0)
            return 0;
        offset += count;
        size -= (size_t)count;
    }
    return 1;
}

int gather(struct pipe *pipe, uint64_t unique, int file, off_t offset, size_t size) {
    struct fuse_out_header header = {.unique = unique, .len = (uint32_t)(sizeof(header) + size)};
    if (!has_capacity(pipe, offset, size))
        return 0;
    int is_whole = fill(pipe, &header, file, offset, size);
    if (is_whole)
        pipe->filled = header.len;
    else
        close_pipe(pipe); /* with what is in it */
    return is_whole;
}

int send_gathered(struct pipe *pipe, int session) {
    ssize_t sent;
    while ((sent = splice(pipe->ends[0], NULL, session, NULL, pipe->filled, 0)) < 0 &&
           errno == EINTR)
        continue;
    int is_sent = sent == (ssize_t)pipe->filled || (sent < 0 && errno == ENOENT);
    if (sent != (ssize_t)pipe->filled)
        close_pipe(pipe);
    return is_sent;
}
