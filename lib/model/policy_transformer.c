/* A transformer as a policy: log-probabilities of completion tokens, and back. */
#include <math.h>

#include "model/pf_decoder.h"
#include "model/pf_model.h"
#include "model/pf_network.h"

/* ---------------------------------------------------------------- log-probabilities */

/* Where they go. */
typedef struct {
    double *sequence, *token; /* token may be NULL */
} logprobs;

/* The part's target_logp into the caller's arrays. */
static void write_logp(const pf_workspace *w, const prefopt_sequences *in, const logprobs *out)
{
    for (int64_t s = 0; s < w->rows.n_segments; s++) {
        int64_t i = w->rows.segments[s].sequence, first = w->rows.first_target[s];
        int64_t n = w->rows.first_target[s + 1] - first;
        double sum = 0;
        for (int64_t k = 0; k < n; k++)
            sum += w->target_logp[first + k];
        out->sequence[i] = sum;
        if (out->token != NULL)
            memcpy(out->token + in->offsets[i] - in->offsets[0] + in->prompt_len[i],
                   w->target_logp + first, (size_t)n * sizeof *out->token);
    }
}

static int32_t logits_forward(const pf_transformer *model, pf_workspace *w, bool keep,
                              const prefopt_sequences *in, void *out)
{
    const pf_shape *shape = model->shape;
    const float *output = model->weights->value + shape->output;
    int64_t n = w->rows.n_targets, width = shape->config.width, vocab = shape->config.vocab;
    pf_logit_mask mask = {.before = w->rows.before_token};
    if (model->transitions != NULL)
        mask.allowed = model->transitions->allowed;
    if (keep)
        PF_TRY(pf_kept_logits_forward(&w->logits, n, width, vocab, w->a.hidden, output,
                                      w->rows.target_token, &mask, w->target_logp));
    else
        PF_TRY(pf_linear_logprobs(model->context, n, width, vocab, w->a.hidden, output,
                                  w->rows.target_token, &mask, w->target_logp));
    if (out != NULL)
        write_logp(w, in, out);
    return PREFOPT_OK;
}

static void logits_backward(pf_transformer *model, pf_workspace *w, const double *grad)
{
    for (int64_t s = 0; s < w->rows.n_segments; s++) {
        int64_t first = w->rows.first_target[s], end = w->rows.first_target[s + 1];
        double of_sequence = grad[w->rows.segments[s].sequence];
        /* A sequence of probability 0 stays one, whatever the parameters. */
        for (int64_t t = first; t < end; t++)
            of_sequence = w->target_logp[t] > -INFINITY ? of_sequence : 0;
        for (int64_t t = first; t < end; t++)
            w->target_grad[t] = of_sequence;
    }
    pf_kept_logits_backward(&w->logits, w->target_grad, w->a.dhidden,
                            model->grad + model->shape->output);
}

static const pf_head_ops head = {PF_HEAD_LOGITS, logits_forward, logits_backward};

static int32_t transformer_logprobs(void *payload, const prefopt_sequences *in,
                                    double *sequence_logp, double *token_logp)
{
    for (int64_t i = 0; i < in->n; i++)
        sequence_logp[i] = 0; /* of empty completions, which are left out */
    return pf_transformer_forward(payload, &head, in, &(logprobs){sequence_logp, token_logp});
}

static int32_t transformer_backward(void *payload, const prefopt_sequences *in,
                                    const double *grad_sequence_logp)
{
    return pf_transformer_backward(payload, &head, in, grad_sequence_logp);
}

static int32_t transformer_next_logprobs(void *payload, const prefopt_sequences *in,
                                         double *next_logp)
{
    const pf_transformer *model = payload;
    return pf_decoder_next_logprobs(model->shape, model->weights->value, model->transitions, in,
                                    next_logp);
}

/* ---------------------------------------------------------------- the handle */

static int32_t transformer_parameters(void *payload, prefopt_parameters *out)
{
    return pf_transformer_parameters(payload, out);
}

static int32_t transformer_clone(void *payload, void **copy)
{
    return pf_transformer_clone(payload, (pf_transformer **)copy);
}

static void transformer_destroy(void *payload) { pf_transformer_destroy(payload); }

static int32_t transformer_updated(void *payload) { return pf_transformer_updated(payload); }

static int64_t transformer_keeps(void *payload, const prefopt_sequences *in)
{
    return pf_transformer_keeps(payload, in, PF_HEAD_LOGITS);
}

static const prefopt_policy_callbacks callbacks = {
    .struct_size = sizeof callbacks,
    .logprobs = transformer_logprobs,
    .backward = transformer_backward,
    .next_logprobs = transformer_next_logprobs,
    .parameters = transformer_parameters,
    .clone = transformer_clone,
    .destroy = transformer_destroy,
    .updated = transformer_updated,
};

static int32_t transformer_decoder(void *payload, float scale, pf_decoder **out)
{
    pf_transformer *model = payload;
    pf_decoder *decoder = atomic_exchange(&model->decoder, NULL);
    if (decoder == NULL)
        return pf_decoder_create(out, model->shape, model->weights->value, scale,
                                 model->transitions);
    int32_t status = pf_decoder_renew(decoder, model->weights->value, scale, model->transitions);
    if (status == PREFOPT_OK)
        *out = decoder;
    else
        pf_decoder_destroy(decoder);
    return status;
}

/* Memory taken anew for each of many short calls can cost more than the calls; but a policy does
 * not hold on to much. */
enum { KEPT_DECODER_BYTES = 64 << 20 };

