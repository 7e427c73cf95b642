/* The transformer from tokens to what its head sees, and back: embedding, layers, final norm. */
#include "math/pf_ops.h"
#include "model/pf_network.h"

/* ---------------------------------------------------------------- forward */

static void embed_rows(void *payload, int64_t first, int64_t n)
{
    const pf_pass *pass = payload;
    int64_t d = pass->shape->config.width;
    const float *embedding = pass->value + pass->shape->embedding;
    for (int64_t i = first; i < first + n; i++)
        memcpy(pass->a->layers[0].x + i * d, embedding + pass->rows->token[i] * d,
               (size_t)d * sizeof *embedding);
}

static void final_norm_rows(void *payload, int64_t first, int64_t n)
{
    const pf_pass *pass = payload;
    const pf_shape *shape = pass->shape;
    pf_activations *a = pass->a;
    int64_t d = shape->config.width;
    pf_layer_norm(n, d, a->top + first * d, pass->value + shape->norm,
                  pass->value + shape->norm_bias, shape->config.norm_epsilon, a->h + first * d,
                  a->mean + first, a->rstd + first);
}

static void gather_targets(void *payload, int64_t first, int64_t n)
{
    const pf_pass *pass = payload;
    int64_t d = pass->shape->config.width;
    for (int64_t t = first; t < first + n; t++)
        memcpy(pass->a->hidden + t * d, pass->a->h + pass->rows->target_row[t] * d,
               (size_t)d * sizeof(float));
}

int32_t pf_network_forward(const pf_pass *pass)
{
    const pf_token_rows *rows = pass->rows;
    pf_activations *a = pass->a;
    int64_t n_layers = pass->shape->config.n_layers;
    pf_for_rows(pass->context, rows->n_rows, embed_rows, (void *)pass);
    for (int64_t i = 0; i < n_layers; i++)
        PF_TRY(
            pf_neox_layer(pass, i, &a->layers[i], i + 1 < n_layers ? a->layers[i + 1].x : a->top));
    pf_for_rows(pass->context, rows->n_rows, final_norm_rows, (void *)pass);
    pf_for_rows(pass->context, rows->n_targets, gather_targets, (void *)pass);
    return PREFOPT_OK;
}

/* ---------------------------------------------------------------- backward */

/* Gradients of tokens' embeddings, a range of columns: rows in order, for tokens repeat. */
static void embed_columns(void *payload, int64_t task)
{
    const pf_pass *pass = payload;
    int64_t d = pass->shape->config.width, first = task * PF_COLUMN_CHUNK, left = d - first;
    float *grad = pass->grad + pass->shape->embedding;
    for (int64_t i = 0; i < pass->rows->n_rows; i++)
        pf_accumulate(left < PF_COLUMN_CHUNK ? left : PF_COLUMN_CHUNK, pass->a->dx + i * d + first,
                      grad + pass->rows->token[i] * d + first);
}

int32_t pf_network_backward(const pf_pass *pass)
{
    const pf_token_rows *rows = pass->rows;
    const pf_shape *shape = pass->shape;
    pf_activations *a = pass->a;
    int64_t d = shape->config.width;
    /* A row before several completions has several targets. */
    memset(a->dh, 0, (size_t)(rows->n_rows * d) * sizeof *a->dh);
    memset(a->dx, 0, (size_t)(rows->n_rows * d) * sizeof *a->dx);
    for (int64_t t = 0; t < rows->n_targets; t++)
        pf_accumulate(d, a->dhidden + t * d, a->dh + rows->target_row[t] * d);
    pf_norm_backward(pass, a->top, a->mean, a->rstd, shape->norm, shape->norm_bias, a->dh, a->dx);
    for (int64_t i = shape->config.n_layers - 1; i >= 0; i--) {
        pf_layer_state *layer = &a->layers[i];
        if (a->recompute)
            PF_TRY(pf_neox_layer(pass, i, layer, a->dh));
        PF_TRY(pf_neox_layer_backward(pass, i, layer));
    }
    pf_parallel_for(pass->context, (d + PF_COLUMN_CHUNK - 1) / PF_COLUMN_CHUNK, embed_columns,
                    (void *)pass);
    return PREFOPT_OK;
}
