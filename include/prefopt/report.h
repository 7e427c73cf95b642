/* prefopt/report.h: what the fitted models say: coverage, displacement, exact KLs, equivalence of
 * the two roads, the generation-verification gap, fragility of a leaderboard.
 *
 *     prefopt_coverage coverage = {.struct_size = sizeof coverage};
 *     prefopt_report_coverage(&coverage, NULL, pairs, policy, reference, reward, beta);
 *     if (coverage.uncovered_policy_mass > 0.01) ...   DPO leaves this mass to chance
 *
 * (lecture 22.3)
 *
 * Reports enumerate the completions of each prompt, so they are exact; policies whose space is too
 * large to enumerate are PREFOPT_ERR_UNSUPPORTED. Out structs: set struct_size, the rest is
 * written.
 */
#ifndef PREFOPT_REPORT_H
#define PREFOPT_REPORT_H

#include "train.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---------------------------------------------------------------- coverage (lecture 22.3)
 * A completion is covered when a row of the data with positive weight holds it under the same
 * prompt. mu is the data's distribution over completions of a prompt (by weight, each side of a
 * pair once). */
typedef struct prefopt_coverage {
    uint32_t struct_size, reserved;
    int64_t n_prompts, n_completions; /* enumerated, all prompts together */
    int64_t n_uncovered;              /* of those that policy or reference can generate or that have
                                         pi_ref = 0: every completion that no row holds */
    double uncovered_ref_mass;        /* mean over prompts of pi_ref outside the support */
    double uncovered_policy_mass;     /* likewise of pi: what an offline loss leaves to chance */
    double uncovered_soft_optimal_mass; /* likewise of pi_ref exp(r / beta) / Z; NaN without a
                                           reward */
    double max_ratio;                   /* max over prompts, y of pi(y) / mu(y); may be +INFINITY */
    double chi_square;                  /* mean over prompts of sum_y pi(y)^2 / mu(y) - 1 */
    double worst_policy_mass;           /* pi of the uncovered completion with the largest mass */
    int32_t at_risk;                    /* 1: an uncovered completion with pi_ref = 0 or with
                                           pi / pi_ref > 1 has positive pi: DPO would not hold it back */
    uint32_t reserved2;
} prefopt_coverage;

/* data: PAIR, RANKING or COMPLETIONS rows. policy: the one about to be trained (before training
 * this is the warning) or trained. reward (with beta > 0) may be NULL (then beta must be 0).
 * uncovered may be NULL; else a new dataset with one COMPLETIONS row for each prompt that has
 * uncovered completions, heaviest under pi first, columns logp, ref_logp and (with a reward) score.
 * Errors: ARGUMENT, UNSUPPORTED, NUMERIC, MEMORY, CALLBACK, VERSION. Since 0.1. */
PREFOPT_API int32_t prefopt_report_coverage(prefopt_coverage *out, prefopt_dataset **uncovered,
                                            const prefopt_dataset *data, prefopt_policy *policy,
                                            const prefopt_reference *reference,
                                            prefopt_reward *reward, double beta);

/* ---------------------------------------------------------------- displacement
 * How training moved log pi: likelihood displacement is when the chosen one falls too
 * (Razin et al., arXiv 2410.08847). */
typedef struct prefopt_displacement {
    uint32_t struct_size, reserved;
    int64_t n_pairs;
    double chosen, rejected; /* weighted mean change of log pi, nats */
    double chosen_fell;      /* share of weight whose chosen log pi fell */
    double both_fell;
    double worst_chosen;                          /* smallest change of a chosen one */
    int64_t worst_pair;                           /* its row */
    double unseen_mass_before, unseen_mass_after; /* mean mass on completions no row holds; NaN
                                                     where the space cannot be enumerated */
    double max_unseen_log_ratio; /* largest log pi_after / pi_before of an unseen completion */
} prefopt_displacement;

/* Errors: as above. Since 0.1. */
PREFOPT_API int32_t prefopt_report_displacement(prefopt_displacement *out,
                                                const prefopt_dataset *pairs,
                                                const prefopt_reference *before,
                                                prefopt_policy *after);

/* ---------------------------------------------------------------- KL and J */
typedef struct prefopt_kl_summary {
    uint32_t struct_size, reserved;
    double reverse, forward; /* exact, mean over prompts: KL(pi || pi_ref), KL(pi_ref || pi) */
    double k1, k1_std_error; /* estimates of the reverse KL from n_samples a prompt */
    double k2, k2_std_error;
    double k3, k3_std_error;
    int64_t n_samples;
} prefopt_kl_summary;

/* n_samples = 0: the exact ones alone (estimates NaN). Errors: as above. Since 0.1. */
PREFOPT_API int32_t prefopt_report_kl(prefopt_kl_summary *out, prefopt_policy *policy,
                                      const prefopt_reference *reference,
                                      const prefopt_dataset *prompts, int64_t n_samples,
                                      uint64_t seed);

