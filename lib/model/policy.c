/* The policy handle and the gate every call passes: arguments are checked before the dispatch,
 * answers after it. */
#include <math.h>
#include <stdatomic.h>

#include "model/pf_model.h"

/* A log-probability this far above 0 is taken for rounding (float32 models) and becomes 0. */
#define LOGP_SLACK 1e-6

int32_t pf_policy_create(prefopt_policy **out, prefopt_context *context, const prefopt_space *space,
                         const prefopt_policy_callbacks *callbacks, void *payload)
{
    prefopt_policy *policy = pf_alloc(context, 1, sizeof *policy);
    if (policy == NULL)
        return PREFOPT_ERR_MEMORY;
    *policy = (prefopt_policy){.context = pf_context_retain(context),
                               .callbacks = *callbacks,
                               .payload = payload,
                               .builtin = true,
                               .has_space = space != NULL};
    if (space != NULL)
        policy->space = *space;
    atomic_init(&policy->references, 1);
    *out = policy;
    return PREFOPT_OK;
}

int32_t prefopt_policy_create_custom(prefopt_policy **out, prefopt_context *context,
                                     const prefopt_space *space,
                                     const prefopt_policy_callbacks *callbacks, void *payload)
{
    PF_REQUIRE(out);
    PF_REQUIRE(context);
    PF_REQUIRE(callbacks);
    prefopt_space own_space;
    prefopt_policy_callbacks own = {0};
    PF_TRY(pf_struct_read(&own, sizeof own, sizeof own, callbacks, "prefopt_policy_callbacks"));
    if (own.reserved != 0)
        return pf_fail(PREFOPT_ERR_ARGUMENT, "callbacks: reserved is %u, expected 0", own.reserved);
    if (own.logprobs == NULL)
        return pf_fail(PREFOPT_ERR_ARGUMENT, "callbacks: logprobs is NULL, but it is required");
    if (own.backward != NULL && own.parameters == NULL)
        return pf_fail(PREFOPT_ERR_ARGUMENT,
                       "callbacks: parameters is NULL, but backward needs it");
    if (own.next_logprobs != NULL && space == NULL)
        return pf_fail(PREFOPT_ERR_ARGUMENT, "space is NULL, but callback next_logprobs needs it");
    if (space != NULL)
        PF_TRY(pf_space_read(&own_space, space));
    prefopt_policy *policy;
    PF_TRY(pf_policy_create(&policy, context, space != NULL ? &own_space : NULL, &own, payload));
    policy->builtin = false;
    *out = policy;
    return PREFOPT_OK;
}

prefopt_policy *pf_policy_retain(prefopt_policy *policy)
{
    atomic_fetch_add_explicit(&policy->references, 1, memory_order_relaxed);
    return policy;
}

void prefopt_policy_destroy(prefopt_policy *policy)
{
    if (policy == NULL ||
        atomic_fetch_sub_explicit(&policy->references, 1, memory_order_acq_rel) != 1)
        return;
    if (policy->callbacks.destroy != NULL)
        policy->callbacks.destroy(policy->payload);
    prefopt_context *context = policy->context;
    pf_free(context, policy);
    pf_context_release(context);
}

static int32_t answered(const prefopt_policy *policy, int32_t status, const char *entry)
{
    return policy->builtin ? status : pf_callback_status(status, "policy", entry);
}

int32_t pf_policy_clone(prefopt_policy **out, const prefopt_policy *policy)
{
    if (policy->callbacks.clone == NULL)
        return pf_fail(PREFOPT_ERR_UNSUPPORTED,
                       "this policy cannot be frozen: it has no clone callback");
    prefopt_policy *copy;
    PF_TRY(pf_policy_create(&copy, policy->context, policy->has_space ? &policy->space : NULL,
                            &policy->callbacks, NULL));
    copy->builtin = policy->builtin;
    copy->score_class = policy->score_class;
    copy->extras = policy->extras;
    int32_t status =
        answered(policy, policy->callbacks.clone(policy->payload, &copy->payload), "clone");
    if (status != PREFOPT_OK) {
        copy->callbacks.destroy = NULL; /* there is no payload to release */
        prefopt_policy_destroy(copy);
        return status;
    }
    *out = copy;
    return PREFOPT_OK;
}

/* ---------------------------------------------------------------- log-probabilities */

static bool good_logp(double *logp)
{
    if (isnan(*logp) || *logp > LOGP_SLACK)
        return false;
    if (*logp > 0)
        *logp = 0;
    return true;
}

