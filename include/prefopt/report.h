/* prefopt/report.h: what the fitted models say: coverage, displacement, exact KLs, equivalence of
 * the two roads, the generation-verification gap, fragility of a leaderboard.
 *
 *     prefopt_coverage coverage = {.struct_size = sizeof coverage};
 *     prefopt_report_coverage(&coverage, NULL, pairs, policy, reference, reward, beta);
 *     if (coverage.uncovered_policy_mass > 0.01) ...   DPO leaves this mass to chance
 *
 * (lecture 22.3)
 *
 * Reports of a policy enumerate the completions of each prompt, so they are exact; policies without
 * a space, or with one too large (above 1,000,000 completions a prompt), and transformers with
 * prompts of several lengths are PREFOPT_ERR_UNSUPPORTED. Probabilities of a prompt's completions
 * must sum to 1 within 1e-4, the reference's too (NUMERIC), and are taken as they are.
 *
 * Prompts are the distinct ones of the dataset's rows, in order of first appearance. A mean over
 * prompts weighs each by the sum of its rows' weights, so that every row counts by its weight; rows
 * of weight 0 count nowhere, and a dataset whose weights sum to 0 is ARGUMENT.
 *
 * Out structs: set struct_size, the rest is written. Numbers may be infinite, as said below, but
 * NaN only where that is said. Every report is thread-safe as long as its policy and its rewards
 * are not in use elsewhere: those are asked as by prefopt_policy_logprobs and
 * prefopt_reward_scores, and so may answer with their own errors (CALLBACK, STOPPED, ARGUMENT for a
 * sequence they do not know).
 */
#ifndef PREFOPT_REPORT_H
#define PREFOPT_REPORT_H

#include "online.h"
#include "strengths.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---------------------------------------------------------------- coverage (lecture 22.3)
 * What an offline loss cannot see: DPO's loss is the same whatever the policy does with completions
 * that no row holds. A completion is covered when a row of the data with positive weight holds it
 * under the same prompt. mu is the data's distribution over completions of a prompt: each
 * completion of a row counts the row's weight, chosen and rejected alike. */
typedef struct prefopt_coverage {
    uint32_t struct_size, reserved;
    int64_t n_prompts, n_completions;   /* enumerated, all prompts together */
    int64_t n_uncovered;                /* of them: held by no row */
    double uncovered_ref_mass;          /* mean over prompts of pi_ref outside the support */
    double uncovered_policy_mass;       /* likewise of pi: what an offline loss leaves to chance */
    double uncovered_soft_optimal_mass; /* likewise of pi_ref exp(r / beta) / Z; NaN without a
                                           reward */
    double max_ratio;  /* max over prompts, y with pi(y) > 0 of pi(y) / mu(y); may be +INFINITY */
    double chi_square; /* mean over prompts of sum_y pi(y)^2 / mu(y) - 1; +INFINITY where pi has
                          mass that mu has not */
    double worst_policy_mass; /* pi of the uncovered completion with the largest mass */
    int32_t at_risk;          /* 1: an uncovered completion of positive pi has pi_ref = 0
                                 or log pi / pi_ref above 1e-9 (rounding): nothing in an
                                 offline loss holds it back */
    uint32_t reserved2;
} prefopt_coverage;

/* data: PAIR, RANKING or COMPLETIONS rows, whose completions are of the policy's space. policy: the
 * one about to be trained (before training this is the warning) or trained. reward (with a finite
 * beta > 0) may be NULL (then beta must be 0). uncovered may be NULL; else a new dataset in the
 * context of `data`, owned by the caller, with one COMPLETIONS row for each prompt that has
 * uncovered completions, heaviest under pi first, columns logp, ref_logp and (with a reward) score,
 * unknown (NaN) where the reward says -INFINITY.
 * Errors: ARGUMENT (also a row or completion, named), UNSUPPORTED, NUMERIC (also a prompt for which
 * reward or reference rule out every completion), MEMORY, CALLBACK, VERSION. Since 0.1. */
PREFOPT_API int32_t prefopt_report_coverage(prefopt_coverage *out, prefopt_dataset **uncovered,
                                            const prefopt_dataset *data, prefopt_policy *policy,
                                            const prefopt_reference *reference,
                                            prefopt_reward *reward, double beta);

/* ---------------------------------------------------------------- displacement
 * How training moved log pi: likelihood displacement is when the chosen one falls too
 * (Razin et al., arXiv 2410.08847). The chosen completion of a pair is its first, whatever its
 * label. A completion of probability 0 before and after has not moved. */
