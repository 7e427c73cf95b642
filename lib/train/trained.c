/* What is trained: a policy by its log-probabilities, or a reward model by its scores. */
#include "model/pf_reward.h"
#include "model/pf_transformer.h"
#include "train/pf_train.h"

prefopt_context *pf_trained_context(const pf_trained *model)
{
    return model->policy != NULL ? model->policy->context : model->reward->context;
}

int32_t pf_trained_scores(const pf_trained *model, const prefopt_sequences *in, double *score)
{
    if (model->policy != NULL)
        return pf_policy_logprobs(model->policy, in, score, NULL);
    return pf_reward_scores(model->reward, in, score);
}

static void glance(const pf_trained *model, bool on)
{
    const pf_policy_extras *extras =
        model->policy != NULL ? model->policy->extras : model->reward->extras;
    if (extras != NULL && extras->glance != NULL)
        extras->glance(model->policy != NULL ? model->policy->payload : model->reward->payload, on);
}

int32_t pf_trained_glance(const pf_trained *model, const prefopt_sequences *in, double *score)
{
    glance(model, true);
    int32_t status = pf_trained_scores(model, in, score);
    glance(model, false);
    return status;
}

static int32_t backward(const pf_trained *model, const prefopt_sequences *in,
                        const double *grad_score)
{
    if (model->policy != NULL)
        return prefopt_policy_backward(model->policy, in, grad_score);
    return prefopt_reward_backward(model->reward, in, grad_score);
}

int32_t pf_trained_backward(const pf_trained *model, const prefopt_sequences *in,
                            const double *grad_score)
{
    if (!pf_trained_splits(model))
        return backward(model, in, grad_score);
    /* Before the first part has added its gradient. */
    PF_TRY(pf_gradients_check(grad_score, in->n, "grad_score"));
    for (int64_t first = 0; first < in->n;) {
        prefopt_sequences part = pf_sequences_part(in, first, in->n - first);
        part.n = pf_trained_keeps(model, &part);
        if (part.n < 0)
            return (int32_t)part.n;
        PF_TRY(backward(model, &part, grad_score + first));
        first += part.n;
    }
    return PREFOPT_OK;
}

static const pf_policy_extras *extras_of(const pf_trained *model)
{
    return model->policy != NULL ? model->policy->extras : model->reward->extras;
}

bool pf_trained_splits(const pf_trained *model)
{
    const pf_policy_extras *extras = extras_of(model);
    return extras != NULL && extras->keeps != NULL;
}

bool pf_trained_vector(const pf_trained *model, int64_t k, int64_t *offset, int64_t *n)
{
    const pf_policy_extras *extras = extras_of(model);
    void *payload = model->policy != NULL ? model->policy->payload : model->reward->payload;
    pf_values values;
    return pf_extras_values(extras, payload, &values) &&
           pf_shape_vector(values.shape, k, offset, n);
}

static int64_t keeps(const pf_trained *model, const prefopt_sequences *in)
{
    return model->policy != NULL ? pf_policy_keeps(model->policy, in)
                                 : pf_reward_keeps(model->reward, in);
}

/* Whether sequences i and i + 1 share a prompt that costs something to compute. */
static bool share_prompt(const prefopt_sequences *in, int64_t i)
{
    int64_t n = in->prompt_len[i];
    return n > 0 && n == in->prompt_len[i + 1] &&
           memcmp(pf_sequence_tokens(in, i), pf_sequence_tokens(in, i + 1),
                  (size_t)n * sizeof *in->tokens) == 0;
}

int64_t pf_trained_keeps(const pf_trained *model, const prefopt_sequences *in)
{
    int64_t n = keeps(model, in);
    if (n < 0 || n >= in->n || !share_prompt(in, n - 1))
        return n;
    int64_t low = n - 1, high = n + 1;
    while (low > 0 && share_prompt(in, low - 1))
        low--;
    while (high < in->n && share_prompt(in, high - 1))
        high++;
    if (low == 0)
        return n;
    prefopt_sequences run = pf_sequences_part(in, low, high - low);
    int64_t of_run = keeps(model, &run);
    return of_run < 0 ? of_run : of_run == run.n ? low : n;
}

int32_t pf_trained_parameters(const pf_trained *model, prefopt_parameters *out)
{
    if (model->policy != NULL)
        return prefopt_policy_parameters(model->policy, out);
    return prefopt_reward_parameters(model->reward, out);
}

int32_t pf_trained_values(const pf_trained *model, pf_values *out)
{
    if (model->policy != NULL)
        return pf_policy_values(model->policy, out);
    return pf_reward_values(model->reward, out);
}

int32_t pf_trained_updated(const pf_trained *model)
{
    if (model->policy != NULL)
        return prefopt_policy_updated(model->policy);
    return prefopt_reward_updated(model->reward);
}

int32_t pf_trained_zero_grad(const pf_trained *model)
{
    if (model->policy != NULL)
        return prefopt_policy_zero_grad(model->policy);
    return prefopt_reward_zero_grad(model->reward);
}

bool pf_trained_has_backward(const pf_trained *model)
{
    return model->policy != NULL ? model->policy->callbacks.backward != NULL
                                 : model->reward->callbacks.backward != NULL;
}

int32_t pf_trained_class(const pf_trained *model)
{
    return model->policy != NULL ? model->policy->score_class : model->reward->score_class;
}
