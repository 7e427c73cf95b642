/* KL estimates from samples, and the weights that differentiating them puts on the scores. */
#include <math.h>

#include "math/pf_math.h"
#include "prefopt/kl.h"
#include "loss/pf_arrays.h"
#include "loss/pf_kl.h"

typedef struct {
    int32_t estimator;
    bool reverse;   /* KL(p || q): a is p */
    bool on_policy; /* the samples are from a */
} plan;

static int32_t check(const char *call, int32_t direction, int32_t estimator, int32_t sampled_from,
                     int64_t n, const double *logp, const double *logq, plan *out)
{
    if (direction != PREFOPT_KL_REVERSE && direction != PREFOPT_KL_FORWARD)
        return pf_fail(PREFOPT_ERR_ARGUMENT,
                       "%s: direction is %d, expected PREFOPT_KL_REVERSE (0) or FORWARD (1)", call,
                       direction);
    PF_TRY(pf_kl_check_estimator(call, estimator));
    if (sampled_from != PREFOPT_FROM_POLICY && sampled_from != PREFOPT_FROM_REFERENCE)
        return pf_fail(PREFOPT_ERR_ARGUMENT,
                       "%s: sampled_from is %d, expected PREFOPT_FROM_POLICY (0) or "
                       "PREFOPT_FROM_REFERENCE (1)",
                       call, sampled_from);
    if (n < 0)
        return pf_fail(PREFOPT_ERR_ARGUMENT, "%s: n is %lld, expected 0 or more", call,
                       (long long)n);
    if (n > 0 && (logp == NULL || logq == NULL))
        return pf_fail(PREFOPT_ERR_ARGUMENT, "%s: %s is NULL", call,
                       logp == NULL ? "logp" : "logq");
    PF_TRY(pf_check_logprobs(call, "logp", 0, n, logp));
    PF_TRY(pf_check_logprobs(call, "logq", 0, n, logq));
    out->estimator = estimator;
    out->reverse = direction == PREFOPT_KL_REVERSE;
    out->on_policy = out->reverse == (sampled_from == PREFOPT_FROM_POLICY);
    return PREFOPT_OK;
}

static double value(const plan *p, double logp, double logq)
{
    double la = p->reverse ? logp : logq, lb = p->reverse ? logq : logp;
    double l = pf_log_ratio(la, lb);
    if (p->on_policy)
        return pf_kl_value(p->estimator, true, l, 0, -l);
    if (la == -INFINITY && lb == -INFINITY)
        return 0;
    return pf_kl_value(p->estimator, false, l, l, 0);
}

int32_t prefopt_kl_estimate(int32_t direction, int32_t estimator, int32_t sampled_from, int64_t n,
                            const double *logp, const double *logq, double *each, double *mean,
                            double *std_error)
{
    plan p = {0, false, false};
    PF_TRY(check(__func__, direction, estimator, sampled_from, n, logp, logq, &p));
    PF_REQUIRE(mean);

    pf_sum sum = {0, 0};
    for (int64_t i = 0; i < n; i++)
        pf_sum_add(&sum, value(&p, logp[i], logq[i]));
    double centre = n == 0 ? 0 : pf_sum_value(&sum) / (double)n;
    if (isnan(centre))
        return pf_fail(PREFOPT_ERR_NUMERIC,
                       "%s: the estimates hold both +INFINITY and -INFINITY: differences of logp "
                       "and logq leave the range of a double",
                       __func__);
    double error = n == 0 ? 0 : INFINITY;
    if (n > 1 && isfinite(centre)) {
        pf_sum squares = {0, 0};
        for (int64_t i = 0; i < n; i++) {
            double deviation = value(&p, logp[i], logq[i]) - centre;
            pf_sum_add(&squares, deviation * deviation);
        }
        error = sqrt(pf_sum_value(&squares) / (double)(n - 1) / (double)n);
    }
    for (int64_t i = 0; each != NULL && i < n; i++)
        each[i] = value(&p, logp[i], logq[i]);
    *mean = centre;
    if (std_error != NULL)
        *std_error = error;
    return PREFOPT_OK;
}

int32_t prefopt_kl_score_weights(int32_t direction, int32_t estimator, int32_t sampled_from,
                                 int64_t n, const double *logp, const double *logq, double *weight)
{
    plan p = {0, false, false};
    PF_TRY(check(__func__, direction, estimator, sampled_from, n, logp, logq, &p));
    if (n > 0)
        PF_REQUIRE(weight);
    for (int64_t i = 0; i < n; i++) {
        double la = p.reverse ? logp[i] : logq[i], lb = p.reverse ? logq[i] : logp[i];
        double l = pf_log_ratio(la, lb);
        /* l is the logarithm of the weight a / b too. 0 - x: no negative zeros. */
        double slope = pf_kl_slope(p.estimator, p.on_policy, l, p.on_policy ? 0 : l);
        weight[i] = p.reverse ? slope : 0 - slope;
    }
    return PREFOPT_OK;
}
