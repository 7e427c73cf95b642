/* The sampler's options and its two ways: token by token (sampler_batch.c), or without replacement
 * from an enumerated space (sampler_distinct.c). */
#include <math.h>

#include "data/pf_dataset.h"
#include "model/pf_model.h"
#include "online/pf_online.h"

/* The struct's size in its first release. */
enum { V1_SIZE = offsetof(prefopt_sampler_options, min_p) };

static const prefopt_sampler_options defaults = {
    .struct_size = sizeof(prefopt_sampler_options), .n = 2, .temperature = 1, .top_p = 1};

int32_t prefopt_sampler_options_init(prefopt_sampler_options *options, uint32_t struct_size)
{
    return pf_struct_init(options, struct_size, &defaults, sizeof defaults, V1_SIZE,
                          "prefopt_sampler_options");
}

static int32_t unused(const char *option, const char *where)
{
    return pf_fail(PREFOPT_ERR_ARGUMENT, "prefopt_sample: %s is set, but %s does not use it",
                   option, where);
}

static int32_t check_ends(const prefopt_sampler_options *o)
{
    if (o->max_tokens < 0)
        return pf_fail(PREFOPT_ERR_ARGUMENT,
                       "prefopt_sample: max_tokens is %lld, expected at least 0 (0: the horizon)",
                       (long long)o->max_tokens);
    if (o->n_stop < 0)
        return pf_fail(PREFOPT_ERR_ARGUMENT, "prefopt_sample: n_stop is %lld, expected at least 0",
                       (long long)o->n_stop);
    if ((o->n_stop > 0) != (o->stop != NULL))
        return pf_fail(PREFOPT_ERR_ARGUMENT, "prefopt_sample: stop is %s but n_stop is %lld",
                       o->stop == NULL ? "NULL" : "set", (long long)o->n_stop);
    if (o->token == NULL && o->token_payload != NULL)
        return pf_fail(PREFOPT_ERR_ARGUMENT, "prefopt_sample: token_payload is set without token");
    return PREFOPT_OK;
}

static int32_t check_stop_tokens(const prefopt_sampler_options *o, int64_t vocab)
{
    for (int64_t i = 0; i < o->n_stop; i++)
        if (o->stop[i] < 0 || o->stop[i] >= vocab)
            return pf_fail(PREFOPT_ERR_ARGUMENT,
                           "prefopt_sample: stop[%lld] is %d, expected 0 to %lld", (long long)i,
                           o->stop[i], (long long)vocab - 1);
    return PREFOPT_OK;
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
    if (isnan(o->temperature) || isnan(o->top_p) || isnan(o->min_p))
        return pf_fail(PREFOPT_ERR_NUMERIC, "prefopt_sample: %s is NaN",
                       isnan(o->temperature) ? "temperature"
                       : isnan(o->top_p)     ? "top_p"
                                             : "min_p");
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
    if (!(o->min_p >= 0 && o->min_p <= 1))
        return pf_fail(PREFOPT_ERR_ARGUMENT, "prefopt_sample: min_p is %g, expected 0 to 1",
                       o->min_p);
    return check_ends(o);
}

/* Options that what was asked for does not use. */
static int32_t check_used(const prefopt_sampler_options *o)
{
    const char *where = NULL;
    if (o->without_replacement) {
        where = "sampling without replacement";
        if (o->temperature != 1)
            return unused("temperature", where);
        if (o->max_tokens != 0)
            return unused("max_tokens", where);
        if (o->n_stop != 0)
            return unused("stop", where);
        if (o->token != NULL)
            return unused("token", where);
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
    if (where != NULL && o->min_p != 0)
        return unused("min_p", where);
    return PREFOPT_OK;
}

int32_t pf_sampler_check(const prefopt_sampler_options *options)
{
    PF_TRY(check_options(options));
    return check_used(options);
}

int32_t prefopt_sample(prefopt_dataset **out, prefopt_policy *policy,
                       const prefopt_dataset *prompts, const prefopt_sampler_options *options)
{
    PF_REQUIRE(out);
    PF_REQUIRE(policy);
    PF_REQUIRE(prompts);
    return pf_sample_rows(out, policy, prompts, options, 0, prefopt_dataset_size(prompts));
}

int32_t pf_sample_rows(prefopt_dataset **out, prefopt_policy *policy,
                       const prefopt_dataset *prompts, const prefopt_sampler_options *options,
                       int64_t first, int64_t n)
{
    prefopt_sampler_options own = defaults;
    if (options != NULL)
        PF_TRY(pf_struct_read(&own, sizeof own, V1_SIZE, options, "prefopt_sampler_options"));
    PF_TRY(pf_sampler_check(&own));
    if (!policy->has_space)
        return pf_fail(PREFOPT_ERR_UNSUPPORTED,
                       "prefopt_sample: this policy was created without a space");
    if (!own.without_replacement && policy->callbacks.next_logprobs == NULL)
        return pf_fail(PREFOPT_ERR_UNSUPPORTED,
                       "prefopt_sample: this policy has no next_logprobs callback");
    PF_TRY(check_stop_tokens(&own, policy->space.vocab));
    prefopt_dataset *samples;
    PF_TRY(prefopt_dataset_create(&samples, prompts->context));
    int32_t status =
        own.without_replacement
            ? pf_sample_distinct(samples, policy->context, policy, prompts, &own, first, n)
            : pf_sample_batch(samples, policy->context, policy, prompts, &own, first, n);
    if (status != PREFOPT_OK) {
        prefopt_dataset_destroy(samples);
        return status;
    }
    *out = samples;
    return PREFOPT_OK;
}
