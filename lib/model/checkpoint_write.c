/* Writing a checkpoint: old or new, whole, whenever the process ends.
 *
 * Everything is written into a folder of the save's own, ".ID.prefopt-save" (with the name of the
 * checkpoint's folder before it where it stands beside that), flushed to disk, and then appears:
 *
 *   new folder                 its own folder is renamed.
 *   the same config.json       model.safetensors alone is renamed into the folder.
 *   another config.json        the folder's other files are linked into the save's own, and the two
 *                              folders change places (renameat2, RENAME_EXCHANGE).
 *   ... where they cannot      (a mount point, a file system or system call that lacks it, no right
 *                              to write beside it, or this process works in it): two renames, of
 *                              model.safetensors and then config.json. The tensors' file says the
 *                              ID, and while .ID.prefopt-save/config.json exists, that is the
 *                              configuration that a reader takes.
 *
 * A save holds a lock (flock) on its own folder. One that nobody holds was left by a process that
 * ended, and the next save removes it. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/pf_file.h"
#include "model/pf_checkpoint.h"
#include "model/pf_folder.h"

enum { BASE_SHOWN = 200, CONFIG_MOST = 1 << 20, TRIES = 100 };

typedef struct {
    prefopt_context *context;
    const pf_shape *shape;
    const float *value;
    int32_t dtype;
    char *folder;                /* real, without a slash at its end */
    char *parent;                /* of it */
    char prefix[BASE_SHOWN + 1]; /* its name: how folders of saves beside it begin */
    bool exists;
    char *config; /* text */
    int64_t n_config;
    /* the save's own folder */
    char id[PF_SAVE_ID];
    char *own;
    int own_descriptor;
} saver;

static bool is_ours(const char *name)
{
    return strcmp(name, PF_CONFIG_NAME) == 0 || strcmp(name, PF_WEIGHTS_NAME) == 0 ||
           strcmp(name, PF_INDEX_NAME) == 0 || pf_is_shard_name(name) ||
           pf_is_save_name(name, "", NULL);
}

static int32_t flush_folder(const char *path)
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

/* ---------------------------------------------------------------- where */

static int32_t copy_text(prefopt_context *context, const char *text, size_t n, char **out)
{
    *out = pf_alloc(context, (int64_t)n + 1, 1);
    if (*out == NULL)
        return PREFOPT_ERR_MEMORY;
    memcpy(*out, text, n);
    (*out)[n] = 0;
    return PREFOPT_OK;
}

/* The folder that is there, through links; or the name of one that is to be. */
static int32_t resolve(saver *s, const char *folder)
{
    struct stat info;
    char *real = NULL;
    int32_t status;
    if (stat(folder, &info) == 0) {
        if (!S_ISDIR(info.st_mode))
            return pf_fail(PREFOPT_ERR_IO, "%s: is no folder", pf_show_path(folder));
        real = realpath(folder, NULL);
        if (real == NULL)
            return pf_fail_errno(errno, "finding the folder", pf_show_path(folder));
        s->exists = true;
    } else if (errno != ENOENT || lstat(folder, &info) == 0) {
        return pf_fail_errno(errno, "looking for the folder", pf_show_path(folder));
    }
    const char *path = real != NULL ? real : folder;
    size_t n = strlen(path);
    while (n > 1 && path[n - 1] == '/')
        n--;
    status = copy_text(s->context, path, n, &s->folder);
    free(real);
    PF_TRY(status);
    const char *slash = strrchr(s->folder, '/');
    const char *base = slash == NULL ? s->folder : slash + 1;
    if (!s->exists && (base[0] == 0 || strcmp(base, "..") == 0 || strcmp(base, ".") == 0))
        return pf_fail_errno(ENOENT, "looking for the folder", pf_show_path(folder));
    snprintf(s->prefix, sizeof s->prefix, "%s", base);
    if (slash == NULL)
        return copy_text(s->context, ".", 1, &s->parent);
    return copy_text(s->context, s->folder, slash == s->folder ? 1 : (size_t)(slash - s->folder),
                     &s->parent);
}