/* A custom policy's completions are its own affair, but its tokens must be of the vocabulary. */
static int32_t check_tokens(const prefopt_policy *policy, const prefopt_sequences *in)
{
    if (!policy->builtin && policy->has_space)
        for (int64_t i = 0; i < in->n; i++)
            PF_TRY(pf_space_check_tokens(&policy->space, in, i));
    return PREFOPT_OK;
}

static int32_t check_token_logp(const prefopt_sequences *in, double *token_logp)
{
    for (int64_t i = 0; i < in->n; i++) {
        double *row = token_logp + (in->offsets[i] - in->offsets[0]);
        for (int64_t t = 0; t < in->prompt_len[i]; t++)
            row[t] = 0;
        for (int64_t t = in->prompt_len[i]; t < pf_sequence_len(in, i); t++)
            if (!good_logp(&row[t]))
                return pf_fail(PREFOPT_ERR_NUMERIC,
                               "sequence %lld: the policy's log-probability of token %lld is %g, "
                               "expected at most 0",
                               (long long)i, (long long)t, row[t]);
    }
    return PREFOPT_OK;
}

int32_t pf_policy_logprobs(const prefopt_policy *policy, const prefopt_sequences *in,
                           double *sequence_logp, double *token_logp)
{
    if (in->n == 0)
        return PREFOPT_OK;
    PF_TRY(check_tokens(policy, in));
    /* What the callback leaves unwritten is found by the check. */
    for (int64_t i = 0; i < in->n; i++)
        sequence_logp[i] = NAN;
    if (token_logp != NULL)
        for (int64_t t = 0; t < in->offsets[in->n] - in->offsets[0]; t++)
            token_logp[t] = NAN;
    PF_TRY(answered(policy,
                    policy->callbacks.logprobs(policy->payload, in, sequence_logp, token_logp),
                    "logprobs"));
    for (int64_t i = 0; i < in->n; i++)
        if (!good_logp(&sequence_logp[i]))
            return pf_fail(PREFOPT_ERR_NUMERIC,
                           "sequence %lld: the policy's log-probability is %g, expected at most 0",
                           (long long)i, sequence_logp[i]);
    return token_logp == NULL ? PREFOPT_OK : check_token_logp(in, token_logp);
}

/* The callback may fail half-way, so it writes to scratch and the caller's arrays come last. */
int32_t prefopt_policy_logprobs(prefopt_policy *policy, const prefopt_sequences *in,
                                double *sequence_logp, double *token_logp)
{
    PF_REQUIRE(policy);
    PF_TRY(pf_sequences_check(in, "in"));
    PF_REQUIRE_FOR(in, sequence_logp);
    if (in->n == 0)
        return PREFOPT_OK;
    int64_t n_tokens = token_logp == NULL ? 0 : in->offsets[in->n] - in->offsets[0];
    int64_t total;
    if (!pf_add(in->n, n_tokens, &total))
        total = -1;
    double *scratch = pf_alloc(policy->context, total, sizeof *scratch);
    if (scratch == NULL)
        return PREFOPT_ERR_MEMORY;
    double *token_scratch = token_logp == NULL ? NULL : scratch + in->n;
    int32_t status = pf_policy_logprobs(policy, in, scratch, token_scratch);
    if (status == PREFOPT_OK) {
        memcpy(sequence_logp, scratch, (size_t)in->n * sizeof *scratch);
        if (n_tokens > 0)
            memcpy(token_logp, token_scratch, (size_t)n_tokens * sizeof *scratch);
    }
    pf_free(policy->context, scratch);
    return status;
}

int32_t pf_policy_next_logprobs(const prefopt_policy *policy, const prefopt_sequences *in,
                                double *next_logp)
{
    if (policy->callbacks.next_logprobs == NULL)
        return pf_fail(PREFOPT_ERR_UNSUPPORTED,
                       "this policy cannot be sampled: it has no next_logprobs callback");
    if (in->n == 0)
        return PREFOPT_OK;
    PF_TRY(check_tokens(policy, in));
    int64_t vocab = policy->space.vocab;
    for (int64_t k = 0; k < in->n * vocab; k++)
        next_logp[k] = NAN;
    PF_TRY(answered(policy, policy->callbacks.next_logprobs(policy->payload, in, next_logp),
                    "next_logprobs"));
    for (int64_t i = 0; i < in->n; i++)
        for (int64_t v = 0; v < vocab; v++)
            if (!good_logp(&next_logp[i * vocab + v]))
                return pf_fail(PREFOPT_ERR_NUMERIC,
                               "sequence %lld: the policy's log-probability of next token %lld is "
                               "%g, expected at most 0",
                               (long long)i, (long long)v, next_logp[i * vocab + v]);
    return PREFOPT_OK;
}

