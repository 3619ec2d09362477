/* Notes what a program has made durable below one folder, so that a power cut can be played afterwards.
 *
 * Preloaded into the program (LD_PRELOAD). Environment: POWER_CUT_ROOT, the folder; POWER_CUT_SHADOW, a folder on the
 * same file system, where every file of the root gets a second name, its inode's number, so that nothing that is
 * renamed over or removed is gone; POWER_CUT_JOURNAL, a file that gets one line an event:
 *
 *   P <pid>                       the library is loaded
 *   C <inode> <path>              a file of this name is there (made just now, or seen for the first time)
 *   D <path>                      a folder was made
 *   R <from>\t<to>                renamed
 *   U <path>                      a name (file or empty folder) was removed
 *   T <inode> <size>              cut to this size
 *   S <inode> <size> <offset>     synced: fsync or fdatasync has returned. The file's size and the journal's length
 *                                 are those from before it began: what came later it need not have covered.
 *
 * Paths are relative to the root. A line is written after what it tells has happened, by one write(2) to a file opened
 * for appending: lines of threads and forks do not mix, and what a kill leaves unwritten was durable for nobody.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char root[PATH_MAX], shadow[PATH_MAX]; /* copies: a program may write its title over its environment */
static size_t root_length;
static int journal = -1;

#define REAL(result, name, ...)                                    \
    static result (*real)(__VA_ARGS__);                            \
    if (!real) real = (result(*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)

static void tell(const char *format, ...) {
    char line[2 * PATH_MAX + 64];
    va_list values;
    int saved = errno;
    va_start(values, format);
    int length = vsnprintf(line, sizeof line, format, values);
    va_end(values);
    if (journal >= 0 && write(journal, line, (size_t)length) != length) abort();
    errno = saved;
}

__attribute__((constructor)) static void load(void) {
    const char *folder = getenv("POWER_CUT_ROOT"), *file = getenv("POWER_CUT_JOURNAL");
    const char *names = getenv("POWER_CUT_SHADOW");
    if (!folder || !names || !file || !realpath(folder, root) || !realpath(names, shadow)) abort();
    root_length = strlen(root);
    journal = open(file, O_WRONLY | O_APPEND | O_CLOEXEC);
    if (journal < 0) abort();
    tell("P %d\n", (int)getpid());
}

/* The path relative to the root, NULL where it is not below. Names are taken as they are: no ".." and no links. */
static const char *below(const char *path, char *room) {
    if (path[0] == '/') {
        snprintf(room, PATH_MAX, "%s", path);
    } else {
        char here[PATH_MAX];
        if (!getcwd(here, sizeof here)) return NULL;
        if (snprintf(room, PATH_MAX, "%s/%s", here, path) >= PATH_MAX) return NULL;
    }
    if (strncmp(room, root, root_length) != 0 || room[root_length] != '/') return NULL;
    return room + root_length + 1;
}

/* Give the file of a descriptor its second name, and tell of it where it had none. */
static void note(int fd, const char *path, int emptied) {
    char room[PATH_MAX], second[PATH_MAX + 32];
    const char *name = below(path, room);
    struct stat facts;
    int saved = errno;
    if (journal >= 0 && name && fstat(fd, &facts) == 0 && S_ISREG(facts.st_mode)) {
        snprintf(second, sizeof second, "%s/%llu", shadow, (unsigned long long)facts.st_ino);
        if (link(room, second) == 0)
            tell("C %llu %s\n", (unsigned long long)facts.st_ino, name);
        else if (emptied)
            tell("T %llu 0\n", (unsigned long long)facts.st_ino);
    }
    errno = saved;
}

static void note_size(int fd) {
    struct stat facts;
    int saved = errno;
    if (fstat(fd, &facts) == 0 && S_ISREG(facts.st_mode))
        tell("T %llu %llu\n", (unsigned long long)facts.st_ino, (unsigned long long)facts.st_size);
    errno = saved;
}

static int synced(int (*sync)(int), int fd) {
    struct stat file, told;
    int known = journal >= 0 && fstat(fd, &file) == 0 && fstat(journal, &told) == 0;
    int result = sync(fd);
    if (result == 0 && known)
        tell("S %llu %llu %llu\n", (unsigned long long)file.st_ino, (unsigned long long)file.st_size,
             (unsigned long long)told.st_size);
    return result;
}

int fsync(int fd) {
    REAL(int, "fsync", int);
    return synced(real, fd);
}

int fdatasync(int fd) {
    REAL(int, "fdatasync", int);
    return synced(real, fd);
}

#define OPEN(name)                                                             \
    int name(const char *path, int flags, ...) {                               \
        REAL(int, #name, const char *, int, ...);                              \
        va_list values;                                                        \
        va_start(values, flags);                                               \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(values, mode_t) : 0; \
        va_end(values);                                                        \
        int fd = real(path, flags, mode);                                      \
        if (fd >= 0 && flags & (O_CREAT | O_TRUNC)) note(fd, path, flags & O_TRUNC); \
        return fd;                                                             \
    }
OPEN(open)
OPEN(open64)

#define FOPEN(name)                                                            \
    FILE *name(const char *path, const char *mode) {                           \
        REAL(FILE *, #name, const char *, const char *);                       \
        FILE *file = real(path, mode);                                         \
        if (file && mode[0] != 'r') note(fileno(file), path, mode[0] == 'w');  \
        return file;                                                           \
    }
FOPEN(fopen)
FOPEN(fopen64)

#define FTRUNCATE(name)                                     \
    int name(int fd, off_t size) {                          \
        REAL(int, #name, int, off_t);                       \
        int result = real(fd, size);                        \
        if (result == 0) note_size(fd);                     \
        return result;                                      \
    }
FTRUNCATE(ftruncate)
FTRUNCATE(ftruncate64)

#define TRUNCATE(name)                                      \
    int name(const char *path, off_t size) {                \
        int fd = open(path, O_WRONLY);                      \
        if (fd < 0) return -1;                              \
        int result = ftruncate(fd, size), saved = errno;    \
        close(fd);                                          \
        errno = saved;                                      \
        return result;                                      \
    }
TRUNCATE(truncate)
TRUNCATE(truncate64)

int rename(const char *from, const char *to) {
    REAL(int, "rename", const char *, const char *);
    char one[PATH_MAX], two[PATH_MAX];
    const char *old = below(from, one), *new = below(to, two);
    int result = real(from, to);
    if (result == 0 && old && new) tell("R %s\t%s\n", old, new);
    return result;
}

static void gone(const char *path) {
    char room[PATH_MAX];
    const char *name = below(path, room);
    if (name) tell("U %s\n", name);
}

int unlink(const char *path) {
    REAL(int, "unlink", const char *);
    int result = real(path);
    if (result == 0) gone(path);
    return result;
}

int rmdir(const char *path) {
    REAL(int, "rmdir", const char *);
    int result = real(path);
    if (result == 0) gone(path);
    return result;
}

int mkdir(const char *path, mode_t mode) {
    REAL(int, "mkdir", const char *, mode_t);
    char room[PATH_MAX];
    const char *name = below(path, room);
    int result = real(path, mode);
    if (result == 0 && name) tell("D %s\n", name);
    return result;
}
