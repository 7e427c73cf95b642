/* prefopt/strengths.h: strengths of items from comparisons and rankings: the exact fits of
 * Bradley-Terry (with ties) and Plackett-Luce with standard errors, for tables of counts.
 *
 *     prefopt_comparisons data = {.struct_size = sizeof data, .n_items = 7, .n = 42, ...};
 *     prefopt_strengths *fit;
 *     if (prefopt_strengths_fit(&fit, context, &data, NULL, NULL) == PREFOPT_OK)
 *         prefopt_strengths_values(fit, theta, std_error);
 */
#ifndef PREFOPT_STRENGTHS_H
#define PREFOPT_STRENGTHS_H

#include "loss.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct prefopt_strengths prefopt_strengths;

/* Row i: item first[i] met second[i]; label 1: first won, 0: second won, 0.5: a tie; weight[i] such
 * comparisons. Without a tie model any label in [0, 1] is that part of a win. Rows of weight 0 are
 * ignored; order and repetition of rows do not matter but for rounding and the bootstrap's draws.
 */
typedef struct prefopt_comparisons {
    uint32_t struct_size, reserved;
    int64_t n_items, n;            /* 1 .. 2^31 - 1, 0 .. 2^31 - 1 */
    const int32_t *first, *second; /* n, 0 .. n_items - 1, different */
    const double *weight;          /* n, >= 0; NULL: 1 */
    const double *label;           /* n; NULL: 1 */
} prefopt_comparisons;

/* Ranking i: items[offsets[i] .. offsets[i+1]), best first, all different; weight[i] such rankings.
 * A ranking may leave items out: it says nothing of them. Fewer than two items say nothing at all.
 */
typedef struct prefopt_rankings {
    uint32_t struct_size, reserved;
    int64_t n_items, n;
    const int64_t *offsets; /* n + 1 */
    const int32_t *items;
    const double *weight; /* n, >= 0; NULL: 1 */
} prefopt_rankings;

/* Covariance of the fitted strengths (and the tie parameter). H: minus the second derivatives of
 * the log-likelihood, plus the ridge on the strengths, at the fit; its inverse is the one on
 * strengths that sum to 0, and a reference item turns that into the covariance of differences to
 * it. */
enum prefopt_covariance {
    PREFOPT_COVARIANCE_INFORMATION = 0, /* H^-1 */
    /* H^-1 (sum of outer products of each comparison's, or ranking's, score) H^-1 (Huber 1967) */
    PREFOPT_COVARIANCE_SANDWICH = 1,
    /* Of refits on resampled data. In a replicate row i has a Poisson(weight[i]) number of
     * comparisons: for whole weights, each comparison counts Poisson(1) times (the Poisson form of
     * Efron's bootstrap). Draws depend on (seed, replicate, row) alone. Replicates without a finite
     * optimum are left out, counted in the summary and reported in the log: standard errors are
     * then too small. */
    PREFOPT_COVARIANCE_BOOTSTRAP = 2
};

typedef struct prefopt_strengths_options {
    uint32_t struct_size;
    int32_t tie_model; /* PREFOPT_TIE_NONE (default), DAVIDSON, RAO_KUPPER; comparisons alone */
    /* Maximises log-likelihood - 1/2 ridge * sum theta^2 over strengths that sum to 0; the tie
     * parameter has no prior. Default 0. */
    double ridge;
    /* Item whose strength is 0; -1 (default): strengths sum to 0. It shifts, nothing else. */
    int64_t reference;
    int32_t covariance; /* default INFORMATION */
    int32_t replicates; /* BOOTSTRAP: default 200 */
    uint64_t seed;      /* BOOTSTRAP */
    double tolerance;   /* norm of the gradient of the mean log-likelihood; default 1e-10 */
    /* n_items names for the error texts, borrowed for the call; NULL (default): item numbers. */
    const char *const *item_names;
} prefopt_strengths_options;

