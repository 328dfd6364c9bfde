/* What the benchmarks measure with: one kind of system call after another, and nothing else.
 *
 *     client OPERATION DIRECTORY COUNT [-c CLIENTS] [-o] [-p PASSES] [-s SIZE] [-d NUMBER]
 *     client read|write|map DIRECTORY COUNT -b BLOCK [-c CLIENTS] [-o] [-p PASSES] [-r] [-w] [-y]
 *
 * Each of CLIENTS processes uses COUNT files, f0, f1, …, of its own in DIRECTORY; with -o each has a
 * directory of its own, DIRECTORY/c0, …. All of them wait for one signal, so that starting them is
 * not measured. Names are made and directories opened before it: per operation there are only the
 * system calls named below. What is created has SIZE bytes, and `tree` puts NUMBER files into each
 * directory.
 *
 * The second form is for data: each client uses its first file only, COUNT blocks of BLOCK bytes, each
 * once, from the start to the end or, with -r, in an order by chance. The file is opened and mapped
 * before the signal; with -w all is done once before it, too. With -y an fsync is the end of it.
 *
 * Prints the nanoseconds from the signal to the end of the last client, and the number of operations
 * of all. Anything that does not answer as it must ends it with status 1 and a line on stderr.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define FAN_OUT 32 /* directories of `tree` in one directory above */

struct job {
    int directory;
    long first, count, passes, size, per_directory;
    /* For data only: */
    long block;
    int at_random, warm, sync, file;
    char *buffer;         /* of one block, or the mapped file */
    unsigned int *order;  /* numbers of blocks */
};

typedef char name_t[24];
typedef long (*operation)(const struct job *, name_t *, name_t *);

static void fail(const char *what, const char *name) {
    fprintf(stderr, "client: %s %s: %s\n", what, name, strerror(errno));
    _exit(1);
}

static long long now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void put(int directory, const char *name, long size) {
    static const char text[65536];
    int fd = openat(directory, name, O_CREAT | O_EXCL | O_WRONLY, 0644);
    if (fd < 0) fail("create", name);
    for (long done = 0, n; done < size; done += n) {
        n = write(fd, text, (size_t)(size - done < 65536 ? size - done : 65536));
        if (n <= 0) fail("write", name);
    }
    if (close(fd)) fail("close", name);
}

/* openat(O_CREAT | O_EXCL), close; with -s, write in between. */
static long do_create(const struct job *job, name_t *names, name_t *others) {
    (void)others;
    for (long i = 0; i < job->count; i++) put(job->directory, names[i], job->size);
    return job->count;
}

static int descend(int directory, const char *name) {
    if (mkdirat(directory, name, 0755) && errno != EEXIST) fail("mkdir", name);
    int fd = openat(directory, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) fail("open", name);
    return fd;
}

/* Not measured: a tree of COUNT files, so many in each directory of the second level. */
static long do_tree(const struct job *job, name_t *names, name_t *others) {
    (void)others;
    for (long i = 0; i < job->count;) {
        char upper[24], lower[24];
        long number = i / job->per_directory;
        snprintf(upper, sizeof upper, "d%ld", number / FAN_OUT);
        snprintf(lower, sizeof lower, "d%ld", number % FAN_OUT);
        int above = descend(job->directory, upper), directory = descend(above, lower);
        do put(directory, names[i++], job->size);
        while (i < job->count && i % job->per_directory);
        close(directory);
        close(above);
    }
    return job->count;
}

/* fstatat of a name that is there. */
static long do_stat(const struct job *job, name_t *names, name_t *others) {
    struct stat st;
    (void)others;
    for (long i = 0; i < job->count; i++)
        if (fstatat(job->directory, names[i], &st, AT_SYMLINK_NOFOLLOW)) fail("stat", names[i]);
    return job->count;
}

/* fstatat of a name that is not there. */
static long do_negative(const struct job *job, name_t *names, name_t *others) {
    struct stat st;
    (void)names;
    for (long i = 0; i < job->count; i++)
        if (!fstatat(job->directory, others[i], &st, AT_SYMLINK_NOFOLLOW) || errno != ENOENT)
            fail("is there:", others[i]);
    return job->count;
}

/* openat, read of at most 4 KiB, close. */
static long do_open_read_close(const struct job *job, name_t *names, name_t *others) {
    char buffer[4096];
    (void)others;
    for (long i = 0; i < job->count; i++) {
        int fd = openat(job->directory, names[i], O_RDONLY | O_CLOEXEC);
        if (fd < 0) fail("open", names[i]);
        if (read(fd, buffer, sizeof buffer) <= 0) fail("read", names[i]);
        if (close(fd)) fail("close", names[i]);
    }
    return job->count;
}

