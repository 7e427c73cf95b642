/* The shape of a transformer: its configuration, and the table of its tensors. */
#include <math.h>
#include <stdatomic.h>
#include <stdio.h>

#include "model/pf_transformer.h"

static const prefopt_transformer_config defaults = {
    .struct_size = sizeof(prefopt_transformer_config),
    .architecture = PREFOPT_GPT_NEOX,
    .activation = PREFOPT_GELU,
    .parallel_residual = 1,
    .vocab = 50304,
    .n_layers = 6,
    .width = 512,
    .n_heads = 8,
    .ff_width = 2048,
    .max_positions = 2048,
    .rotary_fraction = 0.25,
    .rotary_base = 10000,
    .norm_epsilon = 1e-5,
    .init_scale = 0.02,
};

int32_t prefopt_transformer_config_init(prefopt_transformer_config *config, uint32_t struct_size)
{
    return pf_struct_init(config, struct_size, &defaults, sizeof defaults, sizeof defaults,
                          "prefopt_transformer_config");
}

/* ---------------------------------------------------------------- checks */

static int32_t check_count(const char *name, int64_t value, int64_t most)
{
    if (value >= 1 && value <= most)
        return PREFOPT_OK;
    return pf_fail(PREFOPT_ERR_ARGUMENT, "transformer: %s is %lld, expected 1 to %lld", name,
                   (long long)value, (long long)most);
}

static int32_t check_choice(const char *name, int32_t value)
{
    if (value == 0 || value == 1)
        return PREFOPT_OK;
    return pf_fail(PREFOPT_ERR_ARGUMENT, "transformer: %s is %d, expected 0 or 1", name, value);
}

static int32_t check_number(const char *name, double value, bool good, const char *expected)
{
    if (isnan(value))
        return pf_fail(PREFOPT_ERR_NUMERIC, "transformer: %s is NaN", name);
    if (good && isfinite(value))
        return PREFOPT_OK;
    return pf_fail(PREFOPT_ERR_ARGUMENT, "transformer: %s is %g, expected %s", name, value,
                   expected);
}

/* As `transformers` rounds it. */
int64_t pf_rotary_dimensions(const prefopt_transformer_config *config)
{
    return (int64_t)((double)(config->width / config->n_heads) * config->rotary_fraction);
}

int32_t pf_transformer_config_read(prefopt_transformer_config *own,
                                   const prefopt_transformer_config *config)
{
    prefopt_transformer_config c = defaults;
    if (config != NULL)
        PF_TRY(pf_struct_read(&c, sizeof c, sizeof c, config, "prefopt_transformer_config"));
    if (c.architecture != PREFOPT_GPT_NEOX)
        return pf_fail(PREFOPT_ERR_ARGUMENT, "transformer: architecture is %d, expected %d",
                       c.architecture, PREFOPT_GPT_NEOX);
    PF_TRY(check_choice("activation", c.activation));
    PF_TRY(check_choice("parallel_residual", c.parallel_residual));
    PF_TRY(check_choice("tied", c.tied));
    PF_TRY(check_count("vocab", c.vocab, INT32_MAX));
    PF_TRY(check_count("n_layers", c.n_layers, 1000));
    PF_TRY(check_count("width", c.width, INT32_MAX));
    PF_TRY(check_count("n_heads", c.n_heads, c.width));
    PF_TRY(check_count("ff_width", c.ff_width, INT32_MAX));
    PF_TRY(check_count("max_positions", c.max_positions, INT32_MAX));
    if (c.width % c.n_heads != 0)
        return pf_fail(PREFOPT_ERR_ARGUMENT,
                       "transformer: width is %lld, expected a multiple of n_heads = %lld",
                       (long long)c.width, (long long)c.n_heads);
    if (c.eos < -1 || c.eos >= c.vocab)
        return pf_fail(PREFOPT_ERR_ARGUMENT,
                       "transformer: eos is %d, expected -1 (none) or a token below vocab = %lld",
                       c.eos, (long long)c.vocab);
    PF_TRY(check_number("rotary_fraction", c.rotary_fraction,
                        c.rotary_fraction >= 0 && c.rotary_fraction <= 1, "0 to 1"));
    int64_t turns = pf_rotary_dimensions(&c);
    if (turns % 2 != 0)
        return pf_fail(PREFOPT_ERR_ARGUMENT,
                       "transformer: rotary_fraction is %g: it turns %lld of a head's %lld "
                       "dimensions, expected an even number",
                       c.rotary_fraction, (long long)turns, (long long)(c.width / c.n_heads));
    PF_TRY(check_number("rotary_base", c.rotary_base, c.rotary_base > 1, "above 1, finite"));
    PF_TRY(check_number("norm_epsilon", c.norm_epsilon, c.norm_epsilon > 0, "above 0, finite"));
    PF_TRY(check_number("init_scale", c.init_scale, c.init_scale >= 0, "at least 0, finite"));
    *own = c;
    return PREFOPT_OK;
}

/* ---------------------------------------------------------------- the table */

/* Takes the next rows * columns parameters for a tensor; -1 when the number overflows. */
static int64_t add_tensor(pf_shape *shape, const char *name, int32_t n_dims, int64_t rows,
                          int64_t columns)
{
    pf_tensor *tensor = &shape->tensors[shape->n_tensors++];
    *tensor = (pf_tensor){.n_dims = n_dims, .rows = rows, .columns = columns, .offset = shape->n};
    snprintf(tensor->name, sizeof tensor->name, "%s", name);
    int64_t elements, bytes;
    if (shape->n < 0 || !pf_mul(rows, columns, &elements) ||
        !pf_add(shape->n, elements, &shape->n) ||
        !pf_mul(shape->n, (int64_t)sizeof(double), &bytes))
        shape->n = -1;
    return tensor->offset;
}

