/* Saving a trainer: a folder step-000000123 in a directory, whole or not at all.
 *
 * It is written under a name of the save's own, .trainer.ID.prefopt-save, every file and then the
 * folder flushed to disk, and renamed. trainer.json comes last: where it is, all is. Whoever is
 * killed leaves at most a folder of that name, which the next save removes. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/pf_file.h"
#include "model/pf_folder.h"
#include "pf_config.h"
#include "train/pf_evaluation.h"
#include "train/pf_saved.h"

static const prefopt_save_options defaults = {.struct_size = sizeof defaults};

int32_t prefopt_save_options_init(prefopt_save_options *options, uint32_t struct_size)
{
    return pf_struct_init(options, struct_size, &defaults, sizeof defaults, sizeof defaults,
                          "prefopt_save_options");
}

#if PF_HAVE_JSON
#include <jansson.h>

typedef struct {
    const prefopt_trainer *trainer;
    prefopt_context *context;
    const char *directory;
    pf_describe run;
    pf_save state;
    char run_id[17];
    char *text; /* of trainer.json; from JSON's allocator */
    char name[PF_STEP_NAME];
    char *folder; /* DIRECTORY/name */
    pf_own_folder own;
} saver;

/* ---------------------------------------------------------------- trainer.json */

/* Which run it is, by what every machine tells alike. */
static int32_t identify(saver *s)
{
    const char *name;
    json_t *value, *exact = json_object();
    bool good = exact != NULL;
    json_object_foreach((json_t *)s->run.fields, name, value)
    {
        if (good && !json_is_object(value))
            good = json_object_set(exact, name, value) == 0;
    }
    char *text = good ? json_dumps(exact, JSON_COMPACT | JSON_REAL_PRECISION(17)) : NULL;
    json_decref(exact);
    if (text == NULL)
        return pf_fail(PREFOPT_ERR_MEMORY, "out of memory for JSON");
    uint64_t hash = pf_content_hash(NULL, PF_HASH_START, text, (int64_t)strlen(text));
    hash = pf_hash(hash, s->trainer->objective->name, strlen(s->trainer->objective->name));
    snprintf(s->run_id, sizeof s->run_id, "%016llx", (unsigned long long)hash);
    free(text);
    return PREFOPT_OK;
}

static int32_t make_text(saver *s)
{
    json_t *root = json_pack("{s:s,s:i,s:s,s:s,s:s,s:I,s:O,s:O,s:O,s:O}", "format",
                             PF_TRAINER_FORMAT, "version", (int)PF_TRAINER_VERSION, "library",
                             prefopt_version_string(), "objective", s->trainer->objective->name,
                             "run", s->run_id, "step", (json_int_t)s->trainer->step, "options",
                             (json_t *)s->run.fields, "state", (json_t *)s->state.numbers, "arrays",
                             (json_t *)s->state.hashes, "datasets", (json_t *)s->state.datasets);
    s->text = root == NULL ? NULL : json_dumps(root, JSON_INDENT(1) | JSON_REAL_PRECISION(17));
    json_decref(root);
    return s->text == NULL ? pf_fail(PREFOPT_ERR_MEMORY, "out of memory for JSON") : PREFOPT_OK;
}

/* ---------------------------------------------------------------- the folder */

static int32_t write_dataset(const saver *s, int64_t i)
{
    char name[PF_SAVED_NAME + 8], *path;
    snprintf(name, sizeof name, "%s.jsonl", s->state.dataset_name[i]);
    PF_TRY(pf_join(s->context, s->own.path, name, &path));
    int32_t status = prefopt_dataset_write_jsonl(s->state.dataset[i], path);
    pf_free(s->context, path);
    return status;
}

static int32_t write_files(const saver *s)
{
    pf_values values;
    char *path;
    PF_TRY(pf_trained_values(&s->trainer->model, &values));
    if (values.shape != NULL)
        PF_TRY(pf_checkpoint_put(values.shape, s->own.path, values.value));
    PF_TRY(pf_join(s->context, s->own.path, PF_ARRAYS_NAME, &path));
    int32_t status =
        pf_safetensors_write_arrays(s->context, path, s->state.arrays, s->state.n_arrays);
    pf_free(s->context, path);
    for (int64_t i = 0; i < s->state.n_datasets && status == PREFOPT_OK; i++)
        status = write_dataset(s, i);
    if (status == PREFOPT_OK)
        status = pf_write_small(s->context, s->own.path, PF_TRAINER_NAME, s->text,
                                (int64_t)strlen(s->text));
    return status == PREFOPT_OK ? pf_flush_folder(s->own.path) : status;
}

