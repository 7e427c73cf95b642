/* Content hashes: what a model is, its kind, shape and parameters, as 64 bits. */
#include <stdatomic.h>

#include "model/pf_reference.h"
#include "model/pf_reward.h"

uint64_t pf_hash_kind(const char *kind) { return pf_hash(PF_HASH_START, kind, strlen(kind)); }

uint64_t pf_hash_f64(uint64_t hash, double x)
{
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    return pf_stream(hash, bits);
}

uint64_t pf_hash_space(uint64_t hash, const prefopt_space *space)
{
    hash = pf_stream(hash, (uint64_t)space->vocab);
    hash = pf_stream(hash, (uint64_t)space->horizon);
    return pf_stream(hash, (uint64_t)(int64_t)space->eos);
}

static int32_t hash_parameters(prefopt_context *context, uint64_t hash,
                               const prefopt_parameters *parameters, uint64_t *out)
{
    int64_t size = parameters->dtype == PREFOPT_F64 ? 8 : 4, bytes;
    if (!pf_mul(parameters->n, size, &bytes))
        return pf_fail(PREFOPT_ERR_CALLBACK,
                       "the callback parameters gave n = %lld, which "
                       "overflows",
                       (long long)parameters->n);
    hash = pf_stream(hash, (uint64_t)parameters->dtype);
    *out = pf_content_hash(context, hash, parameters->value, bytes);
    return PREFOPT_OK;
}

/* 0 stands for no hash. */
static int32_t give(uint64_t *out, uint64_t hash)
{
    *out = hash != 0 ? hash : 1;
    return PREFOPT_OK;
}

static int32_t policy_hash(const prefopt_policy *policy, uint64_t *out)
{
    if (policy->extras == NULL || policy->extras->hash == NULL)
        return pf_fail(PREFOPT_ERR_UNSUPPORTED,
                       "this policy has no content hash: it is of the caller's own kind");
    uint64_t hash;
    PF_TRY(policy->extras->hash(policy->payload, &hash));
    return give(out, hash);
}

int32_t prefopt_policy_hash(prefopt_policy *policy, uint64_t *out)
{
    PF_REQUIRE(policy);
    PF_REQUIRE(out);
    if (policy->builtin)
        return policy_hash(policy, out);
    if (policy->callbacks.parameters == NULL)
        return pf_fail(PREFOPT_ERR_UNSUPPORTED,
                       "this policy has no content hash: it has no parameters callback");
    prefopt_parameters own = {.struct_size = sizeof own};
    PF_TRY(prefopt_policy_parameters(policy, &own));
    uint64_t hash = pf_hash_kind("custom policy");
    if (policy->has_space)
        hash = pf_hash_space(hash, &policy->space);
    PF_TRY(hash_parameters(policy->context, hash, &own, &hash));
    return give(out, hash);
}

int32_t prefopt_reward_hash(prefopt_reward *reward, uint64_t *out)
{
    PF_REQUIRE(reward);
    PF_REQUIRE(out);
    uint64_t hash;
    if (reward->builtin) {
        PF_TRY(reward->extras->hash(reward->payload, &hash));
        return give(out, hash);
    }
    if (reward->callbacks.parameters == NULL)
        return pf_fail(PREFOPT_ERR_UNSUPPORTED,
                       "this reward has no content hash: it has no parameters callback");
    prefopt_parameters own = {.struct_size = sizeof own};
    PF_TRY(prefopt_reward_parameters(reward, &own));
    PF_TRY(hash_parameters(reward->context, pf_hash_kind("custom reward"), &own, &hash));
    return give(out, hash);
}

/* What a reference is made of never changes, so the hash is computed once. Two threads that find it
 * missing compute the same. */
int32_t prefopt_reference_hash(const prefopt_reference *reference, uint64_t *out)
{
    PF_REQUIRE(reference);
    PF_REQUIRE(out);
    _Atomic uint64_t *kept = (_Atomic uint64_t *)&reference->hash;
    uint64_t hash = atomic_load_explicit(kept, memory_order_relaxed);
    if (hash == 0) {
        int32_t status = policy_hash(reference->policy, &hash);
        if (status != PREFOPT_OK)
            return pf_fail_in(status, "reference");
        atomic_store_explicit(kept, hash, memory_order_relaxed);
    }
    *out = hash;
    return PREFOPT_OK;
}