/* Errors: ARGUMENT, VERSION. Since 0.1. */
PREFOPT_API int32_t prefopt_strengths_options_init(prefopt_strengths_options *options,
                                                   uint32_t struct_size);

/* Fits by maximum likelihood (with ridge: maximum a posteriori) from comparisons or from rankings:
 * one of the two is NULL. With a = exp(theta):
 *
 *     comparisons  P(i beats j) = a_i / (a_i + a_j)                     (Bradley and Terry 1952)
 *     DAVIDSON     P(i beats j) = a_i / S, P(tie) = nu sqrt(a_i a_j) / S,
 *                  S = a_i + a_j + nu sqrt(a_i a_j), log_tie = log nu   (Davidson 1970)
 *     RAO_KUPPER   P(i beats j) = a_i / (a_i + nu a_j), log_tie = log nu > 0; the rest is P(tie)
 *     rankings     product over places of a_(item there) / (sum of a of the items from there on)
 *                                                                       (Plackett 1975)
 *
 * Newton's method; the same bits for any number of threads. Whether a finite optimum exists is
 * decided first: the win graph, ties counted both ways, must be strongly connected (Ford 1957;
 * Hunter 2004, Annals of Statistics 32), else UNBOUNDED, naming the items that were never compared
 * with the rest, never lost to it or never beat it; a ridge > 0 is the way out. With a tie model
 * there must be ties and wins, and without a ridge no levels such that every win is a step up and
 * every tie at most one: else log_tie has no finite optimum, ridge or not in the first case.
 *
 * The input is borrowed for the call; the caller owns *out, which keeps the sums it needs for
 * standard errors. Errors: ARGUMENT (field and row named), NUMERIC (NaN; the tolerance is out of
 * reach), UNBOUNDED, MEMORY, VERSION. Thread-safe. Since 0.1. */
PREFOPT_API int32_t prefopt_strengths_fit(prefopt_strengths **out, prefopt_context *context,
                                          const prefopt_comparisons *comparisons,
                                          const prefopt_rankings *rankings,
                                          const prefopt_strengths_options *options);

/* NULL is fine. Since 0.1. */
PREFOPT_API void prefopt_strengths_destroy(prefopt_strengths *fit);

/* theta, std_error: n_items each, or NULL. std_error of the reference item is 0. The first call
 * that needs the covariance (INFORMATION, SANDWICH) makes it, at a cost of n_items^3 operations and
 * 8 n_items^2 bytes kept (SANDWICH: three times that meanwhile), far above the fit's own for many
 * items; theta alone costs nothing. Thread-safe on one fit.
 * Errors: ARGUMENT, MEMORY, NUMERIC (information singular to rounding). Since 0.1. */
PREFOPT_API int32_t prefopt_strengths_values(const prefopt_strengths *fit, double *theta,
                                             double *std_error);

/* covariance: [n_items, n_items], of theta; made as for std_error.
 * Errors: ARGUMENT, MEMORY, NUMERIC. Thread-safe on one fit. Since 0.1. */
PREFOPT_API int32_t prefopt_strengths_covariance(const prefopt_strengths *fit, double *covariance);

typedef struct prefopt_strengths_summary {
    uint32_t struct_size;
    int32_t tie_model;
    int64_t n_items;
    int64_t iterations;
    double log_likelihood; /* without combinatorial constants, without the prior */
    double log_tie;        /* NaN without a tie model */
    double log_tie_std_error;
    double grad_norm;             /* of the (penalised) mean log-likelihood */
    int64_t replicates;           /* BOOTSTRAP: refits behind the standard errors; else 0 */
    int64_t replicates_unbounded; /* BOOTSTRAP: left out, as they have no finite optimum */
} prefopt_strengths_summary;

/* Errors: ARGUMENT, VERSION. Since 0.1. */
PREFOPT_API int32_t prefopt_strengths_summarise(const prefopt_strengths *fit,
                                                prefopt_strengths_summary *out);

#ifdef __cplusplus
}
#endif
#endif
