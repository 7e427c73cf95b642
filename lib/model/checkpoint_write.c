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
#include <unistd.h>

#include "base/pf_file.h"
#include "model/pf_folder.h"
#include "model/pf_own_folder.h"

enum { CONFIG_MOST = 1 << 20 };

typedef struct {
    prefopt_context *context;
    const pf_shape *shape;
    const float *value;
    int32_t dtype;
    bool pass;                        /* nobody will read it soon */
    char *folder;                     /* real, without a slash at its end */
    char *parent;                     /* of it */
    char prefix[PF_PREFIX_SHOWN + 1]; /* its name: how folders of saves beside it begin */
    bool exists;
    char *config; /* text */
    int64_t n_config;
    pf_own_folder own; /* the save's own folder */
} saver;

static bool is_ours(const char *name)
{
    return strcmp(name, PF_CONFIG_NAME) == 0 || strcmp(name, PF_WEIGHTS_NAME) == 0 ||
           strcmp(name, PF_INDEX_NAME) == 0 || pf_is_shard_name(name) ||
           pf_is_save_name(name, "", NULL);
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

/* The save's own folder, inside the checkpoint's or beside it. */
static int32_t make_own(saver *s, bool inside)
{
    return pf_own_folder_make(
        &s->own, s->context, inside ? s->folder : s->parent, inside ? "" : s->prefix,
        inside ? "creating a folder in it" : "creating a folder beside it", s->folder);
}

/* Removes what saves that were cut off have left. */
static void clean(const saver *s, bool inside)
{
    pf_safetensors weights = {0};
    int folder = open(inside ? s->folder : s->parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder < 0)
        return;
    int32_t status = PREFOPT_OK;
    if (inside && faccessat(folder, PF_WEIGHTS_NAME, F_OK, 0) == 0)
        status = pf_safetensors_open(&weights, s->context, folder, PF_WEIGHTS_NAME, s->folder);
    /* Where the tensors could not be read, a leftover may be part of them. */
    if (status == PREFOPT_OK || status == PREFOPT_ERR_FORMAT)
        pf_own_folder_clean(folder, inside ? "" : s->prefix, weights.save);
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

/* Into a folder that is there. */
static int32_t write_files(const saver *s, const char *folder, bool with_config, const char *save)
{
    char *path;
    if (with_config)
        PF_TRY(pf_write_small(s->context, folder, PF_CONFIG_NAME, s->config, s->n_config));
    PF_TRY(pf_join(s->context, folder, PF_WEIGHTS_NAME, &path));
    int32_t status = pf_safetensors_write(s->context, path, s->shape->tensors, s->shape->n_tensors,
                                          s->value, s->dtype, save, s->pass);
    pf_free(s->context, path);
    return status == PREFOPT_OK ? pf_flush_folder(folder) : status;
}

/* A file that replaces another has its permissions. */
static void keep_mode(const saver *s, int folder, const char *name)
{
    struct stat info;
    if (fstatat(folder, name, &info, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(info.st_mode))
        (void)fchmodat(s->own.descriptor, name, info.st_mode & 07777, 0);
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
    PF_TRY(write_files(s, s->own.path, true, NULL));
    if (rename(s->own.path, s->folder) != 0)
        return pf_fail_errno(errno, "renaming what was written", pf_show_path(s->folder));
    return pf_flush_folder(s->parent);
}

static int32_t rename_into(const saver *s, const char *name)
{
    char *from = NULL, *to = NULL;
    int32_t status = pf_join(s->context, s->own.path, name, &from);
    if (status == PREFOPT_OK)
        status = pf_join(s->context, s->folder, name, &to);
    if (status == PREFOPT_OK && rename(from, to) != 0)
        status = pf_fail_errno(errno, "renaming what was written", pf_show_path(to));
    pf_free(s->context, from);
    pf_free(s->context, to);
    return status;
}

/* The tensors are on disk under their name before the configuration is. */
static int32_t rename_both(saver *s, bool with_config)
{
    PF_TRY(rename_into(s, PF_WEIGHTS_NAME));
    int32_t status = pf_flush_folder(s->folder);
    if (!with_config)
        return status;
    int32_t second = status == PREFOPT_OK ? rename_into(s, PF_CONFIG_NAME) : status;
    if (second != PREFOPT_OK) {
        pf_own_folder_leave(&s->own); /* readers take its configuration */
        return second;
    }
    return pf_flush_folder(s->folder);
}

/* Files into the folder: the tensors, then the configuration. */
static int32_t save_inside(saver *s, int folder, bool with_config)
{
    PF_TRY(make_own(s, true));
    PF_TRY(write_files(s, s->own.path, with_config, with_config ? s->own.id : NULL));
    keep_mode(s, folder, PF_WEIGHTS_NAME);
    if (with_config)
        keep_mode(s, folder, PF_CONFIG_NAME);
    PF_TRY(pf_flush_folder(s->folder));
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
    struct stat info;
    int32_t made = make_own(s, false);
    if (made != PREFOPT_OK)
        return made == PREFOPT_ERR_MEMORY ? made : PREFOPT_OK;
    PF_TRY(write_files(s, s->own.path, true, NULL));
    keep_mode(s, folder, PF_WEIGHTS_NAME);
    keep_mode(s, folder, PF_CONFIG_NAME);
    if (pf_folder_mirror(folder, s->own.descriptor, is_ours) == PREFOPT_OK &&
        fstat(folder, &info) == 0 && fchmod(s->own.descriptor, info.st_mode & 07777) == 0) {
        if (fchown(s->own.descriptor, info.st_uid, info.st_gid) != 0) {
            /* It stays this process's. */
        }
        PF_TRY(pf_flush_folder(s->own.path));
        *done = pf_folder_exchange(s->own.path, s->folder);
    }
    if (*done) {
        int32_t status = pf_flush_folder(s->parent);
        pf_folder_rescue(folder, s->own.descriptor, is_ours);
        pf_own_folder_remove(&s->own);
        return status;
    }
    pf_own_folder_remove(&s->own);
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

/* The values are finite, and there is the text of the configuration. */
static int32_t prepare(saver *s)
{
    PF_TRY(pf_safetensors_check(s->context, s->shape->tensors, s->shape->n_tensors, s->value,
                                s->dtype));
    return pf_config_text(s->context, &s->shape->config, s->shape->head, s->dtype, &s->config,
                          &s->n_config);
}

int32_t pf_checkpoint_put(const pf_shape *shape, const char *folder, const float *value)
{
    saver s = {.context = shape->context,
               .shape = shape,
               .value = value,
               .dtype = PREFOPT_F32,
               .pass = true};
    int32_t status = prepare(&s);
    if (status == PREFOPT_OK)
        status = write_files(&s, folder, true, NULL);
    pf_free(s.context, s.config);
    return status;
}

int32_t pf_checkpoint_write(const pf_shape *shape, const char *folder, const float *value,
                            int32_t dtype)
{
    if (dtype != PREFOPT_F32 && dtype != PREFOPT_F16 && dtype != PREFOPT_BF16)
        return pf_fail(PREFOPT_ERR_ARGUMENT,
                       "dtype is %d, expected PREFOPT_F32, PREFOPT_F16 or PREFOPT_BF16", dtype);
    saver s = {.context = shape->context, .shape = shape, .value = value, .dtype = dtype};
    int32_t status = prepare(&s);
    if (status == PREFOPT_OK)
        status = resolve(&s, folder);
    if (status == PREFOPT_OK) {
        clean(&s, false);
        if (s.exists)
            clean(&s, true);
        status = s.exists ? save_existing(&s) : save_new(&s);
    }
    pf_own_folder_remove(&s.own);
    pf_free(s.context, s.folder);
    pf_free(s.context, s.parent);
    pf_free(s.context, s.config);
    return status;
}