static void transformer_decoder_done(void *payload, pf_decoder *decoder)
{
    pf_transformer *model = payload;
    pf_decoder *none = NULL;
    if (decoder != NULL && (pf_decoder_rest(decoder) > KEPT_DECODER_BYTES ||
                            !atomic_compare_exchange_strong(&model->decoder, &none, decoder)))
        pf_decoder_destroy(decoder);
}

static const pf_policy_extras extras = {.keeps = transformer_keeps,
                                        .glance = pf_transformer_glance,
                                        .decoder = transformer_decoder,
                                        .weights = pf_transformer_values,
                                        .hash = pf_transformer_hash,
                                        .decoder_done = transformer_decoder_done};

int32_t pf_policy_transformer_wrap(prefopt_policy **out, pf_transformer *model)
{
    const prefopt_transformer_config *c = &model->shape->config;
    prefopt_space space = {
        .struct_size = sizeof space, .eos = c->eos, .vocab = c->vocab, .horizon = c->max_positions};
    int32_t status = pf_policy_create(out, model->context, &space, &callbacks, model);
    if (status != PREFOPT_OK) {
        pf_transformer_destroy(model);
        return status;
    }
    (*out)->extras = &extras;
    return PREFOPT_OK;
}

/* ---------------------------------------------------------------- from scratch */

typedef struct {
    const pf_shape *shape;
    float *value;
    uint64_t seed;
} initialiser;

enum { INIT_CHUNK = 1 << 14 };

/* Matrices normal, gains 1, biases 0; the draw of an element depends on its place alone. */
static void init_chunk(void *payload, int64_t task)
{
    const initialiser *w = payload;
    const pf_shape *shape = w->shape;
    int64_t first = task * INIT_CHUNK, end = first + INIT_CHUNK;
    end = end < shape->n ? end : shape->n;
    for (int64_t t = 0; t < shape->n_tensors; t++) {
        const pf_tensor *tensor = &shape->tensors[t];
        int64_t from = tensor->offset > first ? tensor->offset : first;
        int64_t to = tensor->offset + tensor->rows * tensor->columns;
        to = to < end ? to : end;
        size_t length = strlen(tensor->name);
        bool gain = tensor->n_dims == 1 && strcmp(tensor->name + length - 7, ".weight") == 0;
        for (int64_t i = from; i < to; i++)
            w->value[i] =
                tensor->n_dims == 2
                    ? (float)(shape->config.init_scale * pf_normal(w->seed, 0, (uint64_t)i))
                    : (gain ? 1 : 0);
    }
}

int32_t prefopt_policy_create_transformer(prefopt_policy **out, prefopt_context *context,
                                          const prefopt_transformer_config *config, uint64_t seed)
{
    PF_REQUIRE(out);
    PF_REQUIRE(context);
    prefopt_transformer_config own;
    PF_TRY(pf_transformer_config_read(&own, config));
    pf_shape *shape;
    PF_TRY(pf_shape_create(&shape, context, &own, PF_HEAD_LOGITS));
    pf_transformer *model;
    int32_t status = pf_transformer_create(&model, shape, NULL);
    if (status == PREFOPT_OK) {
        initialiser w = {shape, model->weights->value, seed};
        pf_parallel_for(context, (shape->n + INIT_CHUNK - 1) / INIT_CHUNK, init_chunk, &w);
        status = pf_policy_transformer_wrap(out, model);
    }
    pf_shape_release(shape);
    return status;
}

/* ---------------------------------------------------------------- looking inside */

int32_t pf_policy_transformer_of(const prefopt_policy *policy, const pf_transformer **out)
{
    PF_REQUIRE(policy);
    if (policy->extras != &extras)
        return pf_fail(PREFOPT_ERR_UNSUPPORTED, "this policy is not a transformer");
    *out = policy->payload;
    return PREFOPT_OK;
}

int32_t prefopt_policy_transformer_config(const prefopt_policy *policy,
                                          prefopt_transformer_config *out)
{
    const pf_transformer *model = NULL;
    PF_TRY(pf_policy_transformer_of(policy, &model));
    PF_REQUIRE(out);
    PF_TRY(pf_struct_check_out(out, sizeof *out, "prefopt_transformer_config"));
    pf_struct_write(out, &model->shape->config, sizeof model->shape->config);
    return PREFOPT_OK;
}

int32_t prefopt_policy_tensor(const prefopt_policy *policy, int64_t i, prefopt_tensor *out)
{
    const pf_transformer *model = NULL;
    PF_TRY(pf_policy_transformer_of(policy, &model));
    PF_REQUIRE(out);
    PF_TRY(pf_struct_check_out(out, sizeof *out, "prefopt_tensor"));
    return pf_shape_tensor(model->shape, i, out);
}

int32_t prefopt_policy_set_recompute(prefopt_policy *policy, int32_t recompute)
{
    const pf_transformer *model = NULL;
    PF_TRY(pf_policy_transformer_of(policy, &model));
    return pf_transformer_set_recompute(policy->payload, recompute);
}

int32_t prefopt_policy_set_transitions(prefopt_policy *policy, const uint8_t *allowed)
{
    const pf_transformer *model = NULL;
    PF_TRY(pf_policy_transformer_of(policy, &model));
    pf_transitions *transitions = NULL;
    if (allowed != NULL)
        PF_TRY(pf_transitions_create(&transitions, model->context, model->shape->config.vocab,
                                     allowed));
    pf_transformer_set_transitions(policy->payload, transitions);
    pf_transitions_release(transitions);
    return PREFOPT_OK;
}
