/* Internal: the likelihood of comparisons, summed by pair. */
#ifndef PF_PAIR_LIKELIHOOD_H
#define PF_PAIR_LIKELIHOOD_H

#include "train/pf_strengths.h"

typedef struct {
    pf_likelihood base;
    bool shares; /* a clone: index arrays belong to the original */
    bool soft;   /* some label is neither 0 nor 1 */
    int64_t n_pairs;
    double *block;  /* its own arrays of n_pairs, in one for fewer page faults */
    int32_t *a, *b; /* a < b, sorted by (a, b) */
    /* Sums of weight by outcome. Without a tie model win and lose are sums of weight * label and
     * weight * (1 - label), and tie, NULL if not soft, of weight * label * (1 - label). */
    double *win, *lose, *tie;
    double *dd, *dt; /* n_pairs; dt with a tie model alone */
    double tt;
    int64_t *chunk;   /* n_chunks + 1: first pair of each */
    double *chunk_tt; /* n_chunks */
    /* Rows as given, for resampling; NULL unless asked for. */
    int64_t n_rows;
    int64_t *row_pair; /* -1: weight 0 */
    double *row_weight, *row_label /* P(a wins) */;
} pf_pair_likelihood;

static inline bool pf_has_ties(const pf_pair_likelihood *p)
{
    return p->base.tie_model != PREFOPT_TIE_NONE;
}

/* pair_likelihood.c */
extern const pf_likelihood_ops pf_pair_likelihood_ops;

/* pair_rows.c */
void pf_pair_likelihood_destroy(pf_likelihood *l);
pf_likelihood *pf_pair_likelihood_clone(pf_likelihood *l);
void pf_pair_likelihood_resample(pf_likelihood *l, uint64_t seed, uint64_t replicate);

/* ---- one pair with ties, d = x[a] - x[b], t the tie parameter (tie_terms.c) */

/* First derivatives (rd, rt) and minus the second ones (dd, dt, tt) of one pair's log-likelihood.
 */
typedef struct {
    double rd, rt, dd, dt, tt;
} pf_tie_terms;

/* Scores of one outcome each (a wins, b wins, tie) with respect to d and t. */
typedef struct {
    double win_d, win_t, lose_d, lose_t, tie_d, tie_t;
} pf_outcome_scores;

pf_outcome_scores pf_tie_scores_of(int32_t tie_model, double d, double t);
pf_tie_terms pf_tie_terms_of(int32_t tie_model, double d, double t, double win, double lose,
                             double tie);

#endif
