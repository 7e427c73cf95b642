/* Folders as a whole. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/pf_file.h"
#include "model/pf_folder.h"

bool pf_folder_each(int folder, void (*call)(void *payload, int folder, const char *name),
                    void *payload)
{
    int descriptor = openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *list = descriptor < 0 ? NULL : fdopendir(descriptor);
    if (list == NULL) {
        if (descriptor >= 0)
            close(descriptor);
        return false;
    }
    for (const struct dirent *entry; (entry = readdir(list)) != NULL;)
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            call(payload, folder, entry->d_name);
    closedir(list);
    return true;
}

/* ---------------------------------------------------------------- removing */

static void remove_entry(void *payload, int folder, const char *name)
{
    (void)payload;
    pf_folder_remove(folder, name);
}

void pf_folder_remove(int parent, const char *name)
{
    if (unlinkat(parent, name, 0) == 0 || (errno != EISDIR && errno != EPERM))
        return;
    int folder = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (folder < 0)
        return;
    pf_folder_each(folder, remove_entry, NULL);
    close(folder);
    unlinkat(parent, name, AT_REMOVEDIR);
}

/* ---------------------------------------------------------------- the same content */

static bool copy_bytes(int in, int out)
{
    char part[1 << 14];
    for (;;) {
        ssize_t got = read(in, part, sizeof part);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return got == 0 && fsync(out) == 0;
        for (ssize_t at = 0, wrote; at < got; at += wrote) {
            wrote = write(out, part + at, (size_t)(got - at));
            if (wrote < 0 && errno != EINTR)
                return false;
            wrote = wrote < 0 ? 0 : wrote;
        }
    }
}

static bool copy_file(int from, int to, const char *name, mode_t mode)
{
    int in = openat(from, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    int out = in < 0 ? -1 : openat(to, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    bool good = out >= 0 && copy_bytes(in, out) && fchmod(out, mode & 07777) == 0;
    int error = errno;
    if (out >= 0 && close(out) != 0 && good) {
        good = false;
        error = errno;
    }
    if (in >= 0)
        close(in);
    errno = error;
    return good;
}

static bool copy_link(int from, int to, const char *name)
{
    char target[PATH_MAX];
    ssize_t n = readlinkat(from, name, target, sizeof target - 1);
    if (n < 0)
        return false;
    target[n] = 0;
    return symlinkat(target, to, name) == 0;
}

static bool copy_folder(int from, int to, const char *name, mode_t mode)
{
    int a = openat(from, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC), b = -1;
    bool good = false;
    if (a >= 0 && mkdirat(to, name, 0700) == 0)
        b = openat(to, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (b >= 0)
        good = pf_folder_mirror(a, b, NULL) == PREFOPT_OK && fchmod(b, mode & 07777) == 0 &&
               fsync(b) == 0;
    int error = errno;
    if (a >= 0)
        close(a);
    if (b >= 0)
        close(b);
    errno = error;
    return good;
}

bool pf_folder_exchange(const char *a, const char *b)
{
#ifdef SYS_renameat2
    enum { EXCHANGE = 1 << 1 };
    return syscall(SYS_renameat2, AT_FDCWD, a, AT_FDCWD, b, EXCHANGE) == 0;
#else
    (void)a, (void)b;
    return false;
#endif
}

typedef struct {
    int to;
    pf_name_test *skip;
    int32_t status;
} mirror_work;

static void mirror_entry(void *payload, int from, const char *name)
{
    mirror_work *w = payload;
    struct stat info;
    bool good;
    if (w->status != PREFOPT_OK || (w->skip != NULL && w->skip(name)))
        return;
    if (fstatat(from, name, &info, AT_SYMLINK_NOFOLLOW) != 0)
        good = errno == ENOENT; /* it has gone meanwhile */
    else if (S_ISDIR(info.st_mode))
        good = copy_folder(from, w->to, name, info.st_mode);
    else if (S_ISLNK(info.st_mode))
        good = copy_link(from, w->to, name);
    else
        good = linkat(from, name, w->to, name, 0) == 0 ||
               (S_ISREG(info.st_mode) && copy_file(from, w->to, name, info.st_mode));
    if (!good)
        w->status = pf_fail_errno(errno, "keeping the file", name);
}

int32_t pf_folder_mirror(int from, int to, pf_name_test *skip)
{
    mirror_work w = {to, skip, PREFOPT_OK};
    if (!pf_folder_each(from, mirror_entry, &w))
        return pf_fail_errno(errno, "listing", "the folder");
    return w.status;
}

static void rescue_entry(void *payload, int from, const char *name)
{
    mirror_work *w = payload;
    struct stat info;
    if (!w->skip(name) && fstatat(w->to, name, &info, AT_SYMLINK_NOFOLLOW) != 0)
        (void)renameat(from, name, w->to, name);
}

void pf_folder_rescue(int from, int to, pf_name_test *skip)
{
    mirror_work w = {to, skip, PREFOPT_OK};
    pf_folder_each(from, rescue_entry, &w);
}
