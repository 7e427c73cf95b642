/* prefopt/online.h: sampler and ranker: online preference pairs (lecture 22.5).
 *
 *     prefopt_sampler_options sampler;
 *     prefopt_sampler_options_init(&sampler, sizeof sampler);
 *     sampler.n = 25;
 *     prefopt_sample(&samples, policy, prompts, &sampler); completions of each prompt
 *     prefopt_rank(&pairs, reward, samples, NULL, NULL);   top and bottom as a new pair
 *
 * Both give a prefopt_dataset, so online pairs train like any others: write them to a file, mix
 * them with offline ones, train on them. The new dataset lives in the context of the one it was
 * made from; the caller owns it. Weight and extra fields of a row go with it.
 */
#ifndef PREFOPT_ONLINE_H
#define PREFOPT_ONLINE_H

#include "model.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The next token is drawn from the policy's p^(1/temperature), renormalised; cut to the top_k
 * likeliest tokens, renormalised; cut to the likeliest tokens up to the mass top_p (the fewest that
 * reach it), renormalised; cut to the tokens whose probability is at least min_p times that of the
 * likeliest, renormalised. Between equally likely tokens the one with the lower number goes first.
 *
 * temperature 0 is greedy: the likeliest token each time (the lowest of several). It draws nothing,
 * so seed, round, top_k, top_p and min_p are then ARGUMENT, and n completions of a prompt are n
 * equal ones.
 *
 * without_replacement draws n distinct completions from the policy itself (Gumbel-top-k, Kool et
 * al., arXiv 1903.06059): the first from p, each further one from what the ones before have left,
 * renormalised. All completions of the space are enumerated, at most 1,000,000 a prompt. The other
 * options but n, seed and round are then ARGUMENT. */
typedef struct prefopt_sampler_options {
    uint32_t struct_size;
    int32_t without_replacement; /* 1: distinct completions; default 0 */
    int64_t n;                   /* completions a prompt, >= 1; default 2 */
    double temperature;          /* >= 0, finite; 0: greedy; default 1 */
    int64_t top_k;               /* >= 0; 0 (default): all */
    double top_p;                /* above 0, at most 1; default 1: all */
    uint64_t seed;               /* default 0 */
    uint64_t round;              /* default 0; another round with the same seed draws afresh */
    double min_p;                /* 0 (default: all) to 1 */
    int64_t max_tokens;          /* of a completion, >= 0; 0 (default): the space's horizon */
    int64_t n_stop;              /* default 0 */
    const int32_t *stop;         /* n_stop tokens below the vocabulary's size that end a completion,
                                    like eos, and stay its last token; default NULL */
    /* Told of each token as it is drawn, on the calling thread: completion `completion` of row
     * `row` goes on with it. The tokens of one completion come in order; completions advance
     * together, a wave of rows at a time. Returns PREFOPT_OK to go on, PREFOPT_STOPPED to stop, or
     * an error. Default NULL. */
    int32_t (*token)(void *payload, int64_t row, int64_t completion, int32_t token);
    void *token_payload; /* the callback's; default NULL */
} prefopt_sampler_options;

/* Fills options with the defaults. Errors: ARGUMENT (NULL), VERSION. Thread-safe. Since 0.1. */
PREFOPT_API int32_t prefopt_sampler_options_init(prefopt_sampler_options *options,
                                                 uint32_t struct_size);

/* Draws n completions for each row of `prompts` (any kind; its completions are ignored): a new
 * dataset with one row of kind COMPLETIONS a prompt row, in order.
 *
 * Column logp: the policy's own log-probability of the completion, sum_h log pi(a_h | s_h),
 * untempered; equal to prefopt_policy_logprobs but for rounding. Column sampler_logp: the same sum
 * under what the tokens were drawn from; equal to logp when nothing is tempered or cut, 0 for
 * greedy. Without replacement it is logp too: what a completion would have had alone, not its
 * probability to be among the n, which depends on the others.
 *
 * The draw of token t of completion j of row i depends on (seed, round, i, j, t) and the
 * probabilities alone: not on the number of threads, nor on how rows are batched. A completion ends
 * with the space's eos or a stop token, after max_tokens or at the space's horizon; a
 * transformer's also where prompt and completion have max_positions tokens together. The policy is
 * asked for many prefixes at once, each distinct prefix of a row once a step; distributions are
 * held for as many as fit the byte budget of the policy's context. One thread at a time may use
 * the policy.
 *
 * A transformer goes on from the keys and values of what came before: of a prompt once for all of
 * its completions. A wave takes as many completions as fit the byte budget when each is as long as
 * it may become: set max_tokens. A prompt has 1 to max_positions - 1 tokens.
 *
 * options NULL: defaults.
 * Errors: ARGUMENT (also: fewer than n completions have positive probability, without replacement;
 * a prompt that is too long or empty for a transformer, names the row),
 * UNSUPPORTED (a policy without a space, or without next_logprobs, which drawing without
 * replacement does not need; a space too large to enumerate), NUMERIC (next-token probabilities
 * that do not sum to 1 within 1e-3, logits that are not finite), MEMORY, CALLBACK, VERSION; STOPPED
 * when a callback asks for it. Since 0.1. */
