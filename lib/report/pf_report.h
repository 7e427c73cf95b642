/* Internal face of the report room: the exact space that the reports share, and their checks. */
#ifndef PF_REPORT_H
#define PF_REPORT_H

#include "data/pf_dataset.h"
#include "math/pf_math.h"
#include "model/pf_model.h"
#include "prefopt/report.h"

/* All completions of the distinct prompts of a dataset, with what policy, reference and reward say
 * of them. Prompts are in order of first appearance; completion y of prompt x is sequence
 * x * n + y. Rows of weight 0 count nowhere: a prompt that has no other weighs 0. */
typedef struct {
    prefopt_context *context; /* the policy's, borrowed */
    int64_t n_prompts, n;     /* n: completions of each prompt */
    int64_t *prompt_of_row;   /* one a row of the data */
    double *prompt_weight;    /* n_prompts: total weight of its rows */
    double total_weight;      /* > 0 */
    prefopt_dataset *prompts; /* n_prompts rows of kind PROMPT */
    prefopt_dataset *all;     /* n_prompts rows of kind COMPLETIONS */
    prefopt_sequences view;   /* of `all`: n_prompts * n */
    const double *logp;       /* of the policy; in `all` */
    double *ref_logp, *score; /* NULL without a reference, a reward */
} pf_exact_space;

/* reference and reward may be NULL. Enumerates the space of `policy`. ARGUMENT when the data have
 * no row of positive weight. On failure there is nothing to destroy. */
int32_t pf_exact_space_create(pf_exact_space *space, const prefopt_dataset *data,
                              prefopt_policy *policy, const prefopt_reference *reference,
                              prefopt_reward *reward);
void pf_exact_space_destroy(pf_exact_space *space);

/* Asks a reference for every completion; its probabilities must sum to 1 within 1e-4 in each
 * prompt. ref_logp: n_prompts * n. */
int32_t pf_exact_reference(const pf_exact_space *space, const prefopt_reference *reference,
                           double *ref_logp);

/* support[x * n + y] = the weight with which rows of `data` (those the space was made from) hold
 * the completion. ARGUMENT when a row holds one that is not of the space. */
int32_t pf_exact_support(const pf_exact_space *space, const prefopt_dataset *data, double *support);

/* Share of prompt x in a mean over prompts. */
static inline double pf_exact_share(const pf_exact_space *space, int64_t x)
{
    return space->prompt_weight[x] / space->total_weight;
}

/* The soft-optimal policy of prompt x (n log-probabilities); log_z may be NULL. Names the prompt
 * when there is none. */
int32_t pf_exact_soft_optimal(const pf_exact_space *space, int64_t x, double beta, double *logp,
                              double *log_z);

/* sum exp(logp) value, where probability 0 counts nothing. value may be -INFINITY. */
double pf_exact_expectation(int64_t n, const double *logp, const double *value);

/* beta must be a finite number > 0. */
int32_t pf_report_check_beta(double beta);

/* Rows must be of kind PAIR, and one of them of positive weight. */
int32_t pf_report_check_pairs(const prefopt_dataset *pairs);

/* chosen[i], rejected[i] = each[2 i], each[2 i + 1]: the sequences of a dataset of pairs. */
void pf_report_split_sides(int64_t n_pairs, const double *each, double *chosen, double *rejected);

#endif
