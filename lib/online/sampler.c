/* The sampler's options and its two ways: token by token (sampler_batch.c), or without replacement
 * from an enumerated space (sampler_distinct.c). */
#include <math.h>

#include "data/pf_dataset.h"
#include "model/pf_model.h"
#include "online/pf_online.h"

static const prefopt_sampler_options defaults = {
    .struct_size = sizeof(prefopt_sampler_options), .n = 2, .temperature = 1, .top_p = 1};

int32_t prefopt_sampler_options_init(prefopt_sampler_options *options, uint32_t struct_size)
{
    return pf_struct_init(options, struct_size, &defaults, sizeof defaults, sizeof defaults,
                          "prefopt_sampler_options");
}

static int32_t unused(const char *option, const char *where)
{
    return pf_fail(PREFOPT_ERR_ARGUMENT, "prefopt_sample: %s is set, but %s does not use it",
                   option, where);
}

static int32_t check_options(const prefopt_sampler_options *o)
{
    if (o->without_replacement != 0 && o->without_replacement != 1)
        return pf_fail(PREFOPT_ERR_ARGUMENT,
                       "prefopt_sample: without_replacement is %d, expected 0 or 1",
                       o->without_replacement);
    if (o->n < 1)
        return pf_fail(PREFOPT_ERR_ARGUMENT, "prefopt_sample: n is %lld, expected at least 1",
                       (long long)o->n);
    if (isnan(o->temperature) || isnan(o->top_p))
        return pf_fail(PREFOPT_ERR_NUMERIC, "prefopt_sample: %s is NaN",
                       isnan(o->temperature) ? "temperature" : "top_p");
    if (!(o->temperature >= 0 && o->temperature < INFINITY))
        return pf_fail(PREFOPT_ERR_ARGUMENT,
                       "prefopt_sample: temperature is %g, expected a finite number, at least 0",
                       o->temperature);
    if (o->top_k < 0)
        return pf_fail(PREFOPT_ERR_ARGUMENT,
                       "prefopt_sample: top_k is %lld, expected at least 0 (0: all)",
                       (long long)o->top_k);
    if (!(o->top_p > 0 && o->top_p <= 1))
        return pf_fail(PREFOPT_ERR_ARGUMENT,
                       "prefopt_sample: top_p is %g, expected above 0 and at most 1", o->top_p);
    const char *where = NULL;
    if (o->without_replacement) {
        where = "sampling without replacement";
        if (o->temperature != 1)
            return unused("temperature", where);
    } else if (o->temperature == 0) {
        where = "temperature 0 (greedy)";
        if (o->seed != 0)
            return unused("seed", where);
        if (o->round != 0)
            return unused("round", where);
    }
    if (where != NULL && o->top_k != 0)
        return unused("top_k", where);
    if (where != NULL && o->top_p != 1)
        return unused("top_p", where);
    return PREFOPT_OK;
}

int32_t prefopt_sample(prefopt_dataset **out, prefopt_policy *policy,
                       const prefopt_dataset *prompts, const prefopt_sampler_options *options)
{
    PF_REQUIRE(out);
    PF_REQUIRE(policy);
    PF_REQUIRE(prompts);
    prefopt_sampler_options own = defaults;
    if (options != NULL)
        PF_TRY(pf_struct_read(&own, sizeof own, sizeof own, options, "prefopt_sampler_options"));
    PF_TRY(check_options(&own));
    if (!policy->has_space)
        return pf_fail(PREFOPT_ERR_UNSUPPORTED,
                       "prefopt_sample: this policy was created without a space");
    if (!own.without_replacement && policy->callbacks.next_logprobs == NULL)
        return pf_fail(PREFOPT_ERR_UNSUPPORTED,
                       "prefopt_sample: this policy has no next_logprobs callback");
    prefopt_dataset *samples;
    PF_TRY(prefopt_dataset_create(&samples, prompts->context));
    int32_t status = own.without_replacement
                         ? pf_sample_distinct(samples, policy->context, policy, prompts, &own)
                         : pf_sample_batch(samples, policy->context, policy, prompts, &own);
    if (status != PREFOPT_OK) {
        prefopt_dataset_destroy(samples);
        return status;
    }
    *out = samples;
    return PREFOPT_OK;
}
