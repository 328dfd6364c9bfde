/* A guest that stays: about ten times a second it reads /file, which must hold what it held at the
 * start, and writes how often it did so to /data/count. */

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static ssize_t read_file(char *buffer, size_t size)
{
    int fd = open("/file", O_RDONLY);
    if (fd < 0)
        return -1;
    ssize_t got = read(fd, buffer, size);
    close(fd);
    return got;
}

int main(void)
{
    char before[256], now[256];
    ssize_t size = read_file(before, sizeof before);
    if (size < 0) {
        perror("/file");
        return 1;
    }
    for (unsigned long count = 1;; count++) {
        if (read_file(now, sizeof now) != size || memcmp(before, now, (size_t)size) != 0) {
            fprintf(stderr, "/file is another one now\n");
            return 1;
        }
        FILE *out = fopen("/data/count", "w");
        if (out == NULL || fprintf(out, "%lu\n", count) < 0 || fclose(out) != 0) {
            perror("/data/count");
            return 1;
        }
        nanosleep(&(struct timespec){.tv_nsec = 100 * 1000 * 1000}, NULL);
    }
}
