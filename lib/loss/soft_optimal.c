/* The soft-optimal policy of a reward and a reference. */
#include "loss/pf_loss.h"

int32_t prefopt_soft_optimal(int64_t n, const double *ref_logp, const double *reward, double beta,
                             double *logp, double *log_partition)
{
    bool moderate = true;
    PF_TRY(pf_check_array("ref_logp", n, ref_logp));
    PF_TRY(pf_check_array("reward", n, reward));
    PF_TRY(pf_check_array("logp", n, logp));
    if (!(beta > 0 && beta <= DBL_MAX))
        return pf_fail(PREFOPT_ERR_ARGUMENT, "beta is %g, expected a finite number > 0", beta);
    PF_TRY(pf_check_values("ref_logp", n, ref_logp, true, &moderate));
    PF_TRY(pf_check_values("reward", n, reward, true, &moderate));

    /* Rewards are taken relative to the best one that the reference allows: dividing by a small
     * beta then neither overflows upwards nor cancels. */
    double best = -INFINITY;
    for (int64_t i = 0; i < n; i++)
        if (ref_logp[i] > -INFINITY && reward[i] > best)
            best = reward[i];
    if (best == -INFINITY) {
        if (n > 0)
            return pf_fail(PREFOPT_ERR_NUMERIC,
                           "ref_logp and reward: none of the %lld completions has both finite, so "
                           "there is no soft-optimal policy",
                           (long long)n);
        if (log_partition != NULL)
            *log_partition = -INFINITY;
        return PREFOPT_OK;
    }
    for (int64_t i = 0; i < n; i++)
        logp[i] = ref_logp[i] == -INFINITY ? -INFINITY : ref_logp[i] + (reward[i] - best) / beta;
    double rest = pf_log_sum_exp(n, logp);
    for (int64_t i = 0; i < n; i++)
        logp[i] -= rest;
    if (log_partition != NULL)
        *log_partition = best / beta + rest;
    return PREFOPT_OK;
}
