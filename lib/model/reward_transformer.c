/* A transformer as a reward model: a linear head on the hidden state after the last token,
 *     score(x, y) = w . h(x, y),   w [width] without a bias, which no preference could tell. */
#include <math.h>

#include "model/pf_network.h"
#include "model/pf_reward.h"

/* ---------------------------------------------------------------- scores */

/* Sums in double, in order. */
static int32_t score_forward(const pf_transformer *model, pf_workspace *w, bool keep,
                             const prefopt_sequences *in, void *out)
{
    const float *weight = model->weights->value + model->shape->output;
    int64_t width = model->shape->config.width;
    double *score = out;
    (void)keep, (void)in; /* the way back needs a.hidden alone */
    for (int64_t s = 0; score != NULL && s < w->rows.n_segments; s++) {
        const float *hidden = w->a.hidden + s * width;
        double sum = 0;
        for (int64_t j = 0; j < width; j++)
            sum += (double)hidden[j] * (double)weight[j];
        if (!isfinite(sum))
            return pf_fail(PREFOPT_ERR_NUMERIC, "sequence %lld: the score is %g",
                           (long long)w->rows.segments[s].sequence, sum);
        score[w->rows.segments[s].sequence] = sum;
    }
    return PREFOPT_OK;
}

/* dw += g h, dh = g w. */
static void score_backward(pf_transformer *model, pf_workspace *w, const double *grad)
{
    const float *weight = model->weights->value + model->shape->output;
    float *grad_weight = model->grad + model->shape->output;
    int64_t width = model->shape->config.width;
    for (int64_t s = 0; s < w->rows.n_segments; s++) {
        double g = grad[w->rows.segments[s].sequence];
        const float *hidden = w->a.hidden + s * width;
        float *dhidden = w->a.dhidden + s * width;
        for (int64_t j = 0; j < width; j++) {
            grad_weight[j] += (float)(g * (double)hidden[j]);
            dhidden[j] = (float)(g * (double)weight[j]);
        }
    }
}

static const pf_head_ops head = {PF_HEAD_SCORE, score_forward, score_backward};

static int32_t transformer_scores(void *payload, const prefopt_sequences *in, double *score)
{
    return pf_transformer_forward(payload, &head, in, score);
}

static int32_t transformer_backward(void *payload, const prefopt_sequences *in,
                                    const double *grad_score)
{
    return pf_transformer_backward(payload, &head, in, grad_score);
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

static const pf_policy_extras extras = {.keeps = transformer_keeps,
                                        .glance = pf_transformer_glance,
                                        .weights = pf_transformer_values,
                                        .hash = pf_transformer_hash};

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
