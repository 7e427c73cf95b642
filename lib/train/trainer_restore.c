/* Going on with a saved run: what the run is must be the same, then the state is taken over. Until
 * that is known to succeed the trainer and its model are as before. */
#define _POSIX_C_SOURCE 200809L
#include <math.h>
#include <stdlib.h>
#include <unistd.h>

#include "pf_config.h"
#include "train/pf_evaluation.h"
#include "train/pf_saved.h"

#if PF_HAVE_JSON
#include <jansson.h>

/* ---------------------------------------------------------------- the same run */

/* A value as an error text shows it. */
static void show(char out[PF_NAME_ROOM], const json_t *value)
{
    char *text = value == NULL
                     ? NULL
                     : json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT | JSON_REAL_PRECISION(17));
    pf_show_name(out, text == NULL ? "missing" : text);
    free(text);
}

/* Numbers that another machine may round otherwise: their mean within 1e-5, which another
 * reference or reward model does not meet. */
static bool is_close(const json_t *a, const json_t *b)
{
    double x = json_number_value(json_object_get(a, "mean"));
    double y = json_number_value(json_object_get(b, "mean"));
    return json_equal(json_object_get(a, "finite"), json_object_get(b, "finite")) &&
           fabs(x - y) <= 1e-5 * (1 + fabs(x));
}

static bool is_same(const json_t *a, const json_t *b)
{
    if (json_is_object(a) && json_is_object(b))
        return is_close(a, b);
    return json_equal(a, b);
}

static int32_t differs(const char *where, const char *name, const json_t *saved, const json_t *own)
{
    char shown[PF_NAME_ROOM], a[PF_NAME_ROOM], b[PF_NAME_ROOM];
    pf_show_name(shown, name);
    show(a, saved);
    show(b, own);
    return pf_fail(PREFOPT_ERR_STATE, "%s: %s is %s, but this trainer's is %s", where, shown, a, b);
}

int32_t pf_describe_compare(const char *where, void *fields, const pf_describe *own)
{
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)own->fields, name, value)
    {
        const json_t *there = json_object_get(fields, name);
        if (there == NULL || !is_same(there, value))
            return differs(where, name, there, value);
    }
    json_object_foreach((json_t *)fields, name, value)
    {
        if (json_object_get(own->fields, name) == NULL)
            return differs(where, name, value, NULL);
    }
    return PREFOPT_OK;
}

static int32_t compare(const prefopt_trainer *trainer, const pf_saved *from)
{
    const json_t *name = json_object_get(from->root, "objective");
    if (!json_is_string(name))
        return pf_fail(PREFOPT_ERR_FORMAT, "%s: objective is missing or is not a string",
                       pf_show_path(from->trainer_path));
    if (strcmp(json_string_value(name), trainer->objective->name) != 0) {
        char shown[PF_NAME_ROOM];
        pf_show_name(shown, json_string_value(name));
        return pf_fail(PREFOPT_ERR_STATE, "%s: objective is \"%s\", but this trainer's is \"%s\"",
                       pf_show_path(from->trainer_path), shown, trainer->objective->name);
    }
    pf_describe own;
    int32_t status = pf_trainer_describe(trainer, &own);
    if (status == PREFOPT_OK)
        status = pf_describe_compare(pf_show_path(from->trainer_path), from->run, &own);
    pf_describe_clear(&own);
    return status;
}

/* ---------------------------------------------------------------- taking over */

typedef struct {
    int64_t step, steps;
    double extra, moment_bound;
    const void *moment[2][2]; /* in the file, of each slot */
    pf_evaluation evaluation;
    const void *best; /* in the file */
} numbers;

