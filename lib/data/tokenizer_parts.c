/* The parts of a tokenizer.json around the model: what is understood, and what is refused by name.
 */
#include "data/pf_tokenizer.h"
#include "pf_config.h"

#if PF_HAVE_JSON && PF_HAVE_TEXT
#include "data/pf_tokenizer_file.h"

int32_t pf_file_bool(const json_t *object, const char *part, const char *field, bool otherwise,
                     bool *out)
{
    const json_t *value = json_object_get(object, field);
    if (value != NULL && !json_is_null(value) && !json_is_boolean(value))
        return pf_fail(PREFOPT_ERR_FORMAT, "%s.%s is neither true nor false", part, field);
    *out = json_is_boolean(value) ? json_is_true(value) : otherwise;
    return PREFOPT_OK;
}

/* The `type` of a part. */
static int32_t type_of(const json_t *object, const char *part, const char **type)
{
    if (!json_is_object(object))
        return pf_fail(PREFOPT_ERR_FORMAT, "%s is not an object", part);
    *type = json_string_value(json_object_get(object, "type"));
    if (*type == NULL)
        return pf_fail(PREFOPT_ERR_FORMAT, "%s.type is not a string", part);
    return PREFOPT_OK;
}

static int32_t refuse(const char *part, const char *type, const char *expected)
{
    return pf_fail(PREFOPT_ERR_UNSUPPORTED, "%s.type is \"%.*s\", expected %s", part,
                   PF_SHOWN(type), expected);
}

static bool absent(const json_t *value) { return value == NULL || json_is_null(value); }

/* The list inside a Sequence. */
static int32_t list_of(const json_t *object, const char *part, const char *field,
                       const json_t **list)
{
    *list = json_object_get(object, field);
    if (!json_is_array(*list))
        return pf_fail(PREFOPT_ERR_FORMAT, "%s.%s is not an array", part, field);
    return PREFOPT_OK;
}

static int32_t read_normalizer(prefopt_tokenizer *t, const json_t *object, bool nested)
{
    const char *type, *part = nested ? "normalizer.normalizers[]" : "normalizer";
    if (absent(object) && !nested)
        return PREFOPT_OK;
    PF_TRY(type_of(object, part, &type));
    if (strcmp(type, "NFC") == 0) {
        t->nfc = true;
        return PREFOPT_OK;
    }
    if (strcmp(type, "Sequence") != 0 || nested)
        return refuse(part, type, "NFC");
    const json_t *list;
    PF_TRY(list_of(object, part, "normalizers", &list));
    for (size_t i = 0; i < json_array_size(list); i++)
        PF_TRY(read_normalizer(t, json_array_get(list, i), true));
    return PREFOPT_OK;
}

/* ---------------------------------------------------------------- pre-tokenizer */

static int32_t add_pattern(prefopt_tokenizer *t, const char *part, const char *regex, int64_t n)
{
    int32_t status = pf_pattern_compile(&t->patterns[t->n_patterns], t->context, regex, n);
    if (status != PREFOPT_OK)
        return pf_fail_in(status, "%s", part);
    t->n_patterns++;
    return PREFOPT_OK;
}

static int32_t read_byte_level(prefopt_tokenizer *t, const json_t *object, const char *part)
{
    bool use_regex = true;
    if (json_object_get(object, "add_prefix_space") == NULL)
        return pf_fail(PREFOPT_ERR_FORMAT, "%s.add_prefix_space is missing", part);
    PF_TRY(pf_file_bool(object, part, "add_prefix_space", false, &t->add_prefix_space));
    /* Files from before there was this field mean true. */
    PF_TRY(pf_file_bool(object, part, "use_regex", true, &use_regex));
    t->n_splits = t->n_patterns;
    t->gpt2_pattern = use_regex;
    return use_regex ? add_pattern(t, part, pf_gpt2_pattern, (int64_t)strlen(pf_gpt2_pattern))
                     : PREFOPT_OK;
}

/* Split with a Regex: its matches and what lies between them are pieces. */
static int32_t read_split(prefopt_tokenizer *t, const json_t *object, const char *part)
{
    bool invert = false;
    const json_t *pattern = json_object_get(object, "pattern");
    const json_t *regex = json_object_get(pattern, "Regex");
    const char *behavior = json_string_value(json_object_get(object, "behavior"));
    PF_TRY(pf_file_bool(object, part, "invert", false, &invert));
    if (!json_is_object(pattern) || behavior == NULL)
        return pf_fail(PREFOPT_ERR_FORMAT, "%s.%s", part,
                       behavior == NULL ? "behavior is not a string" : "pattern is not an object");
    if (!json_is_string(regex))
        return pf_fail(PREFOPT_ERR_UNSUPPORTED, "%s.pattern is no Regex", part);
    if (strcmp(behavior, "Isolated") != 0)
        return pf_fail(PREFOPT_ERR_UNSUPPORTED, "%s.behavior is \"%.*s\", expected Isolated", part,
                       PF_SHOWN(behavior));
    if (json_string_length(regex) == 0)
        return pf_fail(PREFOPT_ERR_FORMAT, "%s.pattern.Regex is empty", part);
    return add_pattern(t, part, json_string_value(regex), (int64_t)json_string_length(regex));
}

static int32_t read_digits(prefopt_tokenizer *t, const json_t *object, const char *part)
{
    bool individual = false;
    PF_TRY(pf_file_bool(object, part, "individual_digits", false, &individual));
    const char *regex = individual ? "\\p{N}" : "\\p{N}+";
    return add_pattern(t, part, regex, (int64_t)strlen(regex));
}

