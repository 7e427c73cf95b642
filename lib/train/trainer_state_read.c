/* A checkpoint of a trainer, opened and checked: numbers, arrays and datasets by name. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <unistd.h>

#include "base/pf_file.h"
#include "model/pf_reference.h"
#include "pf_config.h"
#include "train/pf_saved.h"

#if PF_HAVE_JSON
#include <jansson.h>

static int32_t missing(const char *path, const char *name, const char *expected)
{
    return pf_fail(PREFOPT_ERR_FORMAT, "%s: %s is missing or is not %s", pf_show_path(path), name,
                   expected);
}

static void whole_name(const pf_saved *from, const char *name, char out[PF_SAVED_NAME])
{
    snprintf(out, PF_SAVED_NAME, "%s.%s", from->prefix, name);
}

bool pf_saved_has(const pf_saved *from, const char *name)
{
    char whole[PF_SAVED_NAME];
    whole_name(from, name, whole);
    return json_object_get(from->numbers, whole) != NULL ||
           json_object_get(from->hashes, whole) != NULL ||
           json_object_get(from->datasets, whole) != NULL;
}

int32_t pf_saved_i64(const pf_saved *from, const char *name, int64_t *value)
{
    char whole[PF_SAVED_NAME];
    whole_name(from, name, whole);
    const json_t *number = json_object_get(from->numbers, whole);
    if (!json_is_integer(number))
        return missing(from->trainer_path, whole, "an integer");
    *value = json_integer_value(number);
    return PREFOPT_OK;
}

int32_t pf_saved_f64(const pf_saved *from, const char *name, double *value)
{
    static const struct {
        const char *text;
        double value;
    } words[] = {{"NaN", NAN}, {"Infinity", INFINITY}, {"-Infinity", -INFINITY}};
    char whole[PF_SAVED_NAME];
    whole_name(from, name, whole);
    const json_t *number = json_object_get(from->numbers, whole);
    const char *text = json_string_value(number);
    for (size_t i = 0; text != NULL && i < sizeof words / sizeof words[0]; i++)
        if (strcmp(text, words[i].text) == 0) {
            *value = words[i].value;
            return PREFOPT_OK;
        }
    if (!json_is_real(number))
        return missing(from->trainer_path, whole, "a number with a point");
    *value = json_real_value(number);
    return PREFOPT_OK;
}

/* The hash under this name, as a number. */
static bool read_hash(const json_t *object, const char *name, uint64_t *hash)
{
    const char *text = json_string_value(json_object_get(object, name));
    unsigned long long number;
    if (text == NULL || !pf_is_save_id(text) || sscanf(text, "%16llx", &number) != 1)
        return false;
    *hash = number;
    return true;
}

int32_t pf_saved_bytes(const pf_saved *from, const char *name, int32_t dtype, int64_t n,
                       const void **value)
{
    char whole[PF_SAVED_NAME];
    whole_name(from, name, whole);
    if (json_object_get(from->hashes, whole) == NULL)
        return missing(from->trainer_path, whole, "the hash of an array");
    const pf_file_tensor *tensor = pf_safetensors_find(&from->arrays, whole);
    if (tensor == NULL)
        return missing(from->arrays_path, whole, "a tensor");
    if (strcmp(tensor->dtype_name, pf_dtype_name(dtype)) != 0 || tensor->n != n)
        return pf_fail(PREFOPT_ERR_FORMAT,
                       "%s: tensor %s has %lld numbers of %s, expected %lld of "
                       "%s",
                       pf_show_path(from->arrays_path), whole, (long long)tensor->n,
                       tensor->dtype_name, (long long)n, pf_dtype_name(dtype));
    *value = tensor->bytes;
    return PREFOPT_OK;
}

/* Every array is what trainer.json says it is: files of two checkpoints may have been mixed, and
 * disks forget. */
static int32_t check_arrays(const pf_saved *from)
{
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)from->hashes, name, value)
    {
        uint64_t expected, found;
        char shown[PF_NAME_ROOM];
        pf_show_name(shown, name);
        if (!read_hash(from->hashes, name, &expected))
            return missing(from->trainer_path, shown, "a hash");
        if (strcmp(name, "model") == 0)
            continue;
        const pf_file_tensor *tensor = pf_safetensors_find(&from->arrays, name);
        if (tensor == NULL)
            return missing(from->arrays_path, shown, "a tensor");
        int32_t dtype = strcmp(tensor->dtype_name, "F64") == 0 ? PREFOPT_F64 : PREFOPT_F32;
        found = pf_content_hash(from->context, (uint64_t)dtype, tensor->bytes, tensor->n_bytes);
        if (found != expected)
            return pf_fail(PREFOPT_ERR_FORMAT,
                           "%s: tensor %s is not the one that %s was written with (hash %016llx, "
                           "expected %016llx)",
                           pf_show_path(from->arrays_path), shown, PF_TRAINER_NAME,
                           (unsigned long long)found, (unsigned long long)expected);
    }
    return PREFOPT_OK;
}

