/* The reference handle: freezing, asking. */
#include <stdatomic.h>

#include "model/pf_reference.h"

int32_t pf_reference_wrap(prefopt_reference **out, prefopt_policy *policy)
{
    prefopt_reference *reference = pf_alloc(policy->context, 1, sizeof *reference);
    if (reference == NULL)
        return PREFOPT_ERR_MEMORY;
    atomic_init(&reference->references, 1);
    atomic_init(&reference->hash, 0);
    reference->policy = policy;
    *out = reference;
    return PREFOPT_OK;
}

int32_t pf_reference_create(prefopt_reference **out, prefopt_context *context,
                            const prefopt_space *space, const prefopt_policy_callbacks *callbacks,
                            const pf_policy_extras *extras, void *payload)
{
    prefopt_policy *policy;
    PF_TRY(pf_policy_create(&policy, context, space, callbacks, payload));
    policy->extras = extras;
    int32_t status = pf_reference_wrap(out, policy);
    if (status != PREFOPT_OK) {
        policy->callbacks.destroy = NULL; /* the payload is still the caller's */
        prefopt_policy_destroy(policy);
    }
    return status;
}

int32_t prefopt_reference_freeze(prefopt_reference **out, const prefopt_policy *policy)
{
    PF_REQUIRE(out);
    PF_REQUIRE(policy);
    prefopt_policy *copy;
    PF_TRY(pf_policy_clone(&copy, policy));
    int32_t status = pf_reference_wrap(out, copy);
    if (status != PREFOPT_OK)
        prefopt_policy_destroy(copy);
    return status;
}

prefopt_reference *pf_reference_retain(prefopt_reference *reference)
{
    atomic_fetch_add_explicit(&reference->references, 1, memory_order_relaxed);
    return reference;
}

void prefopt_reference_destroy(prefopt_reference *reference)
{
    if (reference == NULL ||
        atomic_fetch_sub_explicit(&reference->references, 1, memory_order_acq_rel) != 1)
        return;
    prefopt_policy *policy = reference->policy;
    pf_free(policy->context, reference);
    prefopt_policy_destroy(policy);
}

int32_t pf_reference_logprobs(const prefopt_reference *reference, const prefopt_sequences *in,
                              double *sequence_logp)
{
    int32_t status = pf_policy_logprobs(reference->policy, in, sequence_logp, NULL);
    return status < 0 ? pf_fail_in(status, "reference") : status;
}

/* The policy behind may fail half-way, so it writes to scratch. */
int32_t prefopt_reference_logprobs(const prefopt_reference *reference, const prefopt_sequences *in,
                                   double *sequence_logp)
{
    PF_REQUIRE(reference);
    PF_TRY(pf_sequences_check(in, "in"));
    PF_REQUIRE_FOR(in, sequence_logp);
    if (in->n == 0)
        return PREFOPT_OK;
    prefopt_context *context = reference->policy->context;
    double *scratch = pf_alloc(context, in->n, sizeof *scratch);
    if (scratch == NULL)
        return PREFOPT_ERR_MEMORY;
    int32_t status = pf_reference_logprobs(reference, in, scratch);
    if (status == PREFOPT_OK)
        memcpy(sequence_logp, scratch, (size_t)in->n * sizeof *scratch);
    pf_free(context, scratch);
    return status;
}
