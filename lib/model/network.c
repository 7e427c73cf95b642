/* The transformer from tokens to what its head sees, and back: embedding, layers, final norm. */
#include "math/pf_ops.h"
#include "model/pf_network.h"

/* ---------------------------------------------------------------- loops */

typedef struct {
    pf_rows_fn *fn;
    void *payload;
    int64_t n_rows;
} row_loop;

static void row_chunk(void *payload, int64_t task)
{
    const row_loop *loop = payload;
    int64_t first = task * PF_NORM_CHUNK, left = loop->n_rows - first;
    loop->fn(loop->payload, first, left < PF_NORM_CHUNK ? left : PF_NORM_CHUNK);
}

void pf_for_rows(prefopt_context *context, int64_t n_rows, pf_rows_fn *fn, void *payload)
{
    row_loop loop = {fn, payload, n_rows};
    pf_parallel_for(context, (n_rows + PF_NORM_CHUNK - 1) / PF_NORM_CHUNK, row_chunk, &loop);
}

enum { COLUMNS = 128 }; /* of a task that sums rows */

typedef struct {
    int64_t n_rows, columns;
    const float *x;
    float *sum;
    const pf_pass *pass;
} column_loop;

static void sum_columns(void *payload, int64_t task)
{
    const column_loop *loop = payload;
    int64_t first = task * COLUMNS, left = loop->columns - first;
    pf_add_columns(loop->n_rows, left < COLUMNS ? left : COLUMNS, loop->x + first, loop->columns,
                   loop->sum + first);
}

void pf_sum_rows(prefopt_context *context, int64_t n_rows, int64_t columns, const float *x,
                 float *sum)
{
    column_loop loop = {.n_rows = n_rows, .columns = columns, .x = x, .sum = sum};
    pf_parallel_for(context, (columns + COLUMNS - 1) / COLUMNS, sum_columns, &loop);
}

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
    const column_loop *loop = payload;
    const pf_pass *pass = loop->pass;
    int64_t d = loop->columns, first = task * COLUMNS, left = d - first;
    float *grad = pass->grad + pass->shape->embedding;
    for (int64_t i = 0; i < loop->n_rows; i++)
        pf_accumulate(left < COLUMNS ? left : COLUMNS, loop->x + i * d + first,
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
    column_loop loop = {.n_rows = rows->n_rows, .columns = d, .x = a->dx, .pass = pass};
    pf_parallel_for(pass->context, (d + COLUMNS - 1) / COLUMNS, embed_columns, &loop);
    return PREFOPT_OK;
}