static int32_t read_pre_tokenizer(prefopt_tokenizer *t, const json_t *object)
{
    enum { MOST = 16 };
    const char *type, *part = "pre_tokenizer", *each = "pre_tokenizer.pretokenizers[]";
    if (absent(object))
        return pf_fail(PREFOPT_ERR_UNSUPPORTED, "pre_tokenizer is missing, expected ByteLevel");
    PF_TRY(type_of(object, part, &type));
    t->patterns = pf_calloc(t->context, MOST, sizeof *t->patterns);
    if (t->patterns == NULL)
        return PREFOPT_ERR_MEMORY;
    if (strcmp(type, "ByteLevel") == 0)
        return read_byte_level(t, object, part);
    if (strcmp(type, "Sequence") != 0)
        return refuse(part, type, "ByteLevel, or a Sequence that ends in it");
    const json_t *list;
    PF_TRY(list_of(object, part, "pretokenizers", &list));
    size_t n = json_array_size(list);
    if (n == 0 || n > MOST)
        return pf_fail(n == 0 ? PREFOPT_ERR_FORMAT : PREFOPT_ERR_UNSUPPORTED,
                       "pre_tokenizer.pretokenizers has %zu entries, expected 1 to %d", n,
                       (int)MOST);
    for (size_t i = 0; i < n; i++) {
        const json_t *entry = json_array_get(list, i);
        PF_TRY(type_of(entry, each, &type));
        if (i + 1 == n && strcmp(type, "ByteLevel") == 0)
            return read_byte_level(t, entry, each);
        if (i + 1 < n && strcmp(type, "Split") == 0)
            PF_TRY(read_split(t, entry, each));
        else if (i + 1 < n && strcmp(type, "Digits") == 0)
            PF_TRY(read_digits(t, entry, each));
        else
            return refuse(each, type, "Split or Digits, and ByteLevel at the end");
    }
    return PREFOPT_OK;
}

/* ---------------------------------------------------------------- what must change nothing */

/* A TemplateProcessing adds nothing when its template for one text is the text alone. */
static bool adds_nothing(const json_t *template)
{
    const json_t *single = json_object_get(template, "single");
    return json_array_size(single) == 1 &&
           json_is_object(json_object_get(json_array_get(single, 0), "Sequence"));
}

static int32_t check_post_processor(const json_t *object, bool nested)
{
    const char *type, *part = nested ? "post_processor.processors[]" : "post_processor";
    if (absent(object) && !nested)
        return PREFOPT_OK;
    PF_TRY(type_of(object, part, &type));
    if (strcmp(type, "ByteLevel") == 0)
        return PREFOPT_OK;
    if (strcmp(type, "TemplateProcessing") == 0) {
        if (!adds_nothing(object))
            return pf_fail(PREFOPT_ERR_UNSUPPORTED,
                           "%s.single adds tokens to a text, expected the text alone", part);
        return PREFOPT_OK;
    }
    if (strcmp(type, "Sequence") != 0 || nested)
        return refuse(part, type, "ByteLevel");
    const json_t *list;
    PF_TRY(list_of(object, part, "processors", &list));
    for (size_t i = 0; i < json_array_size(list); i++)
        PF_TRY(check_post_processor(json_array_get(list, i), true));
    return PREFOPT_OK;
}

static int32_t check_model(prefopt_tokenizer *t, const json_t *model)
{
    static const char *const texts[] = {"unk_token", "continuing_subword_prefix",
                                        "end_of_word_suffix"};
    const char *type = "BPE";
    bool byte_fallback = false;
    if (!json_is_object(model))
        return pf_fail(PREFOPT_ERR_FORMAT, "model is not an object");
    if (!absent(json_object_get(model, "type"))) /* files of the first versions have none */
        PF_TRY(type_of(model, "model", &type));
    if (strcmp(type, "BPE") != 0)
        return refuse("model", type, "BPE");
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        const json_t *text = json_object_get(model, texts[i]);
        if (!absent(text) && !json_is_string(text))
            return pf_fail(PREFOPT_ERR_FORMAT, "model.%s is not a string", texts[i]);
        if (json_string_length(text) > 0)
            return pf_fail(PREFOPT_ERR_UNSUPPORTED, "model.%s is \"%.*s\", expected null", texts[i],
                           PF_SHOWN(json_string_value(text)));
    }
    const json_t *dropout = json_object_get(model, "dropout");
    if (!absent(dropout) && !json_is_number(dropout))
        return pf_fail(PREFOPT_ERR_FORMAT, "model.dropout is not a number");
    if (!absent(dropout) && json_number_value(dropout) != 0.0)
        return pf_fail(PREFOPT_ERR_UNSUPPORTED, "model.dropout is %g, expected null",
                       json_number_value(dropout));
    PF_TRY(pf_file_bool(model, "model", "byte_fallback", false, &byte_fallback));
    if (byte_fallback)
        return pf_fail(PREFOPT_ERR_UNSUPPORTED, "model.byte_fallback is true, expected false");
    return pf_file_bool(model, "model", "ignore_merges", false, &t->ignore_merges);
}

int32_t pf_file_parts(prefopt_tokenizer *t, const json_t *root)
{
    const json_t *decoder = json_object_get(root, "decoder");
    const char *type = "ByteLevel";
    PF_TRY(check_model(t, json_object_get(root, "model")));
    PF_TRY(read_normalizer(t, json_object_get(root, "normalizer"), false));
    PF_TRY(check_post_processor(json_object_get(root, "post_processor"), false));
    if (!absent(decoder))
        PF_TRY(type_of(decoder, "decoder", &type));
    if (strcmp(type, "ByteLevel") != 0)
        return refuse("decoder", type, "ByteLevel");
    return read_pre_tokenizer(t, json_object_get(root, "pre_tokenizer"));
}

#endif