/* Opens and locks a folder that nobody has. *errno_out tells why not. */
static int32_t make_own(saver *s, bool inside)
{
    char name[BASE_SHOWN + PF_SAVE_NAME + 1], end[PF_SAVE_NAME];
    int error = EEXIST;
    for (int32_t try = 0; try < TRIES && error == EEXIST; try++) {
        struct timespec now;
        struct stat info;
        clock_gettime(CLOCK_MONOTONIC, &now);
        uint64_t unique =
            pf_stream((uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec,
                      (uint64_t)getpid() << 16 | (uint64_t)try);
        snprintf(s->id, sizeof s->id, "%016llx", (unsigned long long)unique);
        pf_save_name(end, s->id);
        snprintf(name, sizeof name, "%s%s", inside ? "" : s->prefix, end);
        PF_TRY(pf_join(s->context, inside ? s->folder : s->parent, name, &s->own));
        error = mkdir(s->own, 0777) == 0 ? 0 : errno;
        if (error == 0) {
            s->own_descriptor = open(s->own, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
            error = s->own_descriptor >= 0 ? 0 : errno;
            /* Another save may take it for a leftover before it is locked. */
            if (error == ENOENT ||
                (error == 0 &&
                 ((flock(s->own_descriptor, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) ||
                  (fstat(s->own_descriptor, &info) == 0 && info.st_nlink == 0))))
                error = EEXIST;
            if (error == 0)
                return PREFOPT_OK;
            rmdir(s->own);
        }
        if (s->own_descriptor >= 0)
            close(s->own_descriptor);
        s->own_descriptor = -1;
        pf_free(s->context, s->own);
        s->own = NULL;
    }
    return pf_fail_errno(error, inside ? "creating a folder in it" : "creating a folder beside it",
                         pf_show_path(s->folder));
}

static void remove_own(saver *s)
{
    if (s->own == NULL)
        return;
    pf_folder_remove(AT_FDCWD, s->own);
    close(s->own_descriptor);
    pf_free(s->context, s->own);
    s->own = NULL;
    s->own_descriptor = -1;
}

/* ---------------------------------------------------------------- leftovers */

typedef struct {
    const saver *saver;
    const char *prefix;
    const char *pending; /* ID of the tensors in the folder; NULL: they have none */
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

/* Removes what saves that were cut off have left. */
static void clean(const saver *s, bool inside)
{
    clean_work w = {.saver = s, .prefix = inside ? "" : s->prefix};
    pf_safetensors weights = {0};
    int folder = open(inside ? s->folder : s->parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder < 0)
        return;
    int32_t status = PREFOPT_OK;
    if (inside && faccessat(folder, PF_WEIGHTS_NAME, F_OK, 0) == 0)
        status = pf_safetensors_open(&weights, s->context, folder, PF_WEIGHTS_NAME, s->folder);
    w.pending = weights.save;
    /* Where the tensors could not be read, a leftover may be part of them. */
    if (status == PREFOPT_OK || status == PREFOPT_ERR_FORMAT)
        pf_folder_each(folder, clean_entry, &w);
    pf_safetensors_close(&weights);
    close(folder);
}

/* The files of shards: model.safetensors stands before them. */
static void drop_shard(void *payload, int folder, const char *name)
{
    (void)payload;
    if (strcmp(name, PF_INDEX_NAME) == 0 || pf_is_shard_name(name))
        unlinkat(folder, name, 0);
}

/* ---------------------------------------------------------------- what is written */

static int32_t write_config(const saver *s)
{
    char *path;
    pf_file *file;
    PF_TRY(pf_join(s->context, s->own, PF_CONFIG_NAME, &path));
    int32_t status = pf_file_create(&file, s->context, path);
    if (status == PREFOPT_OK) {
        status = pf_file_put(file, s->config, s->n_config);
        if (status == PREFOPT_OK)
            status = pf_file_commit(file);
        else
            pf_file_abandon(file);
    }
    pf_free(s->context, path);
    return status;
}

/* Into the save's own folder. */
static int32_t write_files(const saver *s, bool with_config, const char *save)
{
    char *path;
    if (with_config)
        PF_TRY(write_config(s));
    PF_TRY(pf_join(s->context, s->own, PF_WEIGHTS_NAME, &path));
    int32_t status = pf_safetensors_write(s->context, path, s->shape->tensors, s->shape->n_tensors,
                                          s->value, s->dtype, save);
    pf_free(s->context, path);
    return status == PREFOPT_OK ? flush_folder(s->own) : status;
}

/* A file that replaces another has its permissions. */
static void keep_mode(const saver *s, int folder, const char *name)
{
    struct stat info;
    if (fstatat(folder, name, &info, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(info.st_mode))
        (void)fchmodat(s->own_descriptor, name, info.st_mode & 07777, 0);
}

/* *same: false also where there is none, or none that can be read. */
static int32_t has_same_config(const saver *s, int folder, bool *same)
{
    char *bytes = NULL;
    int64_t n = 0;
    *same = false;
    if (faccessat(folder, PF_CONFIG_NAME, F_OK, 0) != 0)
        return PREFOPT_OK;
    int32_t status =
        pf_read_small(s->context, folder, PF_CONFIG_NAME, s->folder, CONFIG_MOST, &bytes, &n);
    if (status != PREFOPT_OK)
        return status == PREFOPT_ERR_MEMORY ? status : PREFOPT_OK;
    *same = n == s->n_config && memcmp(bytes, s->config, (size_t)n) == 0;
    pf_free(s->context, bytes);
    return PREFOPT_OK;
}

/* ---------------------------------------------------------------- how it appears */

static int32_t save_new(saver *s)
{
    PF_TRY(make_own(s, false));
    PF_TRY(write_files(s, true, NULL));
    if (rename(s->own, s->folder) != 0)
        return pf_fail_errno(errno, "renaming what was written", pf_show_path(s->folder));
    return flush_folder(s->parent);
}

static int32_t rename_into(const saver *s, const char *name)
{
    char *from = NULL, *to = NULL;
    int32_t status = pf_join(s->context, s->own, name, &from);
    if (status == PREFOPT_OK)
        status = pf_join(s->context, s->folder, name, &to);
    if (status == PREFOPT_OK && rename(from, to) != 0)
        status = pf_fail_errno(errno, "renaming what was written", pf_show_path(to));
    pf_free(s->context, from);
    pf_free(s->context, to);
    return status;
}

/* Closes the save's own folder and leaves it: readers take its configuration. */
static void leave_own(saver *s)
{
    close(s->own_descriptor);
    pf_free(s->context, s->own);
    s->own = NULL;
    s->own_descriptor = -1;
}

/* The tensors are on disk under their name before the configuration is. */
static int32_t rename_both(saver *s, bool with_config)
{
    PF_TRY(rename_into(s, PF_WEIGHTS_NAME));
    int32_t status = flush_folder(s->folder);
    if (!with_config)
        return status;
    int32_t second = status == PREFOPT_OK ? rename_into(s, PF_CONFIG_NAME) : status;
    if (second != PREFOPT_OK) {
        leave_own(s);
        return second;
    }
    return flush_folder(s->folder);
}

/* Files into the folder: the tensors, then the configuration. */
static int32_t save_inside(saver *s, int folder, bool with_config)
{
    PF_TRY(make_own(s, true));
    PF_TRY(write_files(s, with_config, with_config ? s->id : NULL));
    keep_mode(s, folder, PF_WEIGHTS_NAME);
    if (with_config)
        keep_mode(s, folder, PF_CONFIG_NAME);
    PF_TRY(flush_folder(s->folder));
    /* Two saves to one folder take turns. */
    (void)flock(folder, LOCK_EX);
    int32_t status = rename_both(s, with_config);
    (void)flock(folder, LOCK_UN);
    if (status == PREFOPT_OK)
        pf_folder_each(folder, drop_shard, NULL);
    return status;
}

/* Whether the folder may change places with another beside it. */
static bool may_exchange(const saver *s, int folder)
{
    struct stat own, parent, working;
    return s->prefix[0] != 0 && fstat(folder, &own) == 0 && stat(s->parent, &parent) == 0 &&
           own.st_dev == parent.st_dev && own.st_ino != parent.st_ino &&
           (stat(".", &working) != 0 || working.st_dev != own.st_dev ||
            working.st_ino != own.st_ino);
}

/* *done: false where the folders cannot change places; then all is as before. */
static int32_t save_exchange(saver *s, int folder, bool *done)
{
#ifdef SYS_renameat2
    enum { EXCHANGE = 1 << 1 };
    struct stat info;
    int32_t made = make_own(s, false);
    if (made != PREFOPT_OK)
        return made == PREFOPT_ERR_MEMORY ? made : PREFOPT_OK;
    PF_TRY(write_files(s, true, NULL));
    keep_mode(s, folder, PF_WEIGHTS_NAME);
    keep_mode(s, folder, PF_CONFIG_NAME);
    if (pf_folder_mirror(folder, s->own_descriptor, is_ours) == PREFOPT_OK &&
        fstat(folder, &info) == 0 && fchmod(s->own_descriptor, info.st_mode & 07777) == 0) {
        if (fchown(s->own_descriptor, info.st_uid, info.st_gid) != 0) {
            /* It stays this process's. */
        }
        PF_TRY(flush_folder(s->own));
        *done = syscall(SYS_renameat2, AT_FDCWD, s->own, AT_FDCWD, s->folder, EXCHANGE) == 0;
    }
    if (*done) {
        int32_t status = flush_folder(s->parent);
        pf_folder_rescue(folder, s->own_descriptor, is_ours);
        remove_own(s);
        return status;
    }
    remove_own(s);
#else
    (void)s, (void)folder, (void)done;
#endif
    return PREFOPT_OK;
}

static int32_t save_existing(saver *s)
{
    bool done = false;
    int folder = open(s->folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder < 0)
        return pf_fail_errno(errno, "opening the folder", pf_show_path(s->folder));
    bool same;
    int32_t status = has_same_config(s, folder, &same);
    if (status == PREFOPT_OK && !same && may_exchange(s, folder))
        status = save_exchange(s, folder, &done);
    if (status == PREFOPT_OK && !done)
        status = save_inside(s, folder, !same);
    close(folder);
    return status;
}

int32_t pf_checkpoint_write(const pf_shape *shape, const char *folder, const float *value,
                            int32_t dtype)
{
    if (dtype != PREFOPT_F32 && dtype != PREFOPT_F16 && dtype != PREFOPT_BF16)
        return pf_fail(PREFOPT_ERR_ARGUMENT,
                       "dtype is %d, expected PREFOPT_F32, PREFOPT_F16 or PREFOPT_BF16", dtype);
    saver s = {.context = shape->context,
               .shape = shape,
               .value = value,
               .dtype = dtype,
               .own_descriptor = -1};
    int32_t status =
        pf_safetensors_check(s.context, shape->tensors, shape->n_tensors, value, dtype);
    if (status == PREFOPT_OK)
        status =
            pf_config_text(s.context, &shape->config, shape->head, dtype, &s.config, &s.n_config);
    if (status == PREFOPT_OK)
        status = resolve(&s, folder);
    if (status == PREFOPT_OK) {
        clean(&s, false);
        if (s.exists)
            clean(&s, true);
        status = s.exists ? save_existing(&s) : save_new(&s);
    }
    remove_own(&s);
    pf_free(s.context, s.folder);
    pf_free(s.context, s.parent);
    pf_free(s.context, s.config);
    return status;
}
