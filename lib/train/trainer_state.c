/* What a trainer's next step depends on beside what the run is: gathered for a save. */
#include <math.h>
#include <stdio.h>

#include "model/pf_reference.h"
#include "pf_config.h"
#include "train/pf_evaluation.h"
#include "train/pf_saved.h"

#if PF_HAVE_JSON
#include <jansson.h>

static int32_t whole_name(const pf_save *to, const char *name, char out[PF_SAVED_NAME])
{
    int n = snprintf(out, PF_SAVED_NAME, "%s.%s", to->prefix, name);
    return n < PF_SAVED_NAME ? PREFOPT_OK
                             : pf_fail(PREFOPT_ERR_ARGUMENT, "saving: %s.%s is too long a name",
                                       to->prefix, name);
}

static int32_t set(json_t *object, const char *name, json_t *value)
{
    return json_object_set_new(object, name, value) == 0
               ? PREFOPT_OK
               : pf_fail(PREFOPT_ERR_MEMORY, "out of memory for JSON");
}

static json_t *hash_text(uint64_t hash)
{
    char text[17];
    snprintf(text, sizeof text, "%016llx", (unsigned long long)hash);
    return json_string(text);
}

int32_t pf_save_i64(pf_save *to, const char *name, int64_t value)
{
    char whole[PF_SAVED_NAME];
    PF_TRY(whole_name(to, name, whole));
    return set(to->numbers, whole, json_integer(value));
}

int32_t pf_save_f64(pf_save *to, const char *name, double value)
{
    char whole[PF_SAVED_NAME];
    PF_TRY(whole_name(to, name, whole));
    return set(to->numbers, whole,
               isfinite(value) ? json_real(value)
                               : json_string(isnan(value) ? "NaN"
                                             : value > 0  ? "Infinity"
                                                          : "-Infinity"));
}

int32_t pf_save_array(pf_save *to, const char *name, int32_t dtype, int64_t n, const void *value)
{
    if (to->n_arrays == PF_SAVED_ARRAYS)
        return pf_fail(PREFOPT_ERR_ARGUMENT, "saving: more than %d arrays", (int)PF_SAVED_ARRAYS);
    char *whole = to->array_name[to->n_arrays];
    PF_TRY(whole_name(to, name, whole));
    to->arrays[to->n_arrays++] = (pf_array){.name = whole, .dtype = dtype, .n = n, .value = value};
    return set(
        to->hashes, whole,
        hash_text(pf_content_hash(to->context, (uint64_t)dtype, value, n * pf_dtype_size(dtype))));
}

int32_t pf_save_dataset(pf_save *to, const char *name, const prefopt_dataset *data)
{
    uint64_t hash;
    if (to->n_datasets == PF_SAVED_DATASETS)
        return pf_fail(PREFOPT_ERR_ARGUMENT, "saving: more than %d datasets",
                       (int)PF_SAVED_DATASETS);
    char *whole = to->dataset_name[to->n_datasets];
    PF_TRY(whole_name(to, name, whole));
    PF_TRY(pf_dataset_hash(to->context, data, &hash));
    to->dataset[to->n_datasets++] = data;
    return set(to->datasets, whole, hash_text(hash));
}

static int32_t begin(pf_save *to, prefopt_context *context)
{
    *to = (pf_save){.context = context,
                    .numbers = json_object(),
                    .hashes = json_object(),
                    .datasets = json_object()};
    return to->numbers != NULL && to->hashes != NULL && to->datasets != NULL
               ? PREFOPT_OK
               : pf_fail(PREFOPT_ERR_MEMORY, "out of memory for JSON");
}

/* A transformer's parameters are in a file of their own. */
static int32_t save_model_hash(pf_save *to, const pf_values *values)
{
    return set(to->hashes, "model",
               hash_text(pf_content_hash(to->context, PREFOPT_F32, values->value,
                                         values->n * (int64_t)sizeof(float))));
}

