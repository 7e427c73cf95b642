/* One element of a policy gradient: a completion or a token. */
#include <math.h>

#include "loss/pf_arrays.h"
#include "loss/pf_kl.h"
#include "loss/pf_pg.h"

int32_t pf_pg_check_rule(const char *call, const pf_pg_rule *rule)
{
    if (rule->kl_placement != PREFOPT_KL_IN_REWARD && rule->kl_placement != PREFOPT_KL_IN_LOSS)
        return pf_fail(PREFOPT_ERR_ARGUMENT,
                       "%s: kl_placement is %d, expected PREFOPT_KL_IN_REWARD (0) or IN_LOSS (1)",
                       call, rule->kl_placement);
    PF_TRY(pf_kl_check_estimator(call, rule->kl_estimator));
    if (!(rule->beta >= 0 && rule->beta < INFINITY))
        return pf_fail(PREFOPT_ERR_ARGUMENT, "%s: beta is %g, expected 0 or more, finite", call,
                       rule->beta);
    if (!(rule->clip_low >= 0 && rule->clip_low < 1))
        return pf_fail(PREFOPT_ERR_ARGUMENT, "%s: clip_low is %g, expected at least 0 and below 1",
                       call, rule->clip_low);
    if (!(rule->clip_high >= 0))
        return pf_fail(PREFOPT_ERR_ARGUMENT, "%s: clip_high is %g, expected 0 or more", call,
                       rule->clip_high);
    return PREFOPT_OK;
}

int32_t pf_pg_check_arrays(const char *call, const pf_pg_rule *rule, const double *advantage,
                           const double *logp, const double *ref)
{
    if (logp == NULL || advantage == NULL)
        return pf_fail(PREFOPT_ERR_ARGUMENT, "%s: %s is NULL", call,
                       logp == NULL ? "logp" : "advantage");
    if (rule->beta > 0 && ref == NULL)
        return pf_fail(PREFOPT_ERR_ARGUMENT, "%s: ref_logp is NULL, but beta is %g, above 0", call,
                       rule->beta);
    return PREFOPT_OK;
}

int32_t pf_pg_check_elements(const char *call, int64_t first, int64_t last, const double *advantage,
                             const double *logp, const double *ref, const double *old)
{
    for (int64_t i = first; i < last; i++)
        if (!(advantage[i] < INFINITY))
            return pf_fail(PREFOPT_ERR_NUMERIC,
                           "%s: advantage[%lld] is %g, expected a finite number or -INFINITY", call,
                           (long long)i, advantage[i]);
    PF_TRY(pf_check_logprobs(call, "logp", first, last, logp));
    PF_TRY(pf_check_logprobs(call, "ref_logp", first, last, ref));
    PF_TRY(pf_check_finite(call, "old_logp", first, last, old));
    for (int64_t i = first; old != NULL && i < last; i++)
        if (exp(logp[i] - old[i]) == INFINITY)
            return pf_fail(PREFOPT_ERR_NUMERIC,
                           "%s: logp[%lld] - old_logp[%lld] is %g: the ratio leaves the range of a "
                           "double",
                           call, (long long)i, (long long)i, logp[i] - old[i]);
    return PREFOPT_OK;
}

pf_pg_term pf_pg_one(const pf_pg_rule *rule, double advantage, double logp, const double *ref,
                     const double *old)
{
    pf_pg_term t = {0, 0, 0, false};
    double ratio = old == NULL ? 1 : exp(logp - *old);
    bool clip = rule->clip_low > 0 || rule->clip_high > 0;
    double low = 1 - rule->clip_low, high = 1 + rule->clip_high;
    t.clipped = clip && ((advantage > 0 && ratio > high) || (advantage < 0 && ratio < low));
    if (t.clipped) {
        t.surrogate = 0 - advantage * (advantage > 0 ? high : low);
    } else {
        /* Nothing is had from what never happens, whatever its advantage. */
        t.surrogate = ratio == 0 ? 0 : 0 - advantage * ratio;
        t.slope = t.surrogate;
    }
    if (ref == NULL)
        return t;
    double l = pf_log_ratio(logp, *ref);
    double lw = old == NULL ? 0 : logp - *old;
    if (logp > -INFINITY || *ref > -INFINITY)
        t.kl = pf_kl_value(rule->kl_estimator, old == NULL, l, lw, old == NULL ? -l : *ref - *old);
    if (rule->kl_placement == PREFOPT_KL_IN_LOSS && rule->beta > 0)
        t.slope += rule->beta * pf_kl_slope(rule->kl_estimator, old == NULL, l, lw);
    return t;
}

double pf_pg_shaped_reward(double reward, double beta, double logp, double ref)
{
    if (logp == -INFINITY)
        return reward; /* 0 log 0 = 0 */
    return reward - beta * (logp - ref);
}
