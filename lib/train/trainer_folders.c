/* The folders of a directory of checkpoints: step-000000123, and which of them go. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/pf_file.h"
#include "model/pf_folder.h"
#include "pf_config.h"
#include "train/pf_saved.h"

void pf_step_name(char out[PF_STEP_NAME], int64_t step)
{
    snprintf(out, PF_STEP_NAME, "step-%09lld", (long long)step);
}

int64_t pf_step_of(const char *name)
{
    char again[PF_STEP_NAME];
    if (strncmp(name, "step-", 5) != 0 || strlen(name) >= sizeof again)
        return -1;
    errno = 0;
    long long step = strtoll(name + 5, NULL, 10);
    if (step < 0 || errno != 0)
        return -1;
    pf_step_name(again, step);
    return strcmp(again, name) == 0 ? step : -1;
}

/* ---------------------------------------------------------------- the newest */

static void newest_entry(void *payload, int folder, const char *name)
{
    int64_t *newest = payload, step = pf_step_of(name);
    char path[PF_STEP_NAME + sizeof PF_TRAINER_NAME + 1];
    if (step <= *newest)
        return;
    snprintf(path, sizeof path, "%s/%s", name, PF_TRAINER_NAME);
    if (faccessat(folder, path, F_OK, 0) == 0)
        *newest = step;
}

int32_t pf_newest_step(const char *directory, int64_t *step)
{
    int64_t newest = -1;
    int folder = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder < 0 && errno != ENOENT)
        return pf_fail_errno(errno, "opening the folder", pf_show_path(directory));
    bool listed = folder < 0 || pf_folder_each(folder, newest_entry, &newest);
    int error = errno;
    if (folder >= 0)
        close(folder);
    if (!listed)
        return pf_fail_errno(error, "listing the folder", pf_show_path(directory));
    *step = newest;
    return PREFOPT_OK;
}

int32_t prefopt_checkpoint_latest(const char *directory, int64_t *step, char *path,
                                  int64_t capacity, int64_t *n_bytes)
{
    PF_REQUIRE(directory);
    PF_REQUIRE(step);
    if (capacity < 0)
        return pf_fail(PREFOPT_ERR_ARGUMENT, "capacity is %lld, expected at least 0",
                       (long long)capacity);
    if (capacity > 0)
        PF_REQUIRE(path);
    int64_t newest;
    PF_TRY(pf_newest_step(directory, &newest));
    size_t n = strlen(directory);
    const char *slash = n > 0 && directory[n - 1] == '/' ? "" : "/";
    char name[PF_STEP_NAME];
    pf_step_name(name, newest < 0 ? 0 : newest);
    int64_t needed = newest < 0 ? 1 : (int64_t)(n + strlen(slash) + strlen(name)) + 1;
    if (capacity > 0 && needed > capacity)
        return pf_fail(PREFOPT_ERR_ARGUMENT,
                       "capacity is %lld, expected at least %lld for the path", (long long)capacity,
                       (long long)needed);
    if (capacity > 0 && newest < 0)
        path[0] = 0;
    else if (capacity > 0)
        snprintf(path, (size_t)capacity, "%s%s%s", directory, slash, name);
    if (n_bytes != NULL)
        *n_bytes = needed;
    *step = newest;
    return PREFOPT_OK;
}

/* ---------------------------------------------------------------- whose they are */

#if PF_HAVE_JSON
#include <jansson.h>

int32_t pf_step_run(prefopt_context *context, int directory, const char *name, char run[17])
{
    char *bytes = NULL;
    int64_t n = 0;
    json_t *root = NULL;
    json_error_t error;
    run[0] = 0;
    int folder = openat(directory, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (folder < 0)
        return PREFOPT_OK;
    int32_t status = pf_read_small(context, folder, PF_TRAINER_NAME, PF_TRAINER_NAME,
                                   PF_TRAINER_MOST, &bytes, &n);
    close(folder);
    if (status == PREFOPT_OK && !pf_too_nested(bytes, n)) {
        root = json_loadb(bytes, (size_t)n, JSON_REJECT_DUPLICATES, &error);
        if (root == NULL && json_error_code(&error) == json_error_out_of_memory)
            status = pf_fail(PREFOPT_ERR_MEMORY, "out of memory for JSON");
    }
    const char *format = json_string_value(json_object_get(root, "format"));
    const char *text = json_string_value(json_object_get(root, "run"));
    if (format != NULL && strcmp(format, PF_TRAINER_FORMAT) == 0 && text != NULL &&
        pf_is_save_id(text))
        memcpy(run, text, 17);
    json_decref(root);
    pf_free(context, bytes);
    return status == PREFOPT_ERR_MEMORY ? status : PREFOPT_OK;
}

#else

int32_t pf_step_run(prefopt_context *context, int directory, const char *name, char run[17])
{
    (void)context, (void)directory, (void)name;
    run[0] = 0;
    return PREFOPT_OK;
}

#endif

/* ---------------------------------------------------------------- pruning */

typedef struct {
    prefopt_context *context;
    const char *run;
    int64_t *steps;
    int64_t n, capacity;
    bool failed;
} prune_work;

static void prune_entry(void *payload, int folder, const char *name)
{
    prune_work *w = payload;
    char run[17];
    int64_t step = pf_step_of(name);
    if (step < 0 || w->failed)
        return;
    w->failed = pf_step_run(w->context, folder, name, run) != PREFOPT_OK;
    if (w->failed || strcmp(run, w->run) != 0)
        return;
    if (pf_grow(w->context, (void **)&w->steps, w->n, &w->capacity, w->n + 1, sizeof *w->steps) !=
        PREFOPT_OK) {
        w->failed = true;
        return;
    }
    w->steps[w->n++] = step;
}

static int descending(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x < y) - (x > y);
}

void pf_steps_prune(prefopt_context *context, const char *directory, const char *run, int64_t keep,
                    int64_t written, int64_t best)
{
    prune_work w = {.context = context, .run = run};
    char name[PF_STEP_NAME];
    int folder = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder >= 0) {
        w.failed |= !pf_folder_each(folder, prune_entry, &w);
        if (w.n > 0)
            qsort(w.steps, (size_t)w.n, sizeof *w.steps, descending);
        for (int64_t i = keep; i < w.n && !w.failed; i++) {
            pf_step_name(name, w.steps[i]);
            if (w.steps[i] != written && w.steps[i] != best &&
                !pf_own_folder_discard(folder, PF_TRAINER_PREFIX, name))
                pf_log(context, PREFOPT_LOG_WARNING, "%s: %s could not be removed, and stays",
                       pf_show_path(directory), name);
        }
        close(folder);
    }
    if (folder < 0 || w.failed)
        pf_log(context, PREFOPT_LOG_WARNING, "%s: old checkpoints could not be listed, and stay",
               pf_show_path(directory));
    pf_free(context, w.steps);
}