/* named: the step that the folder's name says, or -1. */
static int32_t read_step(const prefopt_trainer *trainer, pf_saved *from, int64_t named,
                         numbers *out)
{
    from->prefix = "trainer";
    PF_TRY(pf_saved_i64(from, "step", &out->step));
    if (trainer->has_extra)
        PF_TRY(pf_saved_f64(from, "extra", &out->extra));
    /* A run counts on from it. */
    if (out->step < 0 || out->step > INT64_MAX / 2)
        return pf_fail(PREFOPT_ERR_FORMAT, "%s: trainer.step is %lld, expected 0 to 2^62 - 1",
                       pf_show_path(from->trainer_path), (long long)out->step);
    if (named >= 0 && out->step != named)
        return pf_fail(PREFOPT_ERR_FORMAT,
                       "%s: trainer.step is %lld, but the folder is named after step %lld",
                       pf_show_path(from->trainer_path), (long long)out->step, (long long)named);
    if (trainer->has_extra && !(isfinite(out->extra) && out->extra >= trainer->extra_low))
        return pf_fail(PREFOPT_ERR_FORMAT, "%s: trainer.extra is %g, expected at least %g",
                       pf_show_path(from->trainer_path), out->extra, trainer->extra_low);
    return PREFOPT_OK;
}

static int32_t read_optimiser(const prefopt_trainer *trainer, pf_saved *from, numbers *out)
{
    static const char *const names[2][2] = {{"first", "second"}, {"extra.first", "extra.second"}};
    const pf_optimiser *optimiser = &trainer->optimiser;
    from->prefix = "optimiser";
    PF_TRY(pf_saved_i64(from, "steps", &out->steps));
    PF_TRY(pf_saved_f64(from, "moment_bound", &out->moment_bound));
    if (out->steps < 0 || out->steps > out->step)
        return pf_fail(PREFOPT_ERR_FORMAT, "%s: optimiser.steps is %lld, expected 0 to %lld",
                       pf_show_path(from->trainer_path), (long long)out->steps,
                       (long long)out->step);
    for (int32_t i = 0; i < optimiser->n_slots; i++) {
        const pf_slot *slot = &optimiser->slots[i];
        if (slot->first != NULL)
            PF_TRY(pf_saved_bytes(from, names[i][0], slot->dtype, slot->n, &out->moment[i][0]));
        if (slot->second != NULL)
            PF_TRY(pf_saved_bytes(from, names[i][1], slot->dtype, slot->n, &out->moment[i][1]));
    }
    return PREFOPT_OK;
}

static int32_t read_parameters(const prefopt_trainer *trainer, pf_saved *from, int32_t dtype,
                               int64_t n, void *value)
{
    pf_values values;
    PF_TRY(pf_trained_values(&trainer->model, &values));
    if (values.shape != NULL)
        return pf_saved_model(from, values.shape, value);
    from->prefix = "model";
    return pf_saved_array(from, "parameters", dtype, n, value);
}

static void exchange(void *a, void *b, int64_t n_bytes)
{
    enum { PART = 4096 };
    unsigned char part[PART], *x = a, *y = b;
    for (int64_t at = 0; at < n_bytes; at += PART) {
        size_t n = (size_t)(n_bytes - at < PART ? n_bytes - at : PART);
        memcpy(part, x + at, n);
        memcpy(x + at, y + at, n);
        memcpy(y + at, part, n);
    }
}

static int32_t restore_rest(prefopt_trainer *trainer, pf_saved *from)
{
    PF_TRY(pf_trained_updated(&trainer->model));
    from->prefix = trainer->objective->name;
    return trainer->objective->restore == NULL ? PREFOPT_OK
                                               : trainer->objective->restore(trainer, from);
}

