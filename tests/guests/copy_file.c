/* A guest that copies a file, and says how long that took.
 *
 *     copy_file FROM TO
 *
 * On stdout: nanoseconds from the first open to the last close, and bytes, as JSON.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static void fail(const char *what) {
    fprintf(stderr, "copy_file: %s: %s\n", what, strerror(errno));
    exit(1);
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

int main(int argc, char **argv) {
    static char buffer[131072]; /* as cp does it */
    if (argc != 3) return 2;
    double begun = now();
    long long total = 0;
    int from = open(argv[1], O_RDONLY), to = open(argv[2], O_WRONLY | O_CREAT | O_TRUNC, 0644);
    if (from < 0 || to < 0) fail("open");
    for (ssize_t got; (got = read(from, buffer, sizeof buffer)) != 0; total += got) {
        if (got < 0) fail("read");
        for (ssize_t done = 0, n; done < got; done += n)
            if ((n = write(to, buffer + done, (size_t)(got - done))) <= 0) fail("write");
    }
    if (close(from) || close(to)) fail("close");
    printf("{\"ns\": %.0f, \"bytes\": %lld}\n", now() - begun, total);
    return 0;
}
