/* prefopt/kl.h: Kullback-Leibler divergences: exact, estimated from samples, and as losses.
 *
 *     double kl;
 *     prefopt_kl_exact(PREFOPT_KL_REVERSE, n, logp, logq, &kl, grad_logits);
 *
 * Throughout, p is the policy and q the reference, and (lecture 22.2)
 *     REVERSE: KL(p || q) = sum_x p(x) log(p(x) / q(x)), mode-seeking (soft RL);
 *     FORWARD: KL(q || p) = sum_x q(x) log(q(x) / p(x)), mode-covering (maximum likelihood).
 * A log-probability of -INFINITY means "never": an outcome without mass under the first
 * distribution of the KL adds nothing, and one with mass there and none under the second makes the
 * KL +INFINITY. NaN and +INFINITY are PREFOPT_ERR_NUMERIC. No result is ever NaN.
 */
#ifndef PREFOPT_KL_H
#define PREFOPT_KL_H

#include "base.h"

#ifdef __cplusplus
extern "C" {
#endif

enum prefopt_kl_direction {
    PREFOPT_KL_REVERSE = 0, /* KL(p || q) */
    PREFOPT_KL_FORWARD = 1  /* KL(q || p) */
};

/* Estimators of KL(a || b) from one sample x, with r = b(x) / a(x)
 * (J. Schulman, "Approximating KL divergence", 2020, joschu.net/blog/kl-approx.html). */
enum prefopt_kl_estimator {
    PREFOPT_KL_K1 = 1, /* -log r: unbiased, of either sign */
    PREFOPT_KL_K2 = 2, /* (log r)^2 / 2: never negative, biased (right to second order at p = q) */
    PREFOPT_KL_K3 = 3  /* r - 1 - log r: never negative; unbiased where b has no mass outside a's
                        * support, and too small by that mass where it has */
};

enum prefopt_kl_samples {
    PREFOPT_FROM_POLICY = 0,   /* x ~ p */
    PREFOPT_FROM_REFERENCE = 1 /* x ~ q */
};

/* The KL of two distributions over n outcomes, and its gradient.
 *
 * logp, logq: n log-probabilities of the same outcomes; kl: out. The caller sees to it that each
 * sums to 1 (nothing is checked, as any tolerance would be arbitrary; logits less their
 * prefopt_log_sum_exp do). Computed as sum_x [a log(a / b) - a + b], where no term is negative: for
 * distributions this is KL(a || b), and it keeps its digits where p and q nearly agree.
 *
 * grad_logits: n, or NULL: d kl / d logits, where p = softmax(logits):
 *     REVERSE: p(x) (log(p(x) / q(x)) - kl);    FORWARD: p(x) - q(x).
 * Where FORWARD is +INFINITY its gradient is still p - q, which is finite. Where REVERSE is
 * +INFINITY its gradient is the limit as the missing mass of q goes to 0: +INFINITY where p > 0 =
 * q, -INFINITY at the other outcomes with p > 0, 0 where p = 0; all 0 when p has mass only where q
 * has none, since then no shift of mass within p's support helps.
 *
 * n = 0: kl is 0. Arrays may be NULL when n = 0.
 * Errors: ARGUMENT (NULL, n < 0, an unknown direction), NUMERIC (NaN or +INFINITY in logp or logq).
 * Thread-safe. Since 0.1. */
PREFOPT_API int32_t prefopt_kl_exact(int32_t direction, int64_t n, const double *logp,
                                     const double *logq, double *kl, double *grad_logits);

/* Estimates a KL from n samples by k1, k2 or k3, importance-weighted where the samples are not from
 * the KL's first distribution. With KL(a || b) of the direction, r = b(x) / a(x), w = a(x) / b(x):
 *
 *     direction, samples        a  b  each, for k1, k2, k3
 *     REVERSE, FROM_POLICY      p  q  -log r,   (log r)^2 / 2,    r - 1 - log r
 *     FORWARD, FROM_REFERENCE   q  p  the same
 *     REVERSE, FROM_REFERENCE   p  q  w log w,  w (log w)^2 / 2,  w log w - w + 1
 *     FORWARD, FROM_POLICY      q  p  the same
 *
 * logp, logq: n log-probabilities of the samples under policy and reference (log-densities also
 * work). each: out, n, or NULL. mean: out, the estimate. std_error: out, or NULL: that of the mean,
 * sqrt(sum (each - mean)^2 / (n (n - 1))); +INFINITY for n = 1, where the spread is unknown, and
 * when the mean is infinite.
 *
 * -INFINITY: with a(x) > 0 = b(x), each is +INFINITY. With a(x) = 0 each is 0 (also when the
 * samples are said to be a's own), but 1 for weighted k3 with b(x) > 0, as its formula says.
 *
 * n = 0: mean and std_error are 0. Arrays may be NULL when n = 0.
 * Errors: ARGUMENT (NULL, n < 0, an unknown direction, estimator or sampled_from), NUMERIC (NaN or
 * +INFINITY in logp or logq; a sum that leaves the range of a double both ways).
 * Thread-safe. Since 0.1. */
PREFOPT_API int32_t prefopt_kl_estimate(int32_t direction, int32_t estimator, int32_t sampled_from,
                                        int64_t n, const double *logp, const double *logq,
                                        double *each, double *mean, double *std_error);

/* What a training loop gets when it differentiates an estimate with its samples held fixed, which
 * is what automatic differentiation does: weight[i] = d each[i] / d log p(x_i), so that
 * mean(weight[i] * grad log p(x_i)) is the gradient that differentiating the estimate gives.
 *
 * That is seldom the gradient of the KL that the estimate has as its mean. With u = log(p / q),
 * and in the last column the quantity whose gradient it is in expectation, for p and q with the
 * same support:
 *
 *     direction, samples           weight              gradient, in expectation, of
 *     REVERSE, FROM_POLICY     k1  1                   a constant: it is zero
 *                              k2  u                   KL(p || q), the reverse KL
 *                              k3  1 - exp(-u)         KL(q || p), the forward KL
 *     REVERSE, FROM_REFERENCE  k1  exp(u) (u + 1)      KL(p || q), the reverse KL
 *                              k2  exp(u) u (u/2 + 1)  E_p[u^2 / 2]: no KL
 *                              k3  exp(u) u            KL(p || q), the reverse KL
 *     FORWARD, FROM_REFERENCE  k1  -1                  KL(q || p), the forward KL
 *                              k2  u                   E_q[u^2 / 2]: no KL
 *                              k3  exp(u) - 1          KL(q || p), the forward KL
 *     FORWARD, FROM_POLICY     k1  exp(-u) (u - 1)     KL(q || p) + E_q[u^2 / 2]: no KL
 *                              k2  exp(-u) u (1 - u/2) E_q[u^2 / 2 - u^3 / 6]: no KL
 *                              k3  exp(-u) u           E_q[u^2 / 2]: no KL
 *
 * Samples from the reference do not move with p, so there the gradient is that of the estimate's
 * own mean. Samples from the policy do, and the part that comes from their moving is missing: that
 * is why k1 gives nothing and k3 another KL. E_q[u^2 / 2], E_p[u^2 / 2] and both KLs have the same
 * gradient to first order about p = q; FORWARD k1 from the policy has twice that.
 *
 * logp, logq: n; weight: out, n. -INFINITY: the limit of the formula; 0 where both are -INFINITY
 * and where the samples' own distribution, as the KL's first, has none (see prefopt_kl_estimate). A
 * weight may be infinite, never NaN.
 *
 * Arrays may be NULL when n = 0.
 * Errors: ARGUMENT (NULL, n < 0, an unknown direction, estimator or sampled_from), NUMERIC (NaN or
 * +INFINITY in logp or logq). Thread-safe. Since 0.1. */
PREFOPT_API int32_t prefopt_kl_score_weights(int32_t direction, int32_t estimator,
                                             int32_t sampled_from, int64_t n, const double *logp,
                                             const double *logq, double *weight);

#ifdef __cplusplus
}
#endif
#endif