typedef struct prefopt_displacement {
    uint32_t struct_size, reserved;
    int64_t n_pairs;         /* of positive weight */
    double chosen, rejected; /* weighted mean change of log pi, nats; may be infinite */
    double chosen_fell;      /* share of weight whose chosen log pi fell */
    double both_fell;        /* share whose chosen and rejected both fell */
    double worst_chosen;     /* smallest change of a chosen one */
    int64_t worst_pair;      /* its row; the first of several */
    /* Mean mass over prompts on completions that no row holds, and the largest log pi_after /
     * pi_before of one of them (-INFINITY when there is none). NaN where the space cannot be
     * enumerated, a completion of the pairs is not of it (cut off before its end), or `before`
     * knows only the completions of the pairs. */
    double unseen_mass_before, unseen_mass_after;
    double max_unseen_log_ratio;
} prefopt_displacement;

/* pairs: PAIR rows. Errors: ARGUMENT, NUMERIC (also when completions rose from probability 0 and
 * others of their side fell to it: their mean has no value), MEMORY, CALLBACK, VERSION. Since 0.1.
 */
PREFOPT_API int32_t prefopt_report_displacement(prefopt_displacement *out,
                                                const prefopt_dataset *pairs,
                                                const prefopt_reference *before,
                                                prefopt_policy *after);

/* ---------------------------------------------------------------- KL and J */
typedef struct prefopt_kl_summary {
    uint32_t struct_size, reserved;
    double reverse, forward; /* exact, mean over prompts: KL(pi || pi_ref), KL(pi_ref || pi); may
                                be +INFINITY */
    double k1, k1_std_error; /* estimates of the reverse KL from n_samples a prompt, as
                                prefopt_kl_estimate makes them, mean over prompts */
    double k2, k2_std_error;
    double k3, k3_std_error;
    int64_t n_samples;
} prefopt_kl_summary;

/* prompts: rows of any kind; completions are ignored. n_samples: completions drawn from the policy
 * for each prompt by prefopt_sample under `seed`; 0: the exact KLs alone (estimates NaN; the seed
 * must be 0). Errors: ARGUMENT, UNSUPPORTED (also a policy that cannot be sampled), NUMERIC,
 * MEMORY, CALLBACK, VERSION. Since 0.1. */
PREFOPT_API int32_t prefopt_report_kl(prefopt_kl_summary *out, prefopt_policy *policy,
                                      const prefopt_reference *reference,
                                      const prefopt_dataset *prompts, int64_t n_samples,
                                      uint64_t seed);

typedef struct prefopt_objective {
    uint32_t struct_size, reserved;
    double j;          /* E_pi[r] - beta KL(pi || pi_ref), mean over prompts */
    double reward, kl; /* its two parts: E_pi[r], -INFINITY where pi generates what r rules out, and
                          KL(pi || pi_ref), +INFINITY where pi_ref has none of pi's mass */
    double optimum;    /* max over all policies: beta log Z = beta log sum pi_ref exp(r / beta) */
    double regret; /* optimum - j = beta KL(pi || soft-optimal), computed as such: exact near 0 */
} prefopt_objective;

/* The objective of soft RL (lecture 22.1, whose equation prints the KL with a plus: a slip).
 * prompts: rows of any kind; completions are ignored. beta: finite, > 0. Errors: ARGUMENT,
 * UNSUPPORTED, NUMERIC (also a prompt for which reward or reference rule out every completion),
 * MEMORY, CALLBACK, VERSION. Since 0.1. */
PREFOPT_API int32_t prefopt_report_objective(prefopt_objective *out, prefopt_policy *policy,
                                             const prefopt_reference *reference,
                                             prefopt_reward *reward, const prefopt_dataset *prompts,
                                             double beta);

/* ---------------------------------------------------------------- equivalence (lecture 22.4) */
typedef struct prefopt_equivalence {
    uint32_t struct_size, reserved;
    double total_variation; /* mean over prompts, between pi and softmax(log pi_ref + r / beta) */
    double max_total_variation; /* largest over prompts */
    double kl;                  /* KL(pi || soft-optimal), mean over prompts; may be +INFINITY */
    double loss_reward;         /* Bradley-Terry loss of r on the pairs */
    double loss_policy;         /* the same of beta log pi / pi_ref: the DPO (sigmoid) loss of pi,
                                   with margins over beta, as they stand beside rewards */
    double loss_difference;     /* loss_policy - loss_reward; 0 when both are +INFINITY */
} prefopt_equivalence;

/* Whether a policy is the one that a reward leads to. pairs: PAIR rows. log_z: NULL, or one a
 * distinct prompt of `pairs` (rows of weight 0 included) in order of first appearance:
 * log sum_y pi_ref(y) exp(r(y) / beta). n_log_z: its capacity, at least that many; 0 with NULL.
 * beta: finite, > 0.
 * Errors: ARGUMENT, UNSUPPORTED, NUMERIC (also a prompt for which reward or reference rule out
 * every completion, and a loss that has no value), MEMORY, CALLBACK, VERSION. Since 0.1. */
