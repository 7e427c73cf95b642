/* Writing config.json: both spellings, so that old and new `transformers` read it. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "model/pf_checkpoint.h"
#include "pf_config.h"

#if PF_HAVE_JSON
#include <jansson.h>

/* Integers stay integers, as people write them. */
static json_t *number(double x)
{
    return x == floor(x) && fabs(x) < 1e15 ? json_integer((json_int_t)x) : json_real(x);
}

/* Digits at which every one of the numbers comes back as it was. */
static size_t digits(const double *x, int32_t n)
{
    enum { LEAST = 6, MOST = 17 };
    int32_t d = LEAST;
    for (int32_t i = 0; i < n; i++) {
        char text[40];
        for (; d < MOST; d++) {
            snprintf(text, sizeof text, "%.*g", d, x[i]);
            if (strtod(text, NULL) == x[i])
                break;
        }
    }
    return (size_t)d;
}

/* Takes value; a failure shows in the end. */
static void put(json_t *object, bool *failed, const char *field, json_t *value)
{
    if (json_object_set_new(object, field, value) != 0)
        *failed = true;
}

static void put_rotary(json_t *root, bool *failed, const prefopt_transformer_config *c)
{
    json_t *parameters = json_object();
    put(parameters, failed, "rope_type", json_string("default"));
    put(parameters, failed, "rope_theta", number(c->rotary_base));
    put(parameters, failed, "partial_rotary_factor", number(c->rotary_fraction));
    put(root, failed, "partial_rotary_factor", number(c->rotary_fraction));
    put(root, failed, "rope_parameters", parameters);
    put(root, failed, "rope_theta", number(c->rotary_base));
    put(root, failed, "rotary_emb_base", number(c->rotary_base));
    put(root, failed, "rotary_pct", number(c->rotary_fraction));
}

static json_t *make(const prefopt_transformer_config *c, int32_t head, int32_t dtype)
{
    bool failed = false;
    const char *torch = dtype == PREFOPT_F32   ? "float32"
                        : dtype == PREFOPT_F16 ? "float16"
                                               : "bfloat16";
    json_t *root = json_object(), *names = json_array();
    if (json_array_append_new(names,
                              json_string(head == PF_HEAD_SCORE ? "GPTNeoXForSequenceClassification"
                                                                : "GPTNeoXForCausalLM")) != 0)
        failed = true;
    put(root, &failed, "architectures", names);
    put(root, &failed, "attention_bias", json_true());
    put(root, &failed, "eos_token_id", c->eos < 0 ? json_null() : json_integer(c->eos));
    put(root, &failed, "hidden_act",
        json_string(c->activation == PREFOPT_GELU ? "gelu" : "gelu_pytorch_tanh"));
    put(root, &failed, "hidden_size", json_integer(c->width));
    if (head == PF_HEAD_SCORE) {
        json_t *label = json_object(), *id = json_object();
        put(label, &failed, "0", json_string("LABEL_0"));
        put(id, &failed, "LABEL_0", json_integer(0));
        put(root, &failed, "id2label", label);
        put(root, &failed, "label2id", id);
    }
    put(root, &failed, "initializer_range", number(c->init_scale));
    put(root, &failed, "intermediate_size", json_integer(c->ff_width));
    put(root, &failed, "layer_norm_eps", number(c->norm_epsilon));
    put(root, &failed, "max_position_embeddings", json_integer(c->max_positions));
    put(root, &failed, "model_type", json_string("gpt_neox"));
    put(root, &failed, "num_attention_heads", json_integer(c->n_heads));
    put(root, &failed, "num_hidden_layers", json_integer(c->n_layers));
    put_rotary(root, &failed, c);
    put(root, &failed, "tie_word_embeddings", json_boolean(c->tied));
    put(root, &failed, "torch_dtype", json_string(torch));
    put(root, &failed, "use_cache", json_true());
    put(root, &failed, "use_parallel_residual", json_boolean(c->parallel_residual));
    put(root, &failed, "vocab_size", json_integer(c->vocab));
    if (!failed)
        return root;
    json_decref(root);
    return NULL;
}

int32_t pf_config_text(prefopt_context *context, const prefopt_transformer_config *config,
                       int32_t head, int32_t dtype, char **text, int64_t *n)
{
    const double reals[] = {config->rotary_fraction, config->rotary_base, config->norm_epsilon,
                            config->init_scale};
    const size_t flags = JSON_INDENT(2) | JSON_REAL_PRECISION(digits(reals, 4));
    json_t *root = make(config, head, dtype);
    size_t size = root == NULL ? 0 : json_dumpb(root, NULL, 0, flags);
    char *out = size == 0 ? NULL : pf_alloc(context, (int64_t)size + 1, 1);
    if (out != NULL && json_dumpb(root, out, size, flags) == size) {
        out[size] = '\n';
        *text = out;
        *n = (int64_t)size + 1;
        json_decref(root);
        return PREFOPT_OK;
    }
    json_decref(root);
    pf_free(context, out);
    return pf_fail(PREFOPT_ERR_MEMORY, "out of memory for the text of config.json");
}

#else

int32_t pf_config_text(prefopt_context *context, const prefopt_transformer_config *config,
                       int32_t head, int32_t dtype, char **text, int64_t *n)
{
    (void)context, (void)config, (void)head, (void)dtype, (void)text, (void)n;
    return pf_fail(PREFOPT_ERR_UNSUPPORTED, "config.json: this library was built without JSON");
}

#endif