/* Makes the directory where it is not there. */
static int32_t make_directory(const saver *s)
{
    struct stat info;
    if (mkdir(s->directory, 0777) == 0) {
        char *parent;
        PF_TRY(pf_join(s->context, s->directory, "..", &parent));
        int32_t status = pf_flush_folder(parent);
        pf_free(s->context, parent);
        return status;
    }
    if (errno != EEXIST)
        return pf_fail_errno(errno, "creating the folder", pf_show_path(s->directory));
    if (stat(s->directory, &info) != 0)
        return pf_fail_errno(errno, "looking at the folder", pf_show_path(s->directory));
    return S_ISDIR(info.st_mode)
               ? PREFOPT_OK
               : pf_fail(PREFOPT_ERR_IO, "%s: is no folder", pf_show_path(s->directory));
}

/* *whole: what trainer.json says is there too, and none of it is damaged. */
static int32_t check_whole(const saver *s, bool *whole)
{
    pf_saved from;
    pf_values values;
    *whole = false;
    PF_TRY(pf_trained_values(&s->trainer->model, &values));
    int32_t status = pf_saved_open(&from, s->context, s->folder);
    if (status != PREFOPT_OK)
        return status == PREFOPT_ERR_MEMORY ? status : PREFOPT_OK;
    float *value = NULL;
    if (values.shape != NULL) {
        value = pf_alloc(s->context, values.shape->n, sizeof *value);
        status = value == NULL ? PREFOPT_ERR_MEMORY : pf_saved_model(&from, values.shape, value);
        pf_free(s->context, value);
    }
    for (int64_t i = 0; i < s->state.n_datasets && status == PREFOPT_OK; i++) {
        char prefix[PF_SAVED_NAME];
        prefopt_dataset *data = NULL;
        snprintf(prefix, sizeof prefix, "%s", s->state.dataset_name[i]);
        char *point = strrchr(prefix, '.'); /* PREFIX.NAME */
        *point = 0;
        from.prefix = prefix;
        status = pf_saved_dataset(&from, point + 1, &data);
        prefopt_dataset_destroy(data);
    }
    pf_saved_close(&from);
    *whole = status == PREFOPT_OK;
    return status == PREFOPT_ERR_MEMORY ? status : PREFOPT_OK;
}

/* *same: the step's folder is there already, whole, and says what this one would. */
static int32_t look(const saver *s, int directory, bool *there, bool *same)
{
    struct stat info;
    char run[17], *bytes = NULL;
    int64_t n = 0;
    *there = fstatat(directory, s->name, &info, AT_SYMLINK_NOFOLLOW) == 0;
    *same = false;
    if (!*there)
        return PREFOPT_OK;
    PF_TRY(pf_step_run(s->context, directory, s->name, run));
    if (run[0] == 0)
        return pf_fail(PREFOPT_ERR_STATE, "%s: is there already, and is no checkpoint of a trainer",
                       pf_show_path(s->folder));
    if (strcmp(run, s->run_id) != 0)
        return pf_fail(PREFOPT_ERR_STATE,
                       "%s: is there already, and is a checkpoint of another run (%s, this one is "
                       "%s): options, data or model differ",
                       pf_show_path(s->folder), run, s->run_id);
    int folder = openat(directory, s->name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder < 0)
        return pf_fail_errno(errno, "opening the folder", pf_show_path(s->folder));
    int32_t status =
        pf_read_small(s->context, folder, PF_TRAINER_NAME, s->folder, PF_TRAINER_MOST, &bytes, &n);
    close(folder);
    *same = status == PREFOPT_OK && n == (int64_t)strlen(s->text) &&
            memcmp(bytes, s->text, (size_t)n) == 0;
    pf_free(s->context, bytes);
    if (status == PREFOPT_ERR_MEMORY)
        return status;
    return *same ? check_whole(s, same) : PREFOPT_OK;
}

/* Takes the place of a checkpoint of the same step. Where the two cannot change places at once
 * there is a moment with neither, and the directory's newest is the one before. */
