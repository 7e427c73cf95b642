/* The exact KL of two enumerated distributions, and its gradient by the logits of p. */
#include <math.h>

#include "math/pf_math.h"
#include "prefopt/kl.h"
#include "loss/pf_arrays.h"
#include "loss/pf_kl.h"

/* a log(a / b) - a + b from the logarithms: a (exp(-l) - 1 + l) with l = log(a / b). */
static double term(double la, double lb)
{
    double l = pf_log_ratio(la, lb);
    if (l == -INFINITY)
        return exp(lb); /* a = 0 */
    return pf_kl_value(PREFOPT_KL_K3, false, l, la, lb);
}

/* The limit for a reverse KL of +INFINITY (see the header). */
static void infinite_gradient(int64_t n, const double *logp, const double *logq, double *grad)
{
    bool any_covered = false;
    for (int64_t i = 0; i < n && !any_covered; i++)
        any_covered = logp[i] > -INFINITY && logq[i] > -INFINITY;
    for (int64_t i = 0; i < n; i++) {
        if (logp[i] == -INFINITY || !any_covered)
            grad[i] = 0;
        else
            grad[i] = logq[i] == -INFINITY ? INFINITY : -INFINITY;
    }
}

int32_t prefopt_kl_exact(int32_t direction, int64_t n, const double *logp, const double *logq,
                         double *kl, double *grad_logits)
{
    if (direction != PREFOPT_KL_REVERSE && direction != PREFOPT_KL_FORWARD)
        return pf_fail(PREFOPT_ERR_ARGUMENT,
                       "%s: direction is %d, expected PREFOPT_KL_REVERSE (0) or FORWARD (1)",
                       __func__, direction);
    if (n < 0)
        return pf_fail(PREFOPT_ERR_ARGUMENT, "%s: n is %lld, expected 0 or more", __func__,
                       (long long)n);
    PF_REQUIRE(kl);
    if (n > 0) {
        PF_REQUIRE(logp);
        PF_REQUIRE(logq);
    }
    PF_TRY(pf_check_logprobs(__func__, "logp", 0, n, logp));
    PF_TRY(pf_check_logprobs(__func__, "logq", 0, n, logq));

    bool reverse = direction == PREFOPT_KL_REVERSE;
    pf_sum sum = {0, 0};
    for (int64_t i = 0; i < n; i++)
        pf_sum_add(&sum, reverse ? term(logp[i], logq[i]) : term(logq[i], logp[i]));
    double total = pf_sum_value(&sum);
    *kl = total;
    if (grad_logits == NULL)
        return PREFOPT_OK;
    if (reverse && total == INFINITY) {
        infinite_gradient(n, logp, logq, grad_logits);
        return PREFOPT_OK;
    }
    for (int64_t i = 0; i < n; i++) {
        if (!reverse)
            grad_logits[i] = exp(logp[i]) - exp(logq[i]);
        else if (logp[i] == -INFINITY)
            grad_logits[i] = 0;
        else
            grad_logits[i] = exp(logp[i]) * (logp[i] - logq[i] - total);
    }
    return PREFOPT_OK;
}
