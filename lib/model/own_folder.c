/* The folder that a save builds in. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/pf_file.h"
#include "model/pf_folder.h"
#include "model/pf_own_folder.h"

enum { TRIES = 100 };

int32_t pf_flush_folder(const char *path)
{
    int descriptor = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (descriptor < 0)
        return pf_fail_errno(errno, "opening the folder", pf_show_path(path));
    /* Some file systems have no such call for folders. */
    bool good = fsync(descriptor) == 0 || errno == EINVAL || errno == ENOTSUP;
    int error = errno;
    close(descriptor);
    return good ? PREFOPT_OK : pf_fail_errno(error, "flushing to disk", pf_show_path(path));
}

void pf_own_folder_leave(pf_own_folder *own)
{
    if (own->path == NULL)
        return;
    if (own->descriptor >= 0)
        close(own->descriptor);
    pf_free(own->context, own->path);
    own->path = NULL;
    own->descriptor = -1;
}

void pf_own_folder_remove(pf_own_folder *own)
{
    if (own->path != NULL)
        pf_folder_remove(AT_FDCWD, own->path);
    pf_own_folder_leave(own);
}

/* Opens and locks the new folder; EEXIST where another save took it for a leftover before that. */
static int open_own(pf_own_folder *own)
{
    struct stat info;
    own->descriptor = open(own->path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (own->descriptor < 0)
        return errno == ENOENT ? EEXIST : errno;
    if ((flock(own->descriptor, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) ||
        (fstat(own->descriptor, &info) == 0 && info.st_nlink == 0))
        return EEXIST;
    return 0;
}

/* PREFIX.ID.prefopt-save with an ID that nobody has. */
static void draw_name(char name[PF_PREFIX_SHOWN + PF_SAVE_NAME + 1], char id[PF_SAVE_ID],
                      const char *prefix, int32_t try)
{
    char end[PF_SAVE_NAME];
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    uint64_t unique = pf_stream((uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec,
                                (uint64_t)getpid() << 16 | (uint64_t)try);
    snprintf(id, PF_SAVE_ID, "%016llx", (unsigned long long)unique);
    pf_save_name(end, id);
    snprintf(name, PF_PREFIX_SHOWN + PF_SAVE_NAME + 1, "%.*s%s", (int)PF_PREFIX_SHOWN, prefix, end);
}

int32_t pf_own_folder_make(pf_own_folder *own, prefopt_context *context, const char *parent,
                           const char *prefix, const char *doing, const char *shown)
{
    char name[PF_PREFIX_SHOWN + PF_SAVE_NAME + 1];
    int error = EEXIST;
    *own = (pf_own_folder){.context = context, .descriptor = -1};
    for (int32_t try = 0; try < TRIES && error == EEXIST; try++) {
        draw_name(name, own->id, prefix, try);
        PF_TRY(pf_join(context, parent, name, &own->path));
        error = mkdir(own->path, 0777) == 0 ? 0 : errno;
        if (error == 0) {
            error = open_own(own);
            if (error == 0)
                return PREFOPT_OK;
            rmdir(own->path);
        }
        pf_own_folder_leave(own);
    }
    return pf_fail_errno(error, doing, pf_show_path(shown));
}

/* ---------------------------------------------------------------- leftovers */

bool pf_own_folder_discard(int folder, const char *prefix, const char *name)
{
    char left[PF_PREFIX_SHOWN + PF_SAVE_NAME + 1], id[PF_SAVE_ID];
    for (int32_t try = 0; try < TRIES; try++) {
        draw_name(left, id, prefix, try);
        /* A folder may take the name of an empty one. */
        if (faccessat(folder, left, F_OK, AT_SYMLINK_NOFOLLOW) == 0)
            continue;
        if (renameat(folder, name, folder, left) != 0)
            return false;
        pf_folder_remove(folder, left);
        return true;
    }
    return false;
}

typedef struct {
    const char *prefix, *pending;
} clean_work;

static void clean_entry(void *payload, int folder, const char *name)
{
    const clean_work *w = payload;
    char id[PF_SAVE_ID];
    if (!pf_is_save_name(name, w->prefix, id))
        return;
    int left = openat(folder, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (left < 0)
        return;
    /* Held: its save is under way. The second rename of a save that was cut off is made up for. */
    if (flock(left, LOCK_EX | LOCK_NB) == 0 &&
        (w->pending == NULL || strcmp(w->pending, id) != 0 ||
         renameat(left, PF_CONFIG_NAME, folder, PF_CONFIG_NAME) == 0 || errno == ENOENT)) {
        if (w->pending != NULL && strcmp(w->pending, id) == 0)
            (void)fsync(folder);
        pf_folder_remove(folder, name);
    }
    close(left);
}

void pf_own_folder_clean(int folder, const char *prefix, const char *pending)
{
    clean_work w = {prefix, pending};
    pf_folder_each(folder, clean_entry, &w);
}
