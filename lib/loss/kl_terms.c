/* One sample's KL estimate and its derivative, stable in the logarithms. */
#include <math.h>

#include "prefopt/kl.h"
#include "loss/pf_kl.h"

double pf_exp_minus_1_minus(double x)
{
    if (fabs(x) >= 0.5)
        return fmax(expm1(x) - x, 0);
    /* x^2 (1/2! + x (1/3! + ... + x/16!)), by Horner: x^17/17! is below an ulp of x^2/2. */
    double sum = 1;
    for (int k = 16; k >= 3; k--)
        sum = 1 + sum * x / k;
    return 0.5 * x * x * sum;
}

double pf_log_ratio(double la, double lb)
{
    if (la == -INFINITY)
        return -INFINITY;
    return la - lb;
}

double pf_kl_value(int32_t estimator, bool on_policy, double l, double lw, double lo)
{
    if (l == INFINITY)
        return INFINITY;
    if (l == -INFINITY)
        return estimator == PREFOPT_KL_K3 && !on_policy ? exp(lo) : 0;
    double w = on_policy ? 1 : exp(lw);
    switch (estimator) {
    case PREFOPT_KL_K1:
        return w * l;
    case PREFOPT_KL_K2:
        return 0.5 * (w * l) * l; /* in this order: w = 0 wins over an overflow of l^2 */
    default:
        /* w (exp(-l) - 1 + l); far out w exp(-l) = exp(lo) may be in range though exp(-l) is not.
         */
        return l < -1 ? exp(lo) + w * (l - 1) : w * pf_exp_minus_1_minus(-l);
    }
}

double pf_kl_slope(int32_t estimator, bool on_policy, double l, double lw)
{
    if (l == -INFINITY)
        return 0;
    if (on_policy)
        return estimator == PREFOPT_KL_K1 ? 1 : estimator == PREFOPT_KL_K2 ? l : -expm1(-l);
    if (l == INFINITY)
        return INFINITY;
    /* k + k', times w: in k3 the exponentials cancel and leave l. */
    double w = exp(lw);
    switch (estimator) {
    case PREFOPT_KL_K1:
        return w * (l + 1);
    case PREFOPT_KL_K2:
        return w * l * (0.5 * l + 1);
    default:
        return w * l;
    }
}

int32_t pf_kl_check_estimator(const char *call, int32_t estimator)
{
    if (estimator < PREFOPT_KL_K1 || estimator > PREFOPT_KL_K3)
        return pf_fail(PREFOPT_ERR_ARGUMENT,
                       "%s: the KL estimator is %d, expected PREFOPT_KL_K1 (1), K2 (2) or K3 (3)",
                       call, estimator);
    return PREFOPT_OK;
}
