/* A transformer's weights, gradients and workspaces. */
#include <math.h>

#include "math/pf_rows.h"
#include "model/pf_model.h"
#include "model/pf_decoder.h"
#include "model/pf_network.h"

/* ---------------------------------------------------------------- weights */

static int32_t weights_create(prefopt_context *context, int64_t n, pf_weights **out)
{
    pf_weights *weights = pf_alloc(context, 1, sizeof *weights);
    float *value = weights == NULL ? NULL : pf_alloc(context, n, sizeof *value);
    if (value == NULL) {
        pf_free(context, weights);
        return PREFOPT_ERR_MEMORY;
    }
    atomic_init(&weights->references, 1);
    weights->value = value;
    *out = weights;
    return PREFOPT_OK;
}

static void weights_release(prefopt_context *context, pf_weights *weights)
{
    if (weights == NULL ||
        atomic_fetch_sub_explicit(&weights->references, 1, memory_order_acq_rel) != 1)
        return;
    pf_free(context, weights->value);
    pf_free(context, weights);
}

int32_t pf_transformer_create(pf_transformer **out, pf_shape *shape, pf_weights *weights)
{
    prefopt_context *context = shape->context;
    pf_transformer *model = pf_calloc(context, 1, sizeof *model);
    if (model == NULL)
        return PREFOPT_ERR_MEMORY;
    if (weights != NULL)
        atomic_fetch_add_explicit(&weights->references, 1, memory_order_relaxed);
    else if (weights_create(context, shape->n, &weights) != PREFOPT_OK) {
        pf_free(context, model);
        return PREFOPT_ERR_MEMORY;
    }
    model->context = pf_context_retain(context);
    model->shape = pf_shape_retain(shape);
    model->weights = weights;
    atomic_init(&model->workspace, NULL);
    atomic_init(&model->decoder, NULL);
    *out = model;
    return PREFOPT_OK;
}

int32_t pf_transformer_clone(const pf_transformer *model, pf_transformer **out)
{
    PF_TRY(pf_transformer_create(out, model->shape, model->weights));
    (*out)->recompute = model->recompute;
    (*out)->transitions = pf_transitions_retain(model->transitions);
    return PREFOPT_OK;
}

static void workspace_destroy(prefopt_context *context, pf_workspace *workspace)
{
    if (workspace == NULL)
        return;
    pf_token_rows_clear(&workspace->rows, context);
    pf_activations_clear(&workspace->a);
    pf_kept_logits_clear(&workspace->logits);
    pf_free(context, workspace->target_logp);
    pf_free(context, workspace->target_grad);
    pf_free(context, workspace->kept_tokens);
    pf_free(context, workspace->kept_numbers);
    pf_free(context, workspace);
}

void pf_transformer_destroy(pf_transformer *model)
{
    prefopt_context *context = model->context;
    workspace_destroy(context, atomic_load(&model->workspace));
    pf_decoder_destroy(atomic_load(&model->decoder));
    weights_release(context, model->weights);
    pf_transitions_release(model->transitions);
    pf_free(context, model->grad);
    pf_shape_release(model->shape);
    pf_free(context, model);
    pf_context_release(context);
}

typedef struct {
    const float *from;
    float *to;
    int64_t n;
    _Atomic int64_t bad; /* first element of the first chunk that is not finite; n: none */
} sweep;

enum { CHUNK = 1 << 16 };

static void copy_chunk(void *payload, int64_t task)
{
    sweep *s = payload;
    int64_t first = task * CHUNK, n = s->n - first < CHUNK ? s->n - first : CHUNK;
    memcpy(s->to + first, s->from + first, (size_t)n * sizeof *s->to);
}

static void check_chunk(void *payload, int64_t task)
{
    sweep *s = payload;
    int64_t first = task * CHUNK, n = s->n - first < CHUNK ? s->n - first : CHUNK;
    float largest;
    int64_t known = atomic_load_explicit(&s->bad, memory_order_relaxed);
    if (!pf_row_finite(n, s->from + first, &largest))
        while (first < known && !atomic_compare_exchange_weak(&s->bad, &known, first))
            ;
}

static void for_chunks(const pf_transformer *model, pf_task_fn *fn, sweep *s)
{
    pf_parallel_for(model->context, (s->n + CHUNK - 1) / CHUNK, fn, s);
}

static void forget(pf_transformer *model)
{
    pf_workspace *workspace = atomic_load(&model->workspace);
    if (workspace != NULL)
        workspace->kept_n = 0;
}

/* Whoever asks may write: weights that a clone shares part here. */
int32_t pf_transformer_parameters(pf_transformer *model, prefopt_parameters *out)
{
    int64_t n = model->shape->n;
    float *grad = model->grad;
    if (grad == NULL && (grad = pf_calloc(model->context, n, sizeof *grad)) == NULL)
        return PREFOPT_ERR_MEMORY;
    if (atomic_load_explicit(&model->weights->references, memory_order_acquire) > 1) {
        pf_weights *own;
        int32_t status = weights_create(model->context, n, &own);
        if (status != PREFOPT_OK) {
            if (model->grad == NULL)
                pf_free(model->context, grad);
            return status;
        }
        sweep s = {.from = model->weights->value, .to = own->value, .n = n};
        for_chunks(model, copy_chunk, &s);
        weights_release(model->context, model->weights);
        model->weights = own;
        forget(model);
    }
    model->grad = grad;
    out->dtype = PREFOPT_F32;
    out->n = n;
    out->value = model->weights->value;
    out->grad = model->grad;
    return PREFOPT_OK;
}

