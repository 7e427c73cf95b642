/* Reading the options and scores of the token-level objectives. */
#include <math.h>

#include "loss/pf_tokens.h"

static const prefopt_ppo_options defaults = {
    .struct_size = sizeof(prefopt_ppo_options),
    .kl_placement = PREFOPT_KL_IN_REWARD,
    .kl_estimator = PREFOPT_KL_K1,
    .aggregation = PREFOPT_TOKENS_MEAN,
    .clip_low = 0.2,
    .clip_high = 0.2,
    .gamma = 1,
    .lambda = 0.95,
};

int32_t prefopt_ppo_options_init(prefopt_ppo_options *options, uint32_t struct_size)
{
    return pf_struct_init(options, struct_size, &defaults, sizeof defaults, sizeof defaults,
                          "prefopt_ppo_options");
}

static int32_t check_unit(const char *call, const char *name, double x)
{
    if (!(x >= 0 && x <= 1))
        return pf_fail(PREFOPT_ERR_ARGUMENT, "%s: %s is %g, expected 0 to 1", call, name, x);
    return PREFOPT_OK;
}

int32_t pf_ppo_read_options(const char *call, const prefopt_ppo_options *options,
                            prefopt_ppo_options *own, pf_pg_rule *rule)
{
    *own = defaults;
    if (options != NULL)
        PF_TRY(pf_struct_read(own, sizeof *own, sizeof *own, options, "prefopt_ppo_options"));
    *rule = (pf_pg_rule){own->kl_placement, own->kl_estimator, own->beta, own->clip_low,
                         own->clip_high};
    PF_TRY(pf_pg_check_rule(call, rule));
    PF_TRY(check_unit(call, "gamma", own->gamma));
    PF_TRY(check_unit(call, "lambda", own->lambda));
    if (!(own->clip_value >= 0 && own->clip_value < INFINITY))
        return pf_fail(PREFOPT_ERR_ARGUMENT, "%s: clip_value is %g, expected 0 or more, finite",
                       call, own->clip_value);
    if (own->aggregation < PREFOPT_TOKENS_MEAN || own->aggregation > PREFOPT_TOKENS_FIXED_LENGTH)
        return pf_fail(PREFOPT_ERR_ARGUMENT,
                       "%s: aggregation is %d, expected PREFOPT_TOKENS_MEAN (0), SEQUENCE_MEAN (1) "
                       "or FIXED_LENGTH (2)",
                       call, own->aggregation);
    if (own->aggregation == PREFOPT_TOKENS_FIXED_LENGTH && own->fixed_length < 1)
        return pf_fail(PREFOPT_ERR_ARGUMENT, "%s: fixed_length is %lld, expected 1 or more", call,
                       (long long)own->fixed_length);
    if (own->aggregation != PREFOPT_TOKENS_FIXED_LENGTH && own->fixed_length != 0)
        return pf_fail(PREFOPT_ERR_ARGUMENT,
                       "%s: fixed_length is %lld, but only PREFOPT_TOKENS_FIXED_LENGTH has a use "
                       "for it",
                       call, (long long)own->fixed_length);
    return PREFOPT_OK;
}

int32_t pf_tokens_read(const char *call, const prefopt_token_scores *in, prefopt_token_scores *own,
                       int64_t *counted)
{
    if (in == NULL)
        return pf_fail(PREFOPT_ERR_ARGUMENT, "%s: in is NULL", call);
    PF_TRY(pf_struct_read(own, sizeof *own, sizeof *own, in, "prefopt_token_scores"));
    if (own->reserved != 0)
        return pf_fail(PREFOPT_ERR_ARGUMENT, "%s: reserved is %u, expected 0", call, own->reserved);
    if (own->n < 0)
        return pf_fail(PREFOPT_ERR_ARGUMENT, "%s: n is %lld, expected 0 or more", call,
                       (long long)own->n);
    *counted = 0;
    if (own->n == 0)
        return PREFOPT_OK;
    if (own->offsets == NULL)
        return pf_fail(PREFOPT_ERR_ARGUMENT, "%s: offsets is NULL", call);
    if (own->offsets[0] < 0)
        return pf_fail(PREFOPT_ERR_ARGUMENT, "%s: offsets[0] is %lld, expected 0 or more", call,
                       (long long)own->offsets[0]);
    for (int64_t s = 0; s < own->n; s++) {
        int64_t here = own->offsets[s], next = own->offsets[s + 1];
        if (next < here)
            return pf_fail(PREFOPT_ERR_ARGUMENT,
                           "%s: offsets[%lld] is %lld, expected at least offsets[%lld] = %lld",
                           call, (long long)(s + 1), (long long)next, (long long)s,
                           (long long)here);
        int64_t prompt = own->prompt_len == NULL ? 0 : own->prompt_len[s];
        if (prompt < 0 || prompt > next - here)
            return pf_fail(PREFOPT_ERR_ARGUMENT,
                           "%s: prompt_len[%lld] is %lld, expected 0 to the sequence's %lld tokens",
                           call, (long long)s, (long long)prompt, (long long)(next - here));
        *counted += next - here - prompt;
    }
    return PREFOPT_OK;
}

double pf_tokens_weight(const prefopt_ppo_options *options, int64_t n, int64_t counted, int64_t len)
{
    switch (options->aggregation) {
    case PREFOPT_TOKENS_MEAN:
        return 1 / (double)counted;
    case PREFOPT_TOKENS_SEQUENCE_MEAN:
        return 1 / ((double)n * (double)len);
    default:
        return 1 / ((double)n * (double)options->fixed_length);
    }
}
