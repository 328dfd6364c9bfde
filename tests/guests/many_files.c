/* A guest that looks at many files and opens as many others, and says how long that took.
 *
 *     many_files DIRECTORY COUNT
 *
 * DIRECTORY/stat and DIRECTORY/open hold files f0 to f(COUNT-1). It does so twice. On stdout:
 * nanoseconds per file, as JSON.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static void fail(const char *name) {
    fprintf(stderr, "many_files: %s: %s\n", name, strerror(errno));
    exit(1);
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static void look_at(const char *name) {
    struct stat st;
    if (stat(name, &st)) fail(name);
}

static void open_and_close(const char *name) {
    int fd = open(name, O_RDONLY);
    if (fd < 0) fail(name);
    close(fd);
}

static double each(void (*call)(const char *), const char *top, const char *below, int count) {
    char name[256];
    double begun = now();
    for (int i = 0; i < count; i++) {
        snprintf(name, sizeof name, "%s/%s/f%d", top, below, i);
        call(name);
    }
    return (now() - begun) / count;
}

int main(int argc, char **argv) {
    if (argc != 3) return 2;
    int count = atoi(argv[2]);
    double looked[2], opened[2];
    for (int time = 0; time < 2; time++) {
        looked[time] = each(look_at, argv[1], "stat", count);
        opened[time] = each(open_and_close, argv[1], "open", count);
    }
    printf("{\"stat\": %.0f, \"open\": %.0f, ", looked[0], opened[0]);
    printf("\"stat-warm\": %.0f, \"open-warm\": %.0f}\n", looked[1], opened[1]);
    return 0;
}