static int64_t add_layer_tensor(pf_shape *shape, int64_t layer, const char *name, int32_t n_dims,
                                int64_t rows, int64_t columns)
{
    char full[PF_TENSOR_NAME];
    snprintf(full, sizeof full, "gpt_neox.layers.%lld.%s", (long long)layer, name);
    return add_tensor(shape, full, n_dims, rows, columns);
}

static void add_neox_layer(pf_shape *shape, int64_t i)
{
    int64_t d = shape->config.width, ff = shape->config.ff_width;
    pf_layer_offsets *l = &shape->layers[i];
    l->norm1 = add_layer_tensor(shape, i, "input_layernorm.weight", 1, d, 1);
    l->norm1_bias = add_layer_tensor(shape, i, "input_layernorm.bias", 1, d, 1);
    l->norm2 = add_layer_tensor(shape, i, "post_attention_layernorm.weight", 1, d, 1);
    l->norm2_bias = add_layer_tensor(shape, i, "post_attention_layernorm.bias", 1, d, 1);
    l->qkv = add_layer_tensor(shape, i, "attention.query_key_value.weight", 2, 3 * d, d);
    l->qkv_bias = add_layer_tensor(shape, i, "attention.query_key_value.bias", 1, 3 * d, 1);
    l->out = add_layer_tensor(shape, i, "attention.dense.weight", 2, d, d);
    l->out_bias = add_layer_tensor(shape, i, "attention.dense.bias", 1, d, 1);
    l->up = add_layer_tensor(shape, i, "mlp.dense_h_to_4h.weight", 2, ff, d);
    l->up_bias = add_layer_tensor(shape, i, "mlp.dense_h_to_4h.bias", 1, ff, 1);
    l->down = add_layer_tensor(shape, i, "mlp.dense_4h_to_h.weight", 2, d, ff);
    l->down_bias = add_layer_tensor(shape, i, "mlp.dense_4h_to_h.bias", 1, d, 1);
}

int32_t pf_shape_create(pf_shape **out, prefopt_context *context,
                        const prefopt_transformer_config *config, int32_t head)
{
    enum { LAYER_TENSORS = 12, OTHER_TENSORS = 4 };
    pf_shape *shape = pf_calloc(context, 1, sizeof *shape);
    if (shape == NULL)
        return PREFOPT_ERR_MEMORY;
    shape->context = pf_context_retain(context);
    atomic_init(&shape->references, 1);
    shape->config = *config;
    shape->head = head;
    shape->head_width = config->width / config->n_heads;
    shape->rotary = pf_rotary_dimensions(config);
    shape->tensors =
        pf_alloc(context, config->n_layers * LAYER_TENSORS + OTHER_TENSORS, sizeof(pf_tensor));
    shape->layers = pf_alloc(context, config->n_layers, sizeof(pf_layer_offsets));
    if (shape->tensors == NULL || shape->layers == NULL) {
        pf_shape_release(shape);
        return PREFOPT_ERR_MEMORY;
    }
    int64_t d = config->width;
    shape->embedding = add_tensor(shape, "gpt_neox.embed_in.weight", 2, config->vocab, d);
    for (int64_t i = 0; i < config->n_layers; i++)
        add_neox_layer(shape, i);
    shape->norm = add_tensor(shape, "gpt_neox.final_layer_norm.weight", 1, d, 1);
    shape->norm_bias = add_tensor(shape, "gpt_neox.final_layer_norm.bias", 1, d, 1);
    if (head == PF_HEAD_SCORE)
        shape->output = add_tensor(shape, "score.weight", 2, 1, d);
    else if (config->tied)
        shape->output = shape->embedding;
    else
        shape->output = add_tensor(shape, "embed_out.weight", 2, config->vocab, d);
    if (shape->n < 0) {
        pf_shape_release(shape);
        return pf_fail(PREFOPT_ERR_MEMORY, "transformer: the number of parameters overflows");
    }
    *out = shape;
    return PREFOPT_OK;
}

pf_shape *pf_shape_retain(pf_shape *shape)
{
    atomic_fetch_add_explicit(&shape->references, 1, memory_order_relaxed);
    return shape;
}

void pf_shape_release(pf_shape *shape)
{
    if (shape == NULL ||
        atomic_fetch_sub_explicit(&shape->references, 1, memory_order_acq_rel) != 1)
        return;
    prefopt_context *context = shape->context;
    pf_free(context, shape->tensors);
    pf_free(context, shape->layers);
    pf_free(context, shape);
    pf_context_release(context);
}

int32_t pf_shape_tensor(const pf_shape *shape, int64_t i, prefopt_tensor *out)
{
    if (i < 0 || i >= shape->n_tensors)
        return pf_fail(PREFOPT_ERR_ARGUMENT, "tensor %lld is asked for, expected 0 to %lld",
                       (long long)i, (long long)shape->n_tensors - 1);
    const pf_tensor *tensor = &shape->tensors[i];
    prefopt_tensor own = {.n_dims = tensor->n_dims,
                          .name = tensor->name,
                          .offset = tensor->offset,
                          .rows = tensor->rows,
                          .columns = tensor->columns};
    pf_struct_write(out, &own, sizeof own);
    return PREFOPT_OK;
}

bool pf_shape_vector(const pf_shape *shape, int64_t k, int64_t *offset, int64_t *n)
{
    for (int64_t i = 0; i < shape->n_tensors; i++)
        if (shape->tensors[i].n_dims == 1 && k-- == 0) {
            *offset = shape->tensors[i].offset;
            *n = shape->tensors[i].rows;
            return true;
        }
    return false;
}
