/* The fields of a line that are not ours: kept as the compact text of one JSON object. */
#include "data/pf_jsonl.h"

bool pf_is_row_field(const char *name)
{
    static const char *const fields[] = {
        "prompt", "completion", "completions", "chosen",        "rejected", "ranking",   "weight",
        "label",  "margin",     "logps",       "sampler_logps", "scores",   "ref_logps", "ref_key"};
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++)
        if (strcmp(name, fields[i]) == 0)
            return true;
    return false;
}

#if PF_HAVE_JSON

int32_t pf_extra_dump(prefopt_context *context, const json_t *object, char **out, int64_t *n)
{
    *out = NULL;
    *n = 0;
    if (json_object_size(object) == 0)
        return PREFOPT_OK;
    char small[1024]; /* most texts fit, and need not be made a second time */
    size_t flags = JSON_COMPACT | JSON_REAL_PRECISION(17);
    size_t size = json_dumpb(object, small, sizeof small, flags);
    char *text = pf_alloc(context, (int64_t)size + 1, 1);
    if (text == NULL)
        return PREFOPT_ERR_MEMORY;
    bool fits = size <= sizeof small;
    if (fits)
        memcpy(text, small, size);
    if (size == 0 || (!fits && json_dumpb(object, text, size, flags) != size)) {
        pf_free(context, text);
        return pf_fail(PREFOPT_ERR_MEMORY, "no memory to write JSON as text");
    }
    text[size] = '\0';
    *out = text;
    *n = (int64_t)size;
    return PREFOPT_OK;
}

static int32_t check(json_t *object)
{
    if (!json_is_object(object))
        return pf_fail(PREFOPT_ERR_FORMAT, "extra is no JSON object");
    const char *key;
    json_t *value;
    json_object_foreach(object, key, value)
    {
        if (pf_is_row_field(key))
            return pf_fail(PREFOPT_ERR_FORMAT,
                           "extra has the field \"%s\", which belongs to the row itself", key);
    }
    return PREFOPT_OK;
}

int32_t pf_extra_compact(prefopt_context *context, const char *text, char **out, int64_t *n)
{
    json_error_t error;
    json_t *object = json_loads(text, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &error);
    if (object == NULL && json_error_code(&error) == json_error_out_of_memory)
        return pf_fail(PREFOPT_ERR_MEMORY, "no memory to read extra");
    if (object == NULL)
        return pf_fail(PREFOPT_ERR_FORMAT, "extra is no JSON object: %s", error.text);
    int32_t status = check(object);
    if (status == PREFOPT_OK)
        status = pf_extra_dump(context, object, out, n);
    json_decref(object);
    return status;
}

#else

int32_t pf_extra_compact(prefopt_context *context, const char *text, char **out, int64_t *n)
{
    (void)context, (void)text, (void)out, (void)n;
    return pf_fail(PREFOPT_ERR_UNSUPPORTED, "extra: this library was built without JSON");
}

#endif