static long do_rename(const struct job *job, name_t *names, name_t *others) {
    for (long i = 0; i < job->count; i++)
        if (renameat(job->directory, names[i], job->directory, others[i])) fail("rename", names[i]);
    return job->count;
}

static long do_unlink(const struct job *job, name_t *names, name_t *others) {
    (void)names;
    for (long i = 0; i < job->count; i++)
        if (unlinkat(job->directory, others[i], 0)) fail("unlink", others[i]);
    return job->count;
}

static long walk(int fd) {
    struct dirent *entry;
    struct stat st;
    long seen = 0;
    DIR *directory = fd < 0 ? NULL : fdopendir(fd);
    if (!directory) fail("opendir", "");
    while ((errno = 0, entry = readdir(directory))) {
        const char *name = entry->d_name;
        if (name[0] == '.' && (!name[1] || (name[1] == '.' && !name[2]))) continue;
        if (fstatat(dirfd(directory), name, &st, AT_SYMLINK_NOFOLLOW)) fail("stat", name);
        if (S_ISDIR(st.st_mode))
            seen += walk(openat(dirfd(directory), name, O_RDONLY | O_DIRECTORY | O_CLOEXEC));
        else
            seen++;
    }
    if (errno) fail("readdir", "");
    closedir(directory);
    return seen;
}