/* Parameters and step first, as the objective is to see them; back again when it fails. */
static int32_t take(prefopt_trainer *trainer, pf_saved *from, const numbers *in,
                    const prefopt_parameters *parameters, void *other)
{
    int64_t step = trainer->step, n_bytes = parameters->n * pf_dtype_size(parameters->dtype);
    exchange(parameters->value, other, n_bytes);
    trainer->step = in->step;
    int32_t status = restore_rest(trainer, from);
    if (status != PREFOPT_OK) {
        trainer->step = step;
        exchange(parameters->value, other, n_bytes);
        (void)pf_trained_updated(&trainer->model);
        return status;
    }
    pf_optimiser *optimiser = &trainer->optimiser;
    for (int32_t i = 0; i < optimiser->n_slots; i++) {
        pf_slot *slot = &optimiser->slots[i];
        size_t size = (size_t)(slot->n * pf_dtype_size(slot->dtype));
        if (slot->first != NULL && size > 0)
            memcpy(slot->first, in->moment[i][0], size);
        if (slot->second != NULL && size > 0)
            memcpy(slot->second, in->moment[i][1], size);
    }
    optimiser->steps = in->steps;
    optimiser->moment_bound = in->moment_bound;
    optimiser->grad_norm = NAN;
    if (trainer->has_extra)
        trainer->extra = in->extra;
    pf_evaluation_adopt(trainer, &in->evaluation, in->best);
    return PREFOPT_OK;
}

static int32_t restore(prefopt_trainer *trainer, pf_saved *from, int64_t named)
{
    numbers in = {0};
    prefopt_parameters parameters = {.struct_size = sizeof parameters};
    PF_TRY(compare(trainer, from));
    PF_TRY(read_step(trainer, from, named, &in));
    PF_TRY(read_optimiser(trainer, from, &in));
    PF_TRY(pf_evaluation_read(trainer, from, &in.evaluation, &in.best));
    PF_TRY(pf_trained_parameters(&trainer->model, &parameters));
    void *other = pf_alloc(trainer->context, parameters.n, (size_t)pf_dtype_size(parameters.dtype));
    if (other == NULL)
        return PREFOPT_ERR_MEMORY;
    int32_t status = read_parameters(trainer, from, parameters.dtype, parameters.n, other);
    if (status == PREFOPT_OK)
        status = take(trainer, from, &in, &parameters, other);
    pf_free(trainer->context, other);
    return status;
}

/* The newest checkpoint in the directory and its step; none and -1 where the directory itself is
 * one. */
static int32_t find(const prefopt_trainer *trainer, const char *directory, char **folder,
                    int64_t *named)
{
    char name[PF_STEP_NAME], *file = NULL;
    int64_t step = -1;
    PF_TRY(pf_join(trainer->context, directory, PF_TRAINER_NAME, &file));
    bool is_checkpoint = access(file, F_OK) == 0;
    pf_free(trainer->context, file);
    if (is_checkpoint)
        return PREFOPT_OK;
    PF_TRY(pf_newest_step(directory, &step));
    if (step < 0)
        return pf_fail(PREFOPT_ERR_IO, "%s: has no checkpoint of a trainer",
                       pf_show_path(directory));
    pf_step_name(name, step);
    *named = step;
    return pf_join(trainer->context, directory, name, folder);
}

int32_t prefopt_trainer_restore(prefopt_trainer *trainer, const char *directory)
{
    PF_REQUIRE(trainer);
    PF_REQUIRE(directory);
    char *folder = NULL;
    pf_saved from;
    int64_t named = -1;
    int32_t status = find(trainer, directory, &folder, &named);
    if (status == PREFOPT_OK)
        status = pf_saved_open(&from, trainer->context, folder != NULL ? folder : directory);
    if (status == PREFOPT_OK) {
        status = restore(trainer, &from, named);
        pf_saved_close(&from);
    }
    pf_free(trainer->context, folder);
    return status < 0 ? pf_fail_in(status, "%s: restoring", trainer->objective->name) : status;
}

#else

int32_t prefopt_trainer_restore(prefopt_trainer *trainer, const char *directory)
{
    PF_REQUIRE(trainer);
    PF_REQUIRE(directory);
    return pf_fail(PREFOPT_ERR_UNSUPPORTED,
                   "%s: restoring trainers needs JSON, and this library was built without",
                   directory);
}

#endif
