/* Files that appear whole or not at all: written beside, flushed to disk, renamed. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/pf_file.h"

enum { BUFFER_SIZE = 1 << 16, TRIES = 100, PART = 8 << 20, BEHIND = 8 * PART };

struct pf_file {
    prefopt_context *context;
    int descriptor;
    int32_t status; /* of the first failure */
    int64_t n;      /* bytes in the buffer */
    /* Bytes in the file; those that are on their way to the disk; those out of the cache. */
    int64_t end, started, dropped;
    bool passing;
    char *path;   /* the name it will have */
    char *beside; /* the name it has */
    char buffer[BUFFER_SIZE];
};

int32_t pf_fail_errno(int error, const char *doing, const char *path)
{
    char text[128];
    /* The GNU form: gives a pointer that need not be to text. */
    const char *why = strerror_r(error, text, sizeof text);
    return pf_fail(PREFOPT_ERR_IO, "%s: %s failed: %s", path, doing, why);
}

/* The name to be replaced: what a symbolic link points to, else the path. Fills *mode with the
 * permissions to keep, or -1 where there is no such file yet. */
static int32_t resolve(pf_file *file, const char *path, int64_t *mode)
{
    struct stat info;
    char real[PATH_MAX];
    *mode = -1;
    if (lstat(path, &info) == 0 && S_ISLNK(info.st_mode)) {
        if (realpath(path, real) == NULL)
            return pf_fail_errno(errno, "following the link", path);
        path = real;
    }
    if (stat(path, &info) == 0) {
        if (!S_ISREG(info.st_mode))
            return pf_fail(PREFOPT_ERR_IO, "%s: is no regular file, and is not replaced by one",
                           path);
        *mode = info.st_mode & 07777;
    } else if (errno != ENOENT) {
        return pf_fail_errno(errno, "looking for the file", path);
    }
    int64_t n = (int64_t)strlen(path) + 1;
    file->path = pf_alloc(file->context, n, 1);
    if (file->path == NULL)
        return PREFOPT_ERR_MEMORY;
    memcpy(file->path, path, (size_t)n);
    return PREFOPT_OK;
}