/* For each directory openat, getdents, close, and fstatat of each entry; COUNT files are to be seen. */
static long do_walk(const struct job *job, name_t *names, name_t *others) {
    (void)names, (void)others;
    long seen = walk(openat(job->directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (seen != job->count) {
        fprintf(stderr, "client: %ld files instead of %ld\n", seen, job->count);
        _exit(1);
    }
    return seen;
}

static void shuffle(unsigned int *order, long count) {
    unsigned long long state = 88172645463325252ULL; /* the same order for everybody */
    for (long i = count - 1; i > 0; i--) {
        state ^= state << 13, state ^= state >> 7, state ^= state << 17;
        long other = (long)(state % (unsigned long long)(i + 1));
        unsigned int kept = order[i];
        order[i] = order[other], order[other] = kept;
    }
}

static void open_data(struct job *job, const char *name, int flags) {
    job->file = openat(job->directory, name, flags | O_CLOEXEC);
    if (job->file < 0) fail("open", name);
    job->order = calloc((size_t)job->count, sizeof *job->order);
    for (long i = 0; i < job->count; i++) job->order[i] = (unsigned int)i;
    if (job->at_random) shuffle(job->order, job->count);
    /* Touched, so that no page of it is missing when it is measured. */
    if (posix_memalign((void **)&job->buffer, 4096, (size_t)job->block)) fail("allocate", name);
    memset(job->buffer, 'x', (size_t)job->block);
}

static void prepare_read(struct job *job, const char *name) { open_data(job, name, O_RDONLY); }

static void prepare_write(struct job *job, const char *name) { open_data(job, name, O_WRONLY); }

static void prepare_map(struct job *job, const char *name) {
    open_data(job, name, O_RDONLY);
    size_t size = (size_t)job->count * (size_t)job->block;
    job->buffer = mmap(NULL, size, PROT_READ, MAP_SHARED, job->file, 0);
    if (job->buffer == MAP_FAILED) fail("map", name);
}

/* pread of each block. */
static long do_read(const struct job *job, name_t *names, name_t *others) {
    (void)others;
    for (long i = 0; i < job->count; i++)
        if (pread(job->file, job->buffer, (size_t)job->block, job->order[i] * job->block) != job->block)
            fail("read", names[0]);
    return job->count;
}

/* pwrite of each block; with -y, fsync. */
static long do_write(const struct job *job, name_t *names, name_t *others) {
    (void)others;
    for (long i = 0; i < job->count; i++)
        if (pwrite(job->file, job->buffer, (size_t)job->block, job->order[i] * job->block) != job->block)
            fail("write", names[0]);
    if (job->sync && fsync(job->file)) fail("fsync", names[0]);
    return job->count;
}

/* One byte of each block of the mapped file. */
static long do_map(const struct job *job, name_t *names, name_t *others) {
    (void)names, (void)others;
    for (long i = 0; i < job->count; i++)
        (void)*(volatile char *)(job->buffer + job->order[i] * job->block);
    return job->count;
}

struct verb {
    const char *name;
    operation call;
    void (*prepare)(struct job *, const char *); /* for data: what is not measured */
};

static const struct verb verbs[] = {
    {"create", do_create, NULL},
    {"map", do_map, prepare_map},
    {"negative", do_negative, NULL},
    {"open-read-close", do_open_read_close, NULL},
    {"plant", do_create, NULL},
    {"read", do_read, prepare_read},
    {"rename", do_rename, NULL},
    {"stat", do_stat, NULL},
    {"tree", do_tree, NULL},
    {"unlink", do_unlink, NULL},
    {"walk", do_walk, NULL},
    {"write", do_write, prepare_write},
};

struct outcome {
    long long end;
    long done;
};

static void client(const struct verb *verb, struct job job, int starter, struct outcome *outcome) {
    name_t *names = calloc((size_t)job.count + 1, sizeof *names);
    name_t *others = calloc((size_t)job.count + 1, sizeof *others);
    char byte;
    for (long i = 0; i < job.count; i++) {
        snprintf(names[i], sizeof *names, "f%ld", job.first + i);
        snprintf(others[i], sizeof *others, "other%ld", job.first + i);
    }
    if (verb->prepare) verb->prepare(&job, names[0]);
    if (job.warm) verb->call(&job, names, others);
    outcome->end = -1; /* ready */
    if (read(starter, &byte, 1)) fail("read", "starter");
    for (long pass = 0; pass < job.passes; pass++) outcome->done += verb->call(&job, names, others);
    outcome->end = now();
    _exit(0);
}

static int own_directory(int above, long number, int make) {
    char name[24];
    snprintf(name, sizeof name, "c%ld", number);
    if (make) return descend(above, name);
    int fd = openat(above, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) fail("open", name);
    return fd;
}

static int run(const struct verb *verb, struct job job, long clients, int own) {
    int starter[2], failed = 0, status;
    struct outcome *outcomes = mmap(NULL, (size_t)clients * sizeof *outcomes, PROT_READ | PROT_WRITE,
                                    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    long long begun, end = 0;
    long done = 0;
    if (outcomes == MAP_FAILED || pipe(starter)) fail("start", "");
    int top = job.directory;
    for (long i = 0; i < clients; i++) {
        if (own) job.directory = own_directory(top, i, verb->call == do_create);
        job.first = own ? 0 : i * job.count;
        pid_t child = fork();
        if (child < 0) fail("fork", "");
        if (!child) {
            close(starter[1]);
            client(verb, job, starter[0], &outcomes[i]);
        }
    }
    for (long i = 0; i < clients; i++)
        while (!*(volatile long long *)&outcomes[i].end) usleep(100);
    usleep(2000); /* the last one is in its read now, and the daemon at rest */
    begun = now();
    close(starter[1]);
    while (wait(&status) > 0) failed |= status;
    for (long i = 0; i < clients; i++) {
        if (outcomes[i].end > end) end = outcomes[i].end;
        done += outcomes[i].done;
    }
    if (!failed) printf("%lld %ld\n", end - begun, done);
    return failed != 0;
}

int main(int argc, char **argv) {
    struct job job = {.passes = 1, .per_directory = 50, .block = 4096};
    long clients = 1;
    int option, own = 0;
    if (argc < 4) return fprintf(stderr, "usage: client OPERATION DIRECTORY COUNT [OPTIONS]\n"), 2;
    job.count = atol(argv[3]);
    while ((option = getopt(argc - 3, argv + 3, "b:c:d:op:rs:wy")) != -1) {
        if (option == 'b') job.block = atol(optarg);
        else if (option == 'c') clients = atol(optarg);
        else if (option == 'd') job.per_directory = atol(optarg);
        else if (option == 'o') own = 1;
        else if (option == 'p') job.passes = atol(optarg);
        else if (option == 'r') job.at_random = 1;
        else if (option == 's') job.size = atol(optarg);
        else if (option == 'w') job.warm = 1;
        else if (option == 'y') job.sync = 1;
        else return 2;
    }
    job.directory = open(argv[2], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (job.directory < 0) fail("open", argv[2]);
    for (size_t i = 0; i < sizeof verbs / sizeof *verbs; i++)
        if (!strcmp(verbs[i].name, argv[1])) return run(&verbs[i], job, clients, own);
    fprintf(stderr, "client: no operation %s\n", argv[1]);
    return 2;
}
