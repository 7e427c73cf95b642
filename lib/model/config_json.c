/* Reading config.json of a GPT-NeoX model, in every spelling that `transformers` has written.
 *
 * A missing field has the value that `transformers` gives it (GPTNeoXConfig); sizes must be there.
 * A field that would change what the model computes, and that this library does not know how to
 * follow, is an error; all others may say anything. */
#include <math.h>
#include <stdio.h>

#include "model/pf_checkpoint.h"
#include "pf_config.h"

#if PF_HAVE_JSON
#include <jansson.h>

enum { FOUND = 84 };

/* The value as JSON, or what it is where that is long. */
static void describe(const json_t *value, char found[FOUND])
{
    size_t n = value == NULL ? 0
                             : json_dumpb(value, found, FOUND - 1,
                                          JSON_ENCODE_ANY | JSON_COMPACT | JSON_ENSURE_ASCII |
                                              JSON_REAL_PRECISION(15));
    if (n > 0 && n < FOUND)
        found[n] = 0;
    else
        snprintf(found, FOUND, "%s",
                 value == NULL           ? "missing"
                 : json_is_string(value) ? "a long string"
                 : json_is_object(value) ? "an object"
                                         : "an array");
}

static int32_t unexpected(const char *field, const json_t *value, const char *expected)
{
    char found[FOUND];
    describe(value, found);
    return pf_fail(PREFOPT_ERR_FORMAT, "%s is %s, expected %s", field, found, expected);
}

/* ---------------------------------------------------------------- fields by kind */

/* least > 0 on a size: it must be there. */
static int32_t read_size(const json_t *root, const char *field, int64_t most, int64_t *out)
{
    char expected[64];
    const json_t *value = json_object_get(root, field);
    if (json_is_integer(value) && json_integer_value(value) >= 1 &&
        json_integer_value(value) <= most) {
        *out = json_integer_value(value);
        return PREFOPT_OK;
    }
    snprintf(expected, sizeof expected, "an integer from 1 to %lld", (long long)most);
    return unexpected(field, value, expected);
}

static int32_t read_bool(const json_t *root, const char *field, bool otherwise, bool *out)
{
    const json_t *value = json_object_get(root, field);
    if (value != NULL && !json_is_boolean(value))
        return unexpected(field, value, "true or false");
    *out = value == NULL ? otherwise : json_is_true(value);
    return PREFOPT_OK;
}

/* A number may be written in several places. The first that is there counts; all must agree. */
typedef struct {
    const char *inside; /* an object of this name, or NULL */
    const char *field;
} spelling;

typedef struct {
    double otherwise, low, high;
    bool open; /* low itself is not allowed */
    const char *expected;
} range;

static int32_t read_number(const json_t *root, const spelling *spellings, int32_t n, range allowed,
                           double *out)
{
    char name[2][64];
    int32_t seen = 0;
    for (int32_t i = 0; i < n; i++) {
        const json_t *object = root;
        if (spellings[i].inside != NULL)
            object = json_object_get(root, spellings[i].inside);
        const json_t *value = json_object_get(object, spellings[i].field);
        if (value == NULL || (n > 1 && json_is_null(value)))
            continue;
        char *own = name[seen > 0];
        snprintf(own, sizeof name[0], "%s%s%s",
                 spellings[i].inside == NULL ? "" : spellings[i].inside,
                 spellings[i].inside == NULL ? "" : ".", spellings[i].field);
        double x = json_number_value(value);
        if (!json_is_number(value) || !isfinite(x) || x < allowed.low || x > allowed.high ||
            (allowed.open && x <= allowed.low))
            return unexpected(own, value, allowed.expected);
        if (seen > 0 && x != *out)
            return pf_fail(PREFOPT_ERR_FORMAT, "%s is %.17g, but %s is %.17g", own, x, name[0],
                           *out);
        *out = x + 0.0; /* never -0 */
        seen++;
    }
    if (seen == 0)
        *out = allowed.otherwise;
    return PREFOPT_OK;
}

/* ---------------------------------------------------------------- fields by name */

static int32_t read_head(const json_t *root, int32_t *head)
{
    const json_t *list = json_object_get(root, "architectures");
    *head = PF_HEAD_LOGITS;
    if (list == NULL || json_is_null(list))
        return PREFOPT_OK;
    const char *name = json_string_value(json_array_get(list, 0));
    if (json_array_size(list) == 1 && name != NULL) {
        if (strcmp(name, "GPTNeoXForCausalLM") == 0)
            return PREFOPT_OK;
        *head = PF_HEAD_SCORE;
        if (strcmp(name, "GPTNeoXForSequenceClassification") == 0)
            return PREFOPT_OK;
    }
    return unexpected("architectures", list,
                      "[\"GPTNeoXForCausalLM\"] or [\"GPTNeoXForSequenceClassification\"]");
}