/* Opens a file that nobody has, named after the target, the process and the time. */
static int32_t open_beside(pf_file *file, int64_t mode)
{
    int64_t size = (int64_t)strlen(file->path) + 64;
    file->beside = pf_alloc(file->context, size, 1);
    if (file->beside == NULL)
        return PREFOPT_ERR_MEMORY;
    for (int32_t try = 0; try < TRIES && file->descriptor < 0; try++) {
        struct timespec now;
        clock_gettime(CLOCK_MONOTONIC, &now);
        uint64_t unique =
            pf_stream((uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec,
                      (uint64_t)getpid() << 16 | (uint64_t)try);
        snprintf(file->beside, (size_t)size, "%s.%016llx.part", file->path,
                 (unsigned long long)unique);
        file->descriptor = open(file->beside, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (file->descriptor < 0 && errno != EEXIST)
            break;
    }
    if (file->descriptor < 0)
        return pf_fail_errno(errno, "creating a file beside it", file->path);
    if (mode >= 0 && fchmod(file->descriptor, (mode_t)mode) != 0)
        return pf_fail_errno(errno, "setting permissions", file->path);
    return PREFOPT_OK;
}

int32_t pf_file_create(pf_file **out, prefopt_context *context, const char *path)
{
    pf_file *file = pf_alloc(context, 1, sizeof *file);
    if (file == NULL)
        return PREFOPT_ERR_MEMORY;
    file->context = pf_context_retain(context);
    file->descriptor = -1;
    file->status = PREFOPT_OK;
    file->n = 0;
    file->end = file->started = file->dropped = 0;
    file->passing = false;
    file->path = file->beside = NULL;
    int64_t mode;
    int32_t status = resolve(file, path, &mode);
    if (status == PREFOPT_OK)
        status = open_beside(file, mode);
    if (status != PREFOPT_OK) {
        pf_file_abandon(file);
        return status;
    }
    *out = file;
    return PREFOPT_OK;
}

#ifdef SYNC_FILE_RANGE_WRITE
/* A failure to write is told once: by this call, and then no longer by fsync. */
static int32_t flush_part(pf_file *file, int64_t start, unsigned int how)
{
    if (sync_file_range(file->descriptor, start, PART, how) == 0)
        return PREFOPT_OK;
    file->passing = false;
    return errno == ENOSYS || errno == EINVAL || errno == ESPIPE || errno == EPERM ||
                   errno == EOPNOTSUPP
               ? PREFOPT_OK
               : pf_fail_errno(errno, "writing", file->path);
}

/* Has each part under way to the disk once it is written, waits for the one that is BEHIND, and
 * lets the cache forget that: the disk works from the start, and the pages are used again. */
static int32_t pass(pf_file *file)
{
    while (file->passing && file->end - file->started >= PART) {
        PF_TRY(flush_part(file, file->started, SYNC_FILE_RANGE_WRITE));
        file->started += PART;
        if (!file->passing || file->started - file->dropped <= BEHIND)
            continue;
        PF_TRY(flush_part(file, file->dropped,
                          SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE |
                              SYNC_FILE_RANGE_WAIT_AFTER));
        (void)posix_fadvise(file->descriptor, file->dropped, PART, POSIX_FADV_DONTNEED);
        file->dropped += PART;
    }
    return PREFOPT_OK;
}
#else
static int32_t pass(pf_file *file)
{
    (void)file;
    return PREFOPT_OK;
}
#endif

void pf_file_pass(pf_file *file) { file->passing = true; }

static int32_t write_all(pf_file *file, const char *bytes, int64_t n)
{
    while (n > 0) {
        int64_t most = file->passing ? PART : 1 << 30;
        ssize_t written = write(file->descriptor, bytes, (size_t)(n < most ? n : most));
        if (written < 0 && errno == EINTR)
            continue;
        if (written < 0)
            return pf_fail_errno(errno, "writing", file->path);
        bytes += written;
        n -= written;
        file->end += written;
        PF_TRY(pass(file));
    }
    return PREFOPT_OK;
}

int32_t pf_file_put(pf_file *file, const void *bytes, int64_t n)
{
    if (file->status != PREFOPT_OK || n == 0)
        return file->status;
    if (n > BUFFER_SIZE - file->n) {
        file->status = write_all(file, file->buffer, file->n);
        file->n = 0;
        if (file->status == PREFOPT_OK && n >= BUFFER_SIZE)
            return file->status = write_all(file, bytes, n);
        if (file->status != PREFOPT_OK)
            return file->status;
    }
    memcpy(file->buffer + file->n, bytes, (size_t)n);
    file->n += n;
    return PREFOPT_OK;
}

/* The rename itself is on disk once the folder is. Where a folder cannot be flushed, the file is
 * still whole under one name or the other. */
static void flush_folder(const char *path)
{
    char folder[PATH_MAX];
    const char *slash = strrchr(path, '/');
    size_t n = slash == NULL ? 0 : (size_t)(slash - path) + 1;
    if (n + 2 > sizeof folder)
        return;
    memcpy(folder, path, n);
    memcpy(folder + n, ".", 2);
    int descriptor = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (descriptor < 0)
        return;
    fsync(descriptor);
    close(descriptor);
}

int32_t pf_file_commit(pf_file *file)
{
    int32_t status = file->status;
    if (status == PREFOPT_OK)
        status = write_all(file, file->buffer, file->n);
    if (status == PREFOPT_OK && fsync(file->descriptor) != 0)
        status = pf_fail_errno(errno, "flushing to disk", file->path);
    if (status == PREFOPT_OK) {
        int closed = close(file->descriptor);
        file->descriptor = -1;
        if (closed != 0 && errno != EINTR)
            status = pf_fail_errno(errno, "closing", file->path);
        else if (rename(file->beside, file->path) != 0)
            status = pf_fail_errno(errno, "renaming what was written", file->path);
        if (status != PREFOPT_OK)
            unlink(file->beside);
    }
    if (status == PREFOPT_OK)
        flush_folder(file->path);
    pf_file_abandon(file);
    return status;
}

void pf_file_abandon(pf_file *file)
{
    if (file == NULL)
        return;
    if (file->descriptor >= 0) {
        close(file->descriptor);
        unlink(file->beside);
    }
    prefopt_context *context = file->context;
    pf_free(context, file->path);
    pf_free(context, file->beside);
    pf_free(context, file);
    pf_context_release(context);
}
