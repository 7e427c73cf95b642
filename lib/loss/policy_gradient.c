/* The policy-gradient loss of whole completions, with PPO's clip and the KL in reward or loss. */
#include <math.h>

#include "math/pf_math.h"
#include "loss/pf_pg_groups.h"

static const prefopt_pg_options defaults = {
    .struct_size = sizeof(prefopt_pg_options),
    .baseline = PREFOPT_BASELINE_LEAVE_ONE_OUT,
    .kl_placement = PREFOPT_KL_IN_REWARD,
    .kl_estimator = PREFOPT_KL_K1,
};

int32_t prefopt_pg_options_init(prefopt_pg_options *options, uint32_t struct_size)
{
    return pf_struct_init(options, struct_size, &defaults, sizeof defaults, sizeof defaults,
                          "prefopt_pg_options");
}

int32_t pf_pg_read_options(const char *call, const prefopt_pg_options *options,
                           prefopt_pg_options *own, pf_pg_rule *rule)
{
    *own = defaults;
    if (options != NULL)
        PF_TRY(pf_struct_read(own, sizeof *own, sizeof *own, options, "prefopt_pg_options"));
    if (own->baseline < PREFOPT_BASELINE_NONE || own->baseline > PREFOPT_BASELINE_GROUP_NORM)
        return pf_fail(PREFOPT_ERR_ARGUMENT,
                       "%s: baseline is %d, expected PREFOPT_BASELINE_NONE (0), MEAN (1), "
                       "LEAVE_ONE_OUT (2) or GROUP_NORM (3)",
                       call, own->baseline);
    *rule = (pf_pg_rule){own->kl_placement, own->kl_estimator, own->beta, own->clip_low,
                         own->clip_high};
    return pf_pg_check_rule(call, rule);
}

int32_t pf_pg_read_groups(const char *call, const prefopt_group_scores *in,
                          prefopt_group_scores *own, int64_t *total)
{
    if (in == NULL)
        return pf_fail(PREFOPT_ERR_ARGUMENT, "%s: in is NULL", call);
    PF_TRY(pf_struct_read(own, sizeof *own, sizeof *own, in, "prefopt_group_scores"));
    if (own->reserved != 0)
        return pf_fail(PREFOPT_ERR_ARGUMENT, "%s: reserved is %u, expected 0", call, own->reserved);
    if (own->n_groups < 0 || own->group_size < 0)
        return pf_fail(PREFOPT_ERR_ARGUMENT, "%s: %s is %lld, expected 0 or more", call,
                       own->n_groups < 0 ? "n_groups" : "group_size",
                       (long long)(own->n_groups < 0 ? own->n_groups : own->group_size));
    if (!pf_mul(own->n_groups, own->group_size, total))
        return pf_fail(PREFOPT_ERR_ARGUMENT, "%s: n_groups * group_size overflows (%lld, %lld)",
                       call, (long long)own->n_groups, (long long)own->group_size);
    return PREFOPT_OK;
}

static const double *at(const double *array, int64_t i) { return array == NULL ? NULL : array + i; }

static pf_pg_term element(const pf_pg_rule *rule, const prefopt_group_scores *in,
                          const double *advantage, int64_t i)
{
    return pf_pg_one(rule, advantage[i], in->logp[i], at(in->ref_logp, i), at(in->old_logp, i));
}

/* Fills mean, kl and clip_fraction. */
static int32_t sum_up(const char *call, const pf_pg_rule *rule, const prefopt_group_scores *in,
                      const double *advantage, int64_t total, prefopt_pg_loss *own)
{
    pf_sum surrogate = {0, 0}, kl = {0, 0};
    int64_t clipped = 0;
    for (int64_t i = 0; i < total; i++) {
        pf_pg_term t = element(rule, in, advantage, i);
        if (isnan(t.slope))
            return pf_fail(PREFOPT_ERR_NUMERIC,
                           "%s: the gradient of logp[%lld] is an infinity of either sign", call,
                           (long long)i);
        pf_sum_add(&surrogate, t.surrogate);
        pf_sum_add(&kl, t.kl);
        clipped += t.clipped;
    }
    own->kl = pf_sum_value(&kl) / (double)total;
    own->clip_fraction = (double)clipped / (double)total;
    own->mean = pf_sum_value(&surrogate) / (double)total;
    if (rule->kl_placement == PREFOPT_KL_IN_LOSS && rule->beta > 0)
        own->mean += rule->beta * own->kl;
    if (isnan(own->mean) || isnan(own->kl))
        return pf_fail(PREFOPT_ERR_NUMERIC,
                       "%s: the loss is a sum of infinities of either sign: advantage or log-"
                       "probabilities leave the range of a double",
                       call);
    return PREFOPT_OK;
}

int32_t prefopt_loss_policy_gradient(const prefopt_pg_options *options,
                                     const prefopt_group_scores *in, const double *advantage,
                                     prefopt_pg_loss *out)
{
    prefopt_pg_options o;
    pf_pg_rule rule;
    prefopt_group_scores own_in;
    prefopt_pg_loss own;
    int64_t total;
    PF_TRY(pf_pg_read_options(__func__, options, &o, &rule));
    PF_TRY(pf_pg_read_groups(__func__, in, &own_in, &total));
    PF_REQUIRE(out);
    PF_TRY(pf_struct_read(&own, sizeof own, sizeof own, out, "prefopt_pg_loss"));
    own.mean = own.kl = own.clip_fraction = 0;
    if (total > 0) {
        PF_TRY(pf_pg_check_arrays(__func__, &rule, advantage, own_in.logp, own_in.ref_logp));
        PF_TRY(pf_pg_check_elements(__func__, 0, total, advantage, own_in.logp, own_in.ref_logp,
                                    own_in.old_logp));
        PF_TRY(sum_up(__func__, &rule, &own_in, advantage, total, &own));
    }
    for (int64_t i = 0; own.grad_logp != NULL && i < total; i++)
        own.grad_logp[i] = element(&rule, &own_in, advantage, i).slope / (double)total;
    pf_struct_write(out, &own, sizeof own);
    return PREFOPT_OK;
}
