/* Internal face of the loss room's pair losses: checked inputs, and the one place that turns the
 * losses and slopes of a chunk of pairs into the caller's outputs. */
#ifndef PF_LOSS_H
#define PF_LOSS_H

#include "base/pf_base.h"
#include "math/pf_math.h"
#include "prefopt/loss.h"

/* Pairs are worked through in chunks: fixed, so that sums do not depend on anything but n, and
 * small, so that a chunk's temporaries stay in the first-level cache. */
enum { PF_CHUNK = 256 };

/* Differences, products and squares of numbers up to this do not overflow. */
#define PF_MODERATE 1e100

/* What a variant makes use of. The first group are arrays of prefopt_pair_scores, the second
 * fields of prefopt_dpo_options. */
enum {
    PF_USES_REFERENCE = 1 << 0,
    PF_USES_WEIGHT = 1 << 1,
    PF_USES_LABEL = 1 << 2,
    PF_USES_MARGIN = 1 << 3,
    PF_USES_LENGTHS = 1 << 4, /* and needs them */
    PF_USES_BETA = 1 << 5,
    PF_USES_SMOOTHING = 1 << 6,
    PF_USES_GAMMA = 1 << 7,
    PF_USES_DELTA = 1 << 8,
    PF_USES_TAU = 1 << 9,
    PF_USES_LAMBDA = 1 << 10,
    PF_USES_DIVERGENCE = 1 << 11
};

/* The caller's arrays after all checks. */
typedef struct {
    prefopt_pair_scores in;
    prefopt_pair_loss out;      /* a copy, for its arrays */
    prefopt_pair_loss *callers; /* where the results go */
    const char *variant;
    double total_weight;
    /* Every score, weight and margin is at most PF_MODERATE: no difference of theirs is NaN. */
    bool moderate;
} pf_pairs;

/* Reads both structs and checks everything that can be said before the first loss is computed;
 * errors name `variant`. Writes nothing of the caller's. */
int32_t pf_pairs_read(pf_pairs *pairs, const prefopt_pair_scores *in, prefopt_pair_loss *out,
                      uint32_t uses, const char *variant);

static inline double pf_pair_weight(const pf_pairs *pairs, int64_t i)
{
    return pairs->in.weight == NULL ? 1 : pairs->in.weight[i];
}
static inline double pf_pair_label(const pf_pairs *pairs, int64_t i)
{
    return pairs->in.label == NULL ? 1 : pairs->in.label[i];
}
static inline double pf_pair_margin(const pf_pairs *pairs, int64_t i)
{
    return pairs->in.margin == NULL ? 0 : pairs->in.margin[i];
}

/* Pairs first .. first + n - 1 (n <= PF_CHUNK): their losses must have values where their weight is
 * positive. NUMERIC names the first that has none. */
int32_t pf_pairs_check_losses(const pf_pairs *pairs, int64_t first, int64_t n, const double *loss);

/* Writes each[first ...] and the gradients of a chunk, from the pairs' losses and their slopes with
 * respect to chosen and rejected; adds weight * loss to *sum. */
void pf_pairs_write_chunk(const pf_pairs *pairs, int64_t first, int64_t n, const double *loss,
                          const double *slope_chosen, const double *slope_rejected, pf_sum *sum);

/* Writes mean, and grad_log_tie where the caller's struct has room for it. */
void pf_pairs_write_mean(const pf_pairs *pairs, const pf_sum *sum, double grad_log_tie);

/* Scans for NaN and +INFINITY (and -INFINITY unless `never_is_legal`), NUMERIC naming the array
 * and index; *moderate becomes false when some |x| is above PF_MODERATE. x NULL: fine. */
int32_t pf_check_values(const char *name, int64_t n, const double *x, bool never_is_legal,
                        bool *moderate);

/* Weights: finite, >= 0, or NULL for n ones. *total: their sum. */
int32_t pf_check_weights(int64_t n, const double *weight, double *total);

/* n, and `array` not NULL unless n = 0. */
int32_t pf_check_array(const char *name, int64_t n, const void *array);

/* The sum of n terms in eight fixed lanes. */
double pf_lane_sum(int64_t n, const double *x);

/* 0 for a slope that is infinite or has no value. */
static inline double pf_finite_or_zero(double x) { return fabs(x) <= DBL_MAX ? x : 0; }

/* w * x where a weight of 0 removes an infinite x. */
static inline double pf_weighted(double w, double x) { return w == 0 ? 0 : w * x; }

/* ---- the DPO family (dpo.c, dpo_links.c, aot.c) */

/* A link: loss[i] and slope[i] = d loss / d x of a difference x. Not overlapping. */
typedef void pf_link_fn(const prefopt_dpo_options *o, int64_t n, const double *restrict x,
                        double *restrict loss, double *restrict slope);

/* A loss of both log-ratios: d is a - b reduced by the margin; slope_a and slope_b are total (also
 * through d). */
typedef void pf_two_sided_fn(const prefopt_dpo_options *o, int64_t n, const double *restrict a,
                             const double *restrict b, const double *restrict d,
                             double *restrict loss, double *restrict slope_a,
                             double *restrict slope_b);

/* Where a and b lie. */
enum pf_coordinate {
    PF_LOG_RATIO,   /* log pi - log pi_ref, or a divergence's score of it */
    PF_PER_TOKEN,   /* the same divided by the length */
    PF_LOG_ODDS,    /* log-odds of the mean token log-probability */
    PF_SORTED_DIFF, /* AOT */
    PF_SORTED_BOTH  /* AOT_UNPAIRED */
};

typedef struct {
    const char *name; /* "DPO_SIGMOID", for error texts */
    uint32_t uses;
    enum pf_coordinate coordinate;
    pf_link_fn *link; /* one of the two */
    pf_two_sided_fn *two_sided;
} pf_dpo_variant;

/* The row of a variant; NULL if there is none. */
const pf_dpo_variant *pf_dpo_find(int32_t variant);

/* The sorted variants. */
int32_t pf_dpo_sorted(const prefopt_dpo_options *o, const pf_dpo_variant *variant,
                      const pf_pairs *pairs);

#endif
