/* The KL estimators as functions of logarithms, for estimates, score weights and policy gradients.
 *
 * One sample x comes from s and stands for KL(a || b): l = log a - log b, lw = log a - log s (the
 * importance weight's), lo = log b - log s. Samples from a itself: lw = 0, lo = -l. */
#ifndef PF_KL_H
#define PF_KL_H

#include <stdbool.h>

#include "base/pf_base.h"

/* exp(x) - 1 - x, without cancellation about 0; never negative. */
double pf_exp_minus_1_minus(double x);

/* log a - log b, with a = 0 first: -INFINITY whenever la is; +INFINITY when lb alone is. */
double pf_log_ratio(double la, double lb);

/* w k(l), w = exp(lw). on_policy: lw is 0 because s is a (then a = 0 counts 0). Never NaN, and
 * never -INFINITY unless l overflows. lo may be anything when l is infinite, but for k3 off policy
 * at a = 0, where it is log b - log s. */
double pf_kl_value(int32_t estimator, bool on_policy, double l, double lw, double lo);

/* d (w k(l)) / d log a where w moves with a (on_policy false), d k(l) / d log a where it does not.
 * Differentiated by log b where s is b, or w is fixed, it is the same with the other sign. */
double pf_kl_slope(int32_t estimator, bool on_policy, double l, double lw);

/* ARGUMENT unless k1, k2 or k3. */
int32_t pf_kl_check_estimator(const char *call, int32_t estimator);

#endif
