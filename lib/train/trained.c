/* What is trained: a policy by its log-probabilities, or a reward model by its scores. */
#include "model/pf_reward.h"
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

int32_t pf_trained_backward(const pf_trained *model, const prefopt_sequences *in,
                            const double *grad_score)
{
    if (model->policy != NULL)
        return prefopt_policy_backward(model->policy, in, grad_score);
    return prefopt_reward_backward(model->reward, in, grad_score);
}

int32_t pf_trained_parameters(const pf_trained *model, prefopt_parameters *out)
{
    if (model->policy != NULL)
        return prefopt_policy_parameters(model->policy, out);
    return prefopt_reward_parameters(model->reward, out);
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