int32_t pf_transformer_updated(pf_transformer *model)
{
    const float *value = model->weights->value;
    sweep s = {.from = value, .n = model->shape->n};
    atomic_init(&s.bad, s.n);
    forget(model);
    for_chunks(model, check_chunk, &s);
    int64_t at = atomic_load(&s.bad);
    if (at == s.n)
        return PREFOPT_OK;
    while (isfinite(value[at]))
        at++;
    const pf_tensor *tensor = model->shape->tensors + model->shape->n_tensors - 1;
    while (tensor->offset > at)
        tensor--;
    return pf_fail(PREFOPT_ERR_NUMERIC, "%s: element %lld is %g, expected a finite number",
                   tensor->name, (long long)(at - tensor->offset), (double)value[at]);
}

void pf_transformer_values(void *payload, pf_values *out)
{
    const pf_transformer *model = payload;
    *out = (pf_values){.shape = model->shape,
                       .dtype = PREFOPT_F32,
                       .n = model->shape->n,
                       .value = model->weights->value,
                       .transitions = model->transitions};
}

void pf_transformer_glance(void *payload, bool on) { ((pf_transformer *)payload)->glances = on; }

/* What recomputing and init_scale are has no part in what the model answers. */
int32_t pf_transformer_hash(void *payload, uint64_t *out)
{
    const pf_transformer *model = payload;
    const prefopt_transformer_config *c = &model->shape->config;
    const int64_t whole[] = {c->architecture, c->activation,    c->parallel_residual,
                             c->tied,         c->eos,           c->vocab,
                             c->n_layers,     c->width,         c->n_heads,
                             c->ff_width,     c->max_positions, model->shape->head};
    uint64_t hash = pf_hash_kind("transformer");
    for (size_t k = 0; k < sizeof whole / sizeof whole[0]; k++)
        hash = pf_stream(hash, (uint64_t)whole[k]);
    hash = pf_hash_f64(hash, c->rotary_fraction);
    hash = pf_hash_f64(hash, c->rotary_base);
    hash = pf_hash_f64(hash, c->norm_epsilon);
    if (model->transitions != NULL)
        hash =
            pf_content_hash(model->context, hash, model->transitions->allowed, c->vocab * c->vocab);
    *out = pf_content_hash(model->context, hash, model->weights->value,
                           model->shape->n * (int64_t)sizeof(float));
    return PREFOPT_OK;
}

int32_t pf_transformer_set_recompute(pf_transformer *model, int32_t recompute)
{
    if (recompute != 0 && recompute != 1)
        return pf_fail(PREFOPT_ERR_ARGUMENT, "recompute is %d, expected 0 or 1", recompute);
    model->recompute = recompute;
    forget(model);
    return PREFOPT_OK;
}

void pf_transformer_set_transitions(pf_transformer *model, pf_transitions *transitions)
{
    pf_transitions *before = model->transitions;
    model->transitions = pf_transitions_retain(transitions);
    pf_transitions_release(before);
    forget(model);
}

/* ---------------------------------------------------------------- workspaces */

int32_t pf_workspace_take(pf_transformer *model, pf_workspace **out)
{
    pf_workspace *workspace = atomic_exchange(&model->workspace, NULL);
    if (workspace == NULL) {
        workspace = pf_calloc(model->context, 1, sizeof *workspace);
        if (workspace == NULL)
            return PREFOPT_ERR_MEMORY;
        workspace->a.context = workspace->logits.context = model->context;
    }
    *out = workspace;
    return PREFOPT_OK;
}

void pf_workspace_give(pf_transformer *model, pf_workspace *workspace)
{
    pf_workspace *none = NULL;
    if (!atomic_compare_exchange_strong(&model->workspace, &none, workspace))
        workspace_destroy(model->context, workspace);
}

void pf_workspace_keep(const pf_transformer *model, pf_workspace *workspace,
                       const prefopt_sequences *in)
{
    prefopt_context *context = model->context;
    int64_t n = in->n, base = in->offsets[0], n_tokens = in->offsets[n] - base;
    workspace->kept_n = 0;
    if (pf_grow(context, (void **)&workspace->kept_tokens, 0, &workspace->kept_tokens_capacity,
                n_tokens, sizeof *workspace->kept_tokens) != PREFOPT_OK ||
        pf_grow(context, (void **)&workspace->kept_numbers, 0, &workspace->kept_numbers_capacity,
                2 * n + 1, sizeof *workspace->kept_numbers) != PREFOPT_OK)
        return;
    memcpy(workspace->kept_tokens, in->tokens + base, (size_t)n_tokens * sizeof *in->tokens);
    for (int64_t i = 0; i <= n; i++)
        workspace->kept_numbers[i] = in->offsets[i] - base;
    memcpy(workspace->kept_numbers + n + 1, in->prompt_len, (size_t)n * sizeof *in->prompt_len);
    workspace->kept_n = n;
}

bool pf_workspace_keeps(const pf_workspace *workspace, const prefopt_sequences *in)
{
    int64_t n = in->n, base = in->offsets[0];
    if (workspace->kept_n != n || n == 0)
        return false;
    for (int64_t i = 0; i <= n; i++)
        if (workspace->kept_numbers[i] != in->offsets[i] - base)
            return false;
    return memcmp(workspace->kept_numbers + n + 1, in->prompt_len,
                  (size_t)n * sizeof *in->prompt_len) == 0 &&
           memcmp(workspace->kept_tokens, in->tokens + base,
                  (size_t)(in->offsets[n] - base) * sizeof *in->tokens) == 0;
}
