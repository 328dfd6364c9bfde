/*
 * A WASI guest that does what it is told and prints what it saw.
 *
 *     probe COMMAND ARGS , COMMAND ARGS , ...
 *
 * Each command prints exactly one line, "ok VALUE..." or "error ERRNO", so that a test can
 * lay questions and answers side by side. Values are percent-encoded: a space, a percent
 * sign, and every byte that is not printable ASCII. The exit status is 0 whatever the
 * answers were, and 2 where a command could not be understood.
 *
 * A PLACE is a path as open(2) takes it, "@H:REL" for REL relative to the handle H (openat),
 * or "@H" for the object behind H. Handles live until the process ends.
 *
 *     open H PLACE FLAGS   FLAGS: r w + (both) a(ppend) c(reate) x(cl) t(runcate) d(irectory)
 *                          n(ofollow)
 *     read PLACE           the first 4095 bytes
 *     write PLACE TEXT     create or truncate, then write;  "@H": at offset 0
 *     overwrite PLACE TEXT as write, but the file must exist and is not truncated
 *     append PLACE TEXT    as write, at the end
 *     list PLACE           "name:type" of each entry, in the order received
 *     stat PLACE           ino= size= type= nlink=, following links; lstat: not following
 *     readlink PLACE
 *     truncate PLACE SIZE, touch PLACE
 *     link OLD NEW, rename OLD NEW, symlink TEXT NEW, unlink PLACE, rmdir PLACE, mkdir PLACE
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MAX_HANDLES = 32, CHUNK = 4096 };

static struct {
    const char *name;
    int fd;
} handles[MAX_HANDLES];
static int handle_count;

struct place {
    int fd;           /* AT_FDCWD for a plain path */
    const char *path; /* NULL: the object behind fd itself */
};

static void fail_usage(const char *what)
{
    fprintf(stderr, "probe: %s\n", what);
    exit(2);
}

static int find_handle(const char *name, size_t length)
{
    for (int i = 0; i < handle_count; i++)
        if (strlen(handles[i].name) == length && !memcmp(handles[i].name, name, length))
            return handles[i].fd;
    fail_usage("no such handle");
    return -1;
}

static struct place place_of(const char *text)
{
    if (text[0] != '@')
        return (struct place){AT_FDCWD, text};
    const char *colon = strchr(text, ':');
    size_t length = colon ? (size_t)(colon - text - 1) : strlen(text + 1);
    return (struct place){find_handle(text + 1, length), colon ? colon + 1 : NULL};
}

static const char *place_path(struct place place)
{
    if (!place.path)
        fail_usage("this command needs a path");
    return place.path;
}

static const char *errno_name(int number)
{
    static const struct {
        int number;
        const char *name;
    } names[] = {
#define NAME(e) {e, #e}
        NAME(EACCES), NAME(EAGAIN), NAME(EBADF), NAME(EBUSY), NAME(EDQUOT), NAME(EEXIST),
        NAME(EFBIG), NAME(EILSEQ), NAME(EINVAL), NAME(EIO), NAME(EISDIR), NAME(ELOOP),
        NAME(EMFILE), NAME(EMLINK), NAME(ENAMETOOLONG), NAME(ENODEV), NAME(ENOENT),
        NAME(ENOMEM), NAME(ENOSPC), NAME(ENOSYS), NAME(ENOTDIR), NAME(ENOTEMPTY),
        NAME(EOPNOTSUPP), NAME(EOVERFLOW), NAME(EPERM), NAME(EROFS), NAME(ESPIPE),
        NAME(ESTALE), NAME(ETXTBSY), NAME(EXDEV), NAME(ENOTCAPABLE),
#undef NAME
    };
    static char unknown[24];
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (names[i].number == number)
            return names[i].name;
    snprintf(unknown, sizeof unknown, "errno-%d", number);
    return unknown;
}

static void print_encoded(const char *bytes, size_t length)
{
    for (size_t i = 0; i < length; i++) {
        unsigned char byte = (unsigned char)bytes[i];
        if (byte > ' ' && byte < 0x7f && byte != '%')
            putchar(byte);
        else
            printf("%%%02x", byte);
    }
}

static void report(int failed)
{
    if (failed)
        printf("error %s\n", errno_name(errno));
    else
        puts("ok");
}