PREFOPT_API int32_t prefopt_report_equivalence(prefopt_equivalence *out, double *log_z,
                                               int64_t n_log_z, const prefopt_dataset *pairs,
                                               prefopt_policy *policy,
                                               const prefopt_reference *reference,
                                               prefopt_reward *reward, double beta);

/* ---------------------------------------------------------------- generation-verification gap
 * (22.5.2) */
typedef struct prefopt_preference_fit {
    uint32_t struct_size, reserved;
    int64_t n_pairs;       /* of positive weight */
    double log_likelihood; /* weighted mean of log P(label), nats: minus the Bradley-Terry loss;
                              soft labels: minus the cross-entropy */
    double std_error;      /* of it, over pairs; +INFINITY for one pair or an infinite mean */
    double accuracy;       /* share of weight ranked right; equal scores count half, a soft label
                              counts label where chosen scores higher and 1 - label where lower */
    double likelihood;     /* weighted mean of P(label), the measure of arXiv 2503.01067; soft
                              labels: the mean over the two outcomes */
} prefopt_preference_fit;

/* How well any reward (global, local, implicit) predicts held-out pairs,
 * P(chosen preferred) = sigma(r(chosen) - r(rejected) - margin) (lecture 22.5, point 3). pairs:
 * PAIR rows. Nothing is enumerated. Errors: ARGUMENT, NUMERIC (also both scores of a pair
 * -INFINITY), MEMORY, CALLBACK, VERSION. Since 0.1. */
PREFOPT_API int32_t prefopt_report_preference_fit(prefopt_preference_fit *out,
                                                  prefopt_reward *reward,
                                                  const prefopt_dataset *pairs);

/* Best-of-n curve: draws of `policy` ranked by `judge`, measured by `truth`, exactly (see
 * prefopt_best_of_n). prompts: rows of any kind; completions are ignored. n: n_values numbers, each
 * at least 1. true_reward: n_values, or NULL: the mean of `truth` for the winner, mean over
 * prompts; -INFINITY where it may be one that truth rules out. kl: n_values, or NULL: KL(best of n
 * || policy), mean over prompts. Errors: ARGUMENT, UNSUPPORTED, NUMERIC, MEMORY, CALLBACK. Since
 * 0.1. */
PREFOPT_API int32_t prefopt_report_best_of_n(prefopt_policy *policy, prefopt_reward *judge,
                                             prefopt_reward *truth, const prefopt_dataset *prompts,
                                             int64_t n_values, const int64_t *n,
                                             double *true_reward, double *kl);

/* ---------------------------------------------------------------- fragility of a leaderboard
 * The fewest comparisons whose removal changes who is first: found by influence (one Newton step's
 * effect of each comparison on the gap between the leader and a rival; Broderick, Giordano and
 * Meager, arXiv 2011.14999), then confirmed by refitting what is left. Leaderboards of language
 * models have turned on 0.003 % of their votes (Huang et al., arXiv 2508.11847). */
typedef struct prefopt_fragility {
    uint32_t struct_size;
    int32_t found;         /* 1: a removal within max_share was confirmed */
    int64_t leader, rival; /* items: who is first (the lowest of equals), and who is first after the
                              removal; not found: the runner-up; -1: there is one item */
    double n_removed;      /* comparisons (weight); 0 if not found */
    double share;          /* of all comparisons */
    double gap_before;     /* strength of leader minus rival */
    double gap_after;      /* likewise after the removal: below 0; gap_before if not found */
    int64_t n_refits;      /* fits of what some removal leaves that were made on the way */
} prefopt_fragility;

/* removed: NULL, or data->n: the weight taken from each row. max_share: stop looking beyond this
 * share of all comparisons (0 .. 1). Whole comparisons are removed (weights are counts; a row's
 * fraction goes last). options: as prefopt_strengths_fit, NULL for defaults; covariance, replicates
 * and seed are not used, and ARGUMENT unless at their defaults.
 *
 * A removal counts when the leader is behind another item by more than 1e-9 in the fit of what is
 * left. Where that fit has no finite optimum (the removal disconnects the items, or takes the last
 * tie of a tie model) there is no leader, and the removal does not count; with a ridge > 0 that
 * does not happen. Every item is tried as the rival, or, of more than 200 items or where rows times
 * items exceed 2e7, the 20 strongest.
 *
 * What is found is confirmed; that nothing smaller exists is not proved, as comparisons go in the
 * order of their influence: in small sparse tables a search through every subset can find fewer.
 * Time: a fit and a sort of the rows for each rival and each refit.
 * Errors: as prefopt_strengths_fit (UNBOUNDED: of all the data), and max_share. Thread-safe. Since
 * 0.1. */
PREFOPT_API int32_t prefopt_report_fragility(prefopt_fragility *out, double *removed,
                                             prefopt_context *context,
                                             const prefopt_comparisons *data,
                                             const prefopt_strengths_options *options,
                                             double max_share);

#ifdef __cplusplus
}
#endif
#endif
