/* Names and small files of a checkpoint's folder. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/pf_file.h"
#include "model/pf_checkpoint.h"

int32_t pf_join(prefopt_context *context, const char *a, const char *b, char **out)
{
    size_t n = strlen(a) + strlen(b) + 2;
    char *joined = pf_alloc(context, (int64_t)n, 1);
    if (joined == NULL)
        return PREFOPT_ERR_MEMORY;
    bool slash = a[0] != 0 && a[strlen(a) - 1] == '/';
    snprintf(joined, n, "%s%s%s", a, slash ? "" : "/", b);
    *out = joined;
    return PREFOPT_OK;
}

static int32_t read_open(prefopt_context *context, int descriptor, const char *path, int64_t most,
                         char **out, int64_t *n_out)
{
    struct stat info;
    if (fstat(descriptor, &info) != 0)
        return pf_fail_errno(errno, "looking at the file", pf_show_path(path));
    if (!S_ISREG(info.st_mode))
        return pf_fail(PREFOPT_ERR_IO, "%s: is no regular file", pf_show_path(path));
    if (info.st_size > most)
        return pf_fail(PREFOPT_ERR_FORMAT, "%s: has %lld bytes, expected at most %lld",
                       pf_show_path(path), (long long)info.st_size, (long long)most);
    char *bytes = pf_alloc(context, info.st_size, 1);
    if (bytes == NULL)
        return PREFOPT_ERR_MEMORY;
    int64_t n = 0;
    for (ssize_t got = 1; n < info.st_size && got != 0; n += got) {
        do
            got = read(descriptor, bytes + n, (size_t)(info.st_size - n));
        while (got < 0 && errno == EINTR);
        if (got < 0) {
            int32_t status = pf_fail_errno(errno, "reading", pf_show_path(path));
            pf_free(context, bytes);
            return status;
        }
    }
    *out = bytes;
    *n_out = n;
    return PREFOPT_OK;
}

int32_t pf_read_small(prefopt_context *context, int folder, const char *name, const char *path,
                      int64_t most, char **bytes, int64_t *n)
{
    /* Not blocking: a pipe under this name would wait for its writer. */
    int descriptor = openat(folder, name, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (descriptor < 0)
        return pf_fail_errno(errno, "opening", pf_show_path(path));
    int32_t status = read_open(context, descriptor, path, most, bytes, n);
    close(descriptor);
    return status;
}

int32_t pf_write_small(prefopt_context *context, const char *folder, const char *name,
                       const char *bytes, int64_t n)
{
    char *path;
    pf_file *file;
    PF_TRY(pf_join(context, folder, name, &path));
    int32_t status = pf_file_create(&file, context, path);
    if (status == PREFOPT_OK) {
        status = pf_file_put(file, bytes, n);
        if (status == PREFOPT_OK)
            status = pf_file_commit(file);
        else
            pf_file_abandon(file);
    }
    pf_free(context, path);
    return status;
}

bool pf_is_save_id(const char *id)
{
    return strlen(id) == PF_SAVE_ID - 1 && strspn(id, "0123456789abcdef") == PF_SAVE_ID - 1;
}

void pf_save_name(char out[PF_SAVE_NAME], const char *id)
{
    snprintf(out, PF_SAVE_NAME, ".%.16s%s", id, PF_SAVE_SUFFIX);
}

bool pf_is_save_name(const char *name, const char *prefix, char id[PF_SAVE_ID])
{
    char own[PF_SAVE_ID], whole[PF_SAVE_NAME];
    size_t n = strlen(prefix);
    if (strncmp(name, prefix, n) != 0 || strlen(name + n) != PF_SAVE_NAME - 1)
        return false;
    memcpy(own, name + n + 1, PF_SAVE_ID - 1);
    own[PF_SAVE_ID - 1] = 0;
    pf_save_name(whole, own);
    if (!pf_is_save_id(own) || strcmp(name + n, whole) != 0)
        return false;
    if (id != NULL)
        memcpy(id, own, sizeof own);
    return true;
}

bool pf_is_shard_name(const char *name)
{
    static const char like[] = "model-00000-of-00000.safetensors";
    if (strlen(name) != sizeof like - 1)
        return false;
    for (size_t i = 0; i < sizeof like - 1; i++)
        if (like[i] == '0' ? name[i] < '0' || name[i] > '9' : name[i] != like[i])
            return false;
    return true;
}