static int open_place(struct place place, int flags)
{
    if (!place.path)
        return place.fd; /* borrowed, see close_place */
    if (place.fd == AT_FDCWD)
        return open(place.path, flags, 0666);
    return openat(place.fd, place.path, flags, 0666);
}

/* wasi-libc has no dup(): a command on "@H" borrows the descriptor and must not close it. */
static void close_place(struct place place, int fd)
{
    if (place.path)
        close(fd);
}

static int parse_flags(const char *letters)
{
    int flags = 0, access = O_RDONLY;
    for (; *letters; letters++)
        switch (*letters) {
        case 'r': access = O_RDONLY; break;
        case 'w': access = O_WRONLY; break;
        case '+': access = O_RDWR; break;
        case 'a': flags |= O_APPEND; break;
        case 'c': flags |= O_CREAT; break;
        case 'x': flags |= O_EXCL; break;
        case 't': flags |= O_TRUNC; break;
        case 'd': flags |= O_DIRECTORY; break;
        case 'n': flags |= O_NOFOLLOW; break;
        default: fail_usage("unknown open flag");
        }
    return flags | access;
}

static void do_open(char **args)
{
    if (handle_count == MAX_HANDLES)
        fail_usage("too many handles");
    int fd = open_place(place_of(args[1]), parse_flags(args[2]));
    report(fd < 0);
    if (fd < 0)
        return;
    handles[handle_count].name = args[0];
    handles[handle_count++].fd = fd;
}

static void do_read(char **args)
{
    struct place place = place_of(args[0]);
    char buffer[CHUNK];
    int fd = open_place(place, O_RDONLY);
    ssize_t got = fd < 0 ? -1 : pread(fd, buffer, sizeof buffer - 1, 0);
    if (got < 0) {
        report(1);
    } else {
        fputs("ok ", stdout);
        print_encoded(buffer, (size_t)got);
        putchar('\n');
    }
    if (fd >= 0)
        close_place(place, fd);
}

static void write_text(char **args, int flags)
{
    struct place place = place_of(args[0]);
    size_t length = strlen(args[1]);
    int fd = open_place(place, O_WRONLY | flags);
    if (fd < 0) {
        report(1);
        return;
    }
    ssize_t put = place.path ? write(fd, args[1], length) : pwrite(fd, args[1], length, 0);
    report(put != (ssize_t)length);
    close_place(place, fd);
}

static void do_write(char **args) { write_text(args, O_CREAT | O_TRUNC); }
static void do_overwrite(char **args) { write_text(args, 0); }
static void do_append(char **args) { write_text(args, O_CREAT | O_APPEND); }

static const char *type_of_entry(unsigned char type)
{
    switch (type) {
    case DT_DIR: return "dir";
    case DT_REG: return "file";
    case DT_LNK: return "link";
    case DT_UNKNOWN: return "unknown";
    default: return "other";
    }
}

static void do_list(char **args)
{
    struct place place = place_of(args[0]);
    int fd = open_place(place, O_RDONLY | O_DIRECTORY);
    DIR *stream = fd < 0 ? NULL : fdopendir(fd);
    if (!stream) {
        report(1);
        return;
    }
    fputs("ok", stdout);
    struct dirent *entry;
    /* Printing may set errno too. */
    while (errno = 0, (entry = readdir(stream))) {
        putchar(' ');
        print_encoded(entry->d_name, strlen(entry->d_name));
        printf(":%s", type_of_entry(entry->d_type));
    }
    /* A listing that breaks off half-way must not look complete. */
    if (errno)
        printf(" broken:%s", errno_name(errno));
    putchar('\n');
    if (place.path)
        closedir(stream);
}

static const char *type_of_mode(mode_t mode)
{
    return S_ISDIR(mode) ? "dir" : S_ISREG(mode) ? "file" : S_ISLNK(mode) ? "link" : "other";
}

static void print_stat(char **args, int flags)
{
    struct place place = place_of(args[0]);
    struct stat st;
    int failed = !place.path              ? fstat(place.fd, &st)
                 : place.fd != AT_FDCWD   ? fstatat(place.fd, place.path, &st, flags)
                 : flags                  ? lstat(place.path, &st)
                                          : stat(place.path, &st);
    if (failed) {
        report(1);
        return;
    }
    printf("ok ino=%llu size=%lld type=%s nlink=%llu\n", (unsigned long long)st.st_ino,
           (long long)st.st_size, type_of_mode(st.st_mode), (unsigned long long)st.st_nlink);
}

