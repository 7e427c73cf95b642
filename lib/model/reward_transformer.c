/* A transformer as a reward model: a linear head on the hidden state after the last token,
 *     score(x, y) = w . h(x, y),   w [width] without a bias, which no preference could tell. */
#include <math.h>

#include "math/pf_ops.h"
#include "model/pf_network.h"
#include "model/pf_reward.h"

/* ---------------------------------------------------------------- scores */

/* Of the part in the workspace; sums in double, in order. */
static int32_t head_forward(const pf_transformer *model, const pf_workspace *w, double *score)
{
    const float *head = model->weights->value + model->shape->output;
    int64_t width = model->shape->config.width;
    for (int64_t s = 0; s < w->rows.n_segments; s++) {
        const float *hidden = w->a.hidden + s * width;
        double sum = 0;
        for (int64_t j = 0; j < width; j++)
            sum += (double)hidden[j] * (double)head[j];
        if (!isfinite(sum))
            return pf_fail(PREFOPT_ERR_NUMERIC, "sequence %lld: the score is %g",
                           (long long)w->rows.segments[s].sequence, sum);
        score[w->rows.segments[s].sequence] = sum;
    }
    return PREFOPT_OK;
}

static int32_t scores_in_parts(pf_transformer *model, pf_workspace *w, const prefopt_sequences *in,
                               const pf_prompts *prompts, double *score)
{
    /* As for a policy: only who trains will ask for the way back. */
    bool keep = model->grad != NULL && pf_transformer_part(model, prompts, 0, true) == prompts->n;
    for (int64_t first = 0, end; first < prompts->n; first = end) {
        end = keep ? prompts->n : pf_transformer_part(model, prompts, first, false);
        PF_TRY(pf_transformer_forward(model, w, prompts, first, end, keep));
        PF_TRY(head_forward(model, w, score));
    }
    if (keep)
        pf_workspace_keep(model, w, in);
    return PREFOPT_OK;
}

static int32_t transformer_scores(void *payload, const prefopt_sequences *in, double *score)
{
    pf_transformer *model = payload;
    PF_TRY(pf_transformer_check(model->shape, in, PF_HEAD_SCORE));
    pf_prompts prompts;
    pf_workspace *w;
    PF_TRY(pf_prompts_create(&prompts, model->context, in, PF_HEAD_SCORE, NULL));
    int32_t status = pf_workspace_take(model, &w);
    if (status == PREFOPT_OK) {
        status = scores_in_parts(model, w, in, &prompts, score);
        pf_workspace_give(model, w);
    }
    pf_prompts_clear(&prompts);
    return status;
}

/* ---------------------------------------------------------------- gradients */

/* dw += g h, dh = g w, then back through the layers. */
static int32_t part_backward(pf_transformer *model, pf_workspace *w, const double *grad_score)
{
    const float *head = model->weights->value + model->shape->output;
    float *grad_head = model->grad + model->shape->output;
    int64_t width = model->shape->config.width;
    for (int64_t s = 0; s < w->rows.n_segments; s++) {
        double g = grad_score[w->rows.segments[s].sequence];
        const float *hidden = w->a.hidden + s * width;
        float *dhidden = w->a.dhidden + s * width;
        for (int64_t j = 0; j < width; j++) {
            grad_head[j] += (float)(g * (double)hidden[j]);
            dhidden[j] = (float)(g * (double)head[j]);
        }
    }
    return pf_transformer_backward(model, w);
}

static int32_t backward_in_parts(pf_transformer *model, pf_workspace *w, const pf_prompts *prompts,
                                 const double *grad_score)
{
    for (int64_t first = 0, end; first < prompts->n; first = end) {
        end = pf_transformer_part(model, prompts, first, true);
        PF_TRY(pf_transformer_forward(model, w, prompts, first, end, true));
        PF_TRY(part_backward(model, w, grad_score));
    }
    return PREFOPT_OK;
}

