/* The memory of a forward and backward pass: one block, cut into views for each batch. */
#include "model/pf_network.h"

enum { ALIGN = 16 }; /* floats: a cache line */

/* Hands out parts of a block, or, with memory NULL, counts what they would take. */
typedef struct {
    float *memory;
    int64_t used; /* -1: overflow */
} cutter;

static float *cut(cutter *c, int64_t rows, int64_t columns)
{
    int64_t n;
    if (c->used < 0 || !pf_mul(rows, columns, &n) || n > INT64_MAX / 8 - ALIGN ||
        !pf_add(c->used, (n + ALIGN - 1) / ALIGN * ALIGN, &n) || n > INT64_MAX / 8) {
        c->used = -1;
        return NULL;
    }
    float *start = c->memory == NULL ? NULL : c->memory + c->used;
    c->used = n;
    return start;
}

static void cut_layer(cutter *c, const pf_shape *shape, int64_t n, pf_layer_state *layer)
{
    int64_t d = shape->config.width;
    if (!shape->config.parallel_residual)
        layer->mid = cut(c, n, d);
    layer->mean1 = cut(c, n, 1);
    layer->rstd1 = cut(c, n, 1);
    layer->mean2 = cut(c, n, 1);
    layer->rstd2 = cut(c, n, 1);
    layer->qkv = cut(c, n, 3 * d);
    layer->attended = cut(c, n, d);
    layer->lse = cut(c, shape->config.n_heads, n);
    layer->up = cut(c, n, shape->config.ff_width);
}

/* a->keep and a->recompute say how; a->layers may be NULL where memory is. */
static int64_t cut_all(pf_activations *a, float *memory, const pf_shape *shape, int64_t n,
                       int64_t n_targets)
{
    cutter c = {.memory = memory};
    int64_t d = shape->config.width, n_layers = shape->config.n_layers;
    pf_layer_state shared = {.x = NULL};
    float *x = NULL;
    if (!a->keep || a->recompute)
        cut_layer(&c, shape, n, &shared);
    for (int64_t i = 0; i < n_layers; i++) {
        pf_layer_state own = shared;
        if (a->keep || i == 0)
            x = cut(&c, n, d);
        if (a->keep && !a->recompute)
            cut_layer(&c, shape, n, &own);
        own.x = x;
        if (memory != NULL)
            a->layers[i] = own;
    }
    a->top = a->keep ? cut(&c, n, d) : x;
    a->mean = cut(&c, n, 1);
    a->rstd = cut(&c, n, 1);
    a->hidden = cut(&c, n_targets, d);
    a->h = cut(&c, n, d);
    a->inner = cut(&c, n, shape->config.ff_width);
    a->scores = cut(&c, a->n_slots, a->slot_size);
    if (a->keep) {
        a->dx = cut(&c, n, d);
        a->dh = cut(&c, n, d);
        a->dqkv = cut(&c, n, 3 * d);
        a->partial = cut(&c, n / PF_NORM_CHUNK + 1, 2 * d);
        a->dhidden = cut(&c, n_targets, d);
    }
    return c.used;
}

static int64_t slot_size(int64_t longest, bool keep)
{
    int64_t size;
    return pf_mul(longest, PF_QUERY_BLOCK * (keep ? 2 : 1), &size) ? size : INT64_MAX;
}

int64_t pf_activations_size(const pf_shape *shape, int64_t n_rows, int64_t n_targets,
                            int64_t longest, bool keep, bool recompute)
{
    pf_activations a = {
        .keep = keep, .recompute = recompute, .n_slots = 1, .slot_size = slot_size(longest, keep)};
    int64_t size = cut_all(&a, NULL, shape, n_rows, n_targets);
    return size < 0 ? INT64_MAX / 8 : size;
}

int32_t pf_activations_fit(pf_activations *a, prefopt_context *context, const pf_shape *shape,
                           const pf_token_rows *rows, bool keep, bool recompute)
{
    a->context = context;
    a->keep = keep;
    a->recompute = recompute;
    a->n_slots = prefopt_context_threads(context);
    a->slot_size = slot_size(rows->longest, keep);
    a->n_rows = rows->n_rows;
    if (a->layers == NULL)
        a->layers = pf_calloc(context, shape->config.n_layers, sizeof *a->layers);
    if (a->slot_used == NULL)
        a->slot_used = pf_calloc(context, a->n_slots, sizeof *a->slot_used);
    if (a->layers == NULL || a->slot_used == NULL)
        return PREFOPT_ERR_MEMORY;
    PF_TRY(pf_turns_fit(&a->turns, context, shape, rows->longest));
    int64_t size = cut_all(a, NULL, shape, rows->n_rows, rows->n_targets);
    if (size < 0)
        return pf_fail(PREFOPT_ERR_MEMORY, "transformer: the activations of %lld tokens overflow",
                       (long long)rows->n_rows);
    if (size > a->capacity) {
        pf_free(context, a->memory);
        a->capacity = 0;
        a->memory = pf_alloc(context, size, sizeof *a->memory);
        if (a->memory == NULL)
            return PREFOPT_ERR_MEMORY;
        a->capacity = size;
    }
    cut_all(a, a->memory, shape, rows->n_rows, rows->n_targets);
    return PREFOPT_OK;
}

void pf_activations_clear(pf_activations *a)
{
    pf_free(a->context, a->memory);
    pf_free(a->context, a->layers);
    pf_free(a->context, a->slot_used);
    pf_turns_clear(&a->turns, a->context);
    *a = (pf_activations){.context = a->context};
}

/* There are as many as threads; which one a task gets does not matter. */
float *pf_scores_take(pf_activations *a)
{
    for (int64_t i = 0;; i = (i + 1) % a->n_slots)
        if (!atomic_exchange_explicit(&a->slot_used[i], true, memory_order_acquire))
            return a->scores + i * a->slot_size;
}

void pf_scores_give(pf_activations *a, float *scores)
{
    atomic_store_explicit(&a->slot_used[(scores - a->scores) / a->slot_size], false,
                          memory_order_release);
}