/* Scratch for the same reason as above. */
int32_t prefopt_policy_next_logprobs(prefopt_policy *policy, const prefopt_sequences *in,
                                     double *next_logp)
{
    PF_REQUIRE(policy);
    PF_TRY(pf_sequences_check(in, "in"));
    PF_REQUIRE_FOR(in, next_logp);
    if (policy->callbacks.next_logprobs == NULL)
        return pf_policy_next_logprobs(policy, in, next_logp);
    if (in->n == 0)
        return PREFOPT_OK;
    int64_t total;
    if (!pf_mul(in->n, policy->space.vocab, &total))
        total = -1;
    double *scratch = pf_alloc(policy->context, total, sizeof *scratch);
    if (scratch == NULL)
        return PREFOPT_ERR_MEMORY;
    int32_t status = pf_policy_next_logprobs(policy, in, scratch);
    if (status == PREFOPT_OK)
        memcpy(next_logp, scratch, (size_t)total * sizeof *scratch);
    pf_free(policy->context, scratch);
    return status;
}

/* ---------------------------------------------------------------- training */

int64_t pf_policy_keeps(const prefopt_policy *policy, const prefopt_sequences *in)
{
    return pf_extras_keeps(policy->extras, policy->payload, in);
}

int32_t prefopt_policy_backward(prefopt_policy *policy, const prefopt_sequences *in,
                                const double *grad_sequence_logp)
{
    PF_REQUIRE(policy);
    PF_TRY(pf_sequences_check(in, "in"));
    PF_REQUIRE_FOR(in, grad_sequence_logp);
    if (policy->callbacks.backward == NULL)
        return pf_fail(PREFOPT_ERR_UNSUPPORTED,
                       "this policy cannot be trained: it has no backward callback");
    PF_TRY(pf_gradients_check(grad_sequence_logp, in->n, "grad_sequence_logp"));
    if (in->n == 0)
        return PREFOPT_OK;
    PF_TRY(check_tokens(policy, in));
    return answered(policy, policy->callbacks.backward(policy->payload, in, grad_sequence_logp),
                    "backward");
}

static int32_t read_parameters(const prefopt_policy *policy, prefopt_parameters *own)
{
    *own = (prefopt_parameters){.struct_size = sizeof *own};
    if (policy->callbacks.parameters == NULL)
        return pf_fail(PREFOPT_ERR_UNSUPPORTED,
                       "this policy shows no parameters: it has no parameters callback");
    PF_TRY(answered(policy, policy->callbacks.parameters(policy->payload, own), "parameters"));
    return pf_parameters_check(own, "policy");
}

int32_t pf_policy_values(const prefopt_policy *policy, pf_values *out)
{
    if (pf_extras_values(policy->extras, policy->payload, out))
        return PREFOPT_OK;
    prefopt_parameters own;
    PF_TRY(read_parameters(policy, &own));
    *out = (pf_values){.dtype = own.dtype, .n = own.n, .value = own.value};
    return PREFOPT_OK;
}

int32_t prefopt_policy_parameters(prefopt_policy *policy, prefopt_parameters *out)
{
    PF_REQUIRE(policy);
    PF_REQUIRE(out);
    PF_TRY(pf_struct_check_out(out, sizeof *out, "prefopt_parameters"));
    prefopt_parameters own;
    PF_TRY(read_parameters(policy, &own));
    pf_struct_write(out, &own, sizeof own);
    return PREFOPT_OK;
}

int32_t prefopt_policy_updated(prefopt_policy *policy)
{
    PF_REQUIRE(policy);
    if (policy->callbacks.updated == NULL)
        return PREFOPT_OK;
    return answered(policy, policy->callbacks.updated(policy->payload), "updated");
}

int32_t prefopt_policy_zero_grad(prefopt_policy *policy)
{
    PF_REQUIRE(policy);
    prefopt_parameters own;
    PF_TRY(read_parameters(policy, &own));
    pf_parameters_zero_grad(&own);
    return PREFOPT_OK;
}

int32_t prefopt_policy_space(const prefopt_policy *policy, prefopt_space *out)
{
    PF_REQUIRE(policy);
    PF_REQUIRE(out);
    PF_TRY(pf_struct_check_out(out, sizeof *out, "prefopt_space"));
    if (!policy->has_space)
        return pf_fail(PREFOPT_ERR_UNSUPPORTED, "this policy was created without a space");
    pf_struct_write(out, &policy->space, sizeof policy->space);
    return PREFOPT_OK;
}