int32_t pf_saved_model(const pf_saved *from, const pf_shape *shape, float *value)
{
    uint64_t expected;
    PF_TRY(pf_checkpoint_read(shape, from->folder, value));
    if (!read_hash(from->hashes, "model", &expected))
        return missing(from->trainer_path, "arrays.model", "a hash");
    uint64_t found =
        pf_content_hash(from->context, PREFOPT_F32, value, shape->n * (int64_t)sizeof *value);
    if (found == expected)
        return PREFOPT_OK;
    return pf_fail(PREFOPT_ERR_FORMAT,
                   "%s/%s: not the weights that %s was written with (hash %016llx, expected "
                   "%016llx)",
                   pf_show_path(from->folder), PF_WEIGHTS_NAME, PF_TRAINER_NAME,
                   (unsigned long long)found, (unsigned long long)expected);
}

int32_t pf_saved_dataset(const pf_saved *from, const char *name, prefopt_dataset **out)
{
    char whole[PF_SAVED_NAME], file[PF_SAVED_NAME + 8], *path;
    uint64_t expected, found = 0;
    whole_name(from, name, whole);
    if (!read_hash(from->datasets, whole, &expected))
        return missing(from->trainer_path, whole, "the hash of a dataset");
    snprintf(file, sizeof file, "%s.jsonl", whole);
    PF_TRY(pf_join(from->context, from->folder, file, &path));
    prefopt_dataset *data = NULL;
    int32_t status = prefopt_dataset_read_jsonl(&data, from->context, path);
    if (status == PREFOPT_OK)
        status = pf_dataset_hash(from->context, data, &found);
    if (status == PREFOPT_OK && found != expected)
        status = pf_fail(PREFOPT_ERR_FORMAT,
                         "%s: not the rows that %s was written with (hash %016llx, expected "
                         "%016llx)",
                         pf_show_path(path), PF_TRAINER_NAME, (unsigned long long)found,
                         (unsigned long long)expected);
    pf_free(from->context, path);
    if (status != PREFOPT_OK) {
        prefopt_dataset_destroy(data);
        return status;
    }
    *out = data;
    return PREFOPT_OK;
}

/* ---------------------------------------------------------------- opening */

static int32_t read_root(pf_saved *from, const char *bytes, int64_t n)
{
    json_error_t error;
    const char *path = from->trainer_path;
    if (pf_too_nested(bytes, n))
        return pf_fail(PREFOPT_ERR_FORMAT, "%s: is no trainer's: too many brackets",
                       pf_show_path(path));
    from->root = json_loadb(bytes, (size_t)n, JSON_REJECT_DUPLICATES, &error);
    if (from->root == NULL && json_error_code(&error) == json_error_out_of_memory)
        return pf_fail(PREFOPT_ERR_MEMORY, "out of memory for JSON");
    if (from->root == NULL) {
        char shown[PF_NAME_ROOM];
        pf_show_name(shown, error.text);
        return pf_fail(PREFOPT_ERR_FORMAT, "%s: is not valid JSON: line %d: %s", pf_show_path(path),
                       error.line, shown);
    }
    const char *format = json_string_value(json_object_get(from->root, "format"));
    if (format == NULL || strcmp(format, PF_TRAINER_FORMAT) != 0)
        return missing(path, "format", "\"" PF_TRAINER_FORMAT "\"");
    const json_t *version = json_object_get(from->root, "version");
    if (!json_is_integer(version))
        return missing(path, "version", "an integer");
    if (json_integer_value(version) != PF_TRAINER_VERSION)
        return pf_fail(PREFOPT_ERR_FORMAT, "%s: version is %lld, but this library (%s) reads %d",
                       pf_show_path(path), (long long)json_integer_value(version),
                       prefopt_version_string(), (int)PF_TRAINER_VERSION);
    from->run = json_object_get(from->root, "options");
    from->numbers = json_object_get(from->root, "state");
    from->hashes = json_object_get(from->root, "arrays");
    from->datasets = json_object_get(from->root, "datasets");
    const char *const names[] = {"options", "state", "arrays", "datasets"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        const json_t *part = json_object_get(from->root, names[i]);
        if (!json_is_object(part))
            return missing(path, names[i], "an object");
    }
    return PREFOPT_OK;
}

