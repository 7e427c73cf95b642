/* Internal face of the math room: stable scalar functions, inline for the loss kernels. */
#ifndef PF_MATH_H
#define PF_MATH_H

#include <float.h>
#include <math.h>

#include "base/pf_base.h"
#include "prefopt/math.h"

#define PF_LN2 0.693147180559945309417232121458

static inline double pf_sigmoid(double x)
{
    /* exp of -|x| never overflows, and 1 + e is at least 1. */
    double e = exp(-fabs(x));
    return (x >= 0 ? 1 : e) / (1 + e);
}

static inline double pf_softplus(double x)
{
    /* Both terms are >= 0, so nothing cancels. The comparison keeps NaN in the second term. */
    return (x > 0 ? x : 0) + log1p(exp(-fabs(x)));
}

static inline double pf_log_sigmoid(double x) { return 0 - pf_softplus(-x); }

static inline double pf_log1mexp(double x)
{
    /* Maechler (2012): each form where its inner term keeps all its digits. */
    return x > -PF_LN2 ? log(-expm1(x)) : log1p(-exp(x));
}

static inline double pf_log_add_exp(double a, double b)
{
    double high = a > b ? a : b, low = a > b ? b : a;
    if (high == low)
        return high + PF_LN2; /* also two equal infinities */
    return high + log1p(exp(low - high));
}

/* n >= 0. */
double pf_log_sum_exp(int64_t n, const double *x);

/* With z = scale * x[i] - shift: softplus[i] = softplus(-z) = -log sigma(z), and sigmoid[i] =
 * sigma(-z), its derivative's negative. n of each, not overlapping. NaN gives NaN, infinities their
 * limits (logistic.c). */
void pf_logistic(int64_t n, const double *restrict x, double scale, double shift,
                 double *restrict softplus, double *restrict sigmoid);

/* A running sum with Neumaier's compensation: the error does not grow with the number of terms.
 * Infinite and NaN terms give what a plain sum gives. */
typedef struct {
    double sum, lost;
} pf_sum;

static inline void pf_sum_add(pf_sum *s, double term)
{
    double sum = s->sum + term;
    s->lost += fabs(s->sum) >= fabs(term) ? s->sum - sum + term : term - sum + s->sum;
    s->sum = sum;
}

static inline double pf_sum_value(const pf_sum *s)
{
    return isfinite(s->sum) ? s->sum + s->lost : s->sum;
}

#endif