PREFOPT_API int32_t prefopt_sample(prefopt_dataset **out, prefopt_policy *policy,
                                   const prefopt_dataset *prompts,
                                   const prefopt_sampler_options *options);

/* Which pairs a prompt's distinct completions make. Best: of the highest score, the first sampled;
 * worst: of the lowest, the last. A rule never pairs a completion with itself. */
enum prefopt_pair_rule {
    PREFOPT_PAIR_TOP_BOTTOM = 0,        /* the best against the worst (lecture 22.5) */
    PREFOPT_PAIR_BEST_AGAINST_EACH = 1, /* the best against every other */
    PREFOPT_PAIR_ALL = 2,               /* every pair */
    PREFOPT_PAIR_BEST_MEAN_2SD = 3,     /* the best against another: the one whose score is nearest
                                           to mean - 2 sd of the prompt's scores (divisor n) */
    PREFOPT_PAIR_RANDOM = 4,            /* two at random, ordered by score */
    PREFOPT_PAIR_BEST_RANDOM = 5        /* the best against another at random */
};

/* What becomes of a pair with equal scores. */
enum prefopt_tie_rule {
    PREFOPT_TIES_DROP = 0,  /* default: no pair */
    PREFOPT_TIES_FIRST = 1, /* the one sampled first is chosen */
    PREFOPT_TIES_HALF = 2   /* the one sampled first is chosen, with label 0.5 */
};

typedef struct prefopt_ranker_options {
    uint32_t struct_size;
    int32_t rule;        /* prefopt_pair_rule; default TOP_BOTTOM */
    int32_t tie_rule;    /* prefopt_tie_rule; default DROP; ARGUMENT beside a margin_floor */
    int32_t soft_labels; /* 1: label = sigma(soft_scale * score difference), 0.5 for a tie that is
                            kept; default 0: label 1 */
    double soft_scale;   /* > 0, finite; default 1; with soft_labels alone */
    double margin_floor; /* >= 0, finite: pairs whose score difference is below it are dropped;
                            default 0 */
    uint64_t seed;       /* rules RANDOM and BEST_RANDOM alone; default 0 */
} prefopt_ranker_options;

/* Fills options with the defaults. Errors: ARGUMENT (NULL), VERSION. Thread-safe. Since 0.1. */
PREFOPT_API int32_t prefopt_ranker_options_init(prefopt_ranker_options *options,
                                                uint32_t struct_size);

/* What a ranking made, and what it left out and why. */
typedef struct prefopt_rank_counts {
    uint32_t struct_size, reserved;
    int64_t pairs;       /* made */
    int64_t duplicates;  /* completions equal to an earlier one of their row: not ranked again */
    int64_t ties;        /* pairs dropped by the tie rule */
    int64_t below_floor; /* pairs dropped by margin_floor */
    int64_t empty_rows;  /* rows that gave no pair */
    double mean_score;   /* of all completions, duplicates included */
} prefopt_rank_counts;

/* Scores the completions of `samples`, whose rows are all of kind COMPLETIONS (at least one), and
 * makes PAIR rows of them: a new dataset, empty when no pair was made. Completions of a row that
 * are equal token by token are ranked once; equal sequences are scored once. Each pair keeps its
 * prompt, the row's weight and extra fields, and of both completions score, logp, sampler_logp and
 * ref_logp. Scores must be finite. The random rules depend on (seed, row) alone.
 * options NULL: defaults. counts may be NULL; its struct_size must be set.
 * Errors: ARGUMENT (names the row), NUMERIC (names row and completion), MEMORY, CALLBACK, VERSION,
 * and what the reward model answers. One thread at a time may use the reward. Since 0.1. */
PREFOPT_API int32_t prefopt_rank(prefopt_dataset **out, prefopt_reward *reward,
                                 const prefopt_dataset *samples,
                                 const prefopt_ranker_options *options,
                                 prefopt_rank_counts *counts);

/* Scores every sequence of a dataset into its score column (a row of kind PROMPT: its prompt with
 * an empty completion). On failure the column is as before. Errors: ARGUMENT, NUMERIC, CALLBACK,
 * MEMORY, and what the reward model answers. One thread at a time may use either. Since 0.1. */
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
