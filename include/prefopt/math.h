/* prefopt/math.h: numerically stable functions of logarithms.
 *
 *     double p = prefopt_sigmoid(r_i - r_j);         P(i beats j), Bradley-Terry
 *     double nll = -prefopt_log_sigmoid(r_i - r_j);  its negative logarithm, right also at -800
 *
 * Each is right to a few units in the last place over the whole range of a double, gives NaN for
 * NaN, never fails, sets no error text, and may be called from any thread.
 */
#ifndef PREFOPT_MATH_H
#define PREFOPT_MATH_H

#include "base.h"

#ifdef __cplusplus
extern "C" {
#endif

/* sigma(x) = 1 / (1 + exp(-x)). sigma(-inf) = 0, sigma(inf) = 1. Since 0.1. */
PREFOPT_API double prefopt_sigmoid(double x);

/* log sigma(x) = -log(1 + exp(-x)). -inf at -inf, 0 at inf. Since 0.1. */
PREFOPT_API double prefopt_log_sigmoid(double x);

/* softplus(x) = log(1 + exp(x)) = -log sigma(-x). Since 0.1. */
PREFOPT_API double prefopt_softplus(double x);

/* log(1 - exp(x)) for x <= 0: the logarithm of the probability that remains beside one whose
 * logarithm is x. -inf at 0, 0 at -inf; NaN for x > 0. Since 0.1. */
PREFOPT_API double prefopt_log1mexp(double x);

/* log(exp(a) + exp(b)). -inf is the neutral element. Since 0.1. */
PREFOPT_API double prefopt_log_add_exp(double a, double b);

/* log(sum over i of exp(x[i])). x: n doubles, borrowed; n = 0 gives -inf (x may then be NULL). inf
 * if one is inf; NaN if one is NaN, x is NULL or n < 0. Where the result is smaller than the
 * largest |x[i]| (they cancel, e.g. for normalised log-probabilities), the error is a few units in
 * the last place of the largest. Since 0.1. */
PREFOPT_API double prefopt_log_sum_exp(int64_t n, const double *x);

#ifdef __cplusplus
}
#endif
#endif