typedef struct prefopt_objective {
    uint32_t struct_size, reserved;
    double j;          /* E_pi[r] - beta KL(pi || pi_ref), mean over prompts */
    double reward, kl; /* its two parts */
    double optimum;    /* max over all policies: beta log Z = beta log sum pi_ref exp(r / beta) */
    double regret; /* optimum - j = beta KL(pi || soft-optimal), computed as such: exact near 0 */
} prefopt_objective;

/* Errors: as above. Since 0.1. */
PREFOPT_API int32_t prefopt_report_objective(prefopt_objective *out, prefopt_policy *policy,
                                             const prefopt_reference *reference,
                                             prefopt_reward *reward, const prefopt_dataset *prompts,
                                             double beta);

/* ---------------------------------------------------------------- equivalence (lecture 22.4) */
typedef struct prefopt_equivalence {
    uint32_t struct_size, reserved;
    double total_variation; /* mean over prompts, between pi and softmax(log pi_ref + r / beta) */
    double max_total_variation; /* largest over prompts */
    double kl;                  /* KL(pi || soft-optimal), mean over prompts */
    double loss_reward;         /* Bradley-Terry loss of r on the pairs */
    double loss_policy;         /* DPO (sigmoid) loss of pi on the pairs */
    double loss_difference;     /* loss_policy - loss_reward */
} prefopt_equivalence;

/* log_z: NULL, or one a distinct prompt of `pairs` in order of first appearance:
 * log sum_y pi_ref(y) exp(r(y) / beta). n_log_z: its capacity.
 * Errors: as above. Since 0.1. */
PREFOPT_API int32_t prefopt_report_equivalence(prefopt_equivalence *out, double *log_z,
                                               int64_t n_log_z, const prefopt_dataset *pairs,
                                               prefopt_policy *policy,
                                               const prefopt_reference *reference,
                                               prefopt_reward *reward, double beta);

/* ---------------------------------------------------------------- generation-verification gap
 * (22.5.2) */
typedef struct prefopt_preference_fit {
    uint32_t struct_size, reserved;
    int64_t n_pairs;
    double log_likelihood; /* weighted mean of log P(label), nats; soft labels: cross-entropy */
    double std_error;      /* of it, over pairs */
    double accuracy;       /* share of weight ranked right, equal scores count half */
    double
        likelihood; /* weighted mean of P(label): the measure of arXiv 2503.01067, table of RMs */
} prefopt_preference_fit;

/* How well any reward (global, local, implicit) predicts held-out pairs. Errors: as above. Since
 * 0.1. */
PREFOPT_API int32_t prefopt_report_preference_fit(prefopt_preference_fit *out,
                                                  prefopt_reward *reward,
                                                  const prefopt_dataset *pairs);

/* Best-of-n curve: draws of `policy` ranked by `judge`, measured by `truth`, exactly (enumerated).
 * n_values: how many n; n: the numbers; true_reward, kl: n_values each (mean over prompts), or
 * NULL. Errors: as above. Since 0.1. */
PREFOPT_API int32_t prefopt_report_best_of_n(prefopt_policy *policy, prefopt_reward *judge,
                                             prefopt_reward *truth, const prefopt_dataset *prompts,
                                             int64_t n_values, const int64_t *n,
                                             double *true_reward, double *kl);

/* ---------------------------------------------------------------- fragility of a leaderboard
 * The fewest comparisons whose removal changes who is first: found by influence (one Newton step's
 * effect of each comparison on the gap between the leader and a rival), then confirmed by
 * refitting. */
typedef struct prefopt_fragility {
    uint32_t struct_size;
    int32_t found;         /* 1: a removal of at most max_removed comparisons was confirmed */
    int64_t leader, rival; /* items: who is first, and who is first after the removal */
    double n_removed;      /* comparisons (weight) */
    double share;          /* of all comparisons */
    double gap_before;     /* strength of leader minus rival */
    double gap_after;      /* likewise after the removal: below 0 */
    int64_t n_refits;
} prefopt_fragility;

/* removed: NULL, or data->n: the weight taken from each row. max_share: stop looking beyond this
 * share of all comparisons (0 .. 1). Whole comparisons are removed (weights are counts; a row's
 * fraction goes last). Errors: as prefopt_strengths_fit. Since 0.1. */
PREFOPT_API int32_t prefopt_report_fragility(prefopt_fragility *out, double *removed,
                                             prefopt_context *context,
                                             const prefopt_comparisons *data,
                                             const prefopt_strengths_options *options,
                                             double max_share);

#ifdef __cplusplus
}
#endif
#endif
