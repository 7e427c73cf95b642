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

/* Row i: item first[i] met second[i]; label 1: first won, 0: second won, 0.5: a tie (half a win
 * each without a tie model); weight[i] such comparisons. */
typedef struct prefopt_comparisons {
    uint32_t struct_size, reserved;
    int64_t n_items, n;
    const int32_t *first, *second; /* n, 0 .. n_items - 1, different */
    const double *weight;          /* n, >= 0; NULL: 1 */
    const double *label;           /* n; NULL: 1 */
} prefopt_comparisons;

/* Ranking i: items[offsets[i] .. offsets[i+1]), best first, all different; weight[i] such rankings.
 */
typedef struct prefopt_rankings {
    uint32_t struct_size, reserved;
    int64_t n_items, n;
    const int64_t *offsets; /* n + 1 */
    const int32_t *items;
    const double *weight; /* n, >= 0; NULL: 1 */
} prefopt_rankings;

enum prefopt_covariance {
    PREFOPT_COVARIANCE_INFORMATION = 0, /* inverse of the observed information */
    PREFOPT_COVARIANCE_SANDWICH = 1,    /* H^-1 (sum of score outer products) H^-1 (Huber 1967) */
    PREFOPT_COVARIANCE_BOOTSTRAP = 2    /* of refits on resampled comparisons */
};

typedef struct prefopt_strengths_options {
    uint32_t struct_size;
    int32_t tie_model;  /* PREFOPT_TIE_NONE (default), DAVIDSON, RAO_KUPPER; comparisons alone */
    double ridge;       /* maximises log-likelihood - 1/2 ridge * sum theta^2; default 0 */
    int64_t reference;  /* item whose strength is 0; -1 (default): strengths sum to 0 */
    int32_t covariance; /* default INFORMATION */
    int32_t replicates; /* BOOTSTRAP: default 200 */
    uint64_t seed;      /* BOOTSTRAP */
    double tolerance;   /* norm of the gradient of the mean log-likelihood; default 1e-10 */
} prefopt_strengths_options;

/* Errors: ARGUMENT, VERSION. Since 0.1. */
PREFOPT_API int32_t prefopt_strengths_options_init(prefopt_strengths_options *options,
                                                   uint32_t struct_size);

/* Fits by maximum likelihood (with ridge: maximum a posteriori) from comparisons or from rankings:
 * one of the two is NULL. Whether a finite optimum exists is decided first (the win graph must be
 * strongly connected: Ford 1957; Hunter 2004, Annals of Statistics 32): otherwise UNBOUNDED, naming
 * the items that never lose to the rest; a ridge > 0 is the way out. The caller owns *out. Errors:
 * ARGUMENT (row named), NUMERIC, UNBOUNDED, MEMORY, VERSION. Since 0.1. */
PREFOPT_API int32_t prefopt_strengths_fit(prefopt_strengths **out, prefopt_context *context,
                                          const prefopt_comparisons *comparisons,
                                          const prefopt_rankings *rankings,
                                          const prefopt_strengths_options *options);

/* NULL is fine. Since 0.1. */
PREFOPT_API void prefopt_strengths_destroy(prefopt_strengths *fit);

/* theta, std_error: n_items each, or NULL. std_error of the reference item is 0.
 * Errors: ARGUMENT. Since 0.1. */
PREFOPT_API int32_t prefopt_strengths_values(const prefopt_strengths *fit, double *theta,
                                             double *std_error);

/* [n_items, n_items] covariance of theta. Errors: ARGUMENT. Since 0.1. */
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