static int32_t replace(saver *s)
{
    if (pf_folder_exchange(s->own.path, s->folder))
        return PREFOPT_OK; /* what is its own now is the old one */
    pf_own_folder old;
    PF_TRY(pf_own_folder_make(&old, s->context, s->directory, PF_TRAINER_PREFIX,
                              "creating a folder in it", s->directory));
    int32_t status = PREFOPT_OK;
    if (rename(s->folder, old.path) != 0)
        status = pf_fail_errno(errno, "renaming", pf_show_path(s->folder));
    else if (rename(s->own.path, s->folder) != 0) {
        status = pf_fail_errno(errno, "renaming what was written", pf_show_path(s->folder));
        (void)rename(old.path, s->folder);
    }
    pf_own_folder_remove(&old);
    return status;
}

static int32_t write_folder(saver *s, int directory)
{
    bool there, same;
    PF_TRY(look(s, directory, &there, &same));
    /* Whoever wrote it may have ended, or failed, before its name was on disk. */
    if (same)
        return pf_flush_folder(s->directory);
    PF_TRY(pf_own_folder_make(&s->own, s->context, s->directory, PF_TRAINER_PREFIX,
                              "creating a folder in it", s->directory));
    int32_t status = write_files(s);
    if (status == PREFOPT_OK && there)
        status = replace(s);
    else if (status == PREFOPT_OK && rename(s->own.path, s->folder) != 0)
        status = pf_fail_errno(errno, "renaming what was written", pf_show_path(s->folder));
    if (status == PREFOPT_OK) {
        status = pf_flush_folder(s->directory);
        /* While it is not known that the new one is on disk, one that it took the place of stays
         * until the next save. */
        if (status != PREFOPT_OK)
            pf_own_folder_leave(&s->own);
    }
    pf_own_folder_remove(&s->own);
    return status;
}

static int32_t save(saver *s, const prefopt_save_options *options)
{
    PF_TRY(pf_trainer_describe(s->trainer, &s->run));
    PF_TRY(pf_trainer_state(s->trainer, &s->state));
    PF_TRY(identify(s));
    PF_TRY(make_text(s));
    pf_step_name(s->name, s->trainer->step);
    PF_TRY(pf_join(s->context, s->directory, s->name, &s->folder));
    PF_TRY(make_directory(s));
    int directory = open(s->directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (directory < 0)
        return pf_fail_errno(errno, "opening the folder", pf_show_path(s->directory));
    pf_own_folder_clean(directory, PF_TRAINER_PREFIX, NULL);
    int32_t status = write_folder(s, directory);
    close(directory);
    int64_t best = options->keep_best != 0 ? s->trainer->evaluation->best_step : -1;
    if (status == PREFOPT_OK && options->keep > 0)
        pf_steps_prune(s->context, s->directory, s->run_id, options->keep, s->trainer->step, best);
    return status;
}

int32_t prefopt_trainer_save(const prefopt_trainer *trainer, const char *directory,
                             const prefopt_save_options *options)
{
    PF_REQUIRE(trainer);
    PF_REQUIRE(directory);
    prefopt_save_options own = defaults;
    if (options != NULL)
        PF_TRY(pf_struct_read(&own, sizeof own, sizeof own, options, "prefopt_save_options"));
    if (own.keep < 0)
        return pf_fail(PREFOPT_ERR_ARGUMENT, "keep is %lld, expected at least 0: all",
                       (long long)own.keep);
    if (own.keep_best != 0 && own.keep_best != 1)
        return pf_fail(PREFOPT_ERR_ARGUMENT, "keep_best is %d, expected 0 or 1", own.keep_best);
    if (own.keep_best == 1 && trainer->evaluation == NULL)
        return pf_fail(PREFOPT_ERR_ARGUMENT,
                       "keep_best is 1, but the trainer has no evaluation: expected 0");
    if (own.keep_best == 1 && own.keep == 0)
        return pf_fail(PREFOPT_ERR_ARGUMENT, "keep_best is 1, but keep is 0: all stay");
    saver s = {.trainer = trainer, .context = trainer->context, .directory = directory};
    int32_t status = save(&s, &own);
    pf_describe_clear(&s.run);
    pf_save_clear(&s.state);
    free(s.text);
    pf_free(s.context, s.folder);
    return status < 0 ? pf_fail_in(status, "%s: saving step %lld", trainer->objective->name,
                                   (long long)trainer->step)
                      : status;
}

#else

int32_t prefopt_trainer_save(const prefopt_trainer *trainer, const char *directory,
                             const prefopt_save_options *options)
{
    (void)options;
    PF_REQUIRE(trainer);
    PF_REQUIRE(directory);
    return pf_fail(PREFOPT_ERR_UNSUPPORTED,
                   "%s: saving trainers needs JSON, and this library was built without", directory);
}

#endif