static void do_stat(char **args) { print_stat(args, 0); }
static void do_lstat(char **args) { print_stat(args, AT_SYMLINK_NOFOLLOW); }

static void do_readlink(char **args)
{
    struct place place = place_of(args[0]);
    char buffer[CHUNK];
    const char *path = place_path(place);
    ssize_t got = place.fd == AT_FDCWD ? readlink(path, buffer, sizeof buffer)
                                       : readlinkat(place.fd, path, buffer, sizeof buffer);
    if (got < 0) {
        report(1);
        return;
    }
    fputs("ok ", stdout);
    print_encoded(buffer, (size_t)got);
    putchar('\n');
}

static void do_truncate(char **args)
{
    struct place place = place_of(args[0]);
    int fd = open_place(place, O_WRONLY);
    report(fd < 0 || ftruncate(fd, atoll(args[1])));
    if (fd >= 0)
        close_place(place, fd);
}

static void do_touch(char **args)
{
    struct place place = place_of(args[0]);
    report(place.path ? utimensat(place.fd, place.path, NULL, 0) : futimens(place.fd, NULL));
}

/* Both ends relative to a handle, or neither: wasi-libc cannot mix AT_FDCWD with a handle
 * in one call, and a guest in which it silently did something else would prove nothing. */
static int ends_have_handles(struct place from, struct place to)
{
    if ((from.fd == AT_FDCWD) != (to.fd == AT_FDCWD))
        fail_usage("either both ends relative to a handle or neither");
    return from.fd != AT_FDCWD;
}

static void do_link(char **args)
{
    struct place from = place_of(args[0]), to = place_of(args[1]);
    const char *old = place_path(from), *new = place_path(to);
    report(ends_have_handles(from, to) ? linkat(from.fd, old, to.fd, new, 0) : link(old, new));
}

static void do_rename(char **args)
{
    struct place from = place_of(args[0]), to = place_of(args[1]);
    const char *old = place_path(from), *new = place_path(to);
    report(ends_have_handles(from, to) ? renameat(from.fd, old, to.fd, new) : rename(old, new));
}

static void do_symlink(char **args)
{
    struct place to = place_of(args[1]);
    const char *path = place_path(to);
    report(to.fd == AT_FDCWD ? symlink(args[0], path) : symlinkat(args[0], to.fd, path));
}

static void do_unlink(char **args)
{
    struct place place = place_of(args[0]);
    const char *path = place_path(place);
    report(place.fd == AT_FDCWD ? unlink(path) : unlinkat(place.fd, path, 0));
}

static void do_rmdir(char **args)
{
    struct place place = place_of(args[0]);
    const char *path = place_path(place);
    report(place.fd == AT_FDCWD ? rmdir(path) : unlinkat(place.fd, path, AT_REMOVEDIR));
}

static void do_mkdir(char **args)
{
    struct place place = place_of(args[0]);
    const char *path = place_path(place);
    report(place.fd == AT_FDCWD ? mkdir(path, 0777) : mkdirat(place.fd, path, 0777));
}

static const struct {
    const char *name;
    int arguments;
    void (*run)(char **);
} commands[] = {
    {"open", 3, do_open},         {"read", 1, do_read},         {"write", 2, do_write},
    {"overwrite", 2, do_overwrite}, {"append", 2, do_append},   {"list", 1, do_list},
    {"stat", 1, do_stat},         {"lstat", 1, do_lstat},       {"readlink", 1, do_readlink},
    {"truncate", 2, do_truncate}, {"touch", 1, do_touch},       {"link", 2, do_link},
    {"rename", 2, do_rename},     {"symlink", 2, do_symlink},   {"unlink", 1, do_unlink},
    {"rmdir", 1, do_rmdir},       {"mkdir", 1, do_mkdir},
};

static void run_command(char **words, int count)
{
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++) {
        if (strcmp(commands[i].name, words[0]))
            continue;
        if (count - 1 != commands[i].arguments)
            fail_usage("wrong number of arguments");
        commands[i].run(words + 1);
        return;
    }
    fail_usage("unknown command");
}

int main(int argc, char **argv)
{
    for (int start = 1; start < argc;) {
        int end = start;
        while (end < argc && strcmp(argv[end], ","))
            end++;
        if (end > start)
            run_command(argv + start, end - start);
        start = end + 1;
    }
    return 0;
}
