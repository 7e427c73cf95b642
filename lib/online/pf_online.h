/* Internal face of the online room: next-token distributions and draws, the sampler's two ways,
 * pair rules. All but the sampler are pure kernels: they allocate nothing and know no model. */
#ifndef PF_ONLINE_H
#define PF_ONLINE_H

#include "base/pf_base.h"
#include "prefopt/online.h"

/* ---- the largest of many (truncate.c)
 *
 * A binary heap of indices under one total order: larger key first, lower index among equal keys.
 * Keys must not be NaN. */

/* order[0 .. n) := 0 .. n-1 as a heap, in O(n). */
void pf_heap_build(int64_t n, const double *key, int64_t *order);
/* Takes the first of the heap's n >= 1 indices, in O(log n); n - 1 stay. */
int64_t pf_heap_pop(int64_t n, const double *key, int64_t *order);

/* ---- next-token distributions (truncate.c) */

/* What a token is drawn from: p^(1/temperature), renormalised; of that the top_k likeliest,
 * renormalised; of that the likeliest up to the mass top_p (the fewest whose mass reaches it); of
 * that the ones at least min_p times as likely as the likeliest; and renormalised again. Between
 * equal probabilities the lower token goes first. */
typedef struct {
    double temperature; /* > 0 */
    int64_t top_k;      /* 0: all */
    double top_p;       /* (0, 1]; 1: all */
    double min_p;       /* [0, 1]; 0: all */
} pf_truncation;

/* True when a draw is from p as it is. */
static inline bool pf_truncation_is_none(const pf_truncation *t)
{
    return t->temperature == 1 && t->top_k == 0 && t->top_p == 1 && t->min_p == 0;
}

/* log_q[vocab] from logp[vocab] (no NaN, no +inf, not all -inf); -inf at tokens left out. order:
 * vocab numbers of room, used when top_k or top_p is. log_q may be logp. */
void pf_truncate(int64_t vocab, const double *logp, const pf_truncation *t, int64_t *order,
                 double *log_q);

/* A draw that waits for its token: u uniform on (0, 1), id the caller's. */
typedef struct {
    double u;
    int64_t id;
    int32_t token; /* out */
    int32_t padding;
    double logp, log_q; /* of the token: the policy's own, and in what it was drawn from; the
                           sampler's sources fill them in */
} pf_draw;

/* Gives each draw the token at which the cumulated exp(log_q), in token order, first exceeds u *
 * total; never one of probability 0. total: pf_total_mass(log_q), or what is known of it without
 * another pass: its rounding goes to the last token. Reorders the draws by (u, id), and so by
 * token. The token of a draw depends on its own u alone. */
void pf_draw_tokens(int64_t vocab, const double *log_q, double total, int64_t n, pf_draw *draws);

/* The lowest of the likeliest tokens. */
int64_t pf_greedy_token(int64_t vocab, const double *logp);

/* The sum of exp(logp): 1 for a distribution, NaN where an entry is NaN or +inf. */
double pf_total_mass(int64_t vocab, const double *logp);

/* Whether an own copy of the sampler's options is sound, the policy apart (sampler.c). ARGUMENT,
 * NUMERIC. */
int32_t pf_sampler_check(const prefopt_sampler_options *options);

/* ---- the sampler: prefopt_sample of rows first .. first + n - 1, which keep their numbers and so
 * their draws (sampler.c) */
int32_t pf_sample_rows(prefopt_dataset **out, prefopt_policy *policy,
                       const prefopt_dataset *prompts, const prefopt_sampler_options *options,
                       int64_t first, int64_t n);

/* ---- the two ways of the sampler
 *
 * Each draws options->n completions of each of those prompt rows into `samples`, an empty dataset;
 * on failure that holds anything. The options are checked, the policy has a space. */

/* Token by token (sampler_batch.c); the policy has next_logprobs. */
int32_t pf_sample_batch(prefopt_dataset *samples, prefopt_context *context,
                        const prefopt_policy *policy, const prefopt_dataset *prompts,
                        const prefopt_sampler_options *options, int64_t first, int64_t n);

/* Distinct ones, from the enumerated space (sampler_distinct.c). */
int32_t pf_sample_distinct(prefopt_dataset *samples, prefopt_context *context,
                           prefopt_policy *policy, const prefopt_dataset *prompts,
                           const prefopt_sampler_options *options, int64_t first, int64_t n);

/* ---- pair rules (pair_rules.c) */

/* A pair of a row's completions: places in the list of scores that were given. */
typedef struct {
    int64_t chosen, rejected;
    double label;
} pf_pair;

/* Called for each pair made. */
typedef int32_t pf_pair_fn(void *payload, const pf_pair *pair);

/* Makes the pairs of one row from the scores of its m distinct completions, finite, in the order in
 * which they were sampled, and adds to counts what
 * was made and left out. Random rules draw from (options->seed, row). Stops at, and returns, what
 * `made` returns if it is not 0. */
int32_t pf_make_pairs(const prefopt_ranker_options *options, int64_t row, int64_t m,
                      const double *score, pf_pair_fn *made, void *payload,
                      prefopt_rank_counts *counts);

/* ---- the ranker (ranker.c) */

/* Whether an own copy of the options is sound. ARGUMENT, NUMERIC. */
int32_t pf_ranker_check(const prefopt_ranker_options *options);
/* prefopt_rank by the scores that the samples have in their column, of which there is one for every
 * completion. The options are checked; counts is the library's own. */
int32_t pf_rank_scored(prefopt_dataset **out, const prefopt_dataset *samples,
                       const prefopt_ranker_options *options, prefopt_rank_counts *counts);

#endif