static int32_t transformer_backward(void *payload, const prefopt_sequences *in,
                                    const double *grad_score)
{
    pf_transformer *model = payload;
    PF_TRY(pf_transformer_check(model->shape, in, PF_HEAD_SCORE));
    prefopt_parameters parameters;
    PF_TRY(pf_transformer_parameters(model, &parameters));
    pf_workspace *w;
    PF_TRY(pf_workspace_take(model, &w));
    int32_t status;
    if (pf_workspace_keeps(w, in)) {
        w->kept_n = 0;
        status = part_backward(model, w, grad_score);
    } else {
        pf_prompts prompts;
        status = pf_prompts_create(&prompts, model->context, in, PF_HEAD_SCORE, grad_score);
        if (status == PREFOPT_OK) {
            status = backward_in_parts(model, w, &prompts, grad_score);
            pf_prompts_clear(&prompts);
        }
    }
    pf_workspace_give(model, w);
    return status;
}

/* ---------------------------------------------------------------- the handle */

static int32_t transformer_parameters(void *payload, prefopt_parameters *out)
{
    return pf_transformer_parameters(payload, out);
}

static void transformer_destroy(void *payload) { pf_transformer_destroy(payload); }

static int32_t transformer_updated(void *payload) { return pf_transformer_updated(payload); }

static int64_t transformer_keeps(void *payload, const prefopt_sequences *in)
{
    return pf_transformer_keeps(payload, in, PF_HEAD_SCORE);
}

static const prefopt_reward_callbacks callbacks = {
    .struct_size = sizeof callbacks,
    .scores = transformer_scores,
    .backward = transformer_backward,
    .parameters = transformer_parameters,
    .destroy = transformer_destroy,
    .updated = transformer_updated,
};

static const pf_policy_extras extras = {
    .keeps = transformer_keeps, .weights = pf_transformer_values, .hash = pf_transformer_hash};

int32_t pf_reward_transformer_wrap(prefopt_reward **out, pf_transformer *model)
{
    int32_t status = pf_reward_create(out, model->context, &callbacks, model);
    if (status != PREFOPT_OK) {
        pf_transformer_destroy(model);
        return status;
    }
    (*out)->extras = &extras;
    return PREFOPT_OK;
}

int32_t pf_reward_transformer_of(const prefopt_reward *reward, const pf_transformer **out)
{
    PF_REQUIRE(reward);
    if (reward->extras != &extras)
        return pf_fail(PREFOPT_ERR_UNSUPPORTED, "this reward is not a transformer");
    *out = reward->payload;
    return PREFOPT_OK;
}

int32_t prefopt_reward_from_policy(prefopt_reward **out, const prefopt_policy *backbone)
{
    PF_REQUIRE(out);
    const pf_transformer *from = NULL;
    PF_TRY(pf_policy_transformer_of(backbone, &from));
    pf_shape *shape;
    PF_TRY(pf_shape_create(&shape, from->context, &from->shape->config, PF_HEAD_SCORE));
    pf_transformer *model;
    int32_t status = pf_transformer_create(&model, shape, NULL);
    if (status == PREFOPT_OK) {
        /* The tables agree up to the head, which comes last. */
        memcpy(model->weights->value, from->weights->value, (size_t)shape->output * sizeof(float));
        memset(model->weights->value + shape->output, 0,
               (size_t)(shape->n - shape->output) * sizeof(float));
        model->recompute = from->recompute;
        status = pf_reward_transformer_wrap(out, model);
    }
    pf_shape_release(shape);
    return status;
}

int32_t prefopt_reward_tensor(const prefopt_reward *reward, int64_t i, prefopt_tensor *out)
{
    const pf_transformer *model = NULL;
    PF_TRY(pf_reward_transformer_of(reward, &model));
    PF_REQUIRE(out);
    PF_TRY(pf_struct_check_out(out, sizeof *out, "prefopt_tensor"));
    return pf_shape_tensor(model->shape, i, out);
}

int32_t prefopt_reward_set_recompute(prefopt_reward *reward, int32_t recompute)
{
    const pf_transformer *model = NULL;
    PF_TRY(pf_reward_transformer_of(reward, &model));
    return pf_transformer_set_recompute(reward->payload, recompute);
}