void pf_save_clear(pf_save *save)
{
    json_decref(save->numbers);
    json_decref(save->hashes);
    json_decref(save->datasets);
    *save = (pf_save){0};
}

#else

static int32_t unsupported(void)
{
    return pf_fail(PREFOPT_ERR_UNSUPPORTED,
                   "saving and restoring trainers needs JSON, and this library was built without");
}
int32_t pf_save_i64(pf_save *to, const char *name, int64_t value)
{
    (void)to, (void)name, (void)value;
    return unsupported();
}
int32_t pf_save_f64(pf_save *to, const char *name, double value)
{
    (void)to, (void)name, (void)value;
    return unsupported();
}
int32_t pf_save_array(pf_save *to, const char *name, int32_t dtype, int64_t n, const void *value)
{
    (void)to, (void)name, (void)dtype, (void)n, (void)value;
    return unsupported();
}
int32_t pf_save_dataset(pf_save *to, const char *name, const prefopt_dataset *data)
{
    (void)to, (void)name, (void)data;
    return unsupported();
}
static int32_t begin(pf_save *to, prefopt_context *context)
{
    *to = (pf_save){.context = context};
    return unsupported();
}
static int32_t save_model_hash(pf_save *to, const pf_values *values)
{
    (void)to, (void)values;
    return unsupported();
}
void pf_save_clear(pf_save *save) { (void)save; }

#endif

int32_t pf_save_reference(pf_save *to, const char *name, const prefopt_reference *reference)
{
    pf_values values;
    PF_TRY(pf_policy_values(reference->policy, &values));
    return pf_save_array(to, name, values.dtype, values.n, values.value);
}

/* Slot 0 is the model's, slot 1 that of the objective's own parameter. */
static int32_t save_optimiser(const pf_optimiser *optimiser, pf_save *to)
{
    static const char *const names[2][2] = {{"first", "second"}, {"extra.first", "extra.second"}};
    to->prefix = "optimiser";
    PF_TRY(pf_save_i64(to, "steps", optimiser->steps));
    PF_TRY(pf_save_f64(to, "moment_bound", optimiser->moment_bound));
    for (int32_t i = 0; i < optimiser->n_slots; i++) {
        const pf_slot *slot = &optimiser->slots[i];
        if (slot->first != NULL)
            PF_TRY(pf_save_array(to, names[i][0], slot->dtype, slot->n, slot->first));
        if (slot->second != NULL)
            PF_TRY(pf_save_array(to, names[i][1], slot->dtype, slot->n, slot->second));
    }
    return PREFOPT_OK;
}

int32_t pf_trainer_state(const prefopt_trainer *trainer, pf_save *to)
{
    pf_values values;
    PF_TRY(begin(to, trainer->context));
    PF_TRY(pf_trained_values(&trainer->model, &values));
    const pf_slot *slot = &trainer->optimiser.slots[0];
    if (values.n != slot->n || values.dtype != slot->dtype)
        return pf_fail(PREFOPT_ERR_CALLBACK,
                       "the model has %lld parameters of dtype %d now, but had %lld of dtype %d",
                       (long long)values.n, values.dtype, (long long)slot->n, slot->dtype);
    to->prefix = "model";
    if (values.shape == NULL)
        PF_TRY(pf_save_array(to, "parameters", values.dtype, values.n, values.value));
    else
        PF_TRY(save_model_hash(to, &values));
    PF_TRY(save_optimiser(&trainer->optimiser, to));
    to->prefix = "trainer";
    PF_TRY(pf_save_i64(to, "step", trainer->step));
    if (trainer->has_extra)
        PF_TRY(pf_save_f64(to, "extra", trainer->extra));
    PF_TRY(pf_evaluation_save(trainer, to));
    to->prefix = trainer->objective->name;
    return trainer->objective->save == NULL ? PREFOPT_OK : trainer->objective->save(trainer, to);
}
