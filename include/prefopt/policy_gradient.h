/* prefopt/policy_gradient.h: KL-regularised policy gradients, for whole completions and for tokens.
 *
 *     prefopt_pg_options options;
 *     prefopt_pg_options_init(&options, sizeof options);
 *     options.beta = 0.05;
 *     prefopt_group_scores in = {.struct_size = sizeof in, .n_groups = prompts, .group_size = 8,
 *                                .reward = reward, .logp = logp, .ref_logp = ref_logp};
 *     prefopt_advantages(&options, &in, advantage);
 *     prefopt_pg_loss out = {.struct_size = sizeof out, .grad_logp = grad_logp};
 *     prefopt_loss_policy_gradient(&options, &in, advantage, &out);
 *     ... then carry grad_logp back through your model, and step down it.
 *
 * The objective is J(pi) = E_pi[r] - beta KL(pi || pi_ref), to be maximised; the losses are its
 * negative, to be minimised. (Lecture 22.1 prints the KL term with a plus; that is a slip.)
 *
 * Log-probabilities may be -INFINITY, "never", but old_logp may not: a sampler cannot have drawn
 * what it never gives. NaN and other infinities are PREFOPT_ERR_NUMERIC; no result is ever NaN. An
 * array that a call does not read may be NULL, and is not looked at.
 */
#ifndef PREFOPT_POLICY_GRADIENT_H
#define PREFOPT_POLICY_GRADIENT_H

#include "base.h"
#include "kl.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---------------------------------------------------------------- completions in groups */

/* n_groups prompts, group_size completions of each, row by row. Borrowed for the call. */
typedef struct prefopt_group_scores {
    uint32_t struct_size, reserved; /* reserved: 0 */
    int64_t n_groups, group_size;   /* >= 0 */
    const double *reward;           /* n_groups * group_size, finite */
    const double *logp;             /* log-probabilities under the policy now */
    const double *ref_logp;         /* under the reference; may be NULL when beta is 0 */
    const double *old_logp;         /* under the policy that sampled; NULL: logp */
} prefopt_group_scores;

/* What is subtracted from a reward R_i of a group of K (mean and sd are the group's). */
enum prefopt_baseline {
    PREFOPT_BASELINE_NONE = 0, /* nothing */
    PREFOPT_BASELINE_MEAN = 1, /* the mean: the expected gradient shrinks by (K - 1) / K, since R_i
                                * is part of its own baseline; K = 1 gives 0 */
    PREFOPT_BASELINE_LEAVE_ONE_OUT = 2, /* the mean of the other K - 1 (Kool et al. 2019; Ahmadian
                                         * et al., arXiv 2402.14740): unbiased; K >= 2 */
    PREFOPT_BASELINE_GROUP_NORM = 3 /* (R_i - mean) / sd (GRPO, arXiv 2402.03300, section 4.1.2),
                                     * sd with the denominator K - 1; 0 when sd is 0 or K is 1.
                                     * Biased: groups of small spread are blown up */
};

enum prefopt_kl_placement {
    PREFOPT_KL_IN_REWARD = 0, /* R = reward - beta (logp - ref_logp), a constant of the loss */
    PREFOPT_KL_IN_LOSS = 1    /* R = reward; beta times the KL estimate is added to the loss */
};

typedef struct prefopt_pg_options {
    uint32_t struct_size;
    int32_t baseline;     /* prefopt_baseline; default LEAVE_ONE_OUT */
    int32_t kl_placement; /* prefopt_kl_placement; default IN_REWARD */
    int32_t kl_estimator; /* prefopt_kl_estimator; default K1: of prefopt_pg_loss.kl, and of the
                           * term that IN_LOSS adds. The KL in the reward has the form of k1 */
    double beta;          /* >= 0, finite; default 0 */
    double clip_low;      /* in [0, 1); default 0 */
    double clip_high;     /* >= 0, may be INFINITY; default 0. Both 0: no clip */
} prefopt_pg_options;

typedef struct prefopt_pg_loss {
    uint32_t struct_size, reserved;
    double mean;          /* out: the loss, to be minimised */
    double kl;            /* out: the estimate of KL(policy || reference); 0 without a reference */
    double clip_fraction; /* out: share of the elements whose gradient the clip took away */
    double *grad_logp;    /* out, one per element, or NULL: d mean / d logp */
} prefopt_pg_loss;

/* Fills options with the defaults. struct_size: sizeof *options.
 * Errors: ARGUMENT (NULL), VERSION. Thread-safe. Since 0.1. */
