/* The reward handle and the gate every call passes, as policy.c. */
#include <math.h>
#include <stdatomic.h>

#include "model/pf_reward.h"

int32_t pf_reward_create(prefopt_reward **out, prefopt_context *context,
                         const prefopt_reward_callbacks *callbacks, void *payload)
{
    prefopt_reward *reward = pf_alloc(context, 1, sizeof *reward);
    if (reward == NULL)
        return PREFOPT_ERR_MEMORY;
    *reward = (prefopt_reward){.context = pf_context_retain(context),
                               .callbacks = *callbacks,
                               .payload = payload,
                               .builtin = true};
    atomic_init(&reward->references, 1);
    *out = reward;
    return PREFOPT_OK;
}

int32_t prefopt_reward_create_custom(prefopt_reward **out, prefopt_context *context,
                                     const prefopt_reward_callbacks *callbacks, void *payload)
{
    PF_REQUIRE(out);
    PF_REQUIRE(context);
    PF_REQUIRE(callbacks);
    prefopt_reward_callbacks own = {0};
    PF_TRY(pf_struct_read(&own, sizeof own, sizeof own, callbacks, "prefopt_reward_callbacks"));
    if (own.reserved != 0)
        return pf_fail(PREFOPT_ERR_ARGUMENT, "callbacks: reserved is %u, expected 0", own.reserved);
    if (own.scores == NULL)
        return pf_fail(PREFOPT_ERR_ARGUMENT, "callbacks: scores is NULL, but it is required");
    if (own.backward != NULL && own.parameters == NULL)
        return pf_fail(PREFOPT_ERR_ARGUMENT,
                       "callbacks: parameters is NULL, but backward needs it");
    prefopt_reward *reward;
    PF_TRY(pf_reward_create(&reward, context, &own, payload));
    reward->builtin = false;
    *out = reward;
    return PREFOPT_OK;
}

prefopt_reward *pf_reward_retain(prefopt_reward *reward)
{
    atomic_fetch_add_explicit(&reward->references, 1, memory_order_relaxed);
    return reward;
}

void prefopt_reward_destroy(prefopt_reward *reward)
{
    if (reward == NULL ||
        atomic_fetch_sub_explicit(&reward->references, 1, memory_order_acq_rel) != 1)
        return;
    if (reward->callbacks.destroy != NULL)
        reward->callbacks.destroy(reward->payload);
    prefopt_context *context = reward->context;
    pf_free(context, reward);
    pf_context_release(context);
}

static int32_t answered(const prefopt_reward *reward, int32_t status, const char *entry)
{
    return reward->builtin ? status : pf_callback_status(status, "reward", entry);
}

int32_t pf_reward_scores(const prefopt_reward *reward, const prefopt_sequences *in, double *score)
{
    if (in->n == 0)
        return PREFOPT_OK;
    for (int64_t i = 0; i < in->n; i++)
        score[i] = NAN; /* what the callback leaves unwritten is found below */
    PF_TRY(answered(reward, reward->callbacks.scores(reward->payload, in, score), "scores"));
    for (int64_t i = 0; i < in->n; i++)
        if (isnan(score[i]) || score[i] == INFINITY)
            return pf_fail(PREFOPT_ERR_NUMERIC,
                           "sequence %lld: the reward's score is %g, expected a finite number or "
                           "-inf",
                           (long long)i, score[i]);
    return PREFOPT_OK;
}

int64_t pf_reward_keeps(const prefopt_reward *reward, const prefopt_sequences *in)
{
    return pf_extras_keeps(reward->extras, reward->payload, in);
}

/* The callback may fail half-way, so it writes to scratch. */
int32_t prefopt_reward_scores(prefopt_reward *reward, const prefopt_sequences *in, double *score)
{
    PF_REQUIRE(reward);
    PF_TRY(pf_sequences_check(in, "in"));
    PF_REQUIRE_FOR(in, score);
    if (in->n == 0)
        return PREFOPT_OK;
    double *scratch = pf_alloc(reward->context, in->n, sizeof *scratch);
    if (scratch == NULL)
        return PREFOPT_ERR_MEMORY;
    int32_t status = pf_reward_scores(reward, in, scratch);
    if (status == PREFOPT_OK)
        memcpy(score, scratch, (size_t)in->n * sizeof *scratch);
    pf_free(reward->context, scratch);
    return status;
}

int32_t prefopt_reward_backward(prefopt_reward *reward, const prefopt_sequences *in,
                                const double *grad_score)
{
    PF_REQUIRE(reward);
    PF_TRY(pf_sequences_check(in, "in"));
    PF_REQUIRE_FOR(in, grad_score);
    if (reward->callbacks.backward == NULL)
        return pf_fail(PREFOPT_ERR_UNSUPPORTED,
                       "this reward cannot be trained: it has no backward callback");
    PF_TRY(pf_gradients_check(grad_score, in->n, "grad_score"));
    if (in->n == 0)
        return PREFOPT_OK;
    return answered(reward, reward->callbacks.backward(reward->payload, in, grad_score),
                    "backward");
}

static int32_t read_parameters(const prefopt_reward *reward, prefopt_parameters *own)
{
    *own = (prefopt_parameters){.struct_size = sizeof *own};
    if (reward->callbacks.parameters == NULL)
        return pf_fail(PREFOPT_ERR_UNSUPPORTED,
                       "this reward shows no parameters: it has no parameters callback");
    PF_TRY(answered(reward, reward->callbacks.parameters(reward->payload, own), "parameters"));
    return pf_parameters_check(own, "reward");
}

int32_t pf_reward_values(const prefopt_reward *reward, pf_values *out)
{
    if (pf_extras_values(reward->extras, reward->payload, out))
        return PREFOPT_OK;
    prefopt_parameters own;
    PF_TRY(read_parameters(reward, &own));
    *out = (pf_values){.dtype = own.dtype, .n = own.n, .value = own.value};
    return PREFOPT_OK;
}

int32_t prefopt_reward_parameters(prefopt_reward *reward, prefopt_parameters *out)
{
    PF_REQUIRE(reward);
    PF_REQUIRE(out);
    PF_TRY(pf_struct_check_out(out, sizeof *out, "prefopt_parameters"));
    prefopt_parameters own;
    PF_TRY(read_parameters(reward, &own));
    pf_struct_write(out, &own, sizeof own);
    return PREFOPT_OK;
}

int32_t prefopt_reward_updated(prefopt_reward *reward)
{
    PF_REQUIRE(reward);
    if (reward->callbacks.updated == NULL)
        return PREFOPT_OK;
    return answered(reward, reward->callbacks.updated(reward->payload), "updated");
}

int32_t prefopt_reward_zero_grad(prefopt_reward *reward)
{
    PF_REQUIRE(reward);
    prefopt_parameters own;
    PF_TRY(read_parameters(reward, &own));
    pf_parameters_zero_grad(&own);
    return PREFOPT_OK;
}
