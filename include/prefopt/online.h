/* prefopt/online.h: sampler and ranker: online preference pairs (lecture 22.5).
 *
 *     prefopt_sample(&samples, policy, prompts, &sampler);   completions of each prompt
 *     prefopt_rank(&pairs, reward, samples, &ranker);        top and bottom as a new pair
 *
 * Both give a prefopt_dataset, so online pairs train like any others.
 */
#ifndef PREFOPT_ONLINE_H
#define PREFOPT_ONLINE_H

#include "model.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct prefopt_sampler_options {
    uint32_t struct_size;
    int32_t without_replacement; /* 1: distinct completions; enumerable spaces alone; default 0 */
    int64_t n;                   /* completions a prompt, >= 1; default 2 */
    double temperature;          /* >= 0; 0: greedy; default 1 */
    int64_t top_k;               /* keep the k likeliest tokens; 0 (default): all */
    double top_p;                /* keep the likeliest tokens up to this mass; default 1: all */
    uint64_t seed;
    uint64_t round; /* another round with the same seed draws afresh */
} prefopt_sampler_options;

/* Errors: ARGUMENT, VERSION. Since 0.1. */
PREFOPT_API int32_t prefopt_sampler_options_init(prefopt_sampler_options *options,
                                                 uint32_t struct_size);

/* Draws n completions for each row of `prompts` (any kind; its completions are ignored): a new
 * dataset with one COMPLETIONS row a prompt row. Column logp is the policy's own, untempered;
 * sampler_logp is the log-probability under what was sampled from (temperature, then top-k, then
 * top-p, renormalised; without replacement: of the completion under the untruncated draw it came
 * from). The draw of completion j of row i at token t depends on (seed, round, i, j, t) alone.
 * Errors: ARGUMENT, UNSUPPORTED, NUMERIC, MEMORY, CALLBACK, VERSION. Since 0.1. */
PREFOPT_API int32_t prefopt_sample(prefopt_dataset **out, prefopt_policy *policy,
                                   const prefopt_dataset *prompts,
                                   const prefopt_sampler_options *options);

enum prefopt_pair_rule {
    PREFOPT_PAIR_TOP_BOTTOM = 0,        /* the best against the worst (lecture 22.5) */
    PREFOPT_PAIR_BEST_AGAINST_EACH = 1, /* the best against every other */
    PREFOPT_PAIR_ALL = 2,               /* every pair */
    PREFOPT_PAIR_BEST_MEAN_2SD =
        3,                       /* the best against the one nearest to mean - 2 sd of the scores */
    PREFOPT_PAIR_RANDOM = 4,     /* two at random, ordered by score */
    PREFOPT_PAIR_BEST_RANDOM = 5 /* the best against another at random */
};

enum prefopt_tie_rule {
    PREFOPT_TIES_DROP = 0,  /* default: equal scores make no pair */
    PREFOPT_TIES_FIRST = 1, /* the earlier sample is chosen */
    PREFOPT_TIES_HALF = 2   /* a pair with label 0.5 */
};

typedef struct prefopt_ranker_options {
    uint32_t struct_size;
    int32_t rule;        /* prefopt_pair_rule; default TOP_BOTTOM */
    int32_t tie_rule;    /* prefopt_tie_rule; default DROP */
    int32_t soft_labels; /* 1: label = sigma(soft_scale * score difference); default 0: label 1 */
    double soft_scale;   /* default 1; used with soft_labels */
    double margin_floor; /* pairs whose score difference is below it are dropped; default 0 */
    uint64_t seed;       /* RANDOM and BEST_RANDOM alone; default 0 */
} prefopt_ranker_options;

/* Errors: ARGUMENT, VERSION. Since 0.1. */
PREFOPT_API int32_t prefopt_ranker_options_init(prefopt_ranker_options *options,
                                                uint32_t struct_size);

/* What a ranking left out and why. */
typedef struct prefopt_rank_counts {
    uint32_t struct_size, reserved;
    int64_t pairs;       /* made */
    int64_t duplicates;  /* completions equal to an earlier one of their row: not ranked again */
    int64_t ties;        /* pairs dropped by the tie rule */
    int64_t below_floor; /* pairs dropped by margin_floor */
    int64_t empty_rows;  /* rows that gave no pair */
} prefopt_rank_counts;

/* Scores the completions of each COMPLETIONS row and makes PAIR rows: a new dataset in which
 * columns score, logp, sampler_logp of both completions are kept. counts may be NULL. Errors:
 * ARGUMENT, NUMERIC, MEMORY, CALLBACK, VERSION. Since 0.1. */
PREFOPT_API int32_t prefopt_rank(prefopt_dataset **out, prefopt_reward *reward,
                                 const prefopt_dataset *samples,
                                 const prefopt_ranker_options *options,
                                 prefopt_rank_counts *counts);

/* Scores every sequence of a dataset into its score column. Errors: ARGUMENT, NUMERIC, CALLBACK,
 * MEMORY. Since 0.1. */
PREFOPT_API int32_t prefopt_reward_annotate(prefopt_reward *reward, prefopt_dataset *dataset);

/* Best of n, exactly, on an enumerated prompt: of n independent draws from p the one with the
 * highest score wins; of several, the one drawn first, so p's own proportions. With F the mass
 * below a score and m the mass at it, P(win at that score) = (F + m)^n - F^n.
 * logp, score: n_completions each; exp(logp) must sum to 1 within 1e-9 and is taken renormalised; a
 * score may be infinite. bon_logp (n_completions; may be logp or score itself): log-probability
 * that each is the winner; kl: KL(best of n || p) in nats; bound: log n - (n-1)/n (Stiennon et al.,
 * arXiv 2009.01325), which kl never exceeds (Beirami et al., arXiv 2401.01879) and reaches where
 * many completions are equally likely and no two score alike; expected_score: the winner's mean
 * score. Each output may be NULL. Right to about 12 digits for n up to 1e6 and probabilities
 * far below the smallest double.
 * Errors: ARGUMENT (n < 1, n_completions < 1, the sum), NUMERIC (NaN; logp = inf; both infinities
 * in the mean score), MEMORY (from malloc: there is no context). Thread-safe. Since 0.1. */
PREFOPT_API int32_t prefopt_best_of_n(int64_t n, int64_t n_completions, const double *logp,
                                      const double *score, double *bon_logp, double *kl,
                                      double *bound, double *expected_score);

#ifdef __cplusplus
}
#endif
#endif