PREFOPT_API int32_t prefopt_pg_options_init(prefopt_pg_options *options, uint32_t struct_size);

/* Advantages of completions: R_i minus the group's baseline, where R = reward, or with the KL in
 * the reward and beta > 0, R = reward - beta (logp - ref_logp). Score-function gradients weighted
 * by them estimate grad J: grad J = E[(r - beta log(pi / pi_ref)) grad log pi], as E[grad log pi] =
 * 0 (Williams 1992).
 *
 * options: NULL: defaults. advantage: out, n_groups * group_size; NULL when that is 0.
 * reward is read; logp and ref_logp with the KL in the reward and beta > 0.
 *
 * Where ref_logp alone is -INFINITY, R and the advantage are -INFINITY, and that completion does
 * not enter the group's baseline (no finite other: baseline 0), so the others stay finite. Where
 * logp is -INFINITY the KL term is 0.
 *
 * Errors: ARGUMENT (NULL, a size or option out of range, LEAVE_ONE_OUT with group_size 1, beta > 0
 * with the KL in the reward and no ref_logp), NUMERIC (NaN, an infinity without meaning, |R| above
 * 1e280), VERSION. Thread-safe. Since 0.1. */
PREFOPT_API int32_t prefopt_advantages(const prefopt_pg_options *options,
                                       const prefopt_group_scores *in, double *advantage);

/* The policy-gradient loss of N = n_groups * group_size completions and its gradient by logp:
 *
 *     mean = -(1/N) sum_i min(A_i rho_i, A_i clip(rho_i, 1 - clip_low, 1 + clip_high))
 *            + beta kl (IN_LOSS alone),     rho_i = exp(logp_i - old_logp_i)
 *
 * (PPO, arXiv 1707.06347, eq. 7; without a clip the plain -(1/N) sum_i A_i rho_i). Where the
 * clipped term is the smaller (A > 0 and rho > 1 + clip_high, or A < 0 and rho < 1 - clip_low) the
 * gradient of that element is 0 and it counts for clip_fraction; at the edge itself the gradient is
 * the unclipped one.
 *
 * kl estimates KL(policy || reference) by k1, k2 or k3 (prefopt/kl.h), with samples from the policy
 * that sampled: (1/N) sum_i rho_i k(logp_i - ref_logp_i). The ratio is never clipped here. With
 * the KL in the reward kl is reported and has no part in mean or grad_logp. Without ref_logp kl is
 * 0; with beta = 0 ref_logp serves for kl alone.
 *
 * grad_logp is exactly d mean / d logp with advantage, old_logp and ref_logp constant; u = logp -
 * ref_logp, and the KL's part, times beta / N, is
 *     old_logp given:  rho (u + 1), rho (u^2 / 2 + u), rho u    for k1, k2, k3;
 *     old_logp NULL:   1,           u,                 1 - exp(-u).
 * With old_logp NULL, rho is 1, its gradient in the first sum is that of logp (REINFORCE), and the
 * KL estimate is differentiated with its samples fixed, as prefopt_kl_score_weights describes: in
 * expectation k1 gives no gradient at all, k2 that of KL(pi || ref), k3 that of KL(ref || pi). With
 * old_logp given (also when it equals logp) the ratio carries the motion of the samples, and k1 and
 * k3 both give the gradient of KL(pi || ref), k2 that of E_pi[u^2 / 2].
 *
 * options: NULL: defaults. advantage: N, finite or -INFINITY (what prefopt_advantages gives where
 * the reference has no mass: the loss is then +INFINITY, and so is that element's gradient). reward
 * is not read. ref_logp -INFINITY where logp is not: kl is +INFINITY, and with the KL in the loss
 * and beta > 0 so is the loss. logp -INFINITY: the element's KL term is that of
 * prefopt_kl_estimate. N = 0: mean, kl and clip_fraction are 0.
 *
 * Errors: ARGUMENT (NULL, a size or option out of range, beta > 0 without ref_logp), NUMERIC (NaN,
 * an infinity without meaning; rho, or a sum of terms of both signs, beyond the range of a double),
 * VERSION. Thread-safe. Since 0.1. */
PREFOPT_API int32_t prefopt_loss_policy_gradient(const prefopt_pg_options *options,
                                                 const prefopt_group_scores *in,
                                                 const double *advantage, prefopt_pg_loss *out);

#ifdef __cplusplus
}
#endif
#endif