static int32_t open_files(pf_saved *from)
{
    char *bytes = NULL;
    int64_t n = 0;
    PF_TRY(pf_join(from->context, from->folder, PF_TRAINER_NAME, &from->trainer_path));
    PF_TRY(pf_join(from->context, from->folder, PF_ARRAYS_NAME, &from->arrays_path));
    from->descriptor = open(from->folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (from->descriptor < 0)
        return pf_fail_errno(errno, "opening the folder", pf_show_path(from->folder));
    PF_TRY(pf_read_small(from->context, from->descriptor, PF_TRAINER_NAME, from->trainer_path,
                         PF_TRAINER_MOST, &bytes, &n));
    int32_t status = read_root(from, bytes, n);
    pf_free(from->context, bytes);
    PF_TRY(status);
    PF_TRY(pf_safetensors_open(&from->arrays, from->context, from->descriptor, PF_ARRAYS_NAME,
                               from->arrays_path));
    return check_arrays(from);
}

int32_t pf_saved_open(pf_saved *from, prefopt_context *context, const char *folder)
{
    size_t n = strlen(folder);
    *from = (pf_saved){.context = context, .descriptor = -1};
    from->folder = pf_alloc(context, (int64_t)n + 1, 1);
    if (from->folder == NULL)
        return PREFOPT_ERR_MEMORY;
    memcpy(from->folder, folder, n + 1);
    int32_t status = open_files(from);
    if (status != PREFOPT_OK)
        pf_saved_close(from);
    return status;
}

void pf_saved_close(pf_saved *from)
{
    pf_safetensors_close(&from->arrays);
    json_decref(from->root);
    if (from->descriptor >= 0)
        close(from->descriptor);
    pf_free(from->context, from->folder);
    pf_free(from->context, from->trainer_path);
    pf_free(from->context, from->arrays_path);
    *from = (pf_saved){.descriptor = -1};
}

#else

static int32_t unsupported(void)
{
    return pf_fail(PREFOPT_ERR_UNSUPPORTED,
                   "restoring trainers needs JSON, and this library was built without");
}
bool pf_saved_has(const pf_saved *from, const char *name)
{
    (void)from, (void)name;
    return false;
}
int32_t pf_saved_i64(const pf_saved *from, const char *name, int64_t *value)
{
    (void)from, (void)name, (void)value;
    return unsupported();
}
int32_t pf_saved_f64(const pf_saved *from, const char *name, double *value)
{
    (void)from, (void)name, (void)value;
    return unsupported();
}
int32_t pf_saved_bytes(const pf_saved *from, const char *name, int32_t dtype, int64_t n,
                       const void **value)
{
    (void)from, (void)name, (void)dtype, (void)n, (void)value;
    return unsupported();
}
int32_t pf_saved_model(const pf_saved *from, const pf_shape *shape, float *value)
{
    (void)from, (void)shape, (void)value;
    return unsupported();
}
int32_t pf_saved_dataset(const pf_saved *from, const char *name, prefopt_dataset **out)
{
    (void)from, (void)name, (void)out;
    return unsupported();
}
int32_t pf_saved_open(pf_saved *from, prefopt_context *context, const char *folder)
{
    (void)from, (void)context, (void)folder;
    return unsupported();
}
void pf_saved_close(pf_saved *from) { (void)from; }

#endif

int32_t pf_saved_array(const pf_saved *from, const char *name, int32_t dtype, int64_t n,
                       void *value)
{
    const void *bytes = NULL;
    PF_TRY(pf_saved_bytes(from, name, dtype, n, &bytes));
    if (n > 0)
        memcpy(value, bytes, (size_t)(n * pf_dtype_size(dtype)));
    return PREFOPT_OK;
}

int32_t pf_saved_reference(const pf_saved *from, const char *name, const prefopt_policy *like,
                           prefopt_reference **out)
{
    const void *bytes = NULL;
    prefopt_policy *copy = NULL;
    prefopt_parameters parameters = {.struct_size = sizeof parameters};
    pf_values values;
    PF_TRY(pf_policy_values(like, &values));
    PF_TRY(pf_saved_bytes(from, name, values.dtype, values.n, &bytes));
    PF_TRY(pf_policy_clone(&copy, like));
    int32_t status = prefopt_policy_parameters(copy, &parameters);
    if (status == PREFOPT_OK && values.n > 0)
        memcpy(parameters.value, bytes, (size_t)(values.n * pf_dtype_size(values.dtype)));
    if (status == PREFOPT_OK)
        status = prefopt_policy_updated(copy);
    /* A clone of the clone shares its weights, and has no room for gradients. */
    if (status == PREFOPT_OK)
        status = prefopt_reference_freeze(out, copy);
    prefopt_policy_destroy(copy);
    return status;
}