/* A reward is one number. Where neither field is there, the head's tensor decides. */
static int32_t check_labels(const json_t *root)
{
    const json_t *number = json_object_get(root, "num_labels");
    const json_t *names = json_object_get(root, "id2label");
    if (number != NULL && !json_is_null(number) &&
        !(json_is_integer(number) && json_integer_value(number) == 1))
        return unexpected("num_labels", number, "1: a reward is one number");
    if (names != NULL && !json_is_null(names) &&
        !(json_is_object(names) && json_object_size(names) == 1))
        return unexpected("id2label", names, "an object with one label: a reward is one number");
    return PREFOPT_OK;
}

static int32_t read_activation(const json_t *root, int32_t *activation)
{
    /* Names of the same function in `transformers`. */
    static const char *const exact[] = {"gelu", "gelu_python"};
    static const char *const tanh_form[] = {"gelu_new", "gelu_pytorch_tanh", "gelu_fast",
                                            "gelu_accurate"};
    const json_t *value = json_object_get(root, "hidden_act");
    const char *name = value == NULL ? exact[0] : json_string_value(value);
    for (size_t i = 0; name != NULL && i < sizeof exact / sizeof exact[0]; i++)
        if (strcmp(name, exact[i]) == 0) {
            *activation = PREFOPT_GELU;
            return PREFOPT_OK;
        }
    for (size_t i = 0; name != NULL && i < sizeof tanh_form / sizeof tanh_form[0]; i++)
        if (strcmp(name, tanh_form[i]) == 0) {
            *activation = PREFOPT_GELU_TANH;
            return PREFOPT_OK;
        }
    return unexpected("hidden_act", value,
                      "\"gelu\", or its tanh form: \"gelu_new\", \"gelu_pytorch_tanh\", "
                      "\"gelu_fast\", \"gelu_accurate\"");
}

static int32_t read_eos(const json_t *root, int64_t vocab, int32_t *eos)
{
    enum { TRANSFORMERS_DEFAULT = 2 };
    const json_t *value = json_object_get(root, "eos_token_id");
    if (json_is_array(value) && json_array_size(value) == 1)
        value = json_array_get(value, 0);
    *eos = value == NULL && TRANSFORMERS_DEFAULT < vocab ? TRANSFORMERS_DEFAULT : -1;
    if (value == NULL || json_is_null(value))
        return PREFOPT_OK;
    if (!json_is_integer(value) || json_integer_value(value) < 0 ||
        json_integer_value(value) >= vocab)
        return unexpected("eos_token_id", value, "one token below vocab_size, or null");
    *eos = (int32_t)json_integer_value(value);
    return PREFOPT_OK;
}

static int32_t read_rotary(const json_t *root, prefopt_transformer_config *c)
{
    static const spelling fraction[] = {{NULL, "rotary_pct"},
                                        {NULL, "partial_rotary_factor"},
                                        {"rope_parameters", "partial_rotary_factor"}};
    static const spelling base[] = {
        {NULL, "rotary_emb_base"}, {NULL, "rope_theta"}, {"rope_parameters", "rope_theta"}};
    const json_t *scaling = json_object_get(root, "rope_scaling");
    if (scaling != NULL && !json_is_null(scaling))
        return unexpected("rope_scaling", scaling, "null: positions are not scaled");
    const json_t *parameters = json_object_get(root, "rope_parameters");
    if (parameters != NULL && !json_is_null(parameters) && !json_is_object(parameters))
        return unexpected("rope_parameters", parameters, "an object");
    const json_t *type = json_object_get(parameters, "rope_type");
    if (type != NULL &&
        (json_string_value(type) == NULL || strcmp(json_string_value(type), "default") != 0))
        return unexpected("rope_parameters.rope_type", type,
                          "\"default\": positions are not scaled");
    PF_TRY(read_number(root, fraction, 3, (range){0.25, 0, 1, false, "a number from 0 to 1"},
                       &c->rotary_fraction));
    PF_TRY(read_number(root, base, 3, (range){10000, 1, INFINITY, true, "a number above 1"},
                       &c->rotary_base));
    double turning = c->rotary_fraction * (double)(c->width / c->n_heads);
    if ((int64_t)turning % 2 != 0)
        return pf_fail(PREFOPT_ERR_FORMAT,
                       "rotary_pct is %g: it turns %lld of a head's %lld dimensions, expected an "
                       "even number",
                       c->rotary_fraction, (long long)turning, (long long)(c->width / c->n_heads));
    return PREFOPT_OK;
}

