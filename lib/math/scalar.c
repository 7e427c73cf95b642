/* The stable scalar functions, and the logarithm of a sum of exponentials. */
#include "math/pf_math.h"

double prefopt_sigmoid(double x) { return pf_sigmoid(x); }

double prefopt_log_sigmoid(double x) { return pf_log_sigmoid(x); }

double prefopt_softplus(double x) { return pf_softplus(x); }

double prefopt_log1mexp(double x) { return pf_log1mexp(x); }

double prefopt_log_add_exp(double a, double b) { return pf_log_add_exp(a, b); }

double pf_log_sum_exp(int64_t n, const double *x)
{
    int64_t top = 0;
    for (int64_t i = 0; i < n; i++) {
        if (isnan(x[i]))
            return x[i];
        if (x[i] > x[top])
            top = i;
    }
    if (n == 0)
        return -INFINITY;
    if (isinf(x[top]))
        return x[top];
    /* The largest term is 1 exactly and stays out of the sum: log1p then sees the others at full
     * precision, however small they are. */
    pf_sum others = {0, 0};
    for (int64_t i = 0; i < n; i++)
        if (i != top)
            pf_sum_add(&others, exp(x[i] - x[top]));
    return x[top] + log1p(pf_sum_value(&others));
}

double prefopt_log_sum_exp(int64_t n, const double *x)
{
    if (n < 0 || (n > 0 && x == NULL))
        return NAN;
    return pf_log_sum_exp(n, x);
}
