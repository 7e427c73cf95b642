/* Advantages: the reward, with the KL in it where asked, less the group's baseline.
 *
 * A group is worked on as deviations from its first finite reward, so that equal rewards give
 * exactly 0 and a common offset costs no digits. */
#include <math.h>

#include "math/pf_math.h"
#include "loss/pf_arrays.h"
#include "loss/pf_pg_groups.h"

/* R_i. */
static double shaped(const pf_pg_rule *rule, const prefopt_group_scores *in, int64_t i)
{
    if (rule->beta == 0 || rule->kl_placement != PREFOPT_KL_IN_REWARD)
        return in->reward[i];
    return pf_pg_shaped_reward(in->reward[i], rule->beta, in->logp[i], in->ref_logp[i]);
}

typedef struct {
    int64_t count; /* of finite R */
    double origin; /* the first finite R */
    double sum;    /* of R - origin */
    double scale;  /* the largest |R - origin - sum / count| */
    double sd;     /* in units of scale */
} group_stats;

static group_stats measure(const double *r, int64_t size)
{
    group_stats g = {0, 0, 0, 0, 0};
    pf_sum sum = {0, 0}, squares = {0, 0};
    for (int64_t i = 0; i < size; i++) {
        if (r[i] == -INFINITY)
            continue;
        if (g.count++ == 0)
            g.origin = r[i];
        pf_sum_add(&sum, r[i] - g.origin);
    }
    g.sum = pf_sum_value(&sum);
    if (g.count < 2)
        return g;
    double mean = g.sum / (double)g.count;
    for (int64_t i = 0; i < size; i++)
        if (r[i] > -INFINITY)
            g.scale = fmax(g.scale, fabs(r[i] - g.origin - mean));
    if (g.scale == 0)
        return g;
    for (int64_t i = 0; i < size; i++) {
        if (r[i] == -INFINITY)
            continue;
        double z = (r[i] - g.origin - mean) / g.scale;
        pf_sum_add(&squares, z * z);
    }
    g.sd = sqrt(pf_sum_value(&squares) / (double)(g.count - 1));
    return g;
}

/* One group, in place: r holds its R. */
static void subtract_baseline(int32_t baseline, double *r, int64_t size)
{
    if (baseline == PREFOPT_BASELINE_NONE)
        return;
    group_stats g = measure(r, size);
    double n = (double)g.count;
    for (int64_t i = 0; i < size; i++) {
        if (r[i] == -INFINITY)
            continue;
        double d = r[i] - g.origin;
        if (baseline == PREFOPT_BASELINE_MEAN)
            r[i] = d - g.sum / n;
        else if (baseline == PREFOPT_BASELINE_GROUP_NORM)
            r[i] = g.sd > 0 ? (d - g.sum / n) / g.scale / g.sd : 0;
        else if (g.count > 1)
            r[i] = d - (g.sum - d) / (n - 1);
    }
}

int32_t prefopt_advantages(const prefopt_pg_options *options, const prefopt_group_scores *in,
                           double *advantage)
{
    prefopt_pg_options o;
    pf_pg_rule rule;
    prefopt_group_scores own;
    int64_t total;
    PF_TRY(pf_pg_read_options(__func__, options, &o, &rule));
    PF_TRY(pf_pg_read_groups(__func__, in, &own, &total));
    if (total == 0)
        return PREFOPT_OK;
    if (o.baseline == PREFOPT_BASELINE_LEAVE_ONE_OUT && own.group_size < 2)
        return pf_fail(PREFOPT_ERR_ARGUMENT,
                       "%s: group_size is 1, but PREFOPT_BASELINE_LEAVE_ONE_OUT needs 2 or more",
                       __func__);
    bool in_reward = rule.beta > 0 && rule.kl_placement == PREFOPT_KL_IN_REWARD;
    const char *missing = own.reward == NULL                  ? "reward"
                          : in_reward && own.logp == NULL     ? "logp"
                          : in_reward && own.ref_logp == NULL ? "ref_logp"
                          : advantage == NULL                 ? "advantage"
                                                              : NULL;
    if (missing != NULL)
        return pf_fail(PREFOPT_ERR_ARGUMENT, "%s: %s is NULL%s", __func__, missing,
                       strcmp(missing, "ref_logp") == 0 ? ", but beta is above 0" : "");
    PF_TRY(pf_check_finite(__func__, "reward", 0, total, own.reward));
    if (in_reward) {
        PF_TRY(pf_check_logprobs(__func__, "logp", 0, total, own.logp));
        PF_TRY(pf_check_logprobs(__func__, "ref_logp", 0, total, own.ref_logp));
    }
    for (int64_t i = 0; i < total; i++) {
        double r = shaped(&rule, &own, i);
        bool uncovered = in_reward && own.ref_logp[i] == -INFINITY && r == -INFINITY;
        if (!(fabs(r) <= PF_LARGEST_REWARD) && !uncovered)
            return pf_fail(PREFOPT_ERR_NUMERIC,
                           "%s: reward[%lld]%s is %g, expected a magnitude of at most %g", __func__,
                           (long long)i, in_reward ? " - beta (logp - ref_logp)" : "", r,
                           PF_LARGEST_REWARD);
    }

    for (int64_t i = 0; i < total; i++)
        advantage[i] = shaped(&rule, &own, i);
    for (int64_t g = 0; g < own.n_groups; g++)
        subtract_baseline(o.baseline, advantage + g * own.group_size, own.group_size);
    return PREFOPT_OK;
}