/* So many parameters that no file could hold them are no config's. */
static int32_t check_product(const prefopt_transformer_config *c)
{
    int64_t rows, n;
    if (pf_mul(c->n_layers, 4 * c->width + 2 * c->ff_width + 13, &rows) &&
        pf_add(rows, 2 * c->vocab, &rows) && pf_mul(rows, c->width + c->ff_width, &n) &&
        n <= INT64_MAX / 16)
        return PREFOPT_OK;
    return pf_fail(PREFOPT_ERR_FORMAT,
                   "vocab_size %lld, num_hidden_layers %lld, hidden_size %lld and "
                   "intermediate_size %lld: the number of parameters overflows",
                   (long long)c->vocab, (long long)c->n_layers, (long long)c->width,
                   (long long)c->ff_width);
}

static int32_t read_sizes(const json_t *root, prefopt_transformer_config *c)
{
    PF_TRY(read_size(root, "vocab_size", INT32_MAX, &c->vocab));
    PF_TRY(read_size(root, "num_hidden_layers", 1000, &c->n_layers));
    PF_TRY(read_size(root, "hidden_size", INT32_MAX, &c->width));
    PF_TRY(read_size(root, "num_attention_heads", INT32_MAX, &c->n_heads));
    PF_TRY(read_size(root, "intermediate_size", INT32_MAX, &c->ff_width));
    c->max_positions = 2048;
    if (json_object_get(root, "max_position_embeddings") != NULL)
        PF_TRY(read_size(root, "max_position_embeddings", INT32_MAX, &c->max_positions));
    if (c->width % c->n_heads != 0)
        return pf_fail(PREFOPT_ERR_FORMAT,
                       "hidden_size is %lld, expected a multiple of num_attention_heads, %lld",
                       (long long)c->width, (long long)c->n_heads);
    return check_product(c);
}

static int32_t read_root(const json_t *root, prefopt_transformer_config *c, int32_t *head)
{
    static const spelling epsilon[] = {{NULL, "layer_norm_eps"}};
    static const spelling scale[] = {{NULL, "initializer_range"}};
    bool parallel = true, tied = false, bias = true;
    if (!json_is_object(root))
        return pf_fail(PREFOPT_ERR_FORMAT, "not an object");
    const json_t *type = json_object_get(root, "model_type");
    if (json_string_value(type) == NULL || strcmp(json_string_value(type), "gpt_neox") != 0)
        return unexpected("model_type", type, "\"gpt_neox\"");
    PF_TRY(read_head(root, head));
    if (*head == PF_HEAD_SCORE)
        PF_TRY(check_labels(root));
    PF_TRY(read_sizes(root, c));
    PF_TRY(read_rotary(root, c));
    PF_TRY(read_activation(root, &c->activation));
    PF_TRY(read_eos(root, c->vocab, &c->eos));
    PF_TRY(read_bool(root, "use_parallel_residual", true, &parallel));
    PF_TRY(read_bool(root, "tie_word_embeddings", false, &tied));
    PF_TRY(read_bool(root, "attention_bias", true, &bias));
    if (!bias)
        return unexpected("attention_bias", json_object_get(root, "attention_bias"),
                          "true: attention has biases");
    PF_TRY(read_number(root, epsilon, 1, (range){1e-5, 0, INFINITY, true, "a number above 0"},
                       &c->norm_epsilon));
    PF_TRY(read_number(root, scale, 1, (range){0.02, 0, INFINITY, false, "a number of at least 0"},
                       &c->init_scale));
    c->parallel_residual = parallel;
    c->tied = tied;
    return PREFOPT_OK;
}

int32_t pf_config_parse(const char *path, const char *bytes, int64_t n,
                        prefopt_transformer_config *config, int32_t *head)
{
    json_error_t error;
    int32_t own_head = PF_HEAD_LOGITS, status;
    prefopt_transformer_config own;
    PF_TRY(prefopt_transformer_config_init(&own, sizeof own));
    json_t *root = json_loadb(bytes, (size_t)n, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &error);
    if (root == NULL && json_error_code(&error) == json_error_out_of_memory)
        return pf_fail(PREFOPT_ERR_MEMORY, "%s: out of memory for JSON", pf_show_path(path));
    if (root == NULL) {
        char shown[PF_NAME_ROOM];
        pf_show_name(shown, error.text);
        return pf_fail(PREFOPT_ERR_FORMAT, "%s: line %d, column %d: %s", pf_show_path(path),
                       error.line, error.column, shown);
    }
    status = read_root(root, &own, &own_head);
    json_decref(root);
    if (status != PREFOPT_OK)
        return pf_fail_in(status, "%s", pf_show_path(path));
    *config = own;
    *head = own_head;
    return PREFOPT_OK;
}

#else

int32_t pf_config_parse(const char *path, const char *bytes, int64_t n,
                        prefopt_transformer_config *config, int32_t *head)
{
    (void)bytes, (void)n, (void)config, (void)head;
    return pf_fail(PREFOPT_ERR_UNSUPPORTED, "%s: this library was built without JSON",
                   pf_show_path(path));
}

#endif
